"""Least-squares fit of a prediction's unknown scale and shift to the truth, before anything is measured."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from marigold_core.prediction import Prediction

Alignment = Literal["depth", "log", "disparity", "scale", "none"]
SMALLEST_DISPARITY = 1e-3  # 1 / m; a fit may send far points below zero
LARGEST_LOG = 14.0  # ln m; keeps exp finite where a fit runs away


@dataclass(frozen=True)
class Estimate:
    """A map as it is scored, whatever program made it."""

    values: np.ndarray  # [h, w]; unknown scale and shift, or metres, as ``alignment`` says
    uncertainty: np.ndarray | None  # [h, w] >= 0
    alignment: Alignment  # what has to be fitted


def as_estimate(prediction: np.ndarray | Prediction) -> Estimate:
    """Choose what has to be fitted: scale and shift of an array [h, w], as its kind and space say for a ``Prediction``.

    Inverse depth comes out growing towards the viewer, as other programs write it; ours grows with distance.
    """
    if isinstance(prediction, np.ndarray):
        return Estimate(prediction, None, "depth")
    values, spread = prediction.values, prediction.uncertainty
    if prediction.kind != "affine":
        return Estimate(values, spread, "scale" if prediction.kind == "scale" else "none")
    return Estimate(1 - values if prediction.space == "disparity" else values, spread, prediction.space)


def align(
    prediction: np.ndarray,
    truth_m: np.ndarray,
    valid: np.ndarray,
    alignment: Alignment = "depth",
    max_px: int | None = None,
) -> np.ndarray:
    """Fit [H, W] to the truth [H, W] by least squares over ``valid`` -> the prediction [H, W] as depth in metres.

    Scale and shift are fitted to depth, to its logarithm or to its inverse; for "scale" the shift is known to be 0,
    for "none" both are known. In "disparity" only pixels with a positive prediction take part. With ``max_px`` the
    fit sees every n-th pixel, so that no side has more.
    Source: Ke et al. 2024, section 4.1; the positive pixels and the floor of the disparity: the authors' released
    evaluation code.
    """
    values = prediction.astype(np.float64)
    if alignment == "none":
        return values
    used = valid & (prediction > 0) if alignment == "disparity" else valid
    used = _thin(used, max_px)
    x, y = values[used], truth_m[used].astype(np.float64)
    if alignment == "scale":
        energy = x @ x
        return values * (x @ y / energy if energy > 0 else 0.0)
    if alignment == "log":
        scale, shift = _line(x, np.log(y))
        return np.exp(np.clip(scale * values + shift, -LARGEST_LOG, LARGEST_LOG))
    if alignment == "disparity":
        scale, shift = _line(x, 1 / y)
        return 1 / np.maximum(scale * values + shift, SMALLEST_DISPARITY)
    scale, shift = _line(x, y)
    return scale * values + shift


def _thin(used: np.ndarray, max_px: int | None) -> np.ndarray:
    """Keep of a mask [H, W] a grid of pixels with at most ``max_px`` a side; all of it where the grid misses it."""
    step = max(used.shape) / max_px if max_px else 1.0
    if step <= 1:
        return used
    grid = np.zeros_like(used)
    grid[np.ix_(*((np.arange(int(side / step)) * step).astype(int) for side in used.shape))] = True
    return used & grid if (used & grid).any() else used


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit y = scale x + shift; a constant x gets scale 0, no x at all gets 0 and 0."""
    if not x.size:
        return 0.0, 0.0
    x_mean, y_mean = x.mean(), y.mean()
    spread = np.mean((x - x_mean) ** 2)
    scale = np.mean((x - x_mean) * (y - y_mean)) / spread if spread > 0 else 0.0
    return float(scale), float(y_mean - scale * x_mean)
