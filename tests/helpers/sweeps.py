"""Comparisons made by hand, without a model."""

import numpy as np

from marigold_core.comparison.sweep import Comparison, Sweep, Tile
from marigold_core.images.photo import load_photo


def sweep_of(cells: int, name: str = "tiny", **asked: object) -> Sweep:
    """Make a comparison that has the first so many of its cells."""
    comparison = Comparison(**{"steps": (1, 2), "sizes": (1, 3), "seeds": (0,), **asked})
    sweep = Sweep(load_photo(np.zeros((30, 40, 3), np.uint8)), comparison, (name,))
    for checkpoint, seed, steps, members in sweep.places()[:cells]:
        values = np.random.default_rng(steps * 100 + members).random((30, 40), np.float32)
        spread = (0.1, "spread") if members > 2 else (None, None)
        found = Tile(checkpoint, "depth", "affine", "depth", values, seed, steps, members, 0.5, *spread)
        sweep.tiles.append(found)
    return sweep
