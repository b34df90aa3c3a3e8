"""The folder of a hosted Space that ``make space`` writes: whole, accepted by the host, and it runs."""

import fnmatch
import re
import subprocess
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests.helpers.app_server import ROOT, serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosted") / "space"
    subprocess.run(["make", "space", f"OUT={folder}"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


def test_what_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    refused = subprocess.run(
        ["make", "space", f"OUT={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode != 0 and "is not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_plain_push_is_accepted(space: Path) -> None:
    """The host refuses binary files that are not in LFS."""
    patterns = [line.split()[0] for line in (space / ".gitattributes").read_text().splitlines() if "filter=lfs" in line]
    binary = [path for path in space.rglob("*") if path.is_file() and b"\0" in path.read_bytes()[:8000]]
    assert len(binary) > 20
    assert [path.name for path in binary if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)] == []


def test_the_host_installs_what_it_can_run(space: Path) -> None:
    lines = [line.partition("#")[0].strip() for line in (space / "requirements.txt").read_text().splitlines()]
    wanted = {one.name: one for one in map(Requirement, filter(None, lines))}
    assert wanted["torch"].specifier.contains("2.11.0") and not wanted["torch"].specifier.contains("2.12.0")
    assert "gradio" not in wanted  # the host installs the one that README.md names


def test_its_readme_points_to_nothing_that_is_not_there(space: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (space / "README.md").read_text())
    assert [target for target in targets if "://" not in target and not (space / target).exists()] == []


def test_it_runs(space: Path, tmp_path: Path) -> None:
    with serve("nano", tmp_path, cwd=space) as url:
        assert "Marigold" in httpx.get(url, timeout=30).text
