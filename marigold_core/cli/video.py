"""The command ``video``: a clip becomes depth that is steady from frame to frame."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from marigold_core.cli.console import ALL_DONE, OUTPUT, RunOf, Timed, Written
from marigold_core.cli.photo_folders import check_output
from marigold_core.settings import ColourSettings, FrameSettings, Settings, help_text
from marigold_core.storage import refuse_existing
from marigold_core.video import check_installed
from marigold_core.video.settings import VideoSettings, check_depth

if TYPE_CHECKING:
    from marigold_core.images.photo import Photo


class QuietRun(RunOf[str]):
    """Which checkpoint runs where, and whether it tells."""

    quiet: bool = Field(False, description="print nothing but what failed")


class PhotoRun(QuietRun):
    """Which checkpoint runs where, and what is written."""

    overwrite: bool = Field(False, description=help_text(Written, "overwrite"))


def begin(photo: Path, output: Path, files: Iterable[str], run: PhotoRun, settings: Settings) -> "tuple[Photo, Path]":
    """Open a photo and name the folder of its files, before the seconds that a checkpoint takes.

    Raises: SettingsError, ImageError, CheckpointError and ExportError where that cannot be, or a file is there.
    """
    from marigold_core.checkpoints.registry import default_checkpoint, find
    from marigold_core.images.photo import load_photo
    from marigold_core.pipeline.views import resolve

    check_output(output)
    folder = output / photo.stem
    refuse_existing((folder / name for name in files), run.overwrite, "--overwrite replaces it")
    record = find(run.model or default_checkpoint())
    resolve(settings, record)
    check_depth(record.name, record.modality)
    source = load_photo(photo)
    if source.note and not run.quiet:
        print(source.note, file=sys.stderr)
    return source, folder


def video(
    clip: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO", help="the video file", help_behavior_hint="")
    ],
    /,
    output: OUTPUT,
    run: QuietRun,
    settings: Settings,
    together: VideoSettings,
    mesh: FrameSettings,
    colours: ColourSettings,
) -> int:
    """Turn a video into depth that is steady from frame to frame: clips, frames, points or meshes, in OUT/<video>/.

    Scenes are found by their cuts, and one range of depth holds for the whole clip. A run that was stopped is resumed
    by the same command. Memory does not grow with the length; the depth of all frames lies on the disk meanwhile.
    Needs the extra "video".
    """
    check_installed()
    from marigold_core.video.clips import Clip
    from marigold_core.video.convert import VideoResult, check_folder, stream_video

    check_output(output)
    folder, made = output / clip.stem, None
    check_folder(folder)
    Clip(clip)  # what is no video is refused before the seconds that the checkpoint takes
    pipe = run.load(run.model)
    with Timed(clip.name, run.quiet) as bar:
        for event in stream_video(pipe, clip, folder, settings, together, mesh=mesh, colours=colours):
            if isinstance(event, VideoResult):
                made = event
            else:
                bar.show(event)
    if made and not run.quiet:
        scenes = f"{made.scenes} scene{'s' * (made.scenes != 1)}"
        print(f"{made.frames} frames, {scenes}.", *made.files.values(), sep="\n")
        for note in made.notes:
            print(note, file=sys.stderr)
    return ALL_DONE
