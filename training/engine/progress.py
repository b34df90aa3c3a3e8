"""Progress of a command: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_S = 30.0  # seconds between two lines where there is no terminal


class Progress:
    """Shows how much is done, how fast, the time left and figures such as the loss, on stderr."""

    def __init__(self, total: int, label: str, unit: str, done: int = 0, silent: bool = False) -> None:
        """Begin to show the progress.

        Args:
            total: how much there is to do.
            label: what is done.
            unit: of what, in the singular.
            done: how much was done before.
            silent: show nothing.
        """
        terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=label, unit=unit, initial=done, disable=silent or not terminal)
        self.lines = not silent and not terminal
        self.total, self.label, self.unit, self.first, self.done = total, label, unit, done, done
        self.began = self.said = time.monotonic()
        self.told: int | None = None  # how much was done in the last line
        self.figures = ""

    def update(self, count: int = 1, **figures: float) -> None:
        """Count ``count`` more as done, with the newest figures."""
        self.done += count
        self.figures = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self.lines:
            if time.monotonic() - self.said >= LINE_S:
                self._say()
            return
        self.bar.set_postfix_str(self.figures, refresh=False)
        self.bar.update(count)

    def _say(self) -> None:
        self.said, self.told = time.monotonic(), self.done
        made, spent = self.done - self.first, self.said - self.began
        words = [f"{self.label}: {self.unit} {self.done} of {self.total}", self.figures]
        if made and spent:
            words += [f"{made / spent:.3g} a second"]
            words += [f"{tqdm.format_interval((self.total - self.done) * spent / made)} left"]
        print(", ".join(filter(None, words)), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.lines and self.told not in (None, self.done):  # a short command needs no line
            self._say()


def follow(items: Iterable[Item], total: int, label: str, unit: str = "picture") -> Iterator[Item]:
    """Yield ``items``, of which there are ``total``, and show the progress."""
    with Progress(total, label, unit) as progress:
        for item in items:
            yield item
            progress.update()
