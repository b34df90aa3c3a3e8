"""What the tests of training share: small folders of latents, short recipes, runs in processes that may be killed."""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from marigold_core import load
from training import train as train_module
from training.data.latent_cache import autoencoder_sha256
from training.engine import checkpoints
from training.engine.command import run
from training.recipe import Recipe
from training.train import Task, train

ALWAYS, NEVER = 1e-9, 1e9  # minutes between checkpoints
RECIPE = Recipe(
    steps=8,
    batch_size=4,
    micro_batch_size=2,
    warmup_steps=1,
    cooldown_steps=2,
    precision="float32",
    save_minutes=NEVER,
    figure_steps=1000,
    seed=5,
)
Trick = Callable[[Path], None]  # done to a process before it trains; it gets the folder of the run

# Forks of one process that has imported everything: a run begins in a moment, and none inherits pytest's threads.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["training.train", "pytest"])


def write_latents(folder: Path, start: Path, count: int = 12, size: tuple[int, int] = (4, 6), bad: int = 0) -> Path:
    """Write a folder of random latents as training.latents would have; the first ``bad`` are NaN."""
    rng = np.random.default_rng(count)
    shard = folder / "shard_00000000_v0"
    shard.mkdir(parents=True)
    for name in ("image", "target"):
        values = rng.normal(size=(count, 4, *size)).astype(np.float16)
        values[:bad] = np.nan
        np.save(shard / f"{name}.npy", values)
    np.save(shard / "valid.npy", np.ones((count, 1, *size), bool))
    (shard / "names.json").write_text(json.dumps([f"picture{number}" for number in range(count)]))
    made_with = {"autoencoder_sha256": autoencoder_sha256(load(start, dtype="float32")), "pictures": count}
    (folder / "latents.json").write_text(json.dumps(made_with))
    return folder


def lines(run_folder: Path) -> list[dict]:
    """All lines of a journal."""
    path = run_folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def step_lines(run_folder: Path) -> list[dict]:
    """The lines of a journal that are optimiser steps."""
    return [line for line in lines(run_folder) if "loss" in line]


def curve(run_folder: Path) -> list[tuple]:
    """The steps of a run, to the last bit."""
    numbers = ("loss", "gradient", "lr")
    return [(line["step"], *(line[name].hex() for name in numbers)) for line in step_lines(run_folder)]


def weights(folder: Path) -> str:
    """One hash over all trained numbers of a checkpoint: running mean, weights, moments."""
    files = sorted([*(folder / "unet").glob("*.safetensors"), folder / checkpoints.STATE])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def newest(run_folder: Path) -> Path:
    found = checkpoints.latest(run_folder)
    assert found is not None
    return found


class Killed(BaseException):
    """Ends a run on the spot, as SIGKILL does, which test_faults.py sends."""


def unwatched(*_: object) -> None:
    """In the place of the ValidationCallback: no figures, which take longer than such a run."""


def begin(task: Task, recipe: Recipe, trick: Trick | None = None, **environment: str) -> BaseProcess:
    """Start the command in a process of its own, in a process group of its own; see ``log`` for what it says."""
    process = _forks.Process(target=_live, args=(task, recipe, trick, environment))
    process.start()
    return process


def log(task: Task) -> str:
    return task.out.with_suffix(".log").read_text()


def end(process: BaseProcess, seconds: float = 60) -> int | None:
    """Wait for a process -> its exit code; one that is too slow is killed."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"The run had not ended after {seconds} s.")
    return process.exitcode


def _live(task: Task, recipe: Recipe, trick: Trick | None, environment: dict[str, str]) -> None:
    os.setpgrp()
    os.environ.update(environment)
    with task.out.with_suffix(".log").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a program that was not forked
    train_module.ValidationCallback = unwatched  # type: ignore
    if trick is not None:
        trick(task.out)

    def main() -> None:
        """Train."""
        print(train(task, recipe))

    run(main, "train", [])


def wait_for(condition: Callable[[], bool], process: BaseProcess, seconds: float = 60) -> None:
    """Wait until something is so; a process that ends before fails the test."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert process.is_alive(), f"the run ended with {process.exitcode}"
        assert time.monotonic() < end_s, "nothing happened"
        time.sleep(0.002)


def last_step(run_folder: Path) -> int:
    """The last step that the journal of a running run tells of; a line may be half-written."""
    path = run_folder / "metrics.jsonl"
    steps = (line for line in _whole(path) if "loss" in line)
    return max((line["step"] for line in steps), default=0)


def _whole(path: Path) -> Iterator[dict]:
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue
