"""The command ``compare``: denoising steps, members, seeds and checkpoints side by side, on one photo."""

import sys
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, RunOf, Written, shown, table
from marigold_core.comparison import sweep as sweeps
from marigold_core.comparison.sweep import COLUMNS, Comparison, PartTimes, Sweep
from marigold_core.errors import ExportError
from marigold_core.prediction import Cell, Progress
from marigold_core.settings import ColourSettings, DepthReading, Format, MeshSettings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline


class ComparisonRun(Written, RunOf[tuple[str, ...]]):
    """Which checkpoints run where, and what is written of each cell."""

    model: tuple[str, ...] | None = Field(
        None, description="checkpoints to compare; by default MARIGOLD_MODEL, else nano"
    )
    formats: tuple[Format, ...] | None = Field(None, description="files to write of each cell; by default none")


def compare(
    photo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="what to predict from")],
    /,
    output: OUTPUT,
    comparison: Comparison,
    run: ComparisonRun,
    reading: DepthReading,
    mesh: MeshSettings,
    colours: ColourSettings,
    depth: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DEPTH", help="a depth map of the photo from elsewhere: the others are measured against it"
        ),
    ] = None,
) -> int:
    """Compare denoising steps, numbers of members, seeds and checkpoints on one photo: a sheet and a table.

    A depth map from elsewhere may stand beside them, read as by import-depth. Members, first steps and the encoding are
    shared between cells. The time is predicted and bounded before it starts. On the sheet all cells have one range of
    colours; range_from, range_to and invert apply to the files of each cell.
    """
    from tqdm import tqdm

    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.comparison import contact_sheet
    from marigold_core.files.reader import from_depth
    from marigold_core.files.writers import file_names
    from marigold_core.pipeline.views import resolve

    job = photo_folders.only_job(photo, output, "a comparison takes one")
    existing = [name for name in contact_sheet.FILES if (job.folder / name).exists()]
    if existing and not run.overwrite:
        raise ExportError(f"{job.folder / existing[0]} exists already; --overwrite replaces it.")
    models = run.model or (default_checkpoint(),)
    records = [find(model) for model in models]
    sweeps.check_alike(records)
    sweeps.check_reading(reading, bool(depth))
    for record in records:
        resolve(comparison.largest, record)
    written = bool(run.formats or run.save_for)
    if written:
        largest, programs = max(comparison.sizes), run.save_for or ()
        everywhere: list[Format] = [
            name for name in run.formats or () if name != "uncertainty"
        ]  # which few members lack
        for record in records:
            file_names(run.formats, record, largest, save_for=programs)
            file_names(everywhere, record, min(comparison.sizes), mesh=mesh)
    sweep = Sweep(job.load(), comparison, models, colormap=colours.colormap)
    if depth:
        sweep.given = from_depth(sweep.photo, depth, reading, fov_x_deg=mesh.fov_x_deg)
        sweeps.reduce_given(sweep.given, records[0])  # refused before the model runs
    count = sweeps.count_cells(comparison, models)

    @lru_cache(maxsize=1)  # one checkpoint at a time is in memory
    def loaded(model: str) -> "MarigoldPipeline":
        return run.load(model)

    def open_pipeline(model: str) -> "Generator[Progress, None, MarigoldPipeline]":
        yield Progress(0, 0, "loading the checkpoint")
        return loaded(model)

    def time_parts(model: str) -> Generator[Progress, None, PartTimes]:
        pipe = yield from open_pipeline(model)
        return (yield from sweeps.measure(pipe.stream(sweep.photo, comparison.sample)))

    def announce(seconds: float) -> None:
        if not run.quiet:
            tqdm.write(f"{count} cells, about {sweeps.format_seconds(seconds)}", file=sys.stderr)

    with (
        photo_folders.sole_writer(job.folder),
        tqdm(total=count, leave=False, disable=run.quiet or None, unit="cell") as bar,
    ):
        for event in sweeps.run(sweep, open_pipeline, time_parts, announce):
            if isinstance(event, Cell):
                bar.update()
                if written:
                    _write_cell(event, job.folder, output, run, mesh, colours)
        rows = sweep.rows()
        contact_sheet.write(rows, sweep.photo.pixels, colours.colormap, job.folder)
    if not run.quiet:
        if note := sweep.given.note if sweep.given else sweep.photo.note:
            print(note, file=sys.stderr)
        print(table([COLUMNS, *(row.figures() for row in rows)]), shown(job.folder / contact_sheet.SHEET), sep="\n\n")
    return ALL_DONE


def _write_cell(
    cell: Cell, parent: Path, output: Path, run: ComparisonRun, mesh: MeshSettings, colours: ColourSettings
) -> None:
    """Write the files of one cell that suit it, as ``predict`` would, into a folder named after it."""
    from marigold_core.files.writers import formats_for, save

    made, asked = cell.prediction, cell.settings
    name = f"{made.checkpoint}_seed{asked.seed}_steps{asked.num_inference_steps}_members{asked.ensemble_size}"
    suiting: list[Format] = [known for known in run.formats or () if known in formats_for(made)]
    with photo_folders.result_folder(parent / name.replace("/", "-"), output, overwrite=True) as folder:
        save(made, folder, suiting, save_for=run.save_for or (), mesh=mesh, colours=colours)
