"""Outlines: jumps of depth are moved onto the outlines of the photo and made steep.

A network says where things end to within a few of its pixels, and its decoder blurs each jump over as many. The photo
is sharper: a network that was trained for it, where the checkpoint has one, or else a guided filter moves depth to
where the photo changes, and what is still a ramp there becomes a step. What is no jump is left as it was, so that the
pattern of a wallpaper does not become relief.
"""

from itertools import combinations_with_replacement

import numpy as np

from marigold_core.geometry.depth_filters import box_mean, extrema, find_jumps
from marigold_core.images.differences import resize_map
from marigold_core.pipeline.displacement import DisplacementNetwork

WORK_PX = 1024  # longest edge of the maps that are filtered: larger photos cost no more time and memory
GUIDED_PX, RAMP_PX = 3.2, 2.0  # radii in pixels of the network: how far off its jumps are, and how wide
MOVED_RAMP_PX = 1.0  # how wide they still are when the displacement network has moved them
SMOOTHEST = 1e-3  # variance of the photo, in [0, 1], below which it has no outlines
NEAR = 1 / 3  # nearest depth in units of the depth range, which affine depth does not know: 0.25 of the farthest
LEAST_JUMP = 0.12  # as a share of the depth; what is less is relief
STEEPNESS, PASSES = 12.0, 2  # of the curve that takes the place of a ramp; the second time it is the narrower


def follow_outlines(
    values: np.ndarray, photo: np.ndarray, network_px: int, network: DisplacementNetwork | None = None
) -> np.ndarray:
    """Move the jumps of depth [H, W] onto the outlines of its photo [H, W, 3] uint8 -> [H, W] float32, same range.

    ``network_px`` is the longest edge that the U-Net saw, ``network`` the checkpoint's own for this; a filter takes its
    place. Takes about a second a megapixel, of one at most.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return values
    height, width = values.shape
    share = min(1.0, WORK_PX / max(height, width))
    size = max(1, round(height * share)), max(1, round(width * share))
    guided = max(1, round(GUIDED_PX * max(size) / network_px))
    ramp = max(1, round((MOVED_RAMP_PX if network else RAMP_PX) * max(size) / network_px))
    unit = (values - low) / (high - low)
    if network:
        depth = resize_map(network.move(unit, photo, network_px), size)
        steep = depth
    else:
        depth = resize_map(unit.astype(np.float32), size)
        guide = [resize_map(np.ascontiguousarray(plane), size) for plane in np.moveaxis(photo, -1, 0)]
        steep = guided_filter(depth, np.stack(guide, -1) / 255, guided)
    for _ in range(PASSES):
        steep = steepen(steep, ramp)
    at_jumps = box_mean(_jumps(depth + NEAR, guided), ramp)
    followed = resize_map((depth + at_jumps * (steep - depth)).astype(np.float32), (height, width)).clip(0, 1)
    return followed * np.float32(high - low) + np.float32(low)


def _jumps(z: np.ndarray, radius: int) -> np.ndarray:
    """[H, W] z > 0 -> [H, W] bool, as ``find_jumps``; slopes go on beyond the picture, so that none ends in a jump."""
    beyond = 2 * radius
    continued = np.maximum(np.pad(z, beyond, "reflect", reflect_type="odd"), z.min() / 2)
    return find_jumps(continued, LEAST_JUMP, radius)[0][beyond:-beyond, beyond:-beyond]


def steepen(values: np.ndarray, radius: int) -> np.ndarray:
    """Move each value of [H, W] towards the nearer of the least and the greatest one within ``radius``.

    What lies half way between them, as all of an even slope does, stays. A soft toggle mapping; see ``sharpen`` of
    ``geometry.depth_filters``.
    """
    low, high = extrema(values, radius)
    place = (values - low) / np.maximum(high - low, 1e-9) - 0.5  # [-0.5, 0.5]
    return low + (high - low) * (0.5 + np.tanh(STEEPNESS / 2 * place) / np.tanh(STEEPNESS / 4) / 2)


def guided_filter(values: np.ndarray, guide: np.ndarray, radius: int) -> np.ndarray:
    """Filter [H, W] so that in every window it is as near as can be to a linear function of the guide [H, W, 3].

    Source: He, Sun and Tang, Guided Image Filtering, TPAMI 2013, equations 19 to 21.
    """

    def mean(array: np.ndarray) -> np.ndarray:
        return box_mean(array, radius)

    planes = list(np.moveaxis(guide.astype(np.float64), -1, 0))
    means, mean_value = [mean(plane) for plane in planes], mean(values)
    covariance = [mean(plane * values) - own * mean_value for plane, own in zip(planes, means, strict=True)]
    rr, rg, rb, gg, gb, bb = (
        mean(planes[i] * planes[j]) - means[i] * means[j] + (SMOOTHEST if i == j else 0)
        for i, j in combinations_with_replacement(range(3), 2)
    )
    # The inverse of the symmetric 3 x 3 matrix of every pixel, by cofactors: far faster than numpy.linalg.solve.
    first = gg * bb - gb**2, rb * gb - rg * bb, rg * gb - rb * gg
    second = first[1], rr * bb - rb**2, rg * rb - rr * gb
    third = first[2], second[2], rr * gg - rg**2
    determinant = rr * first[0] + rg * first[1] + rb * first[2]
    slopes = [
        np.sum([cofactor * one for cofactor, one in zip(row, covariance, strict=True)], axis=0) / determinant
        for row in (first, second, third)
    ]
    offset = mean_value - np.sum([slope * own for slope, own in zip(slopes, means, strict=True)], axis=0)
    return mean(offset) + np.sum([mean(slope) * plane for slope, plane in zip(slopes, planes, strict=True)], axis=0)
