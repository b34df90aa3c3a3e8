"""How the fused map settles as members join, and when there are enough of them.

The curve is a function of the members that a prediction keeps, so a result that was continued or run again has the
curve that its run has shown. The first steps of the curve are the largest: a new member counts for less the more
there are.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from marigold_core.images.differences import difference
from marigold_core.prediction import Prediction, Progress

CURVE_PX = 256  # longest edge of the maps that the curve is measured on
FEWEST = 4  # members before a run may be ended
IN_A_ROW = 2  # members that must each have moved the map too little: one alone may do so by chance


@dataclass(frozen=True)
class Point:
    """The fused map of the first ``members`` members, in shares of its depth range; normals in half turns."""

    members: int
    moved: float | None  # mean change that the last of them brought; None for the first
    uncertainty: float | None  # mean spread; None below three members


def curve(prediction: Prediction) -> list[Point]:
    """Fuse the first 1, 2, ... E members of a prediction -> E points, or none where it kept no members.

    What a change of scale and shift can explain is not a change. Measured on every n-th pixel, so that no side has more
    than ``CURVE_PX``: about 30 ms for ten members.
    """
    import torch

    from marigold_core.pipeline.modalities import Depth, Normals

    if prediction.members is None:
        return []
    modality = Normals() if prediction.modality == "normals" else Depth(prediction.kind)
    every = -(-max(prediction.members.shape[1:3]) // CURVE_PX)
    thin = prediction.members[:, ::every, ::every].astype(np.float32)
    stack = torch.from_numpy(thin if thin.ndim == 4 else thin[..., None]).permute(0, 3, 1, 2)
    points, before = list[Point](), None
    for count in range(1, len(stack) + 1):
        fused, spread = modality.fuse(stack[:count])
        planes = fused[0].permute(1, 2, 0).numpy()
        values = planes if prediction.modality == "normals" else planes[..., 0]
        unit = 1.0 if prediction.modality == "normals" else float(np.ptp(values)) or 1.0
        moved = None if before is None else float(difference(before, values, prediction.kind).mean()) / unit
        points.append(Point(count, moved, float(spread.mean()) / unit if count >= 3 else None))
        before = values
    return points


def enough(points: Sequence[Point], below: float) -> bool:
    """Say whether the last members of a curve each moved the map by less than ``below``, and there are enough."""
    last = [point.moved for point in points[-IN_A_ROW:]]
    return len(points) >= FEWEST and all(moved is not None and moved < below for moved in last)


def settled_at(points: Sequence[Point], below: float) -> int | None:
    """Find the number of members after which a run with this rule would have ended; None: not among these."""
    return next((point.members for point in points if enough(points[: point.members], below)), None)


class Settling:
    """The events of a run, which ends as soon as its map has settled; afterwards it knows what that saved."""

    def __init__(self, events: Iterator[Progress | Prediction], members: int, below: float) -> None:
        """Prepare; ``events`` come from a run of ``members`` members one after the other."""
        self._events, self.asked, self._below = events, members, below
        self._arrivals: list[float] = []  # when each of the members was there
        self.used = 0
        self.settled = False

    def __iter__(self) -> Iterator[Progress | Prediction]:
        """Pass the events on until the map has settled; at the end, and when this is closed, so is the run."""
        try:
            for event in self._events:
                if isinstance(event, Prediction):
                    self.used = event.settings.ensemble_size
                    self._arrivals.append(perf_counter())
                    self.settled = self.used < self.asked and enough(curve(event), self._below)
                yield event
                if self.settled:
                    return
        finally:
            if isinstance(self._events, Generator):
                self._events.close()

    @property
    def saved_s(self) -> float:
        """Seconds that the members left out would have taken, each as long as those after the first."""
        if len(self._arrivals) < 2:
            return 0.0
        each = (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
        return (self.asked - self.used) * each
