"""Frames of a clip as jobs of the service: other visitors' jobs come between two frames."""

from typing import TYPE_CHECKING, Any

from marigold_core.prediction import Prediction
from marigold_core.serving.jobs import Service
from marigold_core.settings import ResolvedSettings, Settings

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint


class SharedPredictor:
    """What ``video.convert.stream_video`` takes for a loaded checkpoint."""

    def __init__(self, service: Service, checkpoint: str) -> None:
        """Load the checkpoint unless it is loaded. Raises: CheckpointError."""
        self._service, self._name = service, checkpoint
        self._pipe = service.warm(checkpoint).result()

    @property
    def checkpoint(self) -> "Checkpoint":
        """What is loaded."""
        return self._pipe.checkpoint

    def resolve(self, settings: Settings | None) -> ResolvedSettings:
        """Fill in what the checkpoint decides. Raises: SettingsError."""
        return self._pipe.resolve(settings)

    def __call__(self, photo: Any, settings: Settings | None = None, carry: object = None) -> Prediction:
        """Predict from a frame [H, W, 3] uint8 when it is its turn; nothing is carried over from the one before."""
        *_, made = self._service.run(photo, settings, self._name)
        assert isinstance(made, Prediction)  # a run ends with its prediction or raises
        return made
