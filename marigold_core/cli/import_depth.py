"""The command ``import-depth``: a photo and a depth map from elsewhere become files, in metres where hints say so."""

from pathlib import Path
from typing import Annotated

import tyro

from marigold_core.calibration import calibrate as metric
from marigold_core.cli import photo_folders
from marigold_core.cli.calibrate import HintWords, write_one
from marigold_core.cli.console import OUTPUT, WrittenFlat
from marigold_core.errors import SettingsError
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
    from marigold_core.files.reader import from_depth
    from marigold_core.files.writers import file_names

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
    file_names(written.formats, found, 0, save_for=written.save_for or (), mesh=mesh)
    return write_one(lambda: found, job, output, written, mesh, colours)
