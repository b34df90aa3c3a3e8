"""Which type the weights have where nobody names one, and in which layout they lie."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marigold_core import Settings, SettingsError, load
from marigold_core.pipeline import loading
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


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("bfloat16", torch.channels_last), ("float16", torch.channels_last), ("float32", torch.contiguous_format)],
)
def test_the_type_alone_decides_the_layout(dtype: str, layout: torch.memory_format, tiny_depth: Path) -> None:
    """Each rounds differently, so that one chosen by timing would give a replay other bytes."""
    pipe: Any = load(tiny_depth, device="cpu", dtype=dtype)
    assert pipe.vae.decoder.conv_in.weight.is_contiguous(memory_format=layout)


def test_weights_with_copies_do_not_stay_in_memory_twice(
    tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_bfloat16_instructions", lambda: ["avx512_bf16"])
    pipe = load(shutil.copytree(tiny_depth, tmp_path / "copied"), device="cpu", dtype="bfloat16")
    maps = Path("/proc/self/maps")  # of Linux
    assert str(tmp_path / "copied") not in (maps.read_text(encoding="utf-8") if maps.exists() else "")
    assert pipe.vae.dtype == pipe.unet.dtype == torch.bfloat16


@pytest.mark.parametrize("checkpoint", ["tiny_depth", "tiny_guided", "tiny_normals"])
def test_the_layout_changes_rounding_alone(
    checkpoint: str, request: pytest.FixtureRequest, photo: Callable[..., np.ndarray]
) -> None:
    settings, folder = Settings(num_inference_steps=2, processing_resolution=64), request.getfixturevalue(checkpoint)
    pipe: Any = load(folder, device="cpu", dtype="float32")
    contiguous = pipe(photo(), settings).values
    pipe.vae.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(pipe(photo(), settings).values, contiguous, atol=1e-4)


def test_latents_are_precise_between_steps(tiny_depth: Path) -> None:
    pipe = load(tiny_depth, device="cpu", dtype="bfloat16")
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for latent in pipe.denoise(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16), start, 2):
        assert latent.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loading_never_changes_what_other_threads_make_tensors_in(
    dtype: str, tiny_depth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, change = set[torch.dtype](), torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda to: (changes.add(to), change(to)))
    pipe = load(tiny_depth, device="cpu", dtype=dtype)
    assert changes <= {torch.float32}
    weights = [*pipe.unet.state_dict().values(), *pipe.vae.state_dict().values(), pipe.prompt]
    assert {one.dtype for one in weights} == {getattr(torch, dtype)}
