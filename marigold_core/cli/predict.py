"""The command ``predict``: photos to depth or normals, a folder of files for each photo."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, SOME_FAILED, Run, table, watch
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.files.presets import PRESETS
from marigold_core.settings import ColourSettings, MeshSettings, Settings


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
    colours: ColourSettings,
) -> int:
    """Turn photos into depth (or normals), uncertainty and meshes, in a folder of its own for each photo.

    Folders are searched with their sub-folders, which are kept. A photo that fails is named and the others go on.
    What an earlier run with the same settings finished is left as it is.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.files import writers
    from marigold_core.images.photo import load_photo

    found = photo_folders.find_jobs(photos, output)
    report = Report(run.quiet)
    for path, reason in found.refused:
        report.add(path, "failed", str(reason))
    if not found.jobs:
        report.close()
        return SOME_FAILED
    model = run.model or default_checkpoint()
    record = find(model)  # a wrong one is refused at once, not after the seconds that importing torch takes
    programs = run.save_for or ()
    files = writers.file_names(
        run.formats, record.modality, settings.ensemble_size, save_for=programs, kind=record.kind
    )
    pipe = load(model, device=run.device, dtype=run.dtype)
    settings = pipe.resolve(settings)
    wanted = {"settings": settings, "mesh": mesh, "colours": colours, "checkpoint_sha256": pipe.checkpoint.sha256}

    def predict_one(job: photo_folders.Job) -> tuple[str, str]:
        """Predict one photo and write its files -> (state, remark)."""
        photo = load_photo(job.photo)
        _, prefix = photo_folders.place(job.folder, run.flat)
        names = [f"{prefix}{name}" for name in files]
        if not run.overwrite and photo_folders.is_done(job.folder, photo.pixels, names, flat=run.flat, **wanted):
            return "kept", f"{job.folder} was finished by an earlier run"
        with photo_folders.result_folder(job.folder, output, run.overwrite, run.flat) as folder:
            prediction = watch(pipe.stream(photo, settings), job.photo.name, run.quiet)
            writers.save(prediction, folder, run.formats, save_for=programs, mesh=mesh, colours=colours, prefix=prefix)
        return "done", f"{job.folder}. {photo.note}" if photo.note else str(job.folder)

    try:
        for job in found.jobs:
            try:
                report.add(job.photo, *predict_one(job))
            except CheckpointError:
                raise  # it would fail the next photo as well
            except MarigoldError as error:
                report.add(job.photo, "failed", str(error))
    finally:  # a run that is stopped lists what it did as well
        report.close()
        for name in programs if not run.quiet else ():
            print(f"\n{name}: {PRESETS[name].tick}")
    return SOME_FAILED if report.count("failed") else ALL_DONE


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
