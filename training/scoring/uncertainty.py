"""Does a map know where it is wrong? Its uncertainty should rank pixels as their errors do."""

import numpy as np
from scipy.stats import rankdata

from training.scoring.metrics import correlation

REMOVED = np.linspace(0, 1, 51)  # shares of pixels taken away; as many steps as Poggi et al. 2020 take


def rank_correlation(uncertainty: np.ndarray, error: np.ndarray) -> float:
    """Measure Spearman's correlation of two arrays [N], in [-1, 1]; 0 when one of them is constant."""
    return correlation(rankdata(uncertainty), rankdata(error))


def sparsification(error: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Take away the shares ``REMOVED`` of pixels with the highest ``ranking`` [N] -> mean error [N] of those left.

    In units of the mean error of all, so a curve starts at 1 and, with nothing left, ends at 0. Ranked by the error
    itself it is the oracle, below which no curve can be. Pixels of one rank count alike. An error of 0 everywhere
    gives 0 everywhere. Source: Ilg et al. 2018, sparsification plots.
    """
    _, group = np.unique(ranking, return_inverse=True)
    shared = (np.bincount(group, error) / np.bincount(group))[group]  # ties: each pixel the mean error of its rank
    total = np.cumsum(shared[np.argsort(ranking)])
    left = len(error) - np.floor(REMOVED[:-1] * len(error)).astype(int)
    mean = total[-1] / len(error)
    curve = total[left - 1] / left / mean if mean > 0 else np.zeros(len(left))
    return np.append(curve, 0.0)


def ause(curve: np.ndarray, oracle: np.ndarray) -> float:
    """Measure the area between a sparsification curve and the oracle's; 0 is best. Source: Ilg et al. 2018."""
    return float(np.trapezoid(curve - oracle, REMOVED))
