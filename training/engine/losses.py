"""Training losses: latent velocity, as published; decoded targets; distance of features of renders and photos."""

from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import torch
from torch import IntTensor, Tensor
from torch.nn import functional as F

from marigold_core.images.intrinsics import BOXES
from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.modalities import Depth, Modality, Normals, Segmentation, channels_in
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.random_streams import stream
from training.engine.noise import multi_resolution_noise
from training.recipe import Recipe

SMALLEST_SPREAD = 1e-4  # share of noise in a latent, from below: a velocity error is divided by it
NEAREST = 0.15  # distance of the near plane as a share of the depth range, for relative errors
RANGE = 2.0  # of depth maps as the loss measures them, as of pictures
SCALES = (1, 2, 4, 8)  # distances between the neighbours whose differences are compared, pixels
FIT = (0.3, 3.0)  # range of the fitted scale of a picture; outside it counts as an error of contrast
TINY = 1e-12  # added to divisors, for features that are all zero
SMALLEST_ANGLE = 1e-3  # radians, of the loss of normals: the gradient of arccos is infinite at 0
NO_CENTRE = 0.1  # weight of an error where no centre is, beside one in the middle of an object
OUTSIDE = -0.8  # grey of painted sizes below which there is no object, in [-1, 1]; the smallest asked for are at -0.5
FLAT = 2.5e-5  # variance of a decoded map below which there is nothing to fit


@dataclass(frozen=True)
class DenoisingTarget:
    """Input of the network for a micro-batch, and the velocity it should predict."""

    image_latent: Tensor  # photo latents [B, 4, h, w], with their noise
    features: Features  # of the image prior, zero where it is dropped
    noisy: Tensor  # noisy target latents [B, 4, h, w]
    t: Tensor  # timesteps [B]
    velocity: Tensor  # from ``noisy`` to the truth [B, 4, h, w]
    weight: Tensor  # of the squared error of the velocity [B, 1, 1, 1]


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
    ``recipe.picture_weight`` weighs the ``task_loss`` of every second picture, which is added.

    Source: Ke et al. 2024, section 3.2; v-prediction as in Salimans and Ho 2022.
    """
    wanted = denoising_target(pipeline, image_latent, clean, recipe, micro, features)
    velocity = pipeline.predict_velocity(wanted.image_latent, wanted.noisy, wanted.t, wanted.features).float()
    usable = valid.expand_as(velocity)
    if not usable.any():
        return velocity.sum() * 0
    loss = (wanted.weight * (velocity - wanted.velocity.float()).square())[usable].mean()
    if not recipe.picture_weight:
        return loss
    estimate = _clean_estimate(pipeline, wanted.noisy, velocity, wanted.t)[::2]  # decoding costs more than the U-Net
    guess = pipeline.decode(estimate).float()  # [B/2, 3, H, W]
    with torch.no_grad():
        truth = pipeline.decode(clean[::2]).float()
    known = F.interpolate(valid[::2].float(), truth.shape[-2:])
    return loss + recipe.picture_weight * task_loss(pipeline.modality, guess, truth, known)


def end_to_end_loss(
    pipeline: MarigoldPipeline,
    image_latent: Tensor,
    truth: Tensor,
    valid: Tensor,
    *,
    recipe: Recipe,
    micro: int,
    features: Features = (),
) -> Tensor:
    """Score the one step from zeros that inference makes -> scalar, through the frozen decoder.

    Args:
        pipeline: of a checkpoint whose ``initial_noise`` is zeros.
        image_latent: latents of the photos [B, 4, h, w].
        truth: pictures of the target [B, 3, H, W] in [-1, 1], as its modality paints them.
        valid: usable latent cells [B, 1, h, w] bool.
        recipe: noise on the photos, dropout of the prior.
        micro: number of the micro-batch, which with the seed decides what is drawn.
        features: of the image prior, of the image latents.

    Source: Martin Garcia et al. 2025, section 4: timestep T, no noise, a loss of the task.
    """
    image_latent, features = _disturbed(image_latent, features, recipe, stream(recipe.seed, micro))
    start = torch.zeros_like(image_latent).repeat(1, pipeline.modality.pictures, 1, 1)
    t = torch.full((len(start),), len(pipeline.scheduler.alphas_cumprod) - 1, device=start.device)
    velocity = pipeline.predict_velocity(image_latent, start, t, features).float()
    guess = pipeline.decode(_clean_estimate(pipeline, start, velocity, t)).float()
    return task_loss(pipeline.modality, guess, truth, F.interpolate(valid.float(), truth.shape[-2:]))


def task_loss(modality: Modality, guess: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Score decoded pictures [B, 3, H, W] against those of the truth by what they mean -> scalar.

    ``known`` [B, 1, H, W] is 1 where the truth is known, else 0. Depth of unknown scale and shift is fitted first
    (``decoded_depth_loss``), of metric depth the difference of logarithms counts, of normals the angle in radians,
    of classes the cross-entropy of the softmax of ``Segmentation.scores``, of other layers the absolute difference. Of
    objects sizes count inside boxes, and errors of the map of centres more where one is, as most of it is empty: the
    absolute difference would be least without any. Source: the weights of Zhou et al. 2019 (CenterNet), simplified.
    """
    if isinstance(modality, Depth):
        if modality.range_m is None:
            return decoded_depth_loss(modality.read(guess), modality.from_vae(truth), known)
        return _mean(RANGE * (modality.read(guess) - modality.read(truth)).abs(), known)
    if isinstance(modality, Normals):
        cosine = (modality.from_vae(guess) * modality.from_vae(truth)).sum(dim=1, keepdim=True)
        return _mean(torch.arccos(cosine.clamp(-1, 1 - SMALLEST_ANGLE**2 / 2)), known)
    parts: list[Tensor] = []
    sizes = [_grey(truth[:, channels_in(layer)]) for layer in modality.layers if layer.name in BOXES[1:]]
    for layer in modality.layers:
        own, wanted = guess[:, channels_in(layer)], truth[:, channels_in(layer)]
        if layer.name == BOXES[0]:
            weight = NO_CENTRE + (_grey(wanted) + 1) / RANGE
            parts.append(_mean((_grey(own) - _grey(wanted)).square(), known * weight))
        elif layer.name in BOXES:
            inside = torch.stack(sizes).amax(dim=0) > OUTSIDE
            parts.append(_mean((_grey(own) - _grey(wanted)).abs(), known * inside))
        elif layer.classes:
            classes = Segmentation((layer,))
            names = classes.from_vae(wanted)[:, 0].long()
            parts.append(_mean(F.cross_entropy(classes.scores(own), names, reduction="none")[:, None], known))
        else:
            parts.append(_mean((own.clamp(-1, 1) - wanted).abs() / RANGE, known))
    return torch.stack(parts).mean()


def _grey(picture: Tensor) -> Tensor:
    return picture.mean(dim=1, keepdim=True)


def _disturbed(
    image_latent: Tensor, features: Features, recipe: Recipe, random: torch.Generator
) -> tuple[Tensor, Features]:
    """Give photo latents [B, 4, h, w] noise, and leave the prior's features out for some pictures."""
    batch = len(image_latent)
    grain = recipe.image_noise * torch.rand(batch, 1, 1, 1, generator=random)
    grain = grain * torch.randn(image_latent.shape, generator=random)
    if features:  # dropped for some pictures, so that the U-Net also learns to predict without them
        kept = (torch.rand(batch, 1, 1, 1, generator=random) >= recipe.prior_dropout).to(image_latent.device)
        features = tuple(found * kept for found in features)
    return image_latent + grain.to(image_latent.device), features


def denoising_target(
    pipeline: MarigoldPipeline, image_latent: Tensor, clean: Tensor, recipe: Recipe, micro: int, features: Features
) -> DenoisingTarget:
    """Draw noise and timesteps for image and target latents [B, 4, h, w] -> what to denoise and towards what.

    ``recipe.own_estimate`` is the share of pictures with self-conditioning: their noisy latent holds the network's own
    one-step estimate instead of the truth, as it does in inference from the second step on. Without it errors grow
    from step to step. Source: Ji et al. 2023 (DDP), self-aligned denoising.
    """
    random = stream(recipe.seed, micro)
    length = len(pipeline.scheduler.alphas_cumprod)
    # 1. Timesteps, noise on the target and noise on the photo, drawn on the CPU.
    t = draw_timesteps(len(clean), recipe.timestep_power, length, random)  # [B]
    strength = recipe.noise_strength * (t / length if recipe.noise_annealed else torch.ones(len(clean)))  # [B]
    noise = multi_resolution_noise(clean.shape, strength, random, recipe.noise_levels)  # [B, 4, h, w]
    image_latent, features = _disturbed(image_latent, features, recipe, random)
    t, noise = t.to(clean.device), noise.to(clean.device)
    # 2. The truth with noise.
    steps = cast(IntTensor, t)
    noisy = pipeline.scheduler.add_noise(clean, noise, steps)
    velocity = pipeline.scheduler.get_velocity(clean, noise, steps)
    weight = torch.ones(len(clean), 1, 1, 1, device=clean.device)
    if recipe.own_estimate:
        # 3. Self-conditioning: the network's own estimate with the same noise, and the velocity from there to the
        # truth. Its error is weighted as the error of the clean latent: with little noise the velocity is very large.
        last = torch.full_like(t, length - 1)
        with torch.no_grad():
            estimate = _clean_estimate(
                pipeline, noise, pipeline.predict_velocity(image_latent, noise, last, features), last
            )
        drifted = pipeline.scheduler.add_noise(estimate, noise, steps)
        signal, spread = _shares(pipeline, t, clean)
        spread = spread.clamp_min(SMALLEST_SPREAD)
        own = (torch.rand(len(clean), 1, 1, 1, generator=random) < recipe.own_estimate).to(clean.device)
        noisy = torch.where(own, drifted, noisy)
        velocity = torch.where(own, (signal.sqrt() * drifted - clean) / spread.sqrt(), velocity)
        weight = torch.where(own, spread, weight)
    return DenoisingTarget(image_latent, features, noisy, t, velocity, weight)


def decoded_depth_loss(guess: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Score depth maps [B, 1, H, W] against true ones in [0, 1], ``known`` 1 where that is known, else 0 -> scalar.

    Scale and shift of every picture are fitted, since depth is predicted up to these. The absolute error is relative to
    depth, as in AbsRel; errors of the differences between neighbours, at four distances, keep outlines sharp.

    Source: Ranftl et al. 2022 (MiDaS), section 5; Martin Garcia et al. 2025 tune Marigold with such a loss.
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


def _clean_estimate(pipeline: MarigoldPipeline, noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Return the clean latent sqrt(a) * noisy - sqrt(1 - a) * velocity, [B, 4, h, w]."""
    signal, spread = _shares(pipeline, t, noisy)
    return signal.sqrt() * noisy - spread.sqrt() * velocity


def feature_distance(
    pipeline: MarigoldPipeline, rendered_latent: Tensor, real_latent: Tensor, generator: torch.Generator
) -> Tensor:
    """Compare the U-Net's middle features of photo latents [B, 4, h, w] and [B', 4, h, w] -> scalar, 0 when alike.

    Makes the features in the middle of the U-Net alike in mean and covariance for renders and photographs, which needs
    no depth of the photographs. Both start from the same pure noise at the last timestep, where features depend on the
    photo alone. Cost: half a forward pass of both.
    """
    longest = max(len(rendered_latent), len(real_latent))
    channels = real_latent.shape[1] * pipeline.modality.pictures
    noise = torch.randn(longest, channels, *real_latent.shape[2:], generator=generator).to(real_latent)
    noisy = torch.cat([noise[: len(rendered_latent)], noise[: len(real_latent)]])
    features = _middle_features(pipeline, torch.cat([rendered_latent, real_latent]), noisy)  # [B + B', C, h', w']
    rendered, real = features.split([len(rendered_latent), len(real_latent)])
    return coral(rendered, real)


def coral(a: Tensor, b: Tensor) -> Tensor:
    """Compare mean and covariance of the channels of [B, C, h, w] and [B', C, h', w'] -> scalar in float32.

    Each square is relative to the size of what is compared, so the distance depends neither on the number of channels
    nor on their scale.

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
