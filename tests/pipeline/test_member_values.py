"""The values of one pixel in every member of an ensemble."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from marigold_core import SettingsError
from marigold_core.ensemble import fuse_affine, fuse_scale
from marigold_core.pipeline.member_values import MemberValues, member_values_at
from tests.pipeline.test_convergence import SIZE, noisy, planted, ramp

pytestmark = pytest.mark.numeric


def scattered(count: int) -> np.ndarray:
    """[E, h, w] noisy ramps, each with a scale and a shift of its own."""
    rng = np.random.default_rng(9)
    return np.stack([rng.uniform(0.3, 2) * member + rng.uniform(-1, 1) for member in noisy(count)])


def member_values(*depths: float, members: int | None = None, shown: float | None = None) -> MemberValues:
    median = float(np.median(depths)) if depths else 0.0
    left_out = [np.nan] * ((members or len(depths)) - len(depths))
    return MemberValues(0, 0, np.array([*depths, *left_out]), median, median if shown is None else shown, 0.0, 1.0)


# ------------------------------------------------------------------------------- one pixel


@pytest.mark.parametrize("count", [2, 5, 10])
def test_the_fused_map_is_the_median_of_the_member_values(count: int) -> None:
    members = scattered(count).astype(np.float32)
    fused = fuse_affine(torch.from_numpy(members)[:, None])[0][0, 0].numpy()
    for x, y in ((0, 0), (79, 59), (31, 17)):
        found = member_values_at(planted(members), x, y)
        assert found.depths.shape == (count,)
        assert np.median(found.depths) == pytest.approx(fused[y, x], abs=1e-5)
        assert found.median == pytest.approx(fused[y, x], abs=1e-5)


def test_of_unknown_scale_nothing_is_shifted_and_metres_stay_metres() -> None:
    members = (np.array([1.0, 2.0, 0.5])[:, None, None] * (1 + ramp())).astype(np.float32)
    fused = fuse_scale(torch.from_numpy(members)[:, None])[0][0, 0].numpy()
    assert member_values_at(planted(members, "scale"), 3, 30).depths == pytest.approx([fused[30, 3]] * 3, rel=1e-5)
    found = member_values_at(planted(members, "metric"), 3, 59)
    assert found.depths == pytest.approx([2, 4, 1])
    assert (found.median, found.low, found.high) == pytest.approx((2, 1, 2))


def test_the_map_on_show_is_read_where_the_photo_was_clicked_whatever_moved_it_off_the_median() -> None:
    made = planted(noisy(3))
    values = np.linspace(0, 1, 40 * 50, dtype=np.float32).reshape(40, 50)
    found = member_values_at(replace(made, values=values, given_size=(600, 800)), 799, 314)
    assert found.shown == values[20, 49] and found.median != pytest.approx(found.shown, abs=0.01)


def test_a_member_at_odds_with_all_others_is_left_out() -> None:
    members = np.concatenate([noisy(4), 1 - noisy(1)])
    assert np.isnan(member_values_at(planted(members), 5, 5).depths).tolist() == [False] * 4 + [True]


def test_no_depth_no_values() -> None:
    found = member_values_at(planted(np.ones((3, *SIZE))), 5, 5)
    assert np.isnan(found.depths).all()
    assert [mode.size for mode in found.modes()] == [0]


def test_a_pixel_of_a_larger_photo_is_found_in_the_coarser_members() -> None:
    coarse = planted(noisy(3))
    fine = replace(coarse, photo=np.zeros((SIZE[0] * 10, SIZE[1] * 10, 3), np.uint8))
    assert member_values_at(fine, 799, 599).depths == pytest.approx(member_values_at(coarse, 79, 59).depths)
    assert member_values_at(fine, 125, 8).depths == pytest.approx(member_values_at(coarse, 12, 0).depths)


@pytest.mark.parametrize(("x", "y"), [(80, 0), (0, 60), (-1, 0)])
def test_a_pixel_outside_is_refused(x: int, y: int) -> None:
    with pytest.raises(SettingsError, match="the photo has 80 x 60"):
        member_values_at(planted(noisy(3)), x, y)


def test_normals_and_results_without_members_are_refused() -> None:
    normals = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (3, *SIZE, 3))
    for refused in (planted(normals, "unit-vector"), replace(planted(noisy(3)), members=None), planted(noisy(1))):
        with pytest.raises(SettingsError, match="two or more members"):
            member_values_at(refused, 0, 0)


@pytest.mark.parametrize(
    ("depths", "sizes"),
    [
        ((0.2, 0.21, 0.22, 0.6, 0.61), [3, 2]),
        ((0.6, 0.2, 0.2, 0.2, 0.2), [4, 1]),  # an outlier is a mode of one
        ((0.2, 0.3, 0.4, 0.5, 0.6), [5]),  # scattered evenly
        ((0.2, 0.2, 0.2, 0.24, 0.24), [5]),  # apart, but by less than anybody sees
        ((0.1, 0.1, 0.9, 0.9), [4]),  # too few members for modes
    ],
)
def test_two_modes_have_a_gap_between_them(depths: tuple[float, ...], sizes: list[int]) -> None:
    assert [mode.size for mode in member_values(*depths).modes()] == sizes
