"""Averages of checkpoints: the weighted mean of every weight of the U-Net, beside the other networks of the last."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.errors import ExportError, MarigoldError
from marigold_core.pipeline.image_prior import GuidedUNet
from tests.helpers.draft import with_draft
from training import prior
from training.average import average, main

pytestmark = pytest.mark.numeric


def moved(source: Path, out: Path, by: float) -> Path:
    """A checkpoint with ``by`` added to every weight of the U-Net."""
    shutil.copytree(source, out)
    unet = GuidedUNet.from_pretrained(out / "unet")
    unet.load_state_dict({name: weight + by for name, weight in unet.state_dict().items()})
    unet.save_pretrained(out / "unet")
    write_checksums(out)
    return out


def test_the_mean_is_weighted_and_the_other_networks_are_those_of_the_last(tiny_guided: Path, tmp_path: Path) -> None:
    drafted = with_draft(tiny_guided, tmp_path / "start", grey=0.0)
    other = moved(drafted, tmp_path / "other", 0.5)
    for sources, has_draft in (((tiny_guided, other), True), ((other, tiny_guided), False)):
        folder = average(sources, (1, 3), tmp_path / f"mean-{has_draft}")
        before, pipe = load(tiny_guided).unet.state_dict(), load(folder)
        assert (pipe.draft is not None) == has_draft
        for name, weight in pipe.unet.state_dict().items():
            torch.testing.assert_close(weight, before[name] + (0.375 if has_draft else 0.125), msg=name)
        assert pipe(np.zeros((40, 60, 3), np.uint8)).values.shape == (40, 60)


def test_what_does_not_fit_together_is_refused(tiny_guided: Path, tiny_depth: Path, tmp_path: Path) -> None:
    drafted = with_draft(tiny_guided, tmp_path / "drafted", grey=0.0)
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


def test_a_folder_that_holds_something_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for command in (
        lambda: average([tmp_path / "none", tmp_path / "none"], (1, 1), tmp_path),
        lambda: prior.main(tmp_path / "none", tmp_path, "pairs:none"),
    ):
        with pytest.raises(ExportError, match="holds something else already"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
