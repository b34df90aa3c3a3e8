"""The loop that trains both networks: steps, learning rate, running mean, checkpoints, signals.

A step is a function of (seed, step) and the weights. Micro-batches are numbered through the run and process k of n
makes every n-th from k on. So a run that was stopped or killed and started again by the same command ends with the
same weights as one that was not, and several processes draw what one process would.
"""

import copy
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import ModelMixin
from torch import Tensor, nn

from marigold_core.errors import MarigoldError
from training.engine import checkpoints
from training.engine.fingerprint import Fingerprint, check_fingerprint
from training.engine.metrics_log import MetricsLog, Record, Throughput
from training.engine.processes import agree, report_to, stop_signals
from training.engine.progress import Progress
from training.engine.workers import locked, say_disk_need
from training.recipe import Schedule

Losses = dict[str, Tensor]  # "loss" is minimised, the rest is logged; "usable" is the share of cells that it is of
PATIENCE = 3  # steps in a row that may be skipped
SCALER, MEAN = "scaler.", "mean."  # in the training state: of float16 training, the running mean of adapters


class DivergedError(MarigoldError):
    """Loss or gradient were not finite ``PATIENCE`` times in a row; the last good checkpoint is kept."""

    exit_code = 4


class HasNames(Protocol):
    """What a micro-batch is made from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its pictures, for messages about a step that failed."""
        ...


Item = TypeVar("Item", bound=HasNames)
Loader = Callable[[range], Iterator[Item]]  # numbers of micro-batches -> what they are made from, in this order
Loss = Callable[[nn.Module, int, Item], Losses]  # the network as prepared for this machine, micro-batch number, item
# Network, step, log, and whether the run is to stop. Called before each step; it may validate and draw.
Callback = Callable[[ModelMixin, int, MetricsLog, Callable[[], bool]], None]


@dataclass(frozen=True)
class Run:
    """Where a run is kept and what it trains."""

    folder: Path
    base: Path  # the checkpoint it begins with
    part: str  # the component that is trained: "unet", "vae"
    fingerprint: Fingerprint
    allow_change: bool = False
    record: Mapping[str, object] = field(default_factory=dict)  # what run.json holds beside the fingerprint
    # makes the network that is saved of the trained one, where only adapters of it are trained
    plain: Callable[[ModelMixin], ModelMixin] | None = None


@dataclass
class Weights:
    """The network in its three forms, with its optimiser."""

    raw: ModelMixin
    wrapped: nn.Module  # as the accelerator prepared it: gradients are shared between processes
    mean: ModelMixin  # what is saved and validated: the running mean, or the weights themselves
    optimizer: torch.optim.Optimizer
    throughput: Throughput
    skipped: int = 0  # steps in a row


def run_loop(
    network: ModelMixin,
    loss: Loss[Item],
    loader: Loader[Item],
    schedule: Schedule,
    run: Run,
    accelerator: Accelerator,
    *,
    callback: Callback | None = None,
    minutes: float | None = None,
) -> Path:
    """Train ``network`` -> the newest checkpoint of the run.

    Resumes from the newest undamaged checkpoint. Ends after the schedule's steps, after ``minutes``, or at SIGTERM
    and SIGINT; always with a checkpoint. ``loader`` and ``loss`` make micro-batches and score them, ``callback`` is
    called before each step.

    Raises: MarigoldError when another process trains in the folder or the fingerprint is another than the run was
    begun with; DivergedError; SaveError when the last checkpoint could not be written; KeyboardInterrupt after SIGINT.
    """
    began = time.monotonic()
    alone = locked(run.folder, "trains", within=["samples"]) if accelerator.is_main_process else nullcontext()
    with stop_signals() as asked, alone:
        if accelerator.is_main_process:
            resumed = checkpoints.latest(run.folder) is not None
            check_fingerprint(run.folder, run.fingerprint, run.allow_change, run.record, resumed)
        accelerator.wait_for_everyone()
        weights = _prepare(network, schedule, accelerator)
        step = _resume(run, weights, accelerator)
        log = MetricsLog(
            run.folder / checkpoints.METRICS, accelerator.is_main_process, report_to(accelerator, run.folder)
        )
        log.rewind(step)
        if log.active:
            _clear_sheets(run.folder, step)
            say_disk_need(run.folder, _checkpoints_bytes(network), "Checkpoints need up to")
        if step:
            accelerator.print(f"Going on from step {step} of {schedule.steps}", flush=True)
        first, saved, failure = step, time.monotonic(), None
        kept = step if checkpoints.latest(run.folder) else -1
        items = loader(_numbers(step, schedule, accelerator))
        with Progress(schedule.steps, run.folder.name, "step", step, silent=not log.active) as progress:
            while True:
                if callback is not None and log.active:
                    callback(weights.mean, step, log, lambda: bool(asked))
                now = time.monotonic()
                late = minutes is not None and step > first and now - began > minutes * 60
                due = now - saved > schedule.save_minutes * 60 or log.best_step == step
                over, due = agree(accelerator, bool(asked) or late, due)
                over = over or step >= schedule.steps
                if (due or over) and step > kept:
                    failure = _save(run, weights, step, log, accelerator)
                    kept, saved = kept if failure else step, time.monotonic()
                if over:
                    break
                with weights.throughput.step():
                    made = _step(weights, loss, items, schedule, step, log, accelerator)
                    log.add(made)
                step += 1
                progress.update(loss=made["loss"])
    if failure is not None:
        raise failure
    if signal.SIGINT in asked:
        raise KeyboardInterrupt
    return checkpoints.folder_of(run.folder, kept)


def _clear_sheets(folder: Path, step: int) -> None:
    """Remove the pictures of steps after ``step``, which will be made again."""
    for number, sheet in checkpoints.saved(folder / "samples", ".png").items():
        if number > step:
            sheet.unlink()


def _checkpoints_bytes(network: nn.Module) -> int:
    """Compute what the checkpoints of a run take at most."""
    numbers_bytes = sum(value.nbytes for value in network.state_dict().values())
    most = checkpoints.KEEP + 2  # beside the newest: the best, and the one that is being written
    return most * 4 * numbers_bytes  # the saved weights, the raw ones and the optimiser's two moments


def _numbers(step: int, schedule: Schedule, accelerator: Accelerator) -> range:
    """Return the numbers of the micro-batches that this process makes from ``step`` on."""
    each = schedule.micro_batches
    return range(step * each + accelerator.process_index, schedule.steps * each, accelerator.num_processes)


def _prepare(network: ModelMixin, schedule: Schedule, accelerator: Accelerator) -> Weights:
    """Put the network on its device, with an optimiser and a running mean."""
    network.to(accelerator.device)
    mean = copy.deepcopy(network).requires_grad_(False).eval() if schedule.ema_decay else network
    wrapped, optimizer = accelerator.prepare(network, new_optimizer(network, schedule))
    return Weights(network, wrapped, mean, optimizer, Throughput(schedule.batch_size))


def new_optimizer(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Make the optimiser of a network. Source of the one with moments in 8 bits: Dettmers et al. 2022."""
    weights, lr, decay = network.parameters(), schedule.lr, schedule.weight_decay
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=lr, weight_decay=decay, fused=True)
    return adamw_8bit()(weights, lr=lr, weight_decay=decay)


def adamw_8bit() -> type[Any]:
    """Import the optimiser with moments in 8 bits, an extra, which ``accelerator_for`` looks for."""
    from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

    return AdamW8bit


def _step(
    weights: Weights,
    loss: Loss[Item],
    items: Iterator[Item],
    schedule: Schedule,
    step: int,
    log: MetricsLog,
    accelerator: Accelerator,
) -> Record:
    """Make one optimiser step -> its record.

    A loss or gradient that is not finite changes nothing, nor do pictures of which nothing counts.
    Raises: DivergedError or MarigoldError after ``PATIENCE`` such steps in a row.
    """
    for group in weights.optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    share = schedule.micro_batches // accelerator.num_processes
    sums: dict[str, Tensor] = {}
    names: list[str] = []
    for place in range(share):
        with weights.throughput.wait():
            item = next(items)
        names += item.names
        number = step * schedule.micro_batches + place * accelerator.num_processes + accelerator.process_index
        last = place == share - 1
        with nullcontext() if last else accelerator.no_sync(weights.wrapped):
            with accelerator.autocast():
                found = loss(weights.wrapped, number, item)
            accelerator.backward(found["loss"] / share)
        for name, value in found.items():
            sums[name] = sums.get(name, 0) + value.detach().float() / share
    norm = accelerator.clip_grad_norm_(weights.raw.parameters(), schedule.clip_norm or float("inf"))
    gradient = float(cast(Tensor, norm))
    means = {name: float(cast(Tensor, accelerator.reduce(value, "mean"))) for name, value in sums.items()}
    finite = math.isfinite(means["loss"])
    empty = means.get("usable", 1.0) == 0
    usable = finite and math.isfinite(gradient) and not empty
    if usable or (finite and not empty and accelerator.scaler is not None):  # float16 finds its scale by overflowing
        weights.optimizer.step()
        weights.skipped = 0
    if usable and weights.mean is not weights.raw:
        decay = min(schedule.ema_decay, (step + 1) / (step + 10))  # follow closely while the weights are still far off
        pairs = zip(weights.mean.parameters(), weights.raw.parameters(), strict=True)
        slow, fast = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)  # frozen ones stay to the bit
        torch._foreach_lerp_(slow, fast, 1 - decay)
    weights.optimizer.zero_grad(set_to_none=True)
    if not finite or empty or (not usable and accelerator.scaler is None):
        _log_skipped(weights, step, names, log, empty)
    samples = (step + 1) * schedule.batch_size
    rate = schedule.rate(step)
    return {"step": step + 1, "samples": samples, **means, "gradient": gradient, "lr": rate, "skipped": not usable}


def _log_skipped(weights: Weights, step: int, names: list[str], log: MetricsLog, empty: bool) -> None:
    """Log a skipped step and its pictures, ``empty`` where nothing of them counts. Raises: as ``_step`` does."""
    weights.skipped += 1
    names = gather_object(names)  # of all processes, which skip together
    why = "no part of its pictures counts" if empty else "loss or gradient is not finite"
    print(f"Step {step + 1} is skipped: {why} ({', '.join(names)}).", file=sys.stderr)
    log.add({"step": step + 1, "event": "skipped", "names": names})
    if weights.skipped >= PATIENCE and empty:
        raise MarigoldError(
            f"Training stopped: of the pictures of {PATIENCE} steps in a row up to {step + 1} no part counts, the last "
            f"are {', '.join(names[:4])}. Either nothing is known there, or depth is the same everywhere: look at them "
            "with python -m training.doctor; of sparse depth give --min-known 0.05."
        )
    if weights.skipped >= PATIENCE:
        raise DivergedError(
            f"Training stopped: {PATIENCE} steps in a row up to {step + 1} were not finite, the last on "
            f"{', '.join(names[:4])}; the last good checkpoint is kept. Look at these pictures or lower --lr."
        )


def _save(
    run: Run, weights: Weights, step: int, log: MetricsLog, accelerator: Accelerator
) -> checkpoints.SaveError | None:
    """Save in the main process -> None, or the error: training goes on without the checkpoint."""
    failure = None
    if accelerator.is_main_process:
        began = time.monotonic()
        state = checkpoints.pack(weights.raw, weights.optimizer)
        network = run.plain(weights.mean) if run.plain else weights.mean
        if run.plain and weights.mean is not weights.raw:  # merged adapters cannot be taken apart again
            trained = {name for name, parameter in weights.raw.named_parameters() if parameter.requires_grad}
            state |= {f"{MEAN}{name}": value for name, value in weights.mean.state_dict().items() if name in trained}
        if accelerator.scaler is not None:
            scaler = accelerator.scaler.state_dict()
            state |= {f"{SCALER}{name}": torch.tensor(float(scaler[name])) for name in ("scale", "_growth_tracker")}
        try:
            checkpoints.save(run.folder, run.base, run.part, network, step, state, keep=log.best_step)
            seconds = round(time.monotonic() - began, 3)
            log.add({"step": step, "event": "saved", "seconds": seconds, **weights.throughput.read()})
        except checkpoints.SaveError as error:
            print(f"NOT SAVED at step {step}: {error}", file=sys.stderr, flush=True)
            failure = error
    accelerator.wait_for_everyone()
    return failure


def _resume(run: Run, weights: Weights, accelerator: Accelerator) -> int:
    """Go on from the newest checkpoint of the run that is whole -> the number of steps made so far."""
    newest = checkpoints.intact(run.folder)
    if newest is None:
        return 0
    state = checkpoints.load_state(newest)
    scaler = {name: state.pop(name).item() for name in [*state] if name.startswith(SCALER)}
    mean = {name.removeprefix(MEAN): state.pop(name) for name in [*state] if name.startswith(MEAN)}
    checkpoints.unpack(state, weights.raw, weights.optimizer)
    if scaler and accelerator.scaler is not None:
        found = {name.removeprefix(SCALER): value for name, value in scaler.items()}
        found["_growth_tracker"] = int(found["_growth_tracker"])
        accelerator.scaler.load_state_dict(accelerator.scaler.state_dict() | found)
    if mean:
        weights.mean.load_state_dict(mean, strict=False)
    elif weights.mean is not weights.raw:
        weights.mean.load_state_dict(type(weights.mean).from_pretrained(newest, subfolder=run.part).state_dict())
    return checkpoints.step_of(newest)
