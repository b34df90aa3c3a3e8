"""What training optimises, and that it learns: the loss, and both networks from rendered pictures to a checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from training_runs import lines

from marigold_core import load
from marigold_core.pipeline import MarigoldPipeline
from training import autoencoder, checkpoint
from training.losses import draw_timesteps, velocity_loss
from training.noise import stream
from training.recipe import AutoencoderRecipe, Recipe
from training.sets.rendered import RenderedScenes, View, write_shard
from training.train import Task, train

RECIPE = Recipe(precision="float32")


pytestmark = pytest.mark.usefixtures("one_thread")


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
    asked = []

    def answer(sample: torch.Tensor, t: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        asked.append(t)
        return (-clean,)

    monkeypatch.setattr(pipeline.unet, "forward", answer)
    last = Recipe(precision="float32", timestep_power=1e6)  # always the noisiest
    assert loss_of(pipeline, clean, torch.ones(2, 1, 8, 8, dtype=torch.bool), recipe=last) == 0
    assert asked[0].tolist() == [999, 999]


@torch.no_grad()
def test_noise_and_timesteps_are_those_of_the_micro_batch(tiny_depth: Path) -> None:
    pipeline = load(tiny_depth)
    clean, valid = torch.randn(2, 4, 8, 8, generator=stream(0)), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    losses = [loss_of(pipeline, clean, valid, micro).item() for micro in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


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
    newest = checkpoint.latest(task.out)
    assert newest is not None
    unseen = torch.cat([autoencoder.Pictures(recipe, RenderedScenes(scenes), []).batch(place) for place in (101, 102)])

    @torch.no_grad()
    def error(folder: Path) -> float:
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
        return (vae(unseen, return_dict=False)[0] - unseen).abs().mean().item()

    assert error(newest) < 0.85 * error(task.out / "start")
    factor = json.loads((newest / "vae" / "config.json").read_text())["scaling_factor"]
    assert factor == lines(task.out)[-1]["scaling_factor"] != 0.18215
    noted = lines(task.out)
    autoencoder.train_autoencoder(task, recipe)  # finished: nothing to do
    assert checkpoint.latest(task.out) == newest
    assert lines(task.out) == noted
