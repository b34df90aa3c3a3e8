"""The command ``predict``: photos to depth or normals, a folder of files for each photo."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, SOME_FAILED, Run, table, watch
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.settings import MeshSettings, Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline


def predict(
    photos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="PHOTO|FOLDER|GLOB", help="what to predict from; put a glob in quotes", help_behavior_hint=""
        ),
    ],
    /,
    output: OUTPUT,
    run: Run,
    settings: Settings,
    mesh: MeshSettings,
) -> int:
    """Turn photos into depth (or normals), uncertainty and meshes, in a folder of its own for each photo.

    Folders are searched with their sub-folders, which are kept. A photo that fails is named and the others go on.
    What an earlier run with the same settings finished is left as it is.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.files.writers import file_names

    found = photo_folders.find_jobs(photos, output)
    report = Report(run.quiet)
    for path, reason in found.refused:
        report.add(path, "failed", str(reason))
    if not found.jobs:
        report.close()
        return SOME_FAILED
    model = run.model or default_checkpoint()
    find(model)  # a wrong one is refused at once, not after the seconds that importing torch takes
    pipe = load(model, device=run.device, dtype=run.dtype)
    settings = pipe.resolve(settings)
    files = file_names(run.formats, pipe.checkpoint.modality, settings.ensemble_size)
    order = photo_folders.Order(pipe.checkpoint.sha256, settings, mesh, run.colormap, run.formats, files)
    try:
        for job in found.jobs:
            report.add(job.photo, *_predict_one(pipe, job, output, order, run))
    finally:  # a run that is stopped accounts for what it did as well
        report.close()
    return SOME_FAILED if report.count("failed") else ALL_DONE


def _predict_one(
    pipe: "MarigoldPipeline", job: photo_folders.Job, output: Path, order: photo_folders.Order, run: Run
) -> tuple[str, str]:
    """Predict one photo and write its files -> (state, remark)."""
    from marigold_core.files.writers import save
    from marigold_core.images.photo import load_photo

    try:
        photo = load_photo(job.photo)
        if not run.overwrite and photo_folders.is_done(job.folder, photo.pixels, order):
            return "kept", f"{job.folder} was finished by an earlier run"
        with photo_folders.result_folder(job.folder, output, run.overwrite) as folder:
            prediction = watch(pipe.stream(photo, order.settings), job.photo.name, run.quiet)
            save(prediction, folder, order.formats, mesh=order.mesh, colormap=order.colormap)
    except CheckpointError:
        raise  # it would fail the next photo as well
    except MarigoldError as error:
        return "failed", str(error)
    return "done", f"{job.folder}. {photo.note}" if photo.note else str(job.folder)


class Report:
    """What became of each photo: a line at once on stderr, a table at the end on stdout."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._rows: list[tuple[str, str, str]] = []

    def add(self, photo: Path, state: str, remark: str) -> None:
        """Record one photo."""
        self._rows.append((str(photo), state, remark))
        if state == "failed" or not self._quiet:
            print(f"{state}: {photo}: {remark}", file=sys.stderr, flush=True)

    def count(self, state: str) -> int:
        """Count the photos in a state."""
        return Counter(row[1] for row in self._rows)[state]

    def close(self) -> None:
        """Print the table and the sums."""
        if not self._quiet:
            states = ("done", "kept", "failed")
            sums = ", ".join(f"{self.count(state)} {state}" for state in states if self.count(state))
            print(table([("photo", "state", "where or why"), *self._rows]), sums, sep="\n\n")
