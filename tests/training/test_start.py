"""What training begins with: random checkpoints, widened Stable Diffusion folders, other checkpoints, and refusals."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    MarigoldDepthPipeline,
    MarigoldNormalsPipeline,
    PNDMScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file

from marigold_core import load
from marigold_core.checkpoints.registry import BUNDLED, find
from marigold_core.errors import CheckpointError, ExportError
from marigold_core.pipeline.modalities import Depth
from tests.helpers.command_line import fingerprints
from tests.helpers.damage import DISK_FULL, edit, failing, refusal
from tests.helpers.displacement import with_displacement
from tests.helpers.draft import with_draft
from training.models.networks import SHAPES, new_checkpoint, new_scheduler, new_unet, new_vae
from training.publish import publish
from training.start import prepare_start

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
UNET = "unet/diffusion_pytorch_model.safetensors"


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
    trailing, leading, lcm = new_scheduler("ddim", "trailing"), new_scheduler("ddim", "leading"), new_scheduler("lcm")
    assert isinstance(trailing, DDIMScheduler)
    for scheduler, expected in (
        (trailing, [999, 749, 499, 249]),
        (leading, [751, 501, 251, 1]),
        (lcm, [999, 759, 499, 259]),
    ):
        scheduler.set_timesteps(4)
        assert scheduler.timesteps.tolist() == expected
    assert trailing.alphas_cumprod[-1] == pytest.approx(0, abs=1e-9)
    assert float(leading.alphas_cumprod[-1]) == pytest.approx(0.004660, abs=1e-5)
    assert float(trailing.alphas_cumprod[499]) == pytest.approx(0.242359, abs=1e-5)


# ------------------------------------------------------------------------------- Stable Diffusion


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Stable Diffusion 2's, tiny: four input channels, PNDM, parts that Marigold has not.

    The first layer's weights are multiples of 1/64, so that sums of whole numbers times them are exact.
    """
    folder = new_checkpoint(tmp_path_factory.mktemp("models") / "sd2", "tiny")
    config: Any = UNet2DConditionModel.load_config(folder / "unet")
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel.from_config({**config, "in_channels": 4, "sample_size": 12})
    with torch.no_grad():
        unet.conv_in.weight.copy_((unet.conv_in.weight * 64).round() / 64)
        unet.conv_in.bias.copy_((unet.conv_in.bias * 64).round() / 64)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    PNDMScheduler(**BETAS, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    parts = {part: index[part] for part in ("unet", "vae", "text_encoder", "tokenizer")}
    others = {"scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **parts, **others}))
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    (folder / "checksums.json").unlink()
    return folder


@pytest.fixture
def stable_diffusion(model: Path, tmp_path: Path) -> Path:
    """A copy of the folder for one test to spoil."""
    return shutil.copytree(model, tmp_path / "models" / "sd2")


def first_layer(folder: Path) -> torch.nn.Conv2d:
    return UNet2DConditionModel.from_pretrained(folder / "unet").conv_in


def test_the_widened_first_layer_answers_exactly_as_the_old_one(stable_diffusion: Path, tmp_path: Path) -> None:
    old = first_layer(stable_diffusion)
    new = first_layer(prepare_start(stable_diffusion, tmp_path / "start"))
    x = torch.randint(-8, 9, (2, 4, 12, 10), generator=torch.manual_seed(1)).float()
    assert old(x).std() > 0.1
    assert torch.equal(new(torch.cat([x, x], dim=1)), old(x))
    assert new.bias is not None and old.bias is not None
    assert torch.equal(new.bias, old.bias)
    assert torch.equal(new.weight[:, :4], new.weight[:, 4:])
    apart = (
        new(torch.cat([x, torch.zeros_like(x)], 1))
        + new(torch.cat([torch.zeros_like(x), x], 1))
        - new.bias.view(1, -1, 1, 1)
    )
    assert torch.equal(apart, old(x))


def test_everything_but_the_first_layer_is_kept_and_the_source_untouched(
    stable_diffusion: Path, tmp_path: Path
) -> None:
    before = fingerprints(stable_diffusion)
    start = prepare_start(stable_diffusion, tmp_path / "start")
    assert fingerprints(stable_diffusion) == before
    old, new = load_file(stable_diffusion / UNET), load_file(start / UNET)
    assert old.keys() == new.keys()
    assert [name for name in old if not torch.equal(old[name], new[name])] == ["conv_in.weight"]
    for name in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (start / name).samefile(stable_diffusion / name)
    after = fingerprints(start)
    assert all(after[name] == before[name] for name in before if name.startswith(("tokenizer", "vae", "text_encoder")))
    assert not (start / "feature_extractor").exists()


def test_a_widened_folder_opens_here_and_in_diffusers(stable_diffusion: Path, tmp_path: Path, photo) -> None:
    start = prepare_start(stable_diffusion, tmp_path / "start", noise_schedule="v1-1")
    found = find(start)
    assert (found.modality, found.kind, found.default_steps, found.default_resolution) == ("depth", "affine", 4, 96)
    assert json.loads((start / "unet" / "config.json").read_text())["in_channels"] == 8
    assert load(start, device="cpu")(photo(48, 64)).values.std() > 0.01
    assert run_diffusers(MarigoldDepthPipeline, start, photo(48, 64)).std() > 0.01


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler, DDIMScheduler])
@pytest.mark.parametrize("choice", ["start", "v1-0", "v1-1"])
def test_every_sampler_becomes_ddim_with_the_chosen_schedule(
    kind: type, choice, stable_diffusion: Path, tmp_path: Path
) -> None:
    """Numbers: betas of Stable Diffusion 2, plain and rescaled to zero terminal SNR."""
    for path in (stable_diffusion / "scheduler").iterdir():
        path.unlink()
    kind(**BETAS).save_pretrained(stable_diffusion / "scheduler")
    edit(stable_diffusion / "model_index.json", scheduler=["diffusers", kind.__name__])
    scheduler = load(prepare_start(stable_diffusion, tmp_path / "start", noise_schedule=choice), device="cpu").scheduler
    assert isinstance(scheduler, DDIMScheduler)
    kept = {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, "prediction_type": "v_prediction"}
    assert {name: scheduler.config[name] for name in kept} == kept
    plain = [0.99915, 0.998296, 0.675432, 0.277670, 0.056623, 0.004660]
    zero = [0.99915, 0.998233, 0.654189, 0.242359, 0.033171, 0.0]
    expected = zero if choice == "v1-1" else plain
    found = scheduler.alphas_cumprod[[0, 1, 249, 499, 749, 999]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)  # six digits, 1000 float32 factors
    assert (scheduler.alphas_cumprod[999] == 0) == (choice == "v1-1")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == ([999, 749, 499, 249] if choice == "v1-1" else [751, 501, 251, 1])


def test_a_schedule_of_its_own_is_kept(stable_diffusion: Path, tmp_path: Path) -> None:
    own = {**BETAS, "beta_end": 0.02, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    EulerDiscreteScheduler(**own).save_pretrained(stable_diffusion / "scheduler")
    scheduler = load(prepare_start(stable_diffusion, tmp_path / "start"), device="cpu").scheduler
    assert scheduler.alphas_cumprod[999] == 0 and scheduler.config["timestep_spacing"] == "trailing"
    torch.testing.assert_close(scheduler.alphas_cumprod, DDIMScheduler(**own).alphas_cumprod)


def test_half_precision_shards_lose_their_mark(stable_diffusion: Path, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(stable_diffusion / "unet", torch_dtype=torch.float16)
    (stable_diffusion / UNET).unlink()
    unet.save_pretrained(stable_diffusion / "unet", variant="fp16", max_shard_size="200KB")
    for name in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        path = stable_diffusion / f"{name}.safetensors"
        path.rename(path.with_suffix(".fp16.safetensors"))
    start = prepare_start(stable_diffusion, tmp_path / "start")
    assert len(list((start / "unet").glob("*.safetensors"))) > 1
    assert [path for path in start.rglob("*fp16*")] == []
    wide = load(start, device="cpu").unet.conv_in.weight
    assert torch.equal(wide, torch.cat([unet.conv_in.weight] * 2, dim=1).float() / 2)
    assert find(start).variant is None


def test_weights_that_are_not_taken_stay_behind(stable_diffusion: Path, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(stable_diffusion / "unet", torch_dtype=torch.float16)
    unet.save_pretrained(stable_diffusion / "unet", variant="fp16", max_shard_size="200KB")
    stale = stable_diffusion / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    stale.write_text('{"metadata": {}, "weight_map": {"conv_in.weight": "gone.safetensors"}}')
    start = prepare_start(stable_diffusion, tmp_path / "start")
    names = {path.name for path in (start / "unet").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert load(start, device="cpu").unet.conv_in.weight.shape[1] == 8


# ------------------------------------------------------------------------------- other starts


def test_a_name_of_a_shape_gives_random_weights_of_a_seed(tmp_path: Path) -> None:
    first, same, other = (prepare_start("new:tiny", tmp_path / str(i), seed=i // 2) for i in range(3))
    assert find(first).sha256 == find(same).sha256 != find(other).sha256
    assert load(first, device="cpu").scheduler.alphas_cumprod[999] == 0
    leading = prepare_start("new:tiny", tmp_path / "leading", noise_schedule="v1-0")
    assert load(leading, device="cpu").scheduler.config["timestep_spacing"] == "leading"


def test_a_marigold_checkpoint_is_linked_and_keeps_its_defaults(tmp_path: Path) -> None:
    start = prepare_start(BUNDLED, tmp_path / "start")
    assert find(start).sha256 == find(BUNDLED).sha256
    weights = [path.relative_to(BUNDLED) for path in BUNDLED.rglob("*.safetensors")]
    assert len(weights) > 2 and all((start / name).samefile(BUNDLED / name) for name in weights)
    assert not (start / "README.md").exists()


@pytest.mark.parametrize("mark", ["", ".fp16"])
def test_parts_of_our_own_are_linked_too(mark: str, tiny_guided: Path, tmp_path: Path) -> None:
    source = with_displacement(tiny_guided, tmp_path / "guided")
    (source / "checksums.json").unlink()
    for path in sorted(source.rglob("*.safetensors")):
        path.rename(path.with_suffix(f"{mark}.safetensors"))
    start = prepare_start(source, tmp_path / "start")
    for part in ("prior", "displacement"):
        weights = start / part / "diffusion_pytorch_model.safetensors"
        assert weights.samefile(source / part / f"diffusion_pytorch_model{mark}.safetensors")
    pipeline = load(start)
    assert (
        pipeline.prior is not None
        and pipeline.displacement is not None
        and "prior_proj.0.weight" in pipeline.unet.state_dict()
    )


def test_a_random_network_keeps_all_that_is_beside_it(tiny_guided: Path, tmp_path: Path) -> None:
    made = [prepare_start(tiny_guided, tmp_path / str(i), network="random", seed=i // 2) for i in range(3)]
    before, *found = (fingerprints(folder) for folder in (tiny_guided, *made))
    weights = [files.pop(UNET) for files in (before, *found)]
    assert weights[1] == weights[2] and len({*weights}) == 3
    kept = {name for name in before if "safetensors" in name}
    assert all(files[name] == before[name] for files in found for name in kept)
    old, new = (load(folder).unet.state_dict() for folder in (tiny_guided, made[0]))
    assert {name: weight.shape for name, weight in new.items()} == {name: w.shape for name, w in old.items()}
    assert new["prior_proj.0.weight"].abs().max() == 0 < new["conv_in.weight"].std()
    with pytest.raises(CheckpointError, match="a U-Net of random weights, seed 0, not from"):
        prepare_start(tiny_guided, made[0])


def test_an_lcm_checkpoint_stays_one_or_becomes_ddim(tiny_depth_lcm: Path, tmp_path: Path) -> None:
    kept = load(prepare_start(tiny_depth_lcm, tmp_path / "kept"), device="cpu")
    assert isinstance(kept.scheduler, LCMScheduler) and kept.checkpoint.default_steps == 1
    changed = load(prepare_start(tiny_depth_lcm, tmp_path / "changed", noise_schedule="v1-0"), device="cpu")
    assert isinstance(changed.scheduler, DDIMScheduler) and changed.checkpoint.default_steps == 10


def test_the_authors_own_index_is_completed(tiny_depth: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_depth, tmp_path / "authors")
    index = json.loads((folder / "model_index.json").read_text())
    old = {"_class_name": "MarigoldPipeline"} | {part: index[part] for part in index if isinstance(index[part], list)}
    (folder / "model_index.json").write_text(json.dumps(old))
    start = prepare_start(folder, tmp_path / "start")
    index = json.loads((start / "model_index.json").read_text())
    assert index["_class_name"] == "MarigoldDepthPipeline"
    assert (index["prediction_type"], index["scale_invariant"], index["shift_invariant"]) == ("depth", True, True)
    assert (index["default_denoising_steps"], index["default_processing_resolution"]) == (4, 768)


def test_of_a_run_the_newest_checkpoint_is_taken_without_its_training_state(tmp_path: Path) -> None:
    run = tmp_path / "run"
    steps = [new_checkpoint(run / f"step_{step:08d}", "tiny", seed=step) for step in (90, 100)]
    for folder in steps:
        (folder / "training_state.safetensors").write_bytes(b"state")
    start = prepare_start(run, tmp_path / "start")
    assert find(start).sha256 == find(steps[1]).sha256
    assert find(prepare_start(steps[0], tmp_path / "other")).sha256 == find(steps[0]).sha256
    assert list(start.glob("training_state*")) == []


def test_a_start_is_made_once_even_if_its_source_goes(tiny_depth: Path, tmp_path: Path, monkeypatch) -> None:
    source = shutil.copytree(tiny_depth, tmp_path / "source")
    start = prepare_start(source, tmp_path / "start")
    before = {path: path.stat().st_mtime_ns for path in start.rglob("*")}
    monkeypatch.chdir(tmp_path)
    prepare_start("source", Path("start"))
    shutil.rmtree(source)
    prepare_start(source, start)
    assert {path: path.stat().st_mtime_ns for path in start.rglob("*")} == before


def test_a_curve_is_chosen_at_the_start_and_stays(tiny_depth: Path, tmp_path: Path) -> None:
    start = prepare_start(tiny_depth, tmp_path / "start", depth_curve="root")
    assert find(start).depth_transfer == "root" and find(tiny_depth).depth_transfer == "linear"
    assert load(start).modality == Depth(transfer="root")
    assert find(prepare_start(start, tmp_path / "next")).depth_transfer == "root"
    assert find(prepare_start(start, tmp_path / "back", depth_curve="linear")).depth_transfer == "linear"
    assert find(publish(start, tmp_path / "published")).depth_transfer == "root"


@pytest.mark.parametrize(
    ("choice", "is_kept"),
    [
        ({}, True),
        ({"depth_curve": "linear"}, True),
        ({"depth_curve": "root"}, False),  # its greys are those of another curve
        ({"target": "depth"}, True),
        ({"target": "disparity"}, False),
        ({"network": "random"}, False),
    ],
)
def test_a_draft_that_does_not_fit_is_left_out(
    choice: dict[str, Any], is_kept: bool, tiny_guided: Path, tmp_path: Path
) -> None:
    drafted = with_draft(tiny_guided, tmp_path / "drafted")
    start = prepare_start(drafted, tmp_path / "start", **choice)
    assert (load(start, device="cpu").draft is not None) == is_kept
    assert load(drafted, device="cpu").draft is not None


def test_another_source_or_schedule_in_the_same_folder_is_refused(tiny_depth: Path, tmp_path: Path) -> None:
    start = prepare_start(tiny_depth, tmp_path / "start")
    with pytest.raises(CheckpointError, match="was made from .*tiny-depth with noise schedule start, not from"):
        prepare_start(tiny_depth, start, noise_schedule="v1-0")
    with pytest.raises(CheckpointError, match="not from random weights of shape tiny, seed 0 with noise schedule st"):
        prepare_start("new:tiny", start)
    with pytest.raises(CheckpointError, match="not from .* start and depth curve root: ask"):
        prepare_start(tiny_depth, start, depth_curve="root")
    weights = start / UNET
    weights.unlink()
    weights.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        prepare_start(tiny_depth, start)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds something else"):
        prepare_start("new:tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.txt"]


def test_a_start_is_whole_or_absent(stable_diffusion: Path, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("training.models.stable_diffusion.save_file", failing(DISK_FULL))
        with pytest.raises(ExportError, match="start cannot be written: No space left on device"):
            prepare_start(stable_diffusion, tmp_path / "start")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    (tmp_path / ".start.marigold-unfinished" / "unet").mkdir(parents=True)  # as a killed process leaves it
    assert find(prepare_start(stable_diffusion, tmp_path / "start")).default_resolution == 96
    assert {path.name for path in tmp_path.iterdir()} == {"models", "start"}


def test_without_hard_links_weights_are_copied(stable_diffusion: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "link", failing(OSError(18, "Invalid cross-device link")))
    start = prepare_start(stable_diffusion, tmp_path / "start")
    name = "vae/diffusion_pytorch_model.safetensors"
    assert (start / name).read_bytes() == (stable_diffusion / name).read_bytes()
    assert not (start / name).samefile(stable_diffusion / name)


# ------------------------------------------------------------------------------- refusals


def tensor_channels(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    save_file(tensors | {"conv_in.weight": tensors["conv_in.weight"].repeat(1, 2, 1, 1)}, folder / UNET)


def edited(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **values)


def pickled(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def cut(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-10])


INDEX, CONFIG, SCHEDULE = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
INCOMPATIBLE = {
    "no U-Net": (lambda folder: shutil.rmtree(folder / "unet"), "unet/config.json is missing"),
    "no U-Net listed": (edited(INDEX, unet=[None, None]), "unet is missing; it must be UNet2DConditionModel"),
    "inpainting": (edited(CONFIG, in_channels=9), "9 input and 4 output channels, an inpainting model"),
    "seven channels": (edited(CONFIG, in_channels=7), "7 input and 4 output channels, another model"),
    "weights of other channels": (tensor_channels, "8 input and 4 output channels"),
    "epsilon": (edited(SCHEDULE, prediction_type="epsilon"), "predicts epsilon"),
    "epsilon unsaid": (edited(SCHEDULE, prediction_type=None), "predicts epsilon"),
    "latents": (edited("vae/config.json", latent_channels=16), "16 latent channels and its U-Net 4"),
    "another autoencoder": (edited(INDEX, vae=["diffusers", "VQModel"]), "vae is VQModel; it must be AutoencoderKL"),
    "text width": (edited("text_encoder/config.json", hidden_size=768), "768 numbers a word and its U-Net takes 16"),
    "tokenizer": (edited("tokenizer/vocab.json", more=514), "tokenizer has 515 words and its text encoder 514"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer/tokenizer.json is missing"),
    "pickles": (pickled, "unet are a pickle file"),
    "cut off": (cut, "damaged"),
    "another pipeline": (
        edited(INDEX, _class_name="FluxPipeline"),
        "a FluxPipeline checkpoint; training starts from Stable",
    ),
    "no checkpoint": (lambda folder: (folder / "model_index.json").unlink(), "not a checkpoint in diffusers' layout"),
}


@pytest.mark.parametrize("fault", INCOMPATIBLE)
def test_what_does_not_fit_is_refused_in_one_sentence(fault: str, stable_diffusion: Path, tmp_path: Path) -> None:
    spoil, message = INCOMPATIBLE[fault]
    spoil(stable_diffusion)
    assert message in refusal(lambda: prepare_start(stable_diffusion, tmp_path / "start"))
    assert not (tmp_path / "start").exists()


def test_marigold_checkpoints_that_do_not_fit_are_refused(tiny_depth: Path, tmp_path: Path) -> None:
    one_step = shutil.copytree(tiny_depth, tmp_path / "marigold-e2e-ft-depth")
    with pytest.raises(CheckpointError, match="The start model is of the E2E-FT family, .* not trained to denoise"):
        prepare_start(one_step, tmp_path / "start")
    folder = shutil.copytree(tiny_depth, tmp_path / "narrow")
    edit(folder / "text_encoder" / "config.json", hidden_size=8)
    with pytest.raises(CheckpointError, match="8 numbers a word and its U-Net takes 16"):
        prepare_start(folder, tmp_path / "start")
    with pytest.raises(CheckpointError, match="There is no folder .*nowhere to start from"):
        prepare_start(tmp_path / "nowhere", tmp_path / "start")
    with pytest.raises(CheckpointError, match="There is no checkpoint 'nowhere': give one of"):
        prepare_start("nowhere", tmp_path / "start")


@pytest.mark.parametrize("claim", [{"shift_invariant": False}, {"scale_invariant": False, "shift_invariant": False}])
def test_a_checkpoint_of_claims_without_targets_is_refused(
    claim: dict[str, object], tiny_depth: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_depth, tmp_path / "source"))
    edit(source / "model_index.json", **claim)
    with pytest.raises(CheckpointError, match="depth without a fixed range, .* give --target"):
        prepare_start(source, tmp_path / "run" / "start")
    assert not (tmp_path / "run").exists()
    assert load(prepare_start(source, tmp_path / "run" / "start", target="depth")).modality == Depth()


def test_a_start_that_nothing_was_trained_from_makes_way(tiny_depth: Path, tmp_path: Path) -> None:
    out = prepare_start("new:tiny", tmp_path / "out", seed=1)
    with pytest.raises(CheckpointError, match="ask for the same again"):
        prepare_start(tiny_depth, out)
    prepare_start(tiny_depth, out, replace=True)
    assert find(out).sha256 == find(tiny_depth).sha256
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "unet/notes.md", "plots/loss.png"])
def test_a_file_of_the_users_in_a_start_folder_stays(name: str, tiny_depth: Path, tmp_path: Path) -> None:
    out = prepare_start("new:tiny", tmp_path / "out", seed=1)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(ExportError, match=f"holds {name}, which would be deleted: move it away"):
        prepare_start(tiny_depth, out, replace=True)
    assert (out / name).read_text() == "mine" and find(out).sha256 == find(
        prepare_start("new:tiny", out, seed=1)
    ).sha256


def test_a_new_tokenizer_has_as_many_tokens_as_its_text_encoder_takes(tmp_path: Path) -> None:
    """Those of the public shape are more than a byte can have, and a checkpoint whose two differ is refused."""
    wide = replace(SHAPES["tiny"], text=replace(SHAPES["tiny"].text, vocabulary=600))
    assert len(json.loads((new_checkpoint(tmp_path / "wide", wide) / "tokenizer" / "vocab.json").read_text())) == 600
    assert load(tmp_path / "wide", device="cpu").prompt.shape[:2] == (1, 2)
