"""The order of a picture's values in memory in which convolutions are fastest."""

from functools import cache
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 4  # timings of each layout, by turns; the best counts, since other work on the machine only adds to it
SLOWER = 1.1  # a layout must cost this much more to be given up: near a tie, all runs of a machine choose the same


@cache
def fastest_layout(device: str, dtype: torch.dtype) -> torch.memory_format:
    """Choose the layout of weights and feature maps for networks on one device in one type.

    In half precision channels come last, as instructions for matrices want them; on a CPU that is measured once for a
    process, in a tenth of a second. float32 keeps the order of torch, in which last bits stay what they were, and so
    do devices other than CPU and CUDA.
    """
    if dtype == torch.float32 or device not in ("cpu", "cuda"):
        return torch.contiguous_format
    if device == "cpu":
        seconds = {layout: float("inf") for layout in (torch.channels_last, torch.contiguous_format)}
        for _ in range(ROUNDS):
            for layout, best in seconds.items():
                seconds[layout] = min(best, _time_block(layout, dtype))
        if seconds[torch.channels_last] > SLOWER * seconds[torch.contiguous_format]:
            return torch.contiguous_format
    return torch.channels_last


@torch.inference_mode()
def _time_block(layout: torch.memory_format, dtype: torch.dtype) -> float:
    """Time what the decoder consists of: norm, activation and convolution, of 128 channels and 64 x 64 cells."""
    x, weight = (_ones(size, dtype, layout) for size in ((1, 128, 64, 64), (128, 128, 3, 3)))
    began = perf_counter()
    F.conv2d(F.silu(F.group_norm(x, 32)), weight, padding=1)
    return perf_counter() - began


def _ones(size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    return torch.ones(size, dtype=dtype).to(memory_format=layout)
