"""Data sets as they lie on disk -> photographs with depth in metres."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.image import load_rgb


@dataclass(frozen=True)
class Measured:
    """A photograph with its depth."""

    name: str
    pixels: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float32, NaN = not measured


def read_measured(folder: Path) -> list[Measured]:
    """Read all photographs of a folder, in order of name.

    Raises: MarigoldError when there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/depth.npz"))
    if not found:
        raise MarigoldError(f"{folder.name} holds no NAME/rgb.png with NAME/depth.npz; see training/README.md.")
    return [Measured(path.name, load_rgb(path / "rgb.png"), np.load(path / "depth.npz")["depth"]) for path in found]
