"""The command ``defocus``: a photo with the depth of field of a wide aperture."""

from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, OUTPUT, PHOTO, watch
from marigold_core.cli.video import PhotoRun, begin
from marigold_core.settings import CameraSettings, Settings
from marigold_core.video import check_installed
from marigold_core.video.settings import DefocusSettings, check_focus


def defocus(
    photo: PHOTO,
    /,
    output: OUTPUT,
    run: PhotoRun,
    settings: Settings,
    lens: DefocusSettings,
    mesh: CameraSettings,
) -> int:
    """Blur a photo before and behind the pixel that is in focus, in OUT/<photo>/.

    What shows through blurred edges and is not in the photo is filled; defocus_invented.png is white where that is so.
    Needs the extra "video".
    """
    check_installed()
    from marigold_core.video.defocus import FILES, save_defocus

    source, folder = begin(photo, output, FILES.values(), run, settings)
    check_focus(lens, source.size)
    with photo_folders.sole_writer(folder):
        prediction = watch(run.load(run.model).stream(source, settings), photo.name, run.quiet)
        files = save_defocus(prediction, folder, lens, mesh, overwrite=run.overwrite)
    if not run.quiet:
        print(*files.values(), sep="\n")
    return ALL_DONE
