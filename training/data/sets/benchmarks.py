"""The five sets that depth networks are compared on: NYUv2, KITTI (Eigen), ETH3D, ScanNet, DIODE.

Layouts are those of the archives published with Marigold; the list files are looked for in the folder itself. Which
part of a picture counts for a score is not the reader's business: see ``training.scoring``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.sets.crops import KITTI_BENCHMARK_PX, kitti_benchmark_crop
from training.data.sets.files import Format
from training.data.sets.reading import naming, png16_depth, read_numbers


def _millimetres(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    return png16_depth(paths[0], per_metre=1000)


def _kitti(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    return png16_depth(paths[0], per_metre=256)


def _eth3d(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Raw little-endian float32 metres, as many as the photo has pixels; infinity where nothing was measured."""
    path, (height, width) = paths[0], size
    with naming(path):
        found, wanted = path.stat().st_size, 4 * height * width
        if found != wanted:
            raise MarigoldError(f"{path} has {found} bytes; {height} x {width} depths are {wanted}.")
        depth_m = np.fromfile(path, "<f4").reshape(size)
    if np.isnan(depth_m).any():
        raise MarigoldError(f"{path} holds depths that are not numbers (NaN).")
    depth_m[np.isinf(depth_m) | (depth_m == 0)] = np.nan
    return depth_m


def _diode(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Metres, and a mask of what was measured."""
    depth_m, mask = (read_numbers(path) for path in paths)
    if depth_m.shape != mask.shape:
        raise MarigoldError(f"{paths[1]} has another shape than {paths[0]}: {mask.shape} and {depth_m.shape}.")
    measured = mask > 0
    if not np.isfinite(depth_m[measured]).all():
        raise MarigoldError(f"{paths[0]} holds depths that are not numbers where its mask says that they are.")
    return np.where(measured & (depth_m != 0), depth_m, np.nan).astype(np.float32)


NYU = Format(
    kind="nyu",
    photo="{split}/{scene}/rgb_{picture}.png",
    depth=("{split}/{scene}/depth_{picture}.png",),
    decode=_millimetres,
    near_m=1e-3,
    far_m=10.0,
    lists={"test": ("filename_list_test.txt",), "train": ("filename_list_train.txt",)},
    pixels=(480, 640),
)
KITTI = Format(
    kind="kitti",
    photo="{drive:.10}/{drive}/image_02/data/{frame}.png",  # a drive's name begins with its date
    depth=("{drive}/proj_depth/groundtruth/image_02/{frame}.png",),
    decode=_kitti,
    near_m=1e-5,
    far_m=80.0,
    lists={"test": ("eigen_test_files_with_gt.txt",), "val": ("eigen_val_from_train_800.txt",)},
    crop=kitti_benchmark_crop,
    pixels=KITTI_BENCHMARK_PX,
)
ETH3D = Format(
    kind="eth3d",
    photo="rgb/{scene}/images/dslr_images/{picture}.JPG",
    depth=("depth/{scene}_dslr_depth/{scene}/ground_truth_depth/dslr_images/{picture}.JPG",),
    decode=_eth3d,
    near_m=1e-5,
    far_m=np.inf,
    lists={"test": ("eth3d_filename_list.txt",)},
    pixels=(4032, 6048),
)
SCANNET = Format(
    kind="scannet",
    photo="{scene}/color/{picture}.jpg",
    depth=("{scene}/depth/{picture}.png",),
    decode=_millimetres,
    near_m=1e-3,
    far_m=10.0,
    lists={"val": ("scannet_val_sampled_list_800_1.txt",)},
    pixels=(480, 640),
)
DIODE = Format(
    kind="diode",
    photo="{place}/{scene}/{scan}/{picture}.png",
    depth=("{place}/{scene}/{scan}/{picture}_depth.npy", "{place}/{scene}/{scan}/{picture}_depth_mask.npy"),
    decode=_diode,
    near_m=0.6,
    far_m=350.0,
    lists={"val": ("diode_val_all_filename_list.txt",)},
    pixels=(768, 1024),
)
