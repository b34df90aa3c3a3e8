"""Objects of rendered scenes as boxes, and as the maps that a network learns: centres with sizes around them."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from marigold_core.images.boxes import Box

LEAST_AREA = 0.0015  # of the picture: smaller objects are not asked for
SPREAD = 0.12  # standard deviation of a centre's height, in widths and heights of the box
AROUND = 0.05  # height of a centre down to which the size stands around it


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


def draw_centres(instances: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Draw numbers and classes of things [H, W] -> centre, width and height of ``BOXES`` [3, H, W] in [0, 1].

    A centre is a Gaussian, 1 in the middle of a box, as in Zhou et al. 2019 (CenterNet); the highest of several counts.
    """
    height, width = instances.shape
    maps = np.zeros((3, height, width), np.float32)
    y, x = np.ogrid[0.5 : height + 0.5, 0.5 : width + 0.5]
    for box in true_boxes(instances, labels, names):
        w, h = box.right - box.left, box.bottom - box.top
        across = ((x - (box.left + box.right) / 2) / max(1.0, SPREAD * w)) ** 2
        down = ((y - (box.top + box.bottom) / 2) / max(1.0, SPREAD * h)) ** 2
        centre = np.exp(-0.5 * (across + down)).astype(np.float32)
        higher = (centre > maps[0]) & (centre > AROUND)
        maps[0] = np.maximum(maps[0], centre)
        maps[1][higher], maps[2][higher] = w / width, h / height
    return maps


def with_centres(values: Tensor, names: tuple[str, ...]) -> Tensor:
    """Turn numbers and classes of things [B, 2, H, W] into centre, width, height and class [B, 4, H, W]."""
    drawn = [torch.from_numpy(draw_centres(picture[0].numpy(), picture[1].numpy(), names)) for picture in values]
    return torch.cat([torch.stack(drawn), values[:, 1:]], dim=1)
