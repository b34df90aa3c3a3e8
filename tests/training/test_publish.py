"""A run becomes a checkpoint to ship: half precision, small files, an older one replaced only by a whole one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline
from safetensors.torch import load_file

from marigold_core import load
from marigold_core.checkpoints.registry import find
from marigold_core.errors import CheckpointError, ExportError, SettingsError
from tests.helpers.command_line import fingerprints
from training.models.networks import new_checkpoint
from training.publish import publish


def test_a_published_checkpoint_is_half_precision_and_predicts_the_same(tiny_depth: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# A card\n")
    out = publish(tiny_depth, tmp_path / "out", card)
    assert (out / "README.md").read_text() == "# A card\n"
    assert {value.dtype for value in load(out, dtype="float16").unet.state_dict().values()} == {torch.float16}
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    opened = MarigoldDepthPipeline.from_pretrained(out)
    assert opened.dtype == opened.unet.dtype == torch.float32  # as diffusers does by default: a CPU cannot run half
    difference = np.abs(load(out)(photo).values - load(tiny_depth)(photo).values)
    assert difference.max() < 0.02


def test_an_image_prior_is_published_in_half_precision_too(tiny_guided: Path, tmp_path: Path) -> None:
    out = publish(tiny_guided, tmp_path / "out")
    for part in ("unet", "prior"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        kept, published = load_file(tiny_guided / name), load_file(out / name)
        assert kept.keys() == published.keys()
        assert {value.dtype for value in published.values()} == {torch.float16}
        assert name in json.loads((out / "checksums.json").read_text())
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert np.abs(load(out)(photo).values - load(tiny_guided)(photo).values).max() < 0.02


def test_a_newer_one_replaces_the_older_but_its_card_and_nothing_of_the_run_is_shipped(tmp_path: Path) -> None:
    first, second = (new_checkpoint(tmp_path / str(seed), "tiny", seed=seed) for seed in (0, 1))
    (second / "training_state.safetensors").write_bytes(b"state")
    out = publish(first, tmp_path / "out")
    (out / "README.md").write_text("# By hand\n")
    (out / "stray.txt").write_text("old")
    before = find(out).sha256
    publish(second, out, resolution_px=96)
    assert find(out).sha256 != before
    assert find(out).default_resolution == 96
    assert (out / "README.md").read_text() == "# By hand\n"
    assert not list(out.glob("stray*")) + list(out.glob("training_state*"))
    listed = json.loads((out / "checksums.json").read_text())
    assert set(listed) == {path.relative_to(out).as_posix() for path in out.rglob("*.safetensors")}


def test_what_fails_leaves_the_older_one(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = publish(tiny_depth, tmp_path / "out")
    before = fingerprints(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        publish(tmp_path / "empty", out)
    with pytest.raises(SettingsError, match="processing_resolution must be"):
        publish(tiny_depth, out, resolution_px=4)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.publish.AutoencoderKL.save_pretrained", full)
    with pytest.raises(ExportError, match="out cannot be written: No space left on device"):
        publish(tiny_depth, out)
    assert fingerprints(tmp_path) == before
