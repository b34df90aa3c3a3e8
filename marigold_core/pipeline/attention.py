"""Self-attention of large pictures in bfloat16 on CPUs without AMX, where that of torch takes twice the time.

torch multiplies there in a kernel of its own; products of blocks go to oneDNN, which uses the CPU's instructions.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKED_FROM = 256  # cells of a picture; fewer gain nothing
BLOCK = 256  # rows of one head at a time, whose weights stay in the cache


def attend_in_blocks(*networks: nn.Module) -> None:
    """Let the self-attention of networks of diffusers work in blocks where no gradients are asked for."""
    for network in networks:
        for attention in network.modules():
            if isinstance(attention, Attention) and not attention.is_cross_attention:
                attention.set_processor(BlockedAttention())  # pyright: ignore[reportArgumentType]


class BlockedAttention:
    """Computes what ``AttnProcessor2_0`` of diffusers does for self-attention without masks."""

    def __call__(self, attn: Any, hidden_states: Tensor, *_: object, temb: object = None, **__: object) -> Tensor:
        """Attend within [B, N, C], or within a picture [B, C, H, W] -> the same shape."""
        del temb  # the autoencoder gives None; diffusers warns of arguments whose names are not in the signature
        x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        query, key, value = (
            part(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (attn.to_q, attn.to_k, attn.to_v)
        )
        x = attn.to_out[0](attended(query, key, value).transpose(1, 2).flatten(2))
        if hidden_states.ndim == 4:
            x = x.transpose(1, 2).reshape(hidden_states.shape)
        return (x + hidden_states if attn.residual_connection else x) / attn.rescale_output_factor


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention of [B, heads, N, D]; Vaswani et al. 2017, equation 1."""
    if query.shape[-2] < BLOCKED_FROM or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    result = torch.empty_like(query)
    for one in range(query.shape[0]):
        for head in range(query.shape[1]):
            keys, values = (key[one, head] * query.shape[-1] ** -0.5).T, value[one, head].contiguous()
            for start in range(0, query.shape[-2], BLOCK):
                rows = slice(start, start + BLOCK)
                weights = query[one, head, rows] @ keys
                torch.softmax(weights, dim=-1, out=weights)  # each row is read before it is written
                result[one, head, rows] = weights @ values
    return result
