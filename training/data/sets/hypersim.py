"""Hypersim as it is published, HDF5 files and an index -> the photos and depth maps that training reads.

Source: Roberts et al. 2021; what is kept and how it is named follows Ke et al. 2024.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from marigold_core.errors import MarigoldError
from marigold_core.storage import replacing
from training.data.sets.formats import FORMATS, HYPERSIM_FOCAL_PX, HYPERSIM_PX
from training.data.sets.reading import naming

PER_METRE = 1000  # depth PNGs hold millimetres
NO_GEOMETRY = -1  # entity of pixels that show nothing
BRIGHT_PERCENTILE, BRIGHT_SHOWN = 90, 0.8  # this percentile of brightness is shown this bright
DARKEST = 1e-4  # a picture whose bright pixels are below this is left black
GAMMA = 2.2
INDEX = "metadata_images_split_scene_v1.csv"
COLUMNS = (
    *("scene_name", "camera_name", "frame_id", "rgb_path", "rgb_mean", "rgb_std", "rgb_min", "rgb_max"),
    *("depth_path", "depth_mean", "depth_std", "depth_min", "depth_max", "invalid_ratio"),
)
Row = dict[str, str]  # of COLUMNS: colour in 0..255, depth in metres over the pixels that have one


@dataclass(frozen=True)
class Picture:
    """One row of the index."""

    split: str
    scene: str
    camera: str
    frame: int

    @property
    def paths(self) -> tuple[str, str]:
        """Photo and depth map, relative to the folder of the split."""
        name = f"{self.camera}_fr{self.frame:04d}.png"
        return f"{self.scene}/rgb_{name}", f"{self.scene}/depth_plane_{name}"

    def raw_files(self, raw: Path) -> tuple[Path, Path, Path]:
        """Colour, distance and entity files as published."""
        images, frame = raw / self.scene / "images", f"frame.{self.frame:04d}"
        geometry = images / f"scene_{self.camera}_geometry_hdf5"
        return (
            images / f"scene_{self.camera}_final_hdf5" / f"{frame}.color.hdf5",
            geometry / f"{frame}.depth_meters.hdf5",
            geometry / f"{frame}.render_entity_id.hdf5",
        )


def read_index(raw: Path) -> list[Picture]:
    """Read the published pictures that belong to a split from the index in ``raw``.

    Raises: MarigoldError when the index is missing or another file.
    """
    path = raw / INDEX
    if not path.is_file():
        raise MarigoldError(f"{raw} has no {INDEX}; it is in the Hypersim repository, evermotion_dataset/analysis.")
    pictures = []
    with naming(path), path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if (
                row["included_in_public_release"].strip() == "True"
                and row["split_partition_name"] in FORMATS["hypersim"].lists
            ):
                where = row["split_partition_name"], row["scene_name"], row["camera_name"]
                pictures.append(Picture(*where, int(row["frame_id"])))
    if not pictures:
        raise MarigoldError(f"{path} names no published picture.")
    return pictures


def convert(picture: Picture, raw: Path, out: Path) -> Row | str:
    """Write photo and depth map of one picture -> its row of statistics, or what is wrong with its raw files.

    Both files appear whole or not at all. Raises: ExportError when they cannot be written.
    """
    try:
        linear, distance_m, entity = read_raw(*picture.raw_files(raw))
    except MarigoldError as error:
        return str(error)
    valid = entity != NO_GEOMETRY
    rgb, depth = tone_map(linear, valid), millimetres(plane_depth(distance_m), valid)
    for path, array in zip(picture.paths, (rgb, depth), strict=True):
        with replacing(out / picture.split / path) as temporary:
            Image.fromarray(array).save(temporary, "PNG")
    known_m = depth[depth > 0] / PER_METRE if depth.any() else np.zeros(1)
    numbers = (
        *(rgb.mean(), rgb.std(), rgb.min(), rgb.max()),
        *(known_m.mean(), known_m.std(), known_m.min(), known_m.max(), np.mean(depth == 0)),
    )
    written = [f"{number:.6g}" for number in numbers]
    names = picture.scene, picture.camera, str(picture.frame)
    return dict(zip(COLUMNS, (*names, picture.paths[0], *written[:4], picture.paths[1], *written[4:]), strict=True))


def read_raw(colour: Path, distance: Path, entity: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the three HDF5 files of a picture -> linear light [H, W, 3], distance [H, W] metres, entities [H, W].

    Raises: MarigoldError naming the file that is missing, damaged or does not fit.
    """
    arrays = []
    for path in (colour, distance, entity):
        with naming(path), h5py.File(path, "r") as file:
            data = file["dataset"]
            if not isinstance(data, h5py.Dataset):
                raise MarigoldError(f"{path} holds a group where pixels should be.")
            arrays.append(data[()])
    size = arrays[1].shape
    for path, array, wanted in zip((colour, distance, entity), arrays, ((*size, 3), size, size), strict=True):
        if len(size) != 2 or array.shape != wanted:
            raise MarigoldError(f"{path} holds {list(array.shape)}, which does not fit the picture's other files.")
    if (arrays[2] == 0).any():
        raise MarigoldError(f"{entity} holds entity 0, which does not exist.")
    return arrays[0], arrays[1].astype(np.float64), arrays[2]


def plane_depth(distance_m: np.ndarray) -> np.ndarray:
    """Distance to the camera's centre [H, W] -> depth along the optical axis [H, W] float64, both in metres.

    The focal length is that of 1024 x 768 pixels, in proportion to the width for pictures of other sizes.
    Source: the renderer's camera, image plane centred on the optical axis.
    """
    height, width = distance_m.shape
    focal = HYPERSIM_FOCAL_PX * width / HYPERSIM_PX[1]
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
