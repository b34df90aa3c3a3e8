import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline

from marigold_core import load
from marigold_core.errors import MarigoldError
from training import checkpoint
from training.autoencoder import main as train_autoencoder
from training.latents import encode_shard, write_latents
from training.latents import main as encode
from training.losses import draw_timesteps, velocity_loss
from training.noise import stream
from training.publish import publish
from training.recipe import AutoencoderRecipe, Recipe
from training.scene_store import RenderedScenes, View, write_shard
from training.train import train

RECIPE = Recipe(steps=6, batch_size=4, lr=1e-3, warmup_steps=1, cooldown_steps=2, bfloat16=False)


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


@pytest.fixture(scope="module")
def latents(scenes: Path, tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    encode(tiny_depth, scenes, folder, long_edge_px=64, variants=2)
    return folder


def weights(folder: Path) -> str:
    """One hash over all trained numbers of a checkpoint."""
    files = sorted([*(folder / "unet").glob("*.safetensors"), folder / checkpoint.STATE])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# ------------------------------------------------------------------------------------------- latents


def test_latents_are_what_the_pipeline_encodes(scenes: Path, tiny_depth: Path) -> None:
    pipeline = load(tiny_depth)
    shard = RenderedScenes(scenes).shards[0]
    options = {"variant": 0, "long_edge_px": 64, "upside_down": 0.0, "looks": None, "seed": 0}
    arrays = encode_shard(pipeline, shard, 0, far_m=80.0, **options)
    assert arrays["image"].dtype == np.float16
    assert arrays["valid"].all()  # the sky is known to be far
    everything_far = encode_shard(pipeline, shard, 0, far_m=0.1, **options)["target"]
    with torch.inference_mode():
        far = pipeline.encode(torch.ones(1, 3, 48, 64))[0]
    assert everything_far[0].shape[1:] == arrays["target"][0].shape[1:]
    assert np.abs(everything_far[0].mean(axis=(1, 2)) - far.mean(dim=(1, 2)).numpy()).max() < 0.05
    assert np.abs(arrays["target"].astype(np.float32) - everything_far.astype(np.float32)).max() > 0.1


def test_pictures_turn_upside_down_with_their_depth(
    scenes: Path, tiny_depth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load(tiny_depth)
    monkeypatch.setattr(pipeline, "encode", lambda x: x)
    shard = RenderedScenes(scenes).shards[0]
    options = {"variant": 0, "long_edge_px": 64, "far_m": 80.0, "looks": None, "seed": 0}
    upright = encode_shard(pipeline, shard, 0, upside_down=0.0, **options)
    turned = encode_shard(pipeline, shard, 0, upside_down=1.0, **options)
    assert np.array_equal(turned["target"], upright["target"][:, :, ::-1])
    assert not np.array_equal(turned["target"], upright["target"])
    difference = np.abs(turned["image"] - upright["image"][:, :, ::-1])
    assert difference.mean() < 0.1  # the picture too, but for grain and compression


def test_encoding_goes_on_where_it_stopped(scenes: Path, tiny_depth: Path, latents: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in latents.rglob("*.npy")}
    assert {path.parent.name for path in before} == {"shard_00000_64px_v0", "shard_00000_64px_v1"}
    encode(tiny_depth, scenes, latents, long_edge_px=64, variants=2)
    assert {path: path.stat().st_mtime_ns for path in latents.rglob("*.npy")} == before


# ------------------------------------------------------------------------------------------- loss


def test_timesteps_are_even_or_prefer_noise() -> None:
    even = draw_timesteps(20_000, 1.0, 1000, stream(0)).float()
    noisy = draw_timesteps(20_000, 2.0, 1000, stream(0)).float()
    assert even.min() >= 0
    assert even.max() == 999
    assert even.mean().item() == pytest.approx(500, abs=10)
    assert noisy.mean().item() == pytest.approx(667, abs=10)


def loss_of(pipeline, clean: torch.Tensor, valid: torch.Tensor, step: int = 0) -> torch.Tensor:
    return velocity_loss(pipeline, torch.zeros_like(clean), clean, valid, recipe=RECIPE, step=step)


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


# ------------------------------------------------------------------------------------------- the loop


def test_the_rate_rises_stays_and_falls() -> None:
    schedule = Recipe(steps=100, lr=1.0, warmup_steps=10, cooldown_steps=20)
    assert [schedule.rate(step) for step in (0, 9, 50, 80, 90, 99)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0.05])


def test_a_run_that_was_stopped_ends_with_the_same_weights(tiny_depth: Path, latents: Path, tmp_path: Path) -> None:
    whole = train(RECIPE, tiny_depth, latents, tmp_path / "whole")
    for _ in range(20):
        last = train(RECIPE, tiny_depth, latents, tmp_path / "parts", minutes=0)  # one step at a time
        if checkpoint.step_of(last) == RECIPE.steps:
            break
    assert weights(last) == weights(whole)
    assert weights(whole) != weights(
        train(Recipe(**{**RECIPE.model_dump(), "seed": 1}), tiny_depth, latents, tmp_path / "x")
    )
    assert [path.name for path in sorted((tmp_path / "parts").glob("step_*"))] == ["step_00000005", "step_00000006"]
    assert not list((tmp_path / "parts").glob(".step_*"))


def test_training_lowers_the_loss_and_the_result_opens(tiny_depth: Path, latents: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=40, batch_size=4, lr=5e-3, warmup_steps=5, cooldown_steps=10, ema_decay=0.9, bfloat16=False)
    folder = train(recipe, tiny_depth, latents, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]
    prediction = load(folder)(np.zeros((40, 60, 3), np.uint8))
    assert prediction.values.shape == (40, 60)


def test_sigterm_saves_and_ends(tiny_depth: Path, latents: Path, tmp_path: Path) -> None:
    recipe = Recipe(**{**RECIPE.model_dump(), "steps": 100_000})
    log = tmp_path / "run" / "metrics.jsonl"

    def stop() -> None:
        while not log.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop)
    watcher.start()
    folder = train(recipe, tiny_depth, latents, tmp_path / "run")
    watcher.join()
    assert 0 < checkpoint.step_of(folder) < 100_000
    load(folder)


def test_other_settings_are_refused_but_for_the_length(tiny_depth: Path, latents: Path, tmp_path: Path) -> None:
    train(RECIPE, tiny_depth, latents, tmp_path / "run", minutes=0)
    with pytest.raises(MarigoldError, match="another lr"):
        train(Recipe(**{**RECIPE.model_dump(), "lr": 1e-4}), tiny_depth, latents, tmp_path / "run")
    shorter = Recipe(**{**RECIPE.model_dump(), "steps": 2})
    assert checkpoint.step_of(train(shorter, tiny_depth, latents, tmp_path / "run")) == 2


def test_a_gradient_that_is_not_finite_changes_nothing(tiny_depth: Path, tmp_path: Path) -> None:
    image = np.full((4, 4, 4, 6), np.nan, np.float16)
    write_latents(
        tmp_path / "bad" / "shard_00000_v0", {"image": image, "target": image, "valid": np.ones((4, 1, 4, 6), bool)}
    )
    folder = train(Recipe(**{**RECIPE.model_dump(), "steps": 2}), tiny_depth, tmp_path / "bad", tmp_path / "run")
    before, after = load(tiny_depth).unet.state_dict(), load(folder).unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ------------------------------------------------------------------------------------------- the other stages


def test_the_autoencoder_learns_and_scales_its_latents(scenes: Path, tmp_path: Path) -> None:
    recipe = AutoencoderRecipe(
        steps=20, batch_size=8, lr=5e-3, warmup_steps=2, cooldown_steps=5, crop_px=32, ema_decay=0.8, bfloat16=False
    )
    train_autoencoder(tmp_path / "ae", scenes, shape="tiny", recipe=recipe)
    lines = [json.loads(line) for line in (tmp_path / "ae" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["error"] < 0.65
    newest = checkpoint.latest(tmp_path / "ae")
    assert newest is not None
    factor = json.loads((newest / "vae" / "config.json").read_text())["scaling_factor"]
    assert factor == lines[-1]["scaling_factor"] != 0.18215
    train_autoencoder(tmp_path / "ae", scenes, shape="tiny", recipe=recipe)  # finished: nothing to do
    assert checkpoint.latest(tmp_path / "ae") == newest


def test_a_published_checkpoint_is_half_precision_and_predicts_the_same(tiny_depth: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# A card\n")
    out = publish(tiny_depth, tmp_path / "out", card)
    assert (out / "README.md").read_text() == "# A card\n"
    assert {value.dtype for value in load(out, dtype="float16").unet.state_dict().values()} == {torch.float16}
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    opened = MarigoldDepthPipeline.from_pretrained(out)
    assert opened.dtype == opened.unet.dtype == torch.float32  # as diffusers does by default: a CPU cannot run half
    difference = np.abs(load(out)(photo).values - load(tiny_depth)(photo).values)
    assert difference.max() < 0.02
