"""Small folders in the exact on-disk formats of the public data sets, written from their documentation alone.

Nothing of the readers is imported here: names, units and sizes are stated a second time, so that a test that writes a
folder and reads it back compares two independent readings of the documentation. Depths are multiples of a format's
step, so that what is read must equal what was written. ``Picture.depth_m`` is inf in the sky, NaN where not known.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

INDEX = "metadata_images_split_scene_v1.csv"
INDEX_COLUMNS = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
HYPERSIM_SIZE = (768, 1024)
KITTI_SIZE = (375, 1242)
VKITTI_FARTHEST = 65535  # centimetres, where there is sky
SPLITS = {"nyu": "test", "kitti": "test", "eth3d": "test", "scannet": "val", "diode": "val"}  # of sets for evaluation


@dataclass(frozen=True)
class Picture:
    """A photograph and the depth that a reader must return for it."""

    rgb: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float64


@dataclass(frozen=True)
class Frame:
    """What Hypersim holds of one picture, and its row in the index."""

    hdr: np.ndarray  # [768, 1024, 3] linear colour
    distance_m: np.ndarray  # [768, 1024] to the camera's centre
    entity: np.ndarray  # [768, 1024] int, -1 = no surface, never 0
    scene: str = "ai_001_001"
    camera: str = "cam_00"
    frame: int = 0
    split: str = "train"
    public: bool = True


def picture(size: tuple[int, int], seed: int = 0, *, step_m: float = 0.001, unknown: bool = True) -> Picture:
    """Draw slopes of colour and depth; a corner has no depth, and no pixel equals its mirror image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    colours = [rng.uniform(0, 90) + rng.uniform(60, 150) * along for along in (rows, columns, rows * columns)]
    depth = rng.uniform(1, 2) + rng.uniform(2, 5) * (1 - rows) + rng.uniform(0.1, 0.9) * columns
    depth = np.rint(depth / step_m) * step_m
    if unknown:
        depth[: size[0] // 4, : size[1] // 8] = np.nan
    return Picture(np.stack(colours, axis=-1).astype(np.uint8), depth)


def frame(distance_m: float = 4.0, light: float = 1.0, size: tuple[int, int] = HYPERSIM_SIZE, **row: object) -> Frame:
    """Make a Hypersim frame: a wall at one distance, lit from the right, whose upper left shows nothing."""
    colour = np.linspace(0.01, light, size[1])[None, :, None] * np.array([1.0, 0.8, 0.6])
    entity = np.arange(1, size[0] + 1)[:, None].repeat(size[1], axis=1)
    entity[:10, :20] = -1
    hdr = np.broadcast_to(colour, (*size, 3))
    return Frame(hdr, np.full(size, distance_m), entity, **row)  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------------------- training sets


def write_hypersim_raw(folder: Path, frames: Sequence[Frame]) -> None:
    """Lay frames out as the publisher does: the index and ``SCENE/images``. Withheld frames have a row but no file."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / INDEX).open("w", newline="") as file:
        file.write(f"{INDEX_COLUMNS}\n")
        rows = csv.writer(file)
        for one in frames:
            rows.writerow([one.scene, one.camera, one.frame, one.public, "" if one.public else "unknown", one.split])
    for one in frames:
        if not one.public:
            continue
        colour, distance, entity = hypersim_files(folder, one)
        write_hdf5(colour, one.hdr.astype(np.float16))
        write_hdf5(distance, one.distance_m.astype(np.float16))
        write_hdf5(entity, one.entity.astype(np.int32))


def hypersim_files(folder: Path, one: Frame) -> tuple[Path, Path, Path]:
    """Name the colour, distance and entity files of a frame."""
    images = folder / one.scene / "images"
    geometry = images / f"scene_{one.camera}_geometry_hdf5"
    number = f"frame.{one.frame:04d}"
    return (
        images / f"scene_{one.camera}_final_hdf5" / f"{number}.color.hdf5",
        geometry / f"{number}.depth_meters.hdf5",
        geometry / f"{number}.render_entity_id.hdf5",
    )


def write_hdf5(path: Path, values: np.ndarray, key: str = "dataset") -> None:
    """Write one array under the key of the publisher."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=values, compression="gzip", compression_opts=1)


def write_hypersim(folder: Path, pictures: Mapping[str, Picture], split: str = "train") -> None:
    """Write what preparation makes of one split; pictures are named "ai_001_001/cam_00_fr0000"."""
    paths = "{0}/rgb_{1}.png", "{0}/depth_plane_{1}.png"
    write_listed(folder / split, f"filename_list_{split}.txt", pictures, *paths)


def write_vkitti(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write pictures named "Scene02/clone/Camera_0/00000"; depth is in centimetres, and sky is as far as they go."""
    for name, one in pictures.items():
        scene, variation, camera, number = name.split("/")
        where = f"{scene}/{variation}/frames"
        write_photo(folder / "rgb" / where / "rgb" / camera / f"rgb_{number}.jpg", one.rgb)
        depth = np.where(np.isinf(one.depth_m), VKITTI_FARTHEST / 100, one.depth_m)
        write_png16(folder / "depth" / where / "depth" / camera / f"depth_{number}.png", depth, 100)


# ------------------------------------------------------------------------------- evaluation sets


def write_nyu(folder: Path, pictures: Mapping[str, Picture], split: str = "test") -> None:
    """Write pictures named "kitchen_0004/0001": measured and filled depth in millimetres."""
    filled = split + "/{0}/filled_{1}.png"
    for name, one in pictures.items():
        write_png16(folder / filled.format(*name.split("/")), np.where(np.isnan(one.depth_m), 3.0, one.depth_m), 1000)
    paths = split + "/{0}/rgb_{1}.png", split + "/{0}/depth_{1}.png"
    write_listed(folder, f"filename_list_{split}.txt", pictures, *paths, more=f" {filled}")


def write_kitti(folder: Path, pictures: Mapping[str, Picture | None], split: str = "test") -> None:
    """Write pictures named "2011_09_26_drive_0002_sync/0000000069"; None has a photo but no truth, as 45 of 697."""
    paths = "{0:.10}/{0}/image_02/data/{1}.png", "{0}/proj_depth/groundtruth/image_02/{1}.png"
    write_listed(folder, f"eigen_{split}_files_with_gt.txt", pictures, *paths, more=" 721.5377", steps_a_metre=256)


def write_eth3d(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write pictures named "office/DSC_0219": depth is bare little-endian float32, inf where nothing was measured."""
    photo, raw = "images/dslr_images/{1}.JPG", "{0}/ground_truth_depth/dslr_images/{1}.JPG"
    paths = f"rgb/{{0}}/{photo}", f"depth/{{0}}_dslr_depth/{raw}"
    write_listed(folder, "eth3d_filename_list.txt", pictures, *paths, steps_a_metre=None)


def write_scannet(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write pictures named "scene0406_02/000300": depth in millimetres."""
    write_listed(folder, "scannet_val_sampled_list_800_1.txt", pictures, "{0}/color/{1}.jpg", "{0}/depth/{1}.png")


def write_diode(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write pictures named "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"; a mask says what is known.

    Where the mask is 0 the depth is a number like any other.
    """
    lines = []
    for name, one in pictures.items():
        write_photo(folder / f"{name}.png", one.rgb)
        known = np.isfinite(one.depth_m)
        np.save(folder / f"{name}_depth.npy", np.where(known, one.depth_m, 7.0).astype(np.float32)[..., None])
        np.save(folder / f"{name}_depth_mask.npy", known.astype(np.float64))
        lines.append(f"{name}.png {name}_depth.npy {name}_depth_mask.npy")
    write_list(folder / "diode_val_all_filename_list.txt", lines)


# ------------------------------------------------------------------------------- our own


def write_measured(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write ``NAME/rgb.png`` and ``NAME/depth.npz``, metres, NaN where nothing was measured."""
    for name, one in pictures.items():
        write_photo(folder / name / "rgb.png", one.rgb)
        np.savez(folder / name / "depth.npz", depth=one.depth_m.astype(np.float32))


def write_pairs(folder: Path, pictures: Mapping[str, Picture], as_png: bool = True) -> None:
    """Write ``NAME.jpg`` with ``NAME.depth.png`` in millimetres, or ``NAME.png`` with ``NAME.depth.npy`` in metres."""
    for name, one in pictures.items():
        write_photo(folder / f"{name}{'.jpg' if as_png else '.png'}", one.rgb)
        if as_png:
            write_png16(folder / f"{name}.depth.png", one.depth_m, 1000)
        else:
            np.save(folder / f"{name}.depth.npy", one.depth_m.astype(np.float32))


def write_rendered(folder: Path, pictures: Sequence[Picture], shard: int = 0) -> Path:
    """Write one shard of rendered pictures of one size; unknown depth does not occur in it."""
    path = folder / f"shard_{shard:05d}"
    path.mkdir(parents=True)
    rgb = np.stack([one.rgb for one in pictures])
    np.save(path / "rgb.npy", rgb)
    np.save(path / "depth.npy", np.stack([one.depth_m for one in pictures]).astype(np.float16))
    np.save(path / "normals.npy", np.full(rgb.shape, (0, 0, 127), np.int8))
    np.save(path / "labels.npy", np.zeros(rgb.shape[:3], np.uint8))
    count = len(pictures)
    (path / "meta.json").write_text(json.dumps({"kinds": ["room"] * count, "fov_x_deg": [60.0] * count}))
    return path


# ------------------------------------------------------------------------------- files


def write_photo(path: Path, rgb: np.ndarray) -> None:
    """Write a photo in the format of its ending; JPEG at its least loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form = "PNG" if path.suffix == ".png" else "JPEG"
    options = {} if form == "PNG" else {"quality": 100, "subsampling": 0}
    Image.fromarray(rgb).save(path, form, **options)


def write_png16(path: Path, depth_m: np.ndarray, steps_a_metre: int) -> None:
    """Write depth as 16-bit steps, 0 where it is not known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.rint(np.nan_to_num(depth_m * steps_a_metre, nan=0.0))
    assert steps.min() >= 0
    assert steps.max() < 2**16
    Image.fromarray(steps.astype(np.uint16)).save(path)


def write_listed(
    folder: Path,
    list_name: str,
    pictures: Mapping[str, Picture | None],
    rgb: str,
    depth: str,
    more: str = "",
    steps_a_metre: int | None = 1000,
) -> None:
    """Write photos and depth maps, whose paths have the parts of a picture's name, and their list.

    ``more`` ends each line. Depth is 16-bit PNG or, without ``steps_a_metre``, bare float32. None has no depth.
    """
    lines = []
    for name, one in pictures.items():
        photo, truth = (path.format(*name.split("/")) for path in (rgb, depth))
        write_photo(folder / photo, (one or picture(KITTI_SIZE)).rgb)
        if one and steps_a_metre:
            write_png16(folder / truth, one.depth_m, steps_a_metre)
        elif one:
            (folder / truth).parent.mkdir(parents=True, exist_ok=True)
            np.where(np.isnan(one.depth_m), np.inf, one.depth_m).astype("<f4").tofile(folder / truth)
        lines.append(f"{photo} {truth if one else None}{more.format(*name.split('/'))}")
    write_list(folder / list_name, lines)


def write_list(path: Path, lines: Sequence[str]) -> None:
    """Write a list of files, one picture a line, without a last line end, as preparation publishes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
