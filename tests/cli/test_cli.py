"""The command line as a person uses it: options, exit status, and what is written where."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import MeshSettings, Settings, cli, load
from marigold_core.cli.console import Run
from marigold_core.files.manifest import Manifest
from marigold_core.files.presets import PRESETS
from marigold_core.settings import default, help_text
from tests.helpers.command_line import ROOT, Predict, fingerprints, predicting, run_command

# ------------------------------------------------------------------------------- options


def test_every_setting_is_an_option_with_its_help_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", "--help"])
    assert ended.value.code == 0
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for model in (Run, Settings, MeshSettings):
        for name in model.model_fields:
            shown = text.partition(f"--{name.replace('_', '-')} ")[2]
            value = default(model, name)
            assert f"{help_text(model, name)} (default: {'auto' if value is None else value})" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "-1"], "seed must be greater than or equal to 0, but got -1."),
        (["--seed", "4.7"], "seed must be a valid integer, but got 4.7."),
        (["--seed", "True"], "seed must be a valid integer, but got 'True'."),
        (["--seed", "auto"], "seed must be a valid integer, but got 'auto'."),
        (["--ensemble-size", "21"], "ensemble_size must be less than or equal to 20, but got 21."),
        (["--num-inference-steps", "four"], "num_inference_steps must be a valid integer, but got 'four'."),
        (["--processing-resolution", "100"], "processing_resolution must be a multiple of 8, but got 100."),
        (["--near-ratio", "nan"], "near_ratio must be less than or equal to 0.99, but got nan."),
        (["--dtype", "int8"], "dtype must be 'auto', 'float32', 'float16' or 'bfloat16', but got 'int8'."),
        (["--formats", "npy,jpg"], "formats must be 'npy', .* or 'exr', but got 'jpg'."),
        (["--formats", ""], "An argument is empty: '' after --formats; .*"),
        ([], "There is no photo in .*empty."),
    ],
)
def test_a_wrong_value_is_one_sentence_and_usage(words, message, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert run_command("predict", tmp_path / "empty", "-o", tmp_path / "out", *words) == cli.USAGE
    captured = capsys.readouterr()
    assert re.fullmatch(message, captured.err.rstrip("\n"))
    assert captured.out == ""


@pytest.mark.parametrize(
    "words", [[], ["predict"], ["predict", "a.jpg"], ["predict", "a", "-o", "b", "--sede", "1"], ["replay"]]
)
def test_an_incomplete_or_unknown_command_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == cli.USAGE
    assert "--help" in capsys.readouterr().err


def test_an_unknown_or_damaged_checkpoint_ends_with_its_own_status(folder: Path, out: Path, write) -> None:
    write(folder / "a.png")
    assert run_command("predict", folder, "-o", out, "--model", "no-such-checkpoint") == cli.CHECKPOINT
    assert run_command("predict", folder, "-o", out, "--model", folder) == cli.CHECKPOINT
    assert fingerprints(out) == {}


def test_an_unknown_device_is_usage(folder: Path, out: Path, tiny_depth: Path, write) -> None:
    write(folder / "a.png")
    assert cli.main(predicting(out, tiny_depth, folder, "--device", "abacus")) == cli.USAGE


def test_formats_that_cannot_be_are_refused_before_the_first_photo(
    folder: Path, out: Path, tiny_normals: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "a.png")
    assert predict(folder, formats="npy,uncertainty") == cli.USAGE
    assert "needs 3 or more members" in capsys.readouterr().err
    assert predict(folder, "--model", tiny_normals, formats="normals,glb") == cli.USAGE
    assert "prediction of normals has no glb" in capsys.readouterr().err
    assert fingerprints(out) == {}


# ------------------------------------------------------------------------------- results


def test_the_files_are_those_of_the_library(folder: Path, out: Path, tiny_depth: Path, write, predict: Predict) -> None:
    path = write(folder / "a.png")
    assert predict(path, "--ensemble-size", 3, "--seed", 7, formats="npy,png16,color,uncertainty") == cli.ALL_DONE
    settings = Settings(num_inference_steps=1, processing_resolution=32, ensemble_size=3, seed=7)
    expected = load(tiny_depth, device="cpu")(path, settings)
    np.testing.assert_array_equal(np.load(out / "a" / "depth.npy"), expected.values)
    np.testing.assert_array_equal(np.load(out / "a" / "uncertainty.npy"), expected.uncertainty)
    with Image.open(out / "a" / "depth_16bit.png") as image:
        np.testing.assert_allclose(np.asarray(image) / 65535, expected.values, atol=1e-5)
    recorded = Manifest.model_validate_json((out / "a" / "manifest.json").read_text())
    assert recorded.settings == settings
    assert fingerprints(out).keys() == {f"a/{name}" for name in [*recorded.files, "manifest.json"]}


def test_without_formats_every_file_that_suits_is_written(folder: Path, out: Path, tiny_depth: Path, write) -> None:
    write(folder / "a.png")
    words = predicting(out, tiny_depth, folder)
    assert cli.main(words) == cli.ALL_DONE
    names = {path.name for path in (out / "a").iterdir()}
    assert {"depth.npy", "depth_color.png", "normals.png", "mesh.glb", "points.ply", "relief.stl"} < names
    assert "uncertainty.png" not in names
    before = fingerprints(out)
    assert cli.main(words) == cli.ALL_DONE
    assert fingerprints(out) == before


def test_flat_names_lie_beside_each_other_and_are_finished_and_replaced_alike(
    folder: Path, out: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a.png", "a_b.png", "deep/c.png")):
        write(folder / name, seed)
    assert predict(folder, "--flat") == cli.ALL_DONE
    names = {f"{name}_{file}" for name in ("a", "a_b", "deep/c") for file in ("depth.npy", "manifest.json")}
    assert (before := fingerprints(out)).keys() == names
    assert Manifest.model_validate_json((out / "a_b_manifest.json").read_text()).files.keys() == {"a_b_depth.npy"}
    assert predict(folder, "--flat") == cli.ALL_DONE and "3 kept" in capsys.readouterr().out
    assert predict(folder / "a.png", "--flat", formats="npy,color") == cli.SOME_FAILED
    assert "--overwrite replaces it" in capsys.readouterr().err and fingerprints(out) == before
    assert predict(folder / "a.png", "--flat", "--overwrite", formats="color") == cli.ALL_DONE
    assert fingerprints(out).keys() == names - {"a_depth.npy"} | {"a_depth_color.png"}
    capsys.readouterr()
    assert run_command("replay", out / "a_b_manifest.json", "--photo", folder / "a_b.png", "--model", "nano")
    assert run_command("replay", out / "deep" / "c_manifest.json") == cli.USAGE
    assert "The photo of" in capsys.readouterr().err


def test_files_for_programs_are_written_or_refused_before_the_model_runs(
    folder: Path, out: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    path = write(folder / "a.png")
    assert predict(path, "--save-for", "controlnet,cnc", formats="npy") == cli.ALL_DONE
    assert {file.name for file in (out / "a").iterdir()} == {
        "depth.npy",
        "controlnet.png",
        "height_16bit.png",
        "manifest.json",
    }
    assert f"controlnet: {PRESETS['controlnet'].tick}" in capsys.readouterr().out
    monkeypatch.setattr("marigold_core.cli.console.load", None)  # would fail if it came so far
    assert predict(path, "--save-for", "rgbd") == cli.USAGE
    assert "needs depth in metres, but this depth is relative: calibrate it first" in capsys.readouterr().err


def test_folders_keep_their_sub_folders_and_globs_too(folder: Path, out: Path, write, predict: Predict) -> None:
    for name in ("a.png", "deep/b.jpg", "deep/er/c.webp", ".hidden/d.png"):
        write(folder / name)
    (folder / "notes.txt").write_text("not a photo")
    assert predict(folder) == cli.ALL_DONE
    assert {path.parent.relative_to(out).as_posix() for path in out.rglob("depth.npy")} == {"a", "deep/b", "deep/er/c"}
    for other, words in (("glob", folder / "**" / "*.*"), ("part", folder / "deep" / "*" / "c.webp")):
        target = out.with_name(other)
        assert predict(words, "-o", target) == cli.ALL_DONE
    assert (out.with_name("glob") / "deep" / "er" / "c" / "depth.npy").exists()
    assert (out.with_name("part") / "er" / "c" / "depth.npy").exists()


def test_the_output_may_lie_inside_the_input_and_is_not_read_back(folder: Path, write, predict: Predict) -> None:
    write(folder / "a.png")
    for _ in range(2):
        assert predict(folder, "-o", folder / "out", formats="color") == cli.ALL_DONE
    assert [path.parent for path in folder.rglob("depth_color.png")] == [folder / "out" / "a"]


def test_a_terminal_sees_a_bar_and_a_pipe_plain_lines(folder, write, predict, capsys, monkeypatch) -> None:
    write(folder / "a.png")
    predict(folder)
    captured = capsys.readouterr()
    assert "\r" not in captured.err
    assert re.search(r"a\.png +done", captured.out)
    assert captured.out.endswith("1 done\n")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    predict(folder, "--overwrite")
    assert "\r" in capsys.readouterr().err


def test_quiet_prints_failures_only(folder: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    assert predict(folder, "--quiet") == cli.SOME_FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("failed: ")
    assert captured.err.count("\n") == 1


def test_models_and_doctor(tiny_depth, capsys, monkeypatch) -> None:
    monkeypatch.setattr("marigold_core.checkpoints.registry.BUNDLED", tiny_depth)
    assert cli.main(["models"]) == cli.ALL_DONE
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("nano (default)", "v1-1", "prs-eth/marigold-depth-v1-1"))
    assert cli.main(["doctor"]) == cli.ALL_DONE
    report = capsys.readouterr().out
    assert all(word in report for word in ("Python 3.", "torch 2.", "GB free", "every file verified", "HEIC"))
    assert "fail" not in report


def test_the_doctor_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("numpy>=99  # too new\nno-such-package-at-all>=1\n")
    monkeypatch.setattr("marigold_core.cli.doctor._REQUIREMENTS", wanted)
    monkeypatch.setattr("marigold_core.checkpoints.registry.BUNDLED", tmp_path / "absent")
    assert cli.main(["doctor"]) == cli.SOME_FAILED
    report = capsys.readouterr().out
    assert re.search(r"fail +numpy \S+ is outside >=99\n +pip install 'numpy>=99'", report)
    assert re.search(r"fail +no-such-package-at-all is missing", report)
    assert re.search(r"fail +the bundled checkpoint nano cannot be used: .*\n +Get a fresh copy", report)


def test_the_doctor_looks_at_the_default_checkpoint(tiny_depth: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("marigold_core.checkpoints.registry.BUNDLED", tiny_depth)
    for name, status, words in (
        (str(tiny_depth), cli.ALL_DONE, f"checkpoint {tiny_depth}: "),
        (
            "/no/folder",
            cli.SOME_FAILED,
            "fail +MARIGOLD_MODEL names what cannot be used: There is no checkpoint '/no/fo",
        ),
        ("v1-1", cli.ALL_DONE, "note +checkpoint v1-1, which MARIGOLD_MODEL names, is downloaded on first use"),
    ):
        monkeypatch.setenv("MARIGOLD_MODEL", name)
        assert cli.main(["doctor"]) == status
        assert re.search(words, capsys.readouterr().out)


def test_demo_opens_the_app_where_gradio_is_installed(capsys, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr("marigold_core.ui.launch.main", lambda host, port: opened.append(True))
    assert (cli.main(["demo"]), opened) == (cli.ALL_DONE, [True])
    monkeypatch.setenv("GRADIO_MCP_SERVER", "")
    assert cli.main(["demo", "--mcp"]) == cli.ALL_DONE and os.environ["GRADIO_MCP_SERVER"] == "true"
    monkeypatch.setattr("marigold_core.cli.demo.find_spec", lambda name: None)
    opened.clear()
    assert (cli.main(["demo"]), opened) == (cli.USAGE, [])
    assert capsys.readouterr().err.endswith("not installed: pip install 'marigold-depth-studio[app]'.\n")


@pytest.mark.parametrize("program", ["marigold-depth", "python -m marigold_core"])
def test_usage_names_the_program_that_was_started(program, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/bin/{program.partition(' ')[0]}"])
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"usage: {program} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["marigold_core", "models"], ["marigold_core", "predict", "--help"], ["training.render", "--help"]]
)
def test_a_reader_that_goes_away_gets_no_trace(words: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run([sys.executable, "-m", *words], stdout=writes, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (141, "")
