"""How far depths are from the truth: pure functions of two arrays [N], both in metres and positive.

Every one averages over the pixels of one picture; ``scores.averages`` then averages over pictures.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]


def abs_rel(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the mean of |prediction - truth| / truth."""
    return float(np.mean(np.abs(prediction_m - truth_m) / truth_m))


def sq_rel(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the mean of (prediction - truth)^2 / truth, metres."""
    return float(np.mean((prediction_m - truth_m) ** 2 / truth_m))


def mae(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the mean of |prediction - truth|, metres."""
    return float(np.mean(np.abs(prediction_m - truth_m)))


def rmse(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the root of the mean squared difference, metres."""
    return float(np.sqrt(np.mean((prediction_m - truth_m) ** 2)))


def rmse_log(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the root of the mean squared difference of natural logarithms."""
    return rmse(np.log(prediction_m), np.log(truth_m))


def log10(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the mean difference of decimal logarithms."""
    return mae(np.log10(prediction_m), np.log10(truth_m))


def irmse(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the root of the mean squared difference of inverse depths, 1 / metre."""
    return rmse(1 / prediction_m, 1 / truth_m)


def silog(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure 100 times the deviation of log ratios around their mean: no scale can change it.

    Source: Eigen et al. 2014, equation 1, as the KITTI benchmark reports it.
    """
    return float(100 * np.std(np.log(prediction_m) - np.log(truth_m)))


def delta(prediction_m: np.ndarray, truth_m: np.ndarray, power: int = 1) -> float:
    """Measure the share of values within a factor of 1.25 to ``power`` of the truth; the factor itself is outside."""
    return float(np.mean(np.maximum(prediction_m / truth_m, truth_m / prediction_m) < 1.25**power))


METRICS: dict[str, Metric] = {
    "abs_rel": abs_rel,
    "sq_rel": sq_rel,
    "mae": mae,
    "rmse": rmse,
    "rmse_log": rmse_log,
    "log10": log10,
    "irmse": irmse,
    "silog": silog,
    **{f"delta{power}": partial(delta, power=power) for power in (1, 2, 3)},
}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Measure the linear correlation of two maps of one shape, in [-1, 1]; 0 when one of them is constant."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0
