"""How far a depth map is from the truth: pure functions on arrays, and the alignment they need first."""

from typing import Literal

import numpy as np

AlignmentSpace = Literal["depth", "disparity"]
SMALLEST_DISPARITY = 1e-3  # 1 / m; a fit may send far points below zero


def align(
    prediction: np.ndarray, truth_m: np.ndarray, valid: np.ndarray, space: AlignmentSpace = "depth"
) -> np.ndarray:
    """Fit scale and shift by least squares over ``valid`` -> the prediction [H, W] as depth in metres.

    In "depth" the prediction grows with depth and is fitted to it; in "disparity" it is an inverse depth and is
    fitted to 1 / truth. Source: Ke et al. 2024, section 4.1.
    """
    values = prediction.astype(np.float64)
    target = truth_m[valid].astype(np.float64)
    if space == "disparity":
        scale, shift = _line(values[valid], 1 / target)
        return 1 / np.maximum(scale * values + shift, SMALLEST_DISPARITY)
    scale, shift = _line(values[valid], target)
    return scale * values + shift


def abs_rel(prediction_m: np.ndarray, truth_m: np.ndarray) -> float:
    """Measure the mean of |prediction - truth| / truth over arrays of one shape, both in metres and positive."""
    return float(np.mean(np.abs(prediction_m - truth_m) / truth_m))


def delta(prediction_m: np.ndarray, truth_m: np.ndarray, power: int = 1) -> float:
    """Measure the share of values within a factor of 1.25 to ``power`` of the truth, both in metres and positive."""
    return float(np.mean(np.maximum(prediction_m / truth_m, truth_m / prediction_m) < 1.25**power))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Measure the linear correlation of two maps of one shape, in [-1, 1]; 0 when one of them is constant."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit y = scale x + shift; a constant x gets scale 0."""
    x_mean, y_mean = x.mean(), y.mean()
    spread = np.mean((x - x_mean) ** 2)
    scale = np.mean((x - x_mean) * (y - y_mean)) / spread if spread > 0 else 0.0
    return float(scale), float(y_mean - scale * x_mean)
