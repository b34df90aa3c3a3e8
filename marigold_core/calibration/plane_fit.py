"""A flat patch marked on the photo, and what it tells of the unknown shift without the camera's focal length.

The inverse depth of a plane is affine in pixel coordinates, for any camera without lens distortion. A map whose
shift is wrong bends its planes, so the patch is fitted by value = 1 / (a + b x + c y) - ratio, in which ratio is
shift / scale; for a model that thinks in log depth it is value = -ln(a + b x + c y) / ratio, and ratio is the scale.
The noise is that of the values, so the values are what is fitted; the inverse depths, fitted, would be biased.
"""

import math
from dataclasses import dataclass

import numpy as np

from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space

LEAST_PX = 200  # pixels in a patch; fewer say nothing above the noise
LEAST_SIDE_PX = 8
MAX_PX = 200_000  # larger patches are thinned
UNFLAT = 0.03  # smooth deviation from a plane, as a share of the patch's own depth range
VAGUE = 0.25  # relative standard error of the steepness from which it determines nothing
_BLOCKS = 6  # a side, to tell deviation that is smooth from noise
# Parts of a patch that bend independently. A smooth bend is hardly seen in the residuals, as a wrong shift explains
# most of it. Of 43 flat patches on maps of depth sensors, 2 in 3 now lie within their error bar, 9 in 10 within two.
_COHERENT = 3
_NOISE = 1e-4  # of the values; keeps the error bar of a perfect plane above 0
_STEPS = 60


@dataclass(frozen=True)
class Patch:
    """A part of the photo that is flat in the world: two opposite corners of a rectangle, or a polygon's corners."""

    corners: tuple[tuple[float, float], ...]  # (x, y), pixels


@dataclass(frozen=True)
class Steepness:
    """What a patch determines: by how much ln(depth) grows per unit of value, where the value is ``at``.

    For log depth that is the scale, else 1 / (at + shift / scale), whose error is even where that of the shift is not.
    """

    name: str
    at: float
    value: float
    error: float  # standard error


@dataclass(frozen=True)
class _Fit:
    """A plane's parameters (a, b, c, ratio), residuals [N] of the values and their slopes [N, 4]."""

    parameters: np.ndarray
    residuals: np.ndarray
    slopes: np.ndarray

    @property
    def cost(self) -> float:
        return float(self.residuals @ self.residuals)


def steepness_of(patch: Patch, values: np.ndarray, space: Space, uncertainty: np.ndarray | None = None) -> Steepness:
    """Patch on a map [H, W] -> the steepness that makes it flat, with a standard error that allows for smooth noise.

    The members' spread [H, W] is taken to be smooth as well: it may bend the patch without leaving a plane.

    Raises:
        CalibrationError: the model thinks in disparity, or the patch is too small, seen too squarely or not flat.
    """
    name = _name(patch)
    if space == "disparity":
        raise CalibrationError(
            "This model predicts disparity, in which a flat patch is flat with any shift; give depths or lengths."
        )
    rows, columns = pixels_of(patch, values)
    fit = _fit(rows, columns, values, space)
    within = 3 * math.sqrt(fit.cost / rows.size)
    expected = values[rows, columns] - fit.residuals
    kept = (expected > within) & (expected < 1 - within)  # by the plane, not by the noise, which would tilt the rest
    if LEAST_PX <= np.count_nonzero(kept) < kept.size:
        rows, columns = rows[kept], columns[kept]
        fit = _fit(rows, columns, values, space)
    seen = values[rows, columns].astype(np.float64)
    depth_range = float(np.ptp(seen - fit.residuals))  # of the fitted plane
    noise = max(math.sqrt(fit.cost / seen.size), _NOISE)
    blocks = _blocks(rows, columns)
    if depth_range < 4 * noise:
        raise CalibrationError(
            f"The {name} hardly recedes, so it says nothing of the shift; mark floor or wall that leads away."
        )
    uneven = _smooth_part(fit.residuals, blocks)
    if uneven > UNFLAT * depth_range:
        raise CalibrationError(
            f"The {name} is not flat: it leaves a plane by {uneven / depth_range:.0%} of its depth range, at most "
            f"{UNFLAT:.0%} is allowed; mark a part of one flat surface."
        )
    spread = 0.0 if uncertainty is None else float(np.sqrt(np.mean(uncertainty[rows, columns].astype(np.float64) ** 2)))
    ratio, error, at = float(fit.parameters[3]), _error(fit, noise, uneven, spread, blocks), float(np.median(seen))
    found = (
        Steepness(name, at, ratio, error)
        if space == "log"
        else Steepness(name, at, 1 / (at + ratio), error / (at + ratio) ** 2)
    )
    if not found.error < VAGUE * found.value:
        raise CalibrationError(
            f"The {name} is too small, too noisy or seen too squarely to fix the shift; mark a larger one that recedes."
        )
    return found


def pixels_of(patch: Patch, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    height, width = values.shape
    if (corners < 0).any() or (corners > (width, height)).any():
        raise CalibrationError(f"The {name} lies outside the photo, which has {width} x {height} pixels.")
    (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5
    inside = np.zeros((y.size, x.size), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:  # a pixel is inside when a line to the right of it meets an odd number of edges
            inside ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    part = values[top:bottom, left:right]
    rows, columns = np.nonzero(inside & (part > 0) & (part < 1))
    if rows.size < LEAST_PX or min(len(set(rows)), len(set(columns))) < LEAST_SIDE_PX:
        raise CalibrationError(
            f"The {name} has {rows.size} usable pixels; a flat patch needs {LEAST_PX} and {LEAST_SIDE_PX} on each side."
        )
    step = -(-rows.size // MAX_PX)
    return rows[::step] + top, columns[::step] + left


def _name(patch: Patch) -> str:
    return "flat patch at " + ", ".join(f"({x:g}, {y:g})" for x, y in patch.corners[:2])


# ------------------------------------------------------------------------------- fit


def _fit(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, space: Space) -> _Fit:
    seen = values[rows, columns].astype(np.float64)
    half = max(np.ptp(rows), np.ptp(columns)) / 2
    x, y = (columns - columns.mean()) / half, (rows - rows.mean()) / half
    return _polish(_search(seen, x, y, space), seen, x, y, space)


def _search(seen: np.ndarray, x: np.ndarray, y: np.ndarray, space: Space) -> np.ndarray:
    """Try ratios from a near plane at the camera to one far away -> the best parameters [4]: a linear fit for each."""
    thin = slice(None, None, max(1, seen.size // 4000))
    seen, design = seen[thin], np.stack([np.ones_like(x), x, y], axis=1)[thin]
    ratios = np.logspace(-2, 1.3, 60) if space == "log" else np.logspace(-3, 2, 90) - seen.min()
    best, least = np.zeros(4), math.inf
    for ratio in ratios:
        inverse = np.exp(-ratio * seen) if space == "log" else 1 / (seen + ratio)
        weight = 1 / (ratio * inverse) if space == "log" else 1 / inverse**2  # to values, in which noise is even
        plane = np.linalg.lstsq(design * weight[:, None], inverse * weight, rcond=None)[0]
        cost = np.sum(((design @ plane - inverse) * weight) ** 2)
        if cost < least and (design @ plane > 0).all():
            best, least = np.array([*plane, ratio]), cost
    return best


def _polish(start: np.ndarray, seen: np.ndarray, x: np.ndarray, y: np.ndarray, space: Space) -> _Fit:
    """Levenberg-Marquardt on all four parameters, from the best of the search."""
    fit = _evaluate(start, seen, x, y, space)
    if fit is None:
        raise CalibrationError("The flat patch is not the picture of any plane; mark a part of one flat surface.")
    damping = 1e-3
    for _ in range(_STEPS):
        normal, slope = fit.slopes.T @ fit.slopes, fit.slopes.T @ fit.residuals
        try:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
        except np.linalg.LinAlgError:
            break  # a slope of 0: the error bar tells
        better = _evaluate(fit.parameters + step, seen, x, y, space)
        if better is None or better.cost > fit.cost:
            damping *= 10
            if damping > 1e9:
                break
            continue
        gain, fit, damping = fit.cost - better.cost, better, damping / 10
        if gain <= 1e-12 * fit.cost:
            break
    return fit


def _evaluate(parameters: np.ndarray, seen: np.ndarray, x: np.ndarray, y: np.ndarray, space: Space) -> _Fit | None:
    """Residuals and slopes at the parameters; None where the plane passes through the camera."""
    plane = parameters[0] + parameters[1] * x + parameters[2] * y
    ratio = parameters[3]
    if plane.min() <= 0 or (space == "log" and ratio <= 0):
        return None
    if space == "log":
        expected = -np.log(plane) / ratio
        by_plane, by_ratio = 1 / (ratio * plane), expected / ratio
    else:
        expected = 1 / plane - ratio
        by_plane, by_ratio = 1 / plane**2, np.ones_like(plane)
    slopes = np.stack([by_plane, by_plane * x, by_plane * y, by_ratio], axis=1)
    return _Fit(parameters, seen - expected, slopes)


# ------------------------------------------------------------------------------- what the residuals say


def _blocks(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The number [N] of the block that each pixel lies in, ``_BLOCKS`` a side."""
    parts = [((side - side.min()) * _BLOCKS / (np.ptp(side) + 1)).astype(int) for side in (rows, columns)]
    return parts[0] * _BLOCKS + parts[1]


def _smooth_part(residuals: np.ndarray, blocks: np.ndarray) -> float:
    """Deviation from the plane that is shared by whole blocks: what white noise leaves in their means is taken off."""
    count = np.bincount(blocks)
    used = count > 0
    mean = np.bincount(blocks, residuals)[used] / count[used]
    inside = np.bincount(blocks, residuals**2)[used] / count[used] - mean**2
    return math.sqrt(max(0.0, float(np.average(mean**2 - inside / count[used], weights=count[used]))))


def _error(fit: _Fit, noise: float, uneven: float, spread: float, blocks: np.ndarray) -> float:
    """Standard error of the ratio: of white noise, of smooth deviation from the plane, and of the members' spread."""
    try:
        inverse = np.linalg.inv(fit.slopes.T @ fit.slopes)
    except np.linalg.LinAlgError:
        return math.inf
    smooth = uneven**2 * blocks.size / _COHERENT
    members = spread**2 * blocks.size / np.count_nonzero(np.bincount(blocks))
    return math.sqrt(inverse[3, 3] * (noise**2 + smooth + members))
