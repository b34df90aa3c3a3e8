"""Random checkpoints open in diffusers, have the published shapes and give maps that are not flat."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MarigoldDepthPipeline, MarigoldNormalsPipeline

from marigold_core.checkpoints import find
from training.shapes import SHAPES
from training.start import main, new_checkpoint, new_scheduler, new_unet, new_vae


def run_diffusers(pipeline_class, folder: Path, picture: np.ndarray) -> np.ndarray:
    pipeline = pipeline_class.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.tokenizer("", return_tensors="pt").input_ids.shape == (1, 2)
    return pipeline(picture, generator=torch.manual_seed(0)).prediction[0]


@pytest.mark.parametrize("name", ["tiny_depth", "tiny_depth_leading", "tiny_depth_lcm"])
def test_depth_opens_in_diffusers_and_varies(name: str, request: pytest.FixtureRequest, photo) -> None:
    depth = run_diffusers(MarigoldDepthPipeline, request.getfixturevalue(name), photo(48, 64))
    assert depth.shape == (48, 64, 1) and depth.std() > 0.01
    assert np.mean((depth > 0) & (depth < 1)) > 0.9  # not saturated: parity tests compare real numbers


def test_normals_open_in_diffusers_and_vary(tiny_normals: Path, photo) -> None:
    normals = run_diffusers(MarigoldNormalsPipeline, tiny_normals, photo(48, 64))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)
    assert normals.std() > 0.1


def test_same_seed_same_bytes_and_callers_state_untouched(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = (new_checkpoint(tmp_path / str(i), "tiny", seed=i // 2) for i in range(3))
    torch.testing.assert_close(torch.rand(2), expected)
    assert torch.get_default_dtype() == torch.float32
    assert find(first).sha256 == find(second).sha256 != find(other).sha256


def test_half_precision_is_written_directly(tmp_path: Path) -> None:
    full, half = (new_checkpoint(tmp_path / str(d), "tiny", dtype=d) for d in (torch.float32, torch.bfloat16))
    assert 0.45 < find(half).size_bytes / find(full).size_bytes < 0.6


def test_shapes() -> None:
    with torch.device("meta"):
        count = {
            name: tuple(sum(p.numel() for p in model.parameters()) for model in (new_unet(shape), new_vae(shape)))
            for name, shape in SHAPES.items()
        }
    assert count["public"] == (865_922_244, 83_653_863)  # Stable Diffusion 2, with 8 input channels
    assert count["tiny"][0] + count["tiny"][1] < 400_000
    assert SHAPES["public"].factor == SHAPES["tiny"].factor == 8


def test_schedules() -> None:
    trailing, leading, lcm = (new_scheduler(*o) for o in (("ddim", "trailing"), ("ddim", "leading"), ("lcm",)))
    assert isinstance(trailing, DDIMScheduler)
    for scheduler, expected in (
        (trailing, [999, 749, 499, 249]),
        (leading, [751, 501, 251, 1]),
        (lcm, [999, 759, 499, 259]),
    ):
        scheduler.set_timesteps(4)
        assert scheduler.timesteps.tolist() == expected
    assert trailing.alphas_cumprod[-1] == pytest.approx(0, abs=1e-9)
    assert float(leading.alphas_cumprod[-1]) == pytest.approx(0.004660, abs=1e-6)
    assert float(trailing.alphas_cumprod[499]) == pytest.approx(0.242359, abs=1e-6)


def test_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["start", "--shape", "tiny", "--out", str(tmp_path / "new"), "--dtype", "bfloat16", "--modality", "normals"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert "MB of random weights" in capsys.readouterr().out
    assert find(tmp_path / "new").modality == "normals"
