"""Objects read off maps: peaks of a map of centres, the size that stands there, the class of what is inside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw

from marigold_core.images.intrinsics import BOXES, Layer, channels_of

LEAST = 0.3  # height of a peak that counts
SMALLEST = 1 / 32  # share of the photo's width or height that a size is told from
APART = 1 / 24  # of the longer edge: nearer peaks are one
OVERLAP = 0.5  # intersection over union from which two boxes of one class are the same
MOST = 100
LINE, TEXT = (255, 221, 51), (20, 20, 20)


@dataclass(frozen=True)
class Box:
    """One object of a class, in pixels: left and top inside, right and bottom outside."""

    name: str
    score: float  # in [0, 1]
    left: float
    top: float
    right: float
    bottom: float

    def iou(self, other: "Box") -> float:
        """Return intersection over union with another box."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / max(self.area + other.area - shared, 1e-9)

    @property
    def area(self) -> float:
        """Return its pixels."""
        return max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)


def share_of(size: float) -> float:
    """Turn a number of the layers "widths" and "heights", in [0, 1], into a share of the photo's width or height.

    Its logarithm is painted, so that an error of the picture is the same share of a small box and of a large one.
    """
    return math.pow(SMALLEST, 1 - size)


def size_of(share: float) -> float:
    """Turn a share of the photo's width or height into the number in [0, 1] that is painted: ``share_of`` inverted."""
    return 1 - math.log(max(share, SMALLEST)) / math.log(SMALLEST)


def has_boxes(layers: Sequence[Layer]) -> bool:
    """Tell whether layers hold centres and sizes of objects, and classes."""
    return {*BOXES, "classes"} <= {layer.name for layer in layers}


def find_boxes(layers: Sequence[Layer], values: np.ndarray) -> list[Box]:
    """Read objects off values [H, W, C] of layers -> boxes in pixels, best first; of boxes on each other the best.

    The class is the most frequent one in the middle half of a box, the first class being none. Source: the peaks and
    sizes of Zhou et al. 2019 (CenterNet), whose offset is not needed at one pixel a cell.
    """
    from scipy import ndimage as untyped  # pyright: ignore[reportMissingTypeStubs]  # long, for those who have objects

    ndimage = cast(Any, untyped)
    centre, width, height = (channels_of(layers, name, values) for name in BOXES)
    classes = channels_of(layers, "classes", values).astype(int)
    names = next(layer.classes for layer in layers if layer.name == "classes")
    rows, columns = centre.shape
    highest = ndimage.maximum_filter(centre, max(3, round(APART * max(rows, columns))))
    groups, count = ndimage.label((centre == highest) & (centre >= LEAST))
    found: list[Box] = []
    for y, x in ndimage.center_of_mass(groups > 0, groups, range(1, count + 1)):
        row, column = round(y), round(x)
        w, h = share_of(float(width[row, column])) * columns, share_of(float(height[row, column])) * rows
        top, left = max(0, round(y - h / 4)), max(0, round(x - w / 4))
        inside = classes[top : max(row, round(y + h / 4)) + 1, left : max(column, round(x + w / 4)) + 1]
        votes = np.bincount(inside.ravel(), minlength=len(names))[1:]
        if not votes.any():
            continue
        name = names[1 + votes.argmax()].name
        sides = x + 0.5 - w / 2, y + 0.5 - h / 2, x + 0.5 + w / 2, y + 0.5 + h / 2
        found.append(Box(name, float(centre[row, column]), *map(float, sides)))
    kept: list[Box] = []
    for box in sorted(found, key=lambda box: -box.score)[:MOST]:
        if box.area and all(box.name != other.name or box.iou(other) < OVERLAP for other in kept):
            kept.append(box)
    return kept


def draw_boxes(picture: Image.Image, boxes: Sequence[Box], scale: float = 1.0) -> np.ndarray:
    """Draw labelled boxes over a copy of a photo that was made smaller by ``scale`` -> [H, W, 3] uint8."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    wide = max(1, round(max(picture.size) / 300))
    for box in reversed(boxes):
        left, top, right, bottom = (scale * side for side in (box.left, box.top, box.right, box.bottom))
        draw.rectangle((left, top, right, bottom), outline=LINE, width=wide)
        text = f"{box.name} {box.score:.2f}"
        draw.rectangle(draw.textbbox((left, top), text), fill=LINE)
        draw.text((left, top), text, fill=TEXT)
    return np.asarray(picture)
