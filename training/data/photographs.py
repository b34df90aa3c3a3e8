"""Photographs without depth, beside rendered pictures with it: their colours, and the pull of middle features.

A network trained on renders may tell render from photograph. The pull makes the features in the middle of the U-Net
alike in mean and covariance, which needs no depth of the photographs.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError
from marigold_core.images.photo import load_rgb
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.augmentation import colour_look, crop_picture, draw_crop

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".heic"}
TINY = 1e-12  # keeps features that are all zero from dividing by it


def photographs(folder: Path) -> list[Path]:
    """List the photographs of a folder and the folders in it, in order of name.

    Raises: MarigoldError when there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise MarigoldError(f"{folder.name} holds no photograph; give a folder of {', '.join(sorted(ENDINGS))} files.")
    return found


def colour_looks(folder: Path) -> Tensor:
    """Measure the colours of all photographs of a folder -> [L, 3, 2], see ``augment.colour_look``.

    Raises: MarigoldError when there is none, ImageError when one cannot be read.
    """
    return torch.from_numpy(np.stack([colour_look(load_rgb(path)) for path in photographs(folder)]))


class Unlabelled:
    """Crops of photographs as a function of (seed, place). Raises: MarigoldError when the folder has none."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.paths, self.seed = photographs(folder), seed

    def batch(self, count: int, size: tuple[int, int], place: int) -> Tensor:
        """Draw ``count`` crops of ``size`` = (H, W) for a micro-batch -> [B, 3, H, W] in [-1, 1].

        Raises: ImageError when a photograph cannot be read.
        """
        rng = np.random.default_rng([self.seed, place])
        crops = []
        for number in rng.integers(len(self.paths), size=count):
            pixels = load_rgb(self.paths[number])
            box = draw_crop(pixels.shape[0], pixels.shape[1], size[1] / size[0], rng)
            mirror = -1 if rng.random() < 0.5 else 1
            crops.append(crop_picture(pixels, box, size)[:, ::mirror])
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def feature_distance(
    pipeline: MarigoldPipeline, rendered_latent: Tensor, real_latent: Tensor, generator: torch.Generator
) -> Tensor:
    """Compare the U-Net's middle features of photo latents [B, 4, h, w] and [B', 4, h, w] -> scalar, 0 when alike.

    Both start from the same pure noise at the last timestep, where features can come from the photo alone. Cost: half
    a forward pass of both; the pass ends in the middle.
    """
    longest = max(len(rendered_latent), len(real_latent))
    noise = torch.randn(longest, *real_latent.shape[1:], generator=generator).to(real_latent)
    noisy = torch.cat([noise[: len(rendered_latent)], noise[: len(real_latent)]])
    features = _middle_features(pipeline, torch.cat([rendered_latent, real_latent]), noisy)  # [B + B', C, h', w']
    rendered, real = features.split([len(rendered_latent), len(real_latent)])
    return coral(rendered, real)


def coral(a: Tensor, b: Tensor) -> Tensor:
    """Compare mean and covariance of the channels of [B, C, h, w] and [B', C, h', w'] -> scalar in float32.

    Each square is relative to the size of what is compared, so neither the number of channels nor their scale counts:
    shrinking all features does not bring them nearer.
    Source: Sun and Saenko 2016, equation 1, for the covariances; the means are compared beside them.
    """
    first, second = (x.float().transpose(0, 1).flatten(1) for x in (a, b))  # [C, N]
    means = (first.mean(dim=1) - second.mean(dim=1)).square().sum()
    with torch.autocast(a.device.type, enabled=False):  # it would multiply in 16 bits
        one, other = torch.cov(first), torch.cov(second)  # [C, C]
    spread = (one.diagonal() + other.diagonal()).sum()
    sizes = one.square().sum() + other.square().sum()
    return means / (spread + TINY) + (one - other).square().sum() / (sizes + TINY)


class _Reached(Exception):
    """Ends a forward pass in the middle."""


def _middle_features(pipeline: MarigoldPipeline, image_latent: Tensor, noisy: Tensor) -> Tensor:
    """Run the U-Net at the last timestep up to its middle block -> what that gives, [B, C, h', w']."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, given: object, features: Tensor) -> None:
        seen.append(features)
        raise _Reached

    t = torch.tensor(len(pipeline.scheduler.alphas_cumprod) - 1, device=pipeline.device)
    hook = pipeline.unet.mid_block.register_forward_hook(keep)
    try:
        with suppress(_Reached):
            pipeline.predict_velocity(image_latent, noisy, t)
    finally:
        hook.remove()
    return seen[0]
