"""Metrics of one picture: errors of depth, positions of outlines, and how well uncertainty ranks the errors.

Each averages over the pixels of one picture; ``scores.averages`` then averages over pictures.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import rankdata

Metric = Callable[[np.ndarray, np.ndarray], float]  # prediction and truth, [N] each, both in metres and positive

JUMPS = np.linspace(1.05, 1.25, 10)  # ratios of depth from which on a neighbour is behind
REMOVED = np.linspace(0, 1, 51)  # shares of pixels taken away; as many steps as Poggi et al. 2020 take


def rmse(p: np.ndarray, t: np.ndarray) -> float:
    """Measure the root of the mean squared difference, in the unit of both."""
    return float(np.sqrt(np.mean((p - t) ** 2)))


def delta(p: np.ndarray, t: np.ndarray, power: int = 1) -> float:
    """Measure the share of values within a factor of 1.25 to ``power`` of the truth; the factor itself is outside."""
    return float(np.mean(np.maximum(p / t, t / p) < 1.25**power))


METRICS: dict[str, Metric] = {
    "abs_rel": lambda p, t: float(np.mean(np.abs(p - t) / t)),
    "sq_rel": lambda p, t: float(np.mean((p - t) ** 2 / t)),  # metres
    "mae": lambda p, t: float(np.mean(np.abs(p - t))),  # metres
    "rmse": rmse,  # metres
    "rmse_log": lambda p, t: rmse(np.log(p), np.log(t)),
    "log10": lambda p, t: float(np.mean(np.abs(np.log10(p) - np.log10(t)))),
    "irmse": lambda p, t: rmse(1 / p, 1 / t),  # 1 / metre
    # The deviation of log ratios around their mean, which no scale can change: Eigen et al. 2014, equation 1, times 100
    # as the KITTI benchmark reports it.
    "silog": lambda p, t: float(100 * np.std(np.log(p) - np.log(t))),
    **{f"delta{power}": partial(delta, power=power) for power in (1, 2, 3)},
}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Measure the linear correlation of two maps of one shape, in [-1, 1]; 0 when one of them is constant."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


# ------------------------------------------------------------------------------- outlines


def boundary_f1(prediction_m: np.ndarray, truth_m: np.ndarray, valid: np.ndarray) -> float | None:
    """Measure how well the outlines of [H, W] depth are those of the truth [H, W], in [0, 1]; scale does not matter.

    Pixel i occludes its neighbour j (four of them) where d(j) / d(i) > t. Precision and recall count such pairs, both
    of them ``valid``; their F1 scores at ten t from 1.05 to 1.25 are averaged with t as weight. A t at which neither
    map has an outline is left out; None when that is every t.
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
    occurs = claimed + true > 0
    if not occurs.any():
        return None
    scores = 2 * hits[occurs] / (claimed + true)[occurs]  # harmonic mean of hits / claimed and hits / true
    return float(np.average(scores, weights=JUMPS[occurs]))


def _log_ratios(depth_m: np.ndarray, valid: np.ndarray, axis: int) -> np.ndarray:
    """Log ratios [pairs] of all neighbours along an axis of which both are valid: positive where depth grows."""
    depth_m, valid = np.moveaxis(depth_m, axis, 0), np.moveaxis(valid, axis, 0)
    both = valid[1:] & valid[:-1]
    return np.log(depth_m[1:][both].astype(np.float64)) - np.log(depth_m[:-1][both].astype(np.float64))


# ------------------------------------------------------------------------------- uncertainty


def rank_correlation(uncertainty: np.ndarray, error: np.ndarray) -> float:
    """Measure Spearman's correlation of two arrays [N], in [-1, 1]; 0 when one of them is constant."""
    return correlation(rankdata(uncertainty), rankdata(error))


def sparsification(error: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Take away the shares ``REMOVED`` of pixels with the highest ``ranking`` [N] -> mean error [N] of those left.

    In units of the mean error of all, so a curve starts at 1 and, with nothing left, ends at 0. Ranked by the error
    itself it is the oracle, below which no curve can be. Pixels of one rank count alike. An error of 0 everywhere
    gives 0 everywhere. Source: Ilg et al. 2018, sparsification plots.
    """
    total = np.cumsum(_ranked(error, ranking))
    left = len(error) - np.floor(REMOVED[:-1] * len(error)).astype(int)
    mean = total[-1] / len(error)
    curve = total[left - 1] / left / mean if mean > 0 else np.zeros(len(left))
    return np.append(curve, 0.0)


def tenths(error: np.ndarray, uncertainty: np.ndarray) -> float:
    """Measure the mean error of the surest tenth of pixels [N] over that of the least sure tenth; 0 is best.

    1 is what uncertainty has that says nothing; it is 1 where the least sure have no error, too.
    """
    ranked = _ranked(error, uncertainty)
    tenth = -(-len(ranked) // 10)
    surest, least_sure = ranked[:tenth].mean(), ranked[-tenth:].mean()
    return float(surest / least_sure) if least_sure > 0 else 1.0


def _ranked(error: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Sort errors [N] by ``ranking`` [N], ascending; pixels of one rank have the mean error of that rank each."""
    _, group = np.unique(ranking, return_inverse=True)
    shared = (np.bincount(group, error) / np.bincount(group))[group]
    return shared[np.argsort(ranking)]


def ause(curve: np.ndarray, oracle: np.ndarray) -> float:
    """Measure the area between a sparsification curve and the oracle's; 0 is best. Source: Ilg et al. 2018."""
    return float(np.trapezoid(curve - oracle, REMOVED))
