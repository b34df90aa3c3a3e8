"""The fit of scale and shift: exact where it can be, over the right pixels, in the right quantity."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import Settings
from training.scoring.alignment import Alignment, align, as_estimate

pytestmark = pytest.mark.numeric

TRUTH = np.array([[1.0, 2.0], [4.0, 8.0]])
ALL = np.ones_like(TRUTH, bool)
CLAIMS: dict[Alignment, np.ndarray] = {  # maps that know the truth up to what is fitted
    "depth": -3 * TRUTH + 40,
    "log": 0.2 * np.log(TRUTH) + 0.1,
    "disparity": 7 / TRUTH + 3,
    "scale": 0.04 * TRUTH,
    "none": TRUTH,
}


def prediction(kind: Kind, space: Space, values: np.ndarray) -> Prediction:
    return Prediction(
        modality="depth",
        kind=kind,
        space=space,
        values=values,
        uncertainty=None,
        members=None,
        photo=np.zeros((*values.shape, 3), np.uint8),
        fov_x_deg=None,
        settings=Settings().resolved(4, 64),
        checkpoint="",
        checkpoint_sha256="",
    )


@pytest.mark.parametrize("fitted", get_args(Alignment))
@pytest.mark.parametrize("claimed", get_args(Alignment))
def test_a_map_is_recovered_by_its_own_fit_and_by_weaker_ones(claimed: Alignment, fitted: Alignment) -> None:
    exact = np.allclose(align(CLAIMS[claimed], TRUTH, ALL, fitted), TRUTH)
    assert exact == (
        (claimed, fitted) in {("none", "scale"), ("none", "depth"), ("scale", "depth")} or claimed == fitted
    )


@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), seed=st.integers(0, 9))
def test_the_fit_is_the_one_of_least_squares(scale: float, shift: float, seed: int) -> None:
    values = scale * np.random.default_rng(seed).uniform(0, 1, TRUTH.shape) + shift
    fitted = align(values, TRUTH, ALL)
    assert np.sum(fitted - TRUTH) == pytest.approx(0, abs=1e-6)  # normal equations: no rest along 1 or the values
    assert np.sum((fitted - TRUTH) * (values - shift) / scale) == pytest.approx(0, abs=1e-6)


def test_a_scale_alone_is_the_one_of_least_squares() -> None:
    values = np.array([[1.0, 3.0], [3.0, 9.0]])
    fitted = align(values, TRUTH, ALL, "scale")
    np.testing.assert_allclose(fitted, values * 91 / 100)  # (1 + 6 + 12 + 72) / (1 + 9 + 9 + 81)


@pytest.mark.parametrize("fitted", get_args(Alignment))
def test_pixels_that_do_not_count_take_no_part(fitted: Alignment) -> None:
    truth, values, valid = TRUTH.copy(), CLAIMS[fitted].copy(), ALL.copy()
    truth[0, 0], values[0, 0], valid[0, 0] = np.nan, 1e9, False
    np.testing.assert_allclose(align(values, truth, valid, fitted)[valid], TRUTH[valid])


def test_disparity_is_fitted_where_it_is_positive_and_never_falls_to_zero() -> None:
    values = 7 / TRUTH
    values[1, 1] = 0  # infinitely far, says the map: left out, and 1 / 0.001 afterwards
    np.testing.assert_allclose(align(values, TRUTH, ALL, "disparity"), [[1, 2], [4, 1000]])


@pytest.mark.parametrize("fitted", ["depth", "scale", "log", "disparity"])
def test_a_map_of_zeros_is_fitted_without_a_fault(fitted: Alignment) -> None:
    constant = align(np.zeros_like(TRUTH), TRUTH, ALL, fitted)
    assert np.isfinite(constant).all() and np.ptp(constant) == 0


def test_a_constant_prediction_becomes_the_mean() -> None:
    np.testing.assert_allclose(align(np.ones_like(TRUTH), TRUTH, ALL), np.full_like(TRUTH, TRUTH.mean()))


def test_a_thinned_fit_sees_every_nth_pixel_on_both_axes() -> None:
    truth = np.arange(1.0, 33).reshape(4, 8)
    values = np.where(np.arange(4)[:, None] % 2 == 0, truth, 1e6)  # odd rows are wrong
    values[:, 1::2] = -1e6
    fitted = align(values, truth, np.ones_like(truth, bool), max_px=4)
    np.testing.assert_allclose(fitted[::2, ::2], truth[::2, ::2])


def test_where_the_thinned_grid_meets_no_truth_all_of_it_is_used() -> None:
    truth = np.arange(1.0, 33).reshape(4, 8)
    odd = np.zeros_like(truth, bool)
    odd[1::2, 1::2] = True
    np.testing.assert_allclose(align(2 * truth, truth, odd, max_px=4), truth)


def test_what_is_fitted_is_what_a_prediction_does_not_claim_to_know() -> None:
    values = np.array([[0.0, 1.0]])
    found = {
        (kind, space): as_estimate(prediction(kind, space, values)).alignment
        for kind in ("affine", "scale", "metric")
        for space in get_args(Space)
    }
    assert found == {
        **{("affine", space): space for space in get_args(Space)},
        **{("scale", space): "scale" for space in get_args(Space)},
        **{("metric", space): "none" for space in get_args(Space)},
    }
    assert as_estimate(values).alignment == "depth"


def test_inverse_depth_is_handed_on_growing_towards_the_viewer() -> None:
    values = np.array([[0.0, 1.0]])
    seen = prediction("affine", "disparity", values)
    np.testing.assert_array_equal(as_estimate(seen).values, [[1, 0]])
    np.testing.assert_array_equal(as_estimate(replace(seen, space="log")).values, values)
