"""Photographs whose depth is not asked for: their colour statistics, and crops of them for the feature distance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError
from marigold_core.images.photo import load_rgb
from training.data.augmentation import crop_picture, draw_crop, measure_colours
from training.data.sets import is_spec, open_set
from training.data.sets.formats import PHOTO_ENDINGS
from training.data.sets.reading import naming


@dataclass(frozen=True)
class Photographs:
    """Photographs by name; ``read`` gives the pixels [H, W, 3] uint8 of the one with a number."""

    names: Sequence[str]
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        """Count them."""
        return len(self.names)


def photographs(source: str | Path) -> Photographs:
    """List the photographs of a folder and the folders in it by name, or those of a data set KIND/SPLIT:FOLDER.

    Raises: MarigoldError when there is no folder, or no photograph in it.
    """
    if is_spec(str(source)):
        a_set = open_set(str(source))
        return Photographs([a_set.name(number) for number in range(len(a_set))], lambda number: a_set[number].rgb)
    folder = Path(source)
    if not folder.is_dir():
        raise MarigoldError(f"There is no folder {folder}.")
    files = (path for path in folder.rglob("*") if path.name[0] != "." and path.is_file())
    found = sorted(path for path in files if path.suffix.lower() in PHOTO_ENDINGS)
    if not found:
        raise MarigoldError(f"{folder} holds no photograph; give a folder of {', '.join(PHOTO_ENDINGS)} files.")
    return Photographs([path.relative_to(folder).as_posix() for path in found], lambda number: _read(found[number]))


def _read(path: Path) -> np.ndarray:
    with naming(path):
        return load_rgb(path)


def folder_colours(folder: Path) -> Tensor:
    """Measure the colours of all photographs of a folder -> [L, 3, 2], see ``augmentation.measure_colours``.

    Raises: MarigoldError when there is none, or one cannot be read.
    """
    found = photographs(folder)
    return torch.from_numpy(np.stack([measure_colours(found.read(number)) for number in range(len(found))]))


class Unlabelled:
    """Crops of photographs as a function of (seed, place). Raises: MarigoldError when there is no photograph."""

    def __init__(self, source: str | Path, seed: int) -> None:
        self.photographs, self.seed = photographs(source), seed

    def batch(self, count: int, size: tuple[int, int], place: int) -> Tensor:
        """Draw ``count`` crops of ``size`` = (H, W) for a micro-batch -> [B, 3, H, W] in [-1, 1].

        Raises: MarigoldError when a photograph cannot be read.
        """
        rng = np.random.default_rng([self.seed, place])
        crops = []
        for number in rng.integers(len(self.photographs), size=count):
            pixels = self.photographs.read(int(number))
            box = draw_crop(pixels.shape[0], pixels.shape[1], size[1] / size[0], rng)
            mirror = -1 if rng.random() < 0.5 else 1
            crops.append(crop_picture(pixels, box, size)[:, ::mirror])
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255 * 2 - 1
