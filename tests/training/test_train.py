"""Both networks learn, from rendered pictures to a checkpoint, with and without an image prior."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.images.colormaps import HALF_BYTE
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from tests.helpers.command_line import fingerprints
from tests.helpers.damage import edit
from tests.helpers.drawn_sets import DrawnSet
from tests.helpers.training_runs import RECIPE as SHORT
from tests.helpers.training_runs import curve, lines, newest, step_lines, weights
from training import autoencoder
from training import train as train_module
from training.data.latent_cache import INDEX
from training.data.sets.rendered import RenderedScenes, View, write_shard
from training.data.targets import CLASSES
from training.engine import checkpoints
from training.engine.losses import velocity_loss
from training.latents import Encoding, encode_set
from training.recipe import AutoencoderRecipe, Framing, Recipe
from training.train import Task, train

RECIPE = Recipe(precision="float32")
AUTOENCODER = AutoencoderRecipe(
    steps=20,
    batch_size=8,
    lr=5e-3,
    warmup_steps=2,
    cooldown_steps=5,
    crop_px=32,
    ema_decay=0.8,
    precision="float32",
)


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
        views.append(View(rgb, depth, normals, np.where(ball, 5, 1).astype(np.uint8)))
    write_shard(folder / "shard_00000", views, {"kinds": ["ball"] * 6, "fov_x_deg": [60.0] * 6})
    return folder


# ------------------------------------------------------------------------------------------- with an image prior


@pytest.fixture(scope="module")
def encoded(tiny_guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures as latents, with what the prior sees in them."""
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    framing = Framing(flip=0.0, long_edge_px=64)
    encode_set(load(tiny_guided), DrawnSet(8), folder, framing, Encoding(variants=1, precision="float32"))
    return folder


def test_stored_features_train_as_those_computed_on_the_way(
    tiny_guided: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_validation: None
) -> None:
    bare = Path(shutil.copytree(encoded, tmp_path / "bare"))
    for path in bare.rglob("features_*.npy"):
        path.unlink()
    edit(bare / INDEX, prior_sha256=None)
    looks = []
    look = ImagePrior.forward

    def counted(prior: ImagePrior, seen: torch.Tensor) -> object:
        if not seen.is_meta:  # loading tries the networks out without values
            looks.append(len(seen))
        return look(prior, seen)

    monkeypatch.setattr(ImagePrior, "forward", counted)
    losses = []
    for latents, asked in ((encoded, []), (bare, [2] * 6)):
        task = Task(str(tiny_guided), tmp_path / f"run_{latents.name}", latents=(latents,), device="cpu")
        train(task, SHORT.changed(steps=3, prior_dropout=0.2))
        losses.append([line["loss"] for line in step_lines(task.out)])
        assert looks == asked
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_run_with_a_prior_goes_on_to_the_last_bit(
    tiny_guided: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_validation: None
) -> None:
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
    losses = [line["loss"] for line in step_lines(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:3])
    prediction = load(folder)(np.zeros((40, 60, 3), np.uint8))
    assert prediction.values.shape == (40, 60)


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "samples/step_00000009.png"])
def test_files_of_another_program_are_never_replaced(name: str, tiny_depth: Path, scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"mine": 1}\n')
    before = fingerprints(tmp_path)
    with pytest.raises(MarigoldError, match=f"{file.name} is there already and was not written by training"):
        train(Task(str(tiny_depth), tmp_path, data=(f"rendered:{scenes}",)), RECIPE.changed(steps=2))
    with pytest.raises(MarigoldError, match=f"{file.name} is there already and was not written by training"):
        autoencoder.train_autoencoder(autoencoder.Task(out=tmp_path, data=scenes), AutoencoderRecipe())
    assert fingerprints(tmp_path) == before


@torch.no_grad()
def reconstruction_error(folder: Path, pictures: torch.Tensor) -> float:
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    return (vae(pictures, return_dict=False)[0] - pictures).abs().mean().item()


def test_the_autoencoder_learns_and_scales_its_latents(scenes: Path, tmp_path: Path) -> None:
    task = autoencoder.Task(tmp_path / "ae", scenes, None, "new:tiny", device="cpu")
    autoencoder.train_autoencoder(task, AUTOENCODER)
    trained = newest(task.out)
    pictures = autoencoder.Pictures(AUTOENCODER, RenderedScenes(scenes), [])
    unseen = torch.cat([pictures.batch(101), pictures.batch(102)])
    assert reconstruction_error(trained, unseen) < 0.85 * reconstruction_error(task.out / "start", unseen)
    factor = json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"]
    assert factor == lines(task.out)[-1]["scaling_factor"] != 0.18215
    noted = lines(task.out)
    assert (task.out / "curves.png").stat().st_size > 10_000
    autoencoder.train_autoencoder(task, AUTOENCODER)  # finished: nothing to do
    assert newest(task.out) == trained
    assert lines(task.out) == noted


def test_painted_classes_are_learned_from_a_checkpoint_whose_other_networks_stay(
    scenes: Path, tiny_depth: Path, tmp_path: Path
) -> None:
    recipe = AUTOENCODER.changed(depth_share=0.0, normals_share=0.0, labels_share=1.0)
    painted = autoencoder.Pictures(recipe, RenderedScenes(scenes), []).batch(101)
    in_palette = torch.tensor([one.rgb for one in CLASSES]) / HALF_BYTE - 1
    known = [bool(torch.isclose(crop[:, 0, 0], in_palette, atol=1e-5).all(dim=1).any()) for crop in painted]
    assert any(known) and not all(known)  # the palette's colours, and others, so that not they alone are kept
    task = autoencoder.Task(tmp_path / "ae", scenes, None, str(tiny_depth), device="cpu")
    autoencoder.train_autoencoder(task, recipe)
    trained = newest(task.out)
    assert reconstruction_error(trained, painted) < 0.85 * reconstruction_error(tiny_depth, painted)
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (trained / unet).read_bytes() == (tiny_depth / unet).read_bytes()
