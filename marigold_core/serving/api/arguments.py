"""What endpoints take: the models beside the settings, how fields become arguments, and how values are read again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast, get_args

from pydantic import Field

from marigold_core.calibration.anchors import ANCHOR_FORM, LENGTH_FORM, PATCH_FORM, Along, check_numbers
from marigold_core.calibration.calibrate import HintFields, Hints, Method, check_guiding, hints_of
from marigold_core.checkpoints.registry import default_checkpoint
from marigold_core.comparison.sweep import Comparison
from marigold_core.errors import CalibrationError
from marigold_core.files.presets import SAVE_FOR, SaveFor
from marigold_core.files.reader import from_depth
from marigold_core.prediction import Prediction
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import shared_comparison
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, DepthReading, Format, Frozen, MeshSettings, help_text

Arguments = Mapping[str, Any]  # values of a call by name
Model = TypeVar("Model", bound=Frozen)


class DepthOutput(Frozen):
    """What makes a depth map, and what is returned of it."""

    checkpoint: str | None = Field(None, description="a name that the page offers; by default the server's own")
    formats: tuple[Format, ...] | None = Field(None, description="files to return; by default npy, png16 and color")
    save_for: tuple[SaveFor, ...] | None = Field(None, description=SAVE_FOR)


class MeshOutput(Frozen):
    """What makes a shape, and what is returned of it."""

    checkpoint: str | None = Field(None, description=help_text(DepthOutput, "checkpoint"))
    formats: tuple[Literal["glb", "ply", "stl"], ...] | None = Field(
        None, description="glb is a textured mesh, ply coloured points, stl a relief to print; by default glb"
    )


class GivenOutput(Frozen):
    """What is returned of a depth map from elsewhere."""

    formats: tuple[Format, ...] | None = Field(None, description=help_text(DepthOutput, "formats"))
    save_for: tuple[SaveFor, ...] | None = Field(None, description=SAVE_FOR)


class CompareOutput(Frozen):
    """What a comparison compares beside settings, and its colours."""

    checkpoints: tuple[str, ...] | None = Field(
        None, description="names that the page offers; by default the server's own"
    )
    colormap: Colormap = Field(DEFAULT_COLORMAP, description="the colours of the sheet")


class EffectOutput(Frozen):
    """What makes depth that something else is made of."""

    checkpoint: str | None = Field(None, description=help_text(DepthOutput, "checkpoint"))


def read_given(given: Arguments) -> Prediction:
    """Read the depth map from elsewhere. Raises: ImageError, SettingsError."""
    fov_x_deg = take(MeshSettings, given).fov_x_deg
    return from_depth(given["photo"], given["depth"], take(DepthReading, given), fov_x_deg=fov_x_deg)


def read_checkpoint(given: Arguments) -> str:
    """Read the name of a call's checkpoint, by default the server's own. Raises: CheckpointError."""
    return check_checkpoint(given["checkpoint"] or default_checkpoint())


@dataclass(frozen=True)
class Parameter:
    """One argument of an endpoint: a field of a model."""

    name: str
    default: Any
    description: str
    schema: dict[str, Any]  # its JSON schema: type and range
    example: Any = None  # what the API page prints, where an argument has to be given, though null may be given for it


def fields(model: type[Frozen], *names: str) -> list[Parameter]:
    """List fields of a model as arguments, by default all of them."""
    return [_parameter(model, name) for name in names or model.model_fields]


def hint_arguments(example: list[list[float]] | None = None) -> list[Parameter]:
    """List the hints as arguments; with an ``example`` known depths have to be given, or null for them."""
    anchors, *others = fields(HintFields[list[list[float]]])
    if example:
        about = f"{anchors.description}; null where other hints are given"
        anchors = replace(anchors, example=example, description=about)
    return [anchors, *others]


def _parameter(model: type[Frozen], name: str) -> Parameter:
    schema: dict[str, Any] = model.model_json_schema()["properties"][name]
    description, default = schema.pop("description"), schema.pop("default", None)
    del schema["title"]
    description += _accepted(schema)
    if "items" in schema:  # of values to compare: null stands for it
        description += f"; by default {', '.join(map(str, default))}"
        schema, default = {"anyOf": [schema, {"type": "null"}]}, None
    return Parameter(name, default, description, schema)


def _accepted(schema: dict[str, Any]) -> str:
    """Put the range or the choices of a JSON schema into words, as clients show the description alone."""
    for part in (schema, *schema.get("anyOf", [])):
        if "items" in part:
            return _accepted(part["items"])
        if "enum" in part:
            return f" ({', '.join(map(str, part['enum']))})"
        if "maximum" in part:
            low = part["minimum"] if "minimum" in part else f"above {part['exclusiveMinimum']}"
            steps = f", in steps of {part['multipleOf']}" if "multipleOf" in part else ""
            return f" ({low} to {part['maximum']}{steps})"
    return ""


def read_hints(given: Arguments) -> Hints:
    """Read the hints of a call. Raises: CalibrationError for the first that is of another form."""
    near_m, chosen = given["near_m"], {"along": given["along"], "method": given.get("method", get_args(Method)[0])}
    for name, choices in (("along", get_args(Along)), ("method", get_args(Method))):
        if chosen[name] not in choices:
            raise CalibrationError(f"{name} has no {chosen[name]!r}; choose from {', '.join(choices)}.")
    if near_m is not None and type(near_m) not in (int, float):
        raise CalibrationError(f"near_m must be a number of metres, but got {near_m!r}.")
    hints = hints_of(
        check_numbers("anchors", given["anchors"], ANCHOR_FORM),
        check_numbers("lengths", given["lengths"], LENGTH_FORM),
        check_numbers("patch", given["patch"], PATCH_FORM),
        near_m=near_m,
        fov_x_deg=given["fov_x_deg"],
        **chosen,
    )
    if hints.guides:
        check_guiding(hints)
    return hints


def read_comparison(given: Arguments) -> tuple[Comparison, list[str]]:
    """Read what to compare, and with which checkpoints, from a call. Raises: SettingsError, CheckpointError."""
    return read_axes(given), read_checkpoints(given)


def read_axes(given: Arguments) -> Comparison:
    """Read the steps, members and seeds to compare. Raises: SettingsError."""
    axes = {name: given[name] for name in ("steps", "sizes", "seeds") if given[name] is not None}
    return shared_comparison(**axes, processing_resolution=given["processing_resolution"], views=given["views"])


def read_checkpoints(given: Arguments) -> list[str]:
    """Read the names of the checkpoints to compare, by default the server's own. Raises: CheckpointError."""
    checkpoints: Any = [default_checkpoint()] if given["checkpoints"] is None else given["checkpoints"]
    return [check_checkpoint(name) for name in cast(list[str], checkpoints)]


def take(model: type[Model], given: Arguments) -> Model:
    """Make a model of those arguments that are its fields; null stands for the default. Raises: SettingsError."""
    values = {name: given[name] for name in model.model_fields.keys() & given.keys() if given[name] is not None}
    return model(**{name: tuple(cast(Any, one)) if isinstance(one, list) else one for name, one in values.items()})
