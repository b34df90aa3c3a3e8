"""Rendered scenes of a floor, small enough to learn from in seconds."""

from pathlib import Path

import numpy as np

from training.data.sets.rendered import View, write_shard

HEIGHT, WIDTH = 64, 96


def write_floors(folder: Path) -> Path:
    """Write eight pictures of a floor below the sky, which has no depth -> ``folder``."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
    depth = np.where(rows < HEIGHT // 4, np.inf, 60 / (rows + 4)).astype(np.float32)
    rgb = np.stack([rows * 2 + 40, rows + 90, 200 - rows], axis=-1).astype(np.uint8)
    normals, labels = np.zeros((HEIGHT, WIDTH, 3), np.float32), np.zeros((HEIGHT, WIDTH), np.uint8)
    views = [View(np.roll(rgb, number, axis=1), depth, normals, labels) for number in range(8)]
    write_shard(folder / "shard_00000", views, {"kinds": ["floor"] * 8, "fov_x_deg": [60.0] * 8})
    return folder
