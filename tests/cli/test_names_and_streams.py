"""Names, locales, pipes and disks as operating systems have them: a result or a sentence, never a trace."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import cli
from marigold_core.cli import photo_folders
from marigold_core.cli.photo_folders import Job
from marigold_core.cli.predict import Report
from marigold_core.cli.predictor import Outcome
from marigold_core.comparison.sweep import COLUMNS, to_csv
from marigold_core.errors import SettingsError
from marigold_core.options import COMPLETION, call
from marigold_core.storage import portable_name
from tests.helpers.command_line import ROOT, Predict, fresh, predicting, run_command

TRACE = "Traceback"


def results(out: Path) -> list[str]:
    return sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("depth.npy"))


# ------------------------------------------------------------------------------- what a search finds


def test_a_search_finds_what_the_decoder_reads_and_says_what_it_left_out(
    folder: Path, out: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = write(folder / "a.png").read_bytes()
    names = ("b.jfif", "c.hif", "d.mpo", "noext", "e.backup", "f.JPG")
    for name in names:
        (folder / name).write_bytes(photo)
    (folder / "notes.txt").write_text("BM is not a bitmap")
    (folder / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(99))
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    for name in ("logo.svg", "page.ico", "map.pnm", "scan.jpg.gz"):
        (folder / name).write_bytes(b"P5 1 1 255\n\0")
    assert predict(folder) == cli.ALL_DONE
    assert results(out) == sorted(["a", *(Path(name).stem for name in names)])
    said = capsys.readouterr().err
    others = ", ".join(str(folder / name) for name in ("logo.svg", "map.pnm", "notes.txt", "page.ico", "scan.jpg.gz"))
    for reason, names in (("not a photo", others), ("a video", folder / "clip.mov"), ("hidden", folder / "._a.png")):
        assert f"left out: {reason}: {names}\n" in said


def test_a_folder_without_photos_says_what_is_in_it(folder: Path, predict: Predict, capsys) -> None:
    (folder / "notes.txt").write_text("text")
    assert predict(folder) == cli.USAGE
    assert f"There is no photo in {folder}; left out: not a photo: {folder / 'notes.txt'}." in capsys.readouterr().err


def test_a_folder_of_raw_files_says_what_to_export(folder: Path, predict: Predict, capsys) -> None:
    for number in range(2):
        (folder / f"{number}.raf").write_bytes(b"FUJIFILMCCD-RAW 0201".ljust(300, b"\0"))
    assert predict(folder) == cli.SOME_FAILED
    assert capsys.readouterr().err.count("develop it and export a JPEG or TIFF.") == 2


def test_a_sub_folder_that_cannot_be_opened_is_named(
    folder: Path, write, predict: Predict, capsys, monkeypatch
) -> None:
    write(folder / "a.png")
    (folder / "closed").mkdir()
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may be run by root, who may open everything
    assert predict(folder) == cli.SOME_FAILED
    captured = capsys.readouterr()
    assert f"failed: {folder / 'closed'}: The folder cannot be opened: Permission denied." in captured.err
    assert captured.out.endswith("1 done, 1 failed\n")


def test_links_in_a_circle_and_pipes_do_not_take_the_others_with_them(folder: Path, out: Path, write, predict) -> None:
    write(folder / "a.png")
    (folder / "b.jpg").symlink_to("b.jpg")
    (folder / "c.jpg").symlink_to("d.jpg")
    (folder / "d.jpg").symlink_to("c.jpg")
    os.mkfifo(folder / "e.jpg")
    os.mkfifo(folder / "f")
    assert predict(folder) == cli.SOME_FAILED
    assert results(out) == ["a"]
    assert predict(folder / "a.png", folder / "b.jpg", folder / ("x" * 300)) == cli.SOME_FAILED


# ------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x.JPG", "x.jpg"], ["x.JPG", "x.jpg-2"]),
        ([unicodedata.normalize(form, "caf\u00e9.png") for form in ("NFC", "NFD")], None),
        (["new\nline.png", "tab\t.png"], ["new_line", "tab_"]),
        (["CON.png", "aux.jpg", "a .png", "b?.png", "b_.png"], None),
        (["\U0001f3d4.png", "\u202etxt.png", "=1+1.png", "-o.png"], None),
    ],
)
def test_names_that_systems_confuse_or_refuse_have_folders_of_their_own(
    names: list[str], expected: list[str] | None, folder: Path, out: Path, write, predict: Predict, capsys
) -> None:
    for number, name in enumerate(names):
        write(folder / name, seed=number)
    assert predict(folder) == cli.ALL_DONE
    made = results(out)
    assert len(made) == len(names) and (expected is None or made == sorted(expected))
    assert len({unicodedata.normalize("NFC", name).casefold() for name in made}) == len(names)
    assert all(portable_name(name) == name for name in made)
    table = capsys.readouterr().out
    assert len(table.splitlines()) == len(names) + 3 and "\u202e" not in table
    assert predict(folder) == cli.ALL_DONE
    assert f"{len(names)} kept" in capsys.readouterr().out


def test_the_longest_names_are_done(folder: Path, out: Path, write, predict: Predict) -> None:
    photo = write(folder / "a.png").read_bytes()
    for name in ("x" * 255, "\u00e9" * 125 + ".png", "y" * 251 + ".jpg"):
        (folder / name).write_bytes(photo)
    assert predict(folder) == cli.ALL_DONE
    assert results(out) == sorted(["a", "x" * 255, "\u00e9" * 125, "y" * 251])


@pytest.mark.parametrize(
    ("name", "portable"),
    [
        ("photo 1", "photo 1"), ("CON", "_CON"), ("nul.tar", "_nul.tar"), ("com5", "_com5"), ("com10", "com10"),
        ("a:b*c", "a_b_c"), ("end.", "end_"), ("end ", "end_"), ("a\x7fb\n", "a_b_"), ("b\udcff", "b_"),
    ],
)  # fmt: skip
def test_portable_names(name: str, portable: str) -> None:
    assert portable_name(name) == portable


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_any_locale_prints_any_name(
    environment: dict[str, str], folder: Path, out: Path, tiny_depth: Path, write
) -> None:
    photo = write(folder / "a.png").read_bytes()
    (folder / "\U0001f3d4\u00e9.png").write_bytes(photo)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9.png")).write_bytes(photo)
    words = predicting(out, tiny_depth, folder, "--formats", "npy")
    ended = fresh("-m", "marigold_core", *words, **environment)
    assert (ended.returncode, TRACE in ended.stderr) == (cli.ALL_DONE, False), ended.stderr
    assert ended.stdout.endswith("3 done\n")
    (folder / "Screenshot at 9.41.00\u202fAM \U0001f468\u200d\U0001f469.png").write_bytes(photo)  # as macOS names them
    flat = predicting(out / "flat", tiny_depth, folder, "--formats", "npy", "--flat")
    for state in ("done", "kept"):  # what its manifests list is found again
        ended = fresh("-m", "marigold_core", *flat, **environment)
        assert (ended.returncode, TRACE in ended.stderr) == (cli.ALL_DONE, False), ended.stderr
        assert ended.stdout.endswith(f"4 {state}\n")
    names = [name for path in (out / "flat").glob("*manifest.json") for name in json.loads(path.read_bytes())["files"]]
    assert {os.fsencode(path.name) for path in (out / "flat").glob("*.npy")} == {name.encode() for name in names}


def test_a_depth_map_whose_name_is_no_text_is_recorded_by_one(folder: Path, out: Path, write) -> None:
    photo, depth = write(folder / "a.png"), folder / os.fsdecode(b"d\xff.npy")
    np.save(depth, np.linspace(0, 1, 48 * 64).reshape(48, 64))
    assert run_command("import-depth", photo, depth, "-o", out, "--formats", "npy", "--quiet") == 0
    assert json.loads((out / "a" / "manifest.json").read_bytes())["checkpoint"] == "given: d\ufffd.npy"


def test_an_error_about_a_strange_name_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a\xff\nb\x1b[31m.png")
    assert run_command("calibrate", tmp_path / name, "-o", tmp_path / "out", "--near-m", "1") == cli.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "a\\udcff\\nb\\x1b[31m.png" in said


def test_a_name_is_no_formula_in_a_table() -> None:
    class Row:
        def figures(self) -> tuple[str, ...]:
            return ("=cmd|' /C calc'!A0", "-0.25", "+1", "@x", "\udcff", *[""] * (len(COLUMNS) - 5))

    line = to_csv([Row()]).decode().splitlines()[1]  # type: ignore[list-item]
    assert line.startswith("'=cmd|' /C calc'!A0,-0.25,+1,'@x,\\udcff")


# ------------------------------------------------------------------------------- streams


def test_json_is_a_line_a_photo(folder: Path, out: Path, write, predict: Predict, capsys) -> None:
    write(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    assert predict(folder, "--json") == cli.SOME_FAILED
    captured = capsys.readouterr()
    done, failed = map(json.loads, captured.out.splitlines())
    assert done == {
        "photo": str(folder / "a.png"),
        "state": "done",
        "folder": str(out / "a"),
        "prefix": "",
        "reason": None,
        "note": None,
    }
    assert (failed["state"], failed["photo"]) == ("failed", str(folder / "b.png")) and failed["reason"].endswith(".")
    assert failed["folder"] is None  # it has none
    predict(folder / "a.png", "--json", "--flat")
    beside = json.loads(capsys.readouterr().out)
    assert Path(beside["folder"], f"{beside['prefix']}depth.npy").is_file()
    predict(folder, "--json", "--quiet")
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["kept", "failed"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_of_results_has_a_line_a_photo(ending: str, folder, out, tmp_path, write, predict, capsys) -> None:
    for name in ("=a.png", "c.png"):
        write(folder / name)
    (folder / "b.png").write_bytes(b"")
    file = tmp_path / "deep" / f"results.{ending}"
    assert predict(folder, "--results", file) == cli.SOME_FAILED
    table = capsys.readouterr()
    assert table.out.splitlines()[3].split()[1] == "failed" and table.out.endswith("\n2 done, 1 failed\n")
    text = file.read_text(encoding="utf-8")
    rows = (
        list(csv.DictReader(text.splitlines())) if ending == "csv" else [json.loads(row) for row in text.splitlines()]
    )
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert rows[2]["photo"] == str(folder / "c.png") and float(rows[2]["seconds"]) > 0
    assert not rows[1]["seconds"] and rows[1]["reason"].endswith(".")
    assert predict(folder, "--results", file) == cli.SOME_FAILED
    assert file.read_text(encoding="utf-8").count("kept") == 2
    other = tmp_path / f"mine.{ending}"
    other.write_text("year,sum\n2025,7\n")
    assert predict(folder, "--results", other) == cli.USAGE and other.read_text() == "year,sum\n2025,7\n"
    assert predict(folder, "--results", tmp_path / "results.txt") == cli.USAGE
    assert predict(folder, "--results", folder / "=a.png" / "results.csv") == cli.USAGE


def test_the_bar_tells_the_place_of_a_photo_and_the_time_left() -> None:
    report = Report(quiet=True, as_json=True, expected=5)
    assert report.ahead("a.png") == "1 of 5: a.png"
    report.add(Job(Path("a.png"), Path("a")), Outcome("done", seconds=3.0))
    assert report.ahead("b.png") == "2 of 5, 12 s left: b.png"
    report.add(Job(Path("b.png"), Path("b")), Outcome("kept"))
    assert report.ahead("c.png") == "3 of 5, 9.0 s left: c.png"


def test_the_note_of_the_decoder_is_told(folder: Path, write, predict: Predict, capsys) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    assert predict(folder, "--json") == cli.ALL_DONE
    assert "the first one was used" in json.loads(capsys.readouterr().out)["note"]
    assert predict(folder, "--overwrite") == cli.ALL_DONE
    assert "the first one was used" in capsys.readouterr().out


class Piped:
    """A standard input that holds a photo."""

    def __init__(self, content: bytes) -> None:
        self.buffer = BytesIO(content)

    def isatty(self) -> bool:
        return not self.buffer.getvalue()


def test_a_photo_comes_by_the_standard_input(
    folder: Path, out: Path, write, predict: Predict, capsys, monkeypatch
) -> None:
    photo = write(folder / "a.png").read_bytes()
    for content, status in ((photo, cli.ALL_DONE), (b"no photo", cli.SOME_FAILED), (b"", cli.USAGE)):
        monkeypatch.setattr(sys, "stdin", Piped(content))
        assert predict("-", "--overwrite") == status
    assert results(out) == ["stdin"]
    assert "standard input" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["predict", ""], ["predict", "a.png", "-o", ""], ["predict", "a.png", "--model="], [" "]]
)
def test_empty_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == cli.USAGE
    assert "An argument is empty" in capsys.readouterr().err


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "at").mkdir()
    monkeypatch.chdir(tmp_path / "at")
    (tmp_path / "at").rmdir()
    assert cli.main(["predict", "photo.jpg", "-o", "out"]) == cli.USAGE
    assert capsys.readouterr().err == "The current folder was removed; change to another one.\n"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from marigold_core import __version__

    assert cli.main(["--version"]) == cli.ALL_DONE
    assert capsys.readouterr().out == f"marigold-depth {__version__}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_behind_the_output_costs_no_photo(
    stream: str, folder: Path, out: Path, tiny_depth: Path, write
) -> None:
    for number in range(2):
        write(folder / f"{number}.png", seed=number)
    words = predicting(out, tiny_depth, folder, "--formats", "npy")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "marigold_core", *words],
            stdout=full if stream == "stdout" else subprocess.PIPE,
            stderr=full if stream == "stderr" else subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
    assert results(out) == ["0", "1"]
    assert ended.returncode == cli.SOME_FAILED
    if stream == "stdout":
        assert TRACE not in ended.stderr and "could not be written: No space left on device." in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_full_disk_behind_the_file_of_results_costs_no_photo(
    ending: str, folder: Path, out: Path, tmp_path: Path, write, predict: Predict, monkeypatch, capsys
) -> None:
    for number in range(2):
        write(folder / f"{number}.png", seed=number)
    file, real = tmp_path / f"r.{ending}", Path.open
    opened = lambda path, *words, **options: real(Path("/dev/full") if path == file else path, *words, **options)  # noqa: E731
    monkeypatch.setattr(Path, "open", opened)
    assert predict(folder, "--results", file) == cli.SOME_FAILED
    told = capsys.readouterr()
    assert results(out) == ["0", "1"] and "2 done" in told.out
    assert told.err.count("No space left") == 1
    assert f"{file} could not be written to its end: No space left on device." in told.err


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_goes_away_costs_no_photo(both: bool, folder: Path, out: Path, tiny_depth: Path, write) -> None:
    for number in range(2):
        write(folder / f"{number}.png", seed=number)
    words = predicting(out, tiny_depth, folder, "--formats", "npy")
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run(
        [sys.executable, "-m", "marigold_core", *words],
        stdout=writes,
        stderr=writes if both else subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    os.close(writes)
    assert ended.returncode == 141 and TRACE not in (ended.stderr or "")
    assert results(out) == ["0", "1"]


STARTED = """
import signal, sys
from marigold_core import __main__

def told(*words):
    before = real(*words)
    print("on", flush=True)
    return before

real, signal.signal, sys.argv = signal.signal, told, ["x", "models"]
__main__.run()
"""


def test_ctrl_c_in_the_first_moments_leaves_no_trace() -> None:
    """From the first statement of the command to its last; the start and the end of the interpreter are not ours."""
    stopped = 0
    for moment in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.04 + 0.1 * moment)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert TRACE not in errors, errors
        stopped += process.returncode == cli.INTERRUPTED
        assert process.returncode in (cli.INTERRUPTED, cli.ALL_DONE, -signal.SIGINT), errors
    assert stopped


@pytest.mark.parametrize("words", ["{} banana", "{}", "{}=bash", "predict {} bash", "{} tcsh", "{} bash predict"])
def test_how_the_completion_is_printed_is_said(words: str, capsys) -> None:
    assert cli.main(words.format(COMPLETION).split()) == cli.USAGE
    assert f"Only {COMPLETION} bash or zsh or fish, alone, prints a" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="have no completion"):
        call(len, words.format(COMPLETION).split(), "python -m training.start")


def test_the_installed_command_completes_commands_options_and_files(tmp_path: Path, capsys) -> None:
    """Whatever printed the completion, it is that of the installed command, and python keeps its own."""
    scripts = dict[str, str]()
    for shell in ("bash", "zsh"):
        assert cli.main([COMPLETION, shell]) == cli.ALL_DONE
        scripts[shell] = capsys.readouterr().out
    assert "{ _files; return }" in scripts["zsh"] and scripts["zsh"].startswith("#compdef marigold-depth\n")
    (tmp_path / "completion").write_text(scripts["bash"])
    (tmp_path / "photo.jpg").write_text("")
    typed = ["imp", "predict --ensem", "predict pho", "predict photo.jpg --out"]
    values = {  # what is typed of a value: of one choice, of a list, where no choice fits
        "calibrate a.jpg --along ": "axis ray",
        "predict a.jpg --save-for contr": "controlnet",
        "predict a.jpg --formats npy,pn": "npy,png16",
        "predict a.jpg --colormap=vir": "viridis",
        "predict --formats=npy a.jpg --decoder=": "own preview tiny",
        "video a.mp4 --video-formats=color,grey,exr,png16,ply,": "color,grey,exr,png16,ply,side_by_side"
        " color,grey,exr,png16,ply,glb",
        "predict a.jpg --output=pho": "photo.jpg",
        "predict ": "photo.jpg",
        "predict a.jpg --views mirrored-": "mirrored-rescaled",
        "video a.mp4 --video-formats color,gr": "color,grey",
        "predict a.jpg --model pho": "photo.jpg",
    }
    lines = (f'complete_line "marigold-depth {words}"' for words in [*typed, *values])
    shell = subprocess.run(
        ["bash", "-c", "\n".join([COMPLETE, *lines])], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shell.stdout.splitlines() == [
        *("import-depth", "--ensemble-size", "photo.jpg", "--output"),
        *values.values(),
    ]


COMPLETE = """
complete -F own python
source completion
[[ $(complete -p python) == "complete -F own python" && $(complete -p | wc -l) == 2 ]] || exit 1
complete_line() {
  read -ra COMP_WORDS <<< "${1//=/ = }"
  [[ "$1" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  [[ $(complete -p marigold-depth) == *"-o default -F "* ]] || exit 1
  _tyro_marigold_depth
  if [[ ${#COMPREPLY[@]} == 0 ]]; then COMPREPLY=($(compgen -f -X completion -- "${COMP_WORDS[-1]#=}")); fi
  echo "${COMPREPLY[*]}"
}
"""


def test_no_file_carries_the_place_of_the_photo(folder: Path, out: Path, tiny_depth: Path, photo) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 11.0, 33.0), 3: "E", 4: (8.0, 33.0, 44.0)})
    exif[0x9C9B] = "Marker".encode("utf-16-le")
    exif[270] = "MarkerPlace"
    Image.fromarray(photo(48, 64, 0)).save(folder / "a.jpg", exif=exif, comment=b"MarkerPlace", xmp=b"<MarkerPlace/>")
    assert cli.main(predicting(out, tiny_depth, folder, "--ensemble-size", 3)) == cli.ALL_DONE
    for path in (out / "a").iterdir():
        content = path.read_bytes()
        assert not any(mark in content for mark in (b"Marker", b"Exif\0\0", b"M\0a\0r\0k\0")), path.name


def test_a_search_that_lists_nothing_says_nothing(folder: Path, write) -> None:
    write(folder / "a.png")
    found = photo_folders.find_jobs([str(folder)], folder / "out")
    assert list(photo_folders.describe_left_out(found)) == [] and len(found.jobs) == 1
