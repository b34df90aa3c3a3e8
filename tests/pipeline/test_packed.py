"""Packed layers: the numbers of torch's, weights that are there once, and only on CPUs where they are faster."""

import copy
import pickle
from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from marigold_core import load
from marigold_core.pipeline import loading, packed
from marigold_core.pipeline.image_prior import ConvReLU6
from marigold_core.pipeline.packed import FusedGEGLU, FusedReLU6, PackedConvolution, pack

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def pack_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "FEWEST_CHANNELS", 16)


class Layers(nn.Module):
    """Convolutions of few channels (alone not exchanged), of each stride and with ReLU6, and a gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1))
        self.shrink, self.gated = nn.Conv2d(24, 16, 3, stride=2, padding=1, bias=False), GEGLU(16, 8)
        self.cut = ConvReLU6(16, 16, 5, 2, padding=2, groups=16)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.cut(30 * self.shrink(self.convs(x))).flatten(2).transpose(1, 2))


def test_packed_layers_give_what_they_gave() -> None:
    layers, x = Layers().eval().requires_grad_(False), torch.randn(2, 3, 9, 7)
    states = {name: value.clone() for name, value in layers.state_dict().items()}
    expected = layers(x)
    pack(layers)
    kinds = [type(layer) for layer in layers.modules() if type(layer) not in (Layers, nn.Sequential, nn.Linear)]
    assert kinds == [nn.Conv2d, PackedConvolution, PackedConvolution, FusedGEGLU, FusedReLU6]
    for made in (layers, copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        with torch.inference_mode():
            torch.testing.assert_close(made(x), expected, atol=1e-5, rtol=1e-4)
        assert {name: value.tolist() for name, value in made.state_dict().items()} == {
            name: value.tolist() for name, value in states.items()
        }
    given = x.clone().requires_grad_()
    torch.testing.assert_close(layers(given), expected, atol=1e-5, rtol=1e-4)
    assert torch.autograd.grad(layers(given).sum(), given)[0].abs().sum() > 0


@pytest.mark.parametrize(("instructions", "exchanged"), [(["avx512_bf16"], True), (["amx_bf16", "avx512_bf16"], False)])
def test_networks_compute_what_they_did(instructions, exchanged, tiny_depth, monkeypatch) -> None:
    monkeypatch.setattr(loading, "_bfloat16_instructions", list)
    exchanged = exchanged and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    usual: Any = load(tiny_depth, device="cpu", dtype="bfloat16")
    monkeypatch.setattr(loading, "_bfloat16_instructions", lambda: instructions)
    pipe: Any = load(tiny_depth, device="cpu", dtype="bfloat16")
    for found, network in ((pipe.unet, usual.unet), (pipe.vae, usual.vae)):
        assert any(isinstance(layer, PackedConvolution) for layer in found.modules()) == exchanged
        states = found.state_dict()
        assert list(states) == list(network.state_dict())
        assert all(torch.equal(states[name], value) for name, value in network.state_dict().items())
    latent, noise = torch.randn(2, 3, 4, 8, 12, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        for one, other in zip(
            (pipe.predict_velocity(latent, noise, torch.tensor(999)), pipe.decode(latent)),
            (usual.predict_velocity(latent, noise, torch.tensor(999)), usual.decode(latent)),
            strict=True,
        ):
            torch.testing.assert_close(one.float(), other.float(), atol=0.1, rtol=0.1)
