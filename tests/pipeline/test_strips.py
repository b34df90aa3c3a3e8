"""Layers in strips: the numbers of diffusers, in less memory, and only on CPUs in bfloat16."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from marigold_core import load
from marigold_core.pipeline import strips
from marigold_core.pipeline.loading import without_values
from marigold_core.pipeline.strips import FreeingDecoder, PhaseUpsample, StripResidual, work_in_strips

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "STRIP", 16)  # fewer numbers than a row has: the fewest rows


def _random(layer: nn.Module, dtype: torch.dtype) -> Any:
    rng = torch.Generator().manual_seed(0)
    for weights in layer.parameters():
        nn.init.normal_(weights, std=0.1, generator=rng)
    converted: Any = layer.eval().to(dtype)
    return converted.to(memory_format=torch.channels_last)


def _pictures(count: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    values = 5 + torch.randn(count, 8, height, width, generator=torch.Generator().manual_seed(1))  # far from zero mean
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("size", [(1, 16, 9), (1, 13, 6), (2, 5, 3), (1, 1, 4)])
@pytest.mark.parametrize("channels", [8, 12])
def test_strips_give_what_the_whole_gives(size, channels, dtype, tolerance) -> None:
    none: Any = None
    block = _random(ResnetBlock2D(in_channels=8, out_channels=channels, temb_channels=none, groups=4), dtype)
    upsample = _random(Upsample2D(8, use_conv=True, out_channels=channels), dtype)
    x = _pictures(*size, dtype=dtype)
    with torch.inference_mode():
        expected = block(x, none), upsample(x)
        work_in_strips(block, upsample)
        assert (type(block), type(upsample)) == (StripResidual, PhaseUpsample)
        given = x.clone()
        found = block(x, none), upsample(x)
    torch.testing.assert_close(x, given, rtol=0, atol=0)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_gradients_and_other_sizes_take_the_usual_way() -> None:
    none: Any = None
    upsample = _random(Upsample2D(8, use_conv=True, out_channels=8), torch.float32)
    layers = [_random(ResnetBlock2D(in_channels=8, temb_channels=none, groups=4), torch.float32), upsample]
    x = _pictures(1, 4, 5, torch.float32).requires_grad_()
    expected = [torch.autograd.grad(layer(x, none).square().sum(), x)[0] for layer in layers]
    work_in_strips(*layers)
    for layer, gradient in zip(layers, expected, strict=True):
        found = torch.autograd.grad(layer(x, none).square().sum(), x)[0]
        torch.testing.assert_close(found, gradient, rtol=0, atol=0)
    with torch.inference_mode():
        assert upsample(x, output_size=(7, 10)).shape == (1, 8, 7, 10)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("tiled", [False, True])
def test_networks_compute_what_they_did(tiled, dtype, tiny_depth) -> None:
    """A block with a timestep stays as it is; states and their names, copies and networks made anew do too."""
    pipe: Any = load(tiny_depth, device="cpu", dtype=dtype)
    kinds, anew = ({type(layer) for layer in vae.modules()} for vae in (pipe.vae, without_values(pipe.vae)))
    exchanged = {StripResidual, PhaseUpsample, FreeingDecoder}
    assert exchanged & kinds == (exchanged if dtype == "bfloat16" else set())
    assert not exchanged & ({type(layer) for layer in pipe.unet.modules()} | anew)
    latent = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(1)).to(pipe.dtype)
    names = list(pipe.vae.state_dict())
    pipe.vae.use_tiling, pipe.vae.tile_latent_min_size = tiled, 6
    pipe.vae.tile_sample_min_size = 6 * pipe.factor
    with torch.enable_grad():
        usual = pipe.decode(latent).float().detach()
    with torch.inference_mode():
        found = pipe.decode(latent)
        torch.testing.assert_close(found.float(), usual, atol=0.1, rtol=0.1)
        pipe.vae = copy.deepcopy(pipe.vae)
        torch.testing.assert_close(pipe.decode(latent), found, atol=0, rtol=0)
    assert names == list(pipe.vae.state_dict()) and "decoder.up_blocks.0.resnets.0.conv1.weight" in names


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    """Pages that the system hands out while a network's feature maps of 4 MB come and go."""
    program = """
import ctypes, resource, torch
from marigold_core.pipeline.strips import M_MMAP_THRESHOLD, reuse_memory
ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 2**17)  # as glibc begins, whatever was freed since
for reuses in (False, True):
    if reuses: reuse_memory()
    before = 0
    for turn in range(40):
        if turn == 20: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        maps = [torch.ones(2**20) for _ in range(4)]
        del maps
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    usual, reused = map(int, made.stdout.split())
    assert usual > 20 * 1024 and reused < 100
