"""Attention in blocks: the numbers of torch's, and only where it is faster."""

import logging
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from marigold_core import load
from marigold_core.pipeline import attention, loading
from marigold_core.pipeline.attention import (
    BLOCKED_FROM,
    BlockedAttention,
    TwoTokenAttention,
    attend_in_blocks,
    attended,
)

pytestmark = pytest.mark.numeric


def test_blocks_give_what_the_whole_gives() -> None:
    query, key, value = torch.randn(3, 2, 2, BLOCKED_FROM + 77, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = attended(query, key, value)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("most", [1.0, 60.0, 200.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_any_size_are_weighed(most: float, sign: int) -> None:
    """Also those whose exponentials overflow or are all zero."""
    query, key, value = torch.randn(3, 1, 1, BLOCKED_FROM, 8, generator=torch.Generator().manual_seed(0))
    key = key.abs() * sign
    query = query.abs() * (most * 8**0.5 / (query.abs() @ key.abs().transpose(-1, -2)).max())
    with torch.inference_mode():
        torch.testing.assert_close(
            attended(query, key, value), F.scaled_dot_product_attention(query, key, value), atol=1e-4, rtol=1e-3
        )
        query, key, value = (one.bfloat16() for one in (query, key, value))
        weights = torch.softmax(query @ (key * 8**-0.5).transpose(-1, -2), dim=-1)
        torch.testing.assert_close(attended(query, key, value), weights @ value, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "texts", [torch.randn(1, 2, 12), torch.randn(1, 2, 12).expand(3, -1, -1), torch.randn(3, 2, 12)]
)
def test_two_tokens_are_attended_to_as_torch_does(texts) -> None:
    layer: Any = attention.Attention(32, cross_attention_dim=12, heads=4, dim_head=8).eval()
    x = torch.randn(len(texts), 7, 32)
    with torch.inference_mode():
        expected = layer(x, encoder_hidden_states=texts)
        layer.set_processor(TwoTokenAttention())
        torch.testing.assert_close(layer(x, encoder_hidden_states=texts), expected, atol=1e-5, rtol=1e-4)


def test_networks_compute_what_they_did(tiny_depth, monkeypatch) -> None:
    pipe: Any = load(tiny_depth, device="cpu", dtype="float32")
    latent, noise = torch.randn(2, 1, 4, 8, 12, generator=torch.Generator().manual_seed(1))

    def run() -> list[torch.Tensor]:
        return [pipe.predict_velocity(latent, noise, torch.tensor(999)), pipe.decode(latent)]

    with torch.inference_mode():
        expected = run()
        attend_in_blocks(pipe.unet, pipe.vae)
        monkeypatch.setattr(attention, "BLOCKED_FROM", 1)
        monkeypatch.setattr(attention, "BLOCK", 5)
        for one, other in zip(run(), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_gradients_pass_and_nothing_is_warned_of(tiny_depth, caplog, monkeypatch) -> None:
    pipe: Any = load(tiny_depth, device="cpu", dtype="float32")
    attend_in_blocks(pipe.unet, pipe.vae)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    latent = torch.zeros(1, 4, 8, 8, requires_grad=True)
    pipe.decode(latent).sum().backward()
    assert latent.grad is not None and latent.grad.abs().sum() > 0
    assert caplog.records == []  # diffusers warns of arguments that an attention does not know


@pytest.mark.parametrize(
    ("instructions", "dtype", "blocks"),
    [
        (["avx512_bf16"], "bfloat16", True),
        (["amx_bf16", "avx512_bf16"], "bfloat16", False),  # torch uses AMX in its own kernel
        (["avx512_bf16"], "float32", False),
        ([], "bfloat16", False),
    ],
)
def test_it_is_used_where_it_is_faster(instructions, dtype, blocks, tiny_depth, monkeypatch) -> None:
    monkeypatch.setattr(loading, "_bfloat16_instructions", lambda: instructions)
    pipe: Any = load(tiny_depth, device="cpu", dtype=dtype)
    kinds = {type(one.processor) for one in pipe.vae.modules() if isinstance(one, attention.Attention)}
    assert kinds and (kinds == {BlockedAttention}) == blocks
    cross = [one for name, one in pipe.unet.named_modules() if name.endswith("attn2")]
    assert not any(isinstance(one.processor, BlockedAttention) for one in cross)
