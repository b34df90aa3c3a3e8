"""Checkpoints of a run: whole diffusers folders that open in the app, with the state to resume exactly.

A run folder holds ``step_00001200/`` folders, each complete or absent, with the sha256 of its weights in
``checksums.json``. Beside the components of a diffusers checkpoint (the trained one with the running mean of its
weights, the others hard links to the start's) it has ``training_state.safetensors``: raw weights and the optimiser's
moments.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from marigold_core import load
from marigold_core.checkpoints.layout import INDEX
from marigold_core.checkpoints.weights import CHECKSUMS, read_checksums, verify, write_checksums
from marigold_core.errors import CheckpointError, ExportError, MarigoldError
from marigold_core.storage import UNFINISHED, atomic_folder, clear_unfinished, link, not_in
from training.engine.metrics_log import MetricsLog
from training.scoring.targets import TITLES

STATE = "training_state.safetensors"
METRICS = "metrics.jsonl"  # the log of a run
BEST, NEWEST = "best", "newest"  # of the checkpoints of a run
KEEP = 2
SPARE_ROOM = 1.5  # free disk space that is needed to write a checkpoint, times its size


class SaveError(MarigoldError):
    """A checkpoint could not be written; older ones are unchanged."""


def saved(run: Path, ending: str = "") -> dict[int, Path]:
    """List the checkpoints of a run by their steps, ascending, or files step_NUMBER with an ``ending``."""
    found = (re.fullmatch(rf"step_(\d+){re.escape(ending)}", path.name) for path in run.glob("step_*"))
    return {int(match[1]): run / match[0] for match in sorted(filter(None, found), key=lambda match: int(match[1]))}


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run folder, None when there is none."""
    return max(saved(run).items(), default=(0, None))[1]


def in_run(source: str | Path) -> str | Path:
    """Return the newest checkpoint where ``source`` is the folder of a run, and ``source`` itself where it is not."""
    return (latest(Path(source)) if is_run(source) else None) or source


def is_run(source: str | Path) -> bool:
    """Tell the folder of a run from a checkpoint's folder or name."""
    folder = Path(source)
    return folder.is_dir() and not (folder / INDEX).exists() and latest(folder) is not None


@dataclass(frozen=True)
class Choice:
    """A checkpoint that was chosen, and why."""

    source: str | Path  # its folder, or its name where it is not of a run
    reason: str  # a sentence; empty where there was nothing to choose


def choose(source: str | Path, step: str = BEST) -> Choice:
    """Choose a checkpoint of a run: that of the best validation, the newest, or that of a step.

    Args:
        source: the folder of a run; anything else is the checkpoint itself.
        step: "best", "newest", or a number of optimiser steps. Best is the newest where none was validated.

    Raises: MarigoldError for another word, for a step that is not there, and for a step of what is no run.
    """
    if not is_run(source):
        if step != BEST:
            raise MarigoldError(f"{source} is not the folder of a run with checkpoints: leave out --step {step}.")
        return Choice(source, "")
    run = Path(source)
    there = saved(run)
    log = MetricsLog(run / METRICS)
    scores = log.scores
    validated = {number: score for number, score in scores.items() if number in there}
    if step.isdecimal() and int(step) in there:
        number, why = int(step), "as asked"
    elif step == BEST and validated:
        number = min(validated, key=lambda each: (validated[each], each))
        best = scores[number] == min(scores.values())
        why = f"validated best of {len(scores)}" if best else "validated best of those that are kept"
    elif step in (BEST, NEWEST):
        number, why = max(there), "the newest" if step == NEWEST else "the newest, none of them was validated"
    else:
        steps = ", ".join(map(str, there))
        raise MarigoldError(f"{run.name} has no checkpoint {step!r}: give --step best, newest or one of {steps}.")
    name, value = log.deciding(number) if number in scores else ("", 0.0)
    score = f", {TITLES[name]} {value:.4f}" if name else ""
    return Choice(there[number], f"{run.name}: step {number} ({why}{score})")


def intact(run: Path) -> Path | None:
    """Return the newest undamaged checkpoint, None when the run has none yet; damaged ones are named on stderr.

    Raises: CheckpointError when all are damaged.
    """
    folders = [*reversed(saved(run).values())]
    for folder in folders:
        try:
            check(folder)
            return folder
        except CheckpointError as error:
            print(f"{folder.name} is damaged and not used: {error}", file=sys.stderr)
    if folders:
        raise CheckpointError(f"All checkpoints of the run {run.name} are damaged; begin again in another folder.")
    return None


def check(folder: Path) -> None:
    """Compare every weight file of a checkpoint with its sha256.

    Raises: CheckpointError naming the first that is missing or different.
    """
    sums = read_checksums(folder)
    if STATE not in sums:
        raise CheckpointError(f"{folder.name} lists no training state to go on from.")
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{name} is missing in {folder.name}.")
        verify(folder / name, name, expected)


def folder_of(run: Path, step: int) -> Path:
    """Return the folder of a run's checkpoint of ``step``, which need not exist."""
    return run / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    """Return the number of optimiser steps behind a checkpoint."""
    return int(folder.name.removeprefix("step_"))


def save(
    run: Path,
    base: Path,
    part: str,
    network: ModelMixin,
    step: int,
    state: dict[str, Tensor],
    keep: int | None = None,
) -> Path:
    """Write ``base`` with its component ``part`` replaced by ``network``, and ``state``, as the newest checkpoint.

    Then older checkpoints are removed, except the last before it and that of step ``keep``.

    Raises: SaveError when the disk is full or refuses; the folder is then as before.
    """
    folder = folder_of(run, step)
    clear_unfinished(run, "step_*")
    _check_room(run, sum(t.nbytes for t in (*state.values(), *network.state_dict().values())))
    try:
        with atomic_folder(folder, replace=True) as aside:
            linked = link_parts(base, aside, part)
            network.save_pretrained(aside / part, max_shard_size="1GB")
            save_file(state, aside / STATE)
            write_checksums(aside, linked)
    except ExportError as error:
        free_mb = shutil.disk_usage(run).free / 1e6
        raise SaveError(f"The disk refused a checkpoint ({free_mb:,.0f} MB are free): {error}") from error
    older = {number: path for number, path in saved(run).items() if number < step}  # newer ones are damaged
    for number, path in [*older.items()][: len(older) + 1 - KEEP]:
        if number != keep:
            _remove(path, like=folder)
    return folder


def _remove(folder: Path, like: Path) -> None:
    """Remove a checkpoint that holds nothing but files as ``like``, another one of its run.

    It is renamed first, so that a kill leaves no folder that looks like one.
    """
    if others := not_in(like, folder):
        print(f"{folder.name} is not removed: training did not write {others[0]} in it.", file=sys.stderr, flush=True)
        return
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.{UNFINISHED}")))


def load_state(folder: Path) -> dict[str, Tensor]:
    """Read the ``state`` that was given to ``save``."""
    return load_file(folder / STATE)


def pack(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Collect raw weights and the optimiser's moments in one flat dictionary, without copying."""
    state = {f"weights.{name}": value.detach().contiguous() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for kind, value in optimizer.state.get(parameter, {}).items():
            kept = torch.as_tensor(value).detach().contiguous()
            # the tables that 8-bit moments are looked up in are shared between parameters, which the file refuses
            state[f"{kind}.{name}"] = kept.clone() if kind.startswith("qmap") else kept
    return state


def unpack(state: dict[str, Tensor], network: nn.Module, optimizer: Optimizer) -> None:
    """Load into network and optimiser what ``pack`` collected."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        kinds.setdefault(kind, {})[rest] = value
    network.load_state_dict(kinds.pop("weights"))
    for name, parameter in network.named_parameters():
        moments = {kind: values[name] for kind, values in kinds.items() if name in values}
        for kind, value in moments.items():
            if value.ndim == 0 and not value.is_floating_point():  # the step counts of bitsandbytes are plain numbers
                optimizer.state[parameter][kind] = value.item()
            else:  # the fused optimiser expects its step counts on the CPU, unless it runs on a GPU
                moved = value.to(parameter.device) if value.ndim or parameter.is_cuda else value
                optimizer.state[parameter][kind] = moved


@contextmanager
def derived(source: Path, out: Path, part: str = "") -> Iterator[Path]:
    """Write a checkpoint that has all of ``source`` but ``part``, and what is put into the folder that this yields.

    It is opened before it appears as ``out``. Raises: ExportError when ``out`` cannot be written.
    """
    with atomic_folder(out) as aside:
        link_parts(source, aside, part)
        yield aside
        write_checksums(aside)
        load(aside)


def link_parts(base: Path, aside: Path, part: str) -> dict[str, str]:
    """Link all of ``base`` but ``part`` into ``aside`` -> the sha256 of these files, as far as they are known."""
    files = [path.relative_to(base) for path in base.rglob("*") if path.is_file()]
    names = [path.as_posix() for path in files if path.parts[0] not in (part, STATE, CHECKSUMS, "README.md")]
    for name in names:
        link(base / name, aside / name)
    sums = read_checksums(base)
    return {name: sums[name] for name in names if name in sums}


def _check_room(run: Path, size_bytes: int) -> None:
    """Check the free disk space. Raises: SaveError."""
    free = shutil.disk_usage(run).free
    if free < SPARE_ROOM * size_bytes:
        raise SaveError(
            f"The disk is nearly full: a checkpoint needs {SPARE_ROOM * size_bytes / 1e6:,.0f} MB and "
            f"{free / 1e6:,.0f} MB are free in {run.name}."
        )
