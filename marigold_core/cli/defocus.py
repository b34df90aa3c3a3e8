"""The command ``defocus``: a photo with the depth of field of a wide aperture."""

from pathlib import Path
from typing import Annotated

import tyro

from marigold_core import load
from marigold_core.cli.console import ALL_DONE, OUTPUT, watch
from marigold_core.cli.video import QuietRun, check_extra
from marigold_core.settings import MeshSettings, Settings
from marigold_core.video.settings import DefocusSettings


def defocus(
    photo: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO", help="the photo", help_behavior_hint="")
    ],
    /,
    output: OUTPUT,
    run: QuietRun,
    settings: Settings,
    lens: DefocusSettings,
    mesh: MeshSettings,
) -> int:
    """Blur a photo before and behind the pixel that is in focus, in OUT/<photo>/.

    What shows through blurred edges and is not in the photo is filled; defocus_invented.png is white where that is so.
    Needs the extra "video".
    """
    check_extra()
    from marigold_core.video.defocus import save_defocus

    pipe = load(run.model, device=run.device, dtype=run.dtype)
    prediction = watch(pipe.stream(photo, settings), photo.name, run.quiet)
    files = save_defocus(prediction, output / photo.stem, lens, mesh)
    if not run.quiet:
        print(*files.values(), sep="\n")
    return ALL_DONE
