"""Objects of rendered scenes as boxes, and as the maps that a network learns: centres, sizes and classes."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from marigold_core.images.boxes import Box, size_of

LEAST_AREA = 0.005  # of the picture, a latent cell of one of 128 pixels: smaller objects are not asked for
SPREAD = 0.15  # standard deviation of a centre's height, in widths and heights of the box


def true_boxes(instances: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> list[Box]:
    """Find what is seen of each thing: numbers [H, W], 0 for none, and classes [H, W] -> boxes in pixels."""
    found: list[Box] = []
    for number, place in enumerate(ndimage.find_objects(instances.astype(int)), start=1):
        if place is None:
            continue
        rows, columns = place
        name = names[int(labels[place][instances[place] == number][0])]
        box = Box(name, 1.0, columns.start, rows.start, columns.stop, rows.stop)
        if box.area >= LEAST_AREA * instances.size:
            found.append(box)
    return found


def draw_objects(
    instances: np.ndarray, labels: np.ndarray, names: tuple[str, ...], things: tuple[str, ...]
) -> np.ndarray:
    """Draw numbers and classes of things [H, W] -> the layers of objects [4, H, W].

    They are ``BOXES`` in [0, 1] and the place of a class among ``things``, whose first is none. A centre is a Gaussian,
    1 in the middle of a box, as in Zhou et al. 2019 (CenterNet); the highest of several counts. Sizes fill their boxes;
    where some overlap, that of the nearest middle counts, as a share of the box.
    """
    height, width = instances.shape
    maps = np.zeros((4, height, width), np.float32)
    nearest = np.full((height, width), 0.5)
    y, x = np.ogrid[0.5 : height + 0.5, 0.5 : width + 0.5]
    for box in true_boxes(instances, labels, names):
        w, h = box.right - box.left, box.bottom - box.top
        across, down = abs(x - (box.left + box.right) / 2), abs(y - (box.top + box.bottom) / 2)
        squares = (across / max(1.0, SPREAD * w)) ** 2 + (down / max(1.0, SPREAD * h)) ** 2
        maps[0] = np.maximum(maps[0], np.exp(-0.5 * squares))
        away = np.maximum(across / w, down / h)
        nearer = away < nearest
        nearest[nearer] = away[nearer]
        maps[1][nearer], maps[2][nearer] = size_of(w / width), size_of(h / height)
    numbers = np.array([things.index(name) if name in things else 0 for name in names])
    maps[3] = np.where(instances > 0, numbers[labels.astype(int)], 0)
    return maps


def with_objects(values: Tensor, names: tuple[str, ...], things: tuple[str, ...]) -> Tensor:
    """Turn numbers and classes of things [B, 2, H, W] into layers of objects [B, 4, H, W]."""
    numbers = values.numpy()
    return torch.stack([torch.from_numpy(draw_objects(each[0], each[1], names, things)) for each in numbers])
