"""A prediction beside the truth, all metrics at once, and averages over pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError
from tests.training.scoring.test_alignment import prediction
from training.data.sets.sample import Sample
from training.scoring.metrics import METRICS
from training.scoring.protocols import PRESETS, Protocol
from training.scoring.scores import averages, compare, constant, ramp

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 64


def sloping_floor(seed: int = 0) -> Sample:
    """A floor that rises into the distance: exactly a vertical ramp."""
    depth = np.repeat(np.linspace(5, 1, HEIGHT, dtype=np.float32)[:, None], WIDTH, axis=1)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Sample(f"floor_{seed}", pixels, depth)


def test_a_perfect_map_is_perfect_in_every_metric_whatever_its_scale() -> None:
    depth = sloping_floor().depth_m.copy()
    depth[:, 30:] += 2  # an outline
    row = compare(3 * depth - 2, depth, Protocol()).row
    for name in (*METRICS, "boundary_f1"):
        assert row[name] == pytest.approx(float(name.startswith(("delta", "boundary"))), abs=1e-4), (
            name
        )  # silog is in per cent of a logarithm
    assert row["pixels"] == HEIGHT * WIDTH


def test_the_ramp_solves_a_floor_and_the_constant_does_not() -> None:
    floor = sloping_floor()
    assert compare(ramp(floor.rgb), floor.depth_m, Protocol()).row["abs_rel"] == pytest.approx(0, abs=1e-6)
    depth = np.linspace(5, 1, HEIGHT)
    expected = np.mean(np.abs(depth.mean() - depth) / depth)
    assert compare(constant(floor.rgb), floor.depth_m, Protocol()).row["abs_rel"] == pytest.approx(expected, rel=1e-5)


def test_fitted_depths_are_clipped_to_the_range() -> None:
    """Without the clip the fit would call the far corner negative or beyond the range."""
    truth = np.array([[1.0, 1.0, 1.0, 70.0]])
    guess = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert compare(guess, truth, Protocol()).row["abs_rel"] == pytest.approx((0 + 0 + 34.5 + 34.5 / 70) / 4)
    near = compare(guess, truth, Protocol(mask="known", near_m=2, far_m=20)).row
    assert near["abs_rel"] == pytest.approx((1 + 1 + 19 + 50 / 70) / 4)


def test_sky_and_the_unknown_take_no_part() -> None:
    floor = sloping_floor()
    depth = floor.depth_m.copy()
    depth[:4], depth[4] = np.inf, np.nan
    guess = floor.depth_m.copy()
    guess[:5] = 1e6
    row = compare(guess, depth, PRESETS["eth3d"]).row
    assert row["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert row["pixels"] == (HEIGHT - 5) * WIDTH


def test_a_map_of_another_size_is_resized() -> None:
    floor = sloping_floor()
    small = np.asarray(Image.fromarray(floor.depth_m).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR))
    assert compare(small, floor.depth_m, Protocol()).row["abs_rel"] < 0.01


def test_the_protocol_s_fit_goes_before_the_prediction_s_own() -> None:
    depth = sloping_floor().depth_m
    metric = prediction("metric", "depth", 2 * depth)
    assert compare(metric, depth, Protocol()).row["abs_rel"] == pytest.approx(1)
    assert compare(metric, depth, Protocol(alignment="scale")).row["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_the_protocol_says_how_many_pixels_the_fit_sees() -> None:
    depth = sloping_floor().depth_m
    guess = depth.copy()
    guess[1::2] = 9  # wrong in every second row
    assert compare(guess, depth, Protocol(alignment_max_px=WIDTH // 2)).row["delta1"] >= 0.5
    assert compare(guess, depth, Protocol()).row["delta1"] < 0.5


def test_uncertainty_is_scored_where_there_is_one() -> None:
    depth = sloping_floor().depth_m
    noise = np.random.default_rng(0).normal(0, 0.3, depth.shape)
    sure = prediction("metric", "depth", np.maximum(depth + noise, 0.1))
    found = compare(replace(sure, uncertainty=np.abs(noise)), depth, Protocol())
    assert found.row["spearman"] == pytest.approx(1, abs=1e-3)
    assert found.row["ause"] == pytest.approx(0, abs=1e-3)
    blind = compare(replace(sure, uncertainty=np.abs(noise[::-1])), depth, Protocol())
    assert abs(blind.row["spearman"]) < 0.1 and blind.row["ause"] > 0.2
    assert "spearman" not in compare(sure, depth, Protocol()).row


def test_averages_count_every_picture_the_same_or_by_its_pixels() -> None:
    rows = [{"pixels": 100.0, "abs_rel": 0.1}, {"pixels": 300.0, "abs_rel": 0.3, "boundary_f1": 0.5}]
    assert averages(rows) == {"pixels": 200, "abs_rel": pytest.approx(0.2), "boundary_f1": 0.5}
    assert averages(rows, "pixels")["abs_rel"] == pytest.approx(0.25)
    assert averages(rows, "pixels")["pixels"] == 200


@pytest.mark.parametrize("depth_m", [np.nan, 2.0])
def test_a_picture_that_nothing_counts_of_or_every_map_fits_is_left_out(depth_m: float) -> None:
    floor = sloping_floor()
    depths = (np.full_like(floor.depth_m, depth_m), floor.depth_m)
    rows = [compare(ramp(floor.rgb), each, Protocol()).row for each in depths]
    assert rows[0] == {"pixels": 0}
    assert averages(rows)["abs_rel"] == rows[1]["abs_rel"]
    with pytest.raises(MarigoldError, match="No picture has pixels that count, of more than one depth"):
        averages(rows[:1])


@pytest.mark.parametrize("bad", [np.full((HEIGHT, WIDTH), np.nan), np.zeros((HEIGHT, WIDTH, 3))])
def test_what_is_no_map_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(MarigoldError, match="not numbers|shape"):
        compare(bad, sloping_floor().depth_m, Protocol())
