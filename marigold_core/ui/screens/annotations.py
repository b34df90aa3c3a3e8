"""What a visitor has marked on the photo: hints, points on the way to the next one, and distances to measure.

Every position is in pixels of the photo, from its top left corner, whatever the size it is shown in.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from marigold_core.calibration.anchors import Anchor, Length
from marigold_core.calibration.calibrate import Hints
from marigold_core.calibration.plane_fit import Patch
from marigold_core.errors import CalibrationError
from marigold_core.ui.text import metres as metres_text

Point = tuple[float, float]
Mode = Literal["depth", "length", "patch", "distance"]
Known = Anchor | Length | float | Patch  # a number alone is the distance of the near plane

MODES: tuple[Mode, ...] = get_args(Mode)
MOST: dict[Mode, int] = {"depth": 1, "length": 2, "patch": 12, "distance": 2}  # points; the next one begins anew


@dataclass(frozen=True)
class Marks:
    """The hints given so far, the points of the next one, and the pairs of points whose distance is asked for."""

    hints: Hints = Hints()
    points: tuple[Point, ...] = ()
    measured: tuple[tuple[Point, Point], ...] = ()

    @property
    def known(self) -> list[Known]:
        """The hints in one list, in the order of ``Calibrated.residuals``."""
        near = [] if self.hints.near_m is None else [self.hints.near_m]
        return [*self.hints.anchors, *self.hints.lengths, *near, *self.hints.patches]

    def mark(self, point: Point, mode: Mode) -> "Marks":
        """Mark one more point; the second one of a distance completes it."""
        points = (*self.points, point) if len(self.points) < MOST[mode] else (point,)
        if mode == "distance" and len(points) == 2:
            return replace(self, points=(), measured=(*self.measured, (points[0], points[1])))
        return replace(self, points=points)

    def read(self, mode: Mode, metres: float | None, straight: bool) -> Hints:
        """The one hint that the marked points and a number of metres make; ``straight``: from the camera, by tape.

        Raises: CalibrationError where a point or the number is lacking.
        """
        points, fov_x_deg = [*self.points], self.hints.fov_x_deg
        if mode == "patch" and len(points) >= 2:
            return Hints(patches=(Patch(self.points),), fov_x_deg=fov_x_deg)
        if mode not in ("depth", "length") or len(points) < MOST[mode]:
            raise CalibrationError(metres_text.MARKS_LACKING[mode])
        if metres is None:
            raise CalibrationError(metres_text.METRES_LACKING)
        if mode == "length":
            return Hints(lengths=(Length(*points[0], *points[1], metres),), fov_x_deg=fov_x_deg)
        anchor = Anchor(*points[0], metres, "ray" if straight else "axis")
        return Hints(anchors=(anchor,), fov_x_deg=fov_x_deg)

    def add(self, one: Hints) -> "Marks":
        """Take one more hint; its points are used up."""
        own = self.hints
        together = replace(
            own,
            anchors=(*own.anchors, *one.anchors),
            lengths=(*own.lengths, *one.lengths),
            patches=(*own.patches, *one.patches),
        )
        return replace(self, hints=together, points=())

    def without(self, row: int) -> "Marks":
        """Take a row out of the list of hints and, after them, measured distances; one that is not there changes
        nothing."""
        rows = [*self.known, *self.measured]
        kept = [one for number, one in enumerate(rows) if number != row]
        return replace(
            self,
            hints=replace(
                self.hints,
                anchors=tuple(one for one in kept if isinstance(one, Anchor)),
                lengths=tuple(one for one in kept if isinstance(one, Length)),
                near_m=next((one for one in kept if isinstance(one, float)), None),
                patches=tuple(one for one in kept if isinstance(one, Patch)),
            ),
            measured=tuple(one for one in kept if isinstance(one, tuple)),
        )


def places(known: Known) -> tuple[Point, ...]:
    """The points of a hint on the photo; two of a patch are opposite corners of a rectangle."""
    if isinstance(known, Anchor):
        return ((known.x, known.y),)
    if isinstance(known, Length):
        return (known.x1, known.y1), (known.x2, known.y2)
    if isinstance(known, Patch):
        return known.corners
    return ()
