"""Tiles of large photos: coarse parts of the whole, fine parts of the tiles, no seams, memory of one tile."""

from typing import Any

import numpy as np
import pytest
import torch

from marigold_core import Prediction, Progress, Settings, SettingsError
from marigold_core.images.photo import Photo
from marigold_core.pipeline.modalities import Depth, Normals
from marigold_core.pipeline.tiles import Mosaic, blurred, boxes, cut_out, member_grid
from marigold_core.settings import tile_size
from tests.helpers.planted import fit_error, generator, plant, smooth

pytestmark = pytest.mark.numeric

QUICK: dict[str, Any] = {"num_inference_steps": 2, "processing_resolution": 32}
GRID = (96, 128)


def members(found: Prediction) -> np.ndarray:
    assert found.members is not None
    return found.members.astype(np.float32)


def rebuilt(truth: torch.Tensor, per_side: int, modality: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Put together a coarse map of the truth and tiles, each of its own scale, shift and tilt -> it, the coarse map."""
    rng = generator(per_side)
    coarse = modality.resize(torch.nn.functional.avg_pool2d(truth, 8), GRID)
    mosaic = Mosaic(coarse, GRID, per_side, modality)
    for number, (rows, columns) in enumerate(boxes(GRID, per_side)):
        scale, shift = (0.5 + torch.rand(1, generator=rng), torch.rand(1, generator=rng))
        tile = truth[..., rows, columns]
        tilt = 0.2 * (torch.rand(1, generator=rng) - 0.5) * torch.linspace(-1, 1, tile.shape[-1])
        mosaic.add(number, scale * (tile + tilt) + shift if modality.name == "depth" else tile)
    return mosaic.member(), coarse


@pytest.mark.parametrize("per_side", [2, 3, 4])
def test_detail_comes_from_the_tiles_without_seams(per_side: int) -> None:
    truth = 0.8 * plant(generator(0), "boxes", GRID) + 0.05 * smooth(generator(1), 1, GRID, knots=60) + 0.1
    found, coarse = rebuilt(truth, per_side, Depth())
    assert fit_error(found, truth) < 0.7 * fit_error(coarse, truth)
    assert coarse.min() <= found.min() and found.max() <= coarse.max()
    # Seam energy: the steps of what is wrong, across the ends of tiles and everywhere, as in the untiled map.
    steps = (found - truth).diff(dim=-1).abs()[0, 0]
    ends = {end for _, columns in boxes(GRID, per_side) for end in (columns.start, columns.stop)} - {0, GRID[1]}
    at_ends = torch.stack([steps[:, end - 1].mean() for end in ends]).mean()
    assert at_ends < 1.5 * steps.mean() + 1e-3


def test_directions_stay_of_unit_length() -> None:
    truth = torch.nn.functional.normalize(smooth(generator(2), 3, GRID, knots=30).transpose(0, 1), dim=1)
    found, coarse = rebuilt(truth, 2, Normals())
    assert torch.allclose(found.norm(dim=1), torch.ones(1, *GRID), atol=1e-4)
    assert (found - truth).square().mean() < (coarse - truth).square().mean()


@pytest.mark.parametrize(
    ("photo", "resolution", "per_side", "expected"),
    [
        ((600, 800), 256, 2, (336, 448)),
        ((600, 800), 256, 1, (192, 256)),
        ((300, 400), 256, 4, (300, 400)),  # never more than the photo has
        ((150, 200), 256, 2, (192, 256)),  # unless the network sees it so
        ((600, 800), 0, 3, (600, 800)),
        ((9, 7), 16, 4, (16, 12)),
    ],
)
def test_tiles_cover_the_photo_and_keep_its_camera(photo, resolution, per_side, expected) -> None:
    settings = Settings(tiles_per_side=per_side).resolved(1, resolution)
    grid = member_grid(photo, settings)
    assert grid == expected
    covered = np.zeros(grid, int)
    for box in boxes(grid, per_side):
        covered[box] += 1
    assert per_side == 1 or covered.min() == 1
    tiles = list(cut_out(Photo(np.zeros((*photo, 3), np.uint8), 60.0, None), settings))
    assert len(tiles) == (per_side**2 if per_side > 1 else 0)
    for tile in tiles:
        np.testing.assert_allclose(tile.pixels.shape[:2], tile_size(photo, per_side), atol=2.1)
        assert tile.fov_x_deg is not None
        ratio = np.tan(np.radians(tile.fov_x_deg / 2)) / np.tan(np.radians(30))
        assert ratio == pytest.approx(tile.pixels.shape[1] / photo[1])  # the same focal length


def test_members_have_the_coarse_part_of_untiled_ones(pipe, photo, monkeypatch) -> None:
    picture, settings, sizes = photo(60, 80), Settings(**QUICK, ensemble_size=3), set[int]()
    plain = pipe(picture, settings)
    encode = pipe.vae.encode
    monkeypatch.setattr(pipe.vae, "encode", lambda x, **how: sizes.add(x.numel()) or encode(x, **how))
    events = list(pipe.stream(picture, settings.changed(tiles_per_side=2)))
    assert sizes == {3 * 24 * 32}  # a tile costs the memory of a photo
    steps = [event for event in events if isinstance(event, Progress) and "step" in event.stage]
    assert [step.done for step in steps] == list(range(1, 3 * 5 * 2 + 1)) and steps[0].total == 30
    assert steps[2].stage == "member 1 of 3, tile 1 of 4, step 1 of 2"
    *_, tiled = events
    assert tiled.settings.tiles_per_side == 2 and tiled.uncertainty is not None
    assert members(tiled).shape == (3, 42, 56) and tiled.values.shape == (60, 80)
    for one, other in zip(members(tiled), members(plain), strict=True):
        whole = Depth().resize(torch.tensor(other)[None, None], (42, 56))
        assert (blurred(torch.tensor(one)[None, None], 3.5) - blurred(whole, 3.5)).abs().mean() < 0.02
    assert np.abs(tiled.values - plain.values).max() > 0.01


@pytest.mark.parametrize("views", ["photo", "mirrored-rescaled"])
def test_members_can_be_added_and_do_not_depend_on_the_batch(pipe, photo, views) -> None:
    picture, asked = photo(60, 80), Settings(**QUICK, tiles_per_side=2, views=views, batch_size=1)
    whole = pipe(picture, asked.changed(ensemble_size=3))
    together = pipe(picture, asked.changed(ensemble_size=3, batch_size=3))
    np.testing.assert_allclose(members(together), members(whole), atol=1e-3)
    part = pipe(picture, asked.changed(ensemble_size=2))
    *_, more = pipe.stream(picture, asked.changed(ensemble_size=3), start=part)
    assert np.array_equal(members(more), members(whole))
    with pytest.raises(SettingsError, match="can be continued"):
        list(pipe.stream(picture, asked.changed(ensemble_size=3, tiles_per_side=1), start=part))
