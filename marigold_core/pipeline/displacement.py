"""The displacement network: it moves the outlines of a checkpoint's depth onto those of the photo.

A network says where things end to within a few of its pixels, and blurs. This one looks at photo and map in twice that
size and says for every pixel where nearby the depth of its own side of the outline is. It makes no new depth: a ramp
becomes a step between its two ends, and what the checkpoint did not see stays unseen. It is trained on the maps of one
checkpoint and belongs to it.
Source: Ramamonjisoa, Du and Lepetit 2020, Predicting Sharp and Accurate Occlusion Boundaries in Monocular Depth
Estimation Using Displacement Fields, section 3.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.images.colormaps import HALF_BYTE
from marigold_core.pipeline.image_prior import Residual

LARGEST_PX = 1536  # longest edge of what it is given: memory stays below half a gigabyte
PASSES = 2  # the second one goes on from the map of the first
SLOPE = 0.25  # at 0, of the curve that keeps displacements within reach


class DisplacementNetwork(ModelMixin, ConfigMixin):
    """A U-Net without norms from photo and depth to displacements, in pixels, no longer than ``reach_px``."""

    @register_to_config
    def __init__(self, widths: Sequence[int] = (24, 48, 64, 64), reach_px: float = 16.0, enlarge: float = 2.0) -> None:
        """Build it with random weights, but for the last layer, which is zero: nothing is displaced.

        Args:
            widths: channels at 1/2, 1/4 and so on of the picture.
            reach_px: the longest displacement along each axis.
            enlarge: longest edge of what it is given over that of what the checkpoint's U-Net sees.
        """
        super().__init__()
        self.reach_px, self.enlarge = reach_px, enlarge
        steps = list(zip(widths, widths[1:], strict=False))
        self.first = nn.Conv2d(16, widths[0], 3, padding=1)
        self.units_down = nn.ModuleList(Residual(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps)
        self.middle = Residual(widths[-1])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.units_up = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.full = nn.Conv2d(widths[0], 32, 3, padding=1)
        self.mix = nn.Conv2d(12, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, photo: Tensor, depth: Tensor) -> Tensor:
        """Displace depth [B, 1, H, W] in [0, 1] by its photo [B, 3, H, W] in [-1, 1]; H and W are even."""
        return displace(depth, self.displacements(photo, depth))

    def displacements(self, photo: Tensor, depth: Tensor) -> Tensor:
        """Say where each pixel's depth is, see ``forward`` -> [B, 2, H, W], right and down, pixels."""
        given = torch.cat([photo, 2 * depth - 1], dim=1)
        x = self.first(F.pixel_unshuffle(given, 2))
        passed: list[Tensor] = []
        for unit, down in zip(self.units_down, self.down, strict=False):
            passed.append(unit(x))
            x = down(F.gelu(passed[-1]))
        x = self.middle(self.units_down[-1](x))
        for finer, up, unit in zip(passed[::-1], self.up[::-1], self.units_up[::-1], strict=True):
            x = unit(F.interpolate(up(x), size=finer.shape[-2:]) + finer)
        x = torch.cat([F.pixel_shuffle(self.full(F.gelu(x)), 2), given], dim=1)
        return self.reach_px * torch.tanh(self.out(F.gelu(self.mix(x))) * SLOPE)

    @torch.inference_mode()
    def move(self, values: np.ndarray, photo: np.ndarray, network_px: int) -> np.ndarray:
        """Move the outlines of depth [H, W] in [0, 1] onto those of its photo [H, W, 3] uint8 -> [h, w] float32.

        ``network_px`` is the longest edge that the checkpoint's U-Net saw; h and w are about ``enlarge`` as large.
        """
        share = min(self.enlarge * network_px, LARGEST_PX) / max(values.shape)
        size = [2 * max(1, round(side * share / 2)) for side in values.shape]
        depth = torch.as_tensor(values, dtype=torch.float32)[None, None]
        picture = torch.as_tensor(photo).permute(2, 0, 1)[None].float() / HALF_BYTE - 1
        depth, picture = (
            F.interpolate(part, size, mode="bilinear", antialias=True).to(self.device) for part in (depth, picture)
        )
        for _ in range(PASSES):
            depth = self(picture, depth)
        return depth[0, 0].cpu().numpy()


def displace(depth: Tensor, displacements: Tensor) -> Tensor:
    """Take the depth [B, 1, H, W] of each pixel from where its displacement [B, 2, H, W] leads, right and down."""
    height, width = depth.shape[-2:]
    rows, columns = (torch.arange(side, device=depth.device, dtype=depth.dtype) for side in (height, width))
    x = (columns + displacements[:, 0]) * (2 / max(1, width - 1)) - 1
    y = (rows[:, None] + displacements[:, 1]) * (2 / max(1, height - 1)) - 1
    return F.grid_sample(depth, torch.stack([x, y], dim=-1), padding_mode="border", align_corners=True)
