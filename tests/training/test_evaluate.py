"""The command: any predictor on any data set, numbers as JSON and as a table, figures, maps, sentences for faults."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import Settings
from marigold_core.checkpoints.registry import find
from tests.helpers.command_line import exit_status, fingerprints
from tests.helpers.families import as_e2e_ft
from tests.helpers.set_writers import Picture, write_kitti, write_measured
from tests.training.scoring.test_scores import HEIGHT, WIDTH, sloping_floor
from training.data.sets import open_set
from training.data.sets.sample import spread
from training.evaluate import main, open_source
from training.models.networks import new_checkpoint
from training.scoring.metrics import METRICS
from training.scoring.protocols import choose_protocol

QUICK = ["--num-inference-steps", "1", "--ensemble-size", "1"]
Score = Callable[..., int]


@pytest.fixture
def floors(tmp_path: Path) -> Path:
    """Two measured floors; the second has sky and a hole."""
    first, second = sloping_floor(0), sloping_floor(1)
    second.depth_m[:4], second.depth_m[4:8, :9] = np.inf, np.nan
    write_measured(tmp_path / "data", {one.name: Picture(one.rgb, one.depth_m) for one in (second, first)})
    return tmp_path / "data"


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """``score(checkpoint, data, options)`` runs the command -> its exit status; the report is report.json."""

    def score(*words: object) -> int:
        return exit_status(main, *words, "--json-out", tmp_path / "report.json")

    return score


def report(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


def write_maps(folder: Path, **maps: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in maps.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_a_checkpoint_is_scored(
    score: Score, floors: Path, tiny_depth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    Image.fromarray(sloping_floor(5).rgb).save(examples / "a.jpg")
    assert score(tiny_depth, floors, *QUICK, "--honesty", examples) == 0
    written = report(tmp_path)
    assert written["means"]["vertical ramp"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert written["means"]["constant"]["abs_rel"] > 0.3
    assert set(written["photos"]) == {"floor_0", "floor_1"}
    assert set(METRICS) < set(written["photos"]["floor_0"])
    assert written["photos"]["floor_1"]["pixels"] == HEIGHT * WIDTH - 4 * WIDTH - 36
    assert written["settings"]["num_inference_steps"] == 1
    assert written["protocol"]["far_m"] == 80
    assert len(written["sha256"]) == 64
    honesty = written["honesty"]
    assert honesty["own_abs_rel"] == pytest.approx(written["means"]["tiny-depth"]["abs_rel"])
    assert honesty["spread"] > 0  # random weights: members differ
    assert honesty["steps_difference"] > 0
    assert -1 <= honesty["turned_correlation"] <= 1
    out = capsys.readouterr().out
    assert "mean, vertical ramp" in out and "boundary_f1" in out and "floor_1" in out


def test_uncertainty_of_an_ensemble_is_scored_and_drawn(
    score: Score, floors: Path, tiny_depth: Path, tmp_path: Path
) -> None:
    options = ["--num-inference-steps", "1", "--ensemble-size", "3", "--figures", tmp_path / "figures"]
    assert score(tiny_depth, floors, *options) == 0
    written = report(tmp_path)
    means = written["means"]["tiny-depth"]
    assert -1 <= means["spearman"] <= 1 and means["ause"] > 0
    curves = written["sparsification"]
    assert curves["error"][0] == curves["oracle"][0] == 1
    assert np.all(np.array(curves["error"]) >= np.array(curves["oracle"]) - 1e-9)
    names = {f"{name}.{ending}" for name in ("floor_0", "floor_1", "sparsification") for ending in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "figures").glob("*.pdf"))
    with Image.open(tmp_path / "figures" / "floor_1.png") as figure:
        assert figure.width > 3 * figure.height  # five maps side by side
        unknown = np.all(np.asarray(figure.convert("RGB")) == 0xD9, axis=-1)
    assert 0.02 < unknown.mean() < 0.1  # a tenth of truth and error, no part of the others


def test_maps_of_another_program_score_as_those_of_the_checkpoint(
    score: Score, floors: Path, tiny_depth: Path, tmp_path: Path
) -> None:
    assert score(tiny_depth, floors, *QUICK, "--save-maps", tmp_path / "maps") == 0
    own = report(tmp_path)
    assert score(tmp_path / "maps", floors) == 0
    again = report(tmp_path)
    assert again["photos"] == own["photos"]
    assert again["means"]["maps"] == own["means"]["tiny-depth"]
    assert again["sha256"] is None and again["settings"] is None


def test_the_protocol_is_that_of_the_data_unless_another_is_named(score: Score, floors: Path, tmp_path: Path) -> None:
    maps = write_maps(tmp_path / "maps", **{f"floor_{seed}": 1 / sloping_floor(seed).depth_m for seed in range(2)})
    assert score(maps, floors) == 0
    assert report(tmp_path)["means"]["maps"]["abs_rel"] > 0.05
    assert score(maps, floors, "--protocol", "eth3d", "--alignment", "disparity", "--near-m", "0.5") == 0
    written = report(tmp_path)
    assert written["means"]["maps"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert written["protocol"]["near_m"] == 0.5
    assert written["protocol"]["far_m"] is None  # no limit
    assert written["protocol"]["alignment_max_px"] == 1024


def test_kitti_is_cropped_first_and_masked_then(score: Score, tmp_path: Path) -> None:
    """The benchmark crop belongs to the picture, the mask of 117:321 x 43:1172 to what counts."""
    rows = np.linspace(40, 5, 375)[:, None]
    depth = np.repeat(np.rint(rows * 256) / 256, 1242, axis=1)
    photo = Picture(np.zeros((375, 1242, 3), np.uint8), depth)
    write_kitti(tmp_path / "kitti", {"2011_09_26_drive_0002_sync/0000000069": photo})
    name = open_set(f"kitti:{tmp_path / 'kitti'}", "test").name(0)
    seen = depth[23:, 13:1229]
    seen = np.where(np.pad(np.ones((204, 1129), bool), ((117, 31), (43, 44))), seen, 0)  # wrong outside the mask
    path = tmp_path / "maps" / f"{name}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, seen)
    assert score(tmp_path / "maps", f"kitti:{tmp_path / 'kitti'}") == 0
    assert report(tmp_path)["photos"][name]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert report(tmp_path)["photos"][name]["pixels"] == (321 - 117) * (1172 - 43)
    np.save(path, depth)
    assert score(tmp_path / "maps", f"kitti:{tmp_path / 'kitti'}") == 2


def test_the_resolution_is_the_protocol_s_unless_the_settings_say_one(
    score: Score, floors: Path, tiny_depth: Path, tmp_path: Path
) -> None:
    options = [*QUICK, "--protocol", "scannet", "--limit", "1"]
    assert score(tiny_depth, floors, *options) == 0
    assert report(tmp_path)["settings"]["processing_resolution"] == 0
    assert score(tiny_depth, floors, *options, "--processing-resolution", "32") == 0
    assert report(tmp_path)["settings"]["processing_resolution"] == 32


def test_a_limit_takes_pictures_from_the_whole_set() -> None:
    assert spread(range(100), 3) == [0, 50, 99]  # pyright: ignore[reportArgumentType]
    assert spread(range(4), 9) == [0, 1, 2, 3]  # pyright: ignore[reportArgumentType]
    assert spread(range(4), None) == [0, 1, 2, 3]  # pyright: ignore[reportArgumentType]


FAULTS = {
    "missing": "no map floor_1.npy",
    "damaged": "floor_1.npy of maps cannot be read",
    "shape": "floor_1.npy of maps is \\(10, 64\\)",
    "channels": "must be an array",
    "nan": "floor_1.npy of maps holds NaN",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_map_is_named(
    fault: str, score: Score, floors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = np.ones((HEIGHT, WIDTH))
    bad = {"shape": good[:10], "channels": good[..., None], "nan": np.full_like(good, np.nan)}
    maps = write_maps(tmp_path / "maps", floor_0=good, floor_1=bad.get(fault, good))
    if fault == "missing":
        (maps / "floor_1.npy").unlink()
    if fault == "damaged":
        (maps / "floor_1.npy").write_bytes(b"\x93NUMPY")
    assert score(maps, floors) == 2
    sentence = capsys.readouterr().err
    assert re.search(FAULTS[fault], sentence) and sentence.count("\n") == 1
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--near-m", "-1"], "near_m must be greater than 0"),
        (["--near-m", "near"], "near_m must be a valid number"),
        (["--crop", "half"], "crop must be"),
        (["--limit", "0"], "limit must be at least 1"),
        (["--honesty", "."], "The honesty checks ask for more predictions"),
        (["--reconstruction"], "Maps have no autoencoder"),
        (["--near-m", "70"], "No picture has pixels that count"),
    ],
)
def test_a_bad_choice_ends_in_one_sentence(
    words: list[str], sentence: str, score: Score, floors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = np.ones((HEIGHT, WIDTH))
    assert score(write_maps(tmp_path / "maps", floor_0=flat, floor_1=flat), floors, *words) == 2
    found = capsys.readouterr().err
    assert sentence in found and found.count("\n") == 1


def test_depth_is_not_checked_or_drawn_of_a_checkpoint_of_normals(
    score: Score, floors: Path, tiny_normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(tiny_normals, floors, "--honesty", tmp_path) == 2
    assert "The honesty checks are of depth, and tiny-normals predicts normals." in capsys.readouterr().err
    assert score(tiny_normals, floors, "--figures", tmp_path / "figures") == 2
    assert "Figures show depth, and tiny-normals predicts normals" in capsys.readouterr().err


def test_of_a_run_the_checkpoint_that_validated_best_is_scored_and_named(
    score: Score, floors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "my_run"
    for step, value in ((1, 0.1), (2, 0.2)):
        new_checkpoint(run_folder / f"step_{step:08d}", "tiny", seed=step)
        with (run_folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "score": value, "validation": {}}) + "\n")
    assert score(run_folder, floors, *QUICK) == 0
    assert "my_run: step 1 (validated best of 2" in capsys.readouterr().out
    assert report(tmp_path)["chosen"].startswith("my_run: step 1")
    assert report(tmp_path)["sha256"] == find(run_folder / "step_00000001").sha256
    assert score(run_folder, floors, *QUICK, "--step", "2") == 0
    assert report(tmp_path)["chosen"].startswith("my_run: step 2 (as asked")


@pytest.mark.parametrize("option", ["--figures", "--save-maps"])
def test_results_are_not_written_over_the_data_or_what_is_scored(
    option: str, score: Score, floors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = write_maps(tmp_path / "maps", floor0=np.ones((HEIGHT, WIDTH)), floor1=np.ones((HEIGHT, WIDTH)))
    before = fingerprints(tmp_path)
    for out in (floors, floors / "floor0", maps):
        assert score(maps, floors, option, out) == 2
        assert "whose files it could replace" in capsys.readouterr().err
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize(
    ("option", "name"),
    [("--figures", "floor_1.png"), ("--figures", "sparsification.pdf"), ("--save-maps", "floor_1.npy")],
)
def test_results_replace_no_file_that_is_there(
    option: str, name: str, score: Score, floors: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"of another program")
    before = fingerprints(tmp_path)
    monkeypatch.setattr("training.evaluate.open_source", None)  # nothing runs
    assert score("nano", floors, option, tmp_path / "out") == 2
    assert f"{name} exists already; remove it, or give another folder" in capsys.readouterr().err
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize("text", ["x", '{"mine": 1}', '[{"photos": {}}]', "[]", "3", '{"data": "mine", "means": [1]}'])
def test_a_report_replaces_nothing_but_a_report(
    text: str, score: Score, floors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text(text)
    monkeypatch.setattr("training.evaluate.open_source", None)  # nothing runs
    assert score("nano", floors) == 2
    assert (tmp_path / "report.json").read_text() == text


def test_a_report_replaces_an_older_one(score: Score, floors: Path, tiny_depth: Path, tmp_path: Path) -> None:
    for steps in (1, 2):
        assert score(tiny_depth, floors, "--num-inference-steps", steps, "--ensemble-size", 1, "--limit", 1) == 0
        assert json.loads((tmp_path / "report.json").read_text())["settings"]["num_inference_steps"] == steps


@pytest.mark.parametrize(("name", "seen_px"), [("nano", 756), ("tiny", 760)])
def test_eth3d_is_seen_at_756_where_the_autoencoder_divides_it(name: str, seen_px: int, tiny_depth: Path) -> None:
    source = open_source("nano" if name == "nano" else str(tiny_depth), Settings(), choose_protocol("eth3d"))
    assert source.settings is not None and source.pipeline is not None
    assert source.settings.processing_resolution == seen_px
    assert source.pipeline.resolve(source.settings) == source.settings


def test_a_checkpoint_of_one_step_is_scored_and_refuses_more(
    score: Score, floors: Path, tiny_depth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_e2e_ft(tiny_depth, tmp_path / "marigold-e2e-ft-depth")
    assert score(folder, floors, *QUICK) == 0
    assert score(folder, floors) == 2
    assert "marigold-e2e-ft-depth predicts in one step: ask for 1 denoising step, not 4." in capsys.readouterr().err
    assert score(folder, floors, *QUICK, "--honesty", tmp_path) == 2
    assert "The honesty checks compare denoising steps, and marigold-e2e-ft-depth" in capsys.readouterr().err
