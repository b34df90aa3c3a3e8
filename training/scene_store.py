"""Rendered pictures on disk: shards of memory-mapped arrays, and the reader that training uses.

A data folder holds ``shard_00000/`` and so on; a shard holds, for N pictures of one size,

    rgb.npy      [N, H, W, 3] uint8    sRGB, clean (no noise, no lens faults: those belong to augmentation)
    depth.npy    [N, H, W]    float16  metres along the optical axis, inf = sky; step 2^-11 of the value
    normals.npy  [N, H, W, 3] int8     unit normals times 127; x right, y up, z towards the viewer; 0 = sky
    labels.npy   [N, H, W]    uint8    index into ``training.scene_types.LABELS``
    meta.json    kinds, scene numbers, field of view, the settings that made it

Every pixel has a depth but the sky; ``sky`` is the mask to put at the far plane. A shard folder appears under its name
only when it is whole.
"""

import bisect
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError

ARRAYS = ("rgb", "depth", "normals", "labels")


@dataclass(frozen=True)
class View:
    """What a camera sees, as the renderer hands it over."""

    rgb: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float32, inf = sky
    normals: np.ndarray  # [H, W, 3] float32 unit, 0 = sky
    labels: np.ndarray  # [H, W] uint8


@dataclass(frozen=True)
class Sample:
    """One stored picture with its truth."""

    rgb: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float32 metres along the optical axis, inf = sky
    normals: np.ndarray  # [H, W, 3] float32, x right, y up, z towards the viewer; 0 = sky
    labels: np.ndarray  # [H, W] uint8
    kind: str  # "room", "table", ...
    fov_x_deg: float  # across the picture

    @property
    def sky(self) -> np.ndarray:
        """[H, W] bool, True where there is no surface: infinitely far."""
        return np.isinf(self.depth_m)

    @property
    def valid(self) -> np.ndarray:
        """[H, W] bool, True where ``depth_m`` is a measurement."""
        return np.isfinite(self.depth_m)


def write_shard(path: Path, views: Sequence[View], meta: dict) -> None:
    """Views of one size -> a shard folder, written aside and renamed, so that a shard is whole or absent."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    np.save(aside / "rgb.npy", np.stack([view.rgb for view in views]))
    np.save(aside / "depth.npy", np.stack([view.depth_m for view in views]).astype(np.float16))
    np.save(aside / "normals.npy", np.rint(np.stack([view.normals for view in views]) * 127).astype(np.int8))
    np.save(aside / "labels.npy", np.stack([view.labels for view in views]))
    (aside / "meta.json").write_text(json.dumps(meta))
    aside.rename(path)


class Shard:
    """One shard, memory-mapped: ``len(shard)`` pictures of one size; ``rgb``, ``depth`` ... are the arrays on disk."""

    def __init__(self, path: Path):
        self.path = path
        self.meta = json.loads((path / "meta.json").read_text())
        self.rgb, self.depth, self.normals, self.labels = (
            np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS
        )

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of every picture in the shard."""
        return self.rgb.shape[1], self.rgb.shape[2]

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            np.array(self.rgb[index]),
            self.depth[index].astype(np.float32),
            self.normals[index].astype(np.float32) / 127,
            np.array(self.labels[index]),
            self.meta["kinds"][index],
            self.meta["fov_x_deg"][index],
        )


class RenderedScenes:
    """All whole shards of a folder as one sequence of samples, in order of shard number; ``shards`` lists them.

    A snapshot: shards that appear later are seen by a new object.
    Raises: MarigoldError when the folder has no shard yet.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.shards = [Shard(path) for path in sorted(self.folder.glob("shard_*"))]
        if not self.shards:
            raise MarigoldError(f"{self.folder.name} has no rendered shard; make some with: python -m training.render")
        self._ends = np.cumsum([len(shard) for shard in self.shards]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        which = bisect.bisect_right(self._ends, index)
        return self.shards[which][index - (self._ends[which - 1] if which else 0)]
