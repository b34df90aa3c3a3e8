"""The command ``predict``: photos to depth, normals or intrinsic images, a folder of files for each photo."""

import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from marigold_core.cli import photo_folders
from marigold_core.cli.cluster import ClusterOptions, map_photos, ray_address
from marigold_core.cli.console import ALL_DONE, SOME_FAILED, Output, Run, Timed, shown, table, watch
from marigold_core.cli.locations import locate
from marigold_core.cli.predictor import Outcome, Predictor, Work, clear_claims, ended
from marigold_core.comparison.sweep import format_seconds, no_formula
from marigold_core.errors import ExportError, SettingsError
from marigold_core.files.presets import PRESETS
from marigold_core.prediction import Progress
from marigold_core.settings import ColourSettings, MeshSettings, Settings

MANY = 10_000  # photos, of which the table at the end lists those alone that failed


class PredictRun(Run):
    """Which checkpoint runs where, what is written, and what is told."""

    results: str | None = Field(None, description="file .csv or .jsonl to write a line to for each photo as it is done")


def predict(
    photos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="PHOTO|FOLDER|GLOB",
            help="what to predict from, or addresses of such; put a glob in quotes; - reads one photo",
            help_behavior_hint="",
        ),
    ],
    /,
    output: Annotated[
        str, tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder, or address of one, to write to")
    ],
    run: PredictRun,
    settings: Settings,
    mesh: MeshSettings,
    colours: ColourSettings,
    cluster: ClusterOptions,
    json: Annotated[bool, tyro.conf.arg(help="print one line of JSON a photo instead of the table")] = False,
    ray: Annotated[
        tuple[str, ...] | None,
        tyro.conf.arg(
            metavar="[ADDRESS]",
            help="work on the Ray cluster at this address, by default the one of this machine, which is begun if"
            " there is none; it needs the extra cluster",
            help_behavior_hint="",
        ),
    ] = None,
) -> int:
    """Turn photos into depth, uncertainty and meshes, or normals or intrinsic images, in a folder for each photo.

    Folders are searched with their sub-folders, which are kept. A photo that fails is named and the others go on.
    What an earlier run with the same settings finished is left as it is, so that a run that was stopped is resumed by
    the same command. Several processes may share an output folder: each photo is done by one of them.

    Photos and output may lie in stores that fsspec knows: s3://bucket/photos, gs://, hf://datasets/owner/name.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.files import writers
    from marigold_core.pipeline.views import resolve

    began, target = time.time(), locate(output)
    address = ray_address(ray)
    found = photo_folders.find_jobs(photos, target)
    model = run.model or default_checkpoint()
    record = find(model)  # a wrong one is refused at once, not after the seconds that importing torch takes
    settings = resolve(settings, record)
    programs = run.save_for or ()
    files = writers.file_names(run.formats, record, settings.ensemble_size, save_for=programs, mesh=mesh)
    results = Results(Path(run.results)) if run.results else None
    report = Report(run.quiet, json, results, len(found.jobs), run.flat)
    for line in photo_folders.describe_left_out(found):
        report.say(f"left out: {line}")
    work = Work(target, run, settings, mesh, colours, model, record.sha256, tuple(files), began)
    predictor = Predictor(work) if found.jobs and address is None else None
    report.begin(found)
    if not found.jobs:
        report.close()
        return report.status()
    try:
        if predictor:
            _predict_here(found.jobs, predictor, report, run.quiet)
        else:
            with Timed("photos", run.quiet) as bar:
                for job, outcome in map_photos(found.jobs, work, address or "", cluster):
                    bar.clear()
                    report.add(job, outcome)
                    bar.show(Progress(report.through, len(found.jobs), ""))
        clear_claims(found.jobs)  # a process that was killed may have been at a photo that was through
    finally:  # a run that is stopped lists what it did as well
        report.close()
        for name in programs if not (run.quiet or json) else ():
            report.tell(f"\n{name}: {PRESETS[name].tick}")
    return report.status()


def _predict_here(jobs: Sequence[photo_folders.Job], predictor: Predictor, report: "Report", quiet: bool) -> None:
    """Predict the photos in this process; those at which others ended come last, so that none of the rest is lost."""
    ends = {job: count for job in jobs if (count := ended(job))}
    for job, count in ends.items():
        report.say(f"left for last, as it ended {count} process{'es' * (count > 1)} before: {job.photo}")

    def attempt(job: photo_folders.Job, *, wait: bool) -> bool:
        """Predict one photo unless another process is at it -> whether it is through."""
        outcome = predictor.attempt(job, lambda events: watch(events, report.ahead(job.photo.name), quiet), wait=wait)
        if outcome:
            report.add(job, outcome)
        return outcome is not None

    elsewhere = [job for job in sorted(jobs, key=lambda job: ends.get(job, 0)) if not attempt(job, wait=False)]
    if elsewhere:
        report.say(f"waiting for another process, which is at {len(elsewhere)} of the photos")
    for job in elsewhere:  # to take over those that it does not finish
        attempt(job, wait=True)


class Report:
    """What became of each photo: a line at once on stderr, and on stdout a table at the end or JSON at once."""

    def __init__(
        self, quiet: bool, as_json: bool, results: "Results | None" = None, expected: int = 0, flat: bool = False
    ) -> None:
        """Begin with no photo of the ``expected`` ones."""
        self._quiet, self._as_json, self._expected, self._flat = quiet, as_json, expected, flat
        self._rows: list[tuple[str, str, str]] = []
        self.through, self._seconds = 0, list[float]()  # how many photos there is an outcome of
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
            self.add(path, Outcome("failed", str(reason)))

    def ahead(self, name: str) -> str:
        """Name a photo with its place among all, and how long these take from now on, once one of them is done."""
        if self._expected < 2:
            return name
        left = ""
        if self._seconds:  # of the last few alone: photos of one folder are alike, those of several are not
            recent = self._seconds[-20:]
            seconds = sum(recent) / len(recent) * (self._expected - self.through)
            left = f", {format_seconds(seconds)} left"
        return f"{self.through + 1} of {self._expected}{left}: {name}"

    def add(self, job: "photo_folders.Job | Path", outcome: Outcome) -> None:
        """Record what became of one photo, or of a path that is none."""
        state, reason, note, seconds = outcome.state, outcome.reason, outcome.note, outcome.seconds
        photo, folder, prefix, where = job, None, "", None
        if not isinstance(job, Path):
            photo = job.photo
            if state != "failed":  # which has no files
                folder, prefix = photo_folders.place(job.folder, self._flat)
                where = photo_folders.described(job.folder, self._flat)
        remark = " ".join(part for part in (where, reason) if part)
        remark = f"{remark}. {note}" if note else remark
        self._rows.append((shown(photo), state, shown(remark)))
        self._seconds += [seconds] if seconds is not None else []
        self.through += not isinstance(job, Path)
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
        lost = self._results is not None and self._results.failure is not None
        return self._output.status(SOME_FAILED if lost or self.count("failed") else ALL_DONE)

    def close(self) -> None:
        """Print the table, the photos that failed last, and the sums; of very many photos those alone that failed."""
        if self._results and (failure := self._results.close()):
            self._output.print(failure, sys.stderr)
        if self._rows and not (self._quiet or self._as_json):
            states = ("done", "kept", "failed")
            sums = ", ".join(f"{self.count(state)} {state}" for state in states if self.count(state))
            rows = sorted(self._rows, key=lambda row: row[1] == "failed")
            if len(rows) > MANY:
                rows = [row for row in rows if row[1] == "failed"]
            lines = table([("photo", "state", "where or why"), *rows])
            self._output.print(f"{lines}\n\n{sums}", sys.stdout)


class Results:
    """A file of one line a photo, written as the photos are done: CSV, or JSON by lines.

    Attributes:
        failure: the first refusal of the disk, since which lines are lost.
    """

    failure: OSError | None = None

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
        """Write a line; where the disk refuses, it and those after it are lost, the work goes on."""
        if self.failure:
            return
        try:
            if self._as_csv:
                rows = [record.keys()] if self._is_empty else []
                rows += [[no_formula("" if value is None else str(value)) for value in record.values()]]
                csv.writer(self._file).writerows(rows)
            else:
                self._file.write(json.dumps(record) + "\n")
        except OSError as error:
            self.failure = error
        self._is_empty = False

    def close(self) -> str | None:
        """End the file -> a sentence where lines of it were lost."""
        try:
            self._file.close()  # which writes what an earlier refusal left
        except OSError as error:
            self.failure = self.failure or error
        return self.failure and f"{self._path} could not be written to its end: {self.failure.strerror}."


def _is_ours(path: Path) -> bool:
    """Tell whether a file is empty or begins as ``Results`` writes it."""
    with path.open(encoding="utf-8", errors="replace") as file:
        begin = file.read(20)
    return path.is_file() and (not begin or begin.startswith(("photo,state,folder", '{"photo": ')))
