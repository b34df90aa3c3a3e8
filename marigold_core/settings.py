"""The settings of every surface, each stated once: name, range, default and help text.

Sliders, command line options, HTTP arguments and the manifest are all made from these models, so a default
or a bound changes in one line. Importing this module costs no torch.
"""

import reprlib
from types import UnionType
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from marigold_core.errors import SettingsError

Format = Literal["npy", "png16", "color", "uncertainty", "normals", "glb", "ply", "stl", "exr"]
Colormap = Literal["Spectral", "cividis", "viridis", "inferno", "magma", "turbo", "gray"]
DepthKind = Literal["affine", "scale", "metric"]
Kind = Literal[DepthKind, "unit-vector", "unit-range", "class"]  # what may be claimed about the values of a map
Space = Literal["depth", "log", "disparity"]  # the quantity that values are linear in
StereoLayout = Literal["parallel", "cross-eyed", "parallel-half", "cross-eyed-half", "anaglyph"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Views = Literal["photo", "mirrored", "mirrored-rescaled"]
Decoder = Literal["own", "preview", "tiny"]
OVERLAP = 0.25  # of neighbouring tiles, as a share of their side
DEFAULT_COLORMAP: Colormap = "Spectral"  # what the Marigold papers show depth in


class Frozen(BaseModel):
    """A value that is checked when it is made and never changes; wrong values raise ``SettingsError``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(sentence(error, type(self))) from None

    def changed(self, **values: Any) -> Self:
        """Make the same value with other values for some fields; all are checked again."""
        return type(self)(**{**self.model_dump(), **values})


Steps = Annotated[int, Field(ge=1, le=50)]
Pixels = Annotated[int, Field(ge=0, le=2048, multiple_of=8)]
FieldOfView = Annotated[float, Field(ge=0.1, le=150)]  # degrees that a pinhole camera sees: from long zooms up


class Settings(Frozen):
    """What one prediction is made with. ``None`` stands for the checkpoint's own default."""

    num_inference_steps: Steps | None = Field(
        default=None, description="denoising steps a member; more refine, 1 is fastest"
    )
    ensemble_size: int = Field(
        default=1, ge=1, le=20, description="independent members to fuse; 3 or more always give uncertainty"
    )
    processing_resolution: Pixels | None = Field(
        default=None, description="longest edge the network sees, pixels; 0 is the photo's own size"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="member k draws its noise from (seed, k)")
    batch_size: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None, description="members in one forward pass; by default as many as fit in memory"
    )
    views: Views = Field(
        default="photo",
        description="what the members see in turn: the photo, its mirror image too, or both in other sizes as well",
    )
    tiles_per_side: int = Field(
        default=1,
        ge=1,
        le=4,
        description="for large photos: 2 adds the fine detail of 2 x 2 overlapping tiles, each seen as large as the"
        " whole photo, in 5 times the time; 1 is none",
    )
    follow_outlines: bool = Field(
        default=False, description="move jumps of depth onto the outlines of the photo, and make them steep"
    )
    decoder: Decoder = Field(
        default="own",
        description="what decodes the members: the checkpoint's own autoencoder, before it a tiny one for a preview, or"
        " the tiny one alone, which is several times as fast and coarser",
    )

    @model_validator(mode="after")
    def _native_or_usable(self) -> Self:
        if self.processing_resolution is not None and 0 < self.processing_resolution < 16:
            raise ValueError("processing_resolution must be 0 (the photo's own size) or 16 to 2048")
        return self

    def __eq__(self, other: object) -> bool:
        """Compare the values: resolved or not, the same settings are equal."""
        return isinstance(other, Settings) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Hash the values, as ``__eq__`` compares them."""
        return hash(tuple(self.model_dump().items()))

    def resolved(self, steps: int, resolution: int) -> "ResolvedSettings":
        """Fill in what the checkpoint decides: its own ``steps`` and ``resolution``, where none are given."""
        given: dict[str, Any] = {name: value for name, value in self.model_dump().items() if value is not None}
        own: dict[str, Any] = {"num_inference_steps": steps, "processing_resolution": resolution}
        return ResolvedSettings(**{**own, **given})


class ResolvedSettings(Settings):
    """Settings in which nothing is left to the checkpoint: what a run was, or will be, made with."""

    # The same fields without None: a frozen model is only read, so narrower types are safe.
    num_inference_steps: Steps = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description=Settings.model_fields["num_inference_steps"].description
    )
    processing_resolution: Pixels = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description=Settings.model_fields["processing_resolution"].description
    )


def check_type(name: str, value: object, kind: type | UnionType, words: str = "") -> None:
    """Refuse an argument of a public function that is of another type, called ``words``. Raises: SettingsError."""
    if not isinstance(value, kind):
        wanted = words or f"{cast(type, kind).__name__}(...)"
        raise SettingsError(f"{name} must be {wanted}, but got {reprlib.repr(value)}.")


def check_order(low_name: str, low: float, high_name: str, high: float, advice: str = "") -> None:
    """Refuse the ends of a range that are equal or exchanged. Raises: ValueError, which models turn into theirs."""
    if low >= high:
        raise ValueError(f"{low_name} must be below {high_name}, but got {low:g} and {high:g}{advice}")


class SurfaceSettings(Frozen):
    """How far near and far are apart, and where a surface ends."""

    near_ratio: Annotated[float, Field(ge=0.01, le=0.99)] | None = Field(
        default=None,
        description="nearest depth over farthest, which affine depth lacks; by default 0.25, more for a telephoto lens",
    )
    edge_cut: float = Field(
        default=0.2, ge=0, le=1, description="cut triangles at depth jumps above this share; 0 keeps all"
    )


class CameraSettings(SurfaceSettings):
    """How depth becomes distances in front of one camera."""

    fov_x_deg: FieldOfView | None = Field(
        default=None,
        description="horizontal field of view, degrees; by default from EXIF, else 55 along the longer edge",
    )
    smoothing: float = Field(
        default=0.0, ge=0, le=0.2, description="level bumps below this share of the depth, edges stay; 0 is none"
    )


class ClippedSettings(SurfaceSettings):
    """Which part of a surface is kept, and how finely: all that a panorama's mesh depends on."""

    near_clip: float = Field(
        default=0.0, ge=0, le=0.95, description="leave out what is nearer, as a share of the depth range"
    )
    far_clip: float = Field(
        default=1.0, ge=0.05, le=1, description="leave out what is farther, as a share of the depth range"
    )
    max_triangles: int = Field(
        default=200_000, ge=1_000, le=4_000_000, description="simplify to this many triangles; points: twice as many"
    )

    @model_validator(mode="after")
    def _something_between_the_clips(self) -> Self:
        check_order("near_clip", self.near_clip, "far_clip", self.far_clip)
        return self


class FrameSettings(ClippedSettings, CameraSettings):
    """How depth becomes meshes and points."""


class ReliefSettings(Frozen):
    """The size of what is printed."""

    relief_mm: float = Field(
        default=100.0, ge=10, le=1000, description="longest edge of the printed relief, millimetres"
    )
    relief_height_mm: float = Field(
        default=20.0, ge=1, le=200, description="from its farthest to its nearest point, millimetres"
    )
    relief_base_mm: float = Field(
        default=3.0, ge=0.5, le=20, description="plate under the relief's farthest point, millimetres"
    )


class StereoSettings(Frozen):
    """What a stereo pair is like."""

    stereo_layout: StereoLayout = Field(
        default="parallel",
        description="of a stereo pair: left eye left or right, full or half width, red and cyan",
    )
    stereo_eye_distance: float = Field(
        default=0.03,
        ge=0.001,
        le=0.2,
        description="distance of the eyes over the nearest depth; usual is 1/30",
    )
    stereo_convergence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="depth that lies on the screen, a share of the depth range; 0 is nearest",
    )


class GivenMeshSettings(StereoSettings, ReliefSettings, FrameSettings):
    """How a depth map from elsewhere becomes geometry."""


class MeshSettings(GivenMeshSettings):
    """How depth becomes geometry. Its parts serve what not all of it matters to."""

    uncertainty_cut: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="leave out where the uncertainty is a larger share of the depth range; 0 keeps all",
    )


class ColourSettings(Frozen):
    """How depth is coloured, on the page and in ``depth_color.png``; ``invert`` holds for ``depth_16bit.png`` too."""

    colormap: Colormap = Field(default=DEFAULT_COLORMAP, description="colours of the depth picture")
    range_from: float = Field(
        default=0.0, ge=0, le=1, description="share of the depth range; all that is nearer takes the first colour"
    )
    range_to: float = Field(
        default=1.0, ge=0, le=1, description="share of the depth range; all that is farther takes the last colour"
    )
    invert: bool = Field(
        default=False, description="near takes the last colour and far the first; in 16 bits near is white"
    )

    @model_validator(mode="after")
    def _something_in_the_range(self) -> Self:
        check_order("range_from", self.range_from, "range_to", self.range_to, "; invert swaps near and far")
        return self


class DepthReading(Frozen):
    """What the values of a depth map from elsewhere mean. ``None`` stands for what its file states, else the usual."""

    quantity: Space | None = Field(
        default=None,
        description="what the values of the depth map are linear in; disparity is 1 / depth. Where nothing says so,"
        " depth, or disparity if greater values are nearer",
    )
    greater: Literal["farther", "nearer"] | None = Field(
        default=None,
        description="where greater values lie; where nothing says so, farther, of disparity nearer",
    )
    kind: DepthKind | None = Field(
        default=None,
        description="what is known of the values: neither scale nor shift (affine), that 0 is the camera (scale), or"
        " metres (metric). Where nothing says so, metres if there is a unit, else affine",
    )
    unit_m: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="unit: metres of depth where the value is 1; 0.001 for millimetres, 1 for metres and 1 / metres",
    )
    measured: Literal["axis", "ray"] | None = Field(
        default=None,
        description="along the view's axis, as depth is, or along each ray, straight from the camera; where nothing"
        " says so, along the axis",
    )

    @model_validator(mode="after")
    def _of_one_meaning(self) -> Self:
        if self.unit_m is not None and self.kind not in (None, "metric"):
            raise ValueError(f"unit_m makes metres, but kind is {self.kind}; leave one of them out")
        if self.quantity and self.kind in ("scale", "metric") and self.greater not in (None, self.usual_greater):
            raise ValueError(f"{self.quantity} of kind {self.kind} is {self.usual_greater} where it is greater")
        return self

    @property
    def usual_greater(self) -> Literal["farther", "nearer"]:
        """Where greater values of the quantity lie, unless the map was inverted."""
        return "nearer" if self.quantity == "disparity" else "farther"


PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"num_inference_steps": 1, "ensemble_size": 1},
    "balanced": {"num_inference_steps": 4, "ensemble_size": 1},
    "careful": {"num_inference_steps": 4, "ensemble_size": 10},
    "detailed": {"num_inference_steps": 4, "ensemble_size": 4, "tiles_per_side": 2, "follow_outlines": True},
}


def tile_span(per_side: int) -> float:
    """How many sides of a tile make a side of the photo."""
    return per_side - (per_side - 1) * OVERLAP


def tile_size(photo_size: tuple[int, int], per_side: int) -> tuple[int, int]:
    """(height, width) of a tile of a photo [H, W], rounded."""
    height, width = (max(1, round(side / tile_span(per_side))) for side in photo_size)
    return height, width


def default(model: type[BaseModel], name: str) -> Any:
    """The one default of a field, for widgets and signatures."""
    return model.model_fields[name].get_default()


def help_text(model: type[BaseModel], name: str) -> str:
    """The one description of a field."""
    return model.model_fields[name].description or ""


def bounds(model: type[BaseModel], name: str) -> tuple[float, float]:
    """The inclusive range of a numeric field, read from its JSON schema: ``(low, high)``."""
    schema = model.model_json_schema()["properties"][name]
    for part in [schema, *schema.get("anyOf", [])]:
        if "minimum" in part:
            return part["minimum"], part["maximum"]
    raise KeyError(f"{model.__name__}.{name} has no range")


def sentence(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first fault of a pydantic error as one plain sentence: field, received value, what is accepted.

    ``model`` is that of the fields, whose titles name the items of a list of fixed length.
    """
    fault = error.errors()[0]
    name = next((str(part) for part in fault["loc"] if isinstance(part, str)), "")
    if fault["type"] == "extra_forbidden":
        return f"Unknown setting {name!r}."
    if fault["type"] == "value_error":
        return f"{fault['msg'].removeprefix('Value error, ').rstrip('.')}."
    is_list = isinstance(fault["input"], list | tuple)
    if fault["type"] == "missing" and not is_list:
        return f"{name} is missing."
    message = fault["msg"].removeprefix("Input should be ")
    if not is_list:
        message = message.replace("valid tuple", "list")
    elif fault["type"] in ("missing", "too_short", "too_long"):
        message = _titles(name, model) or _count(error)
    received = " ".join(reprlib.repr(fault["input"]).split())  # short and on one line, whatever was passed
    return f"{name} must be {message}, but got {received}."


def _titles(name: str, model: type[BaseModel] | None) -> str:
    """Name the items of a list of fixed length, x,y; nothing where they have no titles."""
    field: dict[str, Any] = model.model_json_schema()["properties"].get(name, {}) if model else {}
    items = [item for one in [field, *field.get("anyOf", [])] for item in one.get("prefixItems", [])]
    return ",".join(item["title"] for item in items if "title" in item)


def _count(error: ValidationError) -> str:
    """Say how many values a list takes that has others."""
    faults = error.errors()
    limits: dict[str, Any] = faults[0].get("ctx", {})
    missing = [int(fault["loc"][-1]) for fault in faults if fault["type"] == faults[0]["type"] == "missing"]
    most = limits.get("max_length", 0)
    bound, count = ("at most ", most) if most else ("at least ", limits.get("min_length", 1))
    if missing:  # of a list of fixed length
        bound, count = "", max(missing) + 1
    return f"a list of {bound}{count} value{'s' * (count != 1)}"
