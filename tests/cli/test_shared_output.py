"""Several processes into one output folder: each result whole, each photo done once, and nothing lost by a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from marigold_core import cli
from marigold_core.storage import claim
from tests.cli.test_photo_folders import check_whole
from tests.helpers.command_line import QUICK, ROOT, Predict, fingerprints, predicting, run_command

PHOTOS = 12


def start(folder: Path, out: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    words = predicting(out, model, folder, "--formats", "npy", "--json", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "marigold_core", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(output: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.slow
def test_three_processes_share_the_photos_and_a_killed_one_s_are_taken_over(
    folder: Path, out: Path, tiny_depth: Path, write
) -> None:
    for k in range(PHOTOS):
        write(folder / f"{k:02}.png", seed=k)
    killed, *others = [start(folder, out, tiny_depth) for _ in range(3)]
    assert killed.stdout is not None
    first = killed.stdout.readline()  # it is in the middle of its next photo
    killed.send_signal(signal.SIGKILL)
    rest = killed.communicate(timeout=120)[0]
    ended = [process.communicate(timeout=120) for process in others]
    assert [process.returncode for process in others] == [cli.ALL_DONE] * 2, ended
    reports = [records(text) for text, _ in ended]
    assert all(
        {Path(row["photo"]).name for row in report} == {f"{k:02}.png" for k in range(PHOTOS)} for report in reports
    )
    done = [row["photo"] for report in (*reports, records(first + rest)) for row in report if row["state"] == "done"]
    assert len(done) == len(set(done)) >= PHOTOS - 1  # one may have been finished and killed before it was told
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert len(list(out.iterdir())) == PHOTOS
    check_whole(out)


@pytest.mark.slow
def test_kills_at_many_moments_leave_nothing_claimed(folder: Path, out: Path, tiny_depth: Path, write, predict) -> None:
    for k in range(4):
        write(folder / f"{k}.png", seed=k)
    killed = 0
    for moment in range(4):
        process = start(folder, out, tiny_depth, "--overwrite", "--seed", str(moment))
        deadline = time.monotonic() + 60
        while not list(out.glob(".*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)  # until a photo is claimed
        time.sleep(0.01 * moment)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed
    assert predict(folder, "--overwrite") == cli.ALL_DONE
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    check_whole(out)


def test_a_photo_that_another_process_is_at_is_waited_for_and_kept(
    folder: Path, out: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """The other one's lock is held by this test; it is freed while the command waits."""
    for k in range(2):
        write(folder / f"{k}.png", seed=k)
    other = claim(out / "0")
    assert other.__enter__()
    from marigold_core.cli import predictor as command

    real = command.claim

    def freed(path: Path, *, wait: bool = False):
        if wait:
            assert (out / "1" / "manifest.json").exists()  # the other photos come first
            other.__exit__(None, None, None)
        return real(path, wait=wait)

    monkeypatch.setattr(command, "claim", freed)
    assert predict(folder) == cli.ALL_DONE
    captured = capsys.readouterr()
    assert "waiting for another process, which is at 1 of the photos" in captured.err
    assert captured.out.endswith("2 done\n")
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("command", ["calibrate", "compare", "panorama", "parallax", "defocus"])
def test_other_commands_refuse_a_folder_that_is_written_to(
    command: str, folder: Path, out: Path, tiny_depth: Path, write, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = write(folder / "a.png")
    Image.open(photo).resize((64, 32)).save(photo)
    own = {"calibrate": ["--anchors", "3,3,2;20,20,5", *QUICK], "compare": ["--steps", "1", "--sizes", "1"]}
    more = own.get(command, QUICK)
    words = [command, photo, "-o", out, "--model", tiny_depth, "--device", "cpu", *more]
    with claim(out / "a") as ours:
        assert ours
        assert run_command(*words) == cli.USAGE
    assert "Another process is writing to" in capsys.readouterr().err
    assert fingerprints(out) == {}


def test_a_claim_is_one_process_s_and_its_file_goes(tmp_path: Path) -> None:
    for name in ("a", "x" * 255):
        with claim(tmp_path / "sub" / name) as first, claim(tmp_path / "sub" / name) as second:
            assert (first, second) == (True, False)
        with claim(tmp_path / "sub" / name) as again:
            assert again
        assert list((tmp_path / "sub").iterdir()) == []


def test_a_hidden_file_of_the_users_is_no_claim(tmp_path: Path) -> None:
    (tmp_path / ".a.lock").write_text("mine")
    with claim(tmp_path / "a") as held:
        assert held
    assert (tmp_path / ".a.lock").read_text() == "mine"


def test_what_a_killed_process_left_of_a_finished_photo_is_cleared(folder: Path, out: Path, write, predict) -> None:
    write(folder / "one.png")
    assert predict(folder) == cli.ALL_DONE
    left = out / ".one.marigold-lock"
    left.touch()
    assert predict(folder) == cli.ALL_DONE
    assert not left.exists()
