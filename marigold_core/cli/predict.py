"""The command ``predict``: photos to depth, normals or intrinsic images, a folder of files for each photo."""

import csv
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, SOME_FAILED, Output, Run, shown, table, watch
from marigold_core.comparison.sweep import format_seconds, no_formula
from marigold_core.errors import CheckpointError, ExportError, MarigoldError, SettingsError
from marigold_core.files.presets import PRESETS
from marigold_core.settings import ColourSettings, MeshSettings, Settings
from marigold_core.storage import claim, clear_claim


class PredictRun(Run):
    """Which checkpoint runs where, what is written, and what is told."""

    results: str | None = Field(None, description="file .csv or .jsonl to write a line to for each photo as it is done")


def predict(
    photos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="PHOTO|FOLDER|GLOB",
            help="what to predict from; put a glob in quotes; - reads one photo",
            help_behavior_hint="",
        ),
    ],
    /,
    output: OUTPUT,
    run: PredictRun,
    settings: Settings,
    mesh: MeshSettings,
    colours: ColourSettings,
    json: Annotated[bool, tyro.conf.arg(help="print one line of JSON a photo instead of the table")] = False,
) -> int:
    """Turn photos into depth, uncertainty and meshes, or normals or intrinsic images, in a folder for each photo.

    Folders are searched with their sub-folders, which are kept. A photo that fails is named and the others go on.
    What an earlier run with the same settings finished is left as it is, so that a run that was stopped is resumed by
    the same command. Several processes may share an output folder: each photo is done by one of them.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.files import writers
    from marigold_core.pipeline.views import resolve

    began = time.time()
    found = photo_folders.find_jobs(photos, output)
    model = run.model or default_checkpoint()
    record = find(model)  # a wrong one is refused at once, not after the seconds that importing torch takes
    settings = resolve(settings, record)
    programs = run.save_for or ()
    files = writers.file_names(run.formats, record, settings.ensemble_size, save_for=programs, mesh=mesh)
    results = Results(Path(run.results)) if run.results else None
    report = Report(run.quiet, json, results, len(found.jobs), run.flat)
    for line in photo_folders.describe_left_out(found):
        report.say(f"left out: {line}")
    if not found.jobs:
        report.begin(found)
        report.close()
        return report.status()
    pipe = load(model, device=run.device, dtype=run.dtype, tiny_autoencoder=run.tiny_autoencoder)
    report.begin(found)
    wanted = {"settings": settings, "mesh": mesh, "colours": colours, "checkpoint_sha256": pipe.checkpoint.sha256}

    def predict_one(job: photo_folders.Job) -> None:
        """Predict one photo, whose folder is claimed, and write its files."""
        report.start()
        photo = job.load()
        _, prefix = photo_folders.place(job.folder, run.flat)
        photo_folders.end_publishing(job.folder, run.flat)
        names = [f"{prefix}{name}" for name in files]
        again = run.overwrite and not photo_folders.finished_since(job.folder, began, run.flat)  # by another one
        if not again and photo_folders.is_done(job.folder, photo.pixels, names, flat=run.flat, **wanted):
            report.add(job, "kept", "was finished by another run", photo.note)
            return
        with photo_folders.result_folder(job.folder, output, run.overwrite, run.flat) as folder:
            prediction = watch(pipe.stream(photo, settings), report.ahead(job.photo.name), run.quiet)
            writers.save(prediction, folder, run.formats, save_for=programs, mesh=mesh, colours=colours, prefix=prefix)
        report.add(job, "done", "", prediction.note)

    def attempt(job: photo_folders.Job, *, wait: bool) -> bool:
        """Predict one photo unless another process is at it -> whether it is through."""
        try:
            with claim(job.folder, wait=wait) as ours:
                if ours:
                    predict_one(job)
                return ours
        except CheckpointError:
            raise  # it would fail the next photo as well
        except MarigoldError as error:
            report.add(job, "failed", str(error))
            return True

    try:
        elsewhere = [job for job in found.jobs if not attempt(job, wait=False)]
        if elsewhere:
            report.say(f"waiting for another process, which is at {len(elsewhere)} of the photos")
        for job in elsewhere:  # to take over those that it does not finish
            attempt(job, wait=True)
        for job in found.jobs:  # one that was killed may have been at a photo that was through
            clear_claim(job.folder)
    finally:  # a run that is stopped lists what it did as well
        report.close()
        for name in programs if not (run.quiet or json) else ():
            report.tell(f"\n{name}: {PRESETS[name].tick}")
    return report.status()


class Report:
    """What became of each photo: a line at once on stderr, and on stdout a table at the end or JSON at once."""

    def __init__(
        self, quiet: bool, as_json: bool, results: "Results | None" = None, expected: int = 0, flat: bool = False
    ) -> None:
        """Begin with no photo of the ``expected`` ones."""
        self._quiet, self._as_json, self._expected, self._flat = quiet, as_json, expected, flat
        self._rows: list[tuple[str, str, str]] = []
        self._through, self._seconds, self._began = 0, list[float](), time.perf_counter()
        self._output, self._results = Output(), results

    def say(self, line: str) -> None:
        """Print a line about the run, unless it is quiet."""
        if not self._quiet:
            self._output.print(shown(line), sys.stderr)

    def tell(self, line: str) -> None:
        """Print a line of the results."""
        self._output.print(line, sys.stdout)

    def begin(self, found: photo_folders.Found) -> None:
        """Begin with what cannot be photos, once nothing else is refused. Raises: ExportError."""
        if self._results:
            self._results.open()
        for path, reason in found.refused:
            self.add(path, "failed", str(reason))

    def start(self) -> None:
        """Take the time of the next photo."""
        self._began = time.perf_counter()

    def ahead(self, name: str) -> str:
        """Name a photo with its place among all, and how long these take from now on, once one of them is done."""
        if self._expected < 2:
            return name
        left = ""
        if self._seconds:  # of the last few alone: photos of one folder are alike, those of several are not
            recent = self._seconds[-20:]
            seconds = sum(recent) / len(recent) * (self._expected - self._through)
            left = f", {format_seconds(seconds)} left"
        return f"{self._through + 1} of {self._expected}{left}: {name}"

    def add(self, job: "photo_folders.Job | Path", state: str, reason: str, note: str | None = None) -> None:
        """Record one photo, or a path that is none: its state, the reason for it and the decoder's note."""
        photo, folder, prefix, where = job, None, "", None
        if not isinstance(job, Path):
            photo = job.photo
            if state != "failed":  # which has no files
                folder, prefix = photo_folders.place(job.folder, self._flat)
                where = photo_folders.described(job.folder, self._flat)
        remark = " ".join(part for part in (where, reason) if part)
        remark = f"{remark}. {note}" if note else remark
        self._rows.append((shown(photo), state, shown(remark)))
        seconds = round(time.perf_counter() - self._began, 3) if state == "done" else None
        self._seconds += [seconds] if seconds is not None else []
        self._through += not isinstance(job, Path)
        record = {"photo": str(photo), "state": state, "folder": folder and str(folder), "prefix": prefix}
        record |= {"reason": reason or None, "note": note}
        if self._as_json:
            self._output.print(json.dumps(record), sys.stdout)
        if self._results:
            self._results.add(record | {"seconds": seconds})
        if state == "failed" or not (self._quiet or self._as_json):
            self._output.print(f"{state}: {self._rows[-1][0]}: {self._rows[-1][2]}", sys.stderr)

    def count(self, state: str) -> int:
        """Count the photos in a state."""
        return Counter(row[1] for row in self._rows)[state]

    def status(self) -> int:
        """Return the exit status of the run."""
        return self._output.status(SOME_FAILED if self.count("failed") else ALL_DONE)

    def close(self) -> None:
        """Print the table, the photos that failed last, and the sums."""
        if self._results:
            self._results.close()
        if not (self._quiet or self._as_json):
            states = ("done", "kept", "failed")
            sums = ", ".join(f"{self.count(state)} {state}" for state in states if self.count(state))
            rows = sorted(self._rows, key=lambda row: row[1] == "failed")
            lines = table([("photo", "state", "where or why"), *rows])
            self._output.print(f"{lines}\n\n{sums}", sys.stdout)


class Results:
    """A file of one line a photo, written as the photos are done: CSV, or JSON by lines."""

    def __init__(self, path: Path) -> None:
        """Check the name. Raises: SettingsError for another ending, ExportError for a file that is not ours."""
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise SettingsError(f"The file of results must end in .csv or .jsonl, but got {path.name}.")
        self._path, self._as_csv, self._is_empty = path, path.suffix.lower() == ".csv", True
        try:
            if path.exists() and not _is_ours(path):
                raise ExportError(f"{path} was not written by --results; give another file.")
        except OSError as error:
            raise ExportError(f"{path} cannot be written: {error.strerror}.") from None

    def open(self) -> None:
        """Begin the file anew. Raises: ExportError when it cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
        except OSError as error:
            raise ExportError(f"{self._path} cannot be written: {error.strerror}.") from None

    def add(self, record: dict[str, Any]) -> None:
        """Write a line. Raises: ExportError when the disk refuses."""
        try:
            if self._as_csv:
                rows = [record.keys()] if self._is_empty else []
                rows += [[no_formula("" if value is None else str(value)) for value in record.values()]]
                csv.writer(self._file).writerows(rows)
            else:
                self._file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise ExportError(f"{self._file.name} cannot be written: {error.strerror}.") from None
        self._is_empty = False

    def close(self) -> None:
        """End the file."""
        self._file.close()


def _is_ours(path: Path) -> bool:
    """Tell whether a file is empty or begins as ``Results`` writes it."""
    with path.open(encoding="utf-8", errors="replace") as file:
        begin = file.read(20)
    return path.is_file() and (not begin or begin.startswith(("photo,state,folder", '{"photo": ')))
