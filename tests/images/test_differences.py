"""Maps resized: averages kept, unit vectors of unit length; maps compared: what their kind leaves open is fitted."""

import numpy as np
import pytest
from PIL.Image import Resampling

from marigold_core.images.differences import difference, resize_map, shrink

pytestmark = pytest.mark.numeric


def test_shrinking_takes_the_area_average() -> None:
    values = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    np.testing.assert_allclose(shrink(values, 15), values.reshape(10, 4, 15, 4).mean(axis=(1, 3)), atol=1e-6)
    assert shrink(values, 60) is values and shrink(values[:1], 2).shape == (1, 2)


@pytest.mark.parametrize("resample", [None, Resampling.BICUBIC])
def test_enlarging_a_ramp_gives_a_ramp(resample: Resampling | None) -> None:
    ramp = np.tile((np.arange(20, dtype=np.float32) + 0.5) / 20, (9, 1))
    found = resize_map(ramp, (4, 80), resample)  # one edge longer, one shorter
    np.testing.assert_allclose(found[:, 10:-10], np.tile((np.arange(80) + 0.5) / 80, (4, 1))[:, 10:-10], atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (40, 64)])
def test_unit_vectors_stay_of_unit_length(size: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 30, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = resize_map(vectors, size, kind="unit-vector")
    assert found.shape == (*size, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


def test_differences_leave_out_what_the_kind_leaves_open() -> None:
    values = np.random.default_rng(0).random((8, 9)).astype(np.float32)
    np.testing.assert_allclose(difference(values, 3 * values + 2, "affine"), 0, atol=1e-5)
    np.testing.assert_allclose(difference(values, 3 * values, "scale"), 0, atol=1e-5)
    np.testing.assert_allclose(difference(values, values + 2, "metric"), 2, atol=1e-5)
    assert difference(values, 1 - values, "affine").max() > 0.3  # no fit inverts a map
    axes = np.eye(3, dtype=np.float32)[None]
    np.testing.assert_allclose(difference(axes, np.roll(axes, 1, axis=1), "unit-vector"), 0.5, atol=1e-6)
