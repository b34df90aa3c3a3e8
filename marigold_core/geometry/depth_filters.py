"""Arrays on the way from a depth map to geometry: the grid, smoothing, crisp edges, no stray pieces.

A predicted map is soft where one thing ends before another: its decoder blurs every depth jump over several pixels.
Left alone, such a ramp becomes a rubber sheet, and cutting it by slope leaves ragged rims. ``sharpen`` first makes
it one step, so that a cut follows the outline.
"""

import math
from functools import reduce

import numpy as np

GRID_PX = 1024  # longest side of the grid that geometry is made on
RAMP_RADIUS = 0.008  # of the longest side: half as wide as decoders blur a jump
TOGGLES = 2  # the second time, what is left of a ramp lies beside a step
SMOOTHING_RADIUS = 0.012  # of the longest side
SPECK_SHARE = 1e-3  # pieces below this share of the largest are not worth showing


def sample_grid(shape: tuple[int, ...], max_triangles: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of a map that geometry is made on: at most ``GRID_PX`` a side and ``max_triangles`` in all.

    Pixels are picked, never averaged: an average across a depth jump would be a point in mid-air.
    """
    height, width = shape[:2]
    scale = min(1.0, GRID_PX / max(height, width))
    if max_triangles is not None:
        scale = min(scale, math.sqrt(max_triangles / (2 * height * width)))
    rows, cols = (np.linspace(0, side - 1, max(2, int(side * scale))) for side in (height, width))
    return np.rint(rows).astype(int), np.rint(cols).astype(int)


def grid_faces(height: int, width: int) -> np.ndarray:
    """[2 (h - 1)(w - 1), 3] int32 triangles of a row-major grid of vertices, turned toward the camera.

    The upper triangles of all cells come first, then the lower ones.
    """
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    top_left, top_right = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    low_left, low_right = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    upper, lower = (top_left, low_left, top_right), (top_right, low_left, low_right)
    return np.concatenate([np.stack(upper, axis=1), np.stack(lower, axis=1)])


def smooth(values: np.ndarray, strength: float) -> np.ndarray:
    """[H, W] -> the same with bumps below the standard deviation ``strength`` levelled, edges and slopes kept.

    The guided filter, the map being its own guide; its cost does not depend on the radius. 0 changes nothing.

    Source: He, Sun and Tang, Guided Image Filtering, TPAMI 2013, equations 5, 6 and 8.
    """
    if strength == 0:
        return values
    radius = _radius(values, SMOOTHING_RADIUS)
    mean = _box_mean(values, radius)
    variance = np.maximum(_box_mean(values.astype(np.float64) ** 2, radius) - mean**2, 0)
    kept = variance / (variance + strength**2)
    smoothed = _box_mean(kept, radius) * values + _box_mean((1 - kept) * mean, radius)
    return smoothed.astype(values.dtype)


def sharpen(z: np.ndarray, share: float) -> np.ndarray:
    """[H, W] z > 0 -> the same with blurred depth jumps above ``share`` made steps of one pixel; 0 changes nothing.

    Toggle mapping: a pixel of a jump takes the least or the greatest depth around it, whichever is closer. Where the
    disparity goes on to change beyond a jump's width there is a slope, which stays.

    Source: Kramer and Bruckner, Iterations of a non-linear transformation for enhancement of digital images, 1975.
    """
    radius = _radius(z, RAMP_RADIUS)
    for _ in range(TOGGLES if share else 0):
        low, high = _around(np.minimum, z, radius), _around(np.maximum, z, radius)
        wide_low, wide_high = _around(np.minimum, low, radius), _around(np.maximum, high, radius)
        jumps = (high - low > share * low) & (1 / wide_low - 1 / wide_high < 1.5 * (1 / low - 1 / high))
        z = np.where(jumps, np.where(z * z < low * high, low, high), z)
    return z


def edge_mask(z: np.ndarray, edge_cut: float) -> np.ndarray:
    """[H, W] z > 0 -> [H, W] bool: True where z jumps by more than the share ``edge_cut`` within 3x3; 0 finds none."""
    if edge_cut == 0:
        return np.zeros(z.shape, bool)
    return _around(np.maximum, z, 1) - _around(np.minimum, z, 1) > edge_cut * z


def cut_faces(z: np.ndarray, kept: np.ndarray, edge_cut: float) -> np.ndarray:
    """[H, W] z > 0 and which of its pixels are wanted -> [M, 3] triangles of its grid.

    Left out: those with an unwanted corner, those that span a depth jump above ``edge_cut``, and specks.
    """
    height, width = z.shape
    faces = grid_faces(height, width)
    good = np.all(kept.ravel()[faces], axis=1)
    if edge_cut:
        corners = z.ravel()[faces]
        low = corners.min(axis=1)
        good &= corners.max(axis=1) - low <= edge_cut * low
    halves = good.reshape(2, height - 1, width - 1)
    return faces[(halves & without_specks(np.logical_or(*halves))).ravel()]


def without_specks(mask: np.ndarray) -> np.ndarray:
    """[H, W] bool -> the same without pieces, joined along rows and columns, below ``SPECK_SHARE`` of the largest."""
    if not mask.any():
        return mask
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    run = np.cumsum(starts).reshape(mask.shape) - 1  # which stretch of a row a pixel belongs to
    touching = mask[:-1] & mask[1:] & (starts[:-1] | starts[1:])  # the first pixel that two stretches share
    upper, lower = run[:-1][touching], run[1:][touching]
    piece = np.arange(run[-1, -1] + 1)  # the least stretch that each is known to hang together with
    while ((one := piece[upper]) != (other := piece[lower])).any():
        np.minimum.at(piece, np.maximum(one, other), np.minimum(one, other))
        while (piece[piece] != piece).any():
            piece = piece[piece]
    size = np.bincount(piece[run[mask]], minlength=len(piece))
    return mask & (size >= SPECK_SHARE * size.max())[piece[run]]


def _radius(values: np.ndarray, share: float) -> int:
    return max(1, round(share * max(values.shape)))


def _around(pick: np.ufunc, values: np.ndarray, radius: int) -> np.ndarray:
    """The least (``np.minimum``) or greatest (``np.maximum``) value of the square window around each pixel."""
    height, width = values.shape
    padded = np.pad(values, radius, mode="edge")
    rows = reduce(pick, (padded[shift : shift + height] for shift in range(2 * radius + 1)))
    return reduce(pick, (rows[:, shift : shift + width] for shift in range(2 * radius + 1)))


def _box_mean(values: np.ndarray, radius: int) -> np.ndarray:
    """[H, W] -> [H, W] float64 mean of the square window around each pixel, as much of it as lies in the map."""
    for _ in range(2):
        side = len(values)
        sums = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
        first, last = np.maximum(np.arange(side) - radius, 0), np.minimum(np.arange(side) + radius + 1, side)
        values = ((sums[last] - sums[first]) / (last - first)[:, None]).T  # the other axis comes next
    return values
