"""Photographs without depth: their colour statistics, and crops of them for the feature distance."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError
from marigold_core.images.photo import load_rgb
from training.data.augmentation import crop_picture, draw_crop, measure_colours

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".heic"}


def photographs(folder: Path) -> list[Path]:
    """List the photographs of a folder and the folders in it, in order of name.

    Raises: MarigoldError when there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise MarigoldError(f"{folder.name} holds no photograph; give a folder of {', '.join(sorted(ENDINGS))} files.")
    return found


def folder_colours(folder: Path) -> Tensor:
    """Measure the colours of all photographs of a folder -> [L, 3, 2], see ``augmentation.measure_colours``.

    Raises: MarigoldError when there is none, ImageError when one cannot be read.
    """
    return torch.from_numpy(np.stack([measure_colours(load_rgb(path)) for path in photographs(folder)]))


class Unlabelled:
    """Crops of photographs as a function of (seed, place). Raises: MarigoldError when the folder has none."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.paths, self.seed = photographs(folder), seed

    def batch(self, count: int, size: tuple[int, int], place: int) -> Tensor:
        """Draw ``count`` crops of ``size`` = (H, W) for a micro-batch -> [B, 3, H, W] in [-1, 1].

        Raises: ImageError when a photograph cannot be read.
        """
        rng = np.random.default_rng([self.seed, place])
        crops = []
        for number in rng.integers(len(self.paths), size=count):
            pixels = load_rgb(self.paths[number])
            box = draw_crop(pixels.shape[0], pixels.shape[1], size[1] / size[0], rng)
            mirror = -1 if rng.random() < 0.5 else 1
            crops.append(crop_picture(pixels, box, size)[:, ::mirror])
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255 * 2 - 1
