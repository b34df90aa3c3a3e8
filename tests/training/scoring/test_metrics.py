import numpy as np
import pytest

from training.scoring.metrics import METRICS, correlation, delta

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
