"""Outlines: where two maps agree on which pixel hides its neighbour."""

import numpy as np
import pytest

from training.scoring.boundary import JUMPS, boundary_f1

pytestmark = pytest.mark.numeric

SIZE = (12, 16)
ALL = np.ones(SIZE, bool)


def step(column: int, ratio: float = 2.0) -> np.ndarray:
    """A wall in front of another one, its edge before ``column``."""
    depth = np.full(SIZE, 3.0)
    depth[:, column:] *= ratio
    return depth


@pytest.mark.parametrize("scale", [1, 0.01, 40])
def test_outlines_in_the_right_place_score_1_whatever_the_scale(scale: float) -> None:
    assert boundary_f1(scale * step(5, ratio=3), step(5), ALL) == 1


def test_outlines_elsewhere_or_the_wrong_way_round_score_0() -> None:
    assert boundary_f1(step(6), step(5), ALL) == 0
    assert boundary_f1(step(5, ratio=0.5), step(5), ALL) == 0


def test_half_of_the_outlines_found() -> None:
    truth = np.full(SIZE, 3.0)
    truth[6:, :5] = 1
    both = truth.copy()
    both[:, 10:] *= 1.5  # one more outline, of 12 pairs
    wanted, extra = 6 + 5, 12
    assert boundary_f1(both, truth, ALL) == pytest.approx(2 * wanted / (2 * wanted + extra))


def test_a_jump_counts_up_to_its_own_size_and_large_ones_weigh_more() -> None:
    shallow = step(5, ratio=1.1)
    found = JUMPS[JUMPS < 1.1].sum() / JUMPS.sum()
    assert boundary_f1(shallow, step(5), ALL) == pytest.approx(found)
    assert found < 3 / 10  # three of ten jumps, but the small ones
    assert boundary_f1(step(5), shallow, ALL) == pytest.approx(found)


def test_where_neither_has_an_outline_nothing_is_said() -> None:
    flat = np.full(SIZE, 3.0)
    assert boundary_f1(flat, flat, ALL) is None
    assert boundary_f1(step(5, 1.1), step(5, 1.1), ALL) == 1  # left out are the jumps that neither makes
    assert boundary_f1(step(5), flat, ALL) == 0


@pytest.mark.parametrize("value", [np.nan, 100.0])
def test_pairs_with_a_pixel_that_does_not_count_do_not_either(value: float) -> None:
    truth, valid = step(5), ALL.copy()
    truth[:, 10], valid[:, 10] = value, False
    assert boundary_f1(step(5), truth, valid) == 1
    for beside in (10, 11):  # jumps on either side of the unknown column are nobody's fault
        more = step(5)
        more[:, beside:] *= 2
        assert boundary_f1(more, truth, valid) == 1
    valid[:, 5] = False
    assert boundary_f1(step(5), truth, valid) is None


def test_both_axes_are_looked_at() -> None:
    across = np.full((16, 12), 3.0)
    across[5:] = 6
    assert boundary_f1(across, step(5).T, np.ones((16, 12), bool)) == 1
    assert boundary_f1(np.full((16, 12), 3.0), across, np.ones((16, 12), bool)) == 0
