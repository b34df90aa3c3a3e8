"""How much each further member changes the fused map, and early stopping once that is little.

The convergence curve is computed from the members that a prediction keeps, so continuing or repeating a run gives the
same curve. Its changes decrease as members join, because each new one has a smaller share in the median. A draft
(``pipeline.draft``), which no member changes, is left out: in its coarse part the map on show changes half as much.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from marigold_core.images.differences import difference
from marigold_core.prediction import SPREAD_FROM, Prediction, Progress

CURVE_PX = 256  # longest edge of the maps that the curve is measured on
MIN_MEMBERS = 4  # a run with fewer is never stopped early
CONSECUTIVE = 2  # members that must each have changed the map little: one alone may do so by chance


@dataclass(frozen=True)
class ConvergencePoint:
    """The fusion of the first ``members`` members, in shares of its depth range; normals in shares of 180 degrees."""

    members: int
    change: float | None  # mean change of the map by the last of them; None for the first
    uncertainty: float | None  # mean spread; None below three members


def convergence_curve(prediction: Prediction) -> list[ConvergencePoint]:
    """Fuse the first 1, 2, ... E members of a prediction -> E points, or none where it kept no members.

    Maps are compared up to scale and shift, on every n-th pixel so that no side has more than ``CURVE_PX``: about 30 ms
    for ten members.
    """
    import torch

    from marigold_core.pipeline.modalities import modality_of

    if prediction.members is None:
        return []
    modality = modality_of(prediction)
    every = -(-max(prediction.members.shape[1:3]) // CURVE_PX)
    thin = prediction.members[:, ::every, ::every].astype(np.float32)
    stack = torch.as_tensor(thin if thin.ndim == 4 else thin[..., None]).permute(0, 3, 1, 2)
    points, before = list[ConvergencePoint](), None
    for count in range(1, len(stack) + 1):
        fused, spread = modality.fuse(stack[:count])
        planes = fused[0].permute(1, 2, 0).numpy()
        values = planes[..., 0] if prediction.modality == "depth" else planes
        unit = (float(np.ptp(values)) or 1.0) if prediction.modality == "depth" else 1.0
        change = None if before is None else float(difference(before, values, prediction.kind).mean()) / unit
        points.append(ConvergencePoint(count, change, float(spread.mean()) / unit if count >= SPREAD_FROM else None))
        before = values
    return points


def mean_spread(prediction: Prediction) -> float | None:
    """Return the mean spread of a prediction's members, None below three or where none were kept."""
    if prediction.spread is not None:
        return float(prediction.spread.mean())
    points = convergence_curve(prediction)
    return points[-1].uncertainty if points else None


def has_converged(points: Sequence[ConvergencePoint], below: float) -> bool:
    """Return whether, of ``MIN_MEMBERS`` or more, the last two each changed the map by less than ``below``."""
    last = [point.change for point in points[-CONSECUTIVE:]]
    return len(points) >= MIN_MEMBERS and all(change is not None and change < below for change in last)


def converged_at(points: Sequence[ConvergencePoint], below: float) -> int | None:
    """Return the number of members after which early stopping would have ended the run; None: it would not have."""
    return next((point.members for point in points if has_converged(points[: point.members], below)), None)


class EarlyStopping:
    """The events of a run, which is ended once its map has converged."""

    def __init__(self, events: Iterator[Progress | Prediction], members: int, below: float) -> None:
        """Prepare; ``events`` come from a run of ``members`` members one after the other."""
        self._events, self.requested, self._below = events, members, below
        self._arrivals: list[float] = []  # time at which each member was finished
        self.finished = 0
        self.converged = False

    def __iter__(self) -> Iterator[Progress | Prediction]:
        """Yield the events until the run has converged; the run is closed at the end and when this iterator is."""
        try:
            for event in self._events:
                if isinstance(event, Prediction) and not event.preview:
                    self.finished = event.fused
                    self._arrivals.append(perf_counter())
                    self.converged = self.finished < self.requested and has_converged(
                        convergence_curve(event), self._below
                    )
                yield event
                if self.converged:
                    return
        finally:
            close = getattr(self._events, "close", None)
            if close is not None:  # a generator, unless a test gives a list's iterator
                close()

    @property
    def saved_s(self) -> float:
        """Estimated seconds of the members left out, at the mean time of those after the first."""
        if len(self._arrivals) < 2:
            return 0.0
        each = (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
        return (self.requested - self.finished) * each
