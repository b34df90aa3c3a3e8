"""Diffusion-based monocular depth: a photo becomes depth, its uncertainty and a 3D mesh.

>>> from marigold_core import load, Settings
>>> pipe = load("nano")
>>> prediction = pipe("photo.jpg", Settings(num_inference_steps=4, ensemble_size=5))

Importing the package costs no torch; ``load`` does.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from marigold_core.errors import (
    CalibrationError,
    CheckpointError,
    ExportError,
    ImageError,
    MarigoldError,
    SettingsError,
)
from marigold_core.prediction import Cell, Prediction, Progress
from marigold_core.settings import PRESETS, MeshSettings, Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline

__version__ = "0.2.0"
__all__ = [
    "PRESETS",
    "CalibrationError",
    "Cell",
    "CheckpointError",
    "ExportError",
    "ImageError",
    "MarigoldError",
    "MeshSettings",
    "Prediction",
    "Progress",
    "Settings",
    "SettingsError",
    "load",
]


def load(
    checkpoint: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", refetch: bool = False
) -> "MarigoldPipeline":
    """Load a checkpoint -> a pipeline to call with a photo.

    ``checkpoint`` is a short name ("nano", "v1-1", ...), a diffusers folder or a hub id; by default the bundled
    one, or what the environment variable MARIGOLD_MODEL names. A hub id is downloaded on first use.
    Raises: CheckpointError, SettingsError.
    """
    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline

    return MarigoldPipeline.from_pretrained(
        checkpoint or default_checkpoint(), device=device, dtype=dtype, refetch=refetch
    )
