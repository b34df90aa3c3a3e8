"""Clips, panoramas and effects of photos as jobs of the service, and how much of each one of several users may ask for.

Other visitors' jobs come between two frames or views.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marigold_core.errors import SettingsError, VideoError
from marigold_core.files import archive
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import MAX_WORK, Service, check_cost
from marigold_core.settings import CameraSettings, ColourSettings, FrameSettings, ResolvedSettings, Settings
from marigold_core.storage import size_of
from marigold_core.video.settings import DefocusSettings, ParallaxSettings, VideoSettings

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline
    from marigold_core.video.convert import VideoResult

MOST_FRAMES = 600  # of a clip
MAX_CLIP_WORK = 12 * MAX_WORK  # megapixels through the network for all of them: of 4 steps x 10 members at 768 pixels
MOST_WRITTEN = archive.LIMIT_BYTES  # of all files of a clip: of a format's frames one ZIP is made
LOOK_EVERY = 10  # frames that are written, at the size of them all
MAX_DRAWN = 250.0  # megapixels of all frames of a parallax clip; it has 94 unless otherwise asked


class SharedPredictor:
    """What ``stream_video`` and ``stream_panorama`` take for a loaded checkpoint."""

    def __init__(self, service: Service, checkpoint: str, pipe: "MarigoldPipeline") -> None:
        """Take the loaded checkpoint of a service; ``shared_predictor`` loads it."""
        self._service, self._name, self._pipe = service, checkpoint, pipe

    @property
    def checkpoint(self) -> "Checkpoint":
        """What is loaded."""
        return self._pipe.checkpoint

    def resolve(self, settings: Settings | None) -> ResolvedSettings:
        """Fill in what the checkpoint decides. Raises: SettingsError."""
        return self._pipe.resolve(settings)

    def stream(
        self, photo: Any, settings: Settings | None = None, *, carry: object = None
    ) -> Iterator[Progress | Prediction]:
        """Predict from a picture [H, W, 3] uint8 when it is its turn; nothing is carried over from the one before."""
        return self._service.run(photo, settings, self._name)


def shared_predictor(service: Service, checkpoint: str) -> Generator[Progress, None, SharedPredictor]:
    """Load a checkpoint unless it is loaded, yielding while that takes time. Raises: CheckpointError."""
    pipe = yield from service.loaded(checkpoint)
    return SharedPredictor(service, checkpoint, pipe)


def check_clip(source: str | Path) -> int:
    """Check what a video states of itself -> its number of frames, 0 where it is not known. Raises: VideoError."""
    from marigold_core.video.clips import Clip

    count = Clip(source).frame_count
    if count > MOST_FRAMES:
        raise VideoError(
            f"This video has {count} frames, and the server takes up to {MOST_FRAMES}; use the command line."
        )
    return count


def run_clip(
    predictor: SharedPredictor,
    source: str | Path,
    folder: Path,
    settings: Settings,
    video: VideoSettings,
    mesh: FrameSettings | None = None,
    colours: ColourSettings | None = None,
) -> "Generator[Progress | VideoResult]":
    """Predict a clip as ``stream_video`` does; what is stopped goes on by the next call with the same folder.

    Raises: VideoError and SettingsError where it is too much for one run, as soon as that is known.
    """
    from marigold_core.video.clips import Clip
    from marigold_core.video.convert import stream_video

    count = check_clip(source) or MOST_FRAMES
    with closing(Clip(source).frames()) as frames:
        size = next(frames).pixels.shape[:2]
    check_cost(predictor.resolve(settings), size, most=MAX_CLIP_WORK / count)
    with closing(stream_video(predictor, source, folder, settings, video, mesh=mesh, colours=colours)) as events:
        for event in events:
            if isinstance(event, Progress) and event.done > MOST_FRAMES:
                raise VideoError(f"This video has more than the {MOST_FRAMES} frames that the server takes.")
            if isinstance(event, Progress) and event.done % LOOK_EVERY == 0:
                _check_written(folder)
            yield event


def _check_written(folder: Path) -> None:
    if size_of(folder) > MOST_WRITTEN:
        raise VideoError(
            f"The files of this clip are larger than the {MOST_WRITTEN / 1e9:.0f} GB that the server writes of one;"
            " choose fewer formats of frames or a smaller clip, or use the command line."
        )


def check_parallax(settings: ParallaxSettings, photo_size: tuple[int, int]) -> None:
    """Refuse a clip of a photo (height, width) that takes too long to draw. Raises: SettingsError."""
    height, width = photo_size
    scale = min(1.0, settings.longest_px / max(height, width))
    megapixels = settings.seconds * settings.rate * height * width * scale**2 / 1e6
    if megapixels > MAX_DRAWN:
        raise SettingsError(
            f"seconds x rate x longest_px make {megapixels:.0f} megapixels, and the server draws up to {MAX_DRAWN:.0f};"
            " choose a shorter or smaller clip, or use the command line."
        )


def run_defocus(
    service: Service, prediction: Prediction, folder: Path, settings: DefocusSettings, mesh: CameraSettings
) -> Iterator[Progress | dict[str, Path]]:
    """Blur a photo as ``save_defocus`` does, in its turn."""
    from marigold_core.video.defocus import save_defocus

    def draw() -> Iterator[dict[str, Path]]:
        yield save_defocus(prediction, folder, settings, mesh)

    return service.in_turn(draw())


def run_parallax(
    service: Service, prediction: Prediction, folder: Path, settings: ParallaxSettings, mesh: CameraSettings
) -> Iterator[Progress | dict[str, Path]]:
    """Draw a clip as ``stream_parallax`` does, in its turn."""
    from marigold_core.video.parallax import stream_parallax

    return service.in_turn(stream_parallax(prediction, folder, settings, mesh))
