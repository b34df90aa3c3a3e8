"""Numbers to pictures: the right colour at the right end, and no division by zero."""

from dataclasses import replace
from typing import get_args

import matplotlib
import numpy as np
import pytest

from marigold_core.errors import SettingsError
from marigold_core.images.colormaps import (
    depth_to_rgb,
    normals_to_rgb,
    rgb_to_normals,
    to_rgb,
    to_unit,
    uncertainty_to_rgb,
    value_range,
)
from marigold_core.settings import Colormap, ColourSettings
from tests.helpers.predictions import prediction_of

RAMP = np.linspace(0, 1, 1000, dtype=np.float32).reshape(20, 50)


@pytest.mark.parametrize("colormap", get_args(Colormap))
def test_colours_are_those_of_matplotlib(colormap: Colormap) -> None:
    expected = matplotlib.colormaps[colormap](RAMP, bytes=True)[..., :3]
    np.testing.assert_array_equal(depth_to_rgb(RAMP, colormap), expected)


def test_near_is_red_and_far_is_blue_unless_inverted() -> None:
    near, far = depth_to_rgb(np.array([[0.0, 1.0]]))[0].astype(int)
    assert near[0] > near[2] + 50 and far[2] > far[0] + 50
    np.testing.assert_array_equal(depth_to_rgb(RAMP, invert=True), depth_to_rgb(RAMP)[::-1, ::-1])


def test_values_outside_take_the_end_colours() -> None:
    np.testing.assert_array_equal(depth_to_rgb(np.array([[-3.0, 7.0]])), depth_to_rgb(np.array([[0.0, 1.0]])))


def test_an_unknown_colour_map_is_refused() -> None:
    with pytest.raises(SettingsError, match="Unknown colormap 'jet'; choose from Spectral"):
        depth_to_rgb(RAMP, "jet")  # type: ignore[arg-type]


def test_uncertainty_is_scaled_by_its_95th_percentile_or_a_given_maximum() -> None:
    spread = RAMP * 0.02
    np.testing.assert_array_equal(uncertainty_to_rgb(spread), depth_to_rgb(RAMP / 0.95, "inferno"))
    np.testing.assert_array_equal(uncertainty_to_rgb(spread, 0.04), depth_to_rgb(RAMP / 2, "inferno"))


def test_uncertainty_of_zero_is_dark_and_a_lone_spot_stands_out() -> None:
    spread = np.zeros((20, 20), np.float32)
    assert uncertainty_to_rgb(spread).max() < 10
    spread[3, 3] = 1e-3
    picture = uncertainty_to_rgb(spread)
    assert picture[3, 3].min() > 100 and picture[0, 0].max() < 10


def test_normals_use_the_usual_colours() -> None:
    axes = np.array([[[0, 0, 1], [1, 0, 0], [0, -1, 0]]], np.float32)
    np.testing.assert_array_equal(normals_to_rgb(axes)[0], [[128, 128, 255], [255, 128, 128], [128, 0, 128]])
    np.testing.assert_allclose(rgb_to_normals(normals_to_rgb(axes)), axes, atol=0.5 / 127)  # a byte's rounding


def test_affine_depth_is_shown_as_it_is_and_other_kinds_from_least_to_greatest() -> None:
    middle = RAMP * 0.5 + 0.25
    assert value_range(prediction_of(middle)) == (0.0, 1.0)
    np.testing.assert_array_equal(to_rgb(prediction_of(middle)), depth_to_rgb(middle))
    metres = prediction_of(RAMP * 8 + 2, "metric")
    assert value_range(metres) == (2.0, 10.0)
    np.testing.assert_allclose(to_unit(metres), RAMP, atol=1e-5)
    assert (to_unit(replace(metres, values=np.full((4, 4), 3.0, np.float32))) == 0).all()


def test_a_normals_prediction_is_shown_as_normals() -> None:
    values = np.zeros((4, 5, 3), np.float32)
    values[..., 2] = 1
    np.testing.assert_array_equal(
        to_rgb(prediction_of(values, "unit-vector"), ColourSettings(colormap="magma")), normals_to_rgb(values)
    )
