"""Large layers in strips of rows, in bfloat16 on CPUs: what diffusers computes, in less time and memory.

A feature map of a whole photo fits no cache, and memory of its size is taken anew from the system for each of the
norm, the activation, the convolution and the sum. A strip of rows passes through all of them while it is in the cache.
"""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.pipeline.packed import convolve

STRIP = 2**21  # numbers of a feature map at a time
FEWEST_ROWS = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
MANY_CELLS = 4096  # of a latent, from which on a decoder takes much more than what denoising left unused


def work_in_strips(*networks: nn.Module) -> None:
    """Let residual blocks without a timestep, and upsampling, of networks of diffusers work in strips.

    Their decoders free what they no longer need. Where gradients are asked for they do what they did.
    """
    for network in networks:
        for layer in network.modules():
            exchanged: Any = layer
            if type(layer) is ResnetBlock2D and _is_plain(layer):
                exchanged.__class__ = StripResidual
            elif type(layer) is Upsample2D and _is_nearest(layer):
                exchanged.__class__ = PhaseUpsample
                exchanged.register_buffer("phases", _phases(exchanged.conv.weight), persistent=False)
            elif type(layer) is Decoder and all(type(block) is UpDecoderBlock2D for block in exchanged.up_blocks):
                exchanged.__class__ = FreeingDecoder


def _is_plain(block: Any) -> bool:
    changes_size = block.upsample is not None or block.downsample is not None
    is_usual = isinstance(block.nonlinearity, nn.SiLU) and block.output_scale_factor == 1
    return is_usual and not changes_size and block.time_emb_proj is None


def _is_nearest(layer: Any) -> bool:
    is_usual = layer.use_conv and layer.interpolate and not layer.use_conv_transpose and layer.norm is None
    return is_usual and layer.name == "conv" and layer.conv.kernel_size == (3, 3)


class StripResidual(ResnetBlock2D):
    """A residual block whose result takes the place of its hidden feature map, strip by strip."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Compute as ``ResnetBlock2D`` on [1, C, H, W] -> [1, C', H, W]."""
        if torch.is_grad_enabled() or len(input_tensor) > 1 or input_tensor.numel() <= STRIP:
            return cast(Any, super()).forward(input_tensor, temb, *args, **kwargs)
        _, _, height, width = input_tensor.shape
        hidden = _empty(input_tensor, self.conv1.out_channels, height, width)
        for rows, made in _convolved(input_tensor, self.norm1, self.conv1):
            hidden[:, :, rows] = made
        for rows, made in _convolved(hidden, self.norm2, self.conv2):
            kept = input_tensor[:, :, rows]
            hidden[:, :, rows] = made.add_(kept if self.conv_shortcut is None else self.conv_shortcut(kept))
        return hidden


class PhaseUpsample(Upsample2D):
    """Nearest upsampling and a 3 x 3 convolution as one 2 x 2 convolution of the small map: 4/9 of the products.

    Of the nine pixels that a convolution sees after upsampling at most four differ. Each of the four pixels that come
    of one has sums of the weights of its own. Source: Shi et al. 2016, "Is the deconvolution layer the same as a
    convolutional layer?".
    """

    phases: Tensor  # [4 C', C, 2, 2], see _phases

    def forward(self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """Compute as ``Upsample2D`` on [B, C, H, W] -> [B, C', 2 H, 2 W]."""
        batch, channels, height, width = hidden_states.shape
        doubled = output_size is None or tuple(output_size) == (2 * height, 2 * width)
        if torch.is_grad_enabled() or not doubled:
            return cast(Any, super()).forward(hidden_states, output_size, *args, **kwargs)
        conv: Any = self.conv
        bias = None if conv.bias is None else conv.bias.repeat(4)
        result = _empty(hidden_states, conv.out_channels, 2 * height, 2 * width)
        for first, last in _strips(height + 1, channels * width):  # windows of two rows, which begin at -1
            seen = hidden_states[:, :, max(first - 1, 0) : last]
            above, below = int(first == 0), int(last == height + 1)
            made = F.conv2d(F.pad(seen, (0, 0, above, below)), self.phases, bias, padding=(0, 1))
            made = made.reshape(batch, 2, 2, -1, last - first, width + 1).permute(0, 3, 4, 1, 5, 2)
            made = made.reshape(batch, -1, 2 * (last - first), 2 * (width + 1))
            start = 2 * first - 1 + above
            made = made[:, :, above : made.shape[2] - below, 1:-1]
            result[:, :, start : start + made.shape[2]] = made
        return result


class FreeingDecoder(Decoder):
    """A decoder that frees each feature map after the layer that reads it; diffusers keeps those between blocks."""

    def forward(self, sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
        """Compute as ``Decoder`` on [B, 4, h, w] -> [B, 3, H, W]."""
        if torch.is_grad_enabled() or latent_embeds is not None:
            return cast(Any, super()).forward(sample, latent_embeds)
        network: Any = self
        if sample[0, 0].numel() >= MANY_CELLS:
            return_memory()
        sample = network.mid_block(network.conv_in(sample))
        for block in network.up_blocks:
            for layer in (*block.resnets, *(block.upsamplers or ())):
                sample = layer(sample, None)
        sample = network.conv_norm_out(sample)
        return network.conv_out(network.conv_act(sample))


def reuse_memory() -> None:
    """Let glibc reuse freed blocks below 8 MB, of which it otherwise returns most to the system at once.

    Small networks are a tenth slower when all their feature maps are taken anew from it. Those of public ones are
    larger, and would need a tenth more memory if they were kept too.
    """
    with suppress(OSError, AttributeError):  # no glibc
        option = ctypes.CDLL("libc.so.6").mallopt
        option(M_MMAP_THRESHOLD, 8 * 2**20)
        option(M_TRIM_THRESHOLD, 64 * 2**20)


def return_memory() -> None:
    """Return freed memory to the system, of a public text encoder half a gigabyte."""
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _phases(weight: Tensor) -> Tensor:
    """Sum weights [C', C, 3, 3] that meet the same pixel -> [4 C', C, 2, 2]; the lower right of each four is last.

    They are for the pixels between the centres of the 2 x 2 window's own ones.
    """

    def summed(weights: Tensor, dim: int) -> list[Tensor]:
        before, centre, after = weights.unbind(dim)
        return [torch.stack(pair, dim) for pair in ((before + centre, after), (before, centre + after))]

    phases = torch.cat([phase for rows in summed(weight.detach().float(), 2) for phase in summed(rows, 3)])
    return phases.to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _convolved(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of x [1, C, H, W] after the norm, SiLU and a 3 x 3 convolution.

    Rows of x that were yielded, which the next ones still need, may be overwritten.
    """
    _, channels, height, width = x.shape
    mean, variance = _moments(x, norm.num_groups)
    weight, bias = norm.weight.float(), norm.bias.float()
    beyond = _empty(x, channels, 1, width).zero_()
    above = beyond
    for start, end in _strips(height, channels * width):
        new = x[:, :, start + 1 if start else 0 : end + 1]
        new = F.silu(F.batch_norm(new, mean, variance, weight, bias, eps=norm.eps), inplace=True)
        seen = torch.cat([above, new, beyond] if end == height else [above, new], dim=2)
        yield slice(start, end), convolve(seen, conv.weight, conv.bias, padding=(0, 1))
        above = seen[:, :, -2:]


def _moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance [C] in float32 of the group of each channel of [1, C, H, W]."""
    statistics: Any = torch.batch_norm_update_stats
    precise = torch.zeros(2, x.shape[1], device=x.device)  # the results are in their type
    found: tuple[Tensor, Tensor] = statistics(x, *precise, momentum=0.0)
    means, variances = (one.reshape(groups, -1) for one in found)
    mean, variance = means.mean(1), variances.mean(1) + means.var(1, correction=0)
    return mean.repeat_interleave(means.shape[1]), variance.repeat_interleave(means.shape[1])


def _strips(height: int, row: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one after the last of strips of about the same height; a row has ``row`` numbers."""
    count = -(-height // max(FEWEST_ROWS, STRIP // row))
    return ((height * k // count, height * (k + 1) // count) for k in range(count))


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    shape = len(like), channels, height, width
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
