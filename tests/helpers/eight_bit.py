"""An optimiser that keeps its moments as that of bitsandbytes does, for machines where that is not installed.

It is not a dependency of the tests: diffusers imports it wherever it finds it, which then writes to the standard error.
"""

import importlib.util

import pytest
import torch
from torch import Tensor

from training.engine import loop, processes

SMALL, BLOCK = 4096, 256
TABLES = {1: torch.linspace(-1, 1, 256), 2: torch.linspace(0, 1, 256)}


class AdamW8bit(torch.optim.Optimizer):
    """Moments of large tensors are numbers of entries of a table that all share, times the largest of their block."""

    def __init__(self, weights, lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore
        """Make a step of Adam, without the correction of the first ones."""
        for group in self.param_groups:
            for weight in (each for each in group["params"] if each.grad is not None):
                state = self.state[weight]
                state["step"] = state.get("step", 0) + 1
                first = 0.9 * self.read(state, 1, weight) + 0.1 * weight.grad
                second = 0.999 * self.read(state, 2, weight) + 0.001 * weight.grad.square()
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * first / (second.sqrt() + 1e-4))
                self.keep(state, 1, first)
                self.keep(state, 2, second)

    def read(self, state: dict, which: int, like: Tensor) -> Tensor:
        """Read one moment."""
        if f"absmax{which}" not in state:
            return state.get(f"state{which}", torch.zeros_like(like))
        scale = state[f"absmax{which}"].repeat_interleave(BLOCK)[: like.numel()]
        return state[f"qmap{which}"][state[f"state{which}"].long()] * scale.view_as(like)

    def keep(self, state: dict, which: int, moment: Tensor) -> None:
        """Keep one moment."""
        state[f"state{which}"] = moment
        if moment.numel() >= SMALL:
            blocks = moment.flatten().split(BLOCK)
            scale = torch.stack([block.abs().max() for block in blocks])
            shares = moment / scale.clamp_min(1e-30).repeat_interleave(BLOCK)[: moment.numel()].view_as(moment)
            state[f"state{which}"] = torch.searchsorted(TABLES[which], shares).clamp_max(255).to(torch.uint8)
            state |= {f"absmax{which}": scale, f"qmap{which}": TABLES[which]}


@pytest.fixture
def eight_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the optimiser above in the place of bitsandbytes, where that is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        monkeypatch.setattr(loop, "adamw_8bit", lambda: AdamW8bit)
        monkeypatch.setattr(processes, "find_spec", lambda name: True)
