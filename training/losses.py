"""The latent velocity loss of the published fine-tuning."""

from typing import cast

import torch
from torch import IntTensor, Tensor
from torch.nn import functional as F

from marigold_core.pipeline import MarigoldPipeline
from marigold_core.prior import Features
from training.noise import multi_resolution_noise, stream
from training.recipe import Recipe


def draw_timesteps(batch: int, power: float, length: int, generator: torch.Generator) -> Tensor:
    """Draw timesteps [B] in 0 .. ``length`` - 1; ``power`` 1 is even, above 1 prefers noisy steps."""
    even = torch.rand(batch, generator=generator)
    return ((even ** (1 / power)) * length).long().clamp_max(length - 1)


def velocity_loss(
    pipeline: MarigoldPipeline,
    image_latent: Tensor,
    clean: Tensor,
    valid: Tensor,
    *,
    recipe: Recipe,
    micro: int,
    features: Features = (),
) -> Tensor:
    """Score the U-Net on image and target latents [B, 4, h, w], usable cells [B, 1, h, w] bool -> scalar.

    ``features`` are the image prior's of the image latents. Noise and timesteps are drawn from (recipe.seed, micro),
    the number of the micro-batch in the run. A batch without a usable cell gives 0 and no gradient.
    Source: Ke et al. 2024, section 3.2; v-prediction as in Salimans and Ho 2022.
    """
    # 1. Noise and timesteps, on the CPU.
    random = stream(recipe.seed, micro)
    length = len(pipeline.scheduler.alphas_cumprod)
    t = draw_timesteps(len(clean), recipe.timestep_power, length, random)  # [B]
    strength = recipe.noise_strength * (t / length if recipe.noise_annealed else torch.ones(len(clean)))  # [B]
    noise = multi_resolution_noise(clean.shape, strength, random, recipe.noise_levels)  # [B, 4, h, w]
    grain = recipe.image_noise * torch.rand(len(clean), 1, 1, 1, generator=random)
    grain = grain * torch.randn(image_latent.shape, generator=random)
    if features:  # some rows do without, so that the U-Net learns to see by itself too
        kept = (torch.rand(len(clean), 1, 1, 1, generator=random) >= recipe.prior_dropout).to(clean.device)
        features = tuple(found * kept for found in features)
    t, noise, image_latent = t.to(clean.device), noise.to(clean.device), image_latent + grain.to(clean.device)
    # 2. What the network sees and what it should say.
    noisy = pipeline.scheduler.add_noise(clean, noise, cast(IntTensor, t))
    target = pipeline.scheduler.get_velocity(clean, noise, cast(IntTensor, t))
    velocity = pipeline.predict_velocity(image_latent, noisy, t, features)
    # 3. The mean over usable cells, in float32.
    usable = valid.expand_as(target)
    if not usable.any():
        return velocity.float().sum() * 0
    return F.mse_loss(velocity.float()[usable], target.float()[usable])
