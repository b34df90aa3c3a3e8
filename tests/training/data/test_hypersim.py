"""How Hypersim's numbers become photos and depth: oracles of the published formulas."""

import numpy as np
import pytest

from tests.helpers import set_writers as sets
from training.data.sets.hypersim import plane_depth, tone_map


def test_distance_to_the_centre_becomes_plane_depth() -> None:
    """Oracles: x 0.811189 in a corner, x 0.9999997 in the middle, for 1024 x 768 at 886.81 px."""
    depth = plane_depth(np.full(sets.HYPERSIM_SIZE, 10.0))
    corners = [depth[row, column] for row in (0, -1) for column in (0, -1)]
    assert corners == pytest.approx([8.11189] * 4, abs=5e-6)
    assert depth[383:385, 511:513] == pytest.approx(np.full((2, 2), 9.999997), abs=5e-6)
    assert depth.max() < 10
    u, v = 100 - 511.5, 700 - 383.5
    assert depth[700, 100] == pytest.approx(10 * 886.81 / (u**2 + v**2 + 886.81**2) ** 0.5, rel=1e-6)


def test_the_ninetieth_percentile_of_brightness_becomes_four_fifths() -> None:
    hdr = np.zeros((10, 100, 3))
    hdr[:] = np.linspace(0, 2, 1000).reshape(10, 100, 1)
    p90 = np.percentile(hdr[..., 0], 90)
    toned = tone_map(hdr, np.ones((10, 100), bool))
    assert toned.dtype == np.uint8
    scale = 0.8**2.2 / p90
    assert np.array_equal(toned, (np.clip(scale * hdr, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))
    assert toned.flat[3 * 899] == pytest.approx(0.8 * 255, abs=1)


def test_brightness_weighs_the_colours_and_counts_known_pixels_only() -> None:
    hdr = np.zeros((10, 10, 3))
    hdr[:5] = (1, 0, 0)
    hdr[5:] = (50, 50, 50)  # behind which there is no surface
    known = np.zeros((10, 10), bool)
    known[:5] = True
    toned = tone_map(hdr, known)
    expected = int((0.8**2.2 / 0.3) ** (1 / 2.2) * 255)  # over 1: clipped
    assert toned[0, 0].tolist() == [min(255, expected), 0, 0]
    assert toned[9, 9].tolist() == [255] * 3
    for weight, colour in ((0.3, (0.2, 0, 0)), (0.59, (0, 0.2, 0)), (0.11, (0, 0, 0.2))):
        hdr[:] = 1
        hdr[0, 0] = colour
        whole = tone_map(np.broadcast_to(np.array(colour), (10, 10, 3)), np.ones((10, 10), bool))
        bright = min(1.0, (0.8**2.2 / (weight * 0.2) * 0.2)) ** (1 / 2.2)
        assert whole[0, 0].max() == int(bright * 255)


def test_dark_and_empty_pictures_have_their_own_scale() -> None:
    everywhere, nowhere = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert tone_map(np.full((4, 4, 3), 9e-5), everywhere).max() == 0  # below 1e-4: scale 0
    assert tone_map(np.full((4, 4, 3), 1.1e-4), everywhere)[0, 0, 0] == pytest.approx(204, abs=1)
    assert tone_map(np.full((4, 4, 3), 0.5), nowhere)[0, 0, 0] == int(0.5 ** (1 / 2.2) * 255)  # none known: scale 1
    assert tone_map(np.full((4, 4, 3), -3.0), nowhere).max() == 0  # renders have negative colours
