"""The command line: ``predict``, ``compare``, ``calibrate``, ``replay``, ``models``, ``doctor``.

Every option is a field of a settings model.
Exit status: 0 all done, 1 some photos failed, 2 usage, 3 checkpoint, 141 nobody reads on. Help and usage errors import
no torch.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.calibrate import calibrate
from marigold_core.cli.compare import compare, replay
from marigold_core.cli.console import ALL_DONE, CHECKPOINT, INTERRUPTED, SOME_FAILED, USAGE, Run, table, watch
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.options import dispatch
from marigold_core.settings import MeshSettings, Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline

# ------------------------------------------------------------------------------- commands


def predict(
    photos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="PHOTO|FOLDER|GLOB", help="what to predict from; put a glob in quotes", help_behavior_hint=""
        ),
    ],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to")],
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
    find(model)  # a wrong one is told at once, not after the seconds that importing torch takes
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


def models() -> int:
    """List the checkpoints that have a short name; a folder or a hub id works as well."""
    from marigold_core.checkpoints.registry import default_checkpoint, known

    rows = [("name", "what it is", "size", "on this machine", "hub id")]
    for entry in known():
        size = f"{entry.size_bytes / 1e9:.1f} GB" if entry.size_bytes else "bundled"
        name = f"{entry.name} (default)" if entry.name == default_checkpoint() else entry.name
        rows.append((name, entry.description, size, "yes" if entry.available else "no", entry.hub_id or ""))
    print(table(rows))
    return ALL_DONE


def doctor() -> int:
    """Examine this machine and say what to do about what does not work."""
    from marigold_core.cli.doctor import examine

    failed = False
    for finding in examine():
        failed |= finding.state == "fail"
        print(
            f"{finding.state:4}  {finding.what}" + (f"\n      {finding.advice}" if finding.advice else ""), flush=True
        )
    return SOME_FAILED if failed else ALL_DONE


def main(words: Sequence[str]) -> int:
    """Run one command line, without the program's name -> exit status. Help and usage errors raise SystemExit."""
    try:
        commands = (predict, compare, calibrate, replay, models, doctor)
        return dispatch(commands, words, "python -m marigold_core", "Photos become depth and meshes.")
    except MarigoldError as error:
        print(error, file=sys.stderr)
        return CHECKPOINT if isinstance(error, CheckpointError) else USAGE
    except KeyboardInterrupt:
        goes_on = " The same command goes on where this one ended." if words[0] == "predict" else ""
        print(f"Stopped.{goes_on}", file=sys.stderr)
        return INTERRUPTED


# ------------------------------------------------------------------------------- one photo, and the account of all


def _predict_one(
    pipe: "MarigoldPipeline", job: photo_folders.Job, output: Path, order: photo_folders.Order, run: Run
) -> tuple[str, str]:
    """Predict one photo and write its files -> (state, what to say)."""
    from marigold_core.files.writers import save
    from marigold_core.images.photo import load_photo

    try:
        photo = load_photo(job.photo)
        if not run.overwrite and photo_folders.is_done(job.folder, photo.pixels, order):
            return "kept", f"{job.folder} was finished by an earlier run"
        with photo_folders.appearing(job.folder, output, run.overwrite) as folder:
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
        """Take down one photo."""
        self._rows.append((str(photo), state, remark))
        if state == "failed" or not self._quiet:
            print(f"{state}: {photo}: {remark}", file=sys.stderr, flush=True)

    def count(self, state: str) -> int:
        """Count the photos in a state."""
        return Counter(row[1] for row in self._rows)[state]

    def close(self) -> None:
        """Print the table and the sums."""
        if not self._quiet:
            sums = ", ".join(
                f"{self.count(state)} {state}" for state in ("done", "kept", "failed") if self.count(state)
            )
            print(table([("photo", "state", "where or why"), *self._rows]), sums, sep="\n\n")
