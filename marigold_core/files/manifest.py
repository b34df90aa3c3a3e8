"""The manifest of every result: what it was made from, with what, and what its numbers mean.

It holds no time, no path and nothing of the photo's metadata, so the same run writes the same bytes.
"""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from marigold_core import __version__
from marigold_core.calibration.calibrate import Hints, Measured
from marigold_core.errors import ExportError
from marigold_core.files.presets import SaveFor, advice
from marigold_core.geometry.camera import field_of_view, focal_length_px
from marigold_core.images.colormaps import value_range
from marigold_core.images.intrinsics import LayerName
from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import ColourSettings, DepthReading, FieldOfView, Frozen, MeshSettings, Settings

# 2 added how, device, dtype, machine; 3 hints; 4 colours, camera, save_for, prefix, views, outlines, layers;
# all are read
SCHEMA_VERSION = 4

_LIBRARIES = (  # that decide the bytes of files
    *("torch", "diffusers", "transformers", "numpy", "scipy", "pillow", "matplotlib", "OpenEXR"),
    *("trimesh", "fast-simplification"),
)
_OF_PREDICTION = (  # what a manifest takes over as it is
    *("checkpoint", "checkpoint_sha256", "modality", "kind", "space", "convention", "settings", "fov_x_deg"),
    *("tiny_decoder", "torch_threads", "device", "dtype", "tiled", "machine"),
)
_AXES = "mesh.glb and points.ply: y up, the camera at the origin looks along -z; relief.stl: z up, millimetres"


def _name(name: str, info: ValidationInfo) -> str:
    """Write a name as text, where bytes that are none are replaced; read, it is as this locale holds names."""
    if info.mode == "json":
        return os.fsdecode(name.encode())
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _in_folder(name: str) -> str:
    """Refuse a name that leads out of the folder: files that a manifest lists are removed with their result."""
    if {"/", "\\"} & {*name} or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a file")
    return name


Name = Annotated[str, AfterValidator(_name)]
FileName = Annotated[Name, AfterValidator(_in_folder)]


class _Record(BaseModel):
    model_config = Frozen.model_config  # without Frozen's constructor, through which JSON could not be read back


class Range(_Record):
    """An inclusive range of values: the first and the last."""

    low: float
    high: float  # below ``low`` where near is white


class PhotoRecord(_Record):
    """The photo as decoded: upright, 8 bits of sRGB; the hash is of its [H, W, 3] bytes, not of the file."""

    width: int
    height: int
    sha256: str
    note: str | None = None  # of the decoder: what was read of the file, and how
    given_size: tuple[int, int] | None = None  # (height, width) of the file's photo where it was read smaller


class CameraRecord(_Record):
    """The pinhole camera of the geometry, in pixels of the map, (0, 0) being the corner of its top left pixel."""

    fov_x_deg: float
    origin: Literal["given", "photo", "assumed"]  # set or measured by a person, from EXIF, or a usual wide lens
    fx: float
    fy: float
    cx: float
    cy: float


def _named_colours(given: Any) -> Any:
    """Read what older schemas have: the name of the colour map alone."""
    return {"colormap": given} if isinstance(given, str) else given


def _how_made(settings: Any) -> str:
    """Tell the settings of a run from how a depth map from elsewhere was read, as values or as JSON has them."""
    return (
        "given"
        if isinstance(settings, DepthReading) or (isinstance(settings, dict) and "quantity" in settings)
        else "run"
    )


class Manifest(_Record):
    """The record of one run. ``Manifest.model_validate_json(text)`` reads it back."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    checkpoint: Name  # "given: NAME" for a depth map from elsewhere, whose file then has the hash
    checkpoint_sha256: str
    modality: str
    kind: Kind
    space: Space
    convention: str
    how: str | None = None  # the hints that ``kind`` rests on; None: it is what the checkpoint itself claims
    hints: Hints | None = None  # the same to be read again: a replay solves them anew
    axes: str = _AXES
    value_range: Range  # least and greatest value of the map
    png16_range: Range | None  # the depths of pixels 0 and 65535 in depth_16bit.png
    colours: Annotated[  # of depth_color.png
        ColourSettings, BeforeValidator(_named_colours), Field(validation_alias=AliasChoices("colours", "colormap"))
    ]
    settings: Annotated[  # of the run, or how a depth map from elsewhere was read
        Annotated[Settings, Tag("run")] | Annotated[DepthReading, Tag("given")], Discriminator(_how_made)
    ]
    mesh: MeshSettings
    fov_x_deg: FieldOfView | None  # from EXIF, or as given for a calibration
    camera: CameraRecord | None = None  # of depth, from schema 4 on
    photo: PhotoRecord
    save_for: dict[SaveFor, str] = {}  # programs that files were written for, and what to tick there
    prefix: Name = ""  # what the name of every file begins with
    layers: dict[LayerName, str] = {}  # of intrinsics, in the order of their channels: what the numbers of each are
    tiny_decoder: Name | None = None  # name and hash of the tiny autoencoder that decoded members
    uncertainty: str | None = None  # what it is, where the result has one
    missing_share: float = 0.0  # of pixels that a depth map from elsewhere has no value for: NaN in depth.npy and EXR
    files: dict[FileName, str]  # name -> SHA-256 of its bytes
    left_out: dict[FileName, str] = {}  # files that the depth allows none of, where no formats were asked for -> why
    versions: dict[str, str]
    torch_threads: Annotated[int, Field(ge=1)] | None  # of the run; None where torch computed nothing
    device: str | None = None  # "cpu", "cuda" or "mps"
    dtype: str | None = None  # of the weights
    tiled: bool = False  # whether memory ran out, so that the autoencoder worked in tiles
    machine: str | None = None  # of the run: system, instructions of the processor and GPU, which decide the last bits


def describe(
    prediction: Prediction,
    mesh: MeshSettings,
    colours: ColourSettings,
    files: dict[str, str],
    save_for: Sequence[SaveFor] = (),
    prefix: str = "",
    left_out: dict[str, str] | None = None,
) -> Manifest:
    """Prediction, what its files were made with, and their hashes by name -> ``Manifest``."""
    height, width = prediction.photo.shape[:2]
    return Manifest(
        **{name: getattr(prediction, name) for name in _OF_PREDICTION},
        how=_how(prediction),
        hints=prediction.hints if isinstance(prediction, Measured) else None,
        value_range=Range(low=float(prediction.values.min()), high=float(prediction.values.max())),
        png16_range=_png16_range(prediction, colours) if prediction.modality == "depth" else None,
        colours=colours,
        mesh=mesh,
        camera=_camera(prediction, mesh) if prediction.modality == "depth" else None,
        photo=PhotoRecord(
            width=width,
            height=height,
            sha256=sha256(np.ascontiguousarray(prediction.photo).data),
            note=prediction.note,
            given_size=prediction.given_size,
        ),
        save_for={name: advice(name, prediction) for name in save_for},
        prefix=prefix,
        layers={layer.name: layer.meaning for layer in prediction.layers},
        uncertainty=None if prediction.uncertainty is None else prediction.uncertainty_meaning,
        missing_share=0.0 if prediction.missing is None else float(prediction.missing.mean()),
        files=files,
        left_out=left_out or {},
        versions=versions(),
    )


def left_out_of(path: Path) -> str | None:
    """Say which files a result lacks by its manifest or record, and why; None where it has all."""
    left_out: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["left_out"]
    return " ".join(f"{name} was left out: {why}" for name, why in left_out.items()) or None


def _png16_range(prediction: Prediction, colours: ColourSettings) -> Range:
    near, far = value_range(prediction)
    return Range(low=far, high=near) if colours.invert else Range(low=near, high=far)


def _camera(prediction: Prediction, mesh: MeshSettings) -> CameraRecord:
    height, width = prediction.photo.shape[:2]
    fov_x_deg = field_of_view(prediction, mesh)
    focal_px = focal_length_px(width, fov_x_deg)
    measured = isinstance(prediction, Measured) and prediction.hints.fov_x_deg is not None
    given = mesh.fov_x_deg is not None or measured
    origin = "given" if given else "assumed" if prediction.fov_x_deg is None else "photo"
    return CameraRecord(fov_x_deg=fov_x_deg, origin=origin, fx=focal_px, fy=focal_px, cx=width / 2, cy=height / 2)


def claim(prediction: Prediction) -> str:
    """Describe what the numbers of a prediction mean and what that rests on, in one line for a file's comment."""
    how = _how(prediction)
    return f"{prediction.kind}: {prediction.convention}" + (f"; {how}" if how else "")


def _how(prediction: Prediction) -> str | None:
    return prediction.how if isinstance(prediction, Measured) else None


def versions() -> dict[str, str]:
    """List the versions of Python, of this package and of the libraries that decide its numbers; imports none."""
    found = {"python": platform.python_version(), "marigold_core": __version__}
    return found | {name: metadata.version(name) for name in _LIBRARIES}


def sha256_of(path: Path) -> str:
    """Hash a file as ``sha256``. Raises: ExportError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{path.name} cannot be read again: {error.strerror}.") from error


def sha256(content: bytes | memoryview) -> str:
    """Hash bytes -> SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
