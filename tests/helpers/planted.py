"""Ensembles with a known answer: a planted truth and members that see it through noise, for tests and benchmark."""

import torch
from torch import Tensor
from torch.nn import functional as F


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(rng: torch.Generator, count: int, size: tuple[int, int], knots: int = 4) -> Tensor:
    """[count, 1, H, W] of bicubic hills, deviation about 1."""
    return F.interpolate(torch.randn(count, 1, knots, knots, generator=rng), size, mode="bicubic")


def plant(rng: torch.Generator, kind: str, size: tuple[int, int] = (48, 64)) -> Tensor:
    """[1, 1, H, W] in [0, 1]: hills, or a ground plane with boxes standing on it."""
    if kind == "hills":
        truth = smooth(rng, 1, size)
    else:
        height, width = size
        truth = torch.linspace(1, 0, height)[:, None].repeat(1, width)
        for _ in range(6):
            top, left = (int(torch.randint(0, side // 2, (), generator=rng)) for side in size)
            truth[top : top + height // 3, left : left + width // 4] = torch.rand((), generator=rng)
        truth = truth[None, None]
    return (truth - truth.min()) / (truth.max() - truth.min())


def disturb(rng: torch.Generator, truth: Tensor, count: int, level: float) -> Tensor:
    """[E, 1, H, W] members: the truth under smooth and white noise, each with its own scale and shift."""
    size = (truth.shape[-2], truth.shape[-1])
    noise = 0.8 * smooth(rng, count, size, knots=5) + 0.6 * torch.randn(count, 1, *size, generator=rng)
    scale = 0.3 + 0.7 * torch.rand(count, 1, 1, 1, generator=rng)
    shift = 0.3 * torch.rand(count, 1, 1, 1, generator=rng)
    return scale * (truth + level * noise) + shift


def fit_error(depth: Tensor, truth: Tensor) -> float:
    """RMSE after the best scale and shift."""
    design = torch.stack([depth.double().flatten(), torch.ones(depth.numel(), dtype=torch.float64)], dim=1)
    target = truth.double().flatten()
    fitted = design @ torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    return float((fitted - target).square().mean().sqrt())
