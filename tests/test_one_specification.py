"""One specification: what clients, the command line and the page offer is what the models say, word for word."""

import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.utils import get_function_description

from marigold_core.calibration.calibrate import CalibrationMethod, HintFields
from marigold_core.cli import entry as cli
from marigold_core.cli.calibrate import HintWords
from marigold_core.cli.cluster import ClusterOptions
from marigold_core.cli.compare import ComparisonRun
from marigold_core.cli.console import Run, WrittenFlat
from marigold_core.cli.predict import PredictRun
from marigold_core.cli.video import PhotoRun, QuietRun
from marigold_core.comparison.sweep import Comparison
from marigold_core.files.formats import FILES as FILE_NAMES
from marigold_core.serving.api.arguments import CompareOutput, DepthOutput, EffectOutput, GivenOutput, MeshOutput
from marigold_core.serving.api.endpoints import BESIDE, CLIP, DEPTH, ENDPOINTS, PANORAMA, PHOTO
from marigold_core.serving.jobs import Service
from marigold_core.settings import (
    PRESETS,
    CameraSettings,
    ClippedSettings,
    ColourSettings,
    DepthReading,
    FrameSettings,
    Frozen,
    GivenMeshSettings,
    MeshSettings,
    ReliefSettings,
    Settings,
    default,
    help_text,
)
from marigold_core.ui import text
from marigold_core.ui.api.declare import handler
from marigold_core.ui.controls.settings import DEFAULT_PRESET
from marigold_core.ui.page import build
from marigold_core.ui.screens.mesh import FIELDS, MOST_TRIANGLES
from marigold_core.video.settings import DefocusSettings, ParallaxSettings, VideoSettings
from tests.helpers.source_tree import ROOT

Model = type[Frozen]
MEASURED_IN_PAGE = {"fov_x_deg", "near_ratio"}  # of the photo, so that their sliders stand at no default
EXPLAINED_IN_PAGE = "fov_x_deg"  # its slider says where the angle on show comes from
RANGES = ("minimum", "maximum", "multipleOf", "enum")
HINTS = HintFields[list[list[float]]]

# Of every endpoint and command: the models whose fields it takes, in this order; the fields of a model, where not all.
ENDPOINT_FIELDS: dict[str, list[tuple[Model, tuple[str, ...]]]] = {
    "predict_depth": [(Settings, ()), (DepthOutput, ()), (ColourSettings, ()), (MeshSettings, ())],
    "build_mesh": [
        (Settings, ()),
        (MeshOutput, ()),
        (FrameSettings, ()),
        (ReliefSettings, ()),
        (MeshSettings, ("uncertainty_cut",)),
    ],
    "calibrate": [
        (HINTS, ()),
        (CalibrationMethod, ()),
        (Settings, ()),
        (DepthOutput, ()),
        (ColourSettings, ()),
        (MeshSettings, ()),
    ],
    "import_depth": [(DepthReading, ()), (HINTS, ()), (GivenOutput, ()), (ColourSettings, ()), (GivenMeshSettings, ())],
    "compare": [
        (Comparison, ("steps", "sizes", "seeds", "processing_resolution", "views")),
        (CompareOutput, ()),
        (DepthReading, ()),
        (MeshSettings, ("fov_x_deg",)),
    ],
    "panorama": [(Settings, ()), (EffectOutput, ()), (ClippedSettings, ()), (ColourSettings, ())],
    "video": [(Settings, ()), (EffectOutput, ()), (VideoSettings, ()), (FrameSettings, ()), (ColourSettings, ())],
    "parallax": [(Settings, ()), (EffectOutput, ()), (ParallaxSettings, ()), (CameraSettings, ())],
    "defocus": [(Settings, ()), (EffectOutput, ()), (DefocusSettings, ()), (CameraSettings, ())],
}
FILES = {  # of endpoints that take more than a photo: what is said of each file, and whether it may be left out
    "import_depth": {"photo": (PHOTO, False), "depth": (DEPTH, False)},
    "compare": {"photo": (PHOTO, False), "depth": (BESIDE, True)},
    "panorama": {"photo": (PANORAMA, False)},
    "video": {"video": (CLIP, False)},
}
COMMAND_MODELS: dict[str, list[Model]] = {
    "predict": [PredictRun, ClusterOptions, Settings, MeshSettings, ColourSettings],
    "calibrate": [HintWords, CalibrationMethod, Run, Settings, MeshSettings, ColourSettings],
    "compare": [Comparison, ComparisonRun, DepthReading, MeshSettings, ColourSettings],
    "import-depth": [WrittenFlat, DepthReading, HintWords, GivenMeshSettings, ColourSettings],
    "video": [QuietRun, Settings, VideoSettings, FrameSettings, ColourSettings],
    "parallax": [PhotoRun, Settings, ParallaxSettings, CameraSettings],
    "defocus": [PhotoRun, Settings, DefocusSettings, CameraSettings],
    "panorama": [PhotoRun, Settings, ClippedSettings, ColourSettings],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    service = Service(tmp_path_factory.mktemp("results"))

    async def draw() -> gr.Blocks:  # in a loop that is closed again: without one, Gradio opens some of its own
        return build(service)

    yield asyncio.run(draw())
    service.close()


@pytest.fixture(scope="module")
def info(page: gr.Blocks) -> dict[str, Any]:
    """What ``/gradio_api/info`` answers."""
    return page.get_api_info()["named_endpoints"]


def test_what_stop_ends_ends_with_its_photos_too(page: gr.Blocks) -> None:
    names = {block.elem_id: number for number, block in page.blocks.items() if getattr(block, "elem_id", None)}
    targets = [set(event.targets) for event in page.fns.values()]
    for photos, stop in (
        ("photo", "stop"),
        ("lab-photo", "lab-stop"),
        ("video-clip", "video-stop"),
        ("batch-photos", "batch-stop"),
    ):
        assert {(names[photos], "clear"), (names[stop], "click")} in targets


def fields(name: str) -> list[tuple[Model, str]]:
    return [(model, field) for model, names in ENDPOINT_FIELDS[name] for field in names or model.model_fields]


def parts(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A JSON schema -> its alternatives by type, without what is there for people."""
    kinds = schema.get("anyOf", [schema])
    return {kind["type"]: {key: kind[key] for key in (*RANGES, "items") if key in kind} for kind in kinds}


def schema_of(model: Model, name: str) -> dict[str, Any]:
    return model.model_json_schema()["properties"][name]


# ------------------------------------------------------------------------------- /gradio_api/info


def test_the_endpoints_are_these(info: dict[str, Any]) -> None:
    assert [name.removeprefix("/") for name in info] == [endpoint.name for endpoint in ENDPOINTS]
    assert set(ENDPOINT_FIELDS) == {endpoint.name for endpoint in ENDPOINTS}


@pytest.mark.parametrize("name", ENDPOINT_FIELDS)
def test_arguments_of_endpoints_are_fields_of_the_models(info: dict[str, Any], name: str) -> None:
    arguments = info[f"/{name}"]["parameters"]
    for file, (about, has_default) in FILES.get(name, {"photo": (PHOTO, False)}).items():
        first, *arguments = arguments
        described = first["parameter_name"], first["python_type"]["description"], first["parameter_has_default"]
        assert described == (file, about, has_default)
    for (model, field), argument in zip(fields(name), arguments, strict=True):
        said, schema, value = argument["python_type"]["description"], schema_of(model, field), default(model, field)
        needed = (name, field) == ("calibrate", "anchors")  # so that the example that the API page prints has some
        assert (argument["parameter_name"], argument["parameter_has_default"]) == (field, not needed)
        if isinstance(value, tuple):  # values to compare: null stands for the model's own, which are named
            assert argument["parameter_default"] is None
            assert said.startswith(help_text(model, field)) and said.endswith(
                f"; by default {', '.join(map(str, value))}"
            )
            assert parts(argument["type"]) == {**parts(schema), "null": {}}
        else:
            held = argument.get("parameter_default")
            assert held == value and type(held) is type(value)
            assert said.startswith(help_text(model, field))
            assert parts(argument["type"]) == parts(schema)
        for part in parts(schema).values():
            item = part.get("items", part)
            assert "minimum" not in item or f"({item['minimum']} to {item['maximum']}" in said
            assert all(choice in said for choice in item.get("enum", ()))


@pytest.mark.parametrize("name", ["predict_depth", "build_mesh", "calibrate", "import_depth"])
def test_answers_name_every_file_that_can_be_written(info: dict[str, Any], name: str) -> None:
    (answer,) = info[f"/{name}"]["returns"]
    assert answer["type"]["properties"].keys() >= {*FILE_NAMES, "manifest", "progress"}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_tools_are_described_like_endpoints(info: dict[str, Any], endpoint: Any, tmp_path: Path) -> None:
    service = Service(tmp_path)
    function = handler(endpoint, service)
    description, arguments, _ = get_function_description(function)  # what an MCP server reads
    shown = info[f"/{endpoint.name}"]
    assert description == shown["description"] == endpoint.description
    assert arguments == {one["parameter_name"]: one["python_type"]["description"] for one in shown["parameters"]}
    optional = [one for one in inspect.signature(function).parameters.values() if one.default is not one.empty]
    with_default = [one["parameter_default"] for one in shown["parameters"] if one["parameter_has_default"]]
    assert [one.default for one in optional] == with_default
    service.close()


# ------------------------------------------------------------------------------- --help


def form(name: str, kind: dict[str, Any]) -> str:
    """How ``--help`` shows what a field takes."""
    if "prefixItems" in kind:
        return ",".join(form(name, item) for item in kind["prefixItems"])
    if kind["type"] == "array":
        item = form(name, kind["items"])
        return item.replace("|", ",") if "enum" in kind["items"] else f"{item},..."
    if "enum" in kind:
        return "|".join(kind["enum"])
    if kind["type"] in ("integer", "number"):
        low = kind.get("minimum", f">{kind['exclusiveMinimum']}" if "exclusiveMinimum" in kind else "")
        return f"{low}..{kind.get('maximum', '')}" if low != "" else "NUMBER"
    return "" if kind["type"] == "boolean" else name.upper()


def options(help_page: str) -> dict[str, str]:
    """A help page -> what stands at each option, its name included, without blanks: lines are folded anywhere."""
    found, name = dict[str, str](), ""
    for framed in help_page.splitlines():
        line = framed.strip("│ ")  # a frame of blanks where the output is no terminal
        if begins := re.match(r"(?:-\w(?: [A-Z]+)?, )?--([a-z][a-z-]*)", line):
            name = begins[1]
        elif not re.search(r"\w", line):  # the end of a group
            name = ""
        if name:
            found[name] = found.get(name, "") + re.sub(r"\s", "", line)
    return found


@pytest.mark.parametrize("command", COMMAND_MODELS)
def test_options_of_commands_are_fields_of_the_models(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    wanted = dict[str, str]()
    for model in COMMAND_MODELS[command]:
        for name in model.model_fields:
            schema, value = schema_of(model, name), default(model, name)
            shown = "auto" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else value
            takes, option = form(name, schema.get("anyOf", [schema])[0]), name.replace("_", "-")
            wanted[option] = re.sub(r"\s", "", f"--{option}{takes}{help_text(model, name)}(default:{shown})")
    given = options(capsys.readouterr().out)
    assert {given.pop("help")[:2], given.pop("output")[:2]} == {"-h", "-o"}
    given.pop("depth", None)
    given.pop("json", None)  # a word that pydantic keeps for itself
    given.pop("ray", None)  # with or without an address
    assert given == wanted


# ------------------------------------------------------------------------------- the page


def widgets(page: gr.Blocks, kind: type) -> dict[str, Any]:
    found: list[Any] = [block for block in page.blocks.values() if isinstance(block, kind)]
    return {block.label: block for block in found if block.label}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("num_inference_steps", text.STEPS),
        ("ensemble_size", text.MEMBERS),
        ("tiles_per_side", text.TILES),
        *((name, text.MESH_LABELS[name]) for name in FIELDS),
    ],
)
def test_sliders_have_range_default_and_help_of_the_models(page: gr.Blocks, name: str, label: str) -> None:
    model = MeshSettings if name in FIELDS else Settings
    slider, schema = widgets(page, gr.Slider)[label], schema_of(model, name)
    kind = schema.get("anyOf", [schema])[0]
    highest = min(kind["maximum"], MOST_TRIANGLES) if name == "max_triangles" else kind["maximum"]
    assert (slider.minimum, slider.maximum) == (kind["minimum"], highest)
    if model is Settings:
        assert slider.value == PRESETS[DEFAULT_PRESET].get(name, default(Settings, name))
    elif name not in MEASURED_IN_PAGE:
        assert slider.value == default(model, name)
    if name != EXPLAINED_IN_PAGE:
        assert slider.info == text.capital(help_text(model, name))


def test_the_seed_has_range_default_and_help_of_the_model(page: gr.Blocks) -> None:
    seed, schema = widgets(page, gr.Number)[text.SEED], schema_of(Settings, "seed")
    assert (seed.minimum, seed.maximum, seed.value) == (schema["minimum"], schema["maximum"], default(Settings, "seed"))
    assert seed.info == text.capital(help_text(Settings, "seed"))


@pytest.mark.parametrize("name", ["views", "follow_outlines", "decoder"])
def test_choices_have_values_default_and_help_of_the_models(page: gr.Blocks, name: str) -> None:
    found: list[Any] = [block for block in page.blocks.values() if getattr(block, "info", None) == _help(name)]
    assert [one.value for one in found] == [default(Settings, name)] * len(found) and found
    for one in found:
        if name in ("views", "decoder"):
            assert [value for _, value in one.choices] == schema_of(Settings, name)["enum"]


def _help(name: str) -> str:
    return text.capital(help_text(Settings, name))


# ------------------------------------------------------------------------------- nowhere else


def test_no_range_is_written_into_a_sentence() -> None:
    steps, members = schema_of(Settings, "num_inference_steps")["anyOf"][0], schema_of(Settings, "ensemble_size")
    ranges = re.compile("|".join(f"{kind['minimum']} to {kind['maximum']}" for kind in (steps, members)))
    written = [path for folder in ("marigold_core", "training", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in written if ranges.search(path.read_text(encoding="utf-8"))] == []
