"""One comparison while it fills: the cells so far, what they are measured against, and how they are to be shown."""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from marigold_core.comparison.paint import Paint, paint_differences, paint_maps
from marigold_core.comparison.sweep import Comparison, Row, Tile, against_reference
from marigold_core.images.photo import Photo
from marigold_core.settings import DEFAULT_COLORMAP, Colormap

Shown = Literal["maps", "differences"]


@dataclass(eq=False)
class Board:
    """What a visitor looks at. A job adds tiles while the visitor may pin one, or ask for other colours."""

    photo: Photo
    asked: Comparison
    checkpoints: tuple[str, ...]
    folder: Path  # of its files
    shows: Shown = "maps"
    colormap: Colormap = DEFAULT_COLORMAP
    pinned: int | None = None  # the tile that the others are measured against; None: the one of most steps and members
    is_running: bool = False
    tiles: list[Tile] = field(default_factory=list)  # in the order of ``places``
    _measured: tuple[int, int | None, list[Row]] = field(default=(0, None, []), init=False)  # tiles, pinned, rows

    def places(self) -> list[tuple[str, int, int, int]]:
        """List what the cells stand for: checkpoint, seed, steps, members; sizes ascend fastest."""
        return list(product(self.checkpoints, self.asked.seeds, self.asked.steps, self.asked.sizes))

    def rows(self) -> list[Row]:
        """Measure the cells so far against the pinned one."""
        tiles, pinned = list(self.tiles), self.pinned
        if self._measured[:2] != (len(tiles), pinned):
            reference = None if pinned is None else tiles[pinned]
            self._measured = len(tiles), pinned, against_reference(tiles, reference)
        return self._measured[2]

    def paint(self) -> Paint:
        """Choose the colours of the cells so far; there must be one."""
        return paint_maps(self.rows(), self.colormap) if self.shows == "maps" else paint_differences(self.rows())

    def pin(self, number: int) -> None:
        """Measure the others against this cell; the number of one that is not there changes nothing."""
        if 0 <= number < len(self.tiles):
            self.pinned = number

    @property
    def size_bytes(self) -> int:
        """Memory held by the arrays."""
        maps = sum(tile.values.nbytes for tile in list(self.tiles))
        return self.photo.pixels.nbytes + maps + sum(row.difference.nbytes for row in self._measured[2])
