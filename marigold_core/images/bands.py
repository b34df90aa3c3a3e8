"""Work on large maps a band of rows at a time, so that what it holds on the way is small; the numbers are the same."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVarTuple, cast

import numpy as np

Maps = TypeVarTuple("Maps")  # arrays
BAND_NUMBERS = 1 << 21  # of a band; maps of fewer are one


def each_band(change: Callable[[*Maps], np.ndarray], *maps: *Maps, halo: int = 0) -> Iterator[np.ndarray]:
    """Yield, from the top, what ``change`` makes of each band of the rows of maps of one height, [H, ...] each.

    A row of the result must depend on no rows but those up to ``halo`` away.
    """
    arrays = cast(tuple[np.ndarray, ...], maps)
    height = len(arrays[0])
    rows = max(1, 4 * halo, BAND_NUMBERS * height // max(1, arrays[0].size))
    for start in range(0, height, rows):
        first, stop = max(0, start - halo), min(start + rows, height)
        bands = (one[first : stop + halo] for one in arrays)
        yield cast(Any, change)(*bands)[start - first : stop - first]


def in_bands(change: Callable[[*Maps], np.ndarray], *maps: *Maps, halo: int = 0) -> np.ndarray:
    """Make the map [H, ...] of what ``each_band`` yields."""
    height, at = len(cast(tuple[np.ndarray, ...], maps)[0]), 0
    made: np.ndarray | None = None
    for band in each_band(change, *maps, halo=halo):
        if made is None:
            if len(band) == height:
                return band
            made = np.empty((height, *band.shape[1:]), band.dtype)
        made[at : at + len(band)] = band
        at += len(band)
    return change(*maps) if made is None else made  # of no rows
