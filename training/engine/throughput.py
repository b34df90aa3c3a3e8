"""How fast a run goes, and how much of its time is spent waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Pace:
    """The steps since it was last read; validation and saving are not in it."""

    batch_size: int  # samples a step, of all processes
    steps: int = 0
    spent_s: float = 0.0
    waited_s: float = 0.0  # part of spent_s

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time an optimiser step."""
        began = time.monotonic()
        yield
        self.steps, self.spent_s = self.steps + 1, self.spent_s + time.monotonic() - began

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Time what a step does until its data are there."""
        began = time.monotonic()
        yield
        self.waited_s += time.monotonic() - began

    def read(self) -> dict[str, object]:
        """Sum up and begin anew -> samples a second and the share of time spent waiting; nothing without a step."""
        found = dict[str, object]()
        if self.steps:
            found["samples_a_second"] = round(self.steps * self.batch_size / self.spent_s, 3)
            found["waited_share"] = round(self.waited_s / self.spent_s, 5)
        self.steps, self.spent_s, self.waited_s = 0, 0.0, 0.0
        return found
