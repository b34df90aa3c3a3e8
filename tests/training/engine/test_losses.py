"""The losses: velocity, self-conditioning, decoded depth, dropout of the prior, and the distance of features."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from marigold_core import load
from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.random_streams import stream
from training.engine.losses import (
    coral,
    decoded_depth_loss,
    denoising_target,
    draw_timesteps,
    feature_distance,
    velocity_loss,
)
from training.recipe import Recipe

RECIPE = Recipe(precision="float32")

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def pipeline(tiny_depth: Path):
    pipeline = load(tiny_depth)
    pipeline.prompt = pipeline.prompt.clone()
    pipeline.unet.requires_grad_(True)
    return pipeline


def latents(seed: int, count: int = 4, side: int = 16, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(count, 4, side, side, generator=stream(seed)) * scale + shift


def test_timesteps_are_even_or_prefer_noise() -> None:
    even = draw_timesteps(20_000, 1.0, 1000, stream(0)).float()
    noisy = draw_timesteps(20_000, 2.0, 1000, stream(0)).float()
    assert even.min() >= 0
    assert even.max() == 999
    assert even.mean().item() == pytest.approx(500, abs=10)
    assert noisy.mean().item() == pytest.approx(667, abs=10)


def known(count: int) -> Tensor:
    return torch.ones(count, 1, 8, 8, dtype=torch.bool)


def loss_of(
    pipeline: MarigoldPipeline, clean: Tensor, valid: Tensor | None = None, micro: int = 0, recipe: Recipe = RECIPE
) -> Tensor:
    valid = known(len(clean)) if valid is None else valid
    return velocity_loss(pipeline, torch.zeros_like(clean), clean, valid, recipe=recipe, micro=micro)


@torch.no_grad()
def test_cells_without_depth_do_not_count(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, valid = latents(0, 2, 8), known(2)
    monkeypatch.setattr(pipeline.unet, "forward", lambda sample, t, **_: (torch.zeros_like(sample[:, :4]),))
    whole = loss_of(pipeline, clean)
    spoiled = clean.clone()
    spoiled[:, :, :2] = 1e4
    valid[:, :, :2] = False
    masked = loss_of(pipeline, spoiled, valid)
    assert masked < 10
    assert masked != whole
    assert loss_of(pipeline, clean, torch.zeros_like(valid)) == 0


@torch.no_grad()
def test_the_loss_is_zero_for_the_true_velocity(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that knows the clean latent sees the noise too: v = (sqrt(a) noisy - clean) / sqrt(1 - a)."""
    clean = latents(0, 4, 8)

    def oracle(sample: Tensor, t: Tensor, **_: object) -> tuple[Tensor]:
        a = pipeline.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        return ((a.sqrt() * sample[:, 4:] - clean) / (1 - a).sqrt(),)

    monkeypatch.setattr(pipeline.unet, "forward", oracle)
    assert loss_of(pipeline, clean).item() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_at_the_last_timestep_the_target_is_the_negated_latent(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero terminal SNR: nothing of the latent is left in the noise, so v = -clean exactly."""
    assert pipeline.scheduler.alphas_cumprod[-1] == 0
    clean, timesteps = latents(0, 2, 8), []
    monkeypatch.setattr(pipeline.unet, "forward", lambda sample, t, **_: timesteps.append(t) or (-clean,))
    last = Recipe(precision="float32", timestep_power=1e6)  # always the noisiest
    assert loss_of(pipeline, clean, recipe=last) == 0
    assert timesteps[0].tolist() == [999, 999]


@torch.no_grad()
def test_noise_and_timesteps_are_those_of_the_micro_batch(pipeline) -> None:
    losses = [loss_of(pipeline, latents(0, 2, 8), micro=micro).item() for micro in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


@torch.no_grad()
def test_self_conditioning_leads_from_the_own_estimate_to_the_truth(pipeline) -> None:
    image, clean = torch.randn(2, 16, 4, 8, 8, generator=stream(0)).unbind()
    plain, own, half = (
        denoising_target(pipeline, image, clean, RECIPE.changed(own_estimate=share), micro=1, features=())
        for share in (0.0, 1.0, 0.5)
    )
    signal = pipeline.scheduler.alphas_cumprod[own.t].view(-1, 1, 1, 1)
    assert torch.equal(own.t, plain.t)
    assert torch.equal(own.image_latent, plain.image_latent)
    reached = signal.sqrt() * own.noisy - (1 - signal).sqrt() * own.velocity
    noisy_enough = own.t > 20
    torch.testing.assert_close(reached[noisy_enough], clean[noisy_enough], rtol=0, atol=1e-3)
    # What it is shown is what a first step of inference leaves: its estimate from noise alone, and the same noise.
    noise = (plain.noisy - signal.sqrt() * clean) / (1 - signal).sqrt()
    last = torch.full_like(own.t, 999)
    velocity = pipeline.predict_velocity(image_latent=own.image_latent, noisy=noise, t=last)
    end = pipeline.scheduler.alphas_cumprod[-1]
    estimate = end.sqrt() * noise - (1 - end).sqrt() * velocity
    shown = signal.sqrt() * estimate + (1 - signal).sqrt() * noise
    torch.testing.assert_close(own.noisy[noisy_enough], shown[noisy_enough], rtol=0, atol=1e-2)
    mixed = (half.noisy == own.noisy).flatten(1).all(dim=1)
    assert 0 < mixed.sum() < 16
    assert torch.equal(half.noisy[~mixed], plain.noisy[~mixed])
    assert torch.equal(half.velocity[~mixed], plain.velocity[~mixed])


def ramp_with_a_step(blur: bool = False) -> Tensor:
    """[1, 1, 32, 32] in [0, 1]: a slope with a box before it, sharp or soft."""
    picture = torch.linspace(0.25, 0.9, 32).repeat(32, 1)[None, None]
    picture[..., 8:24, 8:24] = 0.05
    return torch.nn.functional.avg_pool2d(picture, 5, 1, 2, count_include_pad=False) if blur else picture


def test_decoded_depth_is_scored_up_to_scale_and_shift_by_nearness_and_outlines() -> None:
    truth, known = ramp_with_a_step(), torch.ones(1, 1, 32, 32)
    assert decoded_depth_loss(truth, truth, known).item() == pytest.approx(0, abs=0.02)
    assert decoded_depth_loss(0.5 * truth + 0.35, truth, known).item() == pytest.approx(0, abs=0.03)
    assert decoded_depth_loss(1 - truth, truth, known) > 1  # a scale is fitted, not a mirror
    near, far = truth.clone(), truth.clone()
    near[..., 10:22, 10:22] += 0.1
    far[..., 10:22, 26:] += 0.1
    known_middle = known.clone()
    known_middle[..., 10:22, 10:22] = 0
    assert decoded_depth_loss(near, truth, known_middle).item() == pytest.approx(0, abs=0.02)
    assert decoded_depth_loss(near, truth, known) > 2 * decoded_depth_loss(far, truth, known)
    flat = (truth - ramp_with_a_step(blur=True)).abs().mean()  # as large an error without harm to the outline
    assert decoded_depth_loss(ramp_with_a_step(blur=True), truth, known) > 2 * decoded_depth_loss(
        truth + flat * torch.linspace(-2, 2, 32), truth, known
    )
    nothing = torch.zeros_like(known)
    assert decoded_depth_loss(near, truth, nothing) == 0


def test_the_decoded_depth_loss_reaches_the_network(pipeline) -> None:
    image, clean = torch.randn(2, 2, 4, 8, 8, generator=stream(0)).unbind()
    gradients = []
    for weight in (0.0, 1.0):
        recipe = RECIPE.changed(picture_weight=weight)
        loss = velocity_loss(pipeline, image, clean, known(2), recipe=recipe, micro=0)
        found = torch.autograd.grad(loss, list(pipeline.unet.parameters()), allow_unused=True)
        gradients.append(torch.cat([part.flatten() for part in found if part is not None]))
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() > 0.01 * gradients[0].norm()


@torch.no_grad()
def test_some_pictures_do_without_the_prior(tiny_guided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(tiny_guided)
    image, clean = torch.randn(2, 8, 4, 8, 8, generator=stream(0)).unbind()
    features = pipeline.features(image)
    forward = pipeline.unet.forward
    seen: list[tuple[Tensor, Features]] = []

    def keep(sample: Tensor, t: Tensor, features: Features = (), **named) -> tuple[Tensor]:
        seen.append((sample, features))
        return forward(sample, t, features=features, **named)  # type: ignore (a guided U-Net)

    def loss(given: Features, dropout: float) -> float:
        recipe = RECIPE.changed(prior_dropout=dropout)
        return velocity_loss(pipeline, image, clean, known(8), recipe=recipe, micro=3, features=given).item()

    monkeypatch.setattr(pipeline.unet, "forward", keep)
    whole, half, dropped = (loss(features, dropout) for dropout in (0.0, 0.5, 0.999999))
    assert len({whole, half, dropped}) == 3
    assert loss((), 0.5) == dropped
    assert all(torch.equal(sample, seen[0][0]) for sample, _ in seen)  # the same noise, whatever is dropped
    kept = seen[1][1][0].flatten(1).any(dim=1)
    assert 0 < kept.sum() < 8
    for found, given in zip(seen[1][1], features, strict=True):
        assert torch.equal(found[kept], given[kept])
        assert not found[~kept].any()


# ------------------------------------------------------------------------------------------- distance of features


def test_distance_of_statistics() -> None:
    features = torch.randn(4, 6, 5, 7, generator=stream(0))
    shuffled = features.transpose(0, 1).flatten(1)[:, torch.randperm(140, generator=stream(1))]
    assert coral(features, shuffled.view(6, 2, 7, 10).transpose(0, 1)).item() == pytest.approx(0, abs=1e-6)
    shift = torch.zeros(6, 1, 1)
    shift[0] = 3.0
    by_hand = 9 / (2 * torch.cov(features.transpose(0, 1).flatten(1)).trace())
    assert coral(features, features + shift).item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert coral(features, 2 * features).item() > 9 / 17 - 1e-6  # covariances C and 4 C: 9 |C|^2 of 17 |C|^2
    small = coral(0.01 * features, 0.02 * features).item()  # TINY is a millionth of its squared covariances
    assert small == pytest.approx(coral(features, 2 * features).item(), rel=1e-4)
    exact = coral(features, features + shift).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert coral(features, features + shift).item() == exact
    assert coral(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)) == 0


@torch.no_grad()
def test_distance_is_nothing_for_equal_batches_and_grows(pipeline) -> None:
    rendered = latents(0)
    found = [feature_distance(pipeline, rendered, rendered + shift, stream(5)).item() for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert found[0] < found[1] < found[2] < found[3]
    assert feature_distance(pipeline, rendered, latents(1), stream(5)).item() < found[2]  # drawn alike
    unequal = feature_distance(pipeline, rendered, rendered[:2], stream(5))
    assert unequal.isfinite()


def test_the_forward_pass_is_the_noisiest_ends_in_the_middle_and_leaves_no_trace(pipeline) -> None:
    ran: list[object] = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: ran.append(int(given[1])))
    pipeline.unet.up_blocks[0].register_forward_hook(lambda *_: ran.append("up"))
    with torch.no_grad():
        feature_distance(pipeline, latents(0), latents(1), stream(0))
        assert ran == [999]
        pipeline.predict_velocity(latents(0), latents(1), torch.tensor(5))
    assert ran == [999, 5, "up"]


def test_distance_is_pulled_down_through_the_network(pipeline) -> None:
    rendered, real = latents(0), latents(1, shift=1.0, scale=0.5)
    optimizer = torch.optim.Adam(pipeline.unet.parameters(), lr=1e-3)
    seen = []
    for step in range(8):
        distance = feature_distance(pipeline, rendered, real, stream(step))
        optimizer.zero_grad()
        distance.backward()
        gradients = {name for name, weight in pipeline.unet.named_parameters() if weight.grad is not None}
        optimizer.step()
        seen.append(distance.item())
    assert {"conv_in.weight"} < gradients
    assert any(name.startswith("mid_block") for name in gradients)
    assert not any(name.startswith("up_blocks") for name in gradients)
    assert seen[-1] < 0.7 * seen[0]
