"""Virtual KITTI 2: rendered streets, read as they are published.

Source: Cabon et al. 2020 (data); Ke et al. 2024, section 4.1 (use: no fog, no rain, no camera turned by 30 degrees).
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from training.data.sets.crops import KITTI_BENCHMARK_PX, kitti_benchmark_crop
from training.data.sets.files import Format
from training.data.sets.reading import read_png16

SCENE_PAIRS = {  # split -> scene -> pictures with depth, all variations and cameras together
    "train": {"Scene02": 2796, "Scene06": 3240, "Scene18": 4068, "Scene20": 10_044},
    "val": {"Scene01": 5364},
}
VARIATIONS = ("clone", "morning", "overcast", "sunset", "15-deg-left", "15-deg-right")
CAMERAS = ("Camera_0", "Camera_1")
PER_METRE = 100  # depth PNGs hold centimetres
SKY = 65_535


def parts(split: str) -> Iterator[dict[str, str]]:
    """Name the folders that a split consists of: scenes, variations and cameras."""
    for scene, variation, camera in product(SCENE_PAIRS[split], VARIATIONS, CAMERAS):
        yield {"scene": scene, "variation": variation, "camera": camera}


def _decode(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    stored = read_png16(paths[0])
    depth_m = stored.astype(np.float32) / PER_METRE
    depth_m[stored == SKY] = np.inf
    depth_m[stored == 0] = np.nan
    return depth_m


VKITTI = Format(
    kind="vkitti",
    photo="rgb/{scene}/{variation}/frames/rgb/{camera}/rgb_{frame}.jpg",
    depth=("depth/{scene}/{variation}/frames/depth/{camera}/depth_{frame}.png",),
    decode=_decode,
    near_m=1e-5,
    far_m=80.0,
    lists={split: (f"vkitti_{split}.txt",) for split in SCENE_PAIRS},
    parts=parts,
    crop=kitti_benchmark_crop,
    pixels=KITTI_BENCHMARK_PX,
    size=KITTI_BENCHMARK_PX,
)
