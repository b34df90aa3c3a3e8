"""The loop that both networks are trained with: steps, rate, running mean, checkpoints, signals.

A step is a function of (seed, step) and the weights. So a run that was stopped, or killed, and started again by the
same command ends with the same weights as one that was not.
"""

import copy
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin
from torch import Tensor
from tqdm import tqdm

from marigold_core.errors import MarigoldError
from training import checkpoint
from training.recipe import Schedule

Losses = dict[str, Tensor]  # "loss" is minimised, the rest is logged
MAY_CHANGE = {"steps", "cooldown_steps", "save_minutes"}
LOG_EVERY = 20


def run_loop(
    network: ModelMixin,
    losses: Callable[[int], Losses],
    schedule: Schedule,
    *,
    run: Path,
    base: Path,
    part: str,
    minutes: float | None = None,
) -> Path:
    """Train ``network``, the component ``part`` of the checkpoint ``base``, in the folder ``run`` -> newest checkpoint.

    ``losses`` maps a step number to the losses of its batch. Goes on from the run's newest checkpoint. Ends after the
    schedule's steps, after ``minutes``, or at SIGINT and SIGTERM; always with a checkpoint.
    Raises: MarigoldError when the run was begun with other settings.
    """
    with _stop_signals() as stopped:
        run.mkdir(parents=True, exist_ok=True)
        _settle_recipe(run / "recipe.json", schedule)
        mean = copy.deepcopy(network).requires_grad_(False)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True
        )
        step = _resume(run, part, network, mean, optimizer)
        log = _Log(run / "metrics.jsonl")
        began = saved = time.monotonic()
        ended = False
        with tqdm(total=schedule.steps, initial=step, unit="step", mininterval=5) as bar:
            while step < schedule.steps and not ended:
                log.add(step, _step(network, mean, optimizer, losses, schedule, step))
                step += 1
                bar.update()
                now = time.monotonic()
                ended = stopped() or step == schedule.steps or (minutes is not None and now - began > minutes * 60)
                if ended or now - saved > schedule.save_minutes * 60:
                    checkpoint.save(run, base, part, mean, step, checkpoint.pack(network, optimizer))
                    saved = now
    newest = checkpoint.latest(run)
    assert newest is not None  # a schedule has a step at least
    return newest


class _Log:
    """``metrics.jsonl``: the mean of every ``LOG_EVERY`` steps as a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.began, self.window = path, time.monotonic(), list[dict[str, float]]()

    def add(self, step: int, numbers: dict[str, float]) -> None:
        """Take the numbers of one step, and write a line when there are enough."""
        self.window.append(numbers)
        if len(self.window) == LOG_EVERY:
            means = {name: sum(entry[name] for entry in self.window) / LOG_EVERY for name in numbers}
            seconds = time.monotonic() - self.began
            checkpoint.write_line(self.path, {"step": step + 1, "seconds": seconds, **means})
            self.window.clear()


def _step(
    network: ModelMixin,
    mean: ModelMixin,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[int], Losses],
    schedule: Schedule,
    step: int,
) -> dict[str, float]:
    """Make one optimiser step -> the numbers to log. A loss or gradient that is not finite changes nothing."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    with torch.autocast(network.device.type, torch.bfloat16, enabled=schedule.bfloat16):
        found = losses(step)
    found["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip_norm)
    usable = bool(torch.isfinite(norm)) and bool(torch.isfinite(found["loss"]))
    if usable:
        optimizer.step()
        decay = min(schedule.ema_decay, (step + 1) / (step + 10))  # follow closely while the weights are still far off
        torch._foreach_lerp_(list(mean.parameters()), list(network.parameters()), 1 - decay)
    optimizer.zero_grad(set_to_none=True)
    numbers = {name: value.item() for name, value in found.items()} if usable else dict.fromkeys(found, float("nan"))
    return {**numbers, "gradient": norm.item(), "lr": schedule.rate(step), "skipped": float(not usable)}


def _resume(run: Path, part: str, network: ModelMixin, mean: ModelMixin, optimizer: torch.optim.Optimizer) -> int:
    """Go on from the newest checkpoint of the run -> the number of steps made so far."""
    newest = checkpoint.latest(run)
    if newest is None:
        return 0
    checkpoint.unpack(checkpoint.load_state(newest), network, optimizer)
    mean.load_state_dict(type(mean).from_pretrained(newest, subfolder=part).state_dict())
    return checkpoint.step_of(newest)


def _settle_recipe(path: Path, schedule: Schedule) -> None:
    """Keep the settings a run was begun with; refuse others, except those that do not change the steps made so far."""
    if path.exists():
        begun = type(schedule).model_validate_json(path.read_text(encoding="utf-8"))
        changed = [
            name
            for name in type(schedule).model_fields
            if name not in MAY_CHANGE and getattr(begun, name) != getattr(schedule, name)
        ]
        if changed:
            raise MarigoldError(
                f"The run {path.parent.name} was begun with another {', '.join(changed)}; "
                "use the same settings, or another folder."
            )
    path.write_text(schedule.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def _stop_signals():
    """Turn SIGINT and SIGTERM into a question that the loop asks after each step."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
