"""Folders of maps, one ``NAME.npy`` a picture: predictions of any program to score, and our own as they are saved."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from marigold_core.checkpoints.layout import INDEX
from marigold_core.errors import MarigoldError
from marigold_core.storage import replacing

STRETCH = 1.03  # aspect ratios may differ by 3 %, as networks round sizes; KITTI without its crop differs by 4 %


def holds_maps(checkpoint: str) -> bool:
    """Return whether ``checkpoint`` is a folder of maps rather than a checkpoint; maps may lie in sub-folders."""
    folder = Path(checkpoint)
    return folder.is_dir() and not (folder / INDEX).exists() and any(folder.rglob("*.npy"))


def check_maps(folder: Path, names: Iterable[str]) -> None:
    """Check that every picture has its map. Raises: MarigoldError naming the first one without."""
    for name in names:
        if not (folder / f"{name}.npy").is_file():
            raise MarigoldError(f"{folder.name} has no map {name}.npy: each picture of the data needs one of its name.")


def read_map(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """Read the map [h, w] of a picture of ``size`` (height, width), which it may differ from in scale only.

    Raises: MarigoldError when it is damaged, not a map, or of a picture of another shape.
    """
    label = f"{name}.npy of {folder.name}"
    try:
        values = np.load(folder / f"{name}.npy", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise MarigoldError(f"{label} cannot be read: write it again with numpy.save.") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise MarigoldError(f"{label} must be an array [H, W] of numbers.")
    stretch = values.shape[0] * size[1] / (values.shape[1] * size[0])
    if not 1 / STRETCH < stretch < STRETCH:
        raise MarigoldError(
            f"{label} is {values.shape} and its picture {size}: predict from the picture as it is read."
        )
    if not np.isfinite(values).all():
        raise MarigoldError(f"{label} holds NaN or infinity; a prediction must have a number for every pixel.")
    return values.astype(np.float32)


def write_map(folder: Path, name: str, values: np.ndarray) -> None:
    """Write the map [H, W] of a picture, whole or not at all. Raises: ExportError when it cannot be written."""
    with replacing(folder / f"{name}.npy") as aside, aside.open("wb") as file:
        np.save(file, values.astype(np.float32))
