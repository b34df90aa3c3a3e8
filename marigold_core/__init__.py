"""Diffusion-based monocular depth: a photo becomes depth, its uncertainty and a 3D mesh.

>>> from marigold_core import Settings, load, save
>>> pipe = load("nano")
>>> prediction = pipe("photo.jpg", Settings(num_inference_steps=4, ensemble_size=5))
>>> save(prediction, "out", ["npy", "glb"])

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
    from marigold_core.files.writers import save
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
    "save",
]


def __getattr__(name: str) -> object:
    """Import ``save``, and with it numpy and the writers, when it is first asked for."""
    if name == "save":
        from marigold_core.files.writers import save

        return save
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    checkpoint: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", refetch: bool = False
) -> "MarigoldPipeline":
    """Load a checkpoint; one on the hub is downloaded on first use.

    Args:
        checkpoint: a short name ("nano", "v1-1", ...), a folder in diffusers' layout or a hub id; by default what the
            environment variable MARIGOLD_MODEL names, else the bundled one.
        device: "cpu", "cuda", "cuda:1" or "mps"; "auto" takes CUDA, then MPS, then the CPU.
        dtype: "float32", "float16" or "bfloat16"; "auto" is float16 on CUDA, else float32.
        refetch: whether to ask the hub for the newest revision and to replace damaged files.

    Returns:
        A pipeline to call with a photo.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, unreachable or of another kind.
        SettingsError: the device or dtype is not available.
    """
    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline

    return MarigoldPipeline.from_pretrained(
        checkpoint or default_checkpoint(), device=device, dtype=dtype, refetch=refetch
    )
