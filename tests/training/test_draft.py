"""The draft decoder's training: it learns, goes on where it was stopped, and refuses what it cannot learn from."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.image_prior import ImagePrior
from tests.helpers.drawn_sets import DrawnSet
from tests.helpers.training_runs import curve, lines, newest, weights
from training import draft as draft_module
from training.data.latent_cache import prior_sha256
from training.draft import Task, train_draft
from training.engine import checkpoints
from training.engine.loop import run_loop
from training.latents import Encoding, encode_set
from training.recipe import DraftRecipe, Framing

pytestmark = pytest.mark.numeric

QUICK = DraftRecipe(
    steps=30, batch_size=4, lr=1e-2, warmup_steps=2, cooldown_steps=10, ema_decay=0.8, precision="float32", width=16
)


@pytest.fixture(scope="module")
def guided(tiny_guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a prior among whose weights is the zero that is negative."""
    folder = Path(shutil.copytree(tiny_guided, tmp_path_factory.mktemp("guided") / "guided"))
    prior = ImagePrior.from_pretrained(folder / "prior")
    next(prior.parameters()).data.flatten()[0] = -0.0
    prior.save_pretrained(folder / "prior")
    write_checksums(folder)
    return folder


@pytest.fixture(scope="module")
def encoded(guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight encoded pictures, with the features of the prior."""
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    encode_set(load(guided), DrawnSet(8), folder, Framing(long_edge_px=64), Encoding(variants=1))
    return folder


def test_it_learns_the_greys_and_the_result_opens(guided: Path, encoded: Path, tmp_path: Path) -> None:
    task = Task(str(guided), tmp_path / "run", (encoded,), device="cpu")
    folder = train_draft(task, QUICK)
    losses = [line["loss"] for line in lines(task.out) if "loss" in line]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:2])
    assert (task.out / "curves.png").stat().st_size > 10_000
    start, trained = load(guided), load(folder)
    assert start.prior is not None and trained.prior is not None
    for name, value in start.prior.state_dict().items():
        assert torch.equal(trained.prior.state_dict()[name], value), name
    assert prior_sha256(trained) == prior_sha256(start)  # so the stored features stay valid, to the bit
    assert trained(np.zeros((40, 60, 3), np.uint8)).values.shape == (40, 60)


def test_a_stopped_run_goes_on_to_the_last_bit(
    guided: Path, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = QUICK.changed(steps=4, cooldown_steps=1)
    whole, parts = (Task(str(guided), tmp_path / name, (encoded,), device="cpu") for name in ("whole", "parts"))
    folder = train_draft(whole, recipe)

    def stopped(network, loss, *words, **named) -> Path:
        def once(net, number, item):
            if number == 2:
                signal.raise_signal(signal.SIGTERM)
            return loss(net, number, item)

        return run_loop(network, once, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(draft_module, "run_loop", stopped)
        assert checkpoints.step_of(train_draft(parts, recipe)) < 4
    train_draft(parts, recipe)
    assert curve(parts.out) == curve(whole.out)
    assert weights(newest(parts.out)) == weights(folder)


def test_pictures_without_features_or_greys_are_refused(guided: Path, encoded: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(encoded, tmp_path / "bare"))
    for path in bare.rglob("grey.npy"):
        path.unlink()
    with pytest.raises(MarigoldError, match="bare has no features or no greys to train a draft on; encode the"):
        train_draft(Task(str(guided), tmp_path / "run", (bare,), device="cpu"), QUICK)
