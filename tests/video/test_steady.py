"""Maps of successive frames in one frame of scale and shift, with less flicker, and anew at a cut."""

import numpy as np
import pytest

from marigold_core.video.settings import VideoSettings
from marigold_core.video.steady import Steadied, Steadier, fit
from tests.helpers.clips import Scene, disturbed, flicker, scene

FRAMES = 24


def take(steadier: Steadier, pixels: np.ndarray, values: np.ndarray) -> Steadied:
    return steadier.take(pixels, values, steadier.follow(pixels))


def steadied(place: Scene, made: list[np.ndarray], **settings) -> list[np.ndarray]:
    steadier = Steadier(VideoSettings(**settings), "affine")
    return [take(steadier, place.frame(number), values).values for number, values in enumerate(made)]


@pytest.mark.parametrize("seed", [0, 1])
def test_flicker_is_less_than_half_of_that_of_single_frames(seed: int) -> None:
    place = scene(seed)
    truths = place.truths(FRAMES)
    made = disturbed(truths, seed)
    single, steady = flicker(made, truths), flicker(steadied(place, made), truths)
    assert single > 0.04 and steady < 0.25 * single
    assert flicker(truths, truths) < 1e-9  # the measure knows the camera's move
    assert steady < 0.5 * flicker(steadied(place, made, averaging=0.0), truths)


def test_depth_does_not_become_flatter_or_drift_in_a_long_clip() -> None:
    place = scene(3)
    truth = place.truth(0)
    made, steadier = disturbed([truth] * 300, 3, level=0.06), Steadier(VideoSettings(), "affine")
    pixels = place.frame(0)
    for values in made:
        last = take(steadier, pixels, values).values
    scale, _ = np.polyfit(truth.ravel(), last.ravel(), 1)
    assert 0.7 < scale < 1.05  # of the frames it is .7 to 1
    assert np.corrcoef(truth.ravel(), last.ravel())[0, 1] > 0.95


def test_a_cut_begins_anew_and_a_quick_pan_does_not() -> None:
    first, second = scene(0), scene(1)
    steadier, cuts = Steadier(VideoSettings(), "affine"), []
    for number in range(12):
        place = first if number < 6 else second
        values = place.truth(2 * number).astype(np.float32)
        made = take(steadier, place.frame(2 * number), values)
        cuts += [number] if made.is_cut else []
        if number == 6:
            np.testing.assert_array_equal(made.values, values)
    assert cuts == [6]


def mixed(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return np.rint((1 - share) * one + share * other).astype(np.uint8)


def cross_faded(before: list[np.ndarray], after: list[np.ndarray], length: int) -> list[np.ndarray]:
    shares = np.arange(1, length + 1) / (length + 1)
    pairs = zip(before[-length:], after[:length], shares, strict=True)
    return [*before[:-length], *(mixed(*pair) for pair in pairs), *after[length:]]


def through(colour: int, before: list[np.ndarray], after: list[np.ndarray], length: int) -> list[np.ndarray]:
    blank, shares = np.full_like(before[0], colour), np.arange(1, length + 1) / length
    out = [mixed(one, blank, share) for one, share in zip(before[-length:], shares, strict=True)]
    back = [mixed(blank, one, share) for one, share in zip(after[:length], shares, strict=True)]
    return [*before[:-length], *out, *back, *after[length:]]


@pytest.mark.parametrize("length", [6, 12, 24])
@pytest.mark.parametrize("way", ["crossed", "black", "white"])
def test_a_fade_is_one_cut(way: str, length: int) -> None:
    """Planted: two scenes, both seen by a camera that moves, and ``length`` frames from the one to the other."""
    first, second = scene(0).frames(length + 10), scene(1).frames(length + 10)
    if way == "crossed":
        frames, begin, end = cross_faded(first, second, length), 10, 10 + length
    else:
        frames, begin, end = through(0 if way == "black" else 255, first, second, length), 10 + length, 10 + 2 * length
    steadier, cuts = Steadier(VideoSettings(), "affine"), []
    for number, pixels in enumerate(frames):
        values = pixels[..., 0].astype(np.float32)
        cuts += [number] if take(steadier, pixels, values).is_cut else []
    assert len(cuts) == 1 and begin <= cuts[0] <= end


@pytest.mark.parametrize("what", ["light", "passing"])
def test_other_light_and_what_passes_by_are_no_cut(what: str) -> None:
    place, passing, rng = scene(2), scene(3).picture[:60, :40], np.random.default_rng(0)
    steadier = Steadier(VideoSettings(), "affine")
    for number in range(30):
        pixels = place.frame(number // 2).astype(float)
        if what == "light":
            pixels *= 1 - 0.6 * np.sin(number / 9)
        else:
            left, right = max(0, 4 * number - 40), min(96, 4 * number)
            pixels[10:70, left:right] = passing[:, left - 4 * number + 40 :][:, : right - left]
        pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        assert not take(steadier, pixels, pixels[..., 0].astype(np.float32)).is_cut


def test_the_fit_is_exact_for_planted_scale_and_shift_but_for_its_pull() -> None:
    truth = scene(2).depth.astype(np.float32)
    scale, shift = fit((truth - 0.3) / 0.8, [truth] * 3)
    assert scale == pytest.approx(0.8**0.98, rel=1e-3) and shift == pytest.approx(0.3 * 0.98, rel=1e-2)
    scale, shift = fit(truth / 0.8, [truth] * 3, has_shift=False)
    assert scale == pytest.approx(0.8**0.98, rel=1e-3) and shift == 0
    assert fit(truth, [np.full_like(truth, np.nan)]) == (1.0, 0.0)


def test_a_thing_that_moves_is_not_dragged_behind() -> None:
    """A box that really comes nearer takes its new depth at once."""
    place = scene(4)
    pixels = place.frame(0)
    far = place.truth(0).astype(np.float32)
    near = far.copy()
    near[20:50, 30:60] = 0.0
    far[20:50, 30:60] = 1.0
    steadier = Steadier(VideoSettings(), "affine")
    for values in (far, far, far, near):
        made = take(steadier, pixels, values)
    box = made.values[25:45, 35:55]
    assert np.abs(box - made.scale * 0.0 - made.shift).max() < 0.02


def test_what_is_kept_over_a_stop_goes_on_to_the_last_bit() -> None:
    place = scene(5)
    made = disturbed(place.truths(8), 5)
    whole = steadied(place, made)
    steadier = Steadier(VideoSettings(), "affine")
    for number, values in enumerate(made):
        if number == 4:
            arrays, steadier = steadier.arrays(), Steadier(VideoSettings(), "affine")
            steadier.restore(arrays)
        np.testing.assert_array_equal(take(steadier, place.frame(number), values).values, whole[number])
