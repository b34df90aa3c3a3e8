"""A data set that is drawn as it is read, with damage where it is asked for."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.sets.sample import Sample


class DrawnSet:
    """Landscape pictures of 48 x 64 pixels after ``portrait`` upright ones; some are ``damaged`` or never come."""

    near_m, far_m = 1e-3, 80.0
    size: tuple[int, int] | None = None

    def __init__(
        self,
        count: int,
        portrait: int = 0,
        kind: str = "drawn",
        damaged: Sequence[int] = (),
        stuck: Sequence[int] = (),
    ) -> None:
        self.count, self.portrait, self.kind = count, portrait, kind
        self.damaged, self.stuck = damaged, stuck
        self.folder = Path(kind)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.damaged:
            raise MarigoldError(f"{self.name(index)} of {self.kind} is cut off.")
        if index in self.stuck:
            time.sleep(1e6)
        height, width = self.sizes()[index]
        rng = np.random.default_rng(index)
        depth_m = np.linspace(2, 9, height * width, dtype=np.float32).reshape(height, width)
        return Sample(self.name(index), rng.integers(0, 255, (height, width, 3), np.uint8), depth_m)

    def name(self, index: int) -> str:
        return f"picture{index:03d}"

    def files(self, index: int) -> Sequence[Path]:
        return []

    def sizes(self) -> Sequence[tuple[int, int]]:
        return [(64, 48)] * self.portrait + [(48, 64)] * (self.count - self.portrait)
