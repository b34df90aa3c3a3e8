"""A smooth map through values that are known at a few places."""

import numpy as np

from marigold_core.images.differences import resize_map

_NEIGHBOURS = 50  # places that decide the map around one of them
_STIFFNESS = 1e-3  # how far the map may pass by the values to stay smooth
_GRID = 96  # places along each side where it is computed, at most


def interpolate(places: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate smoothly, and go nowhere beyond the values.

    Args:
        places: [N, 2] row and column, of pixels.
        values: [N] there.
        shape: height and width of the map.

    Returns:
        The map [H, W] float32.
    """
    from scipy.interpolate import RBFInterpolator  # pyright: ignore[reportMissingTypeStubs]

    height, width = shape
    places, first = np.unique(places, axis=0, return_index=True)
    values = values[first].astype(np.float64)
    apart = places - places.mean(axis=0)
    # Places on one line determine no plane, which thin plates bend from.
    kernel, smoothing = ("thin_plate_spline", _STIFFNESS) if np.linalg.matrix_rank(apart) == 2 else ("linear", 0.0)
    size = float(max(shape))
    near = min(_NEIGHBOURS, len(places))
    plates = RBFInterpolator(places / size, values, neighbors=near, smoothing=smoothing, kernel=kernel)
    counts = [min(side, _GRID) for side in (height, width)]
    grid = [(np.arange(n) + 0.5) * side / n - 0.5 for n, side in zip(counts, (height, width), strict=True)]
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1)
    smooth = plates(points.reshape(-1, 2) / size).reshape(points.shape[:2])
    return resize_map(smooth.clip(values.min(), values.max()).astype(np.float32), (height, width))
