"""A tiny autoencoder decodes previews, or all; what it made says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from marigold_core import CheckpointError, Prediction, Settings, SettingsError, load
from marigold_core.files.writers import save
from marigold_core.pipeline.convergence import EarlyStopping
from tests.helpers.fake_hub import fake_hub

QUICK = Settings(num_inference_steps=2, processing_resolution=64, ensemble_size=3)


def write_tiny(folder: Path, levels: int = 4) -> Path:
    """A random one that makes 2 ** (levels - 1) pixels of a cell."""
    widths = (8,) * levels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        tiny: Any = AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1,) * levels,
            num_decoder_blocks=(1,) * levels,
        )
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "taesd")


def test_previews_are_tiny_and_the_result_is_not(tiny_depth: Path, taesd: Path, photo: Any, tmp_path: Path) -> None:
    plain, pipe = load(tiny_depth, device="cpu"), load(tiny_depth, device="cpu", tiny_autoencoder=str(taesd))
    expected: Any = list(plain.stream(photo(48, 64), QUICK))
    events: Any = list(pipe.stream(photo(48, 64), QUICK.changed(decoder="preview")))
    made: list[Any] = [event for event in events if isinstance(event, Prediction)]
    assert [(one.preview, one.fused) for one in made] == [(shown, k) for k in (1, 2, 3) for shown in (True, False)]
    final: list[Any] = [event for event in expected if isinstance(event, Prediction)]
    for preview, member, own in zip(made[::2], made[1::2], final, strict=True):
        np.testing.assert_array_equal(member.values, own.values)
        assert member.tiny_decoder is None and preview.tiny_decoder.startswith("taesd ")
        assert not np.array_equal(preview.members[-1], member.members[-1])
        np.testing.assert_array_equal(preview.members[:-1], member.members[:-1])
    one = pipe(photo(48, 64), QUICK.changed(decoder="preview"))
    np.testing.assert_array_equal(one.values, final[-1].values)
    with pytest.raises(SettingsError, match="can be continued"):
        list(pipe.stream(photo(48, 64), QUICK.changed(decoder="preview", ensemble_size=4), start=made[-2]))


def test_a_preview_does_not_count_for_early_stopping(tiny_depth: Path, taesd: Path, photo: Any) -> None:
    pipe = load(tiny_depth, device="cpu", tiny_autoencoder=str(taesd))
    stopping = EarlyStopping(pipe.stream(photo(48, 64), QUICK.changed(decoder="preview", ensemble_size=6)), 6, 0.9)
    *_, last = stopping
    assert stopping.finished == 4 and isinstance(last, Prediction) and not last.preview


def test_it_decodes_all_where_asked_as_diffusers_does(
    tiny_depth: Path, taesd: Path, photo: Any, tmp_path: Path
) -> None:
    pipe = load(tiny_depth, device="cpu", tiny_autoencoder=str(taesd))
    settings = QUICK.changed(decoder="tiny", ensemble_size=1, processing_resolution=0)
    found = pipe(photo(48, 64), settings)
    photo_latent = pipe.encode(torch.tensor(photo(48, 64)).permute(2, 0, 1)[None] / 127.5 - 1)
    *_, clean = pipe.denoise(photo_latent, pipe.member_noise(photo(48, 64), settings, 0), 2)
    decoder: Any = AutoencoderTiny.from_pretrained(taesd)
    with torch.no_grad():
        picture = decoder.decode(clean / decoder.config.scaling_factor).sample
    expected = (picture.mean(dim=1)[0].clamp(-1, 1) + 1) / 2
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    record = json.loads(save(found, tmp_path)["manifest"].read_text())
    assert record["settings"]["decoder"] == "tiny"
    assert record["tiny_decoder"] == found.tiny_decoder and len(found.tiny_decoder or "") == len("taesd ") + 64


def test_one_that_does_not_fit_or_is_not_there_is_refused(
    tiny_depth: Path, taesd: Path, photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(tiny_depth, device="cpu")
    for decoder in ("preview", "tiny"):
        with pytest.raises(
            SettingsError, match=f"decoder {decoder} needs a tiny autoencoder.*MARIGOLD_TINY_AUTOENCODER"
        ):
            plain(photo(48, 64), QUICK.changed(decoder=decoder))
    with pytest.raises(CheckpointError, match="makes 8 pixels of a latent cell.* and nano has 4"):
        load("nano", device="cpu", tiny_autoencoder=str(taesd))
    monkeypatch.setenv("MARIGOLD_TINY_AUTOENCODER", str(taesd))
    assert load("nano", device="cpu").tiny is None and load(tiny_depth, device="cpu").tiny  # nano stays as it was
    for name, words in (
        (str(tiny_depth / "vae"), "is no AutoencoderTiny"),
        ("nowhere", "no tiny autoencoder 'nowhere'"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load(tiny_depth, device="cpu", tiny_autoencoder=name)
    broken = write_tiny(tmp_path / "broken")
    weights = broken / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        load(tiny_depth, device="cpu", tiny_autoencoder=str(broken))


def test_it_comes_from_the_hub_pinned(
    tiny_depth: Path, taesd: Path, photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(monkeypatch, tmp_path) as hub:
        hub.folders["madebyollin/taesd"] = taesd
        hub.folders["somebody/else"] = tiny_depth
        pipe = load(tiny_depth, device="cpu", tiny_autoencoder="madebyollin/taesd")
        assert pipe(photo(48, 64), QUICK.changed(decoder="tiny")).tiny_decoder.startswith("madebyollin/taesd ")  # type: ignore[union-attr]
        asked = len(hub.requests)
        load(tiny_depth, device="cpu", tiny_autoencoder="madebyollin/taesd")
        assert len(hub.requests) == asked  # it is here
        with pytest.raises(CheckpointError, match="somebody/else on the hub is not in diffusers' layout: it has no"):
            load(tiny_depth, device="cpu", tiny_autoencoder="somebody/else")
