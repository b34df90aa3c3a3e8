"""The colours of a comparison: one scale for all cells, the same on the sheet and on the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marigold_core.comparison.sweep import Row
from marigold_core.images.colormaps import depth_to_rgb, normals_to_rgb, uncertainty_to_rgb
from marigold_core.settings import DEFAULT_COLORMAP, Colormap


@dataclass(frozen=True)
class Bar:
    """What the colours mean."""

    colours: np.ndarray  # [256, 3] uint8, from the left end to the right
    left: str
    right: str


@dataclass(frozen=True)
class MapPaint:
    """The map of every cell, as ``predict`` colours it."""

    title: str
    low: float  # the depths of the first and the last colour
    high: float
    colormap: Colormap | None  # None: normals, whose colours are fixed

    @property
    def bar(self) -> Bar | None:
        """Say what the colours mean; None for normals."""
        if self.colormap is None:
            return None
        colours = depth_to_rgb(np.linspace(0, 1, 256), self.colormap)
        return Bar(colours, f"near {self.low:.3g}", f"{self.high:.3g} far")

    def picture(self, row: Row) -> np.ndarray:
        """Colour one cell -> [h, w, 3] uint8."""
        if self.colormap is None:
            return normals_to_rgb(row.tile.values)
        return depth_to_rgb((row.tile.values - self.low) / ((self.high - self.low) or 1.0), self.colormap)


@dataclass(frozen=True)
class DifferencePaint:
    """The difference of every cell to the reference, on one scale."""

    title: str
    top: float  # the difference of the last colour

    @property
    def bar(self) -> Bar:
        """Say what the colours mean."""
        return Bar(uncertainty_to_rgb(np.linspace(0, 1, 256), 1.0), "0", f"{self.top:.2g} or more")

    def picture(self, row: Row) -> np.ndarray:
        """Colour one cell -> [h, w, 3] uint8."""
        return uncertainty_to_rgb(row.difference, self.top)


Paint = MapPaint | DifferencePaint


def paint_maps(rows: Sequence[Row], colormap: Colormap = DEFAULT_COLORMAP) -> MapPaint:
    """Choose the colours of the cells' maps; depth of a kind other than "affine" has the common range of all cells."""
    maps = [row.tile.values for row in rows]
    kind = rows[0].tile.kind
    if kind == "unit-vector":
        return MapPaint("Surface normals", -1.0, 1.0, None)
    low, high = (0.0, 1.0) if kind == "affine" else (float(min(map(np.min, maps))), float(max(map(np.max, maps))))
    return MapPaint("Depth", low, high, colormap)


def paint_differences(rows: Sequence[Row]) -> DifferencePaint:
    """Choose the colours of the cells' differences; they end at the 99th percentile over all cells."""
    top = float(np.percentile(np.concatenate([row.difference.ravel() for row in rows]), 99)) or 1.0
    return DifferencePaint("Difference to the reference", top)
