"""Comparisons: what they cost, how far apart results lie, the sheet, and the command that makes it."""

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import Cell, Prediction, Progress, Settings, SettingsError, cli, load
from marigold_core.comparison import sweep as comparing
from marigold_core.comparison.contact_sheet import caption, draw, paint_differences, paint_maps
from marigold_core.comparison.sweep import (
    COLUMNS,
    Comparison,
    PartTimes,
    Tile,
    against_reference,
    check_minutes,
    difference,
    format_seconds,
    measure,
    reduce,
    reduce_given,
    to_csv,
)
from marigold_core.images.colormaps import depth_to_rgb
from marigold_core.prediction import Kind, Space
from tests.helpers.command_line import fingerprints, run_command
from tests.helpers.damage import failing
from tests.helpers.predictions import prediction_of

QUICK = ["--steps", "1,2", "--sizes", "1,3", "--processing-resolution", "32", "--device", "cpu"]
Compare = Callable[..., int]


def tile(values: np.ndarray, steps: int = 1, members: int = 1, *, kind: Kind = "affine", name: str = "tiny") -> Tile:
    spread = (0.01, "spread") if members > 2 else (None, None)
    return Tile(name, "depth", kind, "depth", values.astype(np.float32), 0, steps, members, 0.5 * members, *spread)


@pytest.fixture
def hills() -> np.ndarray:
    y, x = np.mgrid[0:30, 0:40] / 40
    return 0.5 + 0.4 * np.sin(6 * x) * np.cos(5 * y)


@pytest.fixture
def compare(tiny_depth: Path, out: Path) -> Compare:
    def compare(*words: object) -> int:
        return run_command("compare", "-o", out, "--model", tiny_depth, *QUICK, *words)

    return compare


# ------------------------------------------------------------------------------- what is asked, and what it costs


def test_values_are_ascending_and_each_once() -> None:
    asked = Comparison(steps=(4, 1, 4), sizes=(5, 1), seeds=(7, 0))
    assert (asked.steps, asked.sizes, asked.seeds, asked.cells) == ((1, 4), (1, 5), (0, 7), 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": (51,)}, "steps must be less than or equal to 50, but got 51"),
        ({"sizes": (0,)}, "sizes must be greater than or equal to 1, but got 0"),
        ({"processing_resolution": 100}, "processing_resolution must be a multiple of 8"),
        ({"steps": tuple(range(1, 51)), "sizes": (1, 2, 3, 4, 5)}, "250 cells are too many for one sheet"),
    ],
)
def test_what_cannot_be_is_refused(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Comparison(**values)


def test_encodes_members_and_first_steps_are_counted_once() -> None:
    asked = Comparison(steps=(1, 4), sizes=(1, 10), seeds=(0, 1))
    assert PartTimes(encode_s=5, step_s=1, decode_s=2).predict_s(asked) == 5 + 2 * 10 * (4 * 1 + 2 * 2)


def test_the_parts_of_a_run_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 107.0, 109.0, 112.0])  # start, first step with encoding and waking up, second step, result
    monkeypatch.setattr(comparing, "perf_counter", lambda: next(clock))

    sample = Comparison(steps=(4,), processing_resolution=64).sample
    assert sample == Settings(num_inference_steps=2, ensemble_size=1, processing_resolution=64)
    stages = ("reading the photo", "member 1 of 1, step 1 of 2", "member 1 of 1, step 2 of 2")
    progress = measure(iter([*(Progress(1, 2, stage) for stage in stages), prediction(np.zeros((2, 2)))]))
    with pytest.raises(StopIteration) as ended:
        while True:
            assert next(progress) == Progress(0, 0, "timing a first member")
    assert ended.value.value == PartTimes(encode_s=5, step_s=2, decode_s=3)


def prediction(values: np.ndarray, kind: Kind = "affine") -> Prediction:
    spread = np.full(values.shape[:2], 0.25, np.float32)
    return prediction_of(values, kind, uncertainty=spread, settings=Settings(ensemble_size=3).resolved(2, 64))


def test_too_long_is_said_with_the_predicted_time() -> None:
    asked = Comparison(most_minutes=2.0)
    check_minutes(119, asked)
    with pytest.raises(SettingsError, match=r"about 3\.3 minutes, more than the 2\.0 minutes it may"):
        check_minutes(200, asked)
    assert [format_seconds(seconds) for seconds in (0.31, 9.96, 42.4, 600)] == ["0.3 s", "10 s", "42 s", "10 minutes"]


# ------------------------------------------------------------------------------- how far results lie apart


def test_only_what_the_kind_leaves_open_is_fitted(hills: np.ndarray) -> None:
    reference = hills.astype(np.float32)
    maps: dict[Kind, np.ndarray] = {"affine": 3 * hills + 1, "scale": 3 * hills, "metric": hills}
    for kind, values in maps.items():
        np.testing.assert_allclose(difference(values, reference, kind), 0, atol=1e-6)
    assert difference(3 * hills + 1, reference, "scale").mean() > 0.05
    np.testing.assert_allclose(difference(hills + 0.5, reference, "metric"), 0.5, atol=1e-6)


def test_the_fit_is_that_of_least_squares_and_never_turns_a_map_over(hills: np.ndarray) -> None:
    noisy = 0.3 * hills + np.random.default_rng(0).normal(0, 0.05, hills.shape)
    design = np.stack([noisy.ravel(), np.ones(noisy.size)], axis=1)
    fitted = design @ np.linalg.lstsq(design, hills.ravel(), rcond=None)[0]
    np.testing.assert_allclose(difference(noisy, hills, "affine").ravel(), np.abs(fitted - hills.ravel()), atol=1e-6)
    flat = np.abs(hills - hills.mean())
    np.testing.assert_allclose(difference(-hills, hills, "affine"), flat, atol=1e-6)
    np.testing.assert_allclose(difference(np.full_like(hills, 0.2), hills, "affine"), flat, atol=1e-6)


def test_normals_differ_by_their_angle() -> None:
    up, right = (np.broadcast_to(np.array(axis, np.float32), (2, 3, 3)) for axis in ((0, 1, 0), (1, 0, 0)))
    np.testing.assert_allclose(difference(up, right, "unit-vector"), 0.5, atol=1e-6)
    np.testing.assert_allclose(difference(up, -up, "unit-vector"), 1, atol=1e-6)


def test_the_reference_has_the_most_steps_then_members_and_comes_first(hills: np.ndarray) -> None:
    cells = [(1, 10), (4, 1), (4, 5), (4, 5)]
    rows = against_reference([tile(hills + number, *cell) for number, cell in enumerate(cells)])
    assert [row.is_reference for row in rows] == [False, False, True, False]
    assert [(row.tile.steps, row.tile.members) for row in rows] == cells
    with pytest.raises(SettingsError, match="one kind"):
        against_reference([tile(hills), tile(hills, kind="metric")])


def test_large_maps_are_reduced_and_keep_their_means_and_lengths() -> None:
    y, x = np.mgrid[0:900, 0:1200] / 1200
    small = reduce(Cell(prediction((x * y).astype(np.float32)), 1.5))
    assert small.values.shape == (384, 512) and small.values.dtype == np.float32
    assert small.values.mean() == pytest.approx((x * y).mean(), rel=1e-3)
    assert (small.seconds, small.uncertainty, small.steps, small.members) == (1.5, 0.25, 2, 3)
    vectors = np.stack([np.sin(9 * x), 0 * x, np.cos(9 * x)], axis=-1).astype(np.float32)
    bent = reduce(Cell(prediction(vectors, "unit-vector"), 1)).values
    assert bent.shape == (384, 512, 3)
    np.testing.assert_allclose(np.linalg.norm(bent, axis=-1), 1, atol=1e-5)


def test_the_table_reads_back(hills: np.ndarray) -> None:
    rows = against_reference([tile(hills**2, 1, 1, name="a, b"), tile(hills, 2, 3)])
    first, second = csv.DictReader(StringIO(to_csv(rows).decode(), newline=""))
    assert tuple(first) == COLUMNS
    assert (first["checkpoint"], first["uncertainty"], first["reference"]) == ("a, b", "", "")
    assert float(first["difference"]) == pytest.approx(rows[0].difference.mean(), abs=1e-4)
    assert float(first["difference_p95"]) > float(first["difference"]) > 0
    assert (second["steps"], second["members"], second["seconds"]) == ("2", "3", "1.500")
    assert second["uncertainty_measure"] == "spread" and first["uncertainty_measure"] == ""
    assert (second["uncertainty"], second["difference"], second["reference"]) == ("0.0100", "0.0000", "yes")


def test_spread_and_expected_errors_are_told_apart(hills: np.ndarray) -> None:
    made = prediction(hills)
    tiles = [reduce(Cell(one, 1)) for one in (made, replace(made, uncertainty_measure="expected error"))]
    rows = against_reference([*tiles, reduce(Cell(replace(made, uncertainty=None), 1))])
    assert [row.record["uncertainty_measure"] for row in rows] == ["spread", "expected error", None]
    assert [caption(row)[2:] for row in rows] == [("spread 0.250",), ("expected error 0.250",), ()]


# ------------------------------------------------------------------------------- the sheet


def opened(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_cell_is_in_its_row_and_column() -> None:
    shape = (40, 60)
    levels = {(steps, size): 0.1 * steps + 0.2 * size for steps in (1, 2) for size in (1, 3)}
    rows = against_reference([tile(np.full(shape, level), *cell) for cell, level in levels.items()])
    sheet = opened(draw(rows, np.full((*shape, 3), 200, np.uint8), paint_maps(rows, "viridis")))
    found = {}
    for cell, level in levels.items():
        colour = depth_to_rgb(np.array([[level]]), "viridis")[0, 0].astype(int)
        places = np.argwhere((sheet[170:] == colour).all(axis=-1))
        assert len(places) >= 320 * 213 * 0.9
        found[cell] = places.mean(axis=0)
    assert found[1, 1][0] == pytest.approx(found[1, 3][0], abs=2) and found[1, 1][1] < found[1, 3][1]
    assert found[1, 1][1] == pytest.approx(found[2, 1][1], abs=2) and found[1, 1][0] < found[2, 1][0]


@pytest.mark.parametrize("shape", [(40, 60), (60, 12), (12, 60)])
@pytest.mark.parametrize("sizes", [(1,), (1, 3, 20), tuple(range(1, 21))])
@pytest.mark.parametrize("name", ["n", "somebody/a-checkpoint-with-quite-a-long-name-v1-1-of-2026"])
def test_nothing_is_drawn_over_the_edge(shape: tuple[int, int], sizes: tuple[int, ...], name: str) -> None:
    values = np.random.default_rng(0).random(shape)
    rows = against_reference([tile(values**size, 50, size, name=name) for size in sizes])
    photo = np.zeros((*shape, 3), np.uint8)
    for content in (draw(rows, photo, paint_maps(rows)), draw(rows, photo, paint_differences(rows))):
        sheet = opened(content)
        inner = sheet[20:-4, 20:-20]
        assert inner.min() == 0  # the photo
        sheet[20:-4, 20:-20] = 255
        assert sheet.min() == 255


def test_differences_share_one_scale(hills: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, hills.shape)
    rows = against_reference([tile(hills + noise * size, 1, size) for size in (1, 9)] + [tile(hills, 2, 1)])
    sheet = opened(draw(rows, np.zeros((8, 8, 3), np.uint8), paint_differences(rows)))
    left, right = sheet[220:400, 130:400].mean(), sheet[220:400, 470:700].mean()
    assert left < right


def test_depth_of_a_known_scale_is_coloured_over_the_common_range(hills: np.ndarray) -> None:
    rows = against_reference([tile(hills * 0 + metres, 1, size, kind="metric") for size, metres in ((1, 2), (2, 6))])
    sheet = opened(draw(rows, np.full((8, 8, 3), 255, np.uint8), paint_maps(rows, "gray"))).min(axis=-1)
    assert sheet[300, 200] == 0 and sheet[300, 550] == 255


# ------------------------------------------------------------------------------- the command


def test_the_sheet_the_table_and_the_cells_are_written(folder, out, tiny_depth, write, compare, capsys) -> None:
    photo = write(folder / "a.png")
    assert compare(photo, "--seeds", "0,7", "--formats", "npy,uncertainty") == cli.ALL_DONE
    captured = capsys.readouterr()
    assert captured.err.startswith("8 cells, about ")
    with Image.open(out / "a" / "compare.png") as sheet, Image.open(out / "a" / "compare_difference.png") as other:
        assert sheet.size == other.size
    table = list(csv.DictReader((out / "a" / "compare.csv").read_text().splitlines()))
    assert [(row["seed"], row["steps"], row["members"]) for row in table] == [
        (seed, steps, size) for seed in "07" for steps in "12" for size in "13"
    ]
    assert [row["reference"] for row in table] == ["", "", "", "yes", "", "", "", ""]
    assert all(row["difference"] in captured.out for row in table)
    settings = Settings(num_inference_steps=2, ensemble_size=3, seed=7, processing_resolution=32)
    alone = load(tiny_depth, device="cpu")(photo, settings)
    cells = {path.name: path for path in (out / "a").iterdir() if path.is_dir()}
    assert len(cells) == 8
    cell = next(path for name, path in cells.items() if name.endswith("_seed7_steps2_members3"))
    np.testing.assert_array_equal(np.load(cell / "depth.npy"), alone.values)
    assert (cell / "uncertainty.npy").exists()
    lone = next(path for name, path in cells.items() if name.endswith("_seed7_steps2_members1"))
    assert {path.name for path in lone.iterdir()} == {"depth.npy", "manifest.json"}


@pytest.mark.parametrize("space", ["depth", "log", "disparity"])
def test_metres_from_elsewhere_are_what_cells_of_every_space_are_measured_against(hills, space: Space) -> None:
    metres = 2 + 3 * hills
    missing = np.zeros(hills.shape, bool)
    missing[:5] = True
    given = replace(prediction_of(metres), kind="metric", checkpoint="given: z.npy", missing=missing)
    right = {"depth": metres, "log": np.log(metres), "disparity": -1 / metres}[space]
    right = np.where(missing, right.min(), right)  # there nothing is known, so it does not count
    cells = [tile(values, steps, name=f"{steps}") for steps, values in ((4, right * 0.3 + 0.1), (9, hills[::-1]))]
    cells = [replace(one, space=space) for one in cells]
    tiles = [reduce_given(given, replace(prediction_of(hills), space=space)), *cells]
    rows = against_reference(tiles)
    assert [row.is_reference for row in rows] == [True, False, False]
    assert rows[1].record["difference"] == pytest.approx(0, abs=1e-5) and rows[2].record["difference"] > 0.02
    assert tiles[0].values.min() >= 0 and tiles[0].values.max() == pytest.approx(1)
    photo = np.zeros((30, 40, 3), np.uint8)
    sizes = [Image.open(BytesIO(draw(some, photo, paint_maps(some)))).size for some in (rows, rows[:1])]
    assert sizes[0][1] > sizes[1][1]
    table = to_csv(rows).decode().splitlines()
    assert table[1].startswith("given: z.npy,,,,,,,0.0000,0.0000,yes")


def test_maps_from_elsewhere_of_another_meaning_are_refused(hills: np.ndarray) -> None:
    disparity = replace(prediction_of(hills), space="disparity")
    with pytest.raises(SettingsError, match="it is affine disparity, but the checkpoint gives affine depth"):
        reduce_given(disparity, prediction_of(hills))
    with pytest.raises(SettingsError, match="it is affine depth, but the checkpoint gives metric depth"):
        reduce_given(prediction_of(hills), replace(prediction_of(hills), kind="metric"))


def test_a_depth_map_from_elsewhere_is_a_row(folder, out, write, compare, capsys) -> None:
    photo = write(folder / "a.png")
    np.save(folder / "z.npy", np.add.outer(np.arange(24), np.arange(32)) + 5.0)
    assert compare(photo, "--depth", folder / "z.npy", "--unit-m", "0.1") == cli.ALL_DONE
    table = list(csv.DictReader((out / "a" / "compare.csv").read_text().splitlines()))
    assert [row["checkpoint"] for row in table][0] == "given: z.npy" and len(table) == 5
    assert [row["reference"] for row in table] == ["yes", "", "", "", ""]
    assert "given: z.npy" in capsys.readouterr().out
    assert compare(photo, "--unit-m", "0.1", "--overwrite") == cli.USAGE
    assert "of use with a depth map" in capsys.readouterr().err
    words = ("--depth", folder / "z.npy", "--quantity", "disparity", "--overwrite")
    assert compare(photo, *words) == cli.USAGE and "cannot be compared" in capsys.readouterr().err


def test_checkpoints_stand_side_by_side(folder, out, tiny_depth, tiny_depth_lcm, write, compare) -> None:
    assert compare(write(folder / "a.png"), "--model", f"{tiny_depth},{tiny_depth_lcm}", "--quiet") == cli.ALL_DONE
    table = list(csv.DictReader((out / "a" / "compare.csv").read_text().splitlines()))
    assert [row["checkpoint"] for row in table] == [tiny_depth.name] * 4 + [tiny_depth_lcm.name] * 4
    assert [row["reference"] for row in table] == ["", "", "", "yes", "", "", "", ""]


def test_what_is_there_is_left_alone_unless_it_may_be_replaced(folder, out, write, compare, capsys) -> None:
    photo = write(folder / "a.png")
    (out / "a").mkdir(parents=True)
    (out / "a" / "depth.npy").write_bytes(b"from predict")
    assert compare(photo, "--quiet") == cli.ALL_DONE
    before = fingerprints(out)
    assert compare(photo, "--steps", "1") == cli.USAGE
    assert "compare.png exists already; --overwrite" in capsys.readouterr().err
    assert fingerprints(out) == before
    assert compare(photo, "--steps", "1", "--overwrite", "--quiet") == cli.ALL_DONE
    after = fingerprints(out)
    assert after.keys() == before.keys() and after["a/compare.png"] != before["a/compare.png"]
    assert (out / "a" / "depth.npy").read_bytes() == b"from predict"


def test_bad_requests_end_in_a_sentence_and_write_nothing(
    folder, out, tiny_depth, tiny_normals, write, compare, capsys
) -> None:
    photo = write(folder / "a.png")
    write(folder / "b.png")
    for words, status, message in (
        ([photo, "--most-minutes", "0.00001"], cli.USAGE, r"This comparison would take about .*; choose fewer .*\.\n"),
        ([photo, "--formats", "uncertainty", "--sizes", "1,2"], cli.USAGE, "needs 3 or more members"),
        ([photo, "--model", f"{tiny_depth},{tiny_normals}"], cli.USAGE, "gives affine depth, .* gives unit-vector"),
        ([photo, "--model", f"{tiny_depth},{tiny_depth}"], cli.USAGE, "Two of the checkpoints are called"),
        ([photo, "--model", "no-such-checkpoint"], cli.CHECKPOINT, "no-such-checkpoint"),
        ([folder], cli.USAGE, "stands for 2 photos; a comparison takes one"),
        ([folder / "c.png"], cli.USAGE, "There is no such file"),
    ):
        assert compare(*words) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)
    assert fingerprints(out) == {}


def test_a_link_that_leads_out_of_the_output_is_not_followed(folder, out, tmp_path, write, compare) -> None:
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "elsewhere")
    assert compare(write(folder / "a.png")) == cli.USAGE
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_stopping_says_so_and_writes_nothing(folder, out, write, compare, capsys, monkeypatch) -> None:
    monkeypatch.setattr("marigold_core.comparison.sweep.against_reference", failing(KeyboardInterrupt()))
    assert compare(write(folder / "a.png"), "--quiet") == cli.INTERRUPTED
    assert capsys.readouterr().err == "Stopped.\n"
    assert fingerprints(out) == {}
