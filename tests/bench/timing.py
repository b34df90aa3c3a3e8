"""Rows of the table, fair timing of two rivals, and what to know about the machine."""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

PACKAGES = ("torch", "diffusers", "transformers", "gradio", "numpy")
ENOUGH_S = 2.0  # short work is repeated until it was watched this long ...
MOST = 40  # ... or this often

Work = Callable[[], object]


@dataclass
class Row:
    """One measured part: every sample of ours and, where there is a counterpart, of theirs.

    Theirs is diffusers or, in training, a plain loop.
    """

    checkpoint: str
    part: str
    unit: str  # "s", "MB", "%" or "RMSE"; less is better in all of them
    ours: list[float]
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times theirs is ours."""
        return median(self.theirs) / median(self.ours) if self.theirs else None

    def as_json(self) -> dict[str, object]:
        """All samples with their medians, so that the spread can be judged too."""
        medians = {"median_ours": median(self.ours), "median_theirs": median(self.theirs) if self.theirs else None}
        return {**asdict(self), **medians, "ratio": self.ratio}

    def cells(self) -> tuple[str, ...]:
        """One line of the printed table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}x"
        return self.checkpoint, self.part, self._show(self.ours), self._show(self.theirs), ratio

    def _show(self, samples: list[float]) -> str:
        if not samples:
            return ""
        value = median(samples)
        if self.unit == "s" and value < 1:
            return f"{value * 1000:.3g} ms"
        return f"{value:,.0f} MB" if self.unit == "MB" else f"{value:.3g} {self.unit}"


def compare(checkpoint: str, part: str, ours: Work, theirs: Work, repeats: int) -> Row:
    """Time both sides by turns, so that a busy moment of the machine meets both; a first round is not counted.

    A single repeat is for work of minutes, which needs no such round.
    """
    row = Row(checkpoint, part, "s", [], [])
    if repeats > 1:
        ours()
        theirs()
    while len(row.ours) < repeats or (sum(row.ours + row.theirs) < ENOUGH_S and len(row.ours) < MOST):
        row.ours.append(seconds(ours))
        row.theirs.append(seconds(theirs))
    return row


def seconds(work: Work) -> float:
    """Time one call, including what it left running on the GPU."""
    _wait()
    began = perf_counter()
    work()
    _wait()
    return perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_table(rows: list[Row]) -> None:
    """Print the rows in columns."""
    table = [("checkpoint", "part", "ours", "theirs", "ratio"), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        texts, numbers = line[:2], line[2:]
        cells = [text.ljust(width) for text, width in zip(texts, widths[:2], strict=True)]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True)]
        print("  ".join(cells).rstrip(), flush=True)


def machine(device: torch.device) -> dict[str, object]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # above 1: not a quiet machine
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
