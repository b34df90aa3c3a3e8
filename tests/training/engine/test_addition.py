"""What the networks have in common that a finished checkpoint is given last, each by a command of its own."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marigold_core import load
from marigold_core.errors import MarigoldError
from tests.helpers.displacement import with_displacement
from tests.helpers.draft import with_draft
from tests.helpers.expected_error import with_expected_error
from tests.helpers.floors import write_floors
from tests.helpers.training_runs import curve, newest, weights
from training.displacement import train_displacement
from training.draft import train_draft
from training.engine import addition, checkpoints
from training.engine.addition import Task
from training.engine.loop import run_loop
from training.expected_error import train_expected_error
from training.recipe import AdditionRecipe, DisplacementRecipe, DraftRecipe, ExpectedErrorRecipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 2, "warmup_steps": 1, "cooldown_steps": 1, "ema_decay": 0.0}
SHORT |= {"pictures": 8, "figure_steps": 4}
# by the folder in a checkpoint: the command, a recipe, and what gives a checkpoint such a network
NETWORKS: dict[str, tuple[Callable[..., Path], AdditionRecipe, Callable[..., Path]]] = {
    "draft": (train_draft, DraftRecipe(**SHORT, width=8, pyramids=2), with_draft),
    "displacement": (train_displacement, DisplacementRecipe(**SHORT, crop_px=32), with_displacement),
    "expected_error": (train_expected_error, ExpectedErrorRecipe(**SHORT, width=4), with_expected_error),
}
each_network = pytest.mark.parametrize("name", NETWORKS)
TaskOf = Callable[..., Task]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a floor below the sky, which has no depth."""
    return write_floors(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def task_of(scenes: Path, tmp_path: Path) -> TaskOf:
    """``task_of(start, name)`` -> a run from a checkpoint in a folder of that name."""
    return lambda start, name="run": Task(str(start), scenes, tmp_path / name, device="cpu")


@each_network
def test_a_stopped_run_ends_as_one_that_was_not_and_no_other_network_changes(
    name: str, task_of: TaskOf, tiny_guided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, recipe, _ = NETWORKS[name]
    whole, parts = task_of(tiny_guided, "whole"), task_of(tiny_guided, "parts")
    folder = train(whole, recipe)
    assert (whole.out / "samples" / "step_00000004.png").exists()

    def stopped(network, loss, *words, **named) -> Path:
        def once(net, number, item):
            if number == 2:
                signal.raise_signal(signal.SIGTERM)
            return loss(net, number, item)

        return run_loop(network, once, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(addition, "run_loop", stopped)
        assert checkpoints.step_of(train(parts, recipe)) < 4
    train(parts, recipe)
    assert curve(parts.out) == curve(whole.out)
    assert weights(newest(parts.out)) == weights(folder)
    assert train(whole, recipe) == folder  # a finished run that is started again
    start, trained = load(tiny_guided, device="cpu"), load(folder, device="cpu")
    assert getattr(start, name) is None and getattr(trained, name) is not None
    for part in ("unet", "vae", "prior"):
        before, after = (getattr(pipeline, part).state_dict() for pipeline in (start, trained))
        assert all(torch.equal(after[key], value) for key, value in before.items()), part


@each_network
def test_one_that_is_there_is_trained_on(name: str, task_of: TaskOf, tiny_guided: Path, tmp_path: Path) -> None:
    train, recipe, give = NETWORKS[name]
    start = give(tiny_guided, tmp_path / "start")
    folder = train(task_of(start), recipe.changed(steps=1, cooldown_steps=0, lr=1e-6))
    before, after = (getattr(load(one, device="cpu"), name).state_dict() for one in (start, folder))
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-4, rtol=0)


@each_network
def test_a_start_that_predicts_no_depth_is_refused(name: str, task_of: TaskOf, tiny_normals: Path) -> None:
    train, recipe, _ = NETWORKS[name]
    with pytest.raises(MarigoldError, match=f"The network {name} is .* and the start predicts unit-vector normals"):
        train(task_of(tiny_normals), recipe)


@pytest.mark.parametrize("name", ["draft", "expected_error"])
def test_a_start_without_a_prior_is_refused(name: str, task_of: TaskOf, tiny_depth: Path) -> None:
    train, recipe, _ = NETWORKS[name]
    with pytest.raises(MarigoldError, match="from an image prior's features, and the start has none"):
        train(task_of(tiny_depth), recipe)
