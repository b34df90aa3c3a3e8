"""Damaged and foreign checkpoints: one sentence before anything runs, whichever library notices."""

import json
import math
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from marigold_core import CheckpointError, Settings, load
from marigold_core.checkpoints.layout import describe
from tests.helpers import damage
from tests.helpers.damage import edit

PARTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer.json",
    *PARTS.values(),
)


@pytest.fixture
def folder(tiny_depth: Path, tmp_path: Path) -> Path:
    """A copy without a list of checksums, as folders from elsewhere have none."""
    folder = Path(shutil.copytree(tiny_depth, tmp_path / "copied"))
    (folder / "checksums.json").unlink()
    return folder


def refusal(folder: Path) -> str:
    text = damage.refusal(lambda: load(folder, device="cpu"))
    assert text[0].isupper() and len(text) < 300 and str(folder.parent) not in text, text
    return text


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_the_copy_itself_loads(folder: Path, photo: Any) -> None:
    assert load(folder, device="cpu")(photo(), Settings(num_inference_steps=1)).values.shape == (48, 64)


@pytest.mark.parametrize("name", FILES)
def test_empty_and_cut_files(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for damaged in (b"", content[: len(content) // 2] if len(content) > 20 else b""):
        (folder / name).write_bytes(damaged)
        refusal(folder)
    (folder / name).unlink()
    (folder / name).mkdir()  # a folder of that name
    refusal(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_files_of_another_form(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / "tokenizer/notes.json").write_text("[]")  # which nobody reads
    (folder / name).write_bytes(BOM_UTF8 + content)  # as editors write it
    if name == "model_index.json":  # which diffusers does not read
        assert describe(folder).modality == "depth"
    else:
        assert refusal(folder) == f"The file {name} of the checkpoint begins with a byte-order mark; save it without."
    (folder / name).write_text("[1, 2]")
    assert f"{name} of the checkpoint is damaged, it is no JSON object" in refusal(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name != "tokenizer/tokenizer.json"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    if name == "tokenizer/vocab.json":  # either of the two files states the tokens
        (folder / "tokenizer/tokenizer.json").unlink()
    refusal(folder)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
def test_missing_and_empty_folders(folder: Path, part: str) -> None:
    for path in (folder / part).iterdir():
        path.unlink()
    refusal(folder)
    (folder / part).rmdir()
    refusal(folder)


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_missing_superfluous_misshapen_or_not_finite(folder: Path, part: str) -> None:
    path = folder / PARTS[part]
    whole = path.read_bytes()
    name = next(name for name, weights in load_file(path).items() if weights.ndim == 2)
    for change, words in (
        (lambda weights: weights.pop(name), f"The {part} of the checkpoint lacks weights of its configuration"),
        (lambda weights: weights.update(other=torch.zeros(2)), "not of its configuration, such as other"),
        (lambda weights: weights.update({name: torch.zeros(3, 3)}), f"The {part} of the checkpoint cannot be used"),
        (lambda weights: weights[name].view(-1)[:1].fill_(float("nan")), "not finite"),
        (lambda weights: weights[name].view(-1)[:1].fill_(float("inf")), "not finite"),
    ):
        change_weights(path, change)
        assert words in refusal(folder)
        path.write_bytes(whole)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_stored_as_another_type_than_floating_point(
    folder: Path, part: str, dtype: torch.dtype
) -> None:
    def cast(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(".bias"))
        tensors[name] = tensors[name].to(dtype)

    change_weights(folder / PARTS[part], cast)
    assert f"The weights {PARTS[part]} are damaged" in (text := refusal(folder))
    assert "must be one of F16, BF16, F32, F64" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_type_of_floating_point_loads(folder: Path, dtype: torch.dtype) -> None:
    for path in PARTS.values():
        change_weights(folder / path, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    load(folder, device="cpu")


def test_a_text_encoder_of_an_earlier_version_has_one_more_tensor(folder: Path) -> None:
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    change_weights(folder / PARTS["text_encoder"], lambda weights: weights.update(positions))
    load(folder, device="cpu")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"shape": [1]}},
        [],
    ],
)
def test_a_header_that_lies(folder: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (folder / PARTS["vae"]).write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    assert "vae/diffusion_pytorch_model.safetensors are damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model_index.json", {"scale_invariant": "false"}),
        ("model_index.json", {"prediction_type": ["disparity"]}),
        ("model_index.json", {"prediction_type": "disparity", "depth_space": "log"}),
        ("model_index.json", {"prediction_type": "distance"}),
        ("model_index.json", {"depth_space": "logarithm"}),
        ("model_index.json", {"vae": "AutoencoderKL"}),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderDC"]}),
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}),
        ("unet/config.json", {"block_out_channels": "many"}),
        ("unet/config.json", {"block_out_channels": [16]}),
        ("unet/config.json", {"center_input_sample": "false"}),
        ("unet/config.json", {"norm_eps": "small"}),
        ("unet/config.json", {"act_fn": "sine"}),
        ("unet/config.json", {"cross_attention_dim": 24}),
        ("unet/config.json", {"class_embed_type": "projection"}),
        ("unet/config.json", {"down_block_types": ["DownBlock2D", "NoBlock2D"]}),
        ("vae/config.json", {"_class_name": "AutoencoderDC"}),
        ("vae/config.json", {"scaling_factor": "0.18"}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("vae/config.json", {"norm_num_groups": 3}),
        ("vae/config.json", {"in_channels": 1}),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}),
        ("text_encoder/config.json", {"vocab_size": 1000}),
        ("text_encoder/config.json", {"hidden_size": "wide"}),
        ("text_encoder/config.json", {"num_attention_heads": 3}),
        ("text_encoder/config.json", {"hidden_act": "none"}),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "circular"}),
        ("scheduler/scheduler_config.json", {"beta_start": "0.00085"}),
        ("scheduler/scheduler_config.json", {"beta_start": -0.1}),
        ("scheduler/scheduler_config.json", {"beta_start": 0, "beta_end": 0}),
        ("scheduler/scheduler_config.json", {"beta_end": 4}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1000.5}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "sideways"}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": 3}),
        ("scheduler/scheduler_config.json", {"clip_sample": "false"}),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}),
        ("scheduler/scheduler_config.json", {"trained_betas": "all"}),
        ("scheduler/scheduler_config.json", {"prediction_type": None}),
    ],
)
def test_values_that_nothing_accepts(folder: Path, name: str, changes: dict[str, object]) -> None:
    edit(folder / name, **changes)
    refusal(folder)


METRIC = {"scale_invariant": False, "shift_invariant": False, "metric_range_m": [1, 10], "canonical_focal_px": 500}


@pytest.mark.parametrize("value", [-1, "4", math.nan, math.inf, 10**12, 2.5, True, [4], 0])
@pytest.mark.parametrize(
    "name", ["default_denoising_steps", "default_processing_resolution", "canonical_focal_px", "metric_range_m"]
)
def test_numbers_of_the_index_out_of_range(folder: Path, name: str, value: Any) -> None:
    index = folder / "model_index.json"
    edit(index, **METRIC)
    assert describe(folder).metric_range_m == (1, 10)
    accepted = (name == "canonical_focal_px" and value == 2.5) or (name.endswith("resolution") and value == 0)  # native
    edit(index, **{name: [value, 20] if name == "metric_range_m" and value != 2.5 else value})
    with nullcontext() if accepted else pytest.raises(CheckpointError, match="In model_index|in model_index"):
        describe(folder)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    tokens = json.loads((folder / "tokenizer/vocab.json").read_text())
    (folder / "tokenizer/tokenizer.json").unlink()
    without_end = {word: number for word, number in tokens.items() if number < 513}
    for words in (without_end, tokens | {"more": 514}, without_end | {"end": 513}, {}):
        (folder / "tokenizer/vocab.json").write_text(json.dumps(words))
        assert "tokenizer" in refusal(folder)


def test_a_tokenizer_that_begins_and_ends_a_text_otherwise(folder: Path) -> None:
    """Each would give another depth, without a word."""
    edit(folder / "tokenizer/tokenizer_config.json", bos_token="!")
    assert "The tokenizer of the checkpoint" in refusal(folder)
    edit(folder / "tokenizer/tokenizer_config.json", bos_token="<|startoftext|>")
    (folder / "tokenizer/tokenizer.json").unlink()
    load(folder)
    edit(folder / "tokenizer/vocab.json", **{"<|startoftext|>": 513, "<|endoftext|>": 512})
    assert "The tokenizer of the checkpoint" in refusal(folder)


@pytest.mark.parametrize("name", ["unet/config.json", PARTS["unet"], "unet", "model_index.json"])
def test_links_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = (folder / name).rename(tmp_path / "elsewhere" / "moved")
    (folder / name).symlink_to(moved)
    assert "a link that leads out of it" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_links_in_a_circle(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to((folder / name).name)
    refusal(folder)


def test_the_hubs_cache_of_links_is_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        blob = tmp_path / "models--owner--name" / "blobs" / path.relative_to(folder).as_posix().replace("/", "--")
        blob.parent.mkdir(parents=True, exist_ok=True)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.rename(blob))
    load(snapshot, device="cpu")


def test_a_refused_checkpoint_leaves_the_others_as_they_were(folder: Path) -> None:
    edit(folder / "unet/config.json", down_block_types=["NoBlock"] * 2, up_block_types=["NoBlock"] * 2)
    with pytest.raises(CheckpointError, match="The unet of the checkpoint cannot be used"):
        load(folder, device="cpu", dtype="bfloat16")
    assert torch.get_default_dtype() == torch.float32
