"""Diffusion-based monocular depth: a photo becomes depth, its uncertainty and a 3D mesh.

>>> from marigold_core import Settings, load, save
>>> pipe = load("nano")
>>> prediction = pipe("photo.jpg", Settings(num_inference_steps=4, ensemble_size=5))
>>> save(prediction, "out", ["npy", "glb"])

Importing the package costs no torch; ``load`` does.
"""

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it; typing and pathlib are not imported, see ``__getattr__``
if TYPE_CHECKING:
    from pathlib import Path

    from marigold_core.calibration.anchors import Anchor, Length
    from marigold_core.calibration.calibrate import Hints, calibrate
    from marigold_core.calibration.plane_fit import Patch
    from marigold_core.errors import (
        CalibrationError,
        CheckpointError,
        ExportError,
        HostError,
        ImageError,
        MarigoldError,
        SettingsError,
        VideoError,
    )
    from marigold_core.files.reader import from_depth
    from marigold_core.files.writers import save
    from marigold_core.pipeline.pipeline import MarigoldPipeline
    from marigold_core.prediction import Cell, Prediction, Progress
    from marigold_core.settings import PRESETS, ColourSettings, DepthReading, MeshSettings, Settings

__version__ = "0.3.0"
__all__ = [
    "PRESETS",
    "Anchor",
    "CalibrationError",
    "Cell",
    "CheckpointError",
    "ColourSettings",
    "DepthReading",
    "ExportError",
    "Hints",
    "HostError",
    "ImageError",
    "Length",
    "MarigoldError",
    "MeshSettings",
    "Patch",
    "Prediction",
    "Progress",
    "Settings",
    "SettingsError",
    "VideoError",
    "calibrate",
    "from_depth",
    "load",
    "save",
]
_IMPORTED_ON_USE = {
    **dict.fromkeys(("Anchor", "Length"), "calibration.anchors"),
    **dict.fromkeys(("Hints", "calibrate"), "calibration.calibrate"),
    "Patch": "calibration.plane_fit",
    "from_depth": "files.reader",
    "save": "files.writers",
    **dict.fromkeys(("Cell", "Prediction", "Progress"), "prediction"),
    **dict.fromkeys(("PRESETS", "ColourSettings", "DepthReading", "MeshSettings", "Settings"), "settings"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the command line can be stopped from its first moment on."""
    if name in _IMPORTED_ON_USE:
        return getattr(import_module(f"{__name__}.{_IMPORTED_ON_USE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    checkpoint: "str | Path | None" = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    refetch: bool = False,
    tiny_autoencoder: str | None = None,
    compile: bool | None = None,
) -> "MarigoldPipeline":
    """Load a checkpoint; one on the hub is downloaded on first use.

    Args:
        checkpoint: a short name ("nano", "v1-1", ...), a folder in diffusers' layout or a hub id; by default what the
            environment variable MARIGOLD_MODEL names, else the bundled one.
        device: "cpu", "cuda", "cuda:1" or "mps"; "auto" takes CUDA, then MPS, then the CPU.
        dtype: "float32", "float16" or "bfloat16"; "auto" is the fastest of them on the device: float16 on GPUs,
            bfloat16 on CPUs with instructions for it, else float32. The environment variable MARIGOLD_DTYPE overrides
            "auto".
        refetch: whether to ask the hub for the newest revision and to replace damaged files.
        tiny_autoencoder: the folder or hub id of an ``AutoencoderTiny`` for the same latents, such as
            "madebyollin/taesd" for the public checkpoints, which ``Settings.decoder`` may ask for; by default what the
            environment variable MARIGOLD_TINY_AUTOENCODER names, where that fits. Whether it was trained on these
            latents cannot be told.
        compile: whether torch is to compile the networks, on CUDA: loading takes minutes more and steps take less time.
            ``python -m tests.bench.device`` measures after how many runs that pays. By default on CUDA where the
            environment variable MARIGOLD_COMPILE is 1 or true; on other devices that has no effect.

    Returns:
        A pipeline to call with a photo.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, unreachable or of another kind.
        SettingsError: the device or dtype is not available, the networks cannot be compiled, or an argument is of
            another type.
    """
    from pathlib import Path

    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.settings import check_type

    check_type("checkpoint", checkpoint, str | Path | None, "a name or a path")
    check_type("device", device, str, "a name")
    check_type("dtype", dtype, str, "a name")
    check_type("refetch", refetch, bool, "True or False")
    check_type("tiny_autoencoder", tiny_autoencoder, str | None, "a folder's name or a hub id")
    check_type("compile", compile, bool | None, "True, False or None")
    from marigold_core.pipeline.pipeline import MarigoldPipeline

    return MarigoldPipeline.from_pretrained(
        checkpoint or default_checkpoint(),
        device=device,
        dtype=dtype,
        refetch=refetch,
        tiny_autoencoder=tiny_autoencoder,
        compile=compile,
    )
