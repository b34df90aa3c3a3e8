"""The image prior: features of a frozen image classifier, and the U-Net that takes them.

Marigold's prior is Stable Diffusion itself, trained on photographs. A U-Net that was trained from random weights on
rendered pictures alone has none, so it is given the features of an image classifier. They are computed from the photo
as the autoencoder reproduces it, and added inside the U-Net as those of a T2I-Adapter are (Mou et al. 2023). They are a
function of the photo's latent, so the model is still p(depth | photo latent), and all steps and members share them.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.checkpoints.layout import GUIDED

Features = tuple[Tensor, ...]  # [B, C, h', w'] each, fine to coarse
Block = Sequence[int]  # channels in, expanded and out; kernel; stride; padding before and after

FARTHEST = 6.0  # standard deviations; larger values are outliers of single pictures and are clipped


class ImagePrior(ModelMixin, ConfigMixin):
    """The trunk of an EfficientNet-Lite, its norms folded into the convolutions, giving standardised features.

    Source: Tan and Le 2019 (EfficientNet); the Lite variants have neither squeeze-and-excitation nor swish.
    """

    @register_to_config
    def __init__(
        self,
        stem_channels: int,
        block_sizes: Sequence[Block],
        taps: Sequence[int],
        strides: Sequence[int] = (8, 16, 32),
        enlarge: float = 1.5,
    ) -> None:
        """Build the trunk with random weights.

        Args:
            stem_channels: channels of the first convolution.
            block_sizes: of each block, see ``Block``.
            taps: indices of the blocks whose outputs are the features.
            strides: pixels of the picture from one cell of each feature to the next.
            enlarge: factor by which a picture is enlarged first, since the trunk was trained on larger ones.
        """
        super().__init__()
        self.stem = _Convolution(3, stem_channels, kernel=3, stride=2, pads=(0, 1))
        self.blocks = nn.ModuleList(_Bottleneck(*block) for block in block_sizes)
        self.taps, self.strides, self.enlarge = tuple(taps), tuple(strides), enlarge
        for number, tap in enumerate(taps):
            self.register_buffer(f"mean_{number}", torch.zeros(block_sizes[tap][2]))
            self.register_buffer(f"deviation_{number}", torch.ones(block_sizes[tap][2]))

    @property
    def channels(self) -> list[int]:
        """Channels of each of the trunk's features."""
        return [len(self.get_buffer(f"mean_{number}")) for number in range(len(self.taps))]

    def convolve_in(self, dtype: torch.dtype) -> None:
        """Let the convolutions, but nothing after them, compute in a type, and in the layout that is fastest there."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                place: Any = layer.to
                place(dtype, memory_format=torch.channels_last)

    def forward(self, picture: Tensor) -> Features:
        """Compute features [B, C, H / stride, W / stride], about unit variance, of pictures [B, 3, H, W] in [-1, 1]."""
        height, width = picture.shape[-2:]
        features: list[Tensor] = []
        for number, (found, stride) in enumerate(zip(self.tapped_outputs(picture), self.strides, strict=True)):
            mean, deviation = (self.get_buffer(f"{name}_{number}")[:, None, None] for name in ("mean", "deviation"))
            standard = ((found - mean) / deviation).clamp(-FARTHEST, FARTHEST)
            features.append(_resize(standard, -(-height // stride), -(-width // stride)))
        return tuple(features)

    def tapped_outputs(self, picture: Tensor) -> Features:
        """Run the trunk on pictures [B, 3, H, W] -> the outputs of the tapped blocks as they are."""
        height, width = picture.shape[-2:]
        x = _resize(picture, round(height * self.enlarge), round(width * self.enlarge))
        x = self.stem(x.to(self.stem.conv.weight.dtype))
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                found.append(x)
        return tuple(found)


class GuidedUNet(UNet2DConditionModel):
    """Marigold's U-Net with a projection of an image prior's features into each level on its way down.

    The folder opens in diffusers as a plain UNet2DConditionModel too, without the projections: trained with
    ``prior_dropout``, it predicts depth there as well, only worse.
    """

    def guide(self, channels: Sequence[int]) -> None:
        """Add projections of a prior's features, which have these channels; they are zero until they are trained."""
        widths = cast(Sequence[int], self.config["block_out_channels"])
        self.prior_proj = _projections(
            [channels[min(level, len(channels) - 1)] for level in range(len(widths))], widths
        )
        cast(Any, self).register_to_config(**{GUIDED: list(channels)})

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Build the U-Net of a configuration, with projections of the prior's features if it names them."""
        channels = config.get(GUIDED)
        plain = {name: value for name, value in config.items() if name != GUIDED}
        made: Any = cast(Any, super()).from_config(plain, return_unused_kwargs, **kwargs)
        if channels:
            (made[0] if return_unused_kwargs else made).guide(channels)
        return made

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the other conditions pass through as keywords
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        features: Features = (),
        **options: Any,
    ) -> Any:
        """Run as UNet2DConditionModel does on [B, 8, h, w], with ``features`` [B, C, h', w'] of the prior or none."""
        if features:
            options["down_intrablock_additional_residuals"] = self._residuals(features, *sample.shape[-2:])
        return cast(Any, super()).forward(sample, timestep, encoder_hidden_states, **options)

    def _residuals(self, features: Features, height: int, width: int) -> list[Tensor]:
        """Project features -> [B, C, h', w'] for each level, at the size at which diffusers adds them."""
        residuals: list[Tensor] = []
        for level, (block, projection) in enumerate(zip(self.down_blocks, self.prior_proj, strict=True)):
            smaller = (-(-height // 2), -(-width // 2)) if block.downsamplers else (height, width)
            attends = getattr(block, "has_cross_attention", False)  # then they are added before it shrinks
            size = (height, width) if attends else smaller
            residuals.append(_resize(projection(features[min(level, len(features) - 1)]), *size))
            height, width = smaller
        return residuals


class ConvReLU6(nn.Conv2d):
    """A convolution and ReLU6."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to [B, C, H, W] -> [B, C', H', W'] in [0, 6]."""
        return F.relu6(super().forward(input), inplace=True)


class _Convolution(nn.Module):
    """Padding, convolution and ReLU6; paddings differ where TensorFlow, which trained the weights, made them differ."""

    def __init__(self, given: int, out: int, kernel: int, stride: int, pads: tuple[int, int], groups: int = 1) -> None:
        super().__init__()
        before, after = pads
        self.pad = (before, after, before, after) if before != after else None  # convolutions pad alike without a copy
        self.conv = ConvReLU6(given, out, kernel, stride, 0 if self.pad else before, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad) if self.pad else x)


class _Bottleneck(nn.Module):
    """Mobile inverted bottleneck. Source: Sandler et al. 2018, figure 4."""

    def __init__(self, given: int, expanded: int, out: int, kernel: int, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.expand = ConvReLU6(given, expanded, 1) if expanded != given else None
        self.depthwise = _Convolution(expanded, expanded, kernel, stride, (before, after), groups=expanded)
        self.project = nn.Conv2d(expanded, out, 1)
        self.adds = stride == 1 and given == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.adds else y


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity, which it begins as."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to [B, C, H, W]."""
        return x + self.second(F.gelu(self.first(F.gelu(x))))


def merge_levels(seen: Sequence[Tensor], lateral: nn.ModuleList, whole: nn.Linear, units: nn.ModuleList) -> Tensor:
    """Merge features [B, C, h', w'], fine to coarse, from the coarsest on -> [B, width, h, w] of the finest.

    ``lateral`` bring each level to one width and ``units`` follow it; ``whole`` adds the mean of the coarsest to it.
    Source: Lin et al. 2017 (feature pyramids).
    """
    x = lateral[-1](seen[-1])
    x = x + whole(x.mean(dim=(2, 3)))[:, :, None, None]
    x = units[-1](x)
    for found, level, unit in zip(seen[-2::-1], lateral[-2::-1], units[-2::-1], strict=True):
        x = unit(F.interpolate(x, found.shape[-2:], mode="bilinear") + level(found))
    return x


def grid_of(features: Features) -> tuple[int, int]:
    """Return twice the (height, width) of the finest features, at which networks on them give their maps."""
    return 2 * features[0].shape[-2], 2 * features[0].shape[-1]


def _projections(given: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    """Make 1 x 1 convolutions without bias, all zero."""
    made = nn.ModuleList(nn.Conv2d(into, out, 1, bias=False) for into, out in zip(given, widths, strict=True))
    for projection in made:
        nn.init.zeros_(cast(Tensor, projection.weight))
    return made


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bring [B, C, H, W] to another size bilinearly -> [B, C, height, width]."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
