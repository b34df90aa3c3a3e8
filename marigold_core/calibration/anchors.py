"""What a person knows of a photo in metres, and the equation each such hint is for the unknown scale and shift.

A map's values are a straight line of what its model thinks in: scale * value + shift is the depth, its natural
logarithm or its inverse. Values always grow with distance, so the scale of a disparity is negative.
"""

import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space

ANCHOR_FORM, LENGTH_FORM, PATCH_FORM = "x,y,metres", "x1,y1,x2,y2,metres", "x0,y0,x1,y1"  # as people write hints
LEAST_NOISE = 1e-3  # of the map's range: what half precision and the photo's own grain leave uncertain anywhere
_WINDOW = 3  # pixels to each side that the noise of a map is read from


Along = Literal["axis", "ray"]


@dataclass(frozen=True)
class Anchor:
    """A pixel of the photo whose distance is known: along the optical axis, or along its own ray from the camera."""

    x: float
    y: float
    metres: float
    along: Along = "axis"


@dataclass(frozen=True)
class Length:
    """Two pixels of the photo whose distance from each other is known."""

    x1: float
    y1: float
    x2: float
    y2: float
    metres: float


@dataclass(frozen=True)
class Equation:
    """|sum of depth(value) * ray| = metres: one term for a depth, two of opposite sign for a length."""

    name: str
    values: np.ndarray  # [k]
    noise: np.ndarray  # [k] standard errors of the values
    rays: np.ndarray  # [k, 3], z = 1 or -1 unless the distance is along the axis
    metres: float

    def measure(self, space: Space, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scale, shift) [..., 2] -> (metres on that map [...], slopes by both [..., 2] and by values [..., k])."""
        line = unknowns[..., :1] * self.values + unknowns[..., 1:]
        depth, slope = depth_of(line, space)
        arrow = depth @ self.rays
        length = np.linalg.norm(arrow, axis=-1)
        by_line = arrow @ self.rays.T / np.maximum(length, 1e-300)[..., None] * slope
        by_unknowns = np.stack([by_line @ self.values, by_line.sum(axis=-1)], axis=-1)
        return length, by_unknowns, by_line * unknowns[..., :1]


@dataclass(frozen=True)
class Residual:
    """What a hint said and what the calibrated map says there."""

    hint: str
    given: float
    found: float
    unit: Literal["m", "steepness"]


def depth_of(line: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Straight line [...] in what the model thinks in -> (depth [...], its slope by the line [...])."""
    if space == "log":
        depth = np.exp(line)
        return depth, depth
    if space == "disparity":
        return 1 / line, -1 / line**2
    return line, np.ones_like(line)


def line_of(depth: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Depth [...] > 0 -> (what the model thinks in [...], its slope by depth [...]): the way back of ``depth_of``."""
    if space == "log":
        return np.log(depth), 1 / depth
    if space == "disparity":
        return 1 / depth, -1 / depth**2
    return depth, np.ones_like(depth)


class Reader:
    """Reads hints off one map: values, noise and rays at pixels that are checked to lie in the photo."""

    def __init__(self, values: np.ndarray, uncertainty: np.ndarray | None, fov_x_deg: float | None) -> None:
        self._map = values
        self._spread = uncertainty
        self._least = LEAST_NOISE * float(np.ptp(self._map))
        self._fov_x_deg = fov_x_deg
        self._rays: np.ndarray | None = None

    def anchor(self, anchor: Anchor) -> Equation:
        """Known depth -> its equation. Raises: CalibrationError for a bad pixel or length, or a ray without view."""
        name = f"depth at ({anchor.x:g}, {anchor.y:g})"
        ray = self.ray(anchor.x, anchor.y, name) if anchor.along == "ray" else np.array([0.0, 0.0, 1.0])
        return self._equation(name, [(anchor.x, anchor.y)], ray[None], anchor.metres)

    def length(self, length: Length) -> Equation:
        """Known length -> its equation. Raises: CalibrationError for a bad pixel or length, or without view."""
        name = f"length from ({length.x1:g}, {length.y1:g}) to ({length.x2:g}, {length.y2:g})"
        if self.pixel(length.x1, length.y1, name) == self.pixel(length.x2, length.y2, name):
            raise CalibrationError(f"The {name} starts and ends in the same pixel; mark two that lie apart.")
        rays = np.stack([self.ray(length.x1, length.y1, name), -self.ray(length.x2, length.y2, name)])
        return self._equation(name, [(length.x1, length.y1), (length.x2, length.y2)], rays, length.metres)

    def near_plane(self, metres: float) -> Equation:
        """Distance of the plane where the map is 0 -> its equation. Raises: CalibrationError for a bad distance."""
        name = "near plane"
        zero, ahead = np.zeros(1), np.array([[0.0, 0.0, 1.0]])
        return Equation(name, zero, np.array([self._least]), ahead, _checked_metres(metres, name))

    def pixel(self, x: float, y: float, name: str) -> tuple[int, int]:
        """Position on the photo -> (row, column). Raises: CalibrationError where it lies outside."""
        height, width = self._map.shape
        if not (0 <= x < width and 0 <= y < height):
            raise CalibrationError(f"The {name} lies outside the photo, which has {width} x {height} pixels.")
        return int(y), int(x)

    def ray(self, x: float, y: float, name: str) -> np.ndarray:
        """Position on the photo -> its ray [3] with z = 1. Raises: CalibrationError without a field of view."""
        if self._fov_x_deg is None:
            raise CalibrationError(f"The {name} needs the camera's field of view (fov_x_deg), which the photo lacks.")
        if not 0 < self._fov_x_deg < 180:
            raise CalibrationError(f"fov_x_deg must lie between 0 and 180 degrees, but got {self._fov_x_deg:g}.")
        if self._rays is None:
            from marigold_core.geometry.camera import unproject

            self._rays = unproject(np.ones_like(self._map), self._fov_x_deg)
        return self._rays[self.pixel(x, y, name)].astype(np.float64)

    def _equation(self, name: str, places: Sequence[tuple[float, float]], rays: np.ndarray, metres: float) -> Equation:
        pixels = [self.pixel(x, y, name) for x, y in places]
        values = np.array([self._map[pixel] for pixel in pixels], np.float64)
        noise = np.array([self._noise(*pixel) for pixel in pixels])
        return Equation(name, values, noise, rays, _checked_metres(metres, name))

    def _noise(self, row: int, column: int) -> float:
        """Standard error of one value: spread of the members, and grain, read from second differences around it."""
        around = self._map[
            max(0, row - _WINDOW) : row + _WINDOW + 1, max(0, column - _WINDOW) : column + _WINDOW + 1
        ].astype(np.float64)
        bends = np.concatenate([np.diff(around, 2, axis).ravel() for axis in (0, 1)])
        # The median bend of white noise of deviation 1 is 0.6745 * sqrt(1 + 4 + 1); a slope has none.
        grain = float(np.median(np.abs(bends))) / (0.6745 * math.sqrt(6)) if bends.size else 0.0
        spread = float(self._spread[row, column]) if self._spread is not None else 0.0
        return math.hypot(grain, spread, self._least)


def _checked_metres(metres: float, name: str) -> float:
    if not (math.isfinite(metres) and metres > 0):
        raise CalibrationError(f"The {name} must be a number of metres above 0, but got {metres:g}.")
    return float(metres)


# ------------------------------------------------------------------------------- words


def read_numbers(text: str | None, form: str) -> list[tuple[float, ...]]:
    """Numbers in groups, "1,2,3; 4,5,6" for the form "x,y,m" -> one tuple a group.

    Raises: CalibrationError where a group is not as the form says.
    """
    groups = [group for group in re.split(r"[;\s]+", re.sub(r"\s*,\s*", ",", text or "")) if group]
    numbers = []
    for group in groups:
        try:
            numbers.append(tuple(map(float, group.split(","))))
        except ValueError:
            numbers.append(())
        if len(numbers[-1]) != _count(form):
            raise CalibrationError(f"Expected numbers like {form}, groups parted by a semicolon, but got {group!r}.")
    return numbers


def check_numbers(name: str, groups: object, form: str) -> list[tuple[float, ...]]:
    """Decoded JSON, [[1, 2, 3], [4, 5, 6]] or null for the form "x,y,m" -> one tuple a group.

    Raises: CalibrationError, with the ``name`` of the value, where a group is not as the form says.
    """
    numbers = []
    for group in groups if isinstance(groups, list) else [] if groups is None else [groups]:
        if (
            not isinstance(group, list)
            or len(group) != _count(form)
            or not all(type(number) in (int, float) for number in group)  # a bool is no number
        ):
            raise CalibrationError(f"{name} must be a list of [{form}], but got {reprlib.repr(group)}.")
        numbers.append(tuple(map(float, group)))
    return numbers


def _count(form: str) -> int:
    return form.count(",") + 1
