"""The commands ``compare`` and ``replay``: one photo many times, and a recorded run once more."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, SOME_FAILED, Run, table, watch
from marigold_core.comparison.sweep import (
    COLUMNS,
    DIFFERENCES,
    SHEET,
    TABLE,
    Comparison,
    against_reference,
    check_alike,
    check_minutes,
    in_words,
    measure,
    reduce,
)
from marigold_core.errors import ExportError
from marigold_core.prediction import Cell, Prediction
from marigold_core.settings import Colormap, Format, Frozen, MeshSettings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline


class ComparisonRun(Run):
    """Which checkpoints run where, and what is written of each cell."""

    model: tuple[str, ...] | None = Field(None, description="checkpoints to compare; by default the bundled one")
    formats: tuple[Format, ...] | None = Field(None, description="files to write of each cell; by default none")


class ReplayRun(Frozen):
    """What a manifest does not say, and where its checkpoint runs."""

    model: str | None = Field(None, description="the recorded checkpoint's folder, where its name is not enough")
    device: str | None = Field(None, description="cpu, cuda, cuda:1 or mps; by default as recorded")
    overwrite: bool = Field(False, description="replace results that are there already")
    quiet: bool = Field(False, description="print nothing but what failed")


# ------------------------------------------------------------------------------- compare


def compare(
    photo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="what to predict from")],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to")],
    comparison: Comparison,
    run: ComparisonRun,
    mesh: MeshSettings,
) -> int:
    """Compare denoising steps, numbers of members, seeds and checkpoints on one photo: a sheet and a table.

    Members, first steps and the encoding are shared between cells. The time is predicted and bounded before it starts.
    """
    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.comparison.contact_sheet import write
    from marigold_core.images.photo import load_photo

    job = photo_folders.only_job(photo, output, "a comparison takes one")
    existing = [name for name in (SHEET, DIFFERENCES, TABLE) if (job.folder / name).exists()]
    if existing and not run.overwrite:
        raise ExportError(f"{job.folder / existing[0]} exists already; --overwrite replaces it.")
    models = run.model or (default_checkpoint(),)
    _check(models, comparison, run.formats)
    opened = load_photo(job.photo)

    @lru_cache(maxsize=1)  # one checkpoint at a time stays in memory
    def pipe(model: str) -> "MarigoldPipeline":
        return load(model, device=run.device, dtype=run.dtype)

    resolution = comparison.processing_resolution
    seconds = sum(measure(pipe(model), opened, resolution).predict_s(comparison) for model in models)
    check_minutes(seconds, comparison)
    count = len(models) * comparison.cells
    if not run.quiet:
        print(f"{count} cells, about {in_words(seconds)}", file=sys.stderr, flush=True)
    tiles = []
    events = (event for model in models for event in comparison.run(pipe(model), opened))
    for cell in _bar((event for event in events if isinstance(event, Cell)), count, run.quiet):
        tiles.append(reduce(cell))
        if run.formats:
            _write_cell(cell.prediction, job.folder, output, run.formats, run.colormap, mesh)
    rows = against_reference(tiles)
    write(rows, opened.pixels, run.colormap, job.folder)
    if not run.quiet:
        print(table([COLUMNS, *(row.figures() for row in rows)]), f"{job.folder / SHEET}", sep="\n\n")
    return ALL_DONE


def _check(models: Sequence[str], comparison: Comparison, formats: Sequence[Format] | None) -> None:
    """Refuse checkpoints that cannot stand in one table, and formats that no cell has.

    Raises: CheckpointError, SettingsError, ExportError.
    """
    from marigold_core.checkpoints.registry import find
    from marigold_core.files.writers import file_names

    records = [find(model) for model in models]
    check_alike(records)
    if formats:
        file_names(formats, records[0].modality, max(comparison.sizes))


def _bar(cells: Iterator[Cell], count: int, quiet: bool) -> Iterator[Cell]:
    """Pass the cells on behind a progress bar."""
    from tqdm import tqdm

    with tqdm(total=count, leave=False, disable=quiet or None, unit="cell") as bar:
        for cell in cells:
            bar.update()
            yield cell


def _write_cell(
    made: Prediction, parent: Path, output: Path, formats: Sequence[Format], colormap: Colormap, mesh: MeshSettings
) -> None:
    """Write the files of one cell that suit it, as ``predict`` would, into a folder named after it."""
    from marigold_core.files.writers import formats_for, save

    asked = made.settings
    name = f"{made.checkpoint}_seed{asked.seed}_steps{asked.num_inference_steps}_members{asked.ensemble_size}"
    suiting: list[Format] = [known for known in formats if known in formats_for(made)]
    with photo_folders.appearing(parent / name.replace("/", "-"), output, overwrite=True) as folder:
        save(made, folder, suiting, mesh=mesh, colormap=colormap)


# ------------------------------------------------------------------------------- replay


def replay(
    manifest: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="MANIFEST", help="manifest.json of a result, or the folder that holds it"),
    ],
    /,
    run: ReplayRun,
    output: Annotated[
        Path | None,
        tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to; without one nothing is kept"),
    ] = None,
    photo: Annotated[
        Path | None,
        tyro.conf.arg(metavar="PHOTO", help="the photo; by default one named as the manifest's folder, near it"),
    ] = None,
) -> int:
    """Make a recorded result again, and say whether every file has the same bytes or what is different.

    Exit status 1 says that a file has other bytes.
    """
    from marigold_core.files import replay as recorded

    record = recorded.read(manifest)
    opened = recorded.find_photo(manifest, record, photo)
    recorded.find_checkpoint(record, run.model)
    device, dtype = run.device or record.device or "auto", record.dtype or "auto"
    name = (manifest if manifest.is_dir() else manifest.parent).resolve().name
    place = photo_folders.appearing(output / name, output, run.overwrite) if output else tempfile.TemporaryDirectory()
    with place as folder:
        pipe = load(run.model or record.checkpoint, device=device, dtype=dtype)
        events = recorded.stream(pipe.stream(opened, record.settings), record)
        prediction = watch(events, name, run.quiet)
        outcome = recorded.write(prediction, record, Path(folder))
    if not run.quiet or outcome.fell_short:
        print(outcome.in_words())
    return SOME_FAILED if outcome.fell_short else ALL_DONE
