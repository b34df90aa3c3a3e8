"""The HTTP endpoints: one table of what each takes and returns; the arguments are fields of the settings models.

Names, ranges, defaults and descriptions come from the models. Wrong values are refused by a validator before they take
a place in the queue. Every other event of the page is private. An endpoint is a generator, so that a client which goes
away or cancels stops its job within a step.
"""

import inspect
import json
import math
import mimetypes
import secrets
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, cast, get_args
from urllib.parse import quote

import gradio as gr
from gradio.components import Component
from gradio.components.api_component import Api
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from gradio_client import handle_file  # pyright: ignore[reportMissingTypeStubs]
from gradio_client import utils as client_utils  # pyright: ignore[reportMissingTypeStubs]
from pydantic import Field

from marigold_core.calibration.anchors import ANCHOR_FORM, LENGTH_FORM, PATCH_FORM, Along, check_numbers
from marigold_core.calibration.calibrate import (
    Calibrated,
    CalibrationMethod,
    HintFields,
    Hints,
    Measured,
    Method,
    calibrate,
    check_claim,
    check_guided,
    check_guiding,
    check_hints,
    hints_of,
    measured,
)
from marigold_core.checkpoints.registry import Checkpoint, Claim, claim_of, default_checkpoint, family_of
from marigold_core.comparison.sweep import Comparison, check_alike, check_reading, count_cells, reduce_given
from marigold_core.errors import CalibrationError, ImageError, MarigoldError
from marigold_core.files import archive
from marigold_core.files.panorama import save_panorama
from marigold_core.files.presets import SAVE_FOR, SaveFor
from marigold_core.files.reader import from_depth
from marigold_core.files.writers import Made, file_names, suiting
from marigold_core.images.photo import MAX_PIXELS, Photo, load_photo, read_header
from marigold_core.pipeline.panorama import check_full, stream_panorama
from marigold_core.pipeline.views import check_meaning
from marigold_core.prediction import Kind, Prediction, Progress, ProgressEvents
from marigold_core.serving.jobs import MAX_CELLS, Service, shared_comparison
from marigold_core.serving.video import (
    MOST_FRAMES,
    SharedPredictor,
    check_clip,
    check_parallax,
    run_clip,
    run_defocus,
    run_parallax,
    shared_predictor,
)
from marigold_core.settings import (
    DEFAULT_COLORMAP,
    Colormap,
    ColourSettings,
    DepthReading,
    Format,
    Frozen,
    MeshSettings,
    Settings,
    help_text,
)
from marigold_core.ui import text
from marigold_core.ui.error_messages import plain, translate_errors
from marigold_core.ui.events import MODEL
from marigold_core.ui.offered_checkpoints import check_checkpoint
from marigold_core.ui.photo_input import EXAMPLES, FileInput, draw_photo
from marigold_core.ui.text import compare as compare_text
from marigold_core.ui.text import metres as metres_text
from marigold_core.video import check_installed
from marigold_core.video.settings import DefocusSettings, ParallaxSettings, VideoSettings, check_depth, check_focus

MODELS = (Settings, DepthReading, MeshSettings, ColourSettings, VideoSettings, ParallaxSettings, DefocusSettings)
_schema: Callable[[type], dict[str, Any]] = cast(Any, client_utils).python_type_to_json_schema
Arguments = Mapping[str, Any]  # values of a call by name
Answer = dict[str, Any]
Run = Callable[[Service, Arguments], Iterator[Answer]]
Model = TypeVar("Model", bound=Frozen)

MIME_TYPES = {".glb": "model/gltf-binary", ".stl": "model/stl", ".exr": "image/x-exr"}  # not known to every system
USUAL: tuple[Format, ...] = ("npy", "png16", "color")  # of an endpoint that is asked for no files
PHOTO = "the photo, JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF or RAW with a full-size JPEG in it, up to 40 MB"
PANORAMA = f"the 360-degree panorama, equirectangular, twice as wide as high: {PHOTO.removeprefix('the photo, ')}"
CLIP = f"the video, of any format that FFmpeg reads, up to {MOST_FRAMES} frames and 40 MB"
BESIDE = "a depth map of it from elsewhere: the others are measured against it; PNG, TIFF, EXR, NPY or PFM, up to 40 MB"
DEPTH = "its depth map, PNG, TIFF, EXR, NPY or PFM, up to 40 MB; null takes the one that the photo itself carries"
_HEADERS = threading.Lock()  # one photo at a time is looked at before the queue: HEIC is decoded for it


# ------------------------------------------------------------------------------- what goes in, beside the settings


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


# ------------------------------------------------------------------------------- what comes out


class DepthResult(TypedDict, total=False):
    """Files by format name, as requested, and the manifest; while a job runs only ``progress``."""

    npy: FileData
    png16: FileData
    color: FileData
    uncertainty: FileData
    uncertainty_npy: FileData
    normals: FileData
    normals_npy: FileData
    glb: FileData
    ply: FileData
    stl: FileData
    exr: FileData
    controlnet: FileData
    height: FileData
    rgbz: FileData
    photo: FileData
    depth_mm: FileData
    intrinsics: FileData
    transforms: FileData
    side_by_side: FileData
    stereo: FileData
    stereo_filled: FileData
    lithophane: FileData
    relief_3mf: FileData
    albedo: FileData
    albedo_16bit: FileData
    roughness: FileData
    roughness_16bit: FileData
    metallicity: FileData
    metallicity_16bit: FileData
    shading: FileData
    shading_16bit: FileData
    residual: FileData
    residual_16bit: FileData
    classes: FileData
    classes_16bit: FileData
    layers: FileData
    layers_exr: FileData
    manifest: dict[str, Any]
    progress: str


class HintResult(TypedDict):
    """One hint beside what the map has there; of a flat patch the steepness that makes it flat."""

    hint: str
    given: float
    found: float
    unit: str


class Solution(TypedDict):
    """Scale * value + shift is the depth, its logarithm or its inverse; a completion has neither.

    The errors are standard errors.
    """

    kind: str
    space: str
    scale: NotRequired[float]
    scale_error: NotRequired[float]
    shift: NotRequired[float]
    shift_error: NotRequired[float]
    residuals: list[HintResult]
    how: str


class MetresResult(DepthResult, total=False):
    """The files of a calibrated result, and what the hints have led to."""

    calibration: Solution


class CompareResult(TypedDict, total=False):
    """The sheets as PNG, the table as CSV, and its rows; while a job runs only ``progress``."""

    sheet: FileData
    differences: FileData
    table: FileData
    rows: list[dict[str, Any]]
    progress: str


class PanoramaResult(TypedDict, total=False):
    """Distances, their pictures, the mesh, and what they were made with; while a job runs only ``progress``."""

    npy: FileData
    png16: FileData
    color: FileData
    glb: FileData
    record: dict[str, Any]
    progress: str


class VideoResult(TypedDict, total=False):
    """Clips as MP4, frames as ZIP, a table of the frames, and what they were made with."""

    color: FileData
    grey: FileData
    side_by_side: FileData
    exr: FileData
    png16: FileData
    ply: FileData
    glb: FileData
    table: FileData
    record: dict[str, Any]
    progress: str


class ParallaxResult(TypedDict, total=False):
    """The clip, and one that is white where its pixels are invented."""

    clip: FileData
    invented: FileData
    progress: str


class DefocusResult(TypedDict, total=False):
    """The picture, and one that is white where its pixels are invented."""

    picture: FileData
    invented: FileData
    progress: str


# ------------------------------------------------------------------------------- what runs


def _depth(service: Service, given: Arguments) -> Iterator[Answer]:
    prediction = yield from _run(service, given["photo"], given, USUAL)
    yield _files(service, prediction, given, USUAL)


def _mesh(service: Service, given: Arguments) -> Iterator[Answer]:
    prediction = yield from _run(service, given["photo"], given, ("glb",))
    yield _files(service, prediction, given, ("glb",))


def _metres(service: Service, given: Arguments) -> Iterator[Answer]:
    hints, photo = read_hints(given), load_photo(given["photo"])
    check_hints(hints, photo.pixels.shape[:2], photo.fov_x_deg, photo.size)  # before the model is waited for
    found = measured((yield from _run(service, photo, given, USUAL, hints)), hints)
    yield {**_files(service, found, given, USUAL), "calibration": solution(found)}


def _given(service: Service, given: Arguments) -> Iterator[Answer]:
    found, hints = _read_given(given), read_hints(given)
    if not hints.is_given:
        yield _files(service, found, given, USUAL)
        return
    metres = calibrate(found, hints)
    yield {**_files(service, metres, given, USUAL), "calibration": solution(metres)}


def _read_given(given: Arguments) -> Prediction:
    fov_x_deg = _take(MeshSettings, given).fov_x_deg
    return from_depth(given["photo"], given["depth"], _take(DepthReading, given), fov_x_deg=fov_x_deg)


def _compare(service: Service, given: Arguments) -> Iterator[Answer]:
    requested, checkpoints = read_comparison(given)
    key, sweep = service.begin_comparison(given["photo"], requested, checkpoints)
    sweep.colormap, sweep.given = given["colormap"], _read_given(given) if given["depth"] else None
    for event in service.run_comparison(sweep):
        if isinstance(event, Progress):
            yield {"progress": event.stage}
        else:
            done, cells = sweep.done, text.count(len(sweep.places()), "cell")
            yield {"progress": compare_text.CELLS.format(done=done, cells=cells)}
    files = zip(compare_text.FILES, service.export_comparison(key), strict=True)
    yield {**{name: _file(path) for name, path in files}, "rows": [row.record for row in sweep.rows()]}


def _panorama(service: Service, given: Arguments) -> Iterator[Answer]:
    mesh = _take(MeshSettings, given)
    predictor = yield from _predictor(service, given)
    for event in stream_panorama(predictor, given["photo"], _take(Settings, given), mesh):
        if isinstance(event, Progress):
            yield {"progress": event.stage}
        else:
            yield _made(save_panorama(event, _new_folder(), mesh=mesh, colours=_take(ColourSettings, given)))


def _video(service: Service, given: Arguments) -> Iterator[Answer]:
    folder, settings, video = _new_folder(), _take(Settings, given), _take(VideoSettings, given)
    how: dict[str, Any] = {"mesh": _take(MeshSettings, given), "colours": _take(ColourSettings, given)}
    predictor, is_done = (yield from _predictor(service, given)), False
    try:
        with closing(run_clip(predictor, given["video"], folder, settings, video, **how)) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield {"progress": event.stage or "predicting"}
                else:
                    yield _made(event.files)
                    is_done = True
    finally:
        if not is_done:  # a call that is stopped does not go on
            shutil.rmtree(folder, ignore_errors=True)


def _effect(draw: Callable[..., Iterator[Progress | dict[str, Path]]], model: type[Frozen]) -> Run:
    """Make what runs an effect of a photo, which ``draw`` draws from its depth with the settings of a ``model``."""

    def run(service: Service, given: Arguments) -> Iterator[Answer]:
        prediction = yield from _run(service, given["photo"], given)
        for event in draw(service, prediction, _new_folder(), _take(model, given), _take(MeshSettings, given)):
            yield {"progress": event.stage} if isinstance(event, Progress) else _made(event)

    return run


def _predictor(service: Service, given: Arguments) -> Generator[Answer, None, SharedPredictor]:
    loading = shared_predictor(service, _checkpoint(given))
    while True:
        try:
            yield {"progress": next(loading).stage}
        except StopIteration as end:
            return cast(SharedPredictor, end.value)


def _new_folder() -> Path:
    return Path(get_upload_folder()) / secrets.token_hex(16)


def _made(files: Mapping[str, Path]) -> Answer:
    """Name files to clients: of JSON its content, of a folder a ZIP."""
    answer: Answer = {}
    for name, path in files.items():
        if path.is_dir():
            archive.write(sorted(path.iterdir()), bundle := path.with_suffix(".zip"))
            path = bundle
        answer[name] = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else _file(path)
    return answer


def _run(
    service: Service, photo: str | Photo, given: Arguments, usual: tuple[Format, ...] = (), hints: Hints | None = None
) -> Generator[Answer, None, Prediction]:
    """Run a job, yielding its progress -> its prediction; closing this stops the job.

    Files that the result, of the checkpoint's kind or of that of the hints, will not have are refused before the model
    runs.
    """
    kind = hints.kind if hints else None

    def check(record: Checkpoint) -> None:
        for _ in _check_made(given, usual, record, kind):
            pass

    checkpoint = _checkpoint(given)
    events = ProgressEvents(service.run(photo, _take(Settings, given), checkpoint, check=check, hints=hints))
    for event in events:
        yield {"progress": event.stage}
    return events.result


def _checkpoint(given: Arguments) -> str:
    return check_checkpoint(given["checkpoint"] or default_checkpoint())


def _wanted(
    given: Arguments, usual: tuple[Format, ...], modality: str, members: int
) -> tuple[Sequence[Format], Sequence[SaveFor]]:
    """Read the formats and the programs of a call; where it names neither, ``usual`` formats, or all that suit."""
    programs, suit = given.get("save_for") or (), suiting(modality, members >= 3)
    if usual == USUAL and not {*usual} <= {*suit}:  # they are those of depth
        usual = suit
    return given["formats"] or (() if programs else usual), programs


def _files(service: Service, prediction: Prediction, given: Arguments, usual: tuple[Format, ...]) -> Answer:
    """Keep a prediction and write its files, ``usual`` where no formats are given -> the answer that names them."""
    formats, programs = _wanted(given, usual, prediction.modality, prediction.fused)
    colours = _take(ColourSettings, given)
    files = service.export(service.keep(prediction), formats, _take(MeshSettings, given), colours, programs)
    manifest = json.loads(files["manifest"].read_text(encoding="utf-8"))
    return {"manifest": manifest, **{name: _file(path) for name, path in files.items() if name != "manifest"}}


def _file(path: Path) -> dict[str, Any]:
    """Describe a file to clients; Gradio completes ``url`` with the server's address."""
    return FileData(
        path=str(path),
        url=f"/gradio_api/file={quote(str(path))}",
        size=path.stat().st_size,
        orig_name=path.name,
        mime_type=MIME_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
    ).model_dump()


def solution(found: Measured) -> Solution:
    """Gather what the hints have led to, in numbers."""
    answer: Solution = {
        "kind": found.kind,
        "space": found.space,
        "residuals": [
            {"hint": one.hint, "given": one.given, "found": one.found, "unit": one.unit} for one in found.residuals
        ],
        "how": found.how,
    }
    if isinstance(found, Calibrated):
        answer["space"] = found.affine_space
        answer["scale"], answer["scale_error"] = found.scale, found.scale_error
        answer["shift"], answer["shift_error"] = found.shift, found.shift_error
    return answer


# ------------------------------------------------------------------------------- the table


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


def _hints(example: list[list[float]] | None = None) -> list[Parameter]:
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


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its name, what it does, what it takes after the photo, what it answers, and what runs."""

    name: str
    description: str
    arguments: list[Parameter]
    output: type[Frozen]  # the model of those arguments that are of this endpoint alone
    result: type
    run: Run
    usual: tuple[Format, ...] = USUAL  # files where none are asked for
    files: Mapping[str, str] = field(default_factory=lambda: {"photo": PHOTO})  # with descriptions; all but the first
    # may be null
    needs: tuple[str, ...] = ("photo",)  # the files without a default

    def complete(self, values: Iterable[object]) -> Arguments:
        """Give the values of a call, the photo first, their names; null stands for the default."""
        defaults = {**dict.fromkeys(self.files), **{argument.name: argument.default for argument in self.arguments}}
        pairs = zip(defaults.items(), values, strict=True)
        return {name: default if value is None else value for (name, default), value in pairs}


ENDPOINTS = (
    Endpoint(
        "predict_depth",
        "Estimate the depth of a photo: relative depth, 0 = near, 1 = far, and its uncertainty from 3 members up.",
        [*fields(Settings), *fields(DepthOutput), *fields(ColourSettings), *fields(MeshSettings)],
        DepthOutput,
        DepthResult,
        _depth,
    ),
    Endpoint(
        "build_mesh",
        "Estimate the depth of a photo and build geometry from it: by default a textured mesh as GLB.",
        [*fields(Settings), *fields(MeshOutput), *fields(MeshSettings)],
        MeshOutput,
        DepthResult,
        _mesh,
        usual=("glb",),
    ),
    Endpoint(
        "calibrate",
        "Estimate the depth of a photo in metres, from what is known of it: depths, lengths, flat patches."
        " Positions are pixels of the upright photo, from its top left corner."
        " Two hints at different depths are needed.",
        [
            *_hints(example=[[600, 415, 6], [270, 150, 25]]),
            *fields(CalibrationMethod),
            *fields(Settings),
            *fields(DepthOutput),
            *fields(ColourSettings),
            *fields(MeshSettings),
        ],
        DepthOutput,
        MetresResult,
        _metres,
    ),
    Endpoint(
        "import_depth",
        "Make files of a photo and a depth map from elsewhere, in metres where its file, the arguments or hints say so."
        " What the file says of its values is used; what was taken as usual stands in the manifest's note.",
        [
            *fields(DepthReading),
            *_hints(),
            *fields(GivenOutput),
            *fields(ColourSettings),
            *fields(MeshSettings),
        ],
        GivenOutput,
        MetresResult,
        _given,
        files={"photo": PHOTO, "depth": DEPTH},
        needs=("photo", "depth"),
    ),
    Endpoint(
        "compare",
        "Compare denoising steps, numbers of members, seeds and checkpoints on one photo, side by side."
        " Members, first steps and the encoding are shared between cells."
        " A depth map from elsewhere may stand beside them. What is too much for one comparison is refused.",
        [
            *fields(Comparison, "steps", "sizes", "seeds", "processing_resolution", "views"),
            *fields(CompareOutput),
            *fields(DepthReading),
            *fields(MeshSettings, "fov_x_deg"),
        ],
        CompareOutput,
        CompareResult,
        _compare,
        files={"photo": PHOTO, "depth": BESIDE},
    ),
    Endpoint(
        "panorama",
        "Turn a 360-degree panorama into distances from the camera, the farthest 1, and a textured mesh around it.",
        [*fields(Settings), *fields(EffectOutput), *fields(MeshSettings), *fields(ColourSettings)],
        EffectOutput,
        PanoramaResult,
        _panorama,
        files={"photo": PANORAMA},
    ),
    Endpoint(
        "video",
        "Turn a video into depth that is steady from frame to frame, over one range of depth, 0 = near, 1 = far."
        " Scenes are found by their cuts. A call that is stopped does not go on.",
        [
            *fields(Settings),
            *fields(EffectOutput),
            *fields(VideoSettings),
            *fields(MeshSettings),
            *fields(ColourSettings),
        ],
        EffectOutput,
        VideoResult,
        _video,
        files={"video": CLIP},
        needs=("video",),
    ),
    Endpoint(
        "parallax",
        "Make a clip of one photo in which the camera moves a little and near things move more."
        " What the photo does not show is filled from the farther side, and marked in a second clip.",
        [*fields(Settings), *fields(EffectOutput), *fields(ParallaxSettings), *fields(MeshSettings)],
        EffectOutput,
        ParallaxResult,
        _effect(run_parallax, ParallaxSettings),
    ),
    Endpoint(
        "defocus",
        "Blur a photo before and behind the pixel that is in focus, as a wide aperture does."
        " What shows through blurred edges and is not in the photo is filled, and marked in a second picture.",
        [*fields(Settings), *fields(EffectOutput), *fields(DefocusSettings), *fields(MeshSettings)],
        EffectOutput,
        DefocusResult,
        _effect(run_defocus, DefocusSettings),
    ),
)


# ------------------------------------------------------------------------------- declaring and checking


def add_endpoints(page: gr.Blocks, service: Service) -> None:
    """Declare the endpoints on a page that is being drawn."""
    for endpoint in ENDPOINTS:
        _declare(page, endpoint, service)


def _declare(page: gr.Blocks, endpoint: Endpoint, service: Service) -> None:
    """Do what ``gr.api`` does, but with our photo input, described arguments and a validator."""
    inputs: list[Component] = []
    for name, description in endpoint.files.items():
        file = draw_photo(visible=False) if name == "photo" else FileInput(visible=False)
        shown = EXAMPLES["panorama" if description == PANORAMA else name]
        file.example_payload = partial(cast(Any, handle_file), shown)
        file.api_info = partial(dict, file.api_info(), additional_description=description)
        inputs.append(file)
    for argument in endpoint.arguments:
        described = {**argument.schema, "additional_description": argument.description}
        inputs.append(Api(argument.default, described, argument.name))
        if argument.example is not None:  # its value would be taken as a default
            inputs[-1].example_payload = partial(deepcopy, argument.example)

    def check(*values: object) -> list[dict[str, Any]]:
        """Refuse wrong values with one sentence, at the argument that is wrong."""
        given = endpoint.complete(values)
        at, problem = fault(endpoint, given) or ("", "")
        return [gr.validate(name != at, problem) for name in given]

    config: Any = page.default_config
    config.set_event_trigger(
        [],
        handler(endpoint, service),
        inputs,
        Api(None, _schema(endpoint.result), "result"),
        postprocess=False,
        show_progress="hidden",
        api_name=endpoint.name,
        trigger_mode=None,
        validator=check,
        **MODEL,
    )


def handler(endpoint: Endpoint, service: Service) -> Callable[..., Iterator[Answer]]:
    """Make the function behind an endpoint; Gradio reads names, defaults and descriptions from it, as MCP tools do."""

    def run(*values: object) -> Iterator[Answer]:
        with translate_errors():
            yield from endpoint.run(service, endpoint.complete(values))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [*endpoint.needs, *(one.name for one in endpoint.arguments if one.example is not None)]
    optional = [inspect.Parameter(name, kind, default=None) for name in endpoint.files if name not in needed]
    optional += [
        inspect.Parameter(one.name, kind, default=one.default) for one in endpoint.arguments if one.name not in needed
    ]
    described = [f"{name}: {description}" for name, description in endpoint.files.items()]
    described += [f"{one.name}: {one.description}" for one in endpoint.arguments]
    run.__signature__ = inspect.Signature([*(inspect.Parameter(name, kind) for name in needed), *optional])  # type: ignore[attr-defined]
    run.__name__ = endpoint.name
    run.__doc__ = "\n".join([endpoint.description, "", "Args:", *described])
    return run


def fault(endpoint: Endpoint, given: Arguments) -> tuple[str, str] | None:
    """Find what is wrong with the arguments of a call -> (argument, sentence), None when nothing is."""
    at = ""
    try:
        for argument in _checks(endpoint, given):
            at = argument
    except MarigoldError as error:
        sentence = plain(str(error))
        return next((name for name in given if sentence.startswith(f"{name} ")), at), sentence
    return None


def _checks(endpoint: Endpoint, given: Arguments) -> Iterator[str]:
    """Check the arguments of a call; yields the one that is wrong if what follows raises a MarigoldError."""
    first = next(iter(endpoint.files))
    yield first
    if not given[first]:
        raise ImageError(text.NO_UPLOAD.format(what=first))
    yield endpoint.arguments[0].name
    for model in (*MODELS, endpoint.output):
        _take(model, given)
    hints = read_hints(given) if "anchors" in given else None
    if "sizes" in given:
        yield from _check_comparison(given)
    elif "depth" not in given:
        yield from _check_run(endpoint, given, hints)
    yield first
    if endpoint.result in (VideoResult, ParallaxResult, DefocusResult):
        check_installed()
    if first == "video":
        check_clip(given[first])
        return
    with _HEADERS:
        size, fov_x_deg = read_header(given["photo"] if isinstance(given["photo"], bytes) else Path(given["photo"]))
        reduction = max(1, math.ceil(math.sqrt(size[0] * size[1] / MAX_PIXELS)))  # as large ones are read
        shape = size[0] // reduction, size[1] // reduction
        yield from _check_effect(endpoint, given, size)
        if hints and (hints.is_given or "depth" not in given):
            for name in ("anchors", "lengths", "patch", "near_m"):
                yield name
                others = {"anchors": None, "lengths": None, "patch": None, "near_m": None, name: given[name]}
                if (one := read_hints({**given, **others, "method": get_args(Method)[0]})).is_given:
                    check_hints(one, shape, fov_x_deg, size)
            yield "anchors"
            claim = None if "depth" in given else claim_of(given["checkpoint"] or default_checkpoint())
            check_hints(hints, shape, fov_x_deg, size, claim and claim.kind)
        if given.get("depth") or "depth" in endpoint.needs:
            yield "depth"
            found = _read_given(given)
            if "sizes" in given:
                for claim in filter(None, map(claim_of, _checkpoints(given))):
                    reduce_given(found, claim)
                return
            yield "anchors"
            made = calibrate(found, hints) if hints and hints.is_given else found
            yield from _check_files(given, endpoint.usual, made)


def _check_run(endpoint: Endpoint, given: Arguments, hints: Hints | None) -> Iterator[str]:
    settings, name = _take(Settings, given), given["checkpoint"] or default_checkpoint()
    yield "checkpoint"
    check_checkpoint(name)
    claim = claim_of(name)
    if claim and hints:
        check_claim(claim.modality, claim.kind)
    yield from _check_meaning(settings, name, "num_inference_steps", "ensemble_size")
    if hints and hints.guides:
        check_guided(settings)
    if claim:  # else the job itself will tell
        yield "checkpoint"
        yield from _check_made(given, endpoint.usual, claim, hints.kind if hints else None)


def _check_effect(endpoint: Endpoint, given: Arguments, size: tuple[int, int]) -> Iterator[str]:
    """Check what is made of the depth of a photo (height, width)."""
    if endpoint.result is PanoramaResult:
        check_full(size)
    elif endpoint.result is ParallaxResult:
        yield "seconds"
        check_parallax(_take(ParallaxSettings, given), size)
    elif endpoint.result is DefocusResult:
        yield "focus"
        check_focus(_take(DefocusSettings, given), size)


def _check_made(
    given: Arguments, usual: tuple[Format, ...], made: Checkpoint | Claim, kind: Kind | None = None
) -> Iterator[str]:
    """Check that a checkpoint makes what is asked for: files, or what something else can be made of."""
    if "formats" in given:
        yield from _check_files(given, usual, made, kind)
    else:
        check_depth(made.name, made.modality)


def _check_comparison(given: Arguments) -> Iterator[str]:
    yield "quantity"
    check_reading(_take(DepthReading, given), bool(given["depth"]))
    yield "steps"
    requested = _axes(given)
    yield "checkpoints"
    names = _checkpoints(given)
    yield max(("steps", "sizes", "seeds"), key=lambda axis: len(getattr(requested, axis))) if names else "checkpoints"
    count_cells(requested, names, MAX_CELLS)
    for name in names:
        yield from _check_meaning(requested.largest, name, "steps", "sizes")
    yield "checkpoints"
    check_alike([claim for name in names if (claim := claim_of(name))])


def _check_meaning(settings: Settings, checkpoint: str, steps: str, members: str) -> Iterator[str]:
    family, name = family_of(checkpoint), Path(checkpoint).name
    yield steps
    check_meaning(settings.changed(ensemble_size=1), family, name)
    yield members
    check_meaning(settings, family, name)


def _check_files(given: Arguments, usual: tuple[Format, ...], made: Made, kind: Kind | None = None) -> Iterator[str]:
    """Check that a result has the files that are asked for; a map from elsewhere is of no members."""
    members = given.get("ensemble_size", 0)
    formats, programs = _wanted(given, usual, made.modality, members)
    yield "formats" if given["formats"] or given.get("save_for") else "checkpoint"
    file_names(formats, made, members, kind=kind, mesh=_take(MeshSettings, given))
    yield "save_for"
    file_names(formats, made, members, save_for=programs, kind=kind)


def read_hints(given: Arguments) -> Hints:
    """Read the hints of a call. Raises: CalibrationError for the first that is of another form."""
    near_m, chosen = given["near_m"], {"along": given["along"], "method": given.get("method", get_args(Method)[0])}
    for name, choices in (("along", get_args(Along)), ("method", get_args(Method))):
        if chosen[name] not in choices:
            raise CalibrationError(text.UNKNOWN_VALUE.format(name=name, value=chosen[name], known=", ".join(choices)))
    if near_m is not None and type(near_m) not in (int, float):
        raise CalibrationError(metres_text.NOT_METRES.format(name="near_m", value=near_m))
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
    return _axes(given), _checkpoints(given)


def _axes(given: Arguments) -> Comparison:
    axes = {name: given[name] for name in ("steps", "sizes", "seeds") if given[name] is not None}
    return shared_comparison(**axes, processing_resolution=given["processing_resolution"], views=given["views"])


def _checkpoints(given: Arguments) -> list[str]:
    checkpoints: Any = [default_checkpoint()] if given["checkpoints"] is None else given["checkpoints"]
    return [check_checkpoint(name) for name in cast(list[str], checkpoints)]


def _take(model: type[Model], given: Arguments) -> Model:
    """Make a model of those arguments that are its fields; null stands for the default. Raises: SettingsError."""
    values = {name: given[name] for name in model.model_fields.keys() & given.keys() if given[name] is not None}
    return model(**{name: tuple(cast(Any, one)) if isinstance(one, list) else one for name, one in values.items()})
