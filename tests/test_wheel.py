"""The wheel works without the checkout: library, command line, page and bundled checkpoint."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.helpers.app_server import serve
from tests.helpers.source_tree import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=280)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, and the libraries of this environment but not its checkout."""
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, timeout=120)
    (site,) = home.glob("lib/python*/site-packages")
    # A path in a .pth file is searched for packages; the .pth files in it, such as that of the checkout, are not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(words: list[str | Path], folder: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, timeout=170, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_holds_the_library_its_types_and_its_assets(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "assets").rglob("*") if path.is_file()}
    shown = {name for name in assets if name.startswith("assets/screenshots/")}  # only the README shows them
    assert {f"marigold_core/{name}" for name in assets - shown} <= names
    assert "marigold_core/py.typed" in names
    assert not [name for name in names if name.startswith(("training/", "tests/", "marigold_core/assets/screenshots"))]


def test_a_photo_is_predicted_without_the_checkout(python: Path, picture: Path, tmp_path: Path) -> None:
    where = run([python, "-c", "import marigold_core; print(marigold_core.__file__)"], tmp_path)
    assert not Path(where.strip()).is_relative_to(ROOT)
    command = python.with_name("marigold-depth")
    run([command, "predict", picture, "-o", "out", "--formats", "npy,glb", "--num-inference-steps", "1"], tmp_path)
    assert {path.name for path in (tmp_path / "out" / "photo").iterdir()} == {"depth.npy", "mesh.glb", "manifest.json"}
    assert "MarigoldPipeline" in run(
        [python, "-c", "from marigold_core import load; print(type(load('nano')).__name__)"], tmp_path
    )


def test_the_page_opens_without_the_checkout(python: Path, tmp_path: Path) -> None:
    with serve("nano", tmp_path, [python.with_name("marigold-depth"), "demo"], cwd=tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
