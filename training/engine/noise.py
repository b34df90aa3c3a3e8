"""Training noise, a function of (seed, step) alone, so that a resumed run draws the same.

It is drawn on the CPU, so the numbers do not depend on the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipe import Levels

MAX_LEVELS = 10


def gaussian_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw white noise [B, C, h, w], as inference starts from."""
    return torch.randn(shape, generator=generator)


def multi_resolution_noise(
    shape: Sequence[int], strength: Tensor, generator: torch.Generator, levels: Levels = "published"
) -> Tensor:
    """Draw noise [B, C, h, w] of unit variance with coarse parts, level i weighted by ``strength`` [B] to the power i.

    "published" shrinks each level by r^i, r drawn evenly from [2, 4], and adds level 0 twice, as the authors' code
    does; "halving" halves each level, which on small latents leaves no scale without noise (48 x 36 gives the
    former three levels and the latter six). Annealed noise passes 0.9 t / T as the strength: white near t = 0,
    smoothest at the start of denoising. Every picture is scaled to unit variance by itself (the authors' code
    scales the batch, which leaves samples of low t below it). Source: Ke et al. 2024, section 3.2.
    """
    batch, channels, height, width = shape
    noise = torch.randn(shape, generator=generator)
    h, w = height, width
    for level in range(0 if levels == "published" else 1, MAX_LEVELS):
        shrink = 2.0 if levels == "halving" else (2 + 2 * torch.rand((), generator=generator).item()) ** level
        h, w = max(1, int(h / shrink)), max(1, int(w / shrink))
        coarse = torch.randn(batch, channels, h, w, generator=generator)
        weight = (strength**level).view(-1, 1, 1, 1)
        noise = noise + F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False) * weight
        if h == 1 or w == 1:
            break
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)
