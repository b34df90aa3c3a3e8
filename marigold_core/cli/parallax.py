"""The command ``parallax``: a short clip from one photo, whose camera moves a little."""

from pathlib import Path
from typing import Annotated

import tyro

from marigold_core import load
from marigold_core.cli.console import ALL_DONE, OUTPUT, Timed, watch
from marigold_core.cli.video import QuietRun, check_extra
from marigold_core.prediction import Progress
from marigold_core.settings import MeshSettings, Settings
from marigold_core.video.settings import ParallaxSettings


def parallax(
    photo: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="the photo", help_behavior_hint="")
    ],
    /,
    output: OUTPUT,
    run: QuietRun,
    settings: Settings,
    move: ParallaxSettings,
    mesh: MeshSettings,
) -> int:
    """Make a clip of one photo in which the camera moves a little and near things move more, in OUT/<photo>/.

    What the photo does not show is filled from the farther side; parallax_invented.mp4 is white where that is so.
    Needs the extra "video".
    """
    check_extra()
    from marigold_core.video.parallax import stream_parallax

    pipe = load(run.model, device=run.device, dtype=run.dtype)
    prediction = watch(pipe.stream(photo, settings), photo.name, run.quiet)
    with Timed(photo.name, run.quiet) as bar:
        for event in stream_parallax(prediction, output / photo.stem, move, mesh):
            if isinstance(event, Progress):
                bar.show(event)
            elif not run.quiet:
                print(*event.values(), sep="\n")
    return ALL_DONE
