"""What members say about one pixel, and how the page tells it."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from marigold_core import SettingsError
from marigold_core.ensemble import fuse_affine, fuse_scale
from marigold_core.pipeline.member_values import Votes, votes_at
from marigold_core.prediction import Prediction
from marigold_core.ui.screens.layers import format_share
from marigold_core.ui.screens.uncertainty import (
    curve_sentence,
    draw_curve,
    draw_member_values,
    member_values_sentence,
)
from tests.pipeline.test_convergence import SIZE, curve, noisy, planted, ramp

pytestmark = pytest.mark.numeric


def scattered(count: int) -> np.ndarray:
    """[E, h, w] noisy ramps, each with a scale and a shift of its own."""
    rng = np.random.default_rng(9)
    return np.stack([rng.uniform(0.3, 2) * member + rng.uniform(-1, 1) for member in noisy(count)])


def voted(*depths: float, members: int | None = None) -> Votes:
    left_out = [np.nan] * ((members or len(depths)) - len(depths))
    return Votes(0, 0, np.array([*depths, *left_out]), float(np.median(depths)) if depths else 0.0, 0.0, 1.0)


# ------------------------------------------------------------------------------- one pixel


@pytest.mark.parametrize("count", [2, 5, 10])
def test_the_fused_map_is_the_median_of_the_votes(count: int) -> None:
    members = scattered(count).astype(np.float32)
    fused = fuse_affine(torch.from_numpy(members)[:, None])[0][0, 0].numpy()
    for x, y in ((0, 0), (79, 59), (31, 17)):
        votes = votes_at(planted(members), x, y)
        assert votes.depths.shape == (count,)
        assert np.median(votes.depths) == pytest.approx(fused[y, x], abs=1e-5)
        assert votes.fused == pytest.approx(fused[y, x], abs=1e-5)


def test_of_unknown_scale_nothing_is_shifted_and_metres_stay_metres() -> None:
    members = (np.array([1.0, 2.0, 0.5])[:, None, None] * (1 + ramp())).astype(np.float32)
    fused = fuse_scale(torch.from_numpy(members)[:, None])[0][0, 0].numpy()
    assert votes_at(planted(members, "scale"), 3, 30).depths == pytest.approx([fused[30, 3]] * 3, rel=1e-5)
    votes = votes_at(planted(members, "metric"), 3, 59)
    assert votes.depths == pytest.approx([2, 4, 1])
    assert (votes.fused, votes.low, votes.high) == pytest.approx((2, 1, 2))


def test_a_member_at_odds_with_all_others_has_no_vote() -> None:
    members = np.concatenate([noisy(4), 1 - noisy(1)])
    assert np.isnan(votes_at(planted(members), 5, 5).depths).tolist() == [False] * 4 + [True]


def test_no_depth_no_votes() -> None:
    votes = votes_at(planted(np.ones((3, *SIZE))), 5, 5)
    assert np.isnan(votes.depths).all()
    assert [camp.size for camp in votes.camps()] == [0]


def test_a_pixel_of_a_larger_photo_is_found_in_the_coarser_members() -> None:
    coarse = planted(noisy(3))
    fine = replace(coarse, photo=np.zeros((SIZE[0] * 10, SIZE[1] * 10, 3), np.uint8))
    assert votes_at(fine, 799, 599).depths == pytest.approx(votes_at(coarse, 79, 59).depths)
    assert votes_at(fine, 125, 8).depths == pytest.approx(votes_at(coarse, 12, 0).depths)


@pytest.mark.parametrize(("x", "y"), [(80, 0), (0, 60), (-1, 0)])
def test_a_pixel_outside_is_refused(x: int, y: int) -> None:
    with pytest.raises(SettingsError, match="the photo has 80 x 60"):
        votes_at(planted(noisy(3)), x, y)


def test_normals_and_results_without_members_are_refused() -> None:
    normals = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (3, *SIZE, 3))
    for refused in (planted(normals, "unit-vector"), replace(planted(noisy(3)), members=None), planted(noisy(1))):
        with pytest.raises(SettingsError, match="two or more members"):
            votes_at(refused, 0, 0)


@pytest.mark.parametrize(
    ("depths", "sizes"),
    [
        ((0.2, 0.21, 0.22, 0.6, 0.61), [3, 2]),
        ((0.6, 0.2, 0.2, 0.2, 0.2), [4, 1]),  # an outlier is a camp of one
        ((0.2, 0.3, 0.4, 0.5, 0.6), [5]),  # scattered evenly
        ((0.2, 0.2, 0.2, 0.24, 0.24), [5]),  # apart, but by less than anybody sees
        ((0.1, 0.1, 0.9, 0.9), [4]),  # too few to speak of camps
    ],
)
def test_two_camps_have_a_gap_between_them(depths: tuple[float, ...], sizes: list[int]) -> None:
    assert [camp.size for camp in voted(*depths).camps()] == sizes


# ------------------------------------------------------------------------------- in words


def test_camps_are_told_with_their_numbers() -> None:
    assert member_values_sentence(voted(*[0.2] * 8, *[0.6] * 2), "") == (
        "Two groups: 8 of 10 members give about 0.20 (nearer), 2 give about 0.60 (farther); the map takes 0.20."
    )
    assert (
        member_values_sentence(voted(0.2, 0.3, 0.25), " m")
        == "3 members between 0.20 m and 0.30 m; the map takes 0.25 m."
    )
    assert member_values_sentence(voted(0.2, 0.2, 0.2, members=4), "").endswith(
        "Left out of the median: 1 member, at odds with all others."
    )
    assert member_values_sentence(voted(members=3), "") == "The members found no depth in this photo."


def test_every_vote_is_a_dot_and_equal_ones_are_stacked() -> None:
    members = np.stack([ramp()] * 4)
    drawn = draw_member_values(replace(planted(members), uncertainty=np.zeros(SIZE)), (40, 59))
    assert re.findall(r"left:([\d.]+)%;--row:(\d)", drawn) == [("100.00", str(row)) for row in range(4)]
    assert 'data-u="0.50625" data-v="0.99167"' in drawn


def test_where_there_is_nothing_to_vote_on_the_place_says_why() -> None:
    three = replace(planted(noisy(3)), uncertainty=np.zeros(SIZE))
    assert "photo has 80 × 60" in draw_member_values(three, (80, 0))
    assert "Click a pixel" in draw_member_values(three, None)
    assert "3 members or more" in draw_member_values(planted(noisy(2)), (1, 1))
    assert "kept no members" in draw_member_values(replace(three, members=None), (1, 1))


def test_shares_are_said_with_as_many_digits_as_help() -> None:
    said = [format_share(share, "depth") for share in (0.0025, 0.031, 0.2)]
    assert said == ["0.25 %", "3.1 %", "20.0 %"]
    assert format_share(0.5, "normals") == "90.0°"


def drawn_curve(prediction: Prediction) -> str:
    return draw_curve(curve(prediction), 0.005, "depth")


def test_the_curve_has_a_dot_for_every_figure_and_its_sentence() -> None:
    drawn = drawn_curve(planted(noisy(6)))
    assert drawn.count('<i class="moved"') == 5
    assert drawn.count('<i class="doubt"') == 4
    heights = [float(bottom) for bottom in re.findall(r'<i class="moved" style="left:[\d.]+%;bottom:([\d.]+)%', drawn)]
    assert heights == sorted(heights, reverse=True)
    assert all(0 <= height <= 100 for height in heights)
    sentence = re.search('aria-label="([^"]+)"', drawn)
    assert sentence and sentence[1].startswith("Member 6 moved the map by") and f"<p>{sentence[1]}</p>" in drawn


def test_the_axis_grows_once() -> None:
    last = [drawn_curve(planted(noisy(count))).rpartition('%">')[2].partition("<")[0] for count in (1, 2, 10, 11, 20)]
    assert last == ["10", "10", "10", "20", "20"]


def test_the_sentence_of_the_curve() -> None:
    assert "kept no members" in curve_sentence([], 0.01, "depth")
    assert "begins with the second" in curve_sentence(curve(planted(noisy(1))), 0.01, "depth")
    assert re.fullmatch(
        r"Member 2 moved the map by [\d.]+ % of the depth range\.",
        curve_sentence(curve(planted(noisy(2))), 0.01, "depth"),
    )
    still = curve_sentence(curve(planted(noisy(5, level=0))), 0.01, "depth")
    assert "The map settled at 4 members" in still and "less than 1.0 % each" in still
