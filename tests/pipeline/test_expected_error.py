"""The error network: what it expects from what, where it takes the place of the spread, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import Prediction, Settings, load
from marigold_core.calibration.calibrate import Hints
from marigold_core.checkpoints.hub import CONFIG_FILES
from marigold_core.checkpoints.layout import ERROR, INDEX
from marigold_core.checkpoints.registry import find
from marigold_core.errors import CheckpointError, ExportError
from marigold_core.files.writers import file_names, formats_for, save
from marigold_core.pipeline.expected_error import SPREADS, USUAL, ErrorNetwork
from tests.helpers.damage import edit
from tests.helpers.expected_error import with_expected_error
from training.data.targets import CLAIMS
from training.engine.addition import add_network
from training.start import prepare_start

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = (3, 5)


def features(rows: int = 1) -> tuple[torch.Tensor, ...]:
    """Random features of a picture of 8 x 6 cells and their coarser ones."""
    return tuple(torch.randn(rows, channels, 6 // n, 8 // n) for n, channels in enumerate(CHANNELS, start=1))


@pytest.mark.numeric
def test_untrained_it_expects_the_same_everywhere_and_trained_what_it_is_shown() -> None:
    torch.manual_seed(0)
    network = ErrorNetwork(CHANNELS, width=8)
    depth, spread = torch.rand(1, 1, 24, 32), torch.rand(1, 1, 24, 32) / 10
    known = torch.ones(1, 1, 1, 1)
    found = network(features(), depth, spread, known)
    assert found.shape == (1, 1, 12, 16)
    torch.testing.assert_close(found, torch.full_like(found, USUAL))
    torch.nn.init.normal_(network.out.weight)
    given = features()
    shown = [network(given, depth, one, known) for one in (spread, spread * 2)]
    assert (shown[0] - shown[1]).abs().max() > 1e-3
    hidden = [network(given, depth, one, 0 * known) for one in (spread, spread * 2)]
    torch.testing.assert_close(hidden[0], hidden[1])
    alone, both = (network.expected(given, depth, one) for one in (None, spread))
    assert alone.shape == both.shape == depth.shape
    for seen, coarse in ((alone, hidden[0]), (2 * both - SPREADS * spread, shown[0])):
        torch.testing.assert_close(seen, torch.nn.functional.interpolate(coarse.exp(), (24, 32), mode="bilinear"))


@pytest.fixture(scope="module")
def expecting(tiny_guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose network expects an error that grows with depth."""
    return with_expected_error(tiny_guided, tmp_path_factory.mktemp("expecting") / "checkpoint")


def test_a_checkpoint_says_where_it_may_be_wrong_with_a_single_member(
    tiny_guided: Path, expecting: Path, photo, tmp_path: Path
) -> None:
    picture = photo(60, 80)
    plain, own = (load(folder, device="cpu") for folder in (tiny_guided, expecting))
    assert own.checkpoint.sha256 != plain.checkpoint.sha256
    for members in (1, 3):
        settings = Settings(num_inference_steps=1, ensemble_size=members, processing_resolution=64)
        before, after = plain(picture, settings), own(picture, settings)
        assert np.array_equal(before.values, after.values)
        assert (before.uncertainty is None) == (members < 3) and before.uncertainty_measure == "spread"
        assert after.uncertainty is not None and after.uncertainty_measure == "expected error"
        if members == 1:
            assert np.corrcoef(after.values.ravel(), after.uncertainty.ravel())[0, 1] > 0.4  # in coarser cells
        assert "uncertainty" in formats_for(after)
    *_, again = own.stream(picture, settings, start=after)  # whose members are all there
    assert isinstance(again, Prediction) and again.uncertainty is not None
    np.testing.assert_allclose(again.uncertainty, after.uncertainty, rtol=1e-2)
    files = save(after, tmp_path / "out", ["uncertainty"])
    record = json.loads(files["manifest"].read_text())
    assert record["uncertainty"] == after.uncertainty_meaning != before.uncertainty_meaning
    assert CONFIG_FILES.fullmatch(f"{ERROR}/config.json")  # a hub's download takes it


def test_its_files_are_refused_before_a_run_only_where_there_will_be_none(tiny_guided: Path, expecting: Path) -> None:
    plain, own = (load(folder, device="cpu").checkpoint for folder in (tiny_guided, expecting))
    assert file_names(["uncertainty"], own, 1) == ["uncertainty.png", "uncertainty.npy"]
    with pytest.raises(ExportError, match="needs 3 or more members"):
        file_names(["uncertainty"], plain, 2)
    with pytest.raises(ExportError, match="depth map from elsewhere"):
        file_names(["uncertainty"], own, 0)


@pytest.mark.parametrize(
    "fault",
    ["weights missing", "configuration missing", "all missing", "other features", "no features", "no prior", "metres"],
)
def test_a_network_that_does_not_fit_its_checkpoint_is_refused(
    tiny_guided: Path, tiny_depth: Path, expecting: Path, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_depth if fault == "no prior" else tiny_guided if "features" in fault else expecting, folder)
    if fault != "all missing":
        (folder / "checksums.json").unlink(missing_ok=True)
    if fault == "weights missing":
        (folder / ERROR / "diffusion_pytorch_model.safetensors").unlink()
    elif fault == "configuration missing":
        (folder / ERROR / "config.json").unlink()
    elif fault == "all missing":
        shutil.rmtree(folder / ERROR)
    elif fault == "metres":
        edit(folder / INDEX, **CLAIMS["metric"])
    elif fault == "no prior":
        shutil.copytree(expecting / ERROR, folder / ERROR)
    else:
        ErrorNetwork((3, 5, 7) if fault == "other features" else (3,), width=8).save_pretrained(folder / ERROR)
    if fault == "no features":
        edit(folder / ERROR / "config.json", prior_channels=[])
    with pytest.raises(CheckpointError):
        load(folder, device="cpu")


def test_expectations_that_are_not_finite_are_refused(expecting: Path, photo) -> None:
    own = load(expecting, device="cpu")
    assert own.expected_error is not None and own.expected_error.out.bias is not None
    torch.nn.init.constant_(own.expected_error.out.bias, 1e4)  # finite, as a training that diverged leaves them
    with pytest.raises(CheckpointError, match="expected_error, gives numbers that are not finite"):
        own(photo(60, 80), Settings(num_inference_steps=1, processing_resolution=64))


def test_known_depths_that_guide_leave_the_spread(expecting: Path) -> None:
    own = load(expecting, device="cpu").checkpoint
    guiding = Hints(method="completion")
    assert file_names(["uncertainty"], own, 1, hints=Hints(near_m=1.0))
    assert file_names(["uncertainty"], own, 3, hints=guiding)
    with pytest.raises(ExportError, match="needs 3 or more members"):
        file_names(["uncertainty"], own, 2, hints=guiding)
    assert "uncertainty.png" not in file_names(None, own, 2, hints=guiding)


@pytest.mark.parametrize(
    ("changes", "kept"), [({}, True), ({"target": "disparity"}, False), ({"network": "random"}, False)]
)
def test_a_start_keeps_it_for_the_same_maps_alone(expecting: Path, tmp_path: Path, changes: dict, kept: bool) -> None:
    assert find(prepare_start(expecting, tmp_path / "start", **changes)).expected_error == kept


def test_one_that_a_checkpoint_has_is_kept(expecting: Path, tmp_path: Path) -> None:
    again = add_network(expecting, tmp_path / "again", ERROR, lambda: ErrorNetwork(CHANNELS))
    name = f"{ERROR}/diffusion_pytorch_model.safetensors"
    assert (again / name).read_bytes() == (expecting / name).read_bytes()
