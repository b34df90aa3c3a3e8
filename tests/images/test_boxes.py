"""Objects read off planted maps of centres, sizes and classes."""

import numpy as np
import pytest
from PIL import Image

from marigold_core.images.boxes import Box, draw_boxes, find_boxes, has_boxes, share_of, size_of
from marigold_core.images.intrinsics import BOXES, ClassColour, Layer

CLASSES = (ClassColour("nothing", (9, 9, 9)), ClassColour("car", (200, 0, 0)), ClassColour("dog", (0, 0, 200)))
LAYERS = (
    *(Layer(name, picture, (0, 1, 2), "srgb", grey=True) for picture, name in enumerate(BOXES)),
    Layer("classes", 3, (0, 1, 2), "srgb", classes=CLASSES),
)
SIZE = (60, 80)


def planted(*boxes: tuple[int, int, int, int, int, float]) -> np.ndarray:
    """Plant (class, x, y, width, height, score) in maps [H, W, 4]."""
    values = np.zeros((*SIZE, 4), np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for number, column, row, width, height, score in boxes:
        near = score * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 8)
        higher = near > values[..., 0]
        sizes = size_of(width / SIZE[1]), size_of(height / SIZE[0])
        values[higher, 0], values[higher, 1], values[higher, 2] = near[higher], *sizes
        values[(abs(x - column) <= width / 4) & (abs(y - row) <= height / 4), 3] = number
    return values


def test_objects_are_found_where_they_are_best_first() -> None:
    found = find_boxes(LAYERS, planted((2, 20, 30, 10, 20, 0.6), (1, 60, 40, 30, 12, 0.9), (1, 40, 10, 8, 8, 0.2)))
    assert [(box.name, round(box.score, 2)) for box in found] == [("car", 0.9), ("dog", 0.6)]  # the third is too low
    left, top, right, bottom = 60.5 - 15, 40.5 - 6, 60.5 + 15, 40.5 + 6
    assert (found[0].left, found[0].top, found[0].right, found[0].bottom) == pytest.approx((left, top, right, bottom))
    assert found[0].iou(Box("car", 1, left, top, right, bottom)) == pytest.approx(1)
    assert has_boxes(LAYERS) and not has_boxes(LAYERS[1:])


def test_a_size_is_painted_as_its_logarithm() -> None:
    assert [size_of(share) for share in (1, 1 / 2, 1 / 32, 0)] == pytest.approx([1, 0.8, 0, 0])
    assert [share_of(size) for size in (1, 0.8, 0)] == pytest.approx([1, 1 / 2, 1 / 32])


def test_what_is_mostly_nothing_has_the_class_of_the_rest_and_nothing_at_all_is_no_object() -> None:
    values = planted((2, 30, 30, 20, 20, 0.9))
    values[27:, :, 3] = 0
    assert [box.name for box in find_boxes(LAYERS, values)] == ["dog"]
    values[..., 3] = 0
    assert find_boxes(LAYERS, values) == []


def test_of_boxes_of_one_class_on_each_other_the_best_stays() -> None:
    values = planted((1, 30, 30, 40, 30, 0.9), (1, 36, 30, 40, 30, 0.8))
    assert [round(box.score, 2) for box in find_boxes(LAYERS, values)] == [0.9]
    values[:, 34:, 3] = 2  # the middle half of the second is mostly of another class
    assert [box.name for box in find_boxes(LAYERS, values)] == ["car", "dog"]


@pytest.mark.parametrize("height", [0.0, 0.5])
def test_a_flat_map_has_at_most_one_object(height: float) -> None:
    values = np.full((*SIZE, 4), (height, 0.5, 0.5, 1), np.float32)
    assert len(find_boxes(LAYERS, values)) == (height > 0)
    assert find_boxes(LAYERS, np.zeros((*SIZE, 4), np.float32)) == []


def test_overlap_is_shared_over_joint_area() -> None:
    one = Box("car", 1, 0, 0, 10, 10)
    assert one.iou(Box("car", 1, 5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert one.iou(Box("car", 1, 10, 0, 20, 10)) == 0


def test_boxes_are_drawn_over_a_copy_of_the_photo() -> None:
    photo = Image.new("RGB", (40, 30))
    drawn = draw_boxes(photo, [Box("car", 0.5, 20, 16, 60, 56)], 0.5)
    assert drawn.shape == (30, 40, 3) and drawn[28, 20].tolist() == [255, 221, 51] and drawn[20, 20].tolist() == [0] * 3
    assert not np.asarray(photo).any()
