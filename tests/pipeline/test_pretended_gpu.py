"""Every kind of run where CUDA would refuse operands on two devices, and what a program waits for is known."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marigold_core import CheckpointError, Prediction, Progress, Settings, SettingsError, load
from tests.helpers.families import as_lotus
from tests.helpers.pretended_gpu import GPU, pretended_gpu
from tests.pipeline.test_tiny_autoencoder import write_tiny

QUICK = Settings(num_inference_steps=2, processing_resolution=48, ensemble_size=3)
RUNS = {
    "tiny_depth": QUICK.changed(batch_size=2),
    "tiny_guided": QUICK,  # memory decides how many members go on at once
    "tiny_depth_lcm": QUICK.changed(ensemble_size=1),
    "tiny_normals": QUICK.changed(views="mirrored-rescaled"),
    "tiny_depth_leading": QUICK.changed(tiles_per_side=2, follow_outlines=True, ensemble_size=1),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    with pretended_gpu(monkeypatch) as waits:
        yield waits


def load_both(folder: Path, **options: Any) -> list[Any]:
    return [load(folder, device=device, dtype="float32", **options) for device in (str(GPU), "cpu")]


@pytest.mark.parametrize("checkpoint", RUNS)
def test_a_run_is_that_of_the_cpu(checkpoint: str, request: pytest.FixtureRequest, photo: Callable[..., Any]) -> None:
    folder = request.getfixturevalue(checkpoint)
    request.getfixturevalue("gpu")
    there, here = load_both(folder)
    found, expected = there(photo(), RUNS[checkpoint]), here(photo(), RUNS[checkpoint])
    assert found.device == "cuda" and found.machine.endswith("pretended")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3)


def test_half_precision_is_near_to_it(tiny_guided: Path, photo: Callable[..., Any], gpu: list[str]) -> None:
    half = load(tiny_guided, device=str(GPU), dtype="float16")(photo(), QUICK)
    expected = load(tiny_guided, device="cpu", dtype="float32")(photo(), QUICK)
    assert half.dtype == "float16" and np.abs(half.values - expected.values).mean() < 0.02


def test_one_step_of_a_task_is_that_of_the_cpu(
    tiny_depth: Path, tmp_path: Path, photo: Callable[..., Any], gpu: list[str]
) -> None:
    there, here = load_both(as_lotus(tiny_depth, tmp_path / "lotus-depth-d-v1-0", generative=False))
    settings = Settings(processing_resolution=48)
    np.testing.assert_allclose(there(photo(), settings).values, here(photo(), settings).values, atol=1e-4)


def test_comparisons_and_previews_are_those_of_the_cpu(
    tiny_depth: Path, tmp_path: Path, photo: Callable[..., Any], gpu: list[str]
) -> None:
    there, here = load_both(tiny_depth, tiny_autoencoder=str(write_tiny(tmp_path / "taesd")))
    made = [pipe.grid(photo(), steps=[1, 2], sizes=[1, 3], processing_resolution=48) for pipe in (there, here)]
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one.prediction.values, other.prediction.values, atol=1e-4)
    shown = [
        event for event in there.stream(photo(), QUICK.changed(decoder="preview")) if isinstance(event, Prediction)
    ]
    assert [one.preview for one in shown] == [True, False] * 3
    *_, longer = there.stream(photo(), QUICK.changed(ensemble_size=4), start=there(photo(), QUICK))
    np.testing.assert_allclose(longer.values, here(photo(), QUICK.changed(ensemble_size=4)).values, atol=5e-3)


@pytest.mark.parametrize("checkpoint", ["tiny_guided", "tiny_normals"])
def test_nothing_waits_between_the_photo_and_the_result(
    checkpoint: str, request: pytest.FixtureRequest, photo: Callable[..., Any]
) -> None:
    """Decoding a member, and denoising the next ones, are handed to the GPU while it is at work."""
    folder = request.getfixturevalue(checkpoint)
    waits: list[str] = request.getfixturevalue("gpu")
    pipe: Any = load(folder, device=str(GPU), dtype="float32")
    waited: list[int] = []
    for event in pipe._run(photo(), QUICK.changed(batch_size=1), None, every_member=False):
        waited.append(len(waits))
        waits.clear()
        assert isinstance(event, Prediction) or event == Progress(0, 1, "reading the photo") or event.total == 6
    upload, *between = waited[1:-1]
    assert upload == 1 and not any(between) and waited[-1] > 0


def test_what_is_not_finite_is_found_out_with_the_result(
    tiny_depth: Path, photo: Callable[..., Any], gpu: list[str]
) -> None:
    pipe: Any = load(tiny_depth, device=str(GPU), dtype="float32")
    pipe.unet.conv_out.bias.held[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        pipe(photo(), QUICK)


@pytest.mark.parametrize("works", [True, False])
def test_networks_are_compiled_where_it_pays(
    works: bool, tiny_depth: Path, photo: Callable[..., Any], gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def compile_one(network: torch.nn.Module, *, dynamic: bool) -> None:
        compiled.append(type(network).__name__)
        if not works:
            monkeypatch.setattr(network, "_compiled_call_impl", failing)

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\n(and so on)")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_one)
    with pytest.raises(SettingsError, match="pays on CUDA alone, and the device is cpu"):
        load(tiny_depth, device="cpu", compile=True)
    assert not load(tiny_depth, device=str(GPU), compile=False).compiled and not compiled
    monkeypatch.setenv("MARIGOLD_COMPILE", "true")
    for word in ("banana", "2", "yes"):
        monkeypatch.setenv("MARIGOLD_COMPILE", word)
        with pytest.raises(SettingsError, match=f"MARIGOLD_COMPILE must be 1, 0, true or false, but got '{word}'"):
            load(tiny_depth, device="cpu")
    for word in ("False", "0", "", "true"):
        monkeypatch.setenv("MARIGOLD_COMPILE", word)
        assert not load(tiny_depth, device="cpu").compiled and not compiled
    if not works:
        with pytest.raises(SettingsError, match=r"cannot compile the networks here \(no C\+\+ compiler\); leave"):
            load(tiny_depth, device=str(GPU))
        return
    found: Any = load(tiny_depth, device=str(GPU))(photo(), QUICK.changed(ensemble_size=1))
    assert compiled == ["UNet2DConditionModel", "Decoder"] and found.machine.endswith(", pretended, compiled")
