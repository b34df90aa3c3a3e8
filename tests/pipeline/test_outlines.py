"""Outlines: where jumps of depth go, and what stays as it was."""

import numpy as np
import pytest

from marigold_core import Prediction, Settings, load
from marigold_core.pipeline import outlines
from marigold_core.pipeline.outlines import follow_outlines, guided_filter, steepen

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH, EDGE, NETWORK_PX = 90, 120, 60, 48
COLUMNS = np.arange(WIDTH) + 0.5


def step_photo() -> np.ndarray:
    """[H, W, 3]: dark left of ``EDGE``, bright right of it."""
    return np.where(np.arange(WIDTH) < EDGE, 60, 190).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)


def ramp_at(column: float, width: float = 2.5) -> np.ndarray:
    """[H, W]: from 0.2 to 0.8 around a column, as a decoder blurs a jump."""
    return (0.5 + 0.3 * np.tanh((COLUMNS - column) / width)).astype(np.float32)[None].repeat(HEIGHT, 0)


@pytest.mark.parametrize("off_px", [-2, 0, 2])
def test_a_blurred_jump_becomes_a_step_at_the_photos_outline(off_px: float) -> None:
    before = ramp_at(EDGE + off_px)
    row = follow_outlines(before, step_photo(), NETWORK_PX)[HEIGHT // 2]
    crossing = int(np.argmax(row > 0.5))
    assert abs(crossing - EDGE) <= 1  # it was off by two
    between = (row > 0.3) & (row < 0.7)
    assert between.sum() <= 0.5 * ((before[0] > 0.3) & (before[0] < 0.7)).sum()


def test_what_is_no_jump_does_not_take_the_photos_pattern() -> None:
    slope = np.linspace(0.9, 0.1, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1)
    wallpaper = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    np.testing.assert_allclose(follow_outlines(slope, wallpaper, NETWORK_PX), slope, atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.4, 7.5])
def test_a_flat_map_stays(level: float) -> None:
    flat = np.full((HEIGHT, WIDTH), level, np.float32)
    np.testing.assert_allclose(follow_outlines(flat, step_photo(), NETWORK_PX), flat, atol=1e-6)


def test_scale_and_shift_of_the_depth_do_not_matter_and_the_range_is_kept() -> None:
    before = ramp_at(EDGE + 2)
    after = follow_outlines(before, step_photo(), NETWORK_PX)
    assert before.min() <= after.min() and after.max() <= before.max() and after.dtype == np.float32
    other = follow_outlines(5 * before + 2, step_photo(), NETWORK_PX)
    np.testing.assert_allclose((other - 2) / 5, after, atol=1e-4)


def test_a_photo_larger_than_the_work_is_filtered_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "WORK_PX", WIDTH // 2)
    after = follow_outlines(ramp_at(EDGE + 2), step_photo(), NETWORK_PX)
    assert after.shape == (HEIGHT, WIDTH)
    assert abs(int(np.argmax(after[0] > 0.5)) - EDGE) <= 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (16, 17)])
def test_small_maps_are_defined(height: int, width: int) -> None:
    rng = np.random.default_rng(1)
    depth, photo = rng.random((height, width)).astype(np.float32), rng.integers(0, 255, (height, width, 3))
    after = follow_outlines(depth, photo.astype(np.uint8), 16)
    assert after.shape == (height, width) and np.isfinite(after).all()


def test_the_guided_filter_keeps_what_is_linear_in_the_guide() -> None:
    guide = np.random.default_rng(2).random((40, 50, 3))
    values = guide @ np.array([0.5, -1.0, 2.0]) + 3
    np.testing.assert_allclose(guided_filter(values, guide, 4), values, atol=0.1)  # but for SMOOTHEST
    np.testing.assert_allclose(guided_filter(values, np.ones_like(guide), 60), values.mean(), atol=1e-6)


def test_an_even_slope_is_not_steepened_inside_and_a_ramp_is() -> None:
    slope = np.linspace(0, 1, WIDTH)[None].repeat(20, 0)
    np.testing.assert_allclose(steepen(slope, 4)[:, 4:-4], slope[:, 4:-4], atol=1e-6)
    ramp = ramp_at(EDGE)
    assert np.diff(steepen(ramp, 4)[0]).max() > 2 * np.diff(ramp[0]).max()


def test_the_setting_changes_the_map_and_no_member(tiny_depth, photo, monkeypatch) -> None:
    pipe, picture = load(tiny_depth, device="cpu"), photo(50, 70)
    asked = Settings(num_inference_steps=1, processing_resolution=48, ensemble_size=3)
    plain = pipe(picture, asked)
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: pytest.fail("members are computed again"))
    *_, followed = pipe.stream(picture, asked.changed(follow_outlines=True), start=plain)
    assert isinstance(followed, Prediction) and followed.members is not None and plain.members is not None
    made = [one.settings for one in (plain, followed) if isinstance(one.settings, Settings)]
    assert [settings.follow_outlines for settings in made] == [False, True]
    assert np.array_equal(followed.members, plain.members)
    difference = np.abs(followed.values - follow_outlines(plain.values, picture, 48))
    assert np.quantile(difference, 0.99) < 5e-3  # members are kept as float16, and a step magnifies their rounding
    assert np.abs(followed.values - plain.values).max() > 0.01


def test_normals_are_left_as_they_are(tiny_normals, photo) -> None:
    pipe, picture = load(tiny_normals, device="cpu"), photo(50, 70)
    asked = Settings(num_inference_steps=1, processing_resolution=48)
    assert np.array_equal(pipe(picture, asked.changed(follow_outlines=True)).values, pipe(picture, asked).values)
