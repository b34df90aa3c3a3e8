"""The draft network: what it takes part in, what stays the members', and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import Prediction, Settings, load
from marigold_core.checkpoints.hub import CONFIG_FILES
from marigold_core.checkpoints.layout import DRAFT
from marigold_core.errors import CheckpointError
from marigold_core.images.photo import load_photo
from marigold_core.pipeline.draft import SHARE, DraftNetwork
from marigold_core.pipeline.modalities import Depth
from tests.helpers.draft import flat, with_draft
from training.publish import publish

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = (3, 5)
QUICK = Settings(num_inference_steps=1, ensemble_size=2, processing_resolution=64)


def features(height: int = 6, width: int = 8) -> tuple[torch.Tensor, ...]:
    """Random features of a picture of ``height`` x ``width`` cells, and their coarser ones."""
    return tuple(torch.randn(1, one, height // n, width // n) for n, one in enumerate(CHANNELS, start=1))


@pytest.mark.numeric
@pytest.mark.parametrize("depth", [Depth(), Depth(transfer="root"), Depth(space="disparity")])
def test_it_is_the_mean_of_both_between_the_ends_of_the_members_map(depth: Depth) -> None:
    torch.manual_seed(0)
    network, given = DraftNetwork(CHANNELS, width=8), features()
    assert network(given).shape == (1, 1, 12, 16)
    drafted = depth.read(network(given))
    values = torch.nn.functional.interpolate(torch.rand(1, 1, 3, 4), (48, 64), mode="bilinear")
    found, scale = network.averaged(given, values, depth)
    assert found.min() == values.min() and found.max() == pytest.approx(float(values.max()), abs=1e-6)
    found = (found - values.min()) / scale  # the mean, before it was stretched
    cells = [
        torch.nn.functional.adaptive_avg_pool2d(one, (3, 4)).flatten() for one in (found - values, drafted, values)
    ]
    assert torch.corrcoef(torch.stack([cells[0], cells[1] - cells[2]]))[0, 1] > 0.9
    ramp = torch.linspace(0.2, 0.9, 64).expand(1, 1, 48, 64)
    halved, scale = flat(network, 0.2).averaged(given, ramp, depth)
    assert float(scale) == pytest.approx(1 / (1 - SHARE), rel=0.1)
    torch.testing.assert_close(halved, ramp, atol=0.05, rtol=0)
    same = torch.full((1, 1, 48, 64), 0.9)
    torch.testing.assert_close(network.averaged(given, same, depth)[0], same)


@pytest.mark.numeric
def test_a_soft_draft_leaves_outlines_sharp_and_nothing_shines_around_them(monkeypatch) -> None:
    network, values = DraftNetwork(CHANNELS, width=8), torch.full((1, 1, 48, 64), 0.8)
    values[..., 10:40, 22:45] = 0.2  # a near thing before a far wall
    soft = torch.nn.functional.avg_pool2d(
        values, 13, 4, 6, count_include_pad=False
    )  # its outlines are three cells wide
    monkeypatch.setattr(network, "forward", lambda given: 2 * (0.1 + 0.7 * soft) - 1)
    found, _ = network.averaged(features(), values, Depth())
    assert found[values < 0.5].max() < 0.25 and found[values > 0.5].min() > 0.75


def test_it_moves_the_fused_map_and_no_member(tiny_guided: Path, tmp_path: Path, photo) -> None:
    picture = photo(60, 80)
    plain = load(tiny_guided, device="cpu")
    own = load(with_draft(tiny_guided, tmp_path / "drafted", grey=1.0), device="cpu")
    assert own.checkpoint.sha256 != plain.checkpoint.sha256
    before, after = plain(picture, QUICK), own(picture, QUICK)
    assert before.members is not None and after.members is not None and np.array_equal(before.members, after.members)
    assert np.abs(after.values - before.values).mean() > 5e-3  # a flat draft, of which stretching leaves little
    for end in (np.min, np.max):
        assert end(after.values) == pytest.approx(end(before.values), abs=0.05)  # before both were enlarged
    *_, again = own.stream(picture, QUICK, start=after)  # whose members are all there
    assert isinstance(again, Prediction)
    np.testing.assert_allclose(again.values, after.values, atol=2e-3)
    cells = list(own.grid(picture, steps=[1], sizes=[1, 2], processing_resolution=64))
    np.testing.assert_allclose(cells[1].prediction.values, after.values, atol=1e-5)
    assert CONFIG_FILES.fullmatch(f"{DRAFT}/config.json")  # a hub's download takes it


def test_features_cover_what_the_map_covers(tiny_guided: Path, photo) -> None:
    """The networks that read them see no padding, which would shift what they say against the map."""
    pipe, seen = load(tiny_guided, device="cpu"), list[torch.Size]()
    assert pipe.prior is not None
    pipe.prior.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2:]))
    for sides in ((62, 80), (80, 62)):
        picture = load_photo(photo(*sides))
        pipe.photo_features(picture, QUICK.processing_resolution or 0)
        members = pipe(picture, QUICK).members
        assert members is not None and seen[0] == members.shape[1:]
        assert any(side % pipe.factor for side in seen[0])
        seen.clear()


@pytest.mark.parametrize(
    ("sides", "seen"), [((60, 60), (64, 64)), ((60, 80), (48, 64)), ((60, 240), (27, 111)), ((240, 60), (111, 27))]
)
def test_a_wide_photo_is_seen_with_as_many_pixels_as_one_that_was_learned_from(
    tiny_guided: Path, photo, sides: tuple[int, int], seen: tuple[int, int]
) -> None:
    pipe, found = load(tiny_guided, device="cpu"), list[torch.Size]()
    assert pipe.prior is not None
    pipe.prior.register_forward_hook(lambda _, given, __: found.append(given[0].shape[-2:]))
    pipe.photo_features(load_photo(photo(*sides)), 64)
    assert found == [seen]


def test_it_is_published(tiny_guided: Path, tmp_path: Path) -> None:
    drafted = with_draft(tiny_guided, tmp_path / "drafted")
    before, after = load(drafted).draft, load(publish(drafted, tmp_path / "published")).draft
    assert before is not None and after is not None
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("fault", ["weights missing", "other features", "no prior"])
def test_a_network_that_does_not_fit_its_checkpoint_is_refused(
    tiny_guided: Path, tiny_depth: Path, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "broken"
    if fault == "weights missing":
        with_draft(tiny_guided, folder)
        (folder / DRAFT / "diffusion_pytorch_model.safetensors").unlink()
    else:
        shutil.copytree(tiny_depth if fault == "no prior" else tiny_guided, folder)
        DraftNetwork((3, 5, 7), width=8).save_pretrained(folder / DRAFT)
    (folder / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError):
        load(folder, device="cpu")
