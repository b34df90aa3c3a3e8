"""Stereo pairs of scenes whose parallax is known."""

from dataclasses import replace

import numpy as np
import pytest

from marigold_core.geometry.camera import focal_length_px
from marigold_core.geometry.stereo import stereo_pair
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings
from tests.helpers.predictions import prediction_of

WIDTH, HEIGHT, NEAR, FAR = 200, 40, 1.0, 4.0
FOCAL_PX = focal_length_px(WIDTH, 60)
PARALLAX_PX = 12  # of the box against the wall
MESH = MeshSettings(fov_x_deg=60, stereo_eye_distance=PARALLAX_PX / FOCAL_PX / (1 / NEAR - 1 / FAR) / NEAR)


@pytest.fixture(scope="module")
def scene() -> Prediction:
    """A red box of columns 80 to 119 before a wall whose blue grows to the right."""
    z = np.full((HEIGHT, WIDTH), FAR)
    z[:, 80:120] = NEAR
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    photo[..., 2] = np.arange(WIDTH)
    photo[:, 80:120] = 255, 0, 0
    return prediction_of(z, "metric", photo=photo)


def red(picture: np.ndarray) -> list[int]:
    """The first and the last column of the box."""
    columns = np.flatnonzero(picture[HEIGHT // 2, :, 0] > 128)
    return [int(columns[0]), int(columns[-1])]


def test_the_box_moves_apart_and_the_wall_on_the_screen_does_not(scene: Prediction) -> None:
    picture, filled = stereo_pair(scene, MESH.changed(stereo_convergence=1.0))
    assert picture.shape == (HEIGHT, 2 * WIDTH, 3) and filled.shape == (HEIGHT, 2 * WIDTH)
    left, right = picture[:, :WIDTH], picture[:, WIDTH:]
    assert red(left) == [86, 125] and red(right) == [74, 113]  # the left eye sees near things farther right
    np.testing.assert_array_equal(left[:, 130:], scene.photo[:, 130:])
    for half, columns in ((filled[:, :WIDTH], range(80, 86)), (filled[:, WIDTH:], range(114, 120))):
        assert [set(np.flatnonzero(row)) for row in half] == [set(columns)] * HEIGHT
    assert (left[:, 80:86] == (0, 0, 79)).all() and (right[:, 114:120] == (0, 0, 120)).all()  # from the wall's side


def test_the_nearest_lies_on_the_screen_where_it_converges(scene: Prediction) -> None:
    picture, _ = stereo_pair(scene, MESH)
    assert red(picture[:, :WIDTH]) == red(picture[:, WIDTH:]) == [80, 119]
    assert picture[5, 30, 2] == 36 and picture[5, WIDTH + 30, 2] == 24  # the wall behind it


def test_rows_that_leave_the_picture_of_a_telephoto_lens_are_marked(scene: Prediction) -> None:
    values = np.full_like(scene.values, FAR)
    values[-1] = NEAR
    picture, filled = stereo_pair(replace(scene, values=values), MeshSettings(fov_x_deg=0.1))
    assert picture.shape == (HEIGHT, 2 * WIDTH, 3) and filled[0].all() and not filled[-1].any()


def test_layouts_are_the_same_pair(scene: Prediction) -> None:
    parallel, filled = stereo_pair(scene, MESH)
    left, right = parallel[:, :WIDTH], parallel[:, WIDTH:]
    crossed, crossed_filled = stereo_pair(scene, MESH.changed(stereo_layout="cross-eyed"))
    np.testing.assert_array_equal(crossed, np.hstack([right, left]))
    np.testing.assert_array_equal(crossed_filled, np.hstack([filled[:, WIDTH:], filled[:, :WIDTH]]))
    half, half_filled = stereo_pair(scene, MESH.changed(stereo_layout="parallel-half"))
    assert half.shape == (HEIGHT, WIDTH, 3) and half_filled.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(half, parallel.reshape(HEIGHT, WIDTH, 2, 3).mean(axis=2), atol=1)
    np.testing.assert_array_equal(half_filled, filled.reshape(HEIGHT, WIDTH, 2).any(axis=2))
    odd = replace(scene, values=scene.values[:, 1:], photo=scene.photo[:, 1:])
    odd_half, _ = stereo_pair(odd, MESH.changed(stereo_layout="cross-eyed-half"))
    assert odd_half.shape == half.shape  # players cut it in the middle
    assert odd_half[5, WIDTH // 2 - 1, 2] > 150 and odd_half[5, WIDTH // 2, 2] < 50  # right eye's end, left's begin
    anaglyph, either = stereo_pair(scene, MESH.changed(stereo_layout="anaglyph"))
    np.testing.assert_array_equal(anaglyph, np.concatenate([left[..., :1], right[..., 1:]], axis=-1))
    np.testing.assert_array_equal(either, filled[:, :WIDTH] | filled[:, WIDTH:])


def test_a_slope_has_no_cracks(scene: Prediction) -> None:
    """Stretched by one eye and squeezed by the other, it is seen by both: only the rim is filled."""
    z = np.broadcast_to(np.linspace(1, 3, WIDTH), (HEIGHT, WIDTH))
    photo = np.repeat(np.broadcast_to(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, WIDTH))[..., None], 3, axis=-1)
    sloped = replace(scene, values=z.astype(np.float32), photo=photo)
    picture, filled = stereo_pair(sloped, MESH)
    inner = np.r_[20 : WIDTH - 20]
    for eye in (0, WIDTH):
        assert not filled[:, eye + inner].any()
        assert (np.diff(picture[:, eye + inner, 0].astype(int), axis=1) >= 0).all()
