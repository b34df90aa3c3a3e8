"""The displacement network: where it takes depth from, what it leaves alone, and that a checkpoint brings its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import Settings, load
from marigold_core.checkpoints.hub import CONFIG_FILES
from marigold_core.errors import CheckpointError
from marigold_core.pipeline.displacement import DisplacementNetwork, displace
from marigold_core.pipeline.outlines import follow_outlines
from tests.helpers.displacement import shifting, with_displacement

pytestmark = pytest.mark.numeric

ASKED = Settings(num_inference_steps=1, processing_resolution=48)


def test_depth_comes_from_where_the_displacement_leads() -> None:
    depth = torch.arange(12.0).view(1, 1, 3, 4) / 12
    right, down = torch.tensor([[1.0, 0.0], [0.0, 2.0]])[:, :, None, None].expand(2, 2, 3, 4)
    beside, below = (displace(depth, one[None])[0, 0] for one in (right, down))
    torch.testing.assert_close(beside[:, :3], depth[0, 0, :, 1:])
    torch.testing.assert_close(beside[:, 3], depth[0, 0, :, 3])  # nothing lies beyond the picture
    torch.testing.assert_close(below[0], depth[0, 0, 2])


def test_a_new_network_displaces_nothing_and_a_trained_one_at_most_its_reach() -> None:
    photo, depth = torch.rand(2, 3, 34, 50) * 2 - 1, torch.rand(2, 1, 34, 50)
    torch.testing.assert_close(DisplacementNetwork()(photo, depth), depth)
    network = shifting(50.0)
    assert network.displacements(photo, depth).abs().max() <= network.reach_px
    moved = network(photo, depth)
    assert depth.min() <= moved.min() and moved.max() <= depth.max()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (33, 57)])
def test_maps_of_any_size_keep_it_and_their_range(height: int, width: int) -> None:
    rng = np.random.default_rng(1)
    depth = 3 + rng.random((height, width)).astype(np.float32)
    photo = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    after = follow_outlines(depth, photo, 16, shifting(2.0))
    assert after.shape == (height, width) and after.dtype == np.float32
    assert depth.min() - 1e-5 <= after.min() and after.max() <= depth.max() + 1e-5


def test_a_jump_moves_by_what_the_network_says_in_pixels_of_what_it_sees() -> None:
    depth = np.where(np.arange(96) < 48, 0.2, 0.8).astype(np.float32)[None].repeat(64, 0)
    photo = np.zeros((64, 96, 3), np.uint8)
    network = shifting(3.0)  # to the right, in each of two passes, in a map of 96 pixels
    after = follow_outlines(depth, photo, 48, network)
    assert abs(int(np.argmax(after[32] > 0.5)) - (48 - 6)) <= 1


def test_a_checkpoint_that_has_one_uses_it_and_is_another_one(tiny_depth: Path, tmp_path: Path, photo) -> None:
    folder = with_displacement(tiny_depth, tmp_path / "moved")
    plain, own = load(tiny_depth, device="cpu"), load(folder, device="cpu")
    assert own.checkpoint.sha256 != plain.checkpoint.sha256 and own.displacement is not None
    picture = photo(50, 70)
    as_it_is = own(picture, ASKED).values
    assert np.array_equal(as_it_is, plain(picture, ASKED).values)
    followed = own(picture, ASKED.changed(follow_outlines=True)).values
    assert np.array_equal(followed, follow_outlines(as_it_is, picture, 48, own.displacement))
    assert not np.array_equal(followed, follow_outlines(as_it_is, picture, 48))
    assert CONFIG_FILES.fullmatch("displacement/config.json")  # a hub's download takes it


def test_one_that_is_not_whole_is_refused(tiny_depth: Path, tmp_path: Path) -> None:
    folder = with_displacement(tiny_depth, tmp_path / "moved")
    lacking = Path(shutil.copytree(folder, tmp_path / "lacking"))
    (lacking / "displacement" / "diffusion_pytorch_model.safetensors").unlink()
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    config = (other / "displacement" / "config.json").read_text(encoding="utf-8")
    (other / "displacement" / "config.json").write_text(config.replace("24", "16", 1), encoding="utf-8")
    for damaged in (lacking, other):
        with pytest.raises(CheckpointError, match="displacement"):
            load(damaged, device="cpu")
