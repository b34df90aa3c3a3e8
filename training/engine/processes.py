"""The processes that train together: one on a CPU, one a GPU, on one or several machines, as ``accelerate`` is told."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from marigold_core.errors import MarigoldError
from training.recipe import Precision, Schedule

MIXED: dict[Precision, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def accelerator_for(schedule: Schedule, device: str = "auto") -> Accelerator:
    """Set up this process: devices, processes and precision as the launcher and the recipe say.

    Raises: MarigoldError when the batch cannot be shared out, or the precision is not to be had.
    """
    AcceleratorState._reset_state()  # the library keeps the precision of a process's first run for all that follow
    without = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    # accelerate must be told even where there is nothing else: it would let each process train on its own
    accelerator = Accelerator(mixed_precision=MIXED[schedule.precision], cpu=device == "cpu" or without)
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


def agree(accelerator: Accelerator, *flags: bool) -> tuple[bool, ...]:
    """Make what is true in one process true in all."""
    if accelerator.num_processes == 1:
        return flags
    counts = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device))
    return tuple(bool(count) for count in counts)
