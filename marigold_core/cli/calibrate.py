"""The command ``calibrate``: one photo to depth in metres, from what is known of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from marigold_core.calibration import calibrate as metric
from marigold_core.calibration.anchors import ANCHOR_FORM, LENGTH_FORM, PATCH_FORM, read_numbers
from marigold_core.calibration.calibrate import (
    NAMED_HINTS,
    Calibrated,
    CalibrationMethod,
    HintFields,
    Hints,
    Measured,
    check_claim,
    check_hints,
    hints_of,
)
from marigold_core.calibration.sparse import read_sparse
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, Run, WrittenFlat, shown, table, watch
from marigold_core.files.presets import advice
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, MeshSettings, Settings


class HintWords(HintFields[str]):
    """The hints as words of a command line."""

    sparse: str | None = Field(
        None, description="a map of known depths of the photo, NPY, EXR, TIFF, PFM or PNG; 0 is unknown"
    )
    sparse_unit_m: float | None = Field(None, gt=0, le=1e6, description="metres where a value of that map is 1")

    def read(self, fov_x_deg: float | None) -> Hints:
        """Read the hints, the sparse map aside. Raises: CalibrationError where they are not numbers."""
        return hints_of(
            read_numbers(self.anchors, ANCHOR_FORM),
            read_numbers(self.lengths, LENGTH_FORM),
            read_numbers(self.patch, PATCH_FORM),
            along=self.along,
            near_m=self.near_m,
            fov_x_deg=fov_x_deg,
        )

    def with_sparse(self, known: Hints, photo_size: tuple[int, int]) -> Hints:
        """Add the depths of the sparse map, if there is one. Raises: as ``read_sparse``."""
        if self.sparse is None:
            return known
        points = read_sparse(Path(self.sparse), photo_size, unit_m=self.sparse_unit_m, along=self.along)
        return replace(known, anchors=[*known.anchors, *points])


def calibrate(
    photo: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="what to predict from", help_behavior_hint="")
    ],
    /,
    output: OUTPUT,
    hints: HintWords,
    chosen: CalibrationMethod,
    run: Run,
    settings: Settings,
    mesh: MeshSettings,
    colours: ColourSettings,
) -> int:
    """Turn one photo into depth in metres, from what is known of it: depths, lengths, flat patches, a sparse map.

    Several hints of a kind are parted by semicolons: --anchors "310,220,2.4; 80,40,7". The files are those of
    ``predict``. Lengths, and depths along a ray, need the field of view: from EXIF, or as given.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.files.writers import file_names

    known = replace(hints.read(mesh.fov_x_deg), method=chosen.method)
    job = photo_folders.only_job(photo, output, "hints belong to one")
    model = run.model or default_checkpoint()
    record = find(model)  # refused at once, not after the seconds that a prediction takes
    check_claim(record.modality, record.kind)
    file_names(run.formats, record, settings.ensemble_size, save_for=run.save_for or (), hints=known, mesh=mesh)
    source = job.load()
    known = hints.with_sparse(known, source.size)
    check_hints(known, source.pixels.shape[:2], source.fov_x_deg, source.size, record.kind)
    pipe = run.load(model)
    settings = pipe.resolve(settings, known)

    def predict() -> Measured:
        events = pipe.stream(source, settings, hints=known)
        return metric.measured(watch(events, job.photo.name, run.quiet), known)

    return write_one(predict, job, output, run, mesh, colours)


def write_one(
    make: Callable[[], Prediction],
    job: photo_folders.Job,
    output: Path,
    written: WrittenFlat,
    mesh: MeshSettings,
    colours: ColourSettings,
) -> int:
    """Make the result of one photo while its folder is held, write its files and tell what was found -> exit status."""
    from marigold_core.files.manifest import left_out_of
    from marigold_core.files.writers import save

    place = job.folder, output, written.overwrite, written.flat
    _, prefix = photo_folders.place(job.folder, written.flat)
    programs = written.save_for or ()
    with photo_folders.sole_writer(job.folder), photo_folders.result_folder(*place) as folder:
        found = make()
        files = save(found, folder, written.formats, save_for=programs, mesh=mesh, colours=colours, prefix=prefix)
        lacks = left_out_of(files["manifest"])
    if not written.quiet:
        print(
            describe(found) if isinstance(found, Measured) else f"{found.kind}: {found.convention}.",
            *filter(None, (found.note, lacks)),
            shown(photo_folders.described(job.folder, written.flat)),
            *(f"{name}: {advice(name, found)}" for name in programs),
            sep="\n\n",
        )
    return ALL_DONE


def describe(found: Measured) -> str:
    """Describe what was found, with error bars, and what each hint has become, as a table and a sentence."""
    rows = [("", "given", "found", "+/-")]
    if isinstance(found, Calibrated):
        rows += [
            ("scale", "", f"{found.scale:.5g}", f"{found.scale_error:.2g}"),
            ("shift", "", f"{found.shift:.5g}", f"{found.shift_error:.2g}"),
        ]
    told = found.residuals[:NAMED_HINTS]
    rows += [(f"{one.hint}, {one.unit}", f"{one.given:.5g}", f"{one.found:.5g}", "") for one in told]
    off = f"\n\n{found.typical_residual}" if len(told) < len(found.residuals) else ""
    return f"{table(rows)}{off}\n\n{found.kind}: {found.how}"
