"""Checkpoints of a run: whole diffusers folders that open in the app, with what is needed to go on exactly.

A run folder holds ``recipe.json``, ``metrics.jsonl`` and ``step_00001200/`` folders. Each of these is complete or
absent: written aside, flushed and renamed. Beside the components of a diffusers checkpoint (with the running mean of
the weights) it has ``training_state.safetensors``: raw weights and the optimiser's moments.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from marigold_core.weights import CHECKSUMS, write_checksums

STATE = "training_state.safetensors"
KEEP = 2


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run folder, None when there is none."""
    return max(run.glob("step_*"), default=None)


def step_of(folder: Path) -> int:
    """Return the number of optimiser steps behind a checkpoint."""
    return int(folder.name.removeprefix("step_"))


def save(run: Path, base: Path, part: str, network: ModelMixin, step: int, state: dict[str, Tensor]) -> Path:
    """Write ``base`` with its component ``part`` replaced by ``network``, and ``state``, as the newest checkpoint.

    Older checkpoints but the last are removed once it is there.
    """
    folder = run / f"step_{step:08d}"
    aside = run / f".{folder.name}.{os.getpid()}"
    for left in run.glob(".step_*"):  # what a killed run left half-written
        shutil.rmtree(left)
    shutil.copytree(base, aside, ignore=shutil.ignore_patterns(part, STATE, CHECKSUMS, "README.md"))
    network.save_pretrained(aside / part, max_shard_size="1GB")
    save_file(state, aside / STATE)
    write_checksums(aside)
    for path in aside.rglob("*"):
        if path.is_file():
            _flush(path)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)
    _flush(run)
    for old in sorted(run.glob("step_*"))[:-KEEP]:
        shutil.rmtree(old)
    return folder


def load_state(folder: Path) -> dict[str, Tensor]:
    """Read what ``save`` was given as ``state``."""
    return load_file(folder / STATE)


def pack(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect raw weights and the optimiser's moments under one flat set of names."""
    state = {f"weights.{name}": value.detach().clone() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        state |= {f"{key}.{name}": value.detach().clone() for key, value in optimizer.state[parameter].items()}
    return state


def unpack(state: dict[str, Tensor], network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put back what ``pack`` collected."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        kinds.setdefault(kind, {})[rest] = value
    network.load_state_dict(kinds.pop("weights"))
    for name, parameter in network.named_parameters():
        optimizer.state[parameter] = {kind: values[name] for kind, values in kinds.items()}


def write_line(path: Path, record: dict[str, object]) -> None:
    """Append one JSON object as a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
