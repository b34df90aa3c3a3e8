"""Maps with the outlines of the truth: what a network that moves outlines learns to make of a checkpoint's own."""

import torch
from torch import Tensor
from torch.nn import functional as F

JUMP = 0.08  # of log depth between neighbours: less is no outline
ALIKE = 0.04  # deviation of log depth within one surface
REACH_PX, STRIDE_PX, SIGMA_PX = 14, 2, 4.0  # how far values are taken from, at which distances, and their weights
BLURRED_PX = 4  # this near an outline a map is a mixture of both sides, and counts little
LITTLE = 0.02
SKY_M = 1e3


def with_true_outlines(values: Tensor, depth_m: Tensor) -> Tensor:
    """Give a map [H, W] the outlines of the true depth [H, W], infinite in the sky -> [H, W].

    Near a jump of the truth each pixel takes the mean of the values around it that lie on its own surface and not on
    the jump itself; elsewhere the map stays. Where the map does not change across a jump it does not afterwards.
    Source: a joint bilateral filter (Petschnigg et al. 2004, section 3) guided by the truth.
    """
    logs = depth_m.clamp(1e-2, SKY_M).log()[None, None]
    map_ = values[None, None]
    highest, lowest = F.max_pool2d(logs, 3, 1, 1), -F.max_pool2d(-logs, 3, 1, 1)
    jumps = (highest - lowest > JUMP).float()
    clear = torch.where(F.max_pool2d(jumps, 2 * BLURRED_PX + 1, 1, BLURRED_PX) > 0, LITTLE, 1.0)
    around = F.pad(torch.cat([logs, map_, clear], dim=1), (REACH_PX,) * 4, mode="replicate")
    height, width = values.shape
    total, weights = torch.zeros_like(map_), torch.zeros_like(map_)
    offsets = range(-REACH_PX, REACH_PX + 1, STRIDE_PX)
    for y, x in ((y, x) for y in offsets for x in offsets if y * y + x * x <= REACH_PX**2):
        top, left = REACH_PX + y, REACH_PX + x
        other, value, sharp = around[..., top : top + height, left : left + width].split(1, dim=1)
        alike = torch.exp(-(other - logs).abs() / ALIKE - (y * y + x * x) / (2 * SIGMA_PX**2))
        total += alike * sharp * value
        weights += alike * sharp
    near = F.avg_pool2d(F.max_pool2d(jumps, 2 * 12 + 1, 1, 12), 9, 1, 4)  # 1 within about 12 pixels, 0 beyond 16
    return (near * total / weights.clamp_min(1e-12) + (1 - near) * map_)[0, 0]
