"""Flat patches: planted planes give the shift back without a focal length, what is not flat is refused."""

import numpy as np
import pytest

from marigold_core import CalibrationError
from marigold_core.calibration.anchors import Anchor
from marigold_core.calibration.calibrate import Hints, calibrate, distance_m
from marigold_core.calibration.plane_fit import MAX_PX, Patch, fit_patch
from marigold_core.prediction import Space
from tests.helpers.measured_room import FLOOR, FOV_DEG, HEIGHT, WIDTH, anchors, length, noisy, planted, room, unknowns

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("tilt", [(0.0, 0.9), (0.5, 0.0), (-0.4, 0.5), (0.0, 2.0)])
@pytest.mark.parametrize("half_fov_deg", [15, 35, 60])
def test_a_plane_of_any_slope_tells_the_shift_without_a_focal_length(
    tilt: tuple[float, float], half_fov_deg: float
) -> None:
    """The lens is one that no one is told of: the plane is drawn through it, and only pixels are marked."""
    y, x = (
        (np.mgrid[0:HEIGHT, 0:WIDTH] - [[[HEIGHT / 2]], [[WIDTH / 2]]]) * np.tan(np.radians(half_fov_deg)) * 2 / WIDTH
    )
    inverse = 1 + tilt[0] * x + tilt[1] * y
    z = 3 / np.maximum(inverse, 0.3)
    scale, shift = unknowns(z, "depth")
    top = int(np.argmax((inverse > 0.35).all(axis=1)))
    found = fit_patch(Patch(((0, top), (WIDTH, HEIGHT))), planted(z, fov_x_deg=None).values, "depth")
    assert 1 / found.value - found.at == pytest.approx(shift / scale, rel=1e-3)


@pytest.mark.parametrize(("share", "limit"), [(0.0, 1e-5), (0.005, 0.006), (0.01, 0.012), (0.02, 0.024)])
@pytest.mark.parametrize("space", ["depth", "log"])
def test_a_flat_patch_under_noise(space: Space, share: float, limit: float) -> None:
    z = room()
    scale, shift = unknowns(z, space)
    errors, scores = [], []
    for seed in range(20):
        found = fit_patch(FLOOR, noisy(planted(z, space, None), share, seed).values, space)
        truth = scale / (scale * found.at + shift) if space == "depth" else scale
        errors.append(found.value / truth - 1)
        scores.append((found.value - truth) / found.error)
    assert np.median(np.abs(errors)) < limit
    assert share == 0 or 0.5 < np.sqrt(np.mean(np.square(scores))) < 1.6


def test_the_error_bar_allows_for_bends_that_the_fit_swallows() -> None:
    """Errors of sensors and networks are smooth: most of a bend looks like another shift, and little is left to see."""
    z = room()
    scale, shift = unknowns(z, "depth")
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    scores = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        waves = [
            np.cos(2 * np.pi * (x * rng.uniform(0, 1) / WIDTH + y * rng.uniform(0, 1) / 40 + rng.random()))
            for _ in range(4)
        ]
        bent = planted(z).values + 0.001 * np.sum(waves, axis=0).astype(np.float32)
        found = fit_patch(FLOOR, bent, "depth")
        scores.append((found.value - scale / (scale * found.at + shift)) / found.error)
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.6


@pytest.mark.parametrize("space", ["depth", "log"])
def test_a_flat_patch_and_one_hint_give_the_metres_back(space: Space) -> None:
    z = room()
    triangle = Patch(((80.0, 86.0), (12.0, 118.0), (150.0, 118.0)))
    for hints in (
        Hints(patches=[FLOOR], anchors=[Anchor(20, 20, 8.0)]),
        Hints(patches=[triangle], lengths=[length(z, (30, 15), (130, 15))]),
        Hints(patches=[FLOOR, triangle], anchors=anchors(z, 3)),
    ):
        found = calibrate(planted(z, space), hints)
        np.testing.assert_allclose(found.values, z, rtol=1e-3)
        assert found.residuals[-1].found == pytest.approx(found.residuals[-1].given, rel=1e-3)


@pytest.mark.parametrize("space", ["depth", "log"])
def test_a_flat_patch_alone_leaves_one_factor_open(space: Space) -> None:
    z = room()
    found = calibrate(planted(z, space, None), Hints(patches=[FLOOR]))
    assert (found.kind, found.values.max()) == ("scale", pytest.approx(1))
    np.testing.assert_allclose(found.values, z / z.max(), rtol=1e-3)
    assert "with the farthest depth as 1" in found.how
    with pytest.raises(CalibrationError, match="need a map in metres"):
        distance_m(found, (1, 1), (20, 20), FOV_DEG)


def test_a_large_patch_is_thinned() -> None:
    y, _ = np.mgrid[0:900, 0:900]
    z = 3 / (0.4 + y / 900)
    scale, shift = unknowns(z, "depth")
    values = planted(z).values
    assert values.size > 2 * MAX_PX
    found = fit_patch(Patch(((0, 0), (900, 900))), values, "depth")
    assert found.value == pytest.approx(scale / (scale * found.at + shift), rel=1e-3)


@pytest.mark.parametrize(
    ("corners", "sentence"),
    [
        (((5, 5), (40, 40)), "hardly varies"),
        (((100, 60), (150, 119)), "is not flat"),
        (((20, 90), (30, 99)), "has 90 usable pixels"),
        (((0, 90), (159, 94)), "and 8 on each side"),
        (((0, 90), (200, 110)), "lies outside the photo"),
        (((0, 90),), "needs two opposite corners"),
    ],
)
def test_what_tells_nothing_is_refused_with_the_reason(corners: tuple[tuple[float, float], ...], sentence: str) -> None:
    with pytest.raises(CalibrationError, match=sentence) as refusal:
        calibrate(planted(room()), Hints(patches=[Patch(corners)]))
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_what_noise_drowns_or_members_disagree_about_is_refused() -> None:
    clean = planted(room())
    corner = Patch(((20, 100), (60, 119)))
    sure = fit_patch(corner, clean.values, "depth")
    doubted = fit_patch(corner, clean.values, "depth", np.full(clean.values.shape, 0.002, np.float32))
    assert doubted.value == sure.value and doubted.error > 2 * sure.error
    with pytest.raises(CalibrationError, match="too small, too noisy or seen too squarely"):
        fit_patch(corner, clean.values, "depth", np.full(clean.values.shape, 0.05, np.float32))
    with pytest.raises(CalibrationError, match="hardly varies|too noisy"):
        fit_patch(corner, noisy(clean, 0.04, 0).values, "depth")


def test_a_patch_says_nothing_of_a_disparity() -> None:
    hints = Hints(patches=[FLOOR], anchors=anchors(room(), 1))
    with pytest.raises(CalibrationError, match="in which a flat patch is flat with any shift"):
        calibrate(planted(room(), "disparity"), hints)
