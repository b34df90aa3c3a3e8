"""The plan of the rooms, held as tables: who may import whom, and what is loaded when."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import CORE, PRODUCT, ROOT, TRAINING, imports, name_of, outer, show

import marigold_core

# A module imports modules of earlier lines only. "load" is what the package itself offers.
ORDER = """
errors __version__
settings
prediction
image ensemble surface preview atomic memory options console
colorize distance shelf archive patches
compare geometry modalities weights
relief votes paint hints
convergence solver sheet board hub
calibrate
manifest layout
export checkpoints
prior pace
components members
forecast grid
pipeline
load
examples service batch doctor
replay
comparisons again metres
cli ui
app __main__
"""
RANK = {name: rank for rank, line in enumerate(ORDER.strip().splitlines()) for name in line.split()}

UI_SEES = {
    *("service", "examples", "settings", "export", "colorize", "geometry", "image", "atomic"),
    *("checkpoints", "prediction", "errors", "load", "ui"),
    *("forecast", "convergence", "votes", "relief", "preview"),
    *("compare", "comparisons", "board", "paint", "sheet", "distance"),
    *("hints", "patches", "calibrate", "manifest", "replay"),
}
TRAINING_NEVER_SEES = {"ui", "service", "cli", "batch", "doctor"}

# Packages and the only modules that may import them, at any level.
PLACES = {
    "gradio": {"ui", "app"},
    "gradio_client": {"ui"},
    "starlette": {"ui", "app"},
    "spaces": {"app"},
    "torch": {
        *(
            "ensemble",
            "modalities",
            "memory",
            "members",
            "components",
            "pipeline",
            "image",
            "doctor",
            "replay",
            "prior",
            "convergence",
            "votes",
        ),
        "training",
    },
    "diffusers": {"components", "pipeline", "prior", "training"},
    "transformers": {"components", "training"},
    "tokenizers": {"training"},
    "safetensors": {"training"},
    "moderngl": {"training"},
    "huggingface_hub": {"hub"},
    "trimesh": {"geometry", "relief", "preview", "export", "training"},
    "fast_simplification": {"geometry"},
    "PIL": {"image", "colorize", "geometry", "export", "examples", "distance", "sheet", "ui", "training"},
    "pi_heif": {"image"},
    "OpenEXR": {"export"},
    "matplotlib": {"colorize", "training"},
    "pydantic": {"settings", "manifest", "options", "compare", "console", "replay", "again", "metres", "training"},
    "tyro": {"options", "cli", "again", "metres", "training"},
    "tqdm": {"console", "again", "training"},
    "accelerate": {"training"},
    "filelock": {"training"},
    "h5py": {"training"},
    "scipy": {"training"},
    "packaging": {"doctor"},
}
EVERYWHERE = {"numpy"}
LIGHT = {
    *("__init__", "__main__", "errors", "settings", "prediction", "options", "batch", "checkpoints", "layout"),
    *("cli", "again", "compare", "console"),
    *("hints", "patches", "solver", "calibrate", "metres"),
}


def inner(path: Path) -> set[str]:
    """Rooms of marigold_core that a file imports; public names of the package count as where they come from."""
    home = {name: "load" if name == "load" else _home(name) for name in marigold_core.__all__}
    found = (name.split(".")[1] for name in imports(path) if name.startswith("marigold_core."))
    return {home.get(name, name) for name in found} - {name_of(path)}


def _home(public: str) -> str:
    if public == "PRESETS":
        return "settings"
    return getattr(marigold_core, public).__module__.removeprefix("marigold_core.")


# ------------------------------------------------------------------------------- who imports whom


@pytest.mark.parametrize("path", [*CORE, ROOT / "app.py"], ids=show)
def test_arrows_point_one_way(path: Path) -> None:
    name = name_of(path)
    if name == "__init__":
        assert inner(path) <= {"errors", "prediction", "settings", "checkpoints", "pipeline"}
        return
    assert name in RANK, f"{name} has no place in ORDER"
    assert {other for other in inner(path) if RANK[other] >= RANK[name]} == set()


@pytest.mark.parametrize("path", [path for path in CORE if name_of(path) == "ui"], ids=show)
def test_the_screens_never_see_the_network(path: Path) -> None:
    assert inner(path) <= UI_SEES


@pytest.mark.parametrize("path", TRAINING, ids=show)
def test_training_uses_the_core_but_no_surface(path: Path) -> None:
    assert inner(path) & TRAINING_NEVER_SEES == set()


@pytest.mark.parametrize("path", CORE, ids=show)
def test_the_core_knows_neither_training_nor_tests_nor_the_app(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} & {"training", "tests", "app"} == set()


@pytest.mark.parametrize("path", PRODUCT, ids=show)
def test_packages_are_imported_in_their_places(path: Path) -> None:
    misplaced = {top for top in outer(path) - EVERYWHERE if name_of(path) not in PLACES.get(top, set())}
    assert misplaced == set()


@pytest.mark.parametrize("path", PRODUCT, ids=show)
def test_no_diffusers_pipeline_is_imported(path: Path) -> None:
    assert [name for name in imports(path) if re.search(r"^diffusers\.(pipelines|\w*Pipeline)", name)] == []


@pytest.mark.parametrize("path", [path for path in CORE if path.stem in LIGHT and path.parent.name != "ui"], ids=show)
def test_light_modules_import_no_torch_when_they_are_imported(path: Path) -> None:
    assert outer(path, lazy=False) & {"torch", "diffusers", "transformers", "gradio", "matplotlib", "trimesh"} == set()


# ------------------------------------------------------------------------------- at run time


def loaded_modules(code: str, *words: str) -> set[str]:
    """Run Python code in a fresh process -> the modules that it left loaded."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('', *sys.modules, sep='\\n')"
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, timeout=150, check=True
    )
    return set(ended.stdout.split("\n"))


@pytest.mark.parametrize(
    "code",
    [
        "import marigold_core.cli, marigold_core.checkpoints, marigold_core.batch, marigold_core.options",
        "from marigold_core.cli import main; main(['--help'])",
        "from marigold_core.cli import main; main(['predict', '--help'])",
        "from marigold_core.cli import main; main(['calibrate', '--help'])",
        "from marigold_core.cli import main; main(['predict', 'x.jpg', '-o', 'y', '--seed', 'x'])",
        "from marigold_core.cli import main; main(['compare', 'x.jpg', '-o', 'y', '--steps', '0'])",
        "from marigold_core.cli import main; main(['replay', '--help'])",
        "from marigold_core.cli import main; main(['compare', '--help'])",
        "from marigold_core.cli import main; main(['models'])",
    ],
)
def test_help_lists_and_usage_errors_import_no_torch(code: str) -> None:
    heavy = {"torch", "diffusers", "transformers", "gradio", "matplotlib", "trimesh"}
    assert loaded_modules(code) & heavy == set()


def test_a_loaded_checkpoint_brings_no_diffusers_pipeline(tiny_depth: Path) -> None:
    loaded = loaded_modules("import marigold_core; marigold_core.load(sys.argv[1], device='cpu')", str(tiny_depth))
    assert "diffusers" in loaded
    assert {name for name in loaded if name.startswith("diffusers.pipelines.marigold")} == set()
    assert "diffusers.pipelines.pipeline_utils" not in loaded
