"""The latent velocity loss of the published fine-tuning, and the loss of the picture that an answer makes."""

from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import torch
from torch import IntTensor, Tensor
from torch.nn import functional as F

from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.random_streams import stream
from training.engine.noise import multi_resolution_noise
from training.recipe import Recipe

SMALLEST_SPREAD = 1e-4  # share of noise in a latent below which a velocity is not asked to undo an estimate
NEAREST = 0.15  # distance of the near plane, of the range of depths: what relative errors are relative to
RANGE = 2.0  # of depth maps as the loss measures them, as of pictures
SCALES = (1, 2, 4, 8)  # distances between the neighbours whose differences are compared, pixels
FIT = (0.3, 3.0)  # how far the scale of a picture is fitted; beyond, its contrast is at fault
TINY = 1e-12  # keeps features that are all zero from dividing by it
FLAT = 2.5e-5  # variance of a decoded map below which there is nothing to fit


@dataclass(frozen=True)
class Question:
    """What the network is asked about a micro-batch, and the answer it should give."""

    image_latent: Tensor
    """photo latents [B, 4, h, w], with their noise"""
    features: Features
    """of the image prior, zero where a picture does without"""
    noisy: Tensor
    """noisy target latents [B, 4, h, w]"""
    t: Tensor
    """timesteps [B]"""
    velocity: Tensor
    """what leads from ``noisy`` to the truth [B, 4, h, w]"""
    weight: Tensor
    """how much the squared error of the velocity counts [B, 1, 1, 1]"""


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
    ``recipe.picture_weight`` adds the ``picture_loss`` of every second picture. Source: Ke et al. 2024, section 3.2;
    v-prediction as in Salimans and Ho 2022.
    """
    asked = ask(pipeline, image_latent, clean, recipe, micro, features)
    velocity = pipeline.predict_velocity(asked.image_latent, asked.noisy, asked.t, asked.features).float()
    usable = valid.expand_as(velocity)
    if not usable.any():
        return velocity.sum() * 0
    loss = (asked.weight * (velocity - asked.velocity.float()).square())[usable].mean()
    if not recipe.picture_weight:
        return loss
    estimate = _clean(pipeline, asked.noisy, velocity, asked.t)[::2]  # decoding costs more than the U-Net
    modality = cast(Depth, pipeline.modality)  # no start predicts anything else
    guess = modality.read(pipeline.decode(estimate).float())  # [B/2, 1, H, W]
    with torch.no_grad():
        truth = modality.from_vae(pipeline.decode(clean[::2]).float())
    known = F.interpolate(valid[::2].float(), truth.shape[-2:])
    return loss + recipe.picture_weight * picture_loss(guess, truth, known)


def ask(
    pipeline: MarigoldPipeline, image_latent: Tensor, clean: Tensor, recipe: Recipe, micro: int, features: Features
) -> Question:
    """Draw what the network is shown of image and target latents [B, 4, h, w].

    ``recipe.own_estimate`` is the share of pictures whose noisy latent holds the network's own estimate in the place
    of the truth, as it does in inference from the second step on. Source: Ji et al. 2023 (DDP), self-aligned
    denoising; without it errors grow from step to step.
    """
    random = stream(recipe.seed, micro)
    length = len(pipeline.scheduler.alphas_cumprod)
    # 1. Timesteps, noise on the target and noise on the photo, drawn on the CPU.
    t = draw_timesteps(len(clean), recipe.timestep_power, length, random)  # [B]
    strength = recipe.noise_strength * (t / length if recipe.noise_annealed else torch.ones(len(clean)))  # [B]
    noise = multi_resolution_noise(clean.shape, strength, random, recipe.noise_levels)  # [B, 4, h, w]
    grain = recipe.image_noise * torch.rand(len(clean), 1, 1, 1, generator=random)
    grain = grain * torch.randn(image_latent.shape, generator=random)
    if features:  # some rows do without, so that the U-Net learns to see by itself too
        kept = (torch.rand(len(clean), 1, 1, 1, generator=random) >= recipe.prior_dropout).to(clean.device)
        features = tuple(found * kept for found in features)
    t, noise, image_latent = t.to(clean.device), noise.to(clean.device), image_latent + grain.to(clean.device)
    # 2. The truth with noise.
    steps = cast(IntTensor, t)
    noisy = pipeline.scheduler.add_noise(clean, noise, steps)
    velocity = pipeline.scheduler.get_velocity(clean, noise, steps)
    weight = torch.ones(len(clean), 1, 1, 1, device=clean.device)
    if recipe.own_estimate:
        # 3. The network's own estimate with the same noise, and the velocity that leads from there to the truth. Its
        # error counts as that of the latent it leads to: at quiet timesteps no velocity could undo the estimate.
        last = torch.full_like(t, length - 1)
        with torch.no_grad():
            estimate = _clean(pipeline, noise, pipeline.predict_velocity(image_latent, noise, last, features), last)
        drifted = pipeline.scheduler.add_noise(estimate, noise, steps)
        signal, spread = _shares(pipeline, t, clean)
        spread = spread.clamp_min(SMALLEST_SPREAD)
        own = (torch.rand(len(clean), 1, 1, 1, generator=random) < recipe.own_estimate).to(clean.device)
        noisy = torch.where(own, drifted, noisy)
        velocity = torch.where(own, (signal.sqrt() * drifted - clean) / spread.sqrt(), velocity)
        weight = torch.where(own, spread, weight)
    return Question(image_latent, features, noisy, t, velocity, weight)


def picture_loss(guess: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Score depth maps [B, 1, H, W] against true ones in [0, 1], ``known`` 1 where that is known, else 0 -> scalar.

    Scale and shift of every picture are fitted, since no more is promised of them. The absolute error counts more the
    nearer a pixel is, as AbsRel has it; errors of the differences between neighbours, at four distances, keep
    outlines. Source: Ranftl et al. 2022 (MiDaS), section 5; Martin Garcia et al. 2025 tune Marigold with such a loss.
    """
    dims = (1, 2, 3)
    count = known.sum(dims, keepdim=True).clamp_min(1)
    middle, true_middle = ((x * known).sum(dims, keepdim=True) / count for x in (guess, truth))
    covariance = ((guess - middle) * (truth - true_middle) * known).sum(dims, keepdim=True) / count
    variance = ((guess - middle).square() * known).sum(dims, keepdim=True) / count
    scale = (covariance / (variance + FLAT)).clamp(*FIT)
    error = RANGE * (scale * (guess - middle) + true_middle - truth)
    loss = _mean(error.abs() / (truth + NEAREST), known)
    for step in SCALES:
        far, seen = error[..., ::step, ::step], known[..., ::step, ::step]
        for dim in (-1, -2):
            both = seen.unfold(dim, 2, 1).amin(dim=-1)
            loss = loss + _mean(far.diff(dim=dim).abs(), both)
    return loss


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return (values * known).sum() / known.sum().clamp_min(1)


def _shares(pipeline: MarigoldPipeline, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of signal and noise in the variance at timesteps [B] -> [B, 1, 1, 1] each."""
    signal = pipeline.scheduler.alphas_cumprod.to(like)[t].view(-1, 1, 1, 1)
    return signal, 1 - signal


def _clean(pipeline: MarigoldPipeline, noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Return the clean latent [B, 4, h, w] that a velocity says a noisy one holds."""
    signal, spread = _shares(pipeline, t, noisy)
    return signal.sqrt() * noisy - spread.sqrt() * velocity


def feature_distance(
    pipeline: MarigoldPipeline, rendered_latent: Tensor, real_latent: Tensor, generator: torch.Generator
) -> Tensor:
    """Compare the U-Net's middle features of photo latents [B, 4, h, w] and [B', 4, h, w] -> scalar, 0 when alike.

    A network trained on renders may tell a render from a photograph. This loss makes the features in the middle of the
    U-Net alike in mean and covariance, which needs no depth of the photographs. Both start from the same pure noise at
    the last timestep, where features can come from the photo alone. Cost: half a forward pass of both.
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


class _MiddleReachedError(Exception):
    """Ends a forward pass in the middle."""


def _middle_features(pipeline: MarigoldPipeline, image_latent: Tensor, noisy: Tensor) -> Tensor:
    """Run the U-Net at the last timestep up to its middle block -> what that gives, [B, C, h', w']."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, given: object, features: Tensor) -> None:
        seen.append(features)
        raise _MiddleReachedError

    t = torch.tensor(len(pipeline.scheduler.alphas_cumprod) - 1, device=pipeline.device)
    hook = pipeline.unet.mid_block.register_forward_hook(keep)
    try:
        with suppress(_MiddleReachedError):
            pipeline.predict_velocity(image_latent, noisy, t)
    finally:
        hook.remove()
    return seen[0]
