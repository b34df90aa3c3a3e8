"""Single pictures, shards of rendered pictures and shards of latents -> what is wrong with them, or what was seen."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.latent_cache import INDEX, NAMES, read_index
from training.data.sets.rendered import ARRAYS, Shard
from training.data.sets.sample import DepthSet, Sample

Content = TypeVar("Content")  # of a file

# Arrays of a shard of latents: type and shape, where a letter is one size throughout the shard and N that of its names.
LATENTS = {"image": ("float16", "N4hw"), "target": ("float16", "N4hw"), "valid": ("bool", "N1hw")}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str  # a picture or a file, within its data set
    what: str


@dataclass(frozen=True)
class Seen:
    """A picture without a fault."""

    size: tuple[int, int]  # (height, width) in pixels, of latents in cells
    known: float  # share of pixels whose depth counts
    near_m: float = math.inf  # of the depths that count
    far_m: float = -math.inf


def look_at_picture(a_set: DepthSet, index: int) -> list[Fault | Seen]:
    """Read one picture as training does; each of its files that is missing or empty is a fault."""
    files = [(path.relative_to(a_set.folder).as_posix(), path) for path in a_set.files(index)]
    missing = [Fault(name, "is missing") for name, path in files if not path.is_file()]
    empty = [Fault(name, "is empty") for name, path in files if path.is_file() and not path.stat().st_size]
    if missing or empty:
        return [*missing, *empty]
    looked = _look(a_set.name(index), lambda: a_set[index], a_set.near_m, a_set.far_m)
    if isinstance(looked, Seen) and looked.size != (size := a_set.sizes()[index]):
        return [Fault(a_set.name(index), f"is {_text(looked.size)} where pictures of {a_set.kind} are {_text(size)}")]
    return [looked]


def look_at_rendered(folder: Path) -> list[Fault | Seen]:
    """Read one shard of rendered pictures; if an array does not open, its pictures are left alone."""
    refusals: dict[str, None] = {}  # each once: an array may be refused because of another
    for name in ARRAYS:
        try:
            getattr(Shard(folder), name)
        except MarigoldError as error:
            refusals[str(error)] = None
    if refusals:
        return [Fault(folder.name, sentence) for sentence in refusals]
    shard = Shard(folder)
    return [_look(shard.name(row), partial(shard.__getitem__, row), 0.0, math.inf) for row in range(len(shard))]


def _look(name: str, read: Callable[[], Sample], near_m: float, far_m: float) -> Fault | Seen:
    try:
        depth_m = read().depth_m
    except MarigoldError as error:
        return Fault(name, str(error))
    counts = (depth_m > near_m) & (depth_m < far_m)
    if not counts.any():
        least, most = np.nanmin(depth_m), np.nanmax(depth_m)
        return Fault(name, f"has depths of {least:g} to {most:g} m, none between {near_m:g} and {far_m:g} m")
    values = depth_m[counts]
    height, width = depth_m.shape
    return Seen((height, width), float(counts.mean()), float(values.min()), float(values.max()))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


# ------------------------------------------------------------------------------- latents


def holds_latents(folder: Path) -> bool:
    """Tell a folder of latents, even a damaged one, from anything else."""
    return (folder / INDEX).exists() or any(next(folder.glob(f"shard_*/{name}.npy"), None) for name in LATENTS)


def look_at_index(folder: Path) -> list[Fault | Seen]:
    """Read what says what the latents of a folder were made with."""
    try:
        read_index(folder)
    except MarigoldError as error:
        return [Fault(INDEX, str(error))]
    return []


def look_at_latents(shard: Path) -> list[Fault | Seen]:
    """Read one shard of latents; if an array does not open, its pictures are left alone."""
    arrays: dict[str, np.ndarray] = {}
    faults: list[Fault | Seen] = []
    names = _read(shard / NAMES, lambda path: list(json.loads(path.read_text(encoding="utf-8"))))
    if isinstance(names, Fault):
        faults.append(names)
    for name in LATENTS:
        array = _read(shard / f"{name}.npy", lambda path: np.load(path, mmap_mode="r"))
        if isinstance(array, Fault):
            faults.append(array)
        else:
            arrays[name] = array
    faults += _misfits(shard, arrays, {} if isinstance(names, Fault) else {"N": len(names)})
    return faults or [_look_at_latent(shard, arrays, row) for row in range(len(arrays["valid"]))]


def _read(path: Path, read: Callable[[Path], Content]) -> Content | Fault:
    where = f"{path.parent.name}/{path.name}"
    if not path.is_file() or not path.stat().st_size:
        return Fault(where, "is empty" if path.is_file() else "is missing")
    try:
        return read(path)
    except (ValueError, TypeError, EOFError, OSError) as error:  # cut off, of another kind, or not to be read
        return Fault(where, f"is damaged or cut off: {error}")


def _misfits(shard: Path, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> Iterator[Fault]:
    """Compare types and shapes with each other; what the first array has is due of the others."""
    for name, array in arrays.items():
        dtype, shape = LATENTS[name]
        if array.ndim == len(shape):
            for letter, size in zip(shape, array.shape, strict=True):
                sizes.setdefault(letter, int(letter) if letter.isdigit() else size)
        due = [sizes.get(letter, letter) for letter in shape]
        if array.dtype != dtype or list(array.shape) != due:
            what = f"is {array.dtype} {list(array.shape)} where {dtype} [{', '.join(map(str, due))}] is due"
            yield Fault(f"{shard.name}/{name}.npy", what)


def _look_at_latent(shard: Path, arrays: dict[str, np.ndarray], row: int) -> Fault | Seen:
    for name in ("image", "target"):
        if not np.isfinite(arrays[name][row]).all():
            return Fault(f"{shard.name}/{name}.npy[{row}]", "has NaN or infinity")
    valid = arrays["valid"][row, 0]
    if not valid.any():
        return Fault(f"{shard.name}/valid.npy[{row}]", "no cell has a known depth")
    height, width = valid.shape
    return Seen((height, width), float(valid.mean()))
