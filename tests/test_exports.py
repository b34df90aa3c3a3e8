"""One statement of each fact: public names, defaults, constants, requirements; and the sizes that were agreed."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import marigold_core
from marigold_core.settings import Frozen
from tests.helpers.source_tree import CORE, PRODUCT, ROOT, TRAINING, checked_in, outer, show

# Constants that state how data are scaled stand where the scaling is defined; elsewhere they would be a copy of it.
LITERALS = {
    r"18215": set(),
    r"DDPMScheduler": {"marigold_core/checkpoints/layout.py"},
    r"\b127\.5\b": {"marigold_core/images/colormaps.py", "training/scenes/rasterizer.py"},
    r'= "Spectral"|, "Spectral"': {"marigold_core/settings.py"},
}

INDIRECT = {"accelerate", "python-multipart"}  # diffusers and gradio import them for us
OPTIONAL = {"spaces"}  # where a Space runs
IMPORT_NAMES = {
    "pillow": "PIL",
    "grpcio": "grpc",
    "pi-heif": "pi_heif",
    "fast-simplification": "fast_simplification",
    "opencv-python-headless": "cv2",
    "universal-pathlib": "upath",
}


# ------------------------------------------------------------------------------- public names, defaults, constants


def test_all_is_what_the_package_offers() -> None:
    offered = {name for name in vars(marigold_core) if not name.startswith("_")}
    offered |= marigold_core._IMPORTED_ON_USE.keys()
    modules = {path.relative_to(ROOT / "marigold_core").with_suffix("").parts[0] for path in CORE}
    assert sorted(marigold_core.__all__) == sorted(offered - modules - {"Path", "TYPE_CHECKING", "import_module"})
    assert all(hasattr(marigold_core, name) for name in marigold_core.__all__)


@pytest.mark.parametrize("path", [*CORE, ROOT / "app.py"], ids=show)
def test_every_default_of_a_setting_is_stated_in_its_model_alone(path: Path) -> None:
    from marigold_core.settings import MeshSettings, Settings

    fields = {**Settings.model_fields, **MeshSettings.model_fields}
    copies = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            positional = [*arguments.posonlyargs, *arguments.args]
            pairs = [
                *zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True),
                *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
            ]
            copies += [
                f"{node.name}({argument.arg}={value.value!r})"
                for argument, value in pairs
                if argument.arg in fields and isinstance(value, ast.Constant) and value.value is not None
            ]
    assert copies == []


@pytest.mark.parametrize("pattern", LITERALS)
def test_constants_stand_where_they_are_defined(pattern: str) -> None:
    found = {show(path) for path in PRODUCT if re.search(pattern, path.read_text(encoding="utf-8"))}
    assert found <= LITERALS[pattern]


def models(base: type) -> Iterator[type]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


def test_every_model_is_frozen_strict_and_closed() -> None:
    for name in ("settings", "files.manifest", "cli"):
        import_module(f"marigold_core.{name}")
    ours = [model for model in models(Frozen) if model.__module__.startswith("marigold_core.")]
    assert len(ours) >= 3
    for model in ours:
        config = model.model_config
        assert (config["frozen"], config["strict"], config["extra"]) == (True, True, "forbid")


@pytest.mark.parametrize("path", PRODUCT, ids=show)
def test_nothing_swallows_every_exception_or_validation(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]
    silent = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and ast.unparse(node.type) in ("Exception", "BaseException")
        and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert bare == silent == []
    assert "model_copy(" not in ast.unparse(tree)  # it would skip validation


# ------------------------------------------------------------------------------- what is declared and how large it is


def requirements() -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return _by_name(filter(None, lines))


def declared(extra: str = "") -> dict[str, Requirement]:
    """Read what pyproject.toml asks for, of the library or of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return _by_name(project["optional-dependencies"][extra] if extra else project["dependencies"])


def _by_name(lines: Iterable[str]) -> dict[str, Requirement]:
    return {wanted.name: wanted for wanted in map(Requirement, lines)}


def _imported(paths: Iterable[Path]) -> set[str]:
    return {top for path in paths for top in outer(path)}


def _names(wanted: Iterable[str]) -> set[str]:
    return {IMPORT_NAMES.get(name, name) for name in wanted}


def test_requirements_are_those_of_the_library_and_the_app() -> None:
    assert requirements() == declared() | declared("app")


def test_every_requirement_is_used_and_every_import_is_required() -> None:
    page = [path for path in CORE if path.is_relative_to(ROOT / "marigold_core" / "ui")] + [ROOT / "app.py"]
    library = [path for path in CORE if path not in page]
    assert _names(declared()) - _imported(library) == INDIRECT & _names(declared())
    extras = _names(declared("video") | declared("cluster"))
    assert _imported(library) - _names(declared()) - OPTIONAL == extras - INDIRECT
    assert _names(declared("app")) - _imported(page) == INDIRECT & _names(declared("app"))
    pinned = {"gradio_client", "markupsafe", "anyio"}  # by gradio, jinja2 and starlette
    assert _imported(page) - _names(requirements()) - OPTIONAL == pinned | _names(declared("mcp"))


def test_training_asks_for_what_it_imports() -> None:
    pinned = {"tokenizers", "yaml"}  # by transformers and huggingface_hub
    optional = declared("lora") | declared("adam8bit")
    assert _imported(TRAINING) - _names(declared() | declared("train") | optional) == pinned
    assert _names(declared("train")) - {"jinja2"} <= _imported(TRAINING)  # huggingface_hub fills in model cards with it


@pytest.mark.parametrize("wanted", requirements().values(), ids=str)
def test_the_tests_run_on_the_versions_that_are_required(wanted: Requirement) -> None:
    from importlib.metadata import version

    assert wanted.specifier.contains(version(wanted.name), prereleases=True)
    assert any(part.operator in (">=", "==") for part in wanted.specifier)


def test_sizes_stay_within_the_plan() -> None:
    files = checked_in()
    assert len(files) > 50
    assert [show(path) for path in files if path.stat().st_size > 9e6] == []
    assert sum(path.stat().st_size for path in files) < 48e6
    weights = [path for path in files if path.suffix == ".safetensors" and path.is_relative_to(ROOT / "assets")]
    assert sum(path.stat().st_size for path in weights) < 40e6


def test_the_top_level_is_the_planned_one() -> None:
    planned = {"app.py", "marigold_core", "training", "assets", "tests", "requirements.txt", "README.md"}
    planned |= {"Makefile", "pyproject.toml", "CHANGELOG.md", "LICENSE", ".gitignore", ".ci"}
    planned |= {".gitattributes", ".github", "CITATION.cff"}
    assert {path.relative_to(ROOT).parts[0] for path in checked_in()} <= planned


def test_no_file_is_a_drawer_for_everything() -> None:
    assert [show(path) for path in PRODUCT if path.stem in ("utils", "helpers", "misc", "common")] == []


def test_at_most_eight_modules_lie_directly_in_the_library() -> None:
    assert len([path for path in CORE if path.parent == ROOT / "marigold_core"]) <= 8
