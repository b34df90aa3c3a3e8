"""The draft network: depth by a plain regressor, whose mean with the members' map is nearer to the truth than either.

It reads depth off the image prior's features alone, without noise, and errs elsewhere on photographs than a diffusion
model that was trained on the same rendered scenes. Its map is soft, so what is taken over of it is around every place a
linear function of the members' map: outlines stay where the members have them, and nothing shines around them. It
belongs to the checkpoint that it was trained beside.
Source: Lin et al. 2017 (feature pyramids); Ranftl et al. 2021, section 3 (the residual units of DPT); Lakshminarayanan
et al. 2017, section 2.4 (the mean of networks trained from other random weights); He and Sun 2015 (Fast Guided Filter).
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.pipeline.image_prior import Features, Residual, grid_of, merge_levels
from marigold_core.pipeline.modalities import Depth

SHARE = 0.65  # of the draft in the mean; chosen on photographs (training/NOTES.md)
AROUND = 4  # cells of the draft on each side of one that the same linear function is sought for
SHAPELESS = 1e-3  # variance of the map around a place, in [0, 1], below which its shape is not followed


class DraftNetwork(ModelMixin, ConfigMixin):
    """Pyramids from coarse to fine over the image prior's features, whose mean is the draft.

    Each is a regressor of its own, trained from other random weights and without other features.
    """

    @register_to_config
    def __init__(
        self, prior_channels: Sequence[int], width: int = 32, pyramids: int = 6, feature_dropout: float = 0.4
    ) -> None:
        """Build it with random weights.

        Args:
            prior_channels: channels of each of the trunk's features, fine to coarse.
            width: channels of a pyramid.
            pyramids: how many there are.
            feature_dropout: share of the features' channels that each does without while it is trained.
        """
        super().__init__()
        self.regressors = nn.ModuleList(_Pyramid(prior_channels, width, feature_dropout) for _ in range(pyramids))

    def forward(self, features: Features) -> Tensor:
        """Features [B, C, h', w'], fine to coarse -> grey of the depth map [B, 1, 2 h, 2 w], h x w of the finest."""
        return self.each(features).mean(dim=1, keepdim=True)

    def each(self, features: Features) -> Tensor:
        """Compute the grey of every pyramid, [B, pyramids, 2 h, 2 w]."""
        return torch.cat([one(features) for one in self.regressors], dim=1)

    @torch.inference_mode()
    def averaged(self, features: Features, values: Tensor, depth: Depth) -> tuple[Tensor, Tensor]:
        """Average the fused depth of members with the draft's, as far as the difference follows the members' map.

        Args:
            features: of the trunk, [1, C, h', w'] each, fine to coarse.
            values: depth [1, 1, H, W], 0 = near plane, 1 = far plane.
            depth: what the checkpoint predicts, which says how grey is read.

        Returns:
            Depth [1, 1, H, W] between the ends of ``values``, since near and far plane are those of the whole map, and
            the scale [] by which it was stretched to them.
        """
        drafted = depth.read(self(tuple(one.float() for one in features)))
        shape = F.adaptive_avg_pool2d(values, (drafted.shape[-2], drafted.shape[-1]))
        apart = SHARE * (drafted - shape)
        mean_shape, mean_apart = _around(shape), _around(apart)
        covariance = _around(shape * apart) - mean_shape * mean_apart
        slope = covariance / (_around(shape.square()) - mean_shape.square() + SHAPELESS)
        size = values.shape[-2], values.shape[-1]
        slope, offset = (
            F.interpolate(_around(one), size, mode="bilinear") for one in (slope, mean_apart - slope * mean_shape)
        )
        mean = values + slope * values + offset
        (low, high), (near, far) = torch.aminmax(mean), torch.aminmax(values)
        scale = (far - near) / (high - low).clamp_min(1e-6)
        return near + scale * (mean - low), scale


def _around(x: Tensor) -> Tensor:
    """Average [1, 1, h, w] over the square of ``AROUND`` cells on each side of every cell -> [1, 1, h, w]."""
    return F.avg_pool2d(F.pad(x, (AROUND,) * 4, mode="replicate"), 2 * AROUND + 1, stride=1)


class _Pyramid(nn.Module):
    """One regressor."""

    def __init__(self, given: Sequence[int], width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in given)
        self.whole = nn.Linear(width, width)  # of the mean over the picture: near and far are those of all of it
        self.units = nn.ModuleList(Residual(width) for _ in given)
        self.narrow = nn.Conv2d(width, width // 4, 3, padding=1)
        self.refine = Residual(width // 4)
        self.out = nn.Conv2d(width // 4, 1, 3, padding=1)

    def forward(self, features: Features) -> Tensor:
        """Features [B, C, h', w'], fine to coarse -> grey [B, 1, 2 h, 2 w]."""
        seen = [self.dropout(one) for one in features]
        x = merge_levels(seen, self.lateral, self.whole, self.units)
        x = self.refine(F.interpolate(self.narrow(F.gelu(x)), grid_of(features), mode="bilinear"))
        return self.out(F.gelu(x))
