"""The command ``import-depth``: a photo and a depth map from elsewhere become files, in metres where hints say so."""

from pathlib import Path
from typing import Annotated

import tyro

from marigold_core.calibration import calibrate as metric
from marigold_core.cli import photo_folders
from marigold_core.cli.calibrate import HintWords, describe
from marigold_core.cli.console import ALL_DONE, OUTPUT, WrittenFlat, shown
from marigold_core.errors import SettingsError
from marigold_core.files.presets import advice
from marigold_core.settings import ColourSettings, DepthReading, GivenMeshSettings, MeshSettings


def import_depth(
    photo: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="the photo", help_behavior_hint="")
    ],
    depth: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[DEPTH]", help="its depth map; by default the one in the photo", help_behavior_hint=""),
    ],
    /,
    output: OUTPUT,
    written: WrittenFlat,
    reading: DepthReading,
    hints: HintWords,
    shape: GivenMeshSettings,
    colours: ColourSettings,
) -> int:
    """Take the depth of a photo from elsewhere: a PNG, TIFF, EXR, NPY or PFM, or what HEIC and JPEG photos carry.

    What the file does not say of its values, options do, such as "--greater nearer" where near parts are bright, or
    "--unit-m 0.001" for millimetres. Hints turn relative depth into metres. The files are those of ``predict``.
    """
    from marigold_core.files.manifest import left_out_of
    from marigold_core.files.reader import from_depth
    from marigold_core.files.writers import file_names, save

    mesh = MeshSettings(**shape.model_dump())
    known = hints.read(mesh.fov_x_deg)
    job = photo_folders.only_job(photo, output, "a depth map belongs to one")
    if len(depth) > 1:
        raise SettingsError(f"One depth map belongs to a photo, but got {len(depth)}.")
    if job.photo == photo_folders.STDIN:
        raise SettingsError("Name the file of the photo; it is not read from the standard input here.")
    found = from_depth(job.photo, depth[0] if depth else None, reading, fov_x_deg=mesh.fov_x_deg)
    known = hints.with_sparse(known, found.photo_size)
    if known.is_given:
        found = metric.calibrate(found, known)
    _, prefix = photo_folders.place(job.folder, written.flat)
    programs = written.save_for or ()
    file_names(written.formats, found, 0, save_for=programs, mesh=mesh)
    with (
        photo_folders.sole_writer(job.folder),
        photo_folders.result_folder(job.folder, output, written.overwrite, written.flat) as folder,
    ):
        files = save(found, folder, written.formats, save_for=programs, mesh=mesh, colours=colours, prefix=prefix)
        lacks = left_out_of(files["manifest"])
    if not written.quiet:
        print(
            *([describe(found)] if isinstance(found, metric.Calibrated) else [f"{found.kind}: {found.convention}."]),
            *filter(None, (found.note, lacks)),
            shown(photo_folders.described(job.folder, written.flat)),
            *(f"{name}: {advice(name, found)}" for name in programs),
            sep="\n\n",
        )
    return ALL_DONE
