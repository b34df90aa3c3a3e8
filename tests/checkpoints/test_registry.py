"""Local folders: what is accepted, what is refused and in which words, and that no changed bit gets through."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marigold_core.checkpoints import registry, weights
from marigold_core.checkpoints.registry import NAMED, default_checkpoint, find, find_here, named_checkpoints
from marigold_core.errors import CheckpointError
from tests.helpers import damage
from tests.helpers.damage import Trap, edit

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_depth: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_depth, tmp_path / "checkpoint"))


def refusal(checkpoint: str | Path) -> str:
    return damage.refusal(lambda: find(checkpoint))


def test_every_kind_of_checkpoint_is_described(
    tiny_depth: Path, tiny_depth_leading: Path, tiny_depth_lcm: Path, tiny_normals: Path
) -> None:
    found = {path.name: find(path) for path in (tiny_depth, tiny_depth_leading, tiny_depth_lcm, tiny_normals)}
    assert {
        name: (c.modality, c.kind, c.scheduler, c.default_steps, c.default_resolution) for name, c in found.items()
    } == {
        "tiny-depth": ("depth", "affine", "ddim", 4, 64),
        "tiny-depth-leading": ("depth", "affine", "ddim", 10, 64),
        "tiny-depth-lcm": ("depth", "affine", "lcm", 1, 64),
        "tiny-normals": ("normals", "unit-vector", "ddim", 4, 64),
    }
    assert (
        len({c.sha256 for c in found.values()}) == 4
    )  # the same weights with another scheduler are another checkpoint
    assert all(c.size_bytes == sum(p.stat().st_size for p in c.folder.rglob("*.safetensors")) for c in found.values())


@pytest.mark.parametrize(
    ("scale", "shift", "kind"), [(True, True, "affine"), (True, False, "scale"), (False, False, "metric")]
)
def test_kind_follows_invariances(folder: Path, scale: bool, shift: bool, kind: str) -> None:
    edit(folder / "model_index.json", scale_invariant=scale, shift_invariant=shift)
    assert find(folder).kind == kind


def test_space_follows_prediction_type(folder: Path) -> None:
    edit(folder / "model_index.json", prediction_type="disparity")
    assert find(folder).space == "disparity"
    edit(folder / "model_index.json", prediction_type="depth", depth_space="log")
    assert find(folder).space == "log"


def test_a_curve_is_read_and_an_unknown_one_refused(folder: Path, tiny_normals: Path, tmp_path: Path) -> None:
    assert find(folder).depth_transfer == "linear"
    edit(folder / "model_index.json", depth_curve="root")
    assert find(folder).depth_transfer == "root"
    edit(folder / "model_index.json", depth_curve="cube")
    assert "encodes depth with the transfer function 'cube', which this version does not support" in refusal(folder)
    normals = Path(shutil.copytree(tiny_normals, tmp_path / "normals"))
    edit(normals / "model_index.json", depth_curve="root")
    assert "encodes normals with the transfer function" in refusal(normals)


def test_old_index_without_defaults(tiny_depth_leading: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_depth_leading, tmp_path / "old"))
    absent = ("prediction_type", "scale_invariant", "shift_invariant", "default_denoising_steps")
    edit(folder / "model_index.json", *absent, "default_processing_resolution", _class_name="MarigoldPipeline")
    found = find(folder)
    assert (found.kind, found.default_steps, found.default_resolution) == ("affine", 10, 768)


def test_fingerprint_ignores_version_and_line_ends_but_not_the_schedule(folder: Path) -> None:
    before = find(folder).sha256
    edit(folder / "model_index.json", _diffusers_version="0.1.0")
    config = folder / "unet" / "config.json"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))
    assert find(folder).sha256 == before
    edit(folder / "scheduler" / "scheduler_config.json", timestep_spacing="leading")
    assert find(folder).sha256 != before


def test_half_precision_alone_and_shards_are_found(folder: Path, tiny_depth: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert find(folder).variant == "fp16"
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").rename(
        folder / "vae" / "diffusion_pytorch_model.safetensors"
    )
    assert "half precision" in refusal(folder)


def test_sharded_weights_must_be_complete(tmp_path: Path, tiny_depth: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(tiny_depth, tmp_path / "sharded"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="400KB")
    weights.write_checksums(folder)
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert find(folder).variant is None
    shards[-1].unlink()
    assert refusal(folder) == "The folder unet has no complete set of safetensors weights; fetch it again."


# T46: corrupt weights


def test_flipped_bits_are_refused(folder: Path) -> None:
    rng = random.Random(0)
    files = sorted(folder.rglob("*.safetensors"))
    find(folder)
    for _ in range(10):
        file = rng.choice(files)
        body = file.read_bytes()
        at = rng.randrange(len(body))
        file.write_bytes(body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :])
        text = refusal(folder)
        assert "damaged" in text and file.parent.name in text and "--refetch" in text
        file.write_bytes(body)
    assert find(folder).sha256


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: b"",
        lambda body: body[:4],
        lambda body: body[: len(body) // 2],
        lambda body: body + b"\0",
        lambda body: b"\xff" * 8 + body[8:],
        lambda body: body[:8] + b"[" + body[9:],
        lambda body: body[:40] + b"\xff" + body[41:],
    ],
    ids=["empty", "four bytes", "half", "one byte more", "header length", "header not an object", "header not text"],
)
def test_broken_files_are_refused_without_checksums(folder: Path, damage) -> None:
    (folder / "checksums.json").unlink()
    (folder / UNET).write_bytes(damage((folder / UNET).read_bytes()))
    assert "unet/diffusion_pytorch_model.safetensors are damaged" in refusal(folder)


def test_unreadable_checksums_are_refused(folder: Path) -> None:
    (folder / "checksums.json").write_text("{")
    assert "checksums.json" in refusal(folder)


# T47: nothing that runs code


@pytest.mark.parametrize("suffix", [".bin", ".ckpt"])
def test_pickles_and_code_are_never_opened(folder: Path, tmp_path: Path, suffix: str) -> None:
    canary = tmp_path / "canary"
    (folder / UNET).unlink()
    (folder / "unet" / f"diffusion_pytorch_model{suffix}").write_bytes(pickle.dumps(Trap(canary)))
    (folder / "pipeline.py").write_text(f"open({str(canary)!r}, 'w')")
    assert "only safetensors are loaded" in refusal(folder)
    edit(folder / "model_index.json", _class_name=["pipeline", "MarigoldDepthPipeline"])
    assert "custom-code" in refusal(folder)
    assert not canary.exists()


def test_pickles_beside_safetensors_do_no_harm(folder: Path, tmp_path: Path) -> None:
    from marigold_core import load

    canary = tmp_path / "canary"
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(canary)))
    (folder / "pipeline.py").write_text(f"open({str(canary)!r}, 'w')")
    load(folder)
    assert not canary.exists()


# T49: other families


def edited(name: str, *absent: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, *absent, **changes)


def plain_sd2(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    edit(folder / "unet" / "config.json", in_channels=4)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def other_weights(folder: Path) -> None:
    """A configuration that claims 8 channels over weights with 4."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_config(
        {**json.loads((folder / "unet" / "config.json").read_text()), "in_channels": 4}
    )
    unet.save_pretrained(folder / "unet")
    edit(folder / "unet" / "config.json", in_channels=8)
    weights.write_checksums(folder)


INDEX, CONFIG = "model_index.json", "unet/config.json"
FLUX = ["diffusers", "FlowMatchEulerDiscreteScheduler"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (plain_sd2, "4 input and 4 output channels, a plain Stable Diffusion model"),
        (edited(CONFIG, in_channels=4), "4 input and 4 output channels, a plain Stable Diffusion model"),
        (edited(CONFIG, in_channels=12, out_channels=8), "12 input and 8 output channels, an intrinsic-image model"),
        (edited(INDEX, _class_name="StableDiffusionXLPipeline"), "This is a StableDiffusionXLPipeline checkpoint"),
        (lambda folder: (folder / "model_index.json").unlink(), "it has no model_index.json"),
        (empty, "it is empty"),
        (other_weights, "4 input and 4 output channels"),
        (edited(INDEX, scheduler=FLUX), f"scheduler is {FLUX[1]}; it must be DDIMScheduler or LCMScheduler"),
        (edited("scheduler/scheduler_config.json", prediction_type="epsilon"), "predicts epsilon"),
        (edited(INDEX, text_encoder=[None, None]), "text_encoder is missing"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae/config.json is missing"),
        (edited(INDEX, default_denoising_steps=1000), "num_inference_steps must be less than or equal to 50"),
        (edited("vae/config.json", latent_channels=16), "16 latent channels"),
    ],
)
def test_other_families_are_refused_in_one_sentence(folder: Path, spoil, words: str) -> None:
    spoil(folder)
    assert words in refusal(folder)


# checkpoints with an image prior

PRIOR = "prior/diffusion_pytorch_model.safetensors"


@pytest.fixture
def guided(tiny_guided: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_guided, tmp_path / "guided"))


def test_an_image_prior_is_part_of_a_checkpoint(guided: Path, tiny_depth: Path) -> None:
    from tests.helpers.tiny_prior import tiny_prior

    found = find(guided)
    assert found.prior and not find(tiny_depth).prior
    assert found.size_bytes == sum(path.stat().st_size for path in guided.rglob("*.safetensors"))
    edit(guided / "prior" / "config.json", enlarge=1.0)
    enlarged = find(guided).sha256
    tiny_prior(seed=1).save_pretrained(guided / "prior")
    weights.write_checksums(guided)
    assert len({found.sha256, enlarged, find(guided).sha256}) == 3


def flip_a_bit(folder: Path) -> None:
    body = (folder / PRIOR).read_bytes()
    (folder / PRIOR).write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


def cut_unlisted(folder: Path) -> None:
    (folder / "checksums.json").unlink()
    (folder / PRIOR).write_bytes((folder / PRIOR).read_bytes()[:-1])


def plain_unet(folder: Path) -> None:
    """Weights that were saved without the projections, beside a configuration with them."""
    from diffusers import UNet2DConditionModel

    config = (folder / "unet" / "config.json").read_text()
    unet: Any = UNet2DConditionModel.from_config(json.loads(config))
    unet.save_pretrained(folder / "unet")
    (folder / "unet" / "config.json").write_text(config)
    weights.write_checksums(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "prior"), "incomplete: prior/config.json is missing"),
        (lambda folder: (folder / PRIOR).unlink(), "The folder prior has no complete set of safetensors weights"),
        (flip_a_bit, f"The weights {PRIOR} are damaged"),
        (cut_unlisted, f"The weights {PRIOR} are damaged"),
        (lambda folder: (folder / "prior" / "config.json").write_text("{"), "prior/config.json of the checkpoint is"),
        (edited("prior/config.json", taps=[3]), "prior that its U-Net does not take"),
        (edited("prior/config.json", "taps"), "prior that its U-Net does not take"),
        (edited(CONFIG, "prior_channels"), "prior that its U-Net does not"),
        (plain_unet, "The U-Net has no weights for the image prior"),
    ],
)
def test_an_image_prior_that_is_not_whole_or_does_not_fit_is_refused(guided: Path, spoil, words: str) -> None:
    spoil(guided)
    assert words in refusal(guided)


def test_garbled_configuration(folder: Path) -> None:
    for text in ("", "[]", "{", "\xff"):
        (folder / "vae" / "config.json").write_bytes(text.encode("latin-1"))
        assert "vae/config.json" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["", "no such name", "../elsewhere/x/y", "/no/such/folder", "~nobody-here/x/y", "x" * 5000]
)
def test_names_that_are_nothing(name: str) -> None:
    text = refusal(name)
    assert "There is no checkpoint" in text and "nano" in text


def test_a_file_is_not_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "There is no checkpoint 'unet/config.json'" in refusal("unet/config.json")


# names, pickers, caches


def test_default_checkpoint_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARIGOLD_MODEL", raising=False)
    assert default_checkpoint() == "nano"
    monkeypatch.setenv("MARIGOLD_MODEL", "v1-1")
    assert default_checkpoint() == "v1-1"


def test_what_is_to_be_downloaded_is_not_fetched_to_be_verified(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_here("v1-1") is None and find_here("owner/name") is None
    monkeypatch.chdir(folder.parents[1])
    assert find_here(f"{folder.parent.name}/{folder.name}") == find(folder)  # which reads as a hub id
    assert no_network == []
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        find_here("nowhere")


def test_known_lists_names_and_what_is_here(
    tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "BUNDLED", tiny_depth)
    assert [entry.name for entry in named_checkpoints()] == list(NAMED)
    assert list(NAMED)[:6] == ["nano", "v1-1", "lcm", "v1-0", "normals", "iid-appearance"]
    assert [entry.name for entry in named_checkpoints() if entry.available] == ["nano"]
    assert find("nano").name == "nano"
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "absent")
    assert not any(entry.available for entry in named_checkpoints())
    assert "bundled checkpoint is missing" in refusal("nano")
    assert no_network == []


def test_digests_of_large_files_outlive_the_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "REMEMBERED_BYTES", 1)
    file = folder / UNET
    monkeypatch.setattr(weights, "_digests", {})
    before = weights.digest(file)
    hashed: list[str] = []
    real = weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda f, name: hashed.append(f.name) or real(f, name))
    monkeypatch.setattr(weights, "_digests", {})  # a new process
    assert weights.digest(file) == before and hashed == []
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert weights.digest(file) != before and hashed == [str(file)]
    (tmp_path / "cache" / "marigold" / "digests.json").write_text("garbled")  # costs hashing again, no more
    monkeypatch.setattr(weights, "_digests", {})
    assert weights.digest(file) != before and len(hashed) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # nowhere to remember
    monkeypatch.setattr(weights, "_digests", {})
    assert weights.digest(file) != before and len(hashed) == 3
