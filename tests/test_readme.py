"""What the README tells people to type works, on the bundled checkpoint, and what it promises the host is true."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def front_matter() -> dict[str, str]:
    head = README.split("---\n")[1]
    return dict(re.findall(r'^(\w+): "?(.*?)"?$', head, re.MULTILINE))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, so that what a block writes does not land in the real one."""
    for name in ("assets", "marigold_core", "training", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=170, check=False)


def test_there_are_blocks_to_run() -> None:
    assert len(blocks("python")) >= 1
    assert sum("python -m marigold_core" in block for block in blocks("bash")) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str, copy: Path) -> None:
    ended = run([sys.executable, "-c", block], copy)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in blocks("bash") if "python -m marigold_core" in block])
def test_command_lines_run_one_after_the_other(block: str, copy: Path) -> None:
    for line in block.splitlines():
        _, *words = shlex.split(line, comments=True)
        ended = run([sys.executable, *words], copy)
        assert ended.returncode == 0, f"{line}\n{ended.stderr}{ended.stdout}"


def training_commands() -> dict[str, set[str]]:
    """The training commands of all three pages: module -> its options."""
    pages = [ROOT / "training" / name for name in ("README.md", "NOTES.md")]
    text = "".join([README, *(page.read_text(encoding="utf-8") for page in pages)])
    found: dict[str, set[str]] = {}
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for module, words in re.findall(r"^python -m (training\.\w+)(.*)$", block.replace("\\\n", " "), re.MULTILINE):
            found.setdefault(module, set()).update(re.findall(r"--[a-z][a-z-]+", words.partition("#")[0]))
    return found


@pytest.mark.parametrize(("module", "options"), training_commands().items())
def test_training_commands_have_the_options_that_are_shown(
    module: str, options: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # run as a program, it must not be imported already
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    assert options <= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))


def test_the_pages_show_every_stage_of_training() -> None:
    assert len(training_commands()) >= 8


def test_the_host_installs_the_gradio_that_is_tested() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = next(Requirement(line.partition("#")[0].strip()) for line in lines if line.startswith("gradio"))
    hosted = Version(front_matter()["sdk_version"])
    assert wanted.specifier.contains(hosted)
    assert f">={hosted.major}.{hosted.minor}" in str(wanted.specifier)


def test_the_front_matter_names_an_app_a_licence_and_a_python_that_fit() -> None:
    head = front_matter()
    assert head["sdk"] == "gradio"
    assert (ROOT / head["app_file"]).is_file()
    assert head["license"] == "apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert Version(head["python_version"]) >= Version("3.11")
    assert len(head["short_description"]) <= 60  # the host refuses longer ones


def test_every_file_and_picture_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if not target.startswith(("http:", "https:"))]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) < 200


@pytest.mark.slow
def test_the_first_commands_of_the_training_manual_work_as_printed(tmp_path: Path) -> None:
    manual = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    block = re.findall(r"^```bash\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL)[0]
    install, *lines = block.splitlines()
    assert install.startswith("pip install")
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[:2] == ["python", "-m"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/smoke/step_*/model_index.json"))
