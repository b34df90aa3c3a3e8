"""What ``predict`` does with one photo, in its own process or in another one."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marigold_core import storage
from marigold_core.cli import photo_folders
from marigold_core.cli.console import Run
from marigold_core.cli.locations import is_address
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.settings import ColourSettings, MeshSettings, ResolvedSettings
from marigold_core.storage import claim, clear_claim

if TYPE_CHECKING:
    from marigold_core.prediction import Prediction, Progress

MOST_ENDS = 5  # of processes at one photo, which then is given up
GIVEN_UP = f"{MOST_ENDS} processes ended while they were at it, perhaps for want of memory; the next run tries again."
Watch = Callable[[Iterator["Progress | Prediction"]], "Prediction"]  # drains the stream of a photo


@dataclass(frozen=True)
class Work:
    """What is made of each photo of a run, and where it goes."""

    output: Path
    run: Run
    settings: ResolvedSettings
    mesh: MeshSettings
    colours: ColourSettings
    model: str
    checkpoint_sha256: str
    files: tuple[str, ...]  # of each photo, the manifest aside
    began: float  # of ``time.time``


@dataclass(frozen=True)
class Outcome:
    """What became of one photo."""

    state: Literal["done", "kept", "failed"]
    reason: str = ""
    note: str | None = None  # of the decoder
    seconds: float | None = None  # that a photo took which is done


class Predictor:
    """Predicts photos one by one with a checkpoint that stays loaded."""

    def __init__(self, work: Work) -> None:
        """Load the checkpoint. Raises: CheckpointError, SettingsError."""
        self._work, run = work, work.run
        self._pipe = run.load(work.model)

    def attempt(self, job: photo_folders.Job, watch: Watch, *, wait: bool) -> Outcome | None:
        """Predict one photo and write its files, unless another process is at it, which may be to ``wait`` for.

        Returns: what became of it; None while another process is at it.
        Raises: CheckpointError, which would fail the next photo as well.
        """
        try:
            with nullcontext(1) if is_address(job.folder) else claim(job.folder, wait=wait) as begun:
                if begun > MOST_ENDS:
                    return Outcome("failed", GIVEN_UP)
                return self._predict(job, watch) if begun else None
        except CheckpointError:
            raise
        except MarigoldError as error:
            return Outcome("failed", str(error))

    def _predict(self, job: photo_folders.Job, watch: Watch) -> Outcome:
        from marigold_core.files import writers
        from marigold_core.files.manifest import left_out_of

        work, run, began = self._work, self._work.run, time.perf_counter()
        photo = job.load()
        _, prefix = photo_folders.place(job.folder, run.flat)
        photo_folders.end_publishing(job.folder, run.flat)
        wanted = {"settings": work.settings, "mesh": work.mesh, "colours": work.colours}
        wanted |= {"checkpoint_sha256": work.checkpoint_sha256}
        names = [f"{prefix}{name}" for name in work.files]
        again = run.overwrite and not photo_folders.finished_since(job.folder, work.began, run.flat)  # by another one
        if not again and photo_folders.is_done(job.folder, photo.pixels, names, flat=run.flat, **wanted):
            return Outcome("kept", "was finished by another run", photo.note)
        with photo_folders.result_folder(job.folder, work.output, run.overwrite, run.flat) as folder:
            prediction = watch(self._pipe.stream(photo, work.settings))
            how: dict[str, Any] = {"save_for": run.save_for or (), "mesh": work.mesh, "colours": work.colours}
            written = writers.save(prediction, folder, run.formats, prefix=prefix, **how)
            notes = filter(None, (prediction.note, left_out_of(written["manifest"])))
        return Outcome("done", "", " ".join(notes) or None, round(time.perf_counter() - began, 3))


def ended(job: photo_folders.Job) -> int:
    """Count the processes in a row that ended while they were at a photo; 0 in a store, which has no claims."""
    return 0 if is_address(job.folder) else storage.ended(job.folder)


def clear_claims(jobs: list[photo_folders.Job]) -> None:
    """Remove what killed processes left that were at photos which are through."""
    for job in jobs:
        if not is_address(job.folder):
            clear_claim(job.folder)
