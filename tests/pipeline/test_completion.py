"""Completion: the denoising follows known depths, where a fit of the finished map cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from marigold_core import Anchor, CalibrationError, CheckpointError, Hints, Settings, SettingsError, calibrate, load
from marigold_core.calibration.anchors import Length
from marigold_core.calibration.calibrate import Completed
from marigold_core.files import examples
from marigold_core.images.photo import load_photo
from marigold_core.pipeline.completion import guided
from tests.helpers.damage import edit
from tests.helpers.families import as_e2e_ft

pytestmark = pytest.mark.numeric

QUICK: dict[str, Any] = {"num_inference_steps": 3, "processing_resolution": 48}
TWO = (Anchor(3, 4, 1.0), Anchor(60, 40, 5.0))


def hints_at(*anchors: Anchor, **others: Any) -> Hints:
    return Hints(anchors, method="completion", **others)


@pytest.fixture(scope="module")
def pipe(tiny_depth):
    return load(tiny_depth, device="cpu", dtype="float32")


def test_between_known_depths_it_is_nearer_to_the_truth_than_a_fit():
    nano, picture = load("nano", dtype="float32"), load_photo(examples.photos()[0]).pixels
    small: dict[str, Any] = {"processing_resolution": 96}
    relative = nano(picture, Settings(num_inference_steps=4, **small))
    rows, columns = np.mgrid[0 : 1 : relative.values.shape[0] * 1j, 0 : 1 : relative.values.shape[1] * 1j]
    truth = 2 + 6 * relative.values + 3 * np.sin(3 * columns) * rows  # bent, so that no scale and shift lead to it
    height, width = truth.shape
    places = np.random.default_rng(0).integers(0, (height, width), (40, 2))
    anchors = [Anchor(float(x), float(y), float(truth[y, x])) for y, x in places]
    found = nano.complete(picture, hints_at(*anchors), Settings(num_inference_steps=10, **small)).values
    fitted = calibrate(relative, Hints(anchors)).values
    assert np.abs(found - truth).mean() < 0.7 * np.abs(fitted - truth).mean()


def test_it_takes_the_steps_of_the_paper():
    """Of Marigold-DC, written down anew: Adam on latent, scale and shift, and DDIM with the same velocity."""
    torch.manual_seed(0)
    weight = torch.randn(4, 4)
    config: dict[str, Any] = {"prediction_type": "v_prediction", "clip_sample": False, "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler(**config, rescale_betas_zero_snr=True)
    scheduler.set_timesteps(4)
    at, metres = torch.tensor([[-0.7, -0.6], [0.1, 0.2], [0.8, 0.5]]), torch.tensor([1.0, 4.0, 2.0])

    def velocity(latent: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ij,bjhw->bihw", weight, latent).tanh() + t / 1000

    def read(clean: torch.Tensor) -> torch.Tensor:
        return clean.mean(dim=1, keepdim=True).sigmoid()

    start = torch.randn(1, 4, 6, 8)
    steps = guided(start, at, metres, scheduler, velocity, read)
    for _ in range(4):
        next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)

    z, roots, clean = start.clone(), torch.ones(2), start
    firsts = [torch.zeros_like(z), torch.zeros(2)]
    seconds = [torch.zeros_like(z), torch.zeros(2)]
    for number, t in enumerate(scheduler.timesteps, start=1):
        z.requires_grad_()
        roots.requires_grad_()
        alpha = scheduler.alphas_cumprod[t]
        v = velocity(z, t)
        relative = read(alpha.sqrt() * z - (1 - alpha).sqrt() * v)
        depth = roots[0] ** 2 * 3.0 * relative + roots[1] ** 2 * 1.0
        sampled = torch.nn.functional.grid_sample(depth, at[None, None], align_corners=False, padding_mode="border")
        off = sampled.flatten() - metres
        loss = off.abs().mean() + off.square().mean()
        gradients = list(torch.autograd.grad(loss, (z, roots)))
        z, roots, v = z.detach(), roots.detach(), v.detach()
        noise = alpha.sqrt() * v + (1 - alpha).sqrt() * z
        gradients[0] *= noise.norm() / gradients[0].norm()
        for place, (rate, gradient) in enumerate(zip((0.05, 0.005), gradients, strict=True)):
            firsts[place] = 0.9 * firsts[place] + 0.1 * gradient
            seconds[place] = 0.999 * seconds[place] + 0.001 * gradient**2
            size = (seconds[place] / (1 - 0.999**number)).sqrt() + 1e-8
            (z, roots)[place].sub_(rate * firsts[place] / (1 - 0.9**number) / size)
        clean = alpha.sqrt() * z - (1 - alpha).sqrt() * v
        noise = alpha.sqrt() * v + (1 - alpha).sqrt() * z
        before = t - 1000 // 4
        kept = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
        z = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    expected = roots[0] ** 2 * 3.0 * read(clean) + roots[1] ** 2
    torch.testing.assert_close(end.value.value, expected, rtol=1e-4, atol=1e-4)


def test_the_result_is_metres_and_says_how(pipe, picture):
    found = pipe.complete(picture, hints_at(*TWO), Settings(**QUICK, ensemble_size=3))
    assert isinstance(found, Completed) and (found.kind, found.space) == ("metric", "depth")
    assert found.values.shape == picture.shape[:2] and np.isfinite(found.values).all()
    assert found.uncertainty is not None and found.uncertainty.max() > 0
    assert [one.given for one in found.residuals] == [1.0, 5.0]
    assert [one.found for one in found.residuals] == [found.values[4, 3], found.values[40, 60]]
    assert [one.found for one in found.residuals] == pytest.approx([1.0, 5.0], rel=0.05)
    assert found.how == "denoising guided by depth at (3, 4), depth at (60, 40)"
    again = pipe.complete(picture, hints_at(*TWO), Settings(**QUICK, ensemble_size=3))
    assert np.array_equal(found.values, again.values)
    assert all(weights.grad is None for weights in pipe.unet.parameters())


def test_known_depths_guide_whatever_their_method_and_the_result_says_so(pipe, picture):
    """A replay takes the method of the hints that a result holds."""
    found = pipe.complete(picture, Hints(TWO), Settings(**QUICK))
    assert found.hints == hints_at(*TWO)
    assert np.array_equal(found.values, pipe.complete(picture, hints_at(*TWO), Settings(**QUICK)).values)


def test_it_takes_fifty_steps_unless_told_otherwise(pipe):
    assert pipe.resolve(None, hints_at(*TWO)).num_inference_steps == 50
    assert pipe.resolve(Settings(num_inference_steps=7), hints_at(*TWO)).num_inference_steps == 7
    assert pipe.resolve(None, Hints(TWO)).num_inference_steps == pipe.resolve(None).num_inference_steps


def test_each_step_is_told_and_it_stops_between_two(pipe, picture):
    events = pipe.stream(picture, Settings(**QUICK, ensemble_size=2), hints=hints_at(*TWO))
    told = [next(events) for _ in range(3)]
    assert [event.stage for event in told] == [
        "reading the photo",
        "member 1 of 2, step 1 of 3",
        "member 1 of 2, step 2 of 3",
    ]
    events.close()
    assert pipe(picture, Settings(**QUICK)).kind == "affine"


def test_large_networks_compute_again_what_they_need_and_find_the_same(pipe, picture, monkeypatch):
    plain = pipe.complete(picture, hints_at(*TWO), Settings(**QUICK)).values
    monkeypatch.setattr("marigold_core.pipeline.pipeline.RECOMPUTED_FROM", 0)
    again = pipe.complete(picture, hints_at(*TWO), Settings(**QUICK)).values
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-4)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in pipe.unet.modules())


def test_a_depth_along_the_ray_is_brought_to_the_axis(pipe, picture):
    corner = Anchor(0, 0, 2.0, "ray")
    found = pipe.complete(picture, hints_at(corner, TWO[1], fov_x_deg=90), Settings(**QUICK))
    tangent = np.hypot(1 - 1 / 70, (25 - 0.5) / 35)  # of the angle of the first pixel's middle, at 90 degrees
    assert found.residuals[0].given == pytest.approx(2 / np.hypot(1, tangent), rel=1e-5)


@pytest.mark.parametrize(
    ("hints", "sentence"),
    [
        (hints_at(TWO[0]), "at least two known depths that differ"),
        (hints_at(TWO[0], replace(TWO[0], metres=2.0)), "contradict each other, 1 and 2 m"),
        (hints_at(TWO[0], replace(TWO[0], x=30)), "at least two known depths that differ"),
        (hints_at(*TWO, lengths=[Length(1, 1, 9, 9, 2)]), "known depths alone"),
        (hints_at(*TWO, near_m=2.0), "known depths alone"),
        (hints_at(TWO[0], Anchor(99, 4, 3.0)), "outside the photo"),
        (hints_at(TWO[0], Anchor(9, 4, -3.0)), "above 0"),
    ],
)
def test_hints_that_cannot_guide_are_refused(pipe, picture, hints, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        pipe.complete(picture, hints, Settings(**QUICK))


def test_a_finished_map_cannot_be_completed(pipe, picture):
    with pytest.raises(CalibrationError, match="cannot start from a finished depth map"):
        calibrate(pipe(picture, Settings(**QUICK)), hints_at(*TWO))


@pytest.mark.parametrize("settings", [{"views": "mirrored"}, {"follow_outlines": True}, {"tiles_per_side": 2}])
def test_settings_that_mean_nothing_here_are_refused(pipe, picture, settings):
    with pytest.raises(SettingsError, match="sees the photo as it is"):
        pipe.complete(picture, hints_at(*TWO), Settings(**QUICK, **settings))


def test_checkpoints_that_cannot_be_guided_are_refused(
    tiny_depth_lcm, tiny_normals, tiny_depth, tmp_path: Path, picture
):
    one_step = as_e2e_ft(tiny_depth, tmp_path / "one_step")
    edit(one_step / "model_index.json", prediction_type="depth")
    for folder in (tiny_depth_lcm, tiny_normals, one_step):
        with pytest.raises(CheckpointError, match="cannot be guided by known depths"):
            load(folder, dtype="float32").complete(picture, hints_at(*TWO))
    with pytest.raises(SettingsError, match="overflow in float16"):
        load(tiny_depth, dtype="float16").complete(picture, hints_at(*TWO))
