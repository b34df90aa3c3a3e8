"""The processes that train together, here two on one CPU, and the precisions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.app_server import free_port
from tests.helpers.training_runs import RECIPE, begin, end, lines, log, newest, step_lines, write_latents
from tests.training.conftest import TaskFor
from training.engine import checkpoints
from training.engine.processes import accelerator_for
from training.recipe import RECIPES, Recipe
from training.train import Task

# "auto" must do on a machine without a GPU; with one, these tests are still about the CPU
DEVICE = "cpu" if torch.cuda.is_available() else "auto"
SHARED = RECIPE.changed(micro_batch_size=1)  # 4 micro-batches a step, 2 for each process: accumulation too


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def task(task_for: TaskFor) -> Task:
    return task_for(device=DEVICE)


def train_alone(task: Task, recipe: Recipe) -> list[dict]:
    assert end(begin(task, recipe)) == 0, log(task)
    return step_lines(task.out)


def train_together(task: Task, recipe: Recipe, nodes: int = 1) -> list[int | None]:
    """Two processes of one or two nodes, told of each other by an address as torchrun does; they speak gloo."""
    each, port = 2 // nodes, str(free_port())
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": str(each), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank % each), "GROUP_RANK": str(rank // each)} for rank in range(2)]
    both = [begin(task, recipe, None, **place, **shared) for place in places]
    return [end(process) for process in both]


def test_two_processes_give_the_curve_of_one(task_for: TaskFor, tmp_path: Path) -> None:
    one = train_alone(task_for("one", device=DEVICE), SHARED)
    task = task_for("two", device=DEVICE)
    assert train_together(task, SHARED.changed(steps=3, cooldown_steps=0)) == [0, 0], log(task)
    assert train_together(task, SHARED, nodes=2) == [0, 0], log(task)  # and goes on, on two nodes
    two = step_lines(task.out)
    assert [line["step"] for line in two] == list(range(1, SHARED.steps + 1))
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert theirs["gradient"] == pytest.approx(ours["gradient"], rel=1e-4)
        assert theirs["lr"] == ours["lr"]
    alone, together = (checkpoints.load_state(newest(tmp_path / name)) for name in ("one", "two"))
    for name, value in alone.items():
        assert (value - together[name]).abs().max() < 1e-4, name


@pytest.mark.slow
def test_two_launchers_find_each_other_as_the_manual_says(task_for: TaskFor, tiny_depth: Path, data: Path) -> None:
    """One process of each of two nodes, which torchrun's rendezvous at an address brings together."""
    changed = {"steps": 2, "micro_batch_size": 1}  # of the four pictures of a step two for each process
    alone = train_alone(task_for("alone", device=DEVICE), RECIPES["smoke"].changed(**changed))
    task = task_for("launched", device=DEVICE)
    options = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    node = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "1"]
    node += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "-m", "training.train"]
    node += ["--start-from", str(tiny_depth), "--latents", str(data), "--out", str(task.out), "--device", DEVICE]
    options += ["--recipe", "smoke"]
    both = [
        subprocess.Popen(
            [*node, *options],
            cwd=Path(__file__).parents[3],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [one.communicate(timeout=200)[0] for one in both]
    finally:
        for one in both:
            one.terminate()
    assert [one.returncode for one in both] == [0, 0], "\n".join(said)[-3000:]
    together = step_lines(task.out)
    assert [line["step"] for line in together] == [1, 2]
    assert [line["loss"] for line in together] == pytest.approx([line["loss"] for line in alone], abs=1e-5)


def test_a_bad_step_of_one_process_is_skipped_by_both(task_for: TaskFor, tiny_depth: Path, tmp_path: Path) -> None:
    task = task_for(device=DEVICE, latents=(write_latents(tmp_path / "latents", tiny_depth, bad=1),))
    assert train_together(task, SHARED.changed(steps=3)) == [0, 0], log(task)
    (event,) = (line for line in lines(task.out) if line.get("event") == "skipped")
    assert "latents: picture0" in event["names"]  # whoever had it
    assert len(event["names"]) == SHARED.batch_size
    assert all(value.isfinite().all() for value in checkpoints.load_state(newest(task.out)).values())


def test_bfloat16_runs_on_a_cpu(task: Task, whole: Path) -> None:
    exact = step_lines(whole)
    rough = train_alone(task, RECIPE.changed(precision="bfloat16"))
    assert [line["loss"] for line in rough] == pytest.approx([line["loss"] for line in exact], rel=0.03)
    assert rough != exact
    assert {str(value.dtype) for value in checkpoints.load_state(newest(task.out)).values()} == {"torch.float32"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precision": "float16"}, "float16 training needs a CUDA GPU"),
        ({"micro_batch_size": 3}, "A batch of 4 cannot be made of micro-batches of 3"),
    ],
)
def test_what_cannot_be_is_said(fields: dict, words: str, task: Task) -> None:
    assert end(begin(task, RECIPE.changed(**fields))) == 2
    assert words in log(task)
    assert "Traceback" not in log(task)
    assert not task.out.exists()


def test_micro_batches_must_be_shared_out_evenly(task: Task) -> None:
    assert train_together(task, RECIPE.changed(micro_batch_size=4)) == [2, 2]
    assert "1 micro-batches a step cannot be shared by 2 processes" in log(task)


def test_a_second_run_of_a_process_may_have_another_precision() -> None:
    found = [accelerator_for(Recipe(precision=name), "cpu").mixed_precision for name in ("bfloat16", "float32")]
    assert found == ["bf16", "no"]
