"""Known depths from a sparse map, such as a lidar's or a structure-from-motion program's drawn into the photo."""

from pathlib import Path

import numpy as np

from marigold_core.calibration.anchors import Along, Anchor
from marigold_core.errors import CalibrationError
from marigold_core.images import depth_map
from marigold_core.images.photo import read_file

MAX_POINTS = 2000  # that are used; of more, as many are drawn evenly at random
_ASPECT = 0.01  # how far the aspects of map and photo may differ


def read_sparse(
    path: Path, photo_size: tuple[int, int], *, unit_m: float | None = None, along: Along = "axis"
) -> list[Anchor]:
    """Read known depths from a map of the photo; 0 and what is no number stand for unknown.

    Args:
        path: NPY, EXR, TIFF, PFM or PNG with one value a pixel, greater where it is farther.
        photo_size: (height, width) of the photo that the map was made of; the map may be smaller.
        unit_m: metres of depth where the value is 1. By default what the file states, else 1 where any value has a
            fraction.
        along: how the depths were measured.

    Raises:
        ImageError: the map cannot be read.
        CalibrationError: its shape is not the photo's, its unit is unknown, or it holds no known depth.
    """
    found = depth_map.decode(read_file(path, "depth map"))
    values, stated = found.values, found.stated
    height, width = values.shape
    if abs(width * photo_size[0] / (height * photo_size[1]) - 1) > _ASPECT:
        raise CalibrationError(
            f"{path.name} has {width} x {height} pixels, which is not the shape of the photo's"
            f" {photo_size[1]} x {photo_size[0]}."
        )
    known = np.isfinite(values) & (values > 0)
    if stated.quantity == "disparity" or stated.greater == "nearer" or not known.any():
        raise CalibrationError(
            f"{path.name} holds no depth that is known: values above 0, greater where it is farther."
        )
    unit_m = unit_m or stated.unit_m
    if unit_m is None and (values[known] == np.round(values[known])).all():
        raise CalibrationError(
            f"{path.name} holds whole numbers of an unknown unit; say with sparse_unit_m how many metres 1 is, such as"
            " 0.001 for millimetres."
        )
    places = np.argwhere(known)
    if len(places) > MAX_POINTS:
        places = places[np.sort(np.random.default_rng(0).choice(len(places), MAX_POINTS, replace=False))]
    at = (places + 0.5) * (np.array(photo_size) / values.shape)
    first = np.sort(np.unique(at.astype(int), axis=0, return_index=True)[1])  # of a larger map, one for each pixel
    metres = values[tuple(places[first].T)] * (unit_m or 1.0)
    rows, columns = at[first].T
    return [Anchor(x, y, z, along) for x, y, z in zip(columns.tolist(), rows.tolist(), metres.tolist(), strict=True)]
