"""The command ``video``: a clip becomes depth that is steady from frame to frame."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from marigold_core import load
from marigold_core.cli.console import ALL_DONE, OUTPUT, RunOf, Timed
from marigold_core.errors import MarigoldError
from marigold_core.settings import ColourSettings, MeshSettings, Settings
from marigold_core.video.settings import VideoSettings


class QuietRun(RunOf[str]):
    """Which checkpoint runs where, and whether it tells."""

    quiet: bool = Field(False, description="print nothing but what failed")


def check_extra() -> None:
    """Raise MarigoldError where PyAV or OpenCV is missing."""
    if find_spec("av") is None or find_spec("cv2") is None:
        raise MarigoldError(
            "This needs PyAV and OpenCV, which are not installed: pip install 'marigold-depth-studio[video]'."
        )


def video(
    clip: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO", help="the video file", help_behavior_hint="")
    ],
    /,
    output: OUTPUT,
    run: QuietRun,
    settings: Settings,
    together: VideoSettings,
    mesh: MeshSettings,
    colours: ColourSettings,
) -> int:
    """Turn a video into depth that is steady from frame to frame: clips, frames, points or meshes, in OUT/<video>/.

    Scenes are found by their cuts, and one range of depth holds for the whole clip. A run that was stopped is resumed
    by the same command. Memory does not grow with the length; the depth of all frames lies on the disk meanwhile.
    Needs the extra "video".
    """
    check_extra()
    from marigold_core.video.convert import VideoResult, stream_video

    pipe = load(run.model, device=run.device, dtype=run.dtype, tiny_autoencoder=run.tiny_autoencoder)
    folder = output / clip.stem
    made = None
    with Timed(clip.name, run.quiet) as bar:
        for event in stream_video(pipe, clip, folder, settings, together, mesh=mesh, colours=colours):
            if isinstance(event, VideoResult):
                made = event
            else:
                bar.show(event)
    if made and not run.quiet:
        scenes = f"{made.scenes} scene{'s' * (made.scenes != 1)}"
        print(f"{made.frames} frames, {scenes}.", *made.notes, *made.files.values(), sep="\n")
    return ALL_DONE
