"""Image priors of random weights, and checkpoints that have one."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from marigold_core.checkpoints.weights import write_checksums
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from training.models.networks import seeded
from training.prior import add_prior

BLOCKS = ((4, 4, 6, 3, 1, 1, 1), (6, 12, 8, 3, 2, 0, 1), (8, 16, 8, 3, 1, 1, 1), (8, 16, 12, 5, 2, 2, 2))


def tiny_prior(seed: int = 0) -> ImagePrior:
    """A trunk of four blocks -> features of 8 and 12 channels, standardised on noise."""
    with seeded(seed, torch.float32), torch.no_grad():
        prior = ImagePrior(4, BLOCKS, taps=(2, 3), strides=(8, 16)).eval().requires_grad_(False)
        for number, found in enumerate(prior.tapped_outputs(torch.rand(4, 3, 64, 64) * 2 - 1)):
            prior.get_buffer(f"mean_{number}").copy_(found.mean(dim=(0, 2, 3)))
            prior.get_buffer(f"deviation_{number}").copy_(found.std(dim=(0, 2, 3)))
    return prior


def with_prior(checkpoint: Path, out: Path, seed: int = 0) -> Path:
    """Write a checkpoint with a prior whose features its U-Net heeds, as after training -> ``out``."""
    add_prior(checkpoint, out, tiny_prior(seed))
    unet = GuidedUNet.from_pretrained(out / "unet")
    with seeded(seed, torch.float32):
        for projection in unet.prior_proj:
            nn.init.normal_(cast(Tensor, projection.weight), std=0.5)
    unet.save_pretrained(out / "unet")
    write_checksums(out)
    return out
