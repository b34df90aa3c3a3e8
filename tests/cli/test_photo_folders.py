"""Many photos and bad luck: damaged files, name clashes, links, full disks, kills. Nothing of the user's is lost."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import cli
from tests.helpers.command_line import QUICK, Predict, fingerprints, fresh, run_command

# ------------------------------------------------------------------------------- T63: bad among good


def test_bad_files_among_good_ones_are_named_and_the_rest_is_done(folder, out, write, predict, capsys) -> None:
    good = [write(folder / f"good{k:02}.png", seed=k) for k in range(33)]
    damage = [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"GIF89a" + whole,
        lambda whole: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        lambda whole: bytes(1000),
    ]
    bad = [folder / f"bad{k:02}.png" for k in range(17)]
    for k, path in enumerate(bad):
        path.write_bytes(damage[k % len(damage)](good[0].read_bytes()))
    assert predict(folder) == cli.SOME_FAILED
    assert len(list(out.rglob("depth.npy"))) == 33
    captured = capsys.readouterr()
    for path in bad:
        assert re.search(rf"^failed: {re.escape(str(path))}: .+\.$", captured.err, re.MULTILINE)
        assert re.search(rf"^{re.escape(str(path))} +failed +.+\.$", captured.out, re.MULTILINE)
    assert captured.out.endswith("33 done, 17 failed\n")


def test_a_missing_photo_is_named_and_the_others_are_done(folder: Path, out: Path, write, predict: Predict) -> None:
    assert predict(write(folder / "a.png"), folder / "b.png") == cli.SOME_FAILED
    assert (out / "a" / "depth.npy").exists()


# ------------------------------------------------------------------------------- nothing is made for what is refused


@pytest.mark.parametrize(
    "words",
    [
        "predict in/a.png --results new/r.txt",
        "predict in/a.png --results new/r.csv --formats uncertainty",
        "predict in/a.png --results new/r.csv --model no-such",
        "predict in/broken.png",
        "calibrate in/a.png",
        "calibrate in/a.png --anchors 1,2",
        "calibrate in/a.png --anchors 999,2,3;4,5,6",
        "calibrate in/a.png --anchors 1,2,3;4,5,6 --sparse in/broken.png",
        "import-depth in/a.png",
        "import-depth in/a.png in/a.png in/a.png",
        "import-depth in/a.png in/grey.png --save-for rgbd",
        "import-depth in/a.png in/grey.png --formats uncertainty",
        "compare in/a.png --steps 0",
        "compare in/a.png --depth in/broken.png",
        "compare in/a.png --sizes 1 --formats uncertainty",
        "video in/a.txt",
        "panorama in/a.png",
        "parallax in/broken.png",
        "parallax in/a.png --ensemble-size 0",
        "defocus in/a.png --focus 64,2",
        "replay in -o out",
    ],
)
def test_a_refused_command_makes_nothing(
    words: str, folder: Path, out: Path, write, tiny_depth: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "a.png")
    write(folder / "grey.png")
    Image.open(folder / "grey.png").convert("L").save(folder / "grey.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "a.txt").write_text("no video")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    assert cli.main([*words.split(), "-o", "out/deep"]) not in (cli.ALL_DONE, cli.INTERRUPTED)
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name for path in folder.parent.iterdir()} == {"in"}


# ------------------------------------------------------------------------------- T64: nothing of the user's is lost


def test_what_is_finished_is_kept_and_more_formats_or_settings_ask_for_overwrite(
    folder: Path, out: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "a.png")
    assert predict(folder, formats="npy,color") == cli.ALL_DONE
    before = fingerprints(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert predict(folder, formats="color") == cli.ALL_DONE
    assert "1 kept" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    for change in (["--seed", 1], ["--colormap", "gray"], ["--near-ratio", 0.5]):
        assert predict(folder, *change, formats="npy,color") == cli.SOME_FAILED
        assert "--overwrite" in capsys.readouterr().err
    assert predict(folder, formats="npy,png16") == cli.SOME_FAILED
    assert fingerprints(out) == before
    assert predict(folder, "--seed", 1, "--overwrite", formats="png16") == cli.ALL_DONE
    assert fingerprints(out).keys() == {"a/depth_16bit.png", "a/manifest.json"}


def test_another_photo_of_the_same_name_is_not_taken_for_done(folder: Path, write, predict: Predict) -> None:
    write(folder / "a.png", seed=0)
    assert predict(folder) == cli.ALL_DONE
    write(folder / "a.png", seed=1)
    assert predict(folder) == cli.SOME_FAILED


def test_files_of_others_are_never_replaced(folder: Path, out: Path, write, predict: Predict) -> None:
    write(folder / "a.png")
    (out / "a").mkdir(parents=True)
    (out / "a" / "depth.npy").write_text("mine")
    assert predict(folder) == cli.SOME_FAILED
    assert fingerprints(out).keys() == {"a/depth.npy"}
    assert (out / "a" / "depth.npy").read_text() == "mine"
    assert predict(folder, "--overwrite", formats="color") == cli.ALL_DONE
    assert (out / "a" / "depth.npy").read_text() == "mine"


def test_photos_that_differ_in_extension_or_case_keep_it(folder: Path, out: Path, write, predict: Predict) -> None:
    for name in ("a.jpg", "a.png", "A.webp", "b.png"):
        write(folder / name)
    assert predict(folder) == cli.ALL_DONE
    assert {path.parent.name for path in out.rglob("depth.npy")} == {"a.jpg", "a.png", "A.webp", "b"}


def test_photos_of_one_name_from_two_folders_are_refused(folder, out, write, predict, capsys) -> None:
    assert predict(write(folder / "x" / "rgb.png"), write(folder / "y" / "rgb.png")) == cli.USAGE
    assert "would both be written to rgb.png" in capsys.readouterr().err
    assert not out.exists()
    assert predict(folder / "*" / "rgb.png") == cli.ALL_DONE


def test_one_photo_named_twice_is_one_job(folder: Path, write, predict: Predict, capsys) -> None:
    path = write(folder / "a.png")
    assert predict(folder, path, folder / "*.png") == cli.ALL_DONE
    assert capsys.readouterr().out.endswith("\n1 done\n")


def test_links_that_leave_the_folder_are_refused(folder: Path, out: Path, tmp_path: Path, write, predict) -> None:
    inside = write(folder / "a.png")
    (folder / "b.png").symlink_to(inside)
    (folder / "c.png").symlink_to(write(tmp_path / "secret" / "c.png"))
    (folder / "d").symlink_to(tmp_path / "secret")
    (folder / "e.png").symlink_to("nowhere.png")
    assert predict(folder) == cli.SOME_FAILED
    assert {path.parent.name for path in out.rglob("depth.npy")} == {"a"}


def test_an_output_folder_that_is_a_link_is_not_followed(folder, out, tmp_path, write, predict) -> None:
    write(folder / "a.png")
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "elsewhere")
    for options in ([], ["--overwrite"]):
        assert predict(folder, *options) == cli.SOME_FAILED
    assert fingerprints(tmp_path / "elsewhere") == {}


def test_the_output_must_not_be_the_input(folder: Path, write, predict: Predict, capsys) -> None:
    write(folder / "a.png")
    before = fingerprints(folder)
    assert predict(folder, "-o", folder) == cli.USAGE
    assert "also the input folder" in capsys.readouterr().err
    assert fingerprints(folder) == before


def test_an_output_that_cannot_be_written_is_named(folder: Path, tmp_path: Path, write, predict, capsys) -> None:
    path = write(folder / "a.png")
    before = fingerprints(folder)
    assert predict(path, "-o", path) == cli.USAGE
    assert predict(path, "-o", path / "below") == cli.USAGE
    assert capsys.readouterr().err.count("cannot be made") == 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("a file where the folder should be")
    assert predict(path) == cli.SOME_FAILED
    assert fingerprints(folder) == before


# ------------------------------------------------------------------------------- T65: interrupted


def test_a_full_disk_leaves_no_partial_files(folder: Path, out: Path, write, predict, monkeypatch, capsys) -> None:
    for k in range(3):
        write(folder / f"{k}.png", seed=k)
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert predict(folder, formats="npy,color") == cli.SOME_FAILED
    assert "disk is full" in capsys.readouterr().err
    finished = {path.name for path in out.iterdir()}
    assert len(finished) == 2
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert predict(folder, formats="npy,color") == cli.ALL_DONE
    assert "1 done, 2 kept" in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_is_finished_and_cleans_up(
    folder: Path, out: Path, write, predict: Predict, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for k in range(3):
        write(folder / f"{k}.png", seed=k)
    from marigold_core.files import writers

    def save(prediction, folder: Path, *rest, **options):
        paths = real(prediction, folder, *rest, **options)
        if "1.marigold-unfinished" in folder.name:
            raise KeyboardInterrupt
        return paths

    real = writers.save
    monkeypatch.setattr(writers, "save", save)
    assert predict(folder) == cli.INTERRUPTED
    captured = capsys.readouterr()
    assert "Stopped" in captured.err
    assert captured.out.endswith("1 done\n")
    assert fingerprints(out).keys() == {"0/depth.npy", "0/manifest.json"}


KILLED = """
import os, signal, sys
from marigold_core import cli, load
from marigold_core.cli import predictor

model = sys.argv[sys.argv.index("--model") + 1]
pipe = load(model, device="cpu")
predictor.load = lambda *_, **__: pipe  # loaded once, before the forks

def killer(real, countdown):
    def call(*words, **options):
        countdown[0] -= 1
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **options)
    return call

for moment in range(1, 30, 3):
    child = os.fork()
    if child == 0:
        countdown = [moment]
        for name in ("fsync", "replace", "open"):
            setattr(os, name, killer(getattr(os, name), countdown))
        os._exit(cli.main(sys.argv[1:]))
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ten_kills_leave_only_whole_results_and_the_next_run_goes_on(
    folder: Path, out: Path, tiny_depth: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(4):
        write(folder / f"{k}.png", seed=k)
    words = f"predict {folder} -o {out} --model {tiny_depth} --device cpu --formats npy,color --quiet".split()
    ended = fresh("-c", KILLED, *words, *QUICK, OMP_NUM_THREADS="1")
    signals = ended.stdout.split()
    assert len(signals) == 10, ended.stderr
    assert signals.count("9") >= 5
    check_whole(out)
    assert predict(folder, formats="npy,color") == cli.ALL_DONE
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert len(list(out.rglob("manifest.json"))) == 4
    check_whole(out)


POISONED = """
import os, signal, sys
from marigold_core import cli
from marigold_core.cli.photo_folders import Job

real = Job.load
Job.load = lambda job: os.kill(os.getpid(), signal.SIGKILL) if job.photo.name == "b.png" else real(job)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_a_photo_that_ends_its_process_costs_no_other_and_is_given_up_after_five(
    folder: Path, out: Path, tiny_depth: Path, write
) -> None:
    for name in "abc":
        write(folder / f"{name}.png", seed=ord(name))
    words = f"predict {folder} -o {out} --model {tiny_depth} --device cpu --formats npy".split()

    def run() -> subprocess.CompletedProcess[str]:
        return fresh("-c", POISONED, *words, *QUICK, OMP_NUM_THREADS="1")

    done = []
    for count in range(5):
        ended = run()
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        told = f"left for last, as it ended {count} process{'es' * (count > 1)} before: {folder / 'b.png'}"
        assert (told in ended.stderr) == (count > 0)
        done.append(sorted(path.parent.name for path in out.rglob("manifest.json")))
    assert done == [["a"], *[["a", "c"]] * 4]
    last = run()
    assert last.returncode == cli.SOME_FAILED
    assert "5 processes ended while they were at it" in last.stdout and last.stdout.endswith("2 kept, 1 failed\n")
    assert run().returncode == -signal.SIGKILL  # which tries it again


def check_whole(out: Path) -> None:
    """Every result folder is complete and every file in it is what its manifest says."""
    for folder in (path for path in out.iterdir() if path.name[0] != "."):
        files = json.loads((folder / "manifest.json").read_text())["files"]
        found = fingerprints(folder)
        del found["manifest.json"]
        assert found == files
        np.load(folder / "depth.npy")


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("moved", [1, 2])
def test_a_kill_between_the_files_of_a_result_is_made_good(
    flat: bool, moved: int, folder: Path, out: Path, write, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flat, or in a folder that is there, files are moved one by one; what the kill left is ended, not refused."""
    write(folder / "a.png")
    words = (folder, "--formats", "npy,color,png16", *(["--flat"] if flat else ["--overwrite"]))
    if not flat:
        (out / "a").mkdir(parents=True)
        (out / "a" / "mine.txt").write_text("mine")
    replace, count = os.replace, iter(range(99))

    def killed(source: Path, target: Path) -> None:
        if Path(target).parent in (out, out / "a") and "unfinished" not in str(target) and next(count) >= moved:
            raise SystemExit(9)
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("marigold_core.cli.photo_folders.os.replace", killed)
        patch.setattr("marigold_core.storage.shutil.rmtree", lambda path, **how: None)  # a kill cleans nothing
        predict(*words)
    assert [path.parent for path in out.rglob("*manifest.json")] == [out / ".a.marigold-unfinished"]
    assert predict(*words[: None if flat else -1]) == cli.ALL_DONE
    made = fingerprints(out)
    assert sorted(name for name in made if "marigold" in name) == []
    assert len(made) == 4 + (not flat)
    assert predict(*words[: None if flat else -1]) == cli.ALL_DONE and fingerprints(out) == made


def test_of_a_damaged_photo_nothing_but_the_refusal_is_printed(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.tif").write_bytes(b"II*\0\x08\0\0\0")  # of which Pillow warns
    assert run_command("predict", tmp_path, "-o", tmp_path / "out") == cli.SOME_FAILED
    assert "This is not a photo that can be read" in capsys.readouterr().err
    assert not [one for one in recwarn if "PIL" in one.filename]
