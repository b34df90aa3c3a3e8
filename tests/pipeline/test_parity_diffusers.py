"""Our pipeline against diffusers' own Marigold pipelines: same folder, same noise, same numbers."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline
from diffusers.utils import logging
from PIL import Image

from marigold_core import Settings, load
from marigold_core.images.colormaps import layer_to_rgb
from marigold_core.pipeline.sampling import generator
from training.start import prepare_start

pytestmark = pytest.mark.numeric

# (height, width, steps, processing resolution)
CASES = [
    (48, 64, 1, 0),
    (48, 64, 4, 32),
    (50, 71, 2, 0),
    (50, 71, 4, 64),
    (123, 77, 1, 96),
    (123, 77, 4, 0),
    (40, 40, 2, 64),
    (40, 40, 10, 32),
    (33, 200, 1, 0),
    (33, 200, 4, 64),
    (64, 48, 3, 48),
    (17, 16, 1, 0),
    (100, 150, 2, None),
]


@pytest.fixture(scope="module")
def opened():
    """Each folder opened once in ours (with diffusers' endings) and in diffusers."""
    kept = {}

    def open_both(folder: Path, oracle_class=MarigoldDepthPipeline):
        if folder not in kept:
            ours = load(folder, device="cpu", dtype="float32")
            ours.final_clean = ours.respace = False
            oracle = oracle_class.from_pretrained(folder, use_safetensors=True)
            oracle.set_progress_bar_config(disable=True)
            kept[folder] = ours, oracle
        return kept[folder]

    return open_both


def run_both(pair: tuple[Any, Any], picture, steps, resolution, seed=3):
    ours, oracle = pair
    prediction = ours(picture, Settings(num_inference_steps=steps, processing_resolution=resolution, seed=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = oracle(
            Image.fromarray(picture),
            num_inference_steps=steps,
            processing_resolution=resolution,
            generator=[generator(seed, 0)],
        ).prediction
    return prediction.values, np.squeeze(expected)


@pytest.mark.parametrize(("height", "width", "steps", "resolution"), CASES)
def test_depth_equals_diffusers(opened, tiny_depth, photo, height, width, steps, resolution):
    ours, expected = run_both(opened(tiny_depth), photo(height, width), steps, resolution)
    assert ours.shape == (height, width) and expected.std() > 0.01
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_what_diffusers_shows_of_a_root_curve_is_the_root_of_depth(opened, tiny_depth, photo, tmp_path):
    folder = prepare_start(tiny_depth, tmp_path / "root", depth_curve="root")
    ours, painted = run_both(opened(folder), photo(48, 64), 4, 0)  # nothing is resized, which would not commute
    np.testing.assert_allclose(ours, painted**2, atol=2e-4)


@pytest.mark.parametrize(
    ("height", "width", "steps", "resolution"), [(50, 71, 1, 0), (48, 64, 4, 32), (40, 40, 10, 64)]
)
def test_leading_spacing_equals_diffusers(opened, tiny_depth_leading, photo, height, width, steps, resolution):
    ours, expected = run_both(opened(tiny_depth_leading), photo(height, width), steps, resolution)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "steps", "resolution"), [(50, 71, 1, 0), (48, 64, 2, 64), (33, 200, 4, 64)]
)
def test_lcm_equals_diffusers_with_its_injected_noise(opened, tiny_depth_lcm, photo, height, width, steps, resolution):
    ours, expected = run_both(opened(tiny_depth_lcm), photo(height, width), steps, resolution)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "steps", "resolution"), [(50, 71, 1, 0), (48, 64, 4, 32), (123, 77, 2, 64)]
)
def test_normals_equal_diffusers(opened, tiny_normals, photo, height, width, steps, resolution):
    ours, expected = run_both(opened(tiny_normals, MarigoldNormalsPipeline), photo(height, width), steps, resolution)
    assert ours.shape == (height, width, 3)
    np.testing.assert_allclose(ours, expected, atol=1e-3)  # unit length magnifies the rounding of short vectors


@pytest.fixture
def untold():
    """Keep diffusers from telling which weights and settings it leaves out."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@pytest.mark.parametrize(("height", "width", "steps", "resolution"), [(50, 71, 2, 0), (33, 200, 1, 64)])
def test_diffusers_leaves_an_image_prior_out(
    opened, tiny_guided, photo, untold, monkeypatch, height, width, steps, resolution
):
    ours, oracle = opened(tiny_guided)
    picture = photo(height, width)
    heeding, expected = run_both((ours, oracle), picture, steps, resolution)
    assert np.abs(heeding - expected).mean() > 1e-3
    monkeypatch.setattr(ours, "prior", None)
    without, expected = run_both((ours, oracle), picture, steps, resolution)
    np.testing.assert_allclose(without, expected, atol=1e-4)


def test_a_normals_ensemble_equals_diffusers(opened, tiny_normals, photo):
    ours, oracle = opened(tiny_normals, MarigoldNormalsPipeline)
    picture = photo(40, 56)
    prediction = ours(picture, Settings(num_inference_steps=2, processing_resolution=0, ensemble_size=4, batch_size=1))
    expected = oracle(
        Image.fromarray(picture),
        num_inference_steps=2,
        processing_resolution=0,
        ensemble_size=4,
        batch_size=1,
        latents=torch.cat([ours.member_noise(picture, Settings(processing_resolution=0), k) for k in range(4)]),
        output_uncertainty=True,
    )
    np.testing.assert_allclose(prediction.values, np.squeeze(expected.prediction), atol=1e-3)
    np.testing.assert_allclose(prediction.uncertainty, np.squeeze(expected.uncertainty), atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "steps", "resolution"), [(50, 71, 1, 0), (48, 64, 4, 32), (33, 200, 1, 64)]
)
def test_intrinsics_equal_diffusers(opened, tiny_intrinsics, photo, height, width, steps, resolution):
    pair = opened(tiny_intrinsics, MarigoldIntrinsicsPipeline)
    ours, expected = run_both(pair, photo(height, width), steps, resolution)
    used = expected.transpose(1, 2, 0, 3).reshape(height, width, -1)[..., : ours.shape[-1]]  # the last may be unused
    assert ours.shape[-1] == (5 if len(expected) == 2 else 9) and used.std() > 0.01
    np.testing.assert_allclose(ours, used, atol=1e-4)


@pytest.mark.parametrize(("members", "steps"), [(3, 1), (5, 4), (4, 4)])
def test_an_ensemble_of_intrinsics_is_the_median_of_diffusers(opened, tiny_intrinsics, photo, members, steps):
    ours, oracle = opened(tiny_intrinsics, MarigoldIntrinsicsPipeline)
    picture, settings = photo(40, 56), Settings(num_inference_steps=steps, processing_resolution=0)
    found = ours(picture, settings.changed(ensemble_size=members))
    options: Any = {"num_inference_steps": steps, "processing_resolution": 0, "ensemble_size": members}
    noise = torch.cat([ours.member_noise(picture, settings, k) for k in range(members)])
    expected = oracle(Image.fromarray(picture), latents=noise, output_uncertainty=True, **options)
    channels = found.values.shape[-1]

    def planes(targets: np.ndarray) -> np.ndarray:
        return targets.transpose(1, 2, 0, 3).reshape(40, 56, -1)[..., :channels]

    if members % 2:
        np.testing.assert_allclose(found.values, planes(expected.prediction), atol=1e-4)
    else:  # diffusers takes the lower of the middle two, we take their mean
        assert (found.values >= planes(expected.prediction) - 1e-4).all()
    singly = [oracle(Image.fromarray(picture), latents=one[None], **{**options, "ensemble_size": 1}) for one in noise]
    stack = np.stack([planes(one.prediction) for one in singly])
    np.testing.assert_allclose(found.values, np.median(stack, axis=0), atol=1e-4)
    np.testing.assert_allclose(found.members.astype(np.float32), stack, atol=6e-4)  # kept as float16
    assert found.uncertainty.shape == (40, 56) and found.uncertainty.max() > 0


def test_layers_look_as_in_diffusers(opened, tiny_intrinsics, photo):
    ours, oracle = opened(tiny_intrinsics, MarigoldIntrinsicsPipeline)
    picture = photo(40, 56)
    found = ours(picture, Settings(num_inference_steps=1, processing_resolution=0))
    targets = oracle(
        Image.fromarray(picture), num_inference_steps=1, processing_resolution=0, generator=[generator(0, 0)]
    )
    shown = oracle.image_processor.visualize_intrinsics(targets.prediction, oracle.target_properties)[0]
    for layer in found.layers:
        if layer.in_colour:  # where it has none, diffusers inverts it
            looks = layer_to_rgb(found.layer(layer.name), layer).astype(int)
            # it takes a power of 1 / 2.2 for sRGB's curve, which is up to 9 levels off where it is nearly black
            assert np.abs(looks - np.asarray(shown[layer.name])).max() <= 9, layer.name


def test_member_noise_reproduces_a_member_in_diffusers(opened, tiny_depth, photo):
    ours, oracle = opened(tiny_depth)
    picture, settings = photo(48, 64), Settings(num_inference_steps=2, processing_resolution=0, ensemble_size=3, seed=9)
    members = ours(picture, settings).members
    for k in range(3):
        expected = oracle(
            Image.fromarray(picture),
            num_inference_steps=2,
            processing_resolution=0,
            latents=ours.member_noise(picture, settings, k),
        ).prediction
        np.testing.assert_allclose(members[k].astype(np.float32), np.squeeze(expected), atol=6e-4)  # kept as float16


def test_the_stored_scheduler_trains_as_the_official_one(tiny_depth):
    ours: Any = load(tiny_depth, device="cpu").scheduler
    official: Any = DDPMScheduler.from_config(ours.config)
    clean, noise = torch.randn(2, 2, 4, 6, 8).unbind()
    for t in (torch.tensor([3, 999]), torch.tensor([0, 500])):
        assert torch.equal(ours.add_noise(clean, noise, t), official.add_noise(clean, noise, t))
        assert torch.equal(ours.get_velocity(clean, noise, t), official.get_velocity(clean, noise, t))
    assert ours.alphas_cumprod[999] == 0
    torch.testing.assert_close(ours.get_velocity(clean, noise, torch.tensor([999, 999])), -clean)
