"""Checks of single pictures, shards of rendered pictures and shards of latents -> faults, or what was read."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.images.differences import depth_planes
from training.data.latent_cache import INDEX, NAMES, read_index
from training.data.sets.reading import naming
from training.data.sets.rendered import ARRAYS, Shard
from training.data.sets.sample import DepthSet, Sample

Content = TypeVar("Content")  # of a file

# Arrays of a shard of latents: type and shape, where a letter is one size throughout the shard and N that of its names.
LATENTS = {"image": ("float16", "N4hw"), "target": ("float16", "NPhw"), "valid": ("bool", "N1hw")}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str  # a picture or a file, within its data set
    what: str


@dataclass(frozen=True)
class SoundPicture:
    """A picture without a fault."""

    size: tuple[int, int]  # (height, width) in pixels, of latents in cells
    known: float  # share of pixels whose depth counts
    near_m: float = math.inf  # of the depths that count
    far_m: float = -math.inf


Finding = Fault | SoundPicture


def check_picture(a_set: DepthSet, index: int) -> list[Finding]:
    """Read one picture as training does; each of its files that is missing or empty is a fault."""
    files = [(path.relative_to(a_set.folder).as_posix(), path) for path in a_set.files(index)]
    faults: list[Finding] = [Fault(name, "is missing") for name, path in files if not path.is_file()]
    faults += [Fault(name, "is empty") for name, path in files if path.is_file() and not path.stat().st_size]
    if faults:
        return faults
    found = _check_sample(a_set.name(index), lambda: a_set[index], a_set.near_m, a_set.far_m)
    if isinstance(found, SoundPicture) and found.size != a_set.sizes()[index]:
        own, others = ("{} x {}".format(*size) for size in (found.size, a_set.sizes()[index]))
        return [Fault(a_set.name(index), f"is {own} where pictures of {a_set.kind} are {others}")]
    return [found]


def check_rendered(folder: Path) -> list[Finding]:
    """Read one shard of rendered pictures; if an array does not open, its pictures are left alone."""
    refusals: dict[str, None] = {}  # each once: an array may be refused because of another
    for name in ARRAYS:
        try:
            Shard(folder).array(name)
        except MarigoldError as error:
            refusals[str(error)] = None
    if refusals:
        return [Fault(folder.name, sentence) for sentence in refusals]
    shard = Shard(folder)
    return [_check_sample(shard.name(row), partial(shard.__getitem__, row), 0.0, math.inf) for row in range(len(shard))]


def _check_sample(name: str, read: Callable[[], Sample], near_m: float, far_m: float) -> Finding:
    try:
        depth_m = read().depth_m
    except MarigoldError as error:
        return Fault(name, str(error))
    counts = (depth_m > near_m) & (depth_m < far_m)
    if not counts.any():
        least, most = np.nanmin(depth_m), np.nanmax(depth_m)
        return Fault(name, f"has depths of {least:g} to {most:g} m, none between {near_m:g} and {far_m:g} m")
    values = depth_m[counts]
    if depth_planes(values) is None:
        one = f"has one depth, {np.median(values):g} m, but for a few pixels at most"
        return Fault(name, f"{one}: there is no near and no far in it")
    height, width = depth_m.shape
    return SoundPicture((height, width), float(counts.mean()), float(values.min()), float(values.max()))


# ------------------------------------------------------------------------------- latents


def holds_latents(folder: Path) -> bool:
    """Tell a folder of latents, even a damaged one, from anything else."""
    return (folder / INDEX).exists() or any(next(folder.glob(f"shard_*/{name}.npy"), None) for name in LATENTS)


def check_index(folder: Path) -> list[Finding]:
    """Read the description of what the latents of a folder were made with."""
    try:
        read_index(folder)
    except MarigoldError as error:
        return [Fault(INDEX, str(error))]
    return []


def check_latents(shard: Path) -> list[Finding]:
    """Read one shard of latents; if an array does not open, its pictures are left alone."""
    names = _open(shard / NAMES, lambda path: list(json.loads(path.read_text(encoding="utf-8"))))
    opened = {name: _open(shard / f"{name}.npy", lambda path: np.load(path, mmap_mode="r")) for name in LATENTS}
    arrays = {name: array for name, array in opened.items() if not isinstance(array, Fault)}
    faults: list[Finding] = [found for found in (names, *opened.values()) if isinstance(found, Fault)]
    faults += _compare_shapes(shard, arrays, {} if isinstance(names, Fault) else {"N": len(names)})
    return faults or [_check_latent(shard, arrays, row) for row in range(len(arrays["valid"]))]


def _open(path: Path, read: Callable[[Path], Content]) -> Content | Fault:
    try:
        with naming(path):
            return read(path)
    except MarigoldError as error:
        return Fault(f"{path.parent.name}/{path.name}", str(error).removeprefix(f"{path} ").removesuffix("."))


def _compare_shapes(shard: Path, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> Iterator[Fault]:
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


def _check_latent(shard: Path, arrays: dict[str, np.ndarray], row: int) -> Finding:
    for name in ("image", "target"):
        if not np.isfinite(arrays[name][row]).all():
            return Fault(f"{shard.name}/{name}.npy[{row}]", "has NaN or infinity")
    valid = arrays["valid"][row, 0]
    if not valid.any():
        return Fault(f"{shard.name}/valid.npy[{row}]", "no cell has a known depth, or all have one")
    height, width = valid.shape
    return SoundPicture((height, width), float(valid.mean()))
