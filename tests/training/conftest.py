"""What tests of training runs share: encoded pictures, tasks that train on them, the run that nothing disturbed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.eight_bit import eight_bit as eight_bit
from tests.helpers.training_runs import RECIPE, unwatched, write_latents
from training import train as train_module
from training.train import Task, train

TaskFor = Callable[..., Task]


@pytest.fixture(scope="session")
def data(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve encoded pictures; an epoch of RECIPE is 6 micro-batches."""
    return write_latents(tmp_path_factory.mktemp("encoded") / "latents", tiny_depth)


@pytest.fixture
def task_for(tiny_depth: Path, data: Path, tmp_path: Path) -> TaskFor:
    """``task_for(name, ...)`` -> a run of that name in the folder of the test, on the CPU and on ``data``."""

    def make(name: str | Path = "run", **more: object) -> Task:
        return Task(str(tiny_depth), tmp_path / name, **{"latents": (data,), "device": "cpu", **more})  # type: ignore

    return make


@pytest.fixture
def task(task_for: TaskFor) -> Task:
    return task_for()


@pytest.fixture
def no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, which take longer than such a run."""
    monkeypatch.setattr(train_module, "ValidationCallback", unwatched)


@pytest.fixture(scope="session")
def whole(tiny_depth: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run of RECIPE, on one thread."""
    out, threads = tmp_path_factory.mktemp("whole") / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "ValidationCallback", unwatched)
        train(Task(str(tiny_depth), out, latents=(data,), device="cpu"), RECIPE)
    torch.set_num_threads(threads)
    return out
