import numpy as np
import pytest

from training.scoring.metrics import (
    JUMPS,
    METRICS,
    REMOVED,
    ause,
    boundary_f1,
    correlation,
    delta,
    rank_correlation,
    sparsification,
    tenths,
)

pytestmark = pytest.mark.numeric

TRUTH = np.array([1.0, 2.0, 4.0, 8.0])
PREDICTION = np.array([1.1, 2.0, 3.0, 8.0])
LN = np.log([1.1, 1, 0.75, 1])
HAND_COMPUTED = {
    "abs_rel": (0.1 + 0.25) / 4,
    "sq_rel": (0.01 / 1 + 1 / 4) / 4,
    "mae": 1.1 / 4,
    "rmse": (1.01 / 4) ** 0.5,
    "rmse_log": ((0.09531018**2 + 0.28768207**2) / 4) ** 0.5,
    "log10": (0.04139269 + 0.12493874) / 4,
    "irmse": (((1 - 1 / 1.1) ** 2 + (1 / 3 - 1 / 4) ** 2) / 4) ** 0.5,
    "silog": 100 * (np.mean(LN**2) - np.mean(LN) ** 2) ** 0.5,
    "delta1": 0.75,  # 4 / 3 is above 1.25
    "delta2": 1.0,
    "delta3": 1.0,
}


@pytest.mark.parametrize("name", METRICS)
def test_hand_computed_values(name: str) -> None:
    assert METRICS[name](PREDICTION, TRUTH) == pytest.approx(HAND_COMPUTED[name])


@pytest.mark.parametrize("name", METRICS)
def test_the_truth_itself_is_best(name: str) -> None:
    assert METRICS[name](TRUTH, TRUTH) == (1 if name.startswith("delta") else 0)


@pytest.mark.parametrize("name", METRICS)
def test_which_metrics_a_scale_cannot_change(name: str) -> None:
    unchanged = METRICS[name](2 * PREDICTION, TRUTH) == pytest.approx(METRICS[name](PREDICTION, TRUTH))
    assert unchanged == (name == "silog")


@pytest.mark.parametrize("power", [1, 2, 3])
def test_delta_is_strict(power: int) -> None:
    edge = np.array([1.25**power])
    assert delta(edge, np.ones(1), power) == 0
    assert delta(np.ones(1), edge, power) == 0
    assert delta(0.999 * edge, np.ones(1), power) == 1


def test_correlation() -> None:
    assert correlation(TRUTH, 2 * TRUTH + 1) == pytest.approx(1)
    assert correlation(TRUTH, -TRUTH) == pytest.approx(-1)
    assert correlation(TRUTH, np.ones_like(TRUTH)) == 0


# ------------------------------------------------------------------------------- outlines

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


# ------------------------------------------------------------------------------- uncertainty

ERROR = np.arange(100.0)


def test_ranks_do_not_care_for_the_shape_of_the_relation() -> None:
    assert rank_correlation(np.exp(ERROR / 10), ERROR) == pytest.approx(1)
    assert rank_correlation(-(ERROR**3), ERROR) == pytest.approx(-1)
    assert rank_correlation(np.ones(100), ERROR) == 0


def test_hand_computed_curve() -> None:
    curve = sparsification(ERROR, ERROR)
    half = np.flatnonzero(REMOVED == 0.5).item()
    assert curve[0] == 1
    assert curve[half] == pytest.approx(np.mean(ERROR[:50]) / np.mean(ERROR))
    assert curve[-1] == 0


def test_the_oracle_is_the_lowest_curve() -> None:
    oracle = sparsification(ERROR, ERROR)
    for seed in range(5):
        assert (sparsification(ERROR, np.random.default_rng(seed).random(100)) >= oracle - 1e-12).all()


def test_area_is_0_for_the_oracle_and_grows_with_disorder() -> None:
    oracle = sparsification(ERROR, ERROR)
    none = ause(sparsification(ERROR, np.ones(100)), oracle)
    backwards = ause(sparsification(ERROR, -ERROR), oracle)
    assert ause(oracle, oracle) == 0
    assert 0 < none < backwards


def test_uncertainty_that_says_nothing_leaves_the_error_as_it_is_whatever_the_order() -> None:
    """Ties must not be broken by where a pixel stands in the picture."""
    for order in (ERROR, ERROR[::-1]):
        np.testing.assert_allclose(sparsification(order, np.zeros(100))[:-1], 1)


def test_no_error_no_area() -> None:
    curve = sparsification(np.zeros(100), ERROR)
    assert (curve == 0).all()
    assert ause(curve, sparsification(np.zeros(100), np.zeros(100))) == 0


def test_tenths_compare_the_surest_with_the_least_sure() -> None:
    error = np.arange(1.0, 101)
    assert tenths(error, error) == pytest.approx(5.5 / 95.5)
    assert tenths(error, -error) == pytest.approx(95.5 / 5.5)
    assert tenths(error, np.zeros(100)) == pytest.approx(1)  # pixels of one rank count alike
    assert tenths(np.zeros(100), error) == 1
    assert tenths(error[:1], error[:1]) == 1


def test_few_pixels() -> None:
    assert np.isfinite(sparsification(np.array([1.0, 3.0]), np.array([0.0, 1.0]))).all()
