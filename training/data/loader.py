"""Data loader: worker processes read micro-batches ahead; damaged pictures end the run or are replaced."""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset

from marigold_core.errors import MarigoldError
from training.data.framing import Batch
from training.data.sampling import Plan, Source

OnBadSample = Literal["raise", "skip"]
MOST_DAMAGED = 0.01  # share of pictures that may be damaged and replaced by others
# forked workers share memory-mapped latents and end with their trainer; later Pythons have another default
FORK = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
SLOWEST_S = 30.0  # after this long without a micro-batch a worker counts as stuck


@dataclass(frozen=True)
class LoadedBatch:
    """A micro-batch, and the damaged pictures that were replaced in it."""

    batch: Batch
    damaged: tuple[str, ...]  # sentences, each naming a picture

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its pictures."""
        return self.batch.names


class _Numbered(Dataset[LoadedBatch | str]):
    """Micro-batches by number, as torch's loader asks for them; an error's sentence instead of one that fails.

    An exception from a worker process would have its whole traceback as its text.
    """

    def __init__(self, plan: Plan, on_bad_sample: OnBadSample) -> None:
        self.plan, self.on_bad_sample = plan, on_bad_sample

    def __getitem__(self, number: int) -> LoadedBatch | str:
        source, items = self.plan(number)
        place = (self.plan.seed, number)
        try:
            return LoadedBatch(source.read(items, place), ())
        except MarigoldError as error:
            if self.on_bad_sample == "raise":
                return f"{error} Find all damaged files with python -m training.doctor, or use --on-bad-sample skip."
        try:
            sound, damaged = self._replace(source, items, number)
            return LoadedBatch(source.read(sound, place), damaged)
        except MarigoldError as error:
            return str(error)

    def _replace(self, source: Source, items: list[int], number: int) -> tuple[list[int], tuple[str, ...]]:
        """Put the next sound picture of the source in the place of each damaged one.

        Raises: MarigoldError when as many replacements in a row are damaged too.
        """
        sound, damaged = [], []
        replacements = islice(self.plan.others(number), 2 * len(items))
        for item in chain(items, replacements):
            try:
                source.read([item], (0,))
                sound.append(item)
            except MarigoldError as error:
                damaged.append(str(error))
            if len(sound) == len(items):
                return sound, tuple(damaged)
        raise MarigoldError(f"Too many damaged pictures in a row in {source.label}; the last: {damaged[-1]}")


class Loader:
    """Reads micro-batches ahead; a call yields those of some numbers, in order."""

    def __init__(
        self, plan: Plan, workers: int = 0, on_bad_sample: OnBadSample = "raise", slowest_s: float = SLOWEST_S
    ) -> None:
        self.plan, self.workers, self.slowest_s = plan, workers, slowest_s
        self.pictures = _Numbered(plan, on_bad_sample)
        self.damaged: set[str] = set()  # sentences, each naming a damaged picture that was replaced

    def __call__(self, numbers: range) -> Iterator[LoadedBatch]:
        """Yield the micro-batches of ``numbers``.

        Raises: MarigoldError for a damaged picture, for too many of them, and when a worker dies or hangs.
        """
        loader = DataLoader(
            self.pictures,
            sampler=numbers,
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context=FORK if self.workers else None,
            worker_init_fn=_ignore_signals,
            timeout=self.slowest_s if self.workers else 0,
            collate_fn=_identity,  # type: ignore (what is not collated is not a list)
        )
        batches = start_workers(loader)
        workers = multiprocessing.active_children() if self.workers else []
        for number in numbers:
            try:
                loaded = next(batches)
            except (RuntimeError, OSError, EOFError) as error:
                reason = _explain_worker_error(workers, error)
                if reason is None:
                    raise
                for worker in multiprocessing.active_children():
                    worker.kill()  # one that is stuck would be waited for at the end of the program
                awaited = ", ".join(self.plan.names(number))
                raise MarigoldError(f"A data loader worker failed, {awaited} being awaited: {reason}") from error
            if isinstance(loaded, str):
                raise MarigoldError(loaded)
            self._count(loaded)
            yield loaded

    def _count(self, loaded: LoadedBatch) -> None:
        """Print the damaged pictures of a micro-batch. Raises: MarigoldError when they are too many by now."""
        for sentence in loaded.damaged:
            print(f"Damaged, another picture is used: {sentence}", file=sys.stderr)
        self.damaged.update(loaded.damaged)
        if len(self.damaged) > max(1, MOST_DAMAGED * self.plan.pictures):
            raise MarigoldError(
                f"{len(self.damaged)} of {self.plan.pictures} pictures are damaged so far, more than "
                f"{MOST_DAMAGED:.0%}; list them with: python -m training.doctor"
            )


def start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers of a loader -> its batches.

    torch's handler of dead workers is not kept: it raises wherever the program is, even while it saves a file, and
    the iterator reports a dead worker as well.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if loader.num_workers:
        signal.signal(signal.SIGCHLD, before)
    return batches


def _explain_worker_error(workers: Sequence[BaseProcess], error: Exception) -> str | None:
    """Explain an error of the loader that is about its workers; None for any other error.

    A worker that was killed or does not answer is a RuntimeError. One that is killed while it sends a micro-batch
    shows as a broken connection.
    """
    if isinstance(error, RuntimeError):
        return str(error) if workers else None
    for worker in workers:
        worker.join(timeout=1)
    dead = [str(worker.pid) for worker in workers if not worker.is_alive()]
    return f"worker (pid(s) {', '.join(dead)}) exited" if dead else None


def _ignore_signals(worker: int) -> None:
    """Make a worker go on until its trainer has ended: signals to a group of processes reach it too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _identity(loaded: LoadedBatch | str) -> LoadedBatch | str:
    return loaded
