"""Comparison of a prediction with the truth, averages over pictures, and baselines that ignore the photo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL.Image import Resampling

from marigold_core.errors import MarigoldError
from marigold_core.images.differences import resize_map
from marigold_core.prediction import Prediction
from training.scoring.alignment import align, as_estimate
from training.scoring.metrics import METRICS, ause, boundary_f1, rank_correlation, sparsification, tenths
from training.scoring.protocols import Averaging, Protocol

# photo [H, W, 3] uint8 -> map [h, w] that grows with depth (or falls with it, where disparity is fitted), or more
Predictor = Callable[[np.ndarray], np.ndarray | Prediction]
Row = dict[str, float]  # metrics of one picture that are defined for it; "pixels" is how many counted
RANKED_PIXELS = 1_000_000  # of more pixels only every n-th is ranked: sorting 20 million takes seconds a picture


@dataclass(frozen=True)
class Comparison:
    """One prediction beside its truth."""

    row: Row
    aligned_m: np.ndarray  # [H, W] float64, fitted and clipped
    counted: np.ndarray  # [H, W] bool
    uncertainty: np.ndarray | None  # [H, W] >= 0, in the prediction's own units
    curves: np.ndarray | None  # [2, N] sparsification by uncertainty and by the oracle


def compare(prediction: np.ndarray | Prediction, truth_m: np.ndarray, protocol: Protocol) -> Comparison:
    """Fit a prediction [h, w] to the truth [H, W] and measure all metrics over the pixels that count.

    A picture without such pixels has no scores, nor has one of a single depth, which every map is fitted to.
    Raises: MarigoldError when the prediction is not a finite map.
    """
    estimate = as_estimate(prediction)
    if isinstance(prediction, Prediction) and protocol.alignment == "none" and prediction.kind != "metric":
        unknown = "scale and shift are" if prediction.kind == "affine" else "scale is"
        raise MarigoldError(
            f"{prediction.checkpoint} predicts depth whose {unknown} not known, so that it cannot be scored with "
            "--alignment none: leave that out, or score a checkpoint of metric depth."
        )
    if estimate.values.ndim != 2:
        raise MarigoldError(f"Depth is a map [H, W], but the prediction has the shape {list(estimate.values.shape)}.")
    if not np.isfinite(estimate.values).all():
        raise MarigoldError("The prediction holds values that are not numbers (NaN or infinity).")
    counted = protocol.counted(truth_m)
    size = truth_m.shape[0], truth_m.shape[1]
    values, uncertainty = resize_map(estimate.values, size, Resampling.BILINEAR), estimate.uncertainty
    if uncertainty is not None:
        uncertainty = resize_map(uncertainty, size, Resampling.BILINEAR)
    alignment = estimate.alignment if protocol.alignment == "auto" else protocol.alignment
    if alignment != "none" and counted.any() and np.ptp(truth_m[counted]) == 0:
        counted[:] = False
    aligned_m = align(values, truth_m, counted, alignment, protocol.alignment_max_px or None)
    aligned_m = aligned_m.clip(protocol.near_m, protocol.far_m)
    row, curves = _measure(aligned_m, truth_m, counted, uncertainty)
    return Comparison(row, aligned_m, counted, uncertainty, curves)


def _measure(
    aligned_m: np.ndarray, truth_m: np.ndarray, counted: np.ndarray, uncertainty: np.ndarray | None
) -> tuple[Row, np.ndarray | None]:
    """Measure [H, W] over the pixels that count -> metrics and, where there is uncertainty, sparsification curves."""
    found, truth = aligned_m[counted], truth_m[counted].astype(np.float64)
    row: Row = {"pixels": float(truth.size)}
    if not truth.size:
        return row, None
    row |= {name: metric(found, truth) for name, metric in METRICS.items()}
    outlines = boundary_f1(aligned_m, truth_m, counted)
    if outlines is not None:
        row["boundary_f1"] = outlines
    if uncertainty is None:
        return row, None
    every = -(-truth.size // RANKED_PIXELS)
    error, spread = np.abs(found - truth)[::every], uncertainty[counted][::every]
    curves = np.stack([sparsification(error, spread), sparsification(error, error)])
    row |= {
        "spearman": rank_correlation(spread, error),
        "spearman_rel": rank_correlation(spread, error / truth[::every]),
        "ause": ause(*curves),
        "tenths": tenths(error, spread),
    }
    return row, curves


def averages(rows: Sequence[Row], averaging: Averaging = "pictures") -> Row:
    """Average each metric over the pictures that have it, each counting the same or by its number of pixels.

    Raises: MarigoldError when no picture has a pixel that counts.
    """
    if not any(row["pixels"] for row in rows):
        raise MarigoldError(
            "No picture has pixels that count, of more than one depth: is the range of the protocol right, in metres?"
        )
    means = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        known = [row for row in rows if name in row]
        weights = [row["pixels"] if averaging == "pixels" and name != "pixels" else 1.0 for row in known]
        means[name] = float(np.average([row[name] for row in known], weights=weights))
    return means


def ramp(pixels: np.ndarray) -> np.ndarray:
    """Baseline: depth grows from the bottom to the top."""
    height, width = pixels.shape[:2]
    return np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], width, axis=1)


def constant(pixels: np.ndarray) -> np.ndarray:
    """Baseline: all is equally far."""
    return np.ones(pixels.shape[:2], np.float32)


BASELINES: dict[str, Predictor] = {"vertical ramp": ramp, "constant": constant}
