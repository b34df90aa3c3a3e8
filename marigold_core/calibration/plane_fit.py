"""A flat patch marked on the photo, and what it determines of the shift without the camera's focal length.

The inverse depth of a plane is affine in pixel coordinates, for any camera without lens distortion. A map whose
shift is wrong bends its planes, so the patch is fitted by value = 1 / (a + b x + c y) - ratio, in which ratio is
shift / scale; for a model that predicts log depth it is value = -ln(a + b x + c y) / ratio, and ratio is the scale.
The noise is that of the values, so the values are what is fitted; the inverse depths, fitted, would be biased.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw

from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space

MIN_PX = 200  # pixels in a patch; fewer determine nothing above the noise
MIN_SIDE_PX = 8
MAX_PX = 200_000  # larger patches are thinned
MAX_UNEVENNESS = 0.03  # smooth deviation from a plane, as a share of the patch's own depth range
MAX_RELATIVE_ERROR = 0.25  # relative standard error of the slope from which it determines nothing
_BLOCKS = 6  # a side, to tell deviation that is smooth from noise
# Parts of a patch that bend independently. A smooth bend is hardly seen in the residuals, as a wrong shift explains
# most of it. Of 43 flat patches on maps of depth sensors, 2 in 3 now lie within their error bar, 9 in 10 within two.
_INDEPENDENT_PARTS = 3
_MIN_NOISE = 1e-4  # of the values; keeps the error bar of a perfect plane above 0

# Unknowns [n] -> (residuals [N], their derivatives [N, n]); residuals are infinite where there is no solution.
Residuals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Patch:
    """A part of the photo that is flat in the world: two opposite corners of a rectangle, or a polygon's corners."""

    corners: tuple[tuple[float, float], ...]  # (x, y), pixels


@dataclass(frozen=True)
class PatchSlope:
    """What a patch determines: by how much ln(depth) grows per unit of value, where the value is ``at``.

    For log depth that is the scale, else 1 / (at + shift / scale), whose error is even where that of the shift is not.
    """

    name: str
    at: float
    value: float
    error: float  # standard error


def fit_patch(
    patch: Patch,
    values: np.ndarray,
    space: Space,
    uncertainty: np.ndarray | None = None,
    photo_size: tuple[int, int] | None = None,
) -> PatchSlope:
    """Patch on a map [H, W] -> the slope of ln(depth) that makes it flat; its error allows for smooth deviations.

    Corners are in pixels of the photo, of ``photo_size`` (height, width) where that is larger. The members' spread
    [H, W] is taken to be smooth as well: it may bend the patch without leaving a plane.

    Raises:
        CalibrationError: the model predicts disparity, or the patch is too small, seen too squarely or not flat.
    """
    name = _name(patch)
    if space == "disparity":
        raise CalibrationError(
            "This model predicts disparity, in which a flat patch is flat with any shift; give depths or lengths."
        )
    rows, columns = pixels_of(patch, values, photo_size)
    unknowns, residuals, slopes = _fit_plane(rows, columns, values, space)
    margin = 3 * math.sqrt(np.mean(residuals**2))
    fitted = values[rows, columns] + residuals
    kept = (fitted > margin) & (fitted < 1 - margin)  # by the plane, not by the noise, which would tilt the rest
    if MIN_PX <= np.count_nonzero(kept) < kept.size:
        rows, columns = rows[kept], columns[kept]
        unknowns, residuals, slopes = _fit_plane(rows, columns, values, space)
    seen = values[rows, columns].astype(np.float64)
    depth_range = float(np.ptp(seen + residuals))  # of the fitted plane
    noise = max(math.sqrt(np.mean(residuals**2)), _MIN_NOISE)
    if depth_range < 4 * noise:
        raise CalibrationError(
            f"The depth of the {name} hardly varies, so it does not determine the shift; "
            "mark a floor or wall that leads away from the camera."
        )
    blocks = _blocks(rows, columns)
    unevenness = _smooth_deviation(residuals, blocks)
    if unevenness > MAX_UNEVENNESS * depth_range:
        raise CalibrationError(
            f"The {name} is not flat: it leaves a plane by {unevenness / depth_range:.0%} of its depth range, at most "
            f"{MAX_UNEVENNESS:.0%} is allowed; mark a part of one flat surface."
        )
    spread = 0.0 if uncertainty is None else math.sqrt(np.mean(uncertainty[rows, columns].astype(np.float64) ** 2))
    ratio, at = float(unknowns[3]), float(np.median(seen))
    error = _ratio_error(slopes, noise, unevenness, spread, blocks)
    slope = PatchSlope(name, at, ratio, error)
    if space == "depth":
        slope = PatchSlope(name, at, 1 / (at + ratio), error / (at + ratio) ** 2)
    if not slope.error < MAX_RELATIVE_ERROR * slope.value:
        raise CalibrationError(
            f"The {name} is too small, too noisy or seen too squarely to fix the shift; mark a larger one that recedes."
        )
    return slope


def pixels_of(
    patch: Patch, values: np.ndarray, photo_size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [N] of a patch's pixels on a map [H, W], at most ``MAX_PX``, without those clipped to 0 or 1.

    Raises:
        CalibrationError: no polygon, outside the photo, or too small.
    """
    name = _name(patch)
    corners = np.asarray(patch.corners, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 2 or not np.isfinite(corners).all():
        raise CalibrationError("A flat patch needs two opposite corners, or three or more corners of a polygon.")
    if len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    height, width = photo_size or values.shape
    if (corners < 0).any() or (corners > (width, height)).any():
        raise CalibrationError(f"The {name} lies outside the photo, which has {width} x {height} pixels.")
    corners = corners * (values.shape[1] / width, values.shape[0] / height)
    (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    # Drawn twice as large, the centre of pixel (x, y) is (2 x + 1, 2 y + 1), between corners that lie on whole pixels.
    drawing = Image.new("L", (2 * int(right - left) + 1, 2 * int(bottom - top) + 1))
    outline = np.rint(2 * (corners - (left, top))).astype(int)
    ImageDraw.Draw(drawing).polygon(outline.ravel().tolist(), fill=1)
    part = values[top:bottom, left:right]
    usable = (np.asarray(drawing)[1::2, 1::2] > 0) & (part > 0) & (part < 1)
    rows, columns = np.nonzero(usable)
    if rows.size < MIN_PX or min(np.count_nonzero(usable.any(axis)) for axis in (0, 1)) < MIN_SIDE_PX:
        raise CalibrationError(
            f"The {name} has {rows.size} usable pixels; a flat patch needs {MIN_PX} and {MIN_SIDE_PX} on each side."
        )
    step = -(-rows.size // MAX_PX)
    return rows[::step] + top, columns[::step] + left


def minimise(
    residuals: Residuals,
    start: np.ndarray,
    loss: str | Callable[[np.ndarray], np.ndarray] = "linear",
    scale: float = 1.0,
    tolerance: float = 1e-14,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares from a start [n] by scipy -> (unknowns [n], residuals [N], derivatives [N, n]).

    Residuals are divided by ``scale`` before the robust ``loss`` is applied; steps to infinite ones are shortened.
    """
    from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]  # half a second, for those who calibrate

    @lru_cache(2)  # scipy asks for residuals and derivatives one by one
    def evaluate(unknowns: bytes) -> tuple[np.ndarray, np.ndarray]:
        return residuals(np.frombuffer(unknowns))

    def values(unknowns: np.ndarray) -> np.ndarray:
        return evaluate(unknowns.tobytes())[0]

    def derivatives(unknowns: np.ndarray) -> np.ndarray:
        return evaluate(unknowns.tobytes())[1]

    tolerances = dict.fromkeys(("xtol", "ftol", "gtol"), tolerance)
    least_squares = cast(Any, optimize).least_squares
    found = least_squares(values, start, derivatives, loss=loss, f_scale=scale, x_scale="jac", **tolerances)
    return found.x, *evaluate(found.x.tobytes())


def _name(patch: Patch) -> str:
    return "flat patch at " + ", ".join(f"({x:g}, {y:g})" for x, y in patch.corners[:2])


# ------------------------------------------------------------------------------- fit


def _fit_plane(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, space: Space
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of a map -> (a, b, c and ratio [4], fitted minus given values [N], their derivatives [N, 4])."""
    seen = values[rows, columns].astype(np.float64)
    half = max(np.ptp(rows), np.ptp(columns)) / 2
    x, y = (columns - columns.mean()) / half, (rows - rows.mean()) / half
    design = np.stack([np.ones_like(x), x, y], axis=1)

    def residuals(unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inverse, ratio = design @ unknowns[:3], unknowns[3]
        if inverse.min() <= 0 or (space == "log" and ratio <= 0):  # the plane passes through the camera
            return np.full_like(seen, np.inf), np.zeros((seen.size, 4))
        fitted = -np.log(inverse) / ratio if space == "log" else 1 / inverse - ratio
        by_inverse = -1 / (ratio * inverse) if space == "log" else -1 / inverse**2
        by_ratio = -fitted / ratio if space == "log" else -np.ones_like(fitted)
        return fitted - seen, np.column_stack([by_inverse[:, None] * design, by_ratio])

    thin = slice(None, None, max(1, seen.size // 4000))
    start = _search_ratio(seen[thin], design[thin], space)
    if start is None or not np.isfinite(residuals(start)[0]).all():
        raise CalibrationError("The flat patch is not the picture of any plane; mark a part of one flat surface.")
    return minimise(residuals, start, tolerance=1e-9)


def _search_ratio(seen: np.ndarray, design: np.ndarray, space: Space) -> np.ndarray | None:
    """Try ratios from a near plane at the camera to one far away -> the best unknowns [4]: a linear fit for each."""
    best, least = None, math.inf
    ratios: np.ndarray = np.logspace(-2, 1.3, 60) if space == "log" else np.logspace(-3, 2, 90) - seen.min()
    for ratio in map(float, ratios):
        inverse: np.ndarray = np.exp(-ratio * seen) if space == "log" else 1 / (seen + ratio)
        weight = 1 / (ratio * inverse) if space == "log" else 1 / inverse**2  # to values, in which noise is even
        plane = cast(np.ndarray, np.linalg.lstsq(design * weight[:, None], inverse * weight, rcond=None)[0])
        fitted = design @ plane
        cost = float(np.sum(((fitted - inverse) * weight) ** 2))
        if cost < least and (fitted > 0).all():
            best, least = np.array([*plane, ratio]), cost
    return best


# ------------------------------------------------------------------------------- errors


def _blocks(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The number [N] of the block that each pixel lies in, ``_BLOCKS`` a side."""
    parts = [((side - side.min()) * _BLOCKS / (np.ptp(side) + 1)).astype(int) for side in (rows, columns)]
    return parts[0] * _BLOCKS + parts[1]


def _smooth_deviation(residuals: np.ndarray, blocks: np.ndarray) -> float:
    """Deviation from the plane that is common to whole blocks, less what white noise leaves in their means."""
    count = np.bincount(blocks)
    used = count > 0
    mean = np.bincount(blocks, residuals)[used] / count[used]
    variance = np.bincount(blocks, residuals**2)[used] / count[used] - mean**2
    return math.sqrt(max(0.0, float(np.average(mean**2 - variance / count[used], weights=count[used]))))


def _ratio_error(slopes: np.ndarray, noise: float, unevenness: float, spread: float, blocks: np.ndarray) -> float:
    """Standard error of the ratio: of white noise, of smooth deviation from the plane, and of the members' spread."""
    try:
        inverse = np.linalg.inv(slopes.T @ slopes)
    except np.linalg.LinAlgError:
        return math.inf
    smooth = unevenness**2 * blocks.size / _INDEPENDENT_PARTS
    members = spread**2 * blocks.size / np.count_nonzero(np.bincount(blocks))
    return math.sqrt(inverse[3, 3] * (noise**2 + smooth + members))
