"""What training optimises, and that it learns: the loss, and both networks from rendered pictures to a checkpoint."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from marigold_core import load
from marigold_core.pipeline.image_prior import Features, GuidedUNet, ImagePrior
from marigold_core.pipeline.pipeline import MarigoldPipeline
from tests.helpers.drawn_sets import DrawnSet
from tests.helpers.training_runs import RECIPE as SHORT
from tests.helpers.training_runs import curve, lines, newest, unwatched, weights
from training import autoencoder
from training import train as train_module
from training.data.latent_cache import INDEX, read_index
from training.data.random_streams import stream
from training.data.sets.rendered import RenderedScenes, View, write_shard
from training.engine import checkpoints
from training.engine.losses import decoded_depth_loss, denoising_target, draw_timesteps, velocity_loss
from training.latents import Encoding, encode_set
from training.recipe import AutoencoderRecipe, Framing, Recipe
from training.train import Task, train

RECIPE = Recipe(precision="float32")


pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures: a bright ball before a wall, sky above."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    views = []
    rows, columns = np.mgrid[0:48, 0:64]
    for _ in range(6):
        ball = (rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(10, 50)) ** 2 < 80
        depth = np.where(ball, 2.0, 6.0 - rows / 16).astype(np.float32)
        depth[:6] = np.inf
        rgb = np.where(ball[..., None], (220, 60, 40), (90, 120, 150)).astype(np.uint8)
        normals = np.zeros((48, 64, 3), np.float32)
        normals[..., 2] = 1
        views.append(View(rgb, depth, normals, np.zeros((48, 64), np.uint8)))
    write_shard(folder / "shard_00000", views, {"kinds": ["ball"] * 6, "fov_x_deg": [60.0] * 6})
    return folder


# ------------------------------------------------------------------------------------------- loss


def test_timesteps_are_even_or_prefer_noise() -> None:
    even = draw_timesteps(20_000, 1.0, 1000, stream(0)).float()
    noisy = draw_timesteps(20_000, 2.0, 1000, stream(0)).float()
    assert even.min() >= 0
    assert even.max() == 999
    assert even.mean().item() == pytest.approx(500, abs=10)
    assert noisy.mean().item() == pytest.approx(667, abs=10)


def loss_of(
    pipeline: MarigoldPipeline, clean: torch.Tensor, valid: torch.Tensor, micro: int = 0, recipe: Recipe = RECIPE
) -> torch.Tensor:
    return velocity_loss(pipeline, torch.zeros_like(clean), clean, valid, recipe=recipe, micro=micro)


@torch.no_grad()
def test_cells_without_depth_do_not_count(tiny_depth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(tiny_depth)
    clean = torch.randn(2, 4, 8, 8, generator=stream(0))
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    monkeypatch.setattr(pipeline.unet, "forward", lambda sample, t, **_: (torch.zeros_like(sample[:, :4]),))
    whole = loss_of(pipeline, clean, valid)
    spoiled = clean.clone()
    spoiled[:, :, :2] = 1e4
    valid[:, :, :2] = False
    masked = loss_of(pipeline, spoiled, valid)
    assert masked < 10
    assert masked != whole
    assert loss_of(pipeline, clean, torch.zeros_like(valid)) == 0


@torch.no_grad()
def test_the_loss_is_zero_for_the_true_velocity(tiny_depth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that knows the clean latent sees the noise too: v = (sqrt(a) noisy - clean) / sqrt(1 - a)."""
    pipeline = load(tiny_depth)
    clean = torch.randn(4, 4, 8, 8, generator=stream(0))

    def oracle(sample: torch.Tensor, t: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        a = pipeline.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        return ((a.sqrt() * sample[:, 4:] - clean) / (1 - a).sqrt(),)

    monkeypatch.setattr(pipeline.unet, "forward", oracle)
    assert loss_of(pipeline, clean, torch.ones(4, 1, 8, 8, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_at_the_last_timestep_the_target_is_the_negated_latent(
    tiny_depth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero terminal SNR: nothing of the latent is left in the noise, so v = -clean exactly."""
    pipeline = load(tiny_depth)
    assert pipeline.scheduler.alphas_cumprod[-1] == 0
    clean = torch.randn(2, 4, 8, 8, generator=stream(0))
    timesteps = []

    def answer(sample: torch.Tensor, t: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        timesteps.append(t)
        return (-clean,)

    monkeypatch.setattr(pipeline.unet, "forward", answer)
    last = Recipe(precision="float32", timestep_power=1e6)  # always the noisiest
    assert loss_of(pipeline, clean, torch.ones(2, 1, 8, 8, dtype=torch.bool), recipe=last) == 0
    assert timesteps[0].tolist() == [999, 999]


@torch.no_grad()
def test_noise_and_timesteps_are_those_of_the_micro_batch(tiny_depth: Path) -> None:
    pipeline = load(tiny_depth)
    clean, valid = torch.randn(2, 4, 8, 8, generator=stream(0)), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    losses = [loss_of(pipeline, clean, valid, micro).item() for micro in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


@torch.no_grad()
def test_self_conditioning_leads_from_the_own_estimate_to_the_truth(tiny_depth: Path) -> None:
    pipeline = load(tiny_depth)
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


def ramp_with_a_step(blur: bool = False) -> torch.Tensor:
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


def test_the_decoded_depth_loss_reaches_the_network(tiny_depth: Path) -> None:
    pipeline = load(tiny_depth)
    pipeline.prompt = pipeline.prompt.clone()
    pipeline.unet.requires_grad_(True)
    image, clean = torch.randn(2, 2, 4, 8, 8, generator=stream(0)).unbind()
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    gradients = []
    for weight in (0.0, 1.0):
        recipe = RECIPE.changed(picture_weight=weight)
        loss = velocity_loss(pipeline, image, clean, valid, recipe=recipe, micro=0)
        found = torch.autograd.grad(loss, list(pipeline.unet.parameters()), allow_unused=True)
        gradients.append(torch.cat([part.flatten() for part in found if part is not None]))
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() > 0.01 * gradients[0].norm()


# ------------------------------------------------------------------------------------------- with an image prior


@torch.no_grad()
def test_some_pictures_do_without_the_prior(tiny_guided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(tiny_guided)
    image, clean = torch.randn(2, 8, 4, 8, 8, generator=stream(0)).unbind()
    features = pipeline.features(image)
    forward = pipeline.unet.forward
    seen: list[tuple[torch.Tensor, Features]] = []

    def keep(sample: torch.Tensor, t: torch.Tensor, features: Features = (), **named) -> tuple[torch.Tensor]:
        seen.append((sample, features))
        return forward(sample, t, features=features, **named)

    def loss(given: Features, dropout: float) -> float:
        recipe, valid = RECIPE.changed(prior_dropout=dropout), torch.ones(8, 1, 8, 8, dtype=torch.bool)
        return velocity_loss(pipeline, image, clean, valid, recipe=recipe, micro=3, features=given).item()

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


@pytest.fixture(scope="module")
def encoded(tiny_guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures as latents, with what the prior sees in them."""
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    framing = Framing(flip=0.0, long_edge_px=64)
    encode_set(load(tiny_guided), DrawnSet(8), folder, framing, Encoding(variants=1, precision="float32"))
    return folder


def test_stored_features_train_as_those_computed_on_the_way(
    tiny_guided: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Path(shutil.copytree(encoded, tmp_path / "bare"))
    for path in bare.rglob("features_*.npy"):
        path.unlink()
    (bare / INDEX).write_text(json.dumps(read_index(bare) | {"prior_sha256": None}))
    looks = []
    look = ImagePrior.forward
    monkeypatch.setattr(ImagePrior, "forward", lambda prior, seen: looks.append(len(seen)) or look(prior, seen))
    monkeypatch.setattr(train_module, "ValidationCallback", unwatched)
    losses = []
    for latents, asked in ((encoded, []), (bare, [2] * 6)):
        task = Task(str(tiny_guided), tmp_path / f"run_{latents.name}", latents=(latents,), device="cpu")
        train(task, SHORT.changed(steps=3, prior_dropout=0.2))
        losses.append([line["loss"] for line in lines(task.out) if "loss" in line])
        assert looks == asked
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_run_with_a_prior_goes_on_to_the_last_bit(
    tiny_guided: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "ValidationCallback", unwatched)
    recipe = SHORT.changed(steps=4, prior_dropout=0.3)
    whole, parts = (Task(str(tiny_guided), tmp_path / n, latents=(encoded,), device="cpu") for n in ("whole", "parts"))
    folder = train(whole, recipe)

    def stop(*words, micro: int, **named) -> torch.Tensor:
        if micro == 2:
            signal.raise_signal(signal.SIGTERM)
        return velocity_loss(*words, micro=micro, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "velocity_loss", stop)
        assert checkpoints.step_of(train(parts, recipe)) == 2
    train(parts, recipe)
    assert curve(parts.out) == curve(whole.out)
    assert weights(newest(parts.out)) == weights(folder)
    start, trained = load(tiny_guided), load(folder)
    assert isinstance(start.unet, GuidedUNet) and isinstance(trained.unet, GuidedUNet)
    for before, after in zip(start.unet.prior_proj.parameters(), trained.unet.prior_proj.parameters(), strict=True):
        assert not torch.equal(before, after)
    assert start.prior is not None and trained.prior is not None
    assert all(torch.equal(*pair) for pair in zip(start.prior.parameters(), trained.prior.parameters(), strict=True))


# ------------------------------------------------------------------------------------------- both networks


def test_training_lowers_the_loss_and_the_result_opens(tiny_depth: Path, scenes: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        steps=40,
        batch_size=4,
        lr=5e-3,
        warmup_steps=5,
        cooldown_steps=10,
        ema_decay=0.9,
        precision="float32",
        long_edge_px=64,
        far_m=80.0,
    )
    folder = train(Task(str(tiny_depth), tmp_path / "run", data=(f"rendered:{scenes}",), device="cpu"), recipe)
    losses = [line["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:3])
    prediction = load(folder)(np.zeros((40, 60, 3), np.uint8))
    assert prediction.values.shape == (40, 60)


def test_the_autoencoder_learns_and_scales_its_latents(scenes: Path, tmp_path: Path) -> None:
    recipe = AutoencoderRecipe(
        steps=20,
        batch_size=8,
        lr=5e-3,
        warmup_steps=2,
        cooldown_steps=5,
        crop_px=32,
        ema_decay=0.8,
        precision="float32",
    )
    task = autoencoder.Task(tmp_path / "ae", scenes, shape="tiny", device="cpu")
    autoencoder.train_autoencoder(task, recipe)
    trained = newest(task.out)
    unseen = torch.cat([autoencoder.Pictures(recipe, RenderedScenes(scenes), []).batch(place) for place in (101, 102)])

    @torch.no_grad()
    def error(folder: Path) -> float:
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
        return (vae(unseen, return_dict=False)[0] - unseen).abs().mean().item()

    assert error(trained) < 0.85 * error(task.out / "start")
    factor = json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"]
    assert factor == lines(task.out)[-1]["scaling_factor"] != 0.18215
    noted = lines(task.out)
    autoencoder.train_autoencoder(task, recipe)  # finished: nothing to do
    assert newest(task.out) == trained
    assert lines(task.out) == noted
