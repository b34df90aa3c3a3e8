"""The command ``panorama``: a 360-degree panorama becomes distances and a mesh around the camera."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, Timed
from marigold_core.cli.video import PhotoRun, begin
from marigold_core.settings import ClippedSettings, ColourSettings, Settings


def panorama(
    photo: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PANORAMA", help="an equirectangular photo", help_behavior_hint=""),
    ],
    /,
    output: OUTPUT,
    run: PhotoRun,
    settings: Settings,
    mesh: ClippedSettings,
    colours: ColourSettings,
) -> int:
    """Turn a 360-degree panorama into distances from the camera and a textured mesh around it, in OUT/<photo>/.

    It is equirectangular: twice as wide as high. Six overlapping views are predicted, aligned and blended.
    """
    from marigold_core.files.manifest import left_out_of
    from marigold_core.files.panorama import NAMES, save_panorama
    from marigold_core.pipeline.panorama import Panorama, check_full, stream_panorama

    source, folder = begin(photo, output, NAMES.values(), run, settings)
    check_full(source.size)
    with photo_folders.sole_writer(folder), Timed(photo.name, run.quiet) as bar:
        for event in stream_panorama(run.load(run.model), source, settings, mesh):
            if isinstance(event, Panorama):
                files = save_panorama(event, folder, mesh=mesh, colours=colours, overwrite=run.overwrite)
                if not run.quiet:
                    if lacks := left_out_of(files["record"]):
                        print(lacks, file=sys.stderr)
                    print(f"Views differ by {event.seam:.1%} where they overlap.", *files.values(), sep="\n")
            else:
                bar.show(event)
    return ALL_DONE
