"""The command ``parallax``: a short clip from one photo, whose camera moves a little."""

from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, PHOTO, Timed, watch
from marigold_core.cli.video import PhotoRun, begin
from marigold_core.prediction import Progress
from marigold_core.settings import CameraSettings, Settings
from marigold_core.video import check_installed
from marigold_core.video.settings import ParallaxSettings


def parallax(
    photo: PHOTO,
    /,
    output: OUTPUT,
    run: PhotoRun,
    settings: Settings,
    move: ParallaxSettings,
    mesh: CameraSettings,
) -> int:
    """Make a clip of one photo in which the camera moves a little and near things move more, in OUT/<photo>/.

    What the photo does not show is filled from the farther side; parallax_invented.mp4 is white where that is so.
    Needs the extra "video".
    """
    check_installed()
    from marigold_core.video.parallax import FILES, stream_parallax

    source, folder = begin(photo, output, FILES.values(), run, settings)
    with photo_folders.sole_writer(folder):
        prediction = watch(run.load(run.model).stream(source, settings), photo.name, run.quiet)
        with Timed(photo.name, run.quiet) as bar:
            for event in stream_parallax(prediction, folder, move, mesh, overwrite=run.overwrite):
                if isinstance(event, Progress):
                    bar.show(event)
                elif not run.quiet:
                    print(*event.values(), sep="\n")
    return ALL_DONE
