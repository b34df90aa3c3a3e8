"""The families with one step against their papers' formulas, written down here once more; there is no pipeline of them.

E2E-FT: Martin Garcia et al. 2024 (arXiv 2409.11355). Lotus: He et al. 2024 (arXiv 2409.18124). GenPercept: Xu et al.
2025 (arXiv 2403.06090).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from marigold_core import Settings, SettingsError, load
from marigold_core.pipeline.sampling import generator
from tests.helpers.damage import edit
from tests.helpers.families import as_e2e_ft, as_genpercept, as_lotus

pytestmark = pytest.mark.numeric

START, END, BANG = 512, 513, 0  # ids of the tiny tokenizer: begin and end of text, and the "!" that pads
NATIVE = Settings(processing_resolution=0)  # with a photo whose sides the autoencoder halves: nothing is resized


def reference(
    folder: Path, picture: np.ndarray, noise: torch.Tensor | None, *, lotus: bool = False, t: int = 999
) -> np.ndarray:
    """The decoded picture [3, H, W], about [-1, 1]; the network sees ``noise`` [1, 4, h, w] beside the photo."""
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True)
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    tokens = torch.tensor([[START, END, *([BANG] * 75 if lotus else [])]])
    with torch.inference_mode():
        x = torch.tensor(picture).permute(2, 0, 1)[None] / 127.5 - 1
        latent = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
        seen = latent if noise is None else torch.cat([latent, noise], dim=1)
        task = torch.tensor([[np.sin(1), np.sin(0), np.cos(1), np.cos(0)]], dtype=torch.float32) if lotus else None
        output = unet(seen, t, encoder_hidden_states=text(tokens).last_hidden_state, class_labels=task).sample
        if t == 1:  # GenPercept
            output = -output
        elif not lotus:  # v-prediction of zero noise: x_0 = sqrt(a) 0 - sqrt(1 - a) v
            betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
            output = -float(np.sqrt(1 - np.prod(1 - betas))) * output
        return vae.decode(output / vae.config.scaling_factor).sample[0].numpy()


def depth_of(decoded: np.ndarray) -> np.ndarray:
    return (decoded.mean(axis=0).clip(-1, 1) + 1) / 2


def normals_of(decoded: np.ndarray) -> np.ndarray:
    """X left in the picture, and here to the right; unit length."""
    vectors = decoded.clip(-1, 1).transpose(1, 2, 0) * (-1, 1, 1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("start", ["marigold", "stable-diffusion"])
def test_e2e_ft_depth(tiny_depth_leading, photo, tmp_path, start):
    folder = as_e2e_ft(tiny_depth_leading, tmp_path / f"{start}-e2e-ft-depth")
    found: Any = load(folder, device="cpu")(photo(48, 64), NATIVE)
    decoded = reference(folder, photo(48, 64), torch.zeros(1, 4, 6, 8))
    np.testing.assert_allclose(found.values, depth_of(decoded), atol=1e-4)
    assert (found.modality, found.space, found.settings.num_inference_steps) == ("depth", "depth", 1)


def test_e2e_ft_normals(tiny_normals, photo, tmp_path):
    folder = as_e2e_ft(tiny_normals, tmp_path / "marigold-e2e-ft-normals")
    found = load(folder, device="cpu")(photo(48, 64), NATIVE).values
    decoded = reference(folder, photo(48, 64), torch.zeros(1, 4, 6, 8))
    np.testing.assert_allclose(found, normals_of(decoded), atol=1e-3)  # unit length magnifies rounding


@pytest.mark.parametrize("generative", [True, False])
@pytest.mark.parametrize("name", ["lotus-depth-{}-v1-0", "lotus-depth-{}-v2-1-disparity", "lotus-normal-{}-v1-1"])
def test_lotus(tiny_depth, photo, tmp_path, name, generative):
    folder = as_lotus(tiny_depth, tmp_path / name.format("g" if generative else "d"), generative=generative)
    noise = torch.randn(1, 4, 6, 8, generator=generator(7, 0)) if generative else None
    decoded = reference(folder, photo(48, 64), noise, lotus=True)
    found = load(folder, device="cpu")(photo(48, 64), NATIVE.changed(seed=7))
    if "normal" in name:
        np.testing.assert_allclose(found.values, normals_of(decoded), atol=1e-3)
    else:
        far_is_dark = "disparity" in name
        expected = 1 - depth_of(decoded) if far_is_dark else depth_of(decoded)
        np.testing.assert_allclose(found.values, expected, atol=1e-4)
        assert found.space == ("disparity" if far_is_dark else "depth")


@pytest.mark.parametrize("quantity", ["depth", "disparity"])
def test_genpercept(tiny_depth, photo, tmp_path, quantity):
    folder = as_genpercept(tiny_depth, tmp_path / "composed")
    edit(folder / "model_index.json", prediction_type=quantity)
    expected = depth_of(reference(folder, photo(48, 64), None, t=1))
    found = load(folder, device="cpu")(photo(48, 64), NATIVE).values
    np.testing.assert_allclose(found, 1 - expected if quantity == "disparity" else expected, atol=1e-4)


def test_members_of_a_generative_one_differ_and_of_a_deterministic_one_only_by_their_view(
    tiny_depth, tiny_depth_leading, photo, tmp_path
):
    three = NATIVE.changed(ensemble_size=3)
    lotus_g: Any = load(as_lotus(tiny_depth, tmp_path / "lotus-depth-g-v1-0", generative=True), device="cpu")
    found = lotus_g(photo(48, 64), three)
    assert found.uncertainty.max() > 0 and not np.array_equal(found.members[0], found.members[1])

    for folder in (
        as_lotus(tiny_depth, tmp_path / "lotus-depth-d-v1-0", generative=False),
        as_e2e_ft(tiny_depth_leading, tmp_path / "marigold-e2e-ft-depth"),
    ):
        pipe: Any = load(folder, device="cpu")
        one, other = (pipe(photo(48, 64), NATIVE.changed(seed=seed)) for seed in (0, 1))
        assert np.array_equal(one.values, other.values) and one.uncertainty is None
        assert torch.equal(pipe.member_noise(photo(48, 64), NATIVE, 0), torch.zeros(1, 4, 6, 8))
        views = pipe(photo(48, 64), three.changed(views="mirrored-rescaled"))
        assert np.array_equal(views.members[0], one.members[0]) and views.uncertainty.max() > 0
        with pytest.raises(
            SettingsError, match="is deterministic.* at most 1, not 3; mirrored makes 2; mirrored-rescaled"
        ):
            pipe(photo(48, 64), three)
        with pytest.raises(SettingsError, match="at most 6, not 7"):
            pipe(photo(48, 64), Settings(ensemble_size=7, views="mirrored-rescaled"))
    for checkpoint in (lotus_g, pipe):
        with pytest.raises(SettingsError, match="predicts in one step: ask for 1 denoising step, not 4"):
            checkpoint(photo(48, 64), Settings(num_inference_steps=4))
