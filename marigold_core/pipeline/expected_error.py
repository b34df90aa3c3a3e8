"""The error network: it says how far off a depth map of its checkpoint probably is, at every place.

Members can agree and be wrong together, and one member alone says nothing about itself. This network has seen where
the checkpoint's maps of rendered scenes are wrong, and reads it off the image prior's features, the map and, where
there are enough members, their spread. It belongs to the checkpoint that it was trained on.
Source: Kendall and Gal 2017, section 3, the scale of a Laplace distribution as a network's output; here a network of
its own beside a frozen one, as in Yoo and Kweon 2019, Learning Loss for Active Learning, section 3.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.pipeline.image_prior import Features, Residual, grid_of, merge_levels

GIVEN = 4  # channels that stand for map and spread
SPREADS = 3.0  # times the spread of the members is about as large as their error
USUAL = -3.0  # log of the error that an untrained network expects everywhere


class ErrorNetwork(ModelMixin, ConfigMixin):
    """A pyramid from coarse to fine over the image prior's features, with the map and its spread at every level."""

    @register_to_config
    def __init__(self, prior_channels: Sequence[int], width: int = 48) -> None:
        """Build it with random weights, but for the last layer, which is zero: it expects the same error everywhere.

        Args:
            prior_channels: channels of each of the trunk's features, fine to coarse.
            width: channels of the pyramid.
        """
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(given + GIVEN, width, 1) for given in prior_channels)
        self.whole = nn.Linear(width, width)  # of the mean over the picture: how hard all of it is
        self.units = nn.ModuleList(Residual(width) for _ in prior_channels)
        self.narrow = nn.Conv2d(width, width // 4, 3, padding=1)
        self.fine = nn.Conv2d(GIVEN, width // 4, 3, padding=1)
        self.refine = nn.Sequential(Residual(width // 4), Residual(width // 4))
        self.out = nn.Conv2d(width // 4, 1, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Features, depth: Tensor, spread: Tensor, is_known: Tensor) -> Tensor:
        """Expect the absolute error of depth, after its best scale and shift.

        Args:
            features: of the trunk, [B, C, h', w'] each, fine to coarse, the finest h x w.
            depth: the map [B, 1, H, W] in [0, 1].
            spread: of its members [B, 1, H, W] >= 0.
            is_known: whether the spread is that of enough members, 1 or 0, [B, 1, 1, 1].

        Returns:
            The natural logarithm of the expected error [B, 1, 2 h, 2 w], in the units of depth.
        """
        size = grid_of(features)
        given = _given(F.adaptive_avg_pool2d(depth, size), F.adaptive_avg_pool2d(spread, size), is_known)
        seen = [
            torch.cat([one, F.adaptive_avg_pool2d(given, (one.shape[-2], one.shape[-1]))], dim=1) for one in features
        ]
        x = merge_levels(seen, self.lateral, self.whole, self.units)
        x = F.interpolate(self.narrow(F.gelu(x)), size, mode="bilinear") + self.fine(given)
        return self.out(F.gelu(self.refine(x))) + USUAL

    @torch.inference_mode()
    def expected(self, features: Features, depth: Tensor, spread: Tensor | None) -> Tensor:
        """Expect the error of a map [1, 1, H, W] -> [1, 1, H, W].

        Where there is a spread, the result is the mean of what the network expects and three times the spread: on
        photographs they rank errors better together than each alone (training/NOTES.md).
        """
        is_known = depth.new_full((1, 1, 1, 1), float(spread is not None))
        known = torch.zeros_like(depth) if spread is None else spread
        expected = self(tuple(one.float() for one in features), depth, known, is_known).float().exp()
        expected = F.interpolate(expected, (depth.shape[-2], depth.shape[-1]), mode="bilinear")
        return expected if spread is None else (expected + SPREADS * spread) / 2


def _given(depth: Tensor, spread: Tensor, is_known: Tensor) -> Tensor:
    """Describe map and spread [B, 1, H, W] by numbers of about unit size -> [B, ``GIVEN``, H, W]."""
    right, down = F.pad(depth.diff(dim=-1).abs(), (0, 1)), F.pad(depth.diff(dim=-2).abs(), (0, 0, 0, 1))
    slope = torch.log(torch.maximum(right, down) + 1e-3) / 2 + 2
    doubt = (torch.log(spread.clamp_min(1e-4)) + 4) / 1.5
    return torch.cat([2 * depth - 1, slope, doubt * is_known, is_known.expand_as(depth)], dim=1)
