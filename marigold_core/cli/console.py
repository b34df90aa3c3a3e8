"""What the commands have in common: exit status, options of a run, a progress bar and tables.

The bar goes to stderr and shows on terminals only; tables go to stdout.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro
from pydantic import Field

from marigold_core.files.presets import SAVE_FOR, SaveFor
from marigold_core.prediction import Prediction, Progress, ProgressEvents
from marigold_core.settings import Dtype, Format, Frozen

ALL_DONE, SOME_FAILED, USAGE, CHECKPOINT, INTERRUPTED = 0, 1, 2, 3, 130
DEVICES = "cpu, cuda, cuda:1 or mps"
OUTPUT = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to")]

Model = TypeVar("Model")


class RunOf(Frozen, Generic[Model]):
    """Which checkpoint, or checkpoints, run where, and what is written."""

    model: Model | None = Field(None, description="short name, diffusers folder or hub id; by default the bundled one")
    device: str = Field("auto", description=f"{DEVICES}; auto takes the best one")
    dtype: Dtype = Field("auto", description="type of the weights; auto is float16 on CUDA, else float32")
    formats: tuple[Format, ...] | None = Field(None, description="files to write; by default all that suit the result")
    save_for: tuple[SaveFor, ...] | None = Field(None, description=SAVE_FOR)
    overwrite: bool = Field(False, description="replace results that are there already")
    quiet: bool = Field(False, description="print nothing but what failed")


class Run(RunOf[str]):
    """Which checkpoint runs where, and what is written."""

    flat: bool = Field(False, description="name files NAME_depth.npy and so on, beside each other, no folder a photo")


def watch(events: Iterator[Progress | Prediction], name: str, quiet: bool) -> Prediction:
    """Drain a stream behind a progress bar -> its last prediction."""
    from tqdm import tqdm

    progress = ProgressEvents(events)
    form = "{desc}: {percentage:3.0f}% {bar} {postfix}"
    with tqdm(desc=name, leave=False, disable=quiet or None, bar_format=form) as bar:
        for event in progress:
            bar.total, bar.n = event.total, event.done
            bar.set_postfix_str(event.stage)
    return progress.result


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of words -> lines in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
