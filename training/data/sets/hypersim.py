"""Hypersim: rendered rooms. Pictures as ``training.prepare`` makes them, and how it makes them.

Source: Roberts et al. 2021 (data); Ke et al. 2024, section 4.1 (use).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.sets.files import Format
from training.data.sets.reading import png16_depth

SPLITS = ("train", "val", "test")
PER_METRE = 1000  # depth PNGs hold millimetres
SIZE_PX = (768, 1024)
FOCAL_PX = 886.81  # of pictures 1024 pixels wide
NO_GEOMETRY = -1  # entity of pixels that show nothing
BRIGHT_PERCENTILE, BRIGHT_SHOWN = 90, 0.8  # this percentile of brightness is shown this bright
DARKEST = 1e-4  # a picture whose bright pixels are below this is left black
GAMMA = 2.2


def plane_depth(distance_m: np.ndarray) -> np.ndarray:
    """Distance to the camera's centre [H, W] -> depth along the optical axis [H, W] float64, both in metres.

    The focal length is that of 1024 x 768 pixels, in proportion to the width for pictures of other sizes.
    Source: the renderer's camera, image plane centred on the optical axis.
    """
    height, width = distance_m.shape
    focal = FOCAL_PX * width / SIZE_PX[1]
    x = np.linspace(-(width - 1) / 2, (width - 1) / 2, width)
    y = np.linspace(-(height - 1) / 2, (height - 1) / 2, height)[:, None]
    return distance_m * (focal / np.sqrt(x**2 + y**2 + focal**2))


def tone_map(linear: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Linear light [H, W, 3] of any range -> sRGB-like [H, W, 3] uint8; ``valid`` [H, W] marks pixels with geometry.

    The 90th percentile of brightness over valid pixels becomes 0.8 after a gamma of 2.2; brighter ones are clipped.
    Light that is not a number is black. Source: the tone mapping published with the data.
    """
    light = np.nan_to_num(linear.astype(np.float32)).astype(np.float64)
    brightness = light @ (0.3, 0.59, 0.11)
    scale = 1.0
    if valid.any():
        bright = np.percentile(brightness[valid], BRIGHT_PERCENTILE)
        scale = BRIGHT_SHOWN**GAMMA / bright if bright >= DARKEST else 0.0
    return (255 * np.clip(np.maximum(scale * light, 0) ** (1 / GAMMA), 0, 1)).astype(np.uint8)


def millimetres(depth_m: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Depth [H, W] in metres -> [H, W] uint16 millimetres as stored; what is not valid is 0.

    Depths above 65.535 m are stored as 65.535 m, which the reader's range leaves out; as published they would wrap
    around and come back near.
    """
    known = valid & np.isfinite(depth_m)
    return np.where(known, np.minimum(np.where(known, depth_m, 0) * PER_METRE, 2**16 - 1), 0).astype(np.uint16)


def _decode(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    return png16_depth(paths[0], PER_METRE)


HYPERSIM = Format(
    kind="hypersim",
    photo="{split}/{scene}/rgb_{picture}.png",
    depth=("{split}/{scene}/depth_plane_{picture}.png",),
    decode=_decode,
    near_m=1e-5,
    far_m=65.0,
    lists={split: (f"filename_list_{split}_filtered.txt", f"filename_list_{split}.txt") for split in SPLITS},
    list_root="{split}/",
    pixels=SIZE_PX,
    size=(480, 640),
    hint="; the raw HDF5 files become such a folder by: python -m training.prepare hypersim RAW OUT",
)
