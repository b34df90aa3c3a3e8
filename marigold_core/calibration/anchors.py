"""Known depths and lengths on a photo, and the equation each is for the unknown scale and shift of its map.

Values are affine in the quantity that the network predicts: scale * value + shift is the depth, its natural logarithm
or its inverse (``Space``). Values always grow with distance, so the scale of a disparity is negative.
"""

import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space
from marigold_core.settings import MeshSettings, bounds

ANCHOR_FORM, LENGTH_FORM, PATCH_FORM = "x,y,metres", "x1,y1,x2,y2,metres", "x0,y0,x1,y1"  # as people write hints
MIN_NOISE = 1e-3  # of the map's range: what half precision and the photo's own grain leave uncertain anywhere
_WINDOW = 3  # pixels to each side that the noise of a map is estimated from

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
class Residual:
    """The value that a hint gives and the value found on the calibrated map."""

    hint: str
    given: float
    found: float
    unit: Literal["m", "steepness"]


@dataclass(frozen=True)
class Equation:
    """|sum of depth(value) * ray| = metres: one term for a depth, two of opposite sign for a length."""

    name: str
    values: np.ndarray  # [k] of the map
    noise: np.ndarray  # [k] standard errors of the values
    rays: np.ndarray  # [k, 3], z = 1 or -1 unless the distance is along the axis
    metres: float

    def evaluate(self, space: Space, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scale, shift) [..., 2] -> (metres [...], their derivatives by both [..., 2] and by the values [..., k])."""
        affine = unknowns[..., :1] * self.values + unknowns[..., 1:]
        depth, slope = depth_from_affine(affine, space)
        vector = depth @ self.rays
        length = np.linalg.norm(vector, axis=-1)
        by_affine = vector @ self.rays.T / np.maximum(length, 1e-300)[..., None] * slope
        by_unknowns = np.stack([by_affine @ self.values, by_affine.sum(axis=-1)], axis=-1)
        return length, by_unknowns, by_affine * unknowns[..., :1]


def depth_from_affine(affine: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Affine value, scale * value + shift [...] -> (depth [...], its derivative [...])."""
    if space == "log":
        depth = np.exp(affine)
        return depth, depth
    if space == "disparity":
        return 1 / affine, -1 / affine**2
    return affine, np.ones_like(affine)


def affine_from_depth(depth: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Depth [...] > 0 -> (scale * value + shift [...], its derivative [...]): the inverse of ``depth_from_affine``."""
    if space == "log":
        return np.log(depth), 1 / depth
    return depth_from_affine(depth, space)  # the others are their own inverse


class EquationBuilder:
    """Makes equations of hints on one map [H, W], NaN where it has no value; CalibrationError for unusable hints.

    Positions are in pixels of the photo, of ``photo_size`` (height, width), which may be larger than the map.
    """

    def __init__(
        self,
        values: np.ndarray,
        uncertainty: np.ndarray | None,
        fov_x_deg: float | None,
        photo_size: tuple[int, int] | None = None,
    ) -> None:
        self._map = values
        self._photo_size = photo_size or values.shape
        self._uncertainty = uncertainty
        self._min_noise = MIN_NOISE * float(np.nanmax(values) - np.nanmin(values))
        self._fov_x_deg = fov_x_deg
        low, high = bounds(MeshSettings, "fov_x_deg")
        if fov_x_deg is not None and not low <= fov_x_deg <= high:
            raise CalibrationError(f"fov_x_deg must be {low:g} to {high:g} degrees, but got {fov_x_deg:g}.")

    def anchor(self, anchor: Anchor) -> Equation:
        """Known depth -> its equation."""
        name = f"depth at ({anchor.x:g}, {anchor.y:g})"
        ray = self._ray(anchor.x, anchor.y, name) if anchor.along == "ray" else np.array([0.0, 0.0, 1.0])
        return self._equation(name, [(anchor.x, anchor.y)], ray[None], anchor.metres)

    def length(self, length: Length) -> Equation:
        """Known length -> its equation."""
        name = f"length from ({length.x1:g}, {length.y1:g}) to ({length.x2:g}, {length.y2:g})"
        if self.pixel(length.x1, length.y1, name) == self.pixel(length.x2, length.y2, name):
            raise CalibrationError(f"The {name} starts and ends in the same pixel; mark two that lie apart.")
        rays = np.stack([self._ray(length.x1, length.y1, name), -self._ray(length.x2, length.y2, name)])
        return self._equation(name, [(length.x1, length.y1), (length.x2, length.y2)], rays, length.metres)

    def near_plane(self, metres: float) -> Equation:
        """Distance of the plane where the map is 0 -> its equation."""
        name = "near plane"
        axis = np.array([[0.0, 0.0, 1.0]])
        return Equation(name, np.zeros(1), np.array([self._min_noise]), axis, _checked_metres(metres, name))

    def pixel(self, x: float, y: float, name: str) -> tuple[int, int]:
        """Position on the photo -> (row, column) of the map; ``name`` is that of the hint in an error."""
        height, width = self._photo_size
        if not (0 <= x < width and 0 <= y < height):
            raise CalibrationError(f"The {name} lies outside the photo, which has {width} x {height} pixels.")
        rows, columns = self._map.shape
        return int(y * rows / height), int(x * columns / width)

    def _ray(self, x: float, y: float, name: str) -> np.ndarray:
        """Position on the photo -> the ray [3] of its pixel, z = 1."""
        from marigold_core.geometry.camera import pixel_rays

        if self._fov_x_deg is None:
            raise CalibrationError(f"The {name} needs the camera's field of view (fov_x_deg), which the photo lacks.")
        pixel = self.pixel(x, y, name)
        return np.array([*(ratio[pixel] for ratio in pixel_rays(self._map.shape, self._fov_x_deg)), 1.0], np.float64)

    def _equation(self, name: str, points: Sequence[tuple[float, float]], rays: np.ndarray, metres: float) -> Equation:
        pixels = [self.pixel(x, y, name) for x, y in points]
        values = np.array([self._map[pixel] for pixel in pixels], np.float64)
        if not np.isfinite(values).all():
            raise CalibrationError(f"The {name} lies where the depth map has no value; mark another place.")
        noise = np.array([self._noise(*pixel) for pixel in pixels])
        return Equation(name, values, noise, rays, _checked_metres(metres, name))

    def _noise(self, row: int, column: int) -> float:
        """Standard error of one value: the members' spread, and grain, from second differences around the pixel."""
        rows, columns = (slice(max(0, at - _WINDOW), at + _WINDOW + 1) for at in (row, column))
        window = self._map[rows, columns].astype(np.float64)
        bends = np.concatenate([np.diff(window, 2, axis).ravel() for axis in (0, 1)])
        # The median second difference of white noise of deviation 1 is 0.6745 * sqrt(1 + 4 + 1); that of a slope is 0.
        bends = bends[np.isfinite(bends)]
        grain = float(np.median(np.abs(bends))) / (0.6745 * math.sqrt(6)) if bends.size else 0.0
        spread = 0.0 if self._uncertainty is None else float(self._uncertainty[row, column])
        return math.hypot(grain, spread, self._min_noise)


def _checked_metres(metres: float, name: str) -> float:
    if not (math.isfinite(metres) and metres > 0):
        raise CalibrationError(f"The {name} must be a number of metres above 0, but got {metres:g}.")
    return float(metres)


# ------------------------------------------------------------------------------- numbers from text and JSON


def read_numbers(text: str | None, form: str) -> list[tuple[float, ...]]:
    """Numbers in groups, "1,2,3; 4,5,6" for the form "x,y,m" -> one tuple a group.

    Raises:
        CalibrationError: a group is not of that form.
    """
    groups = [group for group in re.split(r"[;\s]+", re.sub(r"\s*,\s*", ",", text or "")) if group]
    return [
        _numbers(
            group.split(","), form, f"Expected numbers like {form}, groups parted by a semicolon, but got {group!r}."
        )
        for group in groups
    ]


def check_numbers(name: str, groups: object, form: str) -> list[tuple[float, ...]]:
    """Decoded JSON, [[1, 2, 3], [4, 5, 6]] or null for the form "x,y,m" -> one tuple a group.

    Raises:
        CalibrationError: a group is not of that form; the message names the value ``name``.
    """
    listed = cast(list[object], groups) if isinstance(groups, list) else [] if groups is None else [groups]
    return [
        _numbers(group, form, f"{name} must be a list of [{form}], but got {reprlib.repr(group)}.", strict=True)
        for group in listed
    ]


def _numbers(group: object, form: str, refusal: str, strict: bool = False) -> tuple[float, ...]:
    """A list of as many numbers as the form has, ``strict`` without strings -> tuple; CalibrationError otherwise."""
    count = form.count(",") + 1
    numbers = TypeAdapter(Annotated[list[float], Field(min_length=count, max_length=count)])
    try:
        return tuple(numbers.validate_python(group, strict=strict))
    except ValidationError:
        raise CalibrationError(refusal) from None
