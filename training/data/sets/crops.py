"""Cuts that belong to how a data set is read, whoever reads it."""

import numpy as np

from marigold_core.errors import MarigoldError

KITTI_BENCHMARK_PX = (352, 1216)  # height, width


def kitti_benchmark_crop(array: np.ndarray) -> np.ndarray:
    """Cut [H, W, ...] -> [352, 1216, ...]: the lowest rows, the middle columns, as the KITTI depth benchmark does.

    Of 375 x 1242 pixels 23 rows are left out above and 13 columns on the left. The result is a view.

    Raises: MarigoldError when the array is smaller.
    """
    height, width = KITTI_BENCHMARK_PX
    if array.shape[0] < height or array.shape[1] < width:
        found = " x ".join(map(str, array.shape[:2]))
        raise MarigoldError(f"{found} pixels are less than the crop of the KITTI benchmark, {height} x {width}.")
    left = (array.shape[1] - width) // 2
    return array[array.shape[0] - height :, left : left + width]
