"""Attention in bfloat16 on CPUs without AMX, where that of torch takes twice the time for large pictures.

torch multiplies there in a kernel of its own; products of blocks go to oneDNN, which uses the CPU's instructions.
The empty text has two tokens, between which each head of a cross-attention chooses by one number a cell.
"""

from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKED_FROM = 256  # cells of a picture; fewer gain nothing
BLOCK = 256  # rows of one head at a time, whose weights stay in the cache
SUMS = (1e-30, 1e30)  # of a row's exponentials as they are; with others its products would leave bfloat16's range


def attend_in_blocks(*networks: nn.Module) -> None:
    """Let the attention of networks of diffusers work as below where no gradients are asked for."""
    for network in networks:
        for attention in network.modules():
            if isinstance(attention, Attention):
                chosen: Any = TwoTokenAttention() if attention.is_cross_attention else BlockedAttention()
                attention.set_processor(chosen)


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


class TwoTokenAttention(AttnProcessor2_0):
    """Computes what ``AttnProcessor2_0`` does, with two tokens that all pictures share by their difference.

    Of two weights that sum to 1 the first is the sigmoid of the scores' difference, and what a head adds is the second
    value and that share of the difference: neither queries nor values of the pictures' cells are needed.
    """

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Attend from [B, N, C] to the text [B, 2, D] -> [B, N, C]."""
        text = encoder_hidden_states
        shared = text is not None and text.shape[1] == 2 and (len(text) == 1 or text.stride(0) == 0)
        if torch.is_grad_enabled() or not shared or any(args) or kwargs.get("attention_mask") is not None:
            return cast(Any, super()).__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        assert text is not None
        (key, other_key), (value, other_value) = (part(text[0]) for part in (attn.to_k, attn.to_v))
        apart, out = (key - other_key).unflatten(0, (attn.heads, 1, -1)), attn.to_out[0]
        asked = (apart @ attn.to_q.weight.unflatten(0, (attn.heads, -1)))[:, 0] * apart.shape[-1] ** -0.5
        first = torch.sigmoid(F.linear(hidden_states, asked))  # [B, N, heads]
        gained = out.weight.unflatten(1, (attn.heads, -1)) * (value - other_value).unflatten(0, (attn.heads, -1))
        return F.linear(first, gained.sum(-1), out(other_value))


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
                result[one, head, rows] = _weighted(query[one, head, rows], keys, values)
    return result


def _weighted(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Average ``values`` [N, D] by the softmax of ``query`` [n, D] times ``keys`` [D, N] -> [n, D].

    Exponentials are taken of the scores as they are, which saves two of the four passes of a softmax over them, and
    their products divided by their sums. Scores of more than about 65 either way, which no network was seen to have,
    are subtracted their largest first.
    """
    weights = query @ keys
    torch.exp(weights, out=weights)
    sums = weights.sum(dim=-1, keepdim=True)
    low, high = torch.aminmax(sums)
    if not SUMS[0] < float(low) <= float(high) < SUMS[1]:
        return torch.softmax(query @ keys, dim=-1) @ values
    return (weights @ values).div_(sums)
