"""Layers of networks in bfloat16 as oneDNN, torch's library for CPUs, takes them without preparing them at each call.

A convolution of torch brings its weights into another order whenever it is used, which for the many channels of the
small feature maps takes as long as the products; here they lie in that order. A gated unit of a transformer writes
three maps of its largest size; here they are one, written by the products themselves. So is what a convolution with
ReLU6 writes.
"""

from typing import Any, cast

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.pipeline.image_prior import ConvReLU6

FEWEST_CHANNELS = 256  # on both sides of a layer; with fewer the weights are in order in no time
ONEDNN: Any = torch.ops.mkldnn


def pack(*networks: nn.Module) -> None:
    """Exchange the layers that this module names; weights exist once, of wide 3 x 3 convolutions in oneDNN's order.

    Where gradients are asked for the layers compute as before. States, copies and files of the networks hold the
    weights in the usual order.
    """
    for network in networks:
        for layer in network.modules():
            exchanged: Any = layer
            if type(layer) is nn.Conv2d and _is_packed(layer):
                exchanged.__class__ = PackedConvolution
                exchanged.order()
            elif type(layer) is GEGLU:
                exchanged.__class__ = FusedGEGLU
            elif type(layer) is ConvReLU6:
                exchanged.__class__ = FusedReLU6


def _is_packed(conv: nn.Conv2d) -> bool:
    usual = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return usual and conv.kernel_size == (3, 3) and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS


def packed(weight: Tensor) -> Tensor:
    """Bring weights [C', C, kh, kw] of a convolution into oneDNN's order; the tensor is opaque but for its shape."""
    return ONEDNN._reorder_convolution_weight(weight.detach())


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, stride: Any = (1, 1)) -> Tensor:
    """Compute as ``conv2d`` with weights in either order; without gradients if they are packed."""
    if not weight.is_mkldnn:
        return F.conv2d(x, weight, bias, stride, padding)
    return ONEDNN._convolution_pointwise(x, weight, bias, padding, stride, (1, 1), 1, "none", [], "")


class PackedConvolution(nn.Conv2d):
    """A convolution with packed weights."""

    def order(self) -> None:
        """Pack the weights."""
        self.weight = nn.Parameter(packed(self.weight), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Compute as ``Conv2d`` on [B, C, H, W] -> [B, C', H', W']."""
        if torch.is_grad_enabled():
            return self._conv_forward(input, self.weight.to_dense(), self.bias)
        return convolve(input, self.weight, self.bias, self.padding, self.stride)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        cast(Any, super())._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight.detach().to_dense()

    def __getstate__(self) -> dict[str, Any]:
        weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        return {**self.__dict__, "_parameters": {**self._parameters, "weight": weight}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cast(Any, super()).__setstate__(state)
        self.order()


class FusedGEGLU(GEGLU):
    """A gated unit whose gate is activated and multiplied where it is made. Source: Shazeer 2020, equation 6."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute as ``GEGLU`` on [B, N, C] -> [B, N, C']."""
        if torch.is_grad_enabled():
            return cast(Any, super()).forward(hidden_states, *args, **kwargs)
        (weight, gating), (bias, gate_bias) = (one.chunk(2) for one in (self.proj.weight, self.proj.bias))
        gate = ONEDNN._linear_pointwise(hidden_states, gating, gate_bias, "gelu", [], "none")
        return ONEDNN._linear_pointwise.binary(hidden_states, gate, weight, bias, "mul")


class FusedReLU6(ConvReLU6):
    """A convolution whose products are cut off where they are made."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute as ``ConvReLU6`` on [B, C, H, W] -> [B, C', H', W']."""
        if torch.is_grad_enabled():
            return super().forward(input)
        places = self.padding, self.stride, self.dilation, self.groups
        return ONEDNN._convolution_pointwise(input, self.weight, self.bias, *places, "hardtanh", [0.0, 6.0], "")
