"""Rendered pictures on disk: shards of memory-mapped arrays, and the reader that training uses.

A data folder holds ``shard_00000/`` and so on; a shard holds, for N pictures of one size,

    rgb.npy      [N, H, W, 3] uint8    sRGB, clean (no noise, no lens faults: those belong to augmentation)
    depth.npy    [N, H, W]    float16  metres along the optical axis, inf = sky; step 2^-11 of the value
    normals.npy  [N, H, W, 3] int8     unit normals times 127; x right, y up, z towards the viewer; 0 = sky
    labels.npy   [N, H, W]    uint8    index into ``training.scenes.types.LABELS``
    albedo.npy   [N, H, W, 3] uint8    sRGB colour of the surfaces without light; 0 = sky; older shards lack it
    instances.npy [N, H, W]   uint8    number of the thing, from 1 on in each scene; 0 = none; older shards lack it
    meta.json    kinds, scene numbers, field of view, the settings that made it

Every pixel has a depth but the sky. A shard folder appears under its name only when it is whole.
"""

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.storage import atomic_folder
from training.data.sets.reading import check_depth, naming
from training.data.sets.sample import Sample

ARRAYS = {"rgb": ("uint8", (3,)), "depth": ("float16", ()), "normals": ("int8", (3,)), "labels": ("uint8", ())}
LATER: dict[str, tuple[str, tuple[int, ...]]] = {"albedo": ("uint8", (3,)), "instances": ("uint8", ())}


@dataclass(frozen=True)
class View:
    """A picture as the renderer makes it."""

    rgb: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float32, inf = sky
    normals: np.ndarray  # [H, W, 3] float32 unit, 0 = sky
    labels: np.ndarray  # [H, W] uint8
    albedo: np.ndarray | None = None  # [H, W, 3] uint8
    instances: np.ndarray | None = None  # [H, W] uint8


@dataclass(frozen=True)
class RenderedSample(Sample):
    """One stored picture with its normals, labels and camera."""

    normals: np.ndarray  # [H, W, 3] float32, x right, y up, z towards the viewer; 0 = sky
    labels: np.ndarray  # [H, W] uint8
    kind: str  # "room", "table", ...
    albedo: np.ndarray | None  # [H, W, 3] uint8 sRGB; None in shards that an older version rendered, as the next one
    instances: np.ndarray | None = None  # [H, W] uint8


def write_shard(path: Path, views: Sequence[View], meta: dict) -> None:
    """Write views of one size as a shard folder, whole or absent. Raises: ExportError when the disk refuses."""
    with atomic_folder(path) as aside:
        np.save(aside / "rgb.npy", np.stack([view.rgb for view in views]))
        np.save(aside / "depth.npy", np.stack([view.depth_m for view in views]).astype(np.float16))
        np.save(aside / "normals.npy", np.rint(np.stack([view.normals for view in views]) * 127).astype(np.int8))
        np.save(aside / "labels.npy", np.stack([view.labels for view in views]))
        for name in LATER:
            if found := [array for view in views if (array := getattr(view, name)) is not None]:
                np.save(aside / f"{name}.npy", np.stack(found))
        (aside / "meta.json").write_text(json.dumps(meta))


class Shard:
    """One shard: ``len(shard)`` pictures of one size. Its arrays are mapped when they are first used.

    Raises: MarigoldError naming the file when meta.json, or later an array, is missing or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        with naming(path / "meta.json"):
            self.meta = json.loads((path / "meta.json").read_text())
            self._count = min(len(self.meta["kinds"]), len(self.meta["fov_x_deg"]))
        self._mapped: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, object]:
        """Leave the mapped arrays behind: another process maps them itself."""
        return {**self.__dict__, "_mapped": {}}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of every picture in the shard."""
        _, height, width, _ = self.array("rgb").shape
        return height, width

    def name(self, index: int) -> str:
        """Name a picture."""
        return f"{self.path.name}/{index:04d}"

    def files(self) -> list[Path]:
        """List the files of the shard that pictures are read from."""
        return [self.path / f"{name}.npy" for name in (*ARRAYS, *filter(self._has, LATER))]

    def _has(self, name: str) -> bool:
        return (self.path / f"{name}.npy").exists()

    def array(self, name: str) -> np.ndarray:
        """Map one of ``ARRAYS`` or ``LATER`` for all pictures and as it is stored."""
        if name not in self._mapped:
            path, (kind, trailing) = self.path / f"{name}.npy", (ARRAYS | LATER)[name]
            with naming(path):
                array = np.load(path, mmap_mode="r")
            shape = (self._count, *(array if name == "rgb" else self.array("rgb")).shape[1:3], *trailing)
            if array.dtype != kind or array.shape != shape:
                found, wanted = f"{array.dtype} {list(array.shape)}", f"{kind} {list(shape)}"
                raise MarigoldError(f"{path} holds {found} instead of {wanted}.")
            self._mapped[name] = array
        return self._mapped[name]

    def __getitem__(self, index: int) -> RenderedSample:
        rgb, depth, normals, labels = (self.array(name)[index] for name in ARRAYS)
        depth_m, path = depth.astype(np.float32), self.path / "depth.npy"
        if np.isnan(depth_m).any():
            raise MarigoldError(f"{path} holds depths that are not numbers (NaN) in picture {index}.")
        check_depth(depth_m, path)
        unit = normals.astype(np.float32) / 127
        albedo, instances = (np.array(self.array(name)[index]) if self._has(name) else None for name in LATER)
        return RenderedSample(
            self.name(index),
            *(np.array(rgb), depth_m, unit, np.array(labels), self.meta["kinds"][index], albedo, instances),
            fov_x_deg=self.meta["fov_x_deg"][index],
        )


class RenderedScenes:
    """All whole shards of a folder as one data set, in order of shard number; ``shards`` lists them.

    A snapshot: shards that appear later are seen by a new object.
    Raises: MarigoldError when the folder has no shard yet.
    """

    kind = "rendered"
    near_m, far_m = 1e-3, 80.0
    size: tuple[int, int] | None = None

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.shards = [Shard(path) for path in sorted(self.folder.glob("shard_*"))]
        if not self.shards:
            raise MarigoldError(f"{self.folder} has no rendered shard; make some with: python -m training.render")
        self._ends = np.cumsum([len(shard) for shard in self.shards]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> RenderedSample:
        shard, row = self._place(index)
        return shard[row]

    def name(self, index: int) -> str:
        """Name a picture: its shard and its number in it."""
        shard, row = self._place(index)
        return shard.name(row)

    def files(self, index: int) -> list[Path]:
        """List the arrays that a picture is a part of."""
        return self._place(index)[0].files()

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every picture."""
        return self._sizes

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        return [shard.size for shard in self.shards for _ in range(len(shard))]

    def _place(self, index: int) -> tuple[Shard, int]:
        """Find the shard of a picture and its number in it."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        which = bisect.bisect_right(self._ends, index)
        return self.shards[which], index - (self._ends[which - 1] if which else 0)
