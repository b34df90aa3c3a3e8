"""What the commands have in common: exit status, options of a run, a progress bar and tables.

The bar goes to stderr and shows on terminals only; tables go to stdout.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, Self, TextIO, TypeVar

import tyro
from pydantic import Field

from marigold_core import load
from marigold_core.files.presets import SAVE_FOR, SaveFor
from marigold_core.options import NO_READER, discard
from marigold_core.prediction import Prediction, Progress, ProgressEvents
from marigold_core.settings import Dtype, Format, Frozen

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline

ALL_DONE, SOME_FAILED, USAGE, CHECKPOINT, INTERRUPTED = 0, 1, 2, 3, 130
DEVICES = "cpu, cuda, cuda:1 or mps"
PHOTO = Annotated[  # a file; what may be an address is read by ``photo_folders.only_job``
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="the photo", help_behavior_hint="")
]
OUTPUT = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to")]

Model = TypeVar("Model")


class Written(Frozen):
    """What is written of a result."""

    formats: tuple[Format, ...] | None = Field(None, description="files to write; by default all that suit the result")
    save_for: tuple[SaveFor, ...] | None = Field(None, description=SAVE_FOR)
    overwrite: bool = Field(False, description="replace results that are there already")
    quiet: bool = Field(False, description="print nothing but what failed")


class WrittenFlat(Written):
    """What is written of a result, and where."""

    flat: bool = Field(False, description="name files NAME_depth.npy and so on, beside each other, no folder a photo")


class RunOf(Frozen, Generic[Model]):
    """Which checkpoint, or checkpoints, run where."""

    model: Model | None = Field(
        None, description="short name, diffusers folder or hub id; by default MARIGOLD_MODEL, else nano"
    )
    device: str = Field("auto", description=f"{DEVICES}; auto takes the best one")
    tiny_autoencoder: str | None = Field(
        None, description="folder or hub id of a tiny autoencoder, for decoder; by default $MARIGOLD_TINY_AUTOENCODER"
    )
    dtype: Dtype = Field("auto", description="type of the weights; auto is the fastest on the device")
    compile: bool = Field(
        False,
        description="compile the networks, on CUDA: minutes at the start, less time a photo; also $MARIGOLD_COMPILE",
    )

    def load(self, model: str | None) -> "MarigoldPipeline":
        """Load a checkpoint as these options say; None is the default one."""
        tiny, compile = self.tiny_autoencoder, self.compile or None
        return load(model, device=self.device, dtype=self.dtype, tiny_autoencoder=tiny, compile=compile)


class Run(WrittenFlat, RunOf[str]):
    """Which checkpoint runs where, and what is written."""


class Output:
    """Prints lines to the standard streams; a stream that fails costs the lines, not the work.

    A reader of a pipe may go away and a disk may be full while photos are still to be done.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None  # the first one

    def print(self, line: str, stream: TextIO) -> None:
        """Print a line at once."""
        try:
            print(line, file=stream, flush=True)
        except OSError as error:
            self.failure = self.failure or error
            discard(stream)

    def status(self, otherwise: int) -> int:
        """Return the exit status where all lines were printed, else that of the failure, which is said."""
        if self.failure is None:
            return otherwise
        if isinstance(self.failure, BrokenPipeError):
            return NO_READER
        self.print(f"The output could not be written: {self.failure.strerror}.", sys.stderr)
        return otherwise or SOME_FAILED


def shown(text: object) -> str:
    """Write a name so that it is one line: what a terminal cannot show or would obey is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def watch(events: Iterator[Progress | Prediction], name: str, quiet: bool) -> Prediction:
    """Drain a stream behind a progress bar -> its last prediction."""
    from tqdm import tqdm

    progress = ProgressEvents(events)
    form = "{desc}: {percentage:3.0f}% {bar} {postfix}"
    with tqdm(desc=shown(name), leave=False, disable=quiet or None, bar_format=form) as bar:
        for event in progress:
            bar.total, bar.n = event.total, event.done
            bar.set_postfix_str(event.stage)
    return progress.result


class Timed:
    """A progress bar of a long command, with the time that is left."""

    def __init__(self, name: str, quiet: bool) -> None:
        from tqdm import tqdm

        form = "{desc}: {percentage:3.0f}% {bar} {remaining} left {postfix}"
        self._bar = tqdm(desc=shown(name), leave=False, disable=quiet or None, bar_format=form)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._bar.close()

    def clear(self) -> None:
        """Take the bar off its line until it is shown again, for another line."""
        self._bar.clear()

    def show(self, event: Progress) -> None:
        """Show how far it is; what begins again from 0 has a time of its own."""
        if event.done < self._bar.n:
            self._bar.reset(event.total)
        self._bar.total = event.total
        self._bar.set_postfix_str(event.stage, refresh=False)
        self._bar.update(event.done - self._bar.n)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of words -> lines in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
