"""The processes of a run: how many train together, how they agree, and how they are asked to stop.

One process trains on a CPU, one on each GPU of one or several machines, as ``accelerate`` is configured.
"""

import os
import signal
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers

from marigold_core.errors import MarigoldError
from training.engine.metrics_log import Report
from training.recipe import Precision, Schedule

# variables that accelerate launch sets
SHARDED = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
MIXED: dict[Precision, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
ECHO_S = 1.0  # seconds within which a second Ctrl-C is torchrun's repetition of the first


def accelerator_for(
    schedule: Schedule, device: str = "auto", trackers: Sequence[str] = (), folder: Path | None = None
) -> Accelerator:
    """Set up this process for training.

    Args:
        schedule: precision and batch sizes.
        device: "cpu", or "auto" for what the launcher of the processes chose.
        trackers: names of accelerate's trackers, see ``report_to``.
        folder: of the run, where trackers that write files write them.

    Returns:
        The accelerator, with the device and the other processes of the run.

    Raises:
        MarigoldError: the batch cannot be divided among the processes, or the device does not support the precision;
            the launcher asks for sharded weights, or a tracker or the optimiser is not installed.
    """
    if asked := [name for name, variable in SHARDED.items() if os.environ.get(variable, "").lower() in ("1", "true")]:
        raise MarigoldError(
            f"{asked[0]} is not supported: every process holds all weights and moments, 16 bytes a parameter; start "
            "without it, and with --gradient-checkpointing or --lora-rank where memory is short."
        )
    if schedule.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise MarigoldError(
            '--optimizer adamw_8bit needs the package bitsandbytes: pip install -e ".[train,adam8bit]".'
        )
    known = {str(one) for one in get_available_trackers()}
    if missing := sorted({*trackers} - known):
        raise MarigoldError(
            f"The tracker {missing[0]} is not installed or known; there are {', '.join(sorted(known)) or 'none'}: "
            f"pip install {missing[0]}, or leave out --trackers."
        )
    AcceleratorState._reset_state()  # the library keeps the precision of a process's first run for all that follow
    without = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    # without it, several processes on a machine that has only a CPU would each train alone
    accelerator = Accelerator(
        mixed_precision=MIXED[schedule.precision],
        cpu=device == "cpu" or without,
        log_with=list(trackers) or None,
        project_dir=folder,
    )
    if schedule.precision == "float16" and accelerator.device.type != "cuda":
        raise MarigoldError("float16 training needs a CUDA GPU; use --precision bfloat16 or float32 here.")
    if schedule.batch_size % (schedule.micro_batch_size or schedule.batch_size):
        raise MarigoldError(
            f"A batch of {schedule.batch_size} cannot be made of micro-batches of {schedule.micro_batch_size}; "
            "give sizes that divide."
        )
    if schedule.micro_batches % accelerator.num_processes:
        raise MarigoldError(
            f"{schedule.micro_batches} micro-batches a step cannot be shared by {accelerator.num_processes} processes; "
            "change --micro-batch-size or the number of processes."
        )
    return accelerator


def report_to(accelerator: Accelerator, folder: Path) -> Report | None:
    """Start the accelerator's trackers -> what reports figures to them; None where there are none."""
    if not accelerator.log_with:
        return None
    accelerator.init_trackers(folder.name)
    return lambda figures, step: accelerator.log(figures, step=step)


def agree(accelerator: Accelerator, *flags: bool) -> tuple[bool, ...]:
    """Combine the flags of all processes -> each is True where it is True in any of them."""
    if accelerator.num_processes == 1:
        return flags
    counts = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device))
    return tuple(bool(count) for count in counts)


@contextmanager
def stop_signals() -> Iterator[Set[int]]:
    """Collect SIGINT and SIGTERM while a run trains -> the set of those received, which grows.

    A second Ctrl-C ends the program at once, unless it follows within ``ECHO_S``: ``torchrun`` repeats a signal that
    its processes have received already.
    """
    asked: dict[int, float] = {}  # when each came first
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: object) -> None:
        first = asked.setdefault(signum, monotonic())
        if signum == signal.SIGINT and monotonic() - first > ECHO_S:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.keys()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
