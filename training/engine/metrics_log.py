"""The metrics log of a run, ``metrics.jsonl``, one JSON object a line, and the throughput that is logged there.

A line with "loss" is an optimiser step, one with "validation" a validation with its "score" (lower is better), one
with "event" anything else, such as a skipped step. Each has its "time", in seconds since 1970. A resumed run first
drops the lines of steps that it will make again, so the file always reads as if the run had never been stopped.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marigold_core import storage

DECIDES = "abs_rel"  # the figure that decides, where a validation does not name another
Record = dict[str, Any]  # a JSON object
Report = Callable[[dict[str, float], int], None]  # figures and the step that they are of


class MetricsLog:
    """Read and write the log of one run; with ``active`` False (other processes) nothing is written.

    ``report`` is given the numbers of every line as well, for trackers.
    """

    def __init__(self, path: Path, active: bool = True, report: Report | None = None) -> None:
        self.path, self.active, self.report = path, active, report
        self.scores = self._scores(self.read())  # by step, of the validations so far

    @staticmethod
    def _scores(records: list[Record]) -> dict[int, float]:
        return {record["step"]: record["score"] for record in records if "score" in record}

    def deciding(self, step: int) -> tuple[str, float]:
        """Return the name of the figure that decides the validation at ``step``, and its value on the first set."""
        record = next(one for one in self.read() if one["step"] == step and "score" in one)
        name = record.get("decides", DECIDES)
        means = next(iter(record["validation"].values()), {})
        return name, means.get(name, self.scores[step])

    @property
    def best_step(self) -> int | None:
        """Return the step of the best validation so far, None before the first."""
        return min(self.scores, key=lambda step: (self.scores[step], step), default=None)

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after ``step``, and a last line that a kill cut off."""
        if not self.active or not self.path.exists():
            return
        kept = [record for record in self.read() if record["step"] <= step]
        self.scores = self._scores(kept)
        storage.write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def add(self, record: Record) -> None:
        """Append a line, with the time. When the disk is full it is lost, with a message, and the run goes on."""
        if not self.active:
            return
        if "score" in record:
            self.scores[record["step"]] = record["score"]
        if self.report is not None:
            self.report(dict(_numbers(record)), record["step"])
        whole = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, whole)  # half a line would spoil the next
            print(f"{self.path.name} could not be written: {error.strerror}", file=sys.stderr)

    def read(self) -> list[Record]:
        """Read all whole lines."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:  # cut off by a kill or a full disk
                continue
        return records


def _numbers(record: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record but the step, those of mappings in it as "name/inner name"."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{within}{name}/")
        elif isinstance(value, int | float) and (within or name != "step"):
            yield within + name, float(value)


@dataclass
class Throughput:
    """Time optimiser steps, without validation and saving, and the part of it spent waiting for data."""

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
        """Time the waiting for data within a step."""
        began = time.monotonic()
        yield
        self.waited_s += time.monotonic() - began

    def read(self) -> Record:
        """Return samples a second and the share of time spent waiting since the last call; empty without a step."""
        found: Record = {}
        if self.steps:
            found["samples_a_second"] = round(self.steps * self.batch_size / self.spent_s, 3)
            found["waited_share"] = round(self.waited_s / self.spent_s, 5)
        self.steps, self.spent_s, self.waited_s = 0, 0.0, 0.0
        return found
