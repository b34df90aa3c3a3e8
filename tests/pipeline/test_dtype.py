"""Which type the weights have where nobody names one, and in which layout they lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marigold_core import Settings, SettingsError, load
from marigold_core.pipeline import memory_layout
from marigold_core.pipeline.loading import pick_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def nobody_names_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARIGOLD_DTYPE")


@pytest.mark.parametrize(
    ("found", "used", "expected"),
    [
        ({"avx512_bf16": True}, "AVX512", torch.bfloat16),
        ({"amx_bf16": True}, "AVX512", torch.bfloat16),
        ({"avx512_f": True}, "AVX512", torch.float32),
        ({"avx512_bf16": True}, "AVX2", torch.float32),  # by $ATEN_CPU_CAPABILITY
        ({}, "DEFAULT", torch.float32),
    ],
)
def test_a_cpu_that_multiplies_bfloat16_does(
    found: dict[str, bool], used: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    assert pick_dtype("auto", CPU) == expected
    assert pick_dtype("float32", CPU) == torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), torch.float16), ((7, 0), torch.float16), ((6, 1), torch.float32)]
)
def test_a_gpu_that_multiplies_float16_does(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype("auto", GPU) == expected
    assert pick_dtype("auto", torch.device("mps")) == torch.float16


def test_the_environment_decides_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_DTYPE", "float16")
    assert pick_dtype("auto", CPU) == torch.float16
    assert pick_dtype("bfloat16", CPU) == torch.bfloat16
    monkeypatch.setenv("MARIGOLD_DTYPE", "double")
    with pytest.raises(SettingsError, match="'double' is unknown"):
        pick_dtype("auto", CPU)


def test_bfloat16_lies_channels_last_unless_that_is_slower_and_float32_never(monkeypatch: pytest.MonkeyPatch) -> None:
    fastest: Any = memory_layout.fastest_layout.__wrapped__
    for last_s, expected in ((1.0, torch.channels_last), (1.9, torch.channels_last), (2.5, torch.contiguous_format)):
        seconds = {torch.channels_last: last_s, torch.contiguous_format: 2.0}
        monkeypatch.setattr(memory_layout, "_time_block", lambda layout, dtype, seconds=seconds: seconds[layout])
        assert fastest("cpu", torch.bfloat16) == expected
    assert fastest("cpu", torch.float32) == torch.contiguous_format
    assert fastest("cuda", torch.float16) == torch.channels_last
    assert fastest("mps", torch.float16) == torch.contiguous_format


@pytest.mark.parametrize("checkpoint", ["tiny_depth", "tiny_guided", "tiny_normals"])
def test_the_layout_changes_rounding_alone(
    checkpoint: str, request: pytest.FixtureRequest, photo: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = Settings(num_inference_steps=2, processing_resolution=64), request.getfixturevalue(checkpoint)
    maps = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr("marigold_core.pipeline.loading.fastest_layout", lambda *_, layout=layout: layout)
        pipe: Any = load(folder, device="cpu", dtype="float32")
        assert pipe.vae.decoder.conv_in.weight.is_contiguous(memory_format=layout)
        maps[layout] = pipe(photo(), settings).values
    np.testing.assert_allclose(*maps.values(), atol=1e-4)


def test_latents_are_precise_between_steps(tiny_depth: Path) -> None:
    pipe = load(tiny_depth, device="cpu", dtype="bfloat16")
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for latent in pipe.denoise(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16), start, 2):
        assert latent.dtype == torch.float32
