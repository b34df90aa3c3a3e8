import numpy as np
import pytest

from training.metrics import abs_rel, align, correlation, delta

TRUTH = np.array([[1.0, 2.0], [4.0, 8.0]])
ALL = np.ones_like(TRUTH, bool)


def test_hand_computed_values() -> None:
    prediction = np.array([[1.1, 2.0], [3.0, 8.0]])
    assert abs_rel(prediction, TRUTH) == pytest.approx((0.1 + 0 + 0.25 + 0) / 4)
    assert delta(prediction, TRUTH) == 0.75  # 4 / 3 is above 1.25
    assert delta(prediction, TRUTH, power=2) == 1.0


def test_delta_is_strict() -> None:
    assert delta(np.array([1.25]), np.array([1.0])) == 0.0


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 5.0), (0.01, -2.0), (-1.0, 4.0)])
def test_scale_and_shift_are_recovered(scale: float, shift: float) -> None:
    np.testing.assert_allclose(align((TRUTH - shift) / scale, TRUTH, ALL), TRUTH)


def test_disparity_is_fitted_as_disparity() -> None:
    np.testing.assert_allclose(align(7 / TRUTH + 3, TRUTH, ALL, "disparity"), TRUTH)


def test_invalid_pixels_do_not_take_part() -> None:
    truth, prediction, valid = TRUTH.copy(), TRUTH.copy(), ALL.copy()
    truth[0, 0], prediction[0, 0], valid[0, 0] = np.nan, 1e9, False
    np.testing.assert_allclose(align(prediction, truth, valid)[valid], TRUTH[valid])


def test_a_constant_prediction_becomes_the_mean() -> None:
    np.testing.assert_allclose(align(np.zeros_like(TRUTH), TRUTH, ALL), np.full_like(TRUTH, TRUTH.mean()))


def test_correlation() -> None:
    assert correlation(TRUTH, 2 * TRUTH + 1) == pytest.approx(1)
    assert correlation(TRUTH, -TRUTH) == pytest.approx(-1)
    assert correlation(TRUTH, np.ones_like(TRUTH)) == 0
