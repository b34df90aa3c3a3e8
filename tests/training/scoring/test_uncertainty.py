"""Uncertainty against error: ranks, and what is left when the uncertain pixels are taken away."""

import numpy as np
import pytest

from training.scoring.uncertainty import REMOVED, ause, rank_correlation, sparsification

pytestmark = pytest.mark.numeric

ERROR = np.arange(100.0)


def test_ranks_do_not_care_for_the_shape_of_the_relation() -> None:
    assert rank_correlation(np.exp(ERROR / 10), ERROR) == pytest.approx(1)
    assert rank_correlation(-(ERROR**3), ERROR) == pytest.approx(-1)
    assert rank_correlation(np.ones(100), ERROR) == 0


def test_hand_computed_curve() -> None:
    curve = sparsification(ERROR, ERROR)
    half = np.flatnonzero(REMOVED == 0.5).item()
    assert curve[0] == 1
    assert curve[half] == pytest.approx(np.mean(ERROR[:50]) / np.mean(ERROR))
    assert curve[-1] == 0


def test_the_oracle_is_the_lowest_curve() -> None:
    oracle = sparsification(ERROR, ERROR)
    for seed in range(5):
        assert (sparsification(ERROR, np.random.default_rng(seed).random(100)) >= oracle - 1e-12).all()


def test_area_is_0_for_the_oracle_and_grows_with_disorder() -> None:
    oracle = sparsification(ERROR, ERROR)
    none = ause(sparsification(ERROR, np.ones(100)), oracle)
    backwards = ause(sparsification(ERROR, -ERROR), oracle)
    assert ause(oracle, oracle) == 0
    assert 0 < none < backwards


def test_uncertainty_that_says_nothing_leaves_the_error_as_it_is_whatever_the_order() -> None:
    """Ties must not be broken by where a pixel stands in the picture."""
    for order in (ERROR, ERROR[::-1]):
        np.testing.assert_allclose(sparsification(order, np.zeros(100))[:-1], 1)


def test_no_error_no_area() -> None:
    curve = sparsification(np.zeros(100), ERROR)
    assert (curve == 0).all()
    assert ause(curve, sparsification(np.zeros(100), np.zeros(100))) == 0


def test_few_pixels() -> None:
    assert np.isfinite(sparsification(np.array([1.0, 3.0]), np.array([0.0, 1.0]))).all()
