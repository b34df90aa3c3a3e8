"""How each data set of files lies on disk and what its numbers mean: one ``Format`` a set, and the decoders they name.

Published sets are read as they are published (Hypersim as ``training.prepare`` makes it), and list files are looked for
in the folder itself. Which part of a picture counts for a score is not the readers' business: see ``training.scoring``.
Sources: Roberts et al. 2021 (Hypersim) and Cabon et al. 2020 (Virtual KITTI 2), used as in Ke et al. 2024, section 4.1;
the five evaluation sets lie as in the archives published with Marigold.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.sets.files import Entry, Format
from training.data.sets.reading import HEIC, naming, read_numbers, read_png16

HYPERSIM_SPLITS = ("train", "val", "test")
HYPERSIM_PX = (768, 1024)  # height, width, as all sizes below
HYPERSIM_FOCAL_PX = 886.81
KITTI_BENCHMARK_PX = (352, 1216)
SCENE_PAIRS = {  # of Virtual KITTI: split -> scene -> pictures with depth, all variations and cameras together
    "train": {"Scene02": 2796, "Scene06": 3240, "Scene18": 4068, "Scene20": 10_044},
    "val": {"Scene01": 5364},
}
VARIATIONS = ("clone", "morning", "overcast", "sunset", "15-deg-left", "15-deg-right")  # no fog, rain, 30 degrees
CAMERAS = ("Camera_0", "Camera_1")
PHOTO_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", *HEIC)
PHOTO_FOLDERS = ("rgb", "image", "images", "photo", "photos", "color")  # beside depth/
DEPTH_ENDINGS = (".depth.png", ".depth.npy")
OWN_LISTS = {split: (f"{split}.txt",) for split in ("train", "val", "test")}


# ------------------------------------------------------------------------------- depth files -> metres


def _steps(paths: Sequence[Path], size: tuple[int, int], per_metre: int, sky: int | None = None) -> np.ndarray:
    """16-bit steps; 0 is not known, ``sky`` is infinitely far."""
    stored = read_png16(paths[0])
    depth_m = stored.astype(np.float32) / np.float32(per_metre)
    depth_m[stored == 0] = np.nan
    if sky is not None:
        depth_m[stored == sky] = np.inf
    return depth_m


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


def _metres(paths: Sequence[Path], size: tuple[int, int], key: str | None = None) -> np.ndarray:
    """Metres in .npy, or the array ``key`` of .npz; 0 and NaN are not known, infinity is the sky."""
    stored = read_numbers(paths[0], key)
    if stored.dtype.kind != "f":  # of sensors: 1000 would be a kilometre
        raise MarigoldError(
            f"{paths[0]} holds whole numbers ({stored.dtype}); arrays are in metres, as floating-point numbers."
        )
    depth_m = stored.astype(np.float32)
    depth_m[depth_m == 0] = np.nan
    return depth_m


def _pair(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    return _metres(paths, size) if paths[0].suffix == ".npy" else _steps(paths, size, per_metre=1000)


# ------------------------------------------------------------------------------- what belongs to a set


def kitti_benchmark_crop(array: np.ndarray) -> np.ndarray:
    """Cut [H, W, ...] -> [352, 1216, ...]: the lowest rows, the middle columns, as the KITTI depth benchmark does.

    Of 375 x 1242 pixels 23 rows are left out above and 13 columns on the left. The result is a view.

    Raises: MarigoldError when the array is smaller.
    """
    height, width = KITTI_BENCHMARK_PX
    if array.shape[0] < height or array.shape[1] < width:
        found = " x ".join(map(str, array.shape[:2]))
        raise MarigoldError(f"{found} pixels are less than the crop of the KITTI benchmark, {height} x {width}.")
    left = (array.shape[1] - width) // 2
    return array[array.shape[0] - height :, left : left + width]


def _vkitti_folders(split: str) -> Iterator[dict[str, str]]:
    """Name the folders that a split consists of: scenes, variations and cameras."""
    for scene, variation, camera in product(SCENE_PAIRS[split], VARIATIONS, CAMERAS):
        yield {"scene": scene, "variation": variation, "camera": camera}


def search_pairs(folder: Path) -> list[Entry]:
    """List all photos and depth maps, in sub-folders too; a photo without a map counts, and is a fault when read.

    A map is NAME.depth.png beside NAME.jpg, or depth/NAME.png where the photo is rgb/NAME.jpg, or in another of
    ``PHOTO_FOLDERS``; .npy as well.
    """
    photos: dict[str, str] = {}
    maps: dict[str, str] = {}
    map_folders: dict[Path, Path] = {}  # folder of photos -> folder of their maps, where they are two
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(parent).relative_to(folder)
        beside = _photo_folder(folder, place)
        if beside:
            map_folders[beside] = place
        endings = tuple(ending.removeprefix(".depth") for ending in DEPTH_ENDINGS) if beside else DEPTH_ENDINGS
        for name in sorted(name for name in names if not name.startswith(".")):
            path = (place / name).as_posix()
            ending = next((each for each in (*endings, *PHOTO_ENDINGS) if name.lower().endswith(each)), "")
            kept, stem = maps if ending in endings else photos, path[: len(path) - len(ending)]
            if beside and kept is maps:
                stem = (beside / Path(stem).name).as_posix()
            if ending and kept.setdefault(stem, path) != path:
                raise MarigoldError(f"{kept[stem]} and {path} in {folder} have one name: remove one of them.")
    entries = []
    for stem in sorted({*photos, *maps}) if maps else []:
        two = map_folders.get(Path(stem).parent)
        wanted = f"{stem}.depth.png" if two is None else (two / f"{Path(stem).name}.png").as_posix()
        entries.append((photos.get(stem, f"{stem}.jpg"), maps.get(stem, wanted)))
    return entries


def _photo_folder(folder: Path, place: Path) -> Path | None:
    """Find rgb/SCENE of the maps in ``place``, depth/SCENE in ``folder``; None where no photos lie beside depth/.

    Raises: MarigoldError when photos lie in several folders beside depth/.
    """
    for at in (place, *place.parents):
        if at.name.lower() == "depth":
            beside = [
                one for one in (folder / at).parent.iterdir() if one.name.lower() in PHOTO_FOLDERS and one.is_dir()
            ]
            if len(beside) > 1:
                names = " and ".join(sorted(one.name for one in beside))
                raise MarigoldError(f"{(folder / at).parent} has {names} beside {at.name}: keep one folder of photos.")
            if beside:
                return at.with_name(beside[0].name) / place.relative_to(at)
    return None


# ------------------------------------------------------------------------------- the table

VKITTI = Format(
    kind="vkitti",
    photo="rgb/{scene}/{variation}/frames/rgb/{camera}/rgb_{frame}.jpg",
    depth=("depth/{scene}/{variation}/frames/depth/{camera}/depth_{frame}.png",),
    decode=partial(_steps, per_metre=100, sky=2**16 - 1),
    range_m=(1e-5, 80.0),
    lists={split: (f"vkitti_{split}.txt",) for split in SCENE_PAIRS},
    parts=_vkitti_folders,
    crop=kitti_benchmark_crop,
    pixels=KITTI_BENCHMARK_PX,
    focal_px=725.0087,
    size=KITTI_BENCHMARK_PX,
)
_ALL = (
    Format(
        kind="hypersim",
        photo="{split}/{scene}/rgb_{picture}.png",
        depth=("{split}/{scene}/depth_plane_{picture}.png",),
        decode=partial(_steps, per_metre=1000),
        range_m=(1e-5, 65.0),
        lists={name: (f"filename_list_{name}_filtered.txt", f"filename_list_{name}.txt") for name in HYPERSIM_SPLITS},
        list_root="{split}/",
        pixels=HYPERSIM_PX,
        focal_px=HYPERSIM_FOCAL_PX,
        size=(480, 640),
        hint="; the raw HDF5 files become such a folder by: python -m training.prepare hypersim RAW OUT",
    ),
    VKITTI,
    Format(
        kind="nyu",
        photo="{split}/{scene}/rgb_{picture}.png",
        depth=("{split}/{scene}/depth_{picture}.png",),
        decode=partial(_steps, per_metre=1000),
        range_m=(1e-3, 10.0),
        lists={"test": ("filename_list_test.txt",), "train": ("filename_list_train.txt",)},
        pixels=(480, 640),
        focal_px=518.8579,  # Silberman et al. 2012, of the colour camera
    ),
    Format(
        kind="kitti",
        photo="{drive:.10}/{drive}/image_02/data/{frame}.png",  # a drive's name begins with its date
        depth=("{drive}/proj_depth/groundtruth/image_02/{frame}.png",),
        decode=partial(_steps, per_metre=256),
        range_m=(1e-5, 80.0),
        lists={"test": ("eigen_test_files_with_gt.txt",), "val": ("eigen_val_from_train_800.txt",)},
        crop=kitti_benchmark_crop,
        pixels=KITTI_BENCHMARK_PX,
    ),
    Format(
        kind="eth3d",
        photo="rgb/{scene}/images/dslr_images/{picture}.JPG",
        depth=("depth/{scene}_dslr_depth/{scene}/ground_truth_depth/dslr_images/{picture}.JPG",),
        decode=_eth3d,
        range_m=(1e-5, np.inf),
        lists={"test": ("eth3d_filename_list.txt",)},
        pixels=(4032, 6048),
    ),
    Format(
        kind="scannet",
        photo="{scene}/color/{picture}.jpg",
        depth=("{scene}/depth/{picture}.png",),
        decode=partial(_steps, per_metre=1000),
        range_m=(1e-3, 10.0),
        lists={"val": ("scannet_val_sampled_list_800_1.txt",)},
        pixels=(480, 640),
    ),
    Format(
        kind="diode",
        photo="{place}/{scene}/{scan}/{picture}.png",
        depth=("{place}/{scene}/{scan}/{picture}_depth.npy", "{place}/{scene}/{scan}/{picture}_depth_mask.npy"),
        decode=_diode,
        range_m=(0.6, 350.0),
        lists={"val": ("diode_val_all_filename_list.txt",)},
        pixels=(768, 1024),
    ),
    Format(  # of one's own: a folder a picture
        kind="measured",
        photo="{picture}/rgb.png",
        depth=("{picture}/depth.npz",),
        decode=partial(_metres, key="depth"),
        range_m=(1e-3, 80.0),
        upright=True,
        lists=OWN_LISTS,
        own=True,
    ),
    Format(  # of one's own: files side by side
        kind="pairs",
        photo="NAME.jpg or NAME.png",
        depth=("NAME.depth.png (16-bit, millimetres) or NAME.depth.npy (metres), or rgb/NAME.jpg with depth/NAME.png",),
        lister=search_pairs,
        decode=_pair,
        range_m=(1e-3, np.inf),
        upright=True,
        lists=OWN_LISTS,
        own=True,
    ),
)
FORMATS = {form.kind: form for form in _ALL}
