"""Marks drawn on the photo, numbered like the rows of the table beside it, and a scale bar."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from marigold_core.calibration.anchors import Anchor
from marigold_core.calibration.plane_fit import Patch
from marigold_core.prediction import Prediction
from marigold_core.ui.screens.annotations import Marks, Mode, Point, places
from marigold_core.ui.text import metres as metres_text

LONGEST_PX = 1280  # of the drawn picture, also where the photo is smaller: marks are equally large on all

_GIVEN, _MEASURED, _NEXT, _DARK = (255, 200, 60), (110, 215, 255), (255, 255, 255), (10, 14, 20)
_LINE, _DOT, _FONT = 4, 10, 36
_BAR_SHARE = 0.3  # of the picture's width, at most
_MARGIN = 26


def drawn_scale(prediction: Prediction) -> float:
    """Pixels of the drawn picture for one of the photo."""
    return LONGEST_PX / max(prediction.photo.shape[:2])


def draw_marks(prediction: Prediction, marks: Marks, mode: Mode) -> Image.Image:
    """Photo, what is marked on it and, for a map in metres, a scale bar -> a picture for the page."""
    scale = drawn_scale(prediction)
    height, width = (max(1, round(side * scale)) for side in prediction.photo.shape[:2])
    picture = Image.fromarray(prediction.photo).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture, "RGBA")

    def scaled(points: Sequence[Point]) -> list[Point]:
        return [(x * scale, y * scale) for x, y in points]

    for number, known in enumerate(marks.known, 1):
        points = scaled(places(known))
        if isinstance(known, Patch):
            _area(pen, points)
        elif not isinstance(known, Anchor):
            _line(pen, points, _GIVEN)
        _dots(pen, points, _GIVEN)
        _label(pen, points, str(number), _GIVEN)
    for number, pair in enumerate(marks.measured, len(marks.known) + 1):
        points = scaled(pair)
        _line(pen, points, _MEASURED)
        _dots(pen, points, _MEASURED)
        _label(pen, points, str(number), _MEASURED)
    points = scaled(marks.points)
    if mode == "patch" and len(points) >= 2:
        _area(pen, points)
    elif len(points) == 2:
        _line(pen, points, _NEXT)
    _dots(pen, points, _NEXT)
    _scale_bar(pen, prediction, marks.hints.fov_x_deg or prediction.fov_x_deg, (width, height))
    return picture


def bar_length(across_m: float) -> float:
    """Metres across the whole picture -> the longest of 1, 2, 5, 10, ... metres that fits a scale bar."""
    most = _BAR_SHARE * across_m
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _scale_bar(
    pen: ImageDraw.ImageDraw, prediction: Prediction, fov_x_deg: float | None, size: tuple[int, int]
) -> None:
    """Draw how long a length looks at the middle depth, where the map is in metres and the field of view is known."""
    if prediction.kind != "metric" or fov_x_deg is None:
        return
    width, height = size
    depth_m = float(np.median(prediction.values))
    across_m = 2 * depth_m * math.tan(math.radians(fov_x_deg) / 2)
    length_m = bar_length(across_m)
    left, bottom = _MARGIN, height - _MARGIN
    right = left + width * length_m / across_m
    _line(pen, [(left, bottom), (right, bottom)], _NEXT)
    for x in (left, right):
        _line(pen, [(x, bottom - 8), (x, bottom)], _NEXT)
    said = metres_text.SCALE_BAR.format(length=f"{length_m:g}", depth=f"{depth_m:.2g}")
    pen.text((left, bottom - 12), said, _NEXT, _font(), anchor="ls", stroke_width=3, stroke_fill=_DARK)


def _line(pen: ImageDraw.ImageDraw, points: list[Point], colour: tuple[int, int, int]) -> None:
    pen.line(points, _DARK, _LINE + 4)
    pen.line(points, colour, _LINE)


def _dots(pen: ImageDraw.ImageDraw, points: list[Point], colour: tuple[int, int, int]) -> None:
    for point in points:
        pen.circle(point, _DOT + 2, _DARK)
        pen.circle(point, _DOT, colour)
        pen.circle(point, 3, _DARK)


def _area(pen: ImageDraw.ImageDraw, corners: list[Point]) -> None:
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    pen.polygon(corners, (*_GIVEN, 70))
    _line(pen, [*corners, corners[0]], _GIVEN)


def _label(pen: ImageDraw.ImageDraw, points: list[Point], number: str, colour: tuple[int, int, int]) -> None:
    """Write a number beside the middle of some points, inside the picture."""
    if points:
        x, y = (sum(side) / len(points) for side in zip(*points, strict=True))
        place = min(x + 16, pen.im.size[0] - _FONT), max(y - 14, _FONT)
        pen.text(place, number, colour, _font(), anchor="ls", stroke_width=4, stroke_fill=_DARK)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(_FONT)
