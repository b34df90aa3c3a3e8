"""Are outlines where they should be? Contours are jumps of depth between neighbours, at several sizes of jump."""

import numpy as np

JUMPS = np.linspace(1.05, 1.25, 10)  # ratios of depth from which on a neighbour is behind


def boundary_f1(prediction_m: np.ndarray, truth_m: np.ndarray, valid: np.ndarray) -> float | None:
    """Measure how well the outlines of [H, W] depth are those of the truth [H, W], in [0, 1]; scale does not matter.

    Pixel i occludes its neighbour j (four of them) where d(j) / d(i) > t. Precision and recall count such pairs, both
    of them ``valid``; their F1 scores at ten t from 1.05 to 1.25 are averaged with t as weight. A t at which neither
    map has an outline says nothing and is left out; None when that is every t.
    Source: Bochkovskii et al. 2025 (Depth Pro), section 3.2, c_d(i, j), P(t) and R(t) of the boundary metrics, with all
    pairs in one sum as written there; their released code averages over the four directions instead.
    """
    hits, claimed, true = np.zeros((3, len(JUMPS)))
    for axis in (0, 1):
        ratios = [_log_ratios(depth, valid, axis) for depth in (prediction_m, truth_m)]
        edges = np.maximum(*map(np.abs, ratios)) > np.log(JUMPS[0])  # all others are outlines of neither
        for sign in (1, -1):
            found, wanted = (sign * ratio[edges][:, None] > np.log(JUMPS) for ratio in ratios)  # [pairs, jumps]
            hits += (found & wanted).sum(axis=0)
            claimed += found.sum(axis=0)
            true += wanted.sum(axis=0)
    telling = claimed + true > 0
    if not telling.any():
        return None
    scores = 2 * hits[telling] / (claimed + true)[telling]  # harmonic mean of hits / claimed and hits / true
    return float(np.average(scores, weights=JUMPS[telling]))


def _log_ratios(depth_m: np.ndarray, valid: np.ndarray, axis: int) -> np.ndarray:
    """Log ratios [pairs] of all neighbours along an axis of which both are valid: positive where depth grows."""
    depth_m, valid = np.moveaxis(depth_m, axis, 0), np.moveaxis(valid, axis, 0)
    both = valid[1:] & valid[:-1]
    return np.log(depth_m[1:][both].astype(np.float64)) - np.log(depth_m[:-1][both].astype(np.float64))
