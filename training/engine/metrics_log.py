"""What a run did, one JSON object a line: ``metrics.jsonl``.

A line with "loss" is an optimiser step, one with "validation" a validation with the "score" it goes by (less is
better), one with "event" something to know, such as a skipped step. A run that goes on from a checkpoint first drops
the lines of steps that it will make again, so the file always reads as if the run had never been stopped.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from marigold_core import storage

Record = dict[str, object]


class Journal:
    """The journal of one run; ``active`` is False in the processes that must not write it."""

    def __init__(self, path: Path, active: bool = True) -> None:
        self.path, self.active = path, active
        self.scores = self._scores(self.read())  # by step, of the validations so far

    @staticmethod
    def _scores(records: list[Record]) -> dict[int, float]:
        return {int(str(record["step"])): float(str(record["score"])) for record in records if "score" in record}

    @property
    def best_step(self) -> int | None:
        """The step of the best validation so far, None before the first."""
        return min(self.scores, key=lambda step: (self.scores[step], step), default=None)

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after ``step``, and a last line that a kill cut off."""
        if not self.active or not self.path.exists():
            return
        kept = [record for record in self.read() if int(str(record["step"])) <= step]
        self.scores = self._scores(kept)
        storage.write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def add(self, record: Record) -> None:
        """Append a line. A full disk costs the line and a word on stderr, not the run."""
        if not self.active:
            return
        if "score" in record:
            self.scores[int(str(record["step"]))] = float(str(record["score"]))
        whole = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
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
