"""Where libraries may be imported, and what is loaded when; who imports whom is in pyproject.toml (import-linter)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.source_tree import CORE, PRODUCT, ROOT, imports, name_of, outer, show

# Packages and the only modules or folders of marigold_core that may import them, at any level.
PLACES = {
    "gradio": {"ui", "app"},
    "gradio_client": {"ui"},
    "jinja2": {"ui"},
    "markupsafe": {"ui"},
    "anyio": {"ui"},
    "mcp": {"ui"},
    "starlette": {"serving", "ui", "app"},
    "spaces": set(),  # by name, where the host has it
    "ray": {"serving", "cli"},
    "click": {"serving"},
    "grpc": {"cli"},
    "upath": {"cli"},
    "av": {"video"},
    "cv2": {"video"},
    "torch": {"ensemble", "pipeline", "images", "files", "serving", "cli", "training", "video"},
    "diffusers": {"pipeline", "training"},
    "transformers": {"pipeline", "training"},
    "tokenizers": {"training"},
    "safetensors": {"storage", "checkpoints", "pipeline", "training"},
    "moderngl": {"training"},
    "huggingface_hub": {"checkpoints", "training"},
    "trimesh": {"geometry", "files", "training"},
    "fast_simplification": {"geometry"},
    "PIL": {"images", "geometry", "calibration", "files", "comparison", "serving", "ui", "training", "video"},
    "pi_heif": {"images"},
    "OpenEXR": {"images", "files"},
    "matplotlib": {"images", "training"},
    "pydantic": {
        "ui",
        "settings",
        "options",
        "calibration",
        "checkpoints",
        "files",
        "comparison",
        "serving",
        "cli",
        "training",
        "video",
    },
    "tyro": {"options", "cli", "training"},
    "tqdm": {"cli", "training"},
    "accelerate": {"training"},
    "filelock": {"storage", "training"},
    "bitsandbytes": {"training"},
    "h5py": {"training"},
    "peft": {"training"},
    "yaml": {"training"},
    "scipy": {"images", "geometry", "calibration", "pipeline", "training"},
    "tifffile": {"images"},
    "packaging": {"cli"},
}
EVERYWHERE = {"numpy"}
HEAVY = {"torch", "diffusers", "transformers", "gradio", "matplotlib", "trimesh", "scipy"}
LIGHT = [  # importing these must stay quick: help texts, settings and usage errors need nothing else
    path
    for path in CORE
    if path.parent == ROOT / "marigold_core" or path.parent.name in ("checkpoints", "calibration", "cli")
    if path.stem != "ensemble"
]


# ------------------------------------------------------------------------------- who imports whom


@pytest.mark.parametrize("path", PRODUCT, ids=show)
def test_packages_are_imported_in_their_places(path: Path) -> None:
    misplaced = {top for top in outer(path) - EVERYWHERE if name_of(path) not in PLACES.get(top, set())}
    assert misplaced == set()


@pytest.mark.parametrize("path", PRODUCT, ids=show)
def test_no_diffusers_pipeline_is_imported(path: Path) -> None:
    assert [name for name in imports(path) if re.search(r"^diffusers\.(pipelines|\w*Pipeline)", name)] == []


@pytest.mark.parametrize("path", LIGHT, ids=show)
def test_light_modules_import_nothing_heavy_when_they_are_imported(path: Path) -> None:
    assert outer(path, lazy=False) & HEAVY == set()


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
        "import marigold_core.cli, marigold_core.checkpoints.registry, marigold_core.options",
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
    assert loaded_modules(code) & HEAVY == set()


def test_a_loaded_checkpoint_brings_no_diffusers_pipeline(tiny_depth: Path) -> None:
    loaded = loaded_modules("import marigold_core; marigold_core.load(sys.argv[1], device='cpu')", str(tiny_depth))
    assert "diffusers" in loaded
    assert {name for name in loaded if name.startswith("diffusers.pipelines.marigold")} == set()
    assert "diffusers.pipelines.pipeline_utils" not in loaded
