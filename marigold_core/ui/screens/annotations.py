"""What was marked on the photo: hints, the points of the next one and measured distances; and the picture of them.

Every position is in pixels of the photo, from its top left corner, whatever the size it is shown in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from marigold_core.calibration.anchors import Anchor, Length
from marigold_core.calibration.calibrate import Hints
from marigold_core.calibration.plane_fit import Patch
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Prediction
from marigold_core.ui.text import metres as metres_text

Point = tuple[float, float]
Mode = Literal["depth", "length", "patch", "distance"]
Hint = Anchor | Length | float | Patch  # a number alone is the distance of the near plane

MODES: tuple[Mode, ...] = get_args(Mode)
MOST: dict[Mode, int] = {"depth": 1, "length": 2, "patch": 12, "distance": 2}  # points; one more starts the next

LONGEST_PX = 1280  # of the drawn picture, also where the photo is smaller: marks are equally large on all
GIVEN, MEASURED, NEXT, DARK = (255, 200, 60), (110, 215, 255), (255, 255, 255), (10, 14, 20)  # RGB
LINE, DOT, FONT, MARGIN = 4, 10, 36, 26  # pixels of the drawn picture
BAR_SHARE = 0.3  # of the picture's width, at most


@dataclass(frozen=True)
class Annotations:
    """The hints given so far, the points of the next one, and the pairs of points whose distance is asked for."""

    hints: Hints = Hints()
    points: tuple[Point, ...] = ()
    measured: tuple[tuple[Point, Point], ...] = ()

    @property
    def hint_list(self) -> list[Hint]:
        """The hints in one list, in the order of ``Calibrated.residuals``."""
        near = [] if self.hints.near_m is None else [self.hints.near_m]
        return [*self.hints.anchors, *self.hints.lengths, *near, *self.hints.patches]

    def with_point(self, point: Point, mode: Mode) -> "Annotations":
        """Mark one more point; the second one of a distance completes it."""
        points = (*self.points, point) if len(self.points) < MOST[mode] else (point,)
        if mode == "distance" and len(points) == 2:
            return replace(self, points=(), measured=(*self.measured, (points[0], points[1])))
        return replace(self, points=points)

    def next_hint(self, mode: Mode, metres: float | None, along_ray: bool) -> Hints:
        """The hint that the marked points and a number of metres make.

        Raises: CalibrationError where a point or the number is lacking.
        """
        points, fov_x_deg = [*self.points], self.hints.fov_x_deg
        if mode == "patch" and len(points) >= 2:
            return Hints(patches=(Patch(self.points),), fov_x_deg=fov_x_deg)
        if mode not in ("depth", "length") or len(points) < MOST[mode]:
            raise CalibrationError(metres_text.POINTS_LACKING[mode])
        if metres is None:
            raise CalibrationError(metres_text.METRES_LACKING)
        if mode == "length":
            return Hints(lengths=(Length(*points[0], *points[1], metres),), fov_x_deg=fov_x_deg)
        anchor = Anchor(*points[0], metres, "ray" if along_ray else "axis")
        return Hints(anchors=(anchor,), fov_x_deg=fov_x_deg)

    def with_hint(self, one: Hints) -> "Annotations":
        """Add one more hint; its points are used up."""
        own = self.hints
        together = replace(
            own,
            anchors=(*own.anchors, *one.anchors),
            lengths=(*own.lengths, *one.lengths),
            patches=(*own.patches, *one.patches),
        )
        return replace(self, hints=together, points=())

    def without(self, row: int) -> "Annotations":
        """Remove a row from the hints and, after them, the measured distances; an unknown row changes nothing."""
        kept = [one for number, one in enumerate([*self.hint_list, *self.measured]) if number != row]
        hints = replace(
            self.hints,
            anchors=tuple(one for one in kept if isinstance(one, Anchor)),
            lengths=tuple(one for one in kept if isinstance(one, Length)),
            near_m=next((one for one in kept if isinstance(one, float)), None),
            patches=tuple(one for one in kept if isinstance(one, Patch)),
        )
        return replace(self, hints=hints, measured=tuple(one for one in kept if isinstance(one, tuple)))


def points_of(hint: Hint) -> tuple[Point, ...]:
    """The points of a hint on the photo; two of a patch are opposite corners of a rectangle."""
    if isinstance(hint, Anchor):
        return ((hint.x, hint.y),)
    if isinstance(hint, Length):
        return (hint.x1, hint.y1), (hint.x2, hint.y2)
    return hint.corners if isinstance(hint, Patch) else ()


# ------------------------------------------------------------------------------- the picture


def drawn_scale(prediction: Prediction) -> float:
    """Pixels of the drawn picture for one of the photo."""
    return LONGEST_PX / max(prediction.photo_size)


def draw_annotations(prediction: Prediction, annotations: Annotations, mode: Mode) -> Image.Image:
    """Draw the photo, its annotations numbered as in the results table and, for a map in metres, a scale bar."""
    scale = drawn_scale(prediction)
    height, width = (max(1, round(side * scale)) for side in prediction.photo_size)
    picture = Image.fromarray(prediction.photo).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture, "RGBA")

    def scaled(points: Sequence[Point]) -> list[Point]:
        return [(x * scale, y * scale) for x, y in points]

    given = annotations.hint_list
    for number, hint in enumerate(given, 1):
        points = scaled(points_of(hint))
        if isinstance(hint, Patch):
            _area(pen, points)
        elif not isinstance(hint, Anchor):
            _line(pen, points, GIVEN)
        _dots(pen, points, GIVEN)
        _label(pen, points, str(number), GIVEN)
    for number, pair in enumerate(annotations.measured, len(given) + 1):
        points = scaled(pair)
        _line(pen, points, MEASURED)
        _dots(pen, points, MEASURED)
        _label(pen, points, str(number), MEASURED)
    points = scaled(annotations.points)
    if mode == "patch" and len(points) >= 2:
        _area(pen, points)
    elif len(points) == 2:
        _line(pen, points, NEXT)
    _dots(pen, points, NEXT)
    _scale_bar(pen, prediction, annotations.hints.fov_x_deg or prediction.fov_x_deg, (width, height))
    return picture


def bar_length(across_m: float) -> float:
    """Metres across the whole picture -> the longest of 1, 2, 5, 10, ... metres that fits a scale bar."""
    most = BAR_SHARE * across_m
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _scale_bar(
    pen: ImageDraw.ImageDraw, prediction: Prediction, fov_x_deg: float | None, size: tuple[int, int]
) -> None:
    """Draw the length of a round number of metres at the middle depth, for a metric map of known field of view."""
    if prediction.kind != "metric" or fov_x_deg is None:
        return
    width, height = size
    depth_m = float(np.median(prediction.values))
    across_m = 2 * depth_m * math.tan(math.radians(fov_x_deg) / 2)
    length_m = bar_length(across_m)
    left, bottom = MARGIN, height - MARGIN
    right = left + width * length_m / across_m
    _line(pen, [(left, bottom), (right, bottom)], NEXT)
    for x in (left, right):
        _line(pen, [(x, bottom - 8), (x, bottom)], NEXT)
    caption = metres_text.SCALE_BAR.format(length=f"{length_m:g}", depth=f"{depth_m:.2g}")
    pen.text((left, bottom - 12), caption, NEXT, ImageFont.load_default(FONT), "ls", stroke_width=3, stroke_fill=DARK)


def _line(pen: ImageDraw.ImageDraw, points: list[Point], colour: tuple[int, int, int]) -> None:
    pen.line(points, DARK, LINE + 4)
    pen.line(points, colour, LINE)


def _dots(pen: ImageDraw.ImageDraw, points: list[Point], colour: tuple[int, int, int]) -> None:
    for point in points:
        for radius, fill in ((DOT + 2, DARK), (DOT, colour), (3, DARK)):
            pen.circle(point, radius, fill)


def _area(pen: ImageDraw.ImageDraw, corners: list[Point]) -> None:
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    pen.polygon(corners, (*GIVEN, 70))
    _line(pen, [*corners, corners[0]], GIVEN)


def _label(pen: ImageDraw.ImageDraw, points: list[Point], number: str, colour: tuple[int, int, int]) -> None:
    """Write a number beside the middle of some points, inside the picture."""
    if points:
        x, y = (sum(side) / len(points) for side in zip(*points, strict=True))
        place = min(x + 16, pen.im.size[0] - FONT), max(y - 14, FONT)
        pen.text(place, number, colour, ImageFont.load_default(FONT), "ls", stroke_width=4, stroke_fill=DARK)
