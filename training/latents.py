"""Stage 2: pictures and depth maps encoded once, ``python -m training.latents --checkpoint ... --data ... --out ...``.

The autoencoder is frozen while the U-Net learns, so every augmented variant of a picture is encoded once and the U-Net
reads latents alone. The output folder holds shards, each complete or absent, so the same command goes on where it was
stopped and picks up newly rendered scenes:

    shard_00000_192px_v0/image.npy   [N, 4, h, w] float16  scaled latent of the augmented picture
    shard_00000_192px_v0/target.npy  [N, 4, h, w] float16  scaled latent of its depth map
    shard_00000_192px_v0/valid.npy   [N, 1, h, w] bool     cells whose depth is known
"""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from marigold_core import load
from marigold_core.image import load_rgb
from marigold_core.pipeline import MarigoldPipeline
from training.augment import colour_look, crop_nearest, crop_picture, draw_crop, photographic
from training.noise import stream
from training.scene_store import RenderedScenes, Shard

ASPECTS = (4 / 3, 3 / 2, 16 / 9, 5 / 2, 1.0)  # width / height of landscape crops; portrait shards take the inverse
ASPECT_SHARES = (0.55, 0.15, 0.1, 0.1, 0.1)
BATCH = 16
ROUND_PX = 16


def crop_size(long_edge_px: int, aspect: float) -> tuple[int, int]:
    """Choose (h, w) of ``aspect`` = w / h with the pixels of a 4:3 picture of that long edge, in steps of 16."""
    area = long_edge_px**2 * 3 / 4
    height, width = (area / aspect) ** 0.5, (area * aspect) ** 0.5
    return round(height / ROUND_PX) * ROUND_PX, round(width / ROUND_PX) * ROUND_PX


@torch.inference_mode()
def encode_shard(
    pipeline: MarigoldPipeline,
    shard: Shard,
    number: int,
    *,
    variant: int,
    long_edge_px: int,
    far_m: float,
    upside_down: float,
    looks: Tensor | None,
    seed: int,
) -> dict[str, np.ndarray]:
    """Augment and encode one variant of one shard -> image and target latents [N, 4, h, w], valid [N, 1, h, w].

    Every choice is a function of (seed, shard number, variant). Sky and what lies beyond ``far_m`` metres go to the
    far plane and count as known.
    """
    rng = np.random.default_rng([seed, number, variant])
    random = stream(seed, number, variant)
    aspect = float(rng.choice(ASPECTS, p=ASPECT_SHARES))
    height, width = shard.size
    size = crop_size(long_edge_px, aspect if width >= height else 1 / aspect)
    images, targets, valid = [], [], []
    for first in range(0, len(shard), BATCH):
        rgb, depth = [], []
        for index in range(first, min(first + BATCH, len(shard))):
            box = draw_crop(height, width, size[1] / size[0], rng)
            turn = -1 if rng.random() < upside_down else 1
            mirror = -1 if rng.random() < 0.5 else 1
            rgb.append(crop_picture(shard.rgb[index], box, size)[::turn, ::mirror])
            depth.append(crop_nearest(shard.depth[index].astype(np.float32), box, size)[::turn, ::mirror])
        pictures = torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).float() / 255
        pictures = photographic(pictures, random, looks) * 2 - 1
        depth_m = torch.from_numpy(np.stack(depth))[:, None]  # [B, 1, H, W]
        maps = pipeline.modality.to_vae(depth_m, depth_m < far_m)
        known = F.max_pool2d(depth_m.isnan().float(), pipeline.factor) == 0  # one unknown pixel spoils its cell
        with torch.autocast(pipeline.device.type, torch.bfloat16):  # three times as fast on a CPU that has it
            images.append(pipeline.encode(pictures).half().numpy())
            targets.append(pipeline.encode(maps).half().numpy())
        valid.append(known.numpy())
    return {"image": np.concatenate(images), "target": np.concatenate(targets), "valid": np.concatenate(valid)}


def write_latents(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one shard aside and rename it, so that it is whole or absent."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array)
    aside.rename(path)


def main(
    checkpoint: Path,
    data: Path,
    out: Path,
    long_edge_px: int = 192,
    variants: int = 4,
    far_m: float = 80.0,
    upside_down: float = 0.25,
    photos: Path | None = None,
    seed: int = 0,
) -> None:
    """Encode rendered scenes for training.train; the same command goes on where it was stopped.

    Args:
        checkpoint: folder with the trained autoencoder, from training.autoencoder.
        data: rendered scenes, from training.render.
        out: folder for the latents.
        long_edge_px: long edge of a 4:3 training picture; other shapes have as many pixels.
        variants: crops and photographic looks made of each picture.
        far_m: depths beyond this are the far plane, as the sky.
        upside_down: share of pictures turned upside down, so that the network looks before it calls the bottom near.
        photos: folder of photographs whose colours are lent to the pictures.
        seed: all choices are a function of (seed, shard, variant).
    """
    pipeline = load(checkpoint, dtype="float32")
    natural = sorted(path for path in photos.iterdir() if path.suffix in (".jpg", ".png")) if photos else []
    looks = torch.from_numpy(np.stack([colour_look(load_rgb(path)) for path in natural])) if natural else None
    shards = RenderedScenes(data).shards
    work = [(number, variant) for variant in range(variants) for number in range(len(shards))]
    for number, variant in tqdm(work, unit="shard"):
        path = out / f"{shards[number].path.name}_{long_edge_px}px_v{variant}"
        if path.exists():
            continue
        arrays = encode_shard(
            pipeline,
            shards[number],
            int(shards[number].path.name.removeprefix("shard_")),
            variant=variant,
            long_edge_px=long_edge_px,
            far_m=far_m,
            upside_down=upside_down,
            looks=looks,
            seed=seed,
        )
        write_latents(path, arrays)


if __name__ == "__main__":
    tyro.cli(main)
