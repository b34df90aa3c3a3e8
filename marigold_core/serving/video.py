"""Frames of a clip and views of a panorama as jobs of the service: other visitors' jobs come between two of them."""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import Service
from marigold_core.settings import ResolvedSettings, Settings

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline


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
