"""The line in which jobs wait for the model: first come, first served, each told its place and when its turn comes."""

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from marigold_core.comparison.sweep import format_seconds
from marigold_core.prediction import Progress

Event = TypeVar("Event")
WAKE_S = 0.5  # a waiting job wakes this often, so that it can be closed


@dataclass(eq=False)
class Turn:
    """One job in the line."""

    seconds: float | None  # that it will take; None: nothing was timed yet
    began: float | None = None  # when it entered the model, of ``time.monotonic``

    def left_s(self) -> float | None:
        """Return the seconds until it ends; a job that takes longer than foreseen ends at any moment."""
        if self.seconds is None or self.began is None:
            return self.seconds
        return max(0.0, self.began + self.seconds - time.monotonic())


class WaitingLine:
    """Lets one job at a time, or ``places``, into the model, in the order in which they came. Thread-safe."""

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._moved = threading.Condition()
        self._turns: list[Turn] = []  # the first ones are inside

    def pass_in_turn(self, events: Iterator[Event], seconds: float | None) -> Generator[Progress | Event]:
        """Yield places in the line until it is this job's turn, then its events.

        Args:
            events: of the job; the first is asked for inside the model alone.
            seconds: that the job will take, if that is known.

        Closing leaves the line.
        """
        turn = Turn(seconds)
        with self._moved:
            self._turns.append(turn)
            waited = len(self._turns) > self._places
        try:
            while not self._is_first(turn):
                yield self._place(turn)
            if waited:
                yield Progress(0, 0, "beginning")  # a job that was closed while it waited takes no step
            turn.began = time.monotonic()
            yield from events
        finally:
            with self._moved:
                self._turns.remove(turn)
                self._moved.notify_all()

    def _is_first(self, turn: Turn) -> bool:
        """Wait a moment for its turn -> whether the job is among the first."""
        with self._moved:
            return self._moved.wait_for(lambda: turn in self._turns[: self._places], WAKE_S)

    def _place(self, turn: Turn) -> Progress:
        with self._moved:
            before = self._turns[: self._turns.index(turn)]
        left = [one.left_s() for one in before]
        known = [seconds for seconds in left if seconds is not None]
        until = f", about {format_seconds(sum(known))}" if len(known) == len(left) else ""
        jobs = "job is" if len(before) == 1 else "jobs are"
        return Progress(0, 0, f"waiting: {len(before)} {jobs} before this one{until}")
