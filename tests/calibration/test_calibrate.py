"""Planted metres come back: from depths and lengths, exactly and under noise; what is not determined is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marigold_core import CalibrationError
from marigold_core.calibration.anchors import Anchor, Length, depth_from_affine
from marigold_core.calibration.calibrate import Hints, calibrate
from marigold_core.calibration.plane_fit import Patch
from marigold_core.geometry.camera import unproject
from marigold_core.prediction import Prediction, Space
from tests.helpers.measured_room import (
    FLOOR,
    FOV_DEG,
    SPACES,
    SPOTS,
    abs_rel,
    anchors,
    length,
    noisy,
    planted,
    room,
    unknowns,
)
from tests.helpers.predictions import prediction_of

pytestmark = pytest.mark.numeric


# ------------------------------------------------------------------------------- exact hints


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("size", [0.02, 1.0, 300.0])
def test_exact_depths_give_the_metres_back(space: Space, count: int, size: float) -> None:
    z = room() * size
    found = calibrate(planted(z, space), Hints(anchors=anchors(z, count)))
    np.testing.assert_allclose(found.values, z, rtol=1e-5)
    np.testing.assert_allclose((found.scale, found.shift), unknowns(z, space), rtol=1e-5)
    assert (found.kind, found.space, found.members) == ("metric", "depth", None)
    assert found.scale_error > 0 and found.shift_error > 0
    assert [one.found for one in found.residuals] == pytest.approx([one.given for one in found.residuals])


@pytest.mark.parametrize("seed", range(8))
def test_any_two_depths_far_enough_apart_give_any_scale_and_shift_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((30, 40)).astype(np.float32)
    values.flat[:2] = 0, 1
    scale, shift = np.exp(rng.normal(0, 2, 2))
    z = scale * values.astype(np.float64) + shift
    near, far = (np.argwhere(part)[rng.integers(20)] for part in (values < 0.4, values > 0.6))
    hints = Hints(anchors=[Anchor(x, y, float(z[y, x])) for y, x in (near, far)])
    found = calibrate(replace(planted(z), values=values), hints)
    np.testing.assert_allclose((found.scale, found.shift), (scale, shift), rtol=1e-9)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "make",
    [
        lambda z: Hints(lengths=[length(z, (30, 115), (130, 115)), length(z, (30, 15), (130, 15))]),
        lambda z: Hints(lengths=[length(z, (30, 115), (130, 20))], anchors=anchors(z, 1)),
        lambda z: Hints(near_m=float(z.min()), anchors=[Anchor(20, 20, 8.0)]),
        lambda z: Hints(near_m=float(z.min()), lengths=[length(z, (30, 15), (130, 15))]),
    ],
)
def test_lengths_and_the_near_plane_give_the_metres_back(space: Space, make: Callable[[np.ndarray], Hints]) -> None:
    z = room()
    np.testing.assert_allclose(calibrate(planted(z, space), make(z)).values, z, rtol=1e-4)


def test_a_depth_along_the_ray_is_not_one_along_the_axis() -> None:
    z = room()
    slant = np.linalg.norm(unproject(z.astype(np.float32), FOV_DEG), axis=-1)
    rays = [Anchor(x, y, float(slant[y, x]), "ray") for x, y in SPOTS[:2]]
    found = calibrate(planted(z, fov_x_deg=None), Hints(anchors=rays, fov_x_deg=FOV_DEG))
    assert found.fov_x_deg == FOV_DEG
    np.testing.assert_allclose(found.values, z, rtol=1e-5)
    as_axis = Hints(anchors=[replace(one, along="axis") for one in rays])
    assert abs_rel(calibrate(planted(z), as_axis), z) > 0.03
    with pytest.raises(CalibrationError, match="needs the camera's field of view"):
        calibrate(planted(z, fov_x_deg=None), Hints(anchors=rays))


def test_a_map_up_to_scale_needs_one_hint() -> None:
    z = room()
    shared = replace(planted(z), kind="scale", values=(z / 40).astype(np.float32))
    for hints in (Hints(anchors=anchors(z, 1)), Hints(lengths=[length(z, (30, 115), (130, 20))])):
        found = calibrate(shared, hints)
        np.testing.assert_allclose(found.values, z, rtol=1e-5)
        assert (found.shift, found.shift_error) == (0, 0)
    with pytest.raises(CalibrationError, match="shift of this map is known already"):
        calibrate(shared, Hints(patches=[FLOOR]))


@pytest.mark.parametrize("space", SPACES)
def test_uncertainty_becomes_metres(space: Space) -> None:
    z = room()
    scale, shift = unknowns(z, space)
    prediction = replace(planted(z, space), uncertainty=np.full(z.shape, 1e-4, np.float32))
    found = calibrate(prediction, Hints(anchors=anchors(z, 2)))
    moved = scale * (prediction.values.astype(np.float64) + 1e-4) + shift
    expected = {"depth": lambda: moved, "log": lambda: np.exp(moved), "disparity": lambda: 1 / moved}[space]() - z
    assert found.uncertainty is not None and found.uncertainty.dtype == np.float32
    np.testing.assert_allclose(found.uncertainty, expected, rtol=5e-3, atol=2e-6)


# ------------------------------------------------------------------------------- noise


@pytest.mark.parametrize(("share", "limit"), [(0.0, 1e-5), (0.005, 0.006), (0.01, 0.012), (0.02, 0.024)])
def test_five_depths_under_noise(share: float, limit: float) -> None:
    z = room()
    errors = []
    for seed in range(20):
        found = calibrate(noisy(planted(z), share, seed), Hints(anchors=anchors(z, 5)))
        scale, shift = unknowns(z, "depth")
        errors.append(np.mean(np.abs((found.scale - scale) * planted(z).values + found.shift - shift) / z))
    assert np.median(errors) < limit


def test_one_wrong_depth_among_six_is_outvoted() -> None:
    z = room()
    good = [*anchors(z, 5), Anchor(120, 115, float(z[115, 120]))]
    for wrong in range(6):
        hints = [replace(one, metres=one.metres * (3 if k == wrong else 1)) for k, one in enumerate(good)]
        found = calibrate(planted(z), Hints(anchors=hints))
        assert abs_rel(found, z) < 0.01
        assert found.residuals[wrong].given > 2.5 * found.residuals[wrong].found


def test_error_bars_hold_what_they_say() -> None:
    z = room()
    scale, shift = unknowns(z, "depth")
    far = (Anchor(100, 30, 8.0), Anchor(60, 25, 8.0), Anchor(110, 118, float(z[118, 110])))
    for hints in (Hints(anchors=[*anchors(z, 5), *far]), Hints(anchors=anchors(z, 2)), Hints(patches=[FLOOR])):
        scores = []
        for seed in range(60):
            found = calibrate(noisy(planted(z), 0.005, seed), hints)
            if hints.patches:
                scores.append((found.shift - found.values.max() * shift / (scale + shift)) / found.shift_error)
            else:
                scores += [(found.scale - scale) / found.scale_error, (found.shift - shift) / found.shift_error]
        assert 0.5 < np.sqrt(np.mean(np.square(scores))) < 1.7


def any_map(seed: int, space: Space) -> tuple[Prediction, np.ndarray, np.random.Generator]:
    """Pixels that have nothing to do with their neighbours, and the metres that a random scale and shift make them."""
    rng = np.random.default_rng(seed)
    values = rng.random((12, 16)).astype(np.float32)
    values.flat[:2] = 0, 1
    scale, shift = np.exp(rng.normal(size=2))
    lines = {
        "depth": scale * values + shift,
        "log": scale * values + np.log(shift),
        "disparity": (1.2 - values) / shift,
    }
    uncertainty = np.full(values.shape, 0.01, np.float32)
    prediction = prediction_of(values, "affine", space, uncertainty=uncertainty, fov_x_deg=FOV_DEG)
    return prediction, depth_from_affine(lines[space].astype(np.float64), space)[0], rng


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda z: Hints(), "Give a known depth, a known length or a flat patch"),
        (lambda z: Hints(anchors=anchors(z, 1)), "alone cannot fix both the scale and the shift"),
        (lambda z: Hints(lengths=[length(z, (30, 115), (130, 20))]), "alone cannot fix both the scale and the shift"),
        (lambda z: Hints(anchors=[Anchor(20, 20, 8.0), Anchor(30, 20, 8.0)]), "lie at the same depth"),
        (
            lambda z: Hints(anchors=[Anchor(80, 112, 8.0), Anchor(20, 20, 3.0)]),
            "shows farther away was said to be nearer",
        ),
        (lambda z: Hints(anchors=[Anchor(80, 112, 8.0), Anchor(20, 20, 8.0)]), "put all of it at one depth"),
        (lambda z: Hints(anchors=[Anchor(60, 92, 1.0), Anchor(20, 20, 90.0)]), "nearest part .* behind the camera"),
        (lambda z: Hints(anchors=[Anchor(160, 20, 8.0)]), r"\(160, 20\) lies outside the photo, which has 160 x 120"),
        (lambda z: Hints(anchors=[Anchor(0, 0, 0.0)]), "must be a number of metres above 0, but got 0"),
        (lambda z: Hints(anchors=[Anchor(0, 0, float("nan"))]), "must be a number of metres above 0, but got nan"),
        (lambda z: Hints(lengths=[Length(5, 5, 5.4, 5, 1.0)]), "starts and ends in the same pixel"),
        (
            lambda z: Hints(anchors=[Anchor(60, 41.5, 6.0), Anchor(60, 41, 7.0)]),
            r"Two known depths of the pixel at \(60, 41\) contradict each other, 6 and 7 m; leave one out",
        ),
        (
            lambda z: Hints(lengths=[Length(5, 6, 50, 60, 1.0), Length(50, 60, 5, 6, 2.0)]),
            r"Two known lengths from \(50, 60\) to \(5, 6\) contradict each other, 1 and 2 m; leave one out",
        ),
        (lambda z: Hints(lengths=[Length(5, 5, 50, 5, 1.0)], fov_x_deg=190), "0.1 to 150 degrees, but got 190"),
    ],
)
def test_what_is_not_determined_is_refused_with_the_reason(make: Callable[[np.ndarray], Hints], sentence: str) -> None:
    z = room()
    with pytest.raises(CalibrationError, match=sentence) as refusal:
        calibrate(planted(z), make(z))
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_depths_that_noise_cannot_tell_apart_are_refused() -> None:
    near = Hints(anchors=[Anchor(60, 92, 6.39), Anchor(60, 94, 6.02)])
    z = room()
    np.testing.assert_allclose(calibrate(planted(z), near).values, z, rtol=0.02)
    smooth = replace(planted(z), uncertainty=np.full(z.shape, 0.2, np.float32))
    with pytest.raises(CalibrationError, match="too alike to fix the shift"):
        calibrate(smooth, near)


def test_hints_that_contradict_one_another_are_refused() -> None:
    z = room()
    spread = [
        replace(one, metres=one.metres * factor) for one, factor in zip(anchors(z, 4), (4, 2, 0.3, 1), strict=True)
    ]
    with pytest.raises(CalibrationError, match="contradict"):
        calibrate(planted(z), Hints(anchors=spread))


def test_two_lengths_with_two_answers_are_refused() -> None:
    seen = set()
    for seed in range(120):
        prediction, z, rng = any_map(seed, "log")
        pairs = [[(int(rng.integers(16)), int(rng.integers(12))) for _ in "ab"] for _ in range(2)]
        if any(a == b for a, b in pairs):
            continue
        try:
            found = calibrate(prediction, Hints(lengths=[length(z, a, b) for a, b in pairs]))
        except CalibrationError as refusal:
            seen.add(str(refusal)[:11])
            continue
        np.testing.assert_allclose(found.values, z, rtol=0.05)
    assert "Two answers" in seen


@pytest.mark.filterwarnings("error")
def test_exact_hints_are_solved_or_refused_and_never_wrong() -> None:
    solved = 0
    for seed in range(150):
        prediction, z, rng = any_map(seed, SPACES[seed % 3])
        y, x = rng.integers((12, 16), size=(6, 2)).T
        known = [Anchor(*at, float(z[at[1], at[0]])) for at in zip(x[: seed % 4], y, strict=False)]
        across = [length(z, (x[4], y[4]), (x[5], y[5]))] if (x[4], y[4]) != (x[5], y[5]) else []
        try:
            found = calibrate(prediction, Hints(anchors=known, lengths=across))
        except CalibrationError:
            continue
        np.testing.assert_allclose(found.values, z, rtol=0.02)
        solved += 1
    assert solved > 50


def test_maps_that_cannot_be_calibrated_are_refused() -> None:
    z = room()
    hints = Hints(anchors=anchors(z, 2))
    damaged = planted(z).values.copy()
    damaged[3, 3] = np.nan
    for prediction, sentence in (
        (replace(planted(z), kind="metric"), "in metres already"),
        (replace(planted(z), modality="normals"), "not for normals"),
        (replace(planted(z), values=damaged), "not numbers"),
    ):
        with pytest.raises(CalibrationError, match=sentence):
            calibrate(prediction, hints)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"anchors": [(10, 10, 4)]}, r"anchors must be a list of Anchor, but got \[\(10, 10, 4\)\]"),
        ({"anchors": Anchor(1, 2, 3)}, "anchors must be a list of Anchor"),
        ({"anchors": [Anchor("a", 2, 3)]}, "anchors must be a list of Anchor"),  # pyright: ignore[reportArgumentType]
        ({"lengths": [Anchor(1, 2, 3)]}, "lengths must be a list of Length"),
        ({"patches": [Patch([1, 2])]}, "patches must be a list of Patch"),  # pyright: ignore[reportArgumentType]
        ({"near_m": "3"}, "near_m must be a number, but got '3'"),
        ({"anchors": [Anchor(1, 2, 3, "sideways")]}, "along has no 'sideways'; choose from axis, ray"),  # pyright: ignore[reportArgumentType]
        ({"method": "x"}, "method has no 'x'; choose from affine, completion"),
    ],
)
def test_hints_of_other_types_and_words_are_refused_when_they_are_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        Hints(**given)
