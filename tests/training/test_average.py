"""Averages of checkpoints: the weighted mean of every weight, and a draft's projections that count as zero."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.image_prior import GuidedUNet
from training.average import average, main
from training.prior import add_draft

pytestmark = pytest.mark.numeric


def moved(source: Path, out: Path, by: float) -> Path:
    """A checkpoint with ``by`` added to every weight of the U-Net."""
    shutil.copytree(source, out)
    unet = GuidedUNet.from_pretrained(out / "unet")
    unet.load_state_dict({name: weight + by for name, weight in unet.state_dict().items()})
    unet.save_pretrained(out / "unet")
    write_checksums(out)
    return out


def test_the_mean_is_weighted_and_a_draft_that_one_does_not_have_counts_as_zero(
    tiny_guided: Path, tmp_path: Path
) -> None:
    drafted = moved(add_draft(tiny_guided, tmp_path / "start", width=8), tmp_path / "drafted", 0.5)
    folder = average([tiny_guided, drafted], (1, 3), tmp_path / "mean")
    before, after = load(tiny_guided).unet.state_dict(), load(folder).unet.state_dict()
    assert any(name.startswith("draft_proj.") for name in after)
    for name, weight in after.items():
        wanted = before[name] + 0.375 if name in before else torch.full_like(weight, 0.375)
        torch.testing.assert_close(weight, wanted, msg=name)
    assert load(folder)(np.zeros((40, 60, 3), np.uint8)).values.shape == (40, 60)


def test_without_a_draft_in_the_last_there_is_none(tiny_guided: Path, tmp_path: Path) -> None:
    drafted = moved(add_draft(tiny_guided, tmp_path / "start", width=8), tmp_path / "drafted", 0.5)
    folder = average([drafted, tiny_guided], (1, 1), tmp_path / "mean")
    before, pipe = load(tiny_guided).unet.state_dict(), load(folder)
    assert pipe.prior is not None and pipe.prior.draft is None
    assert pipe.unet.state_dict().keys() == before.keys()
    for name, weight in pipe.unet.state_dict().items():
        torch.testing.assert_close(weight, before[name] + 0.25, msg=name)


def test_what_does_not_fit_together_is_refused(tiny_guided: Path, tiny_depth: Path, tmp_path: Path) -> None:
    drafted = add_draft(tiny_guided, tmp_path / "drafted", width=8)
    other = Path(shutil.copytree(tiny_guided, tmp_path / "other"))
    config = json.loads((other / "unet" / "config.json").read_text())
    GuidedUNet.from_config({**config, "layers_per_block": 2}).save_pretrained(other / "unet")
    write_checksums(other)
    out = tmp_path / "mean"
    for sources, shares, words in (
        ([tiny_guided], (1,), "1 checkpoints need two or more"),
        ([tiny_guided, drafted], (1, 2, 3), "as many shares"),
        ([tiny_guided, drafted], (-1, 2), "as many shares"),
        ([other, drafted], (1, 1), "The U-Net of other has other layers than that of drafted"),
        ([tiny_depth, tiny_guided], (1, 1), "has another autoencoder or image prior than"),
    ):
        with pytest.raises(MarigoldError, match=words):
            average(sources, shares, out)
    with pytest.raises(MarigoldError, match="shares must be numbers separated by commas"):
        main((str(tiny_guided), str(drafted)), "1,a", out)
    assert not out.exists()
