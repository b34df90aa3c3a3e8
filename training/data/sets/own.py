"""Pictures of one's own with depth: a folder a picture, or files side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.sets.files import Entry, Format
from training.data.sets.reading import png16_depth, read_numbers

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
DEPTH_ENDINGS = (".depth.png", ".depth.npy")


def _metres(stored: np.ndarray) -> np.ndarray:
    """Depths as stored -> float32; 0 and NaN are not known, infinity is the sky."""
    depth_m = stored.astype(np.float32)
    depth_m[depth_m == 0] = np.nan
    return depth_m


def _decode_measured(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    return _metres(read_numbers(paths[0], "depth"))


def _decode_pair(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    path = paths[0]
    return _metres(read_numbers(path)) if path.suffix == ".npy" else png16_depth(path, per_metre=1000)


def _search_pairs(folder: Path) -> list[Entry]:
    """List all photos and depth maps, in sub-folders too; a photo without a map counts, and is a fault when read."""
    photos: dict[str, str] = {}
    maps: dict[str, str] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(name for name in names if not name.startswith(".")):
            path = (Path(parent) / name).relative_to(folder).as_posix()
            ending = next((ending for ending in (*DEPTH_ENDINGS, *PHOTO_ENDINGS) if path.lower().endswith(ending)), "")
            kept, stem = maps if ending in DEPTH_ENDINGS else photos, path.removesuffix(path[len(path) - len(ending) :])
            if ending and kept.setdefault(stem, path) != path:
                raise MarigoldError(f"{kept[stem]} and {path} in {folder} have one name: remove one of them.")
    stems = sorted({*photos, *maps}) if maps else []
    return [(photos.get(stem, f"{stem}.jpg"), maps.get(stem, f"{stem}.depth.png")) for stem in stems]


MEASURED = Format(
    kind="measured",
    photo="{picture}/rgb.png",
    depth=("{picture}/depth.npz",),
    decode=_decode_measured,
    near_m=1e-3,
    far_m=80.0,
    upright=True,
)
PAIRS = Format(
    kind="pairs",
    photo="NAME.jpg or NAME.png",
    depth=("NAME.depth.png (16-bit, millimetres) or NAME.depth.npy (metres)",),
    lister=_search_pairs,
    decode=_decode_pair,
    near_m=1e-3,
    far_m=np.inf,
    upright=True,
)
