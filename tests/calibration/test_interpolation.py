"""The smooth map through values known at a few places."""

import numpy as np
import pytest

from marigold_core.calibration.interpolation import interpolate

pytestmark = pytest.mark.numeric

SHAPE = (120, 160)


def test_it_meets_the_values_and_is_smooth_between():
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] / 160
    truth = np.sin(3 * rows) + columns**2
    places = np.random.default_rng(0).integers(0, SHAPE, (300, 2))
    found = interpolate(places, truth[tuple(places.T)], SHAPE)
    inner = (slice(15, -15), slice(15, -15))
    np.testing.assert_allclose(found[inner], truth[inner], atol=0.02)
    assert found.dtype == np.float32


def test_it_goes_nowhere_beyond_the_values():
    places = np.array([[50, 60], [50, 64], [54, 60]])  # whose plane would rise far beyond them at the edges
    found = interpolate(places, np.array([0.0, 1.0, 0.5]), SHAPE)
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize("places", [[[5, 5]], [[5, 5], [90, 90]], [[5, 5], [50, 50], [90, 90]]])
def test_places_on_one_line_are_met_too(places):
    values = np.arange(len(places), dtype=float)
    found = interpolate(np.array(places), values, SHAPE)
    np.testing.assert_allclose(found[tuple(np.array(places).T)], values, atol=0.1)


def test_a_place_that_is_given_twice_counts_once():
    places = np.array([[5, 5], [5, 5], [90, 20], [40, 150]])
    found = interpolate(places, np.array([2.0, 2.0, 2.0, 2.0]), SHAPE)
    np.testing.assert_allclose(found, 2.0)
