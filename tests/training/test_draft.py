"""The draft network's training: what it learns from, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.images.photo import Photo
from marigold_core.pipeline.draft import DraftNetwork
from marigold_core.pipeline.image_prior import grid_of
from tests.helpers.floors import write_floors
from tests.helpers.training_runs import step_lines
from training.data.sets.rendered import RenderedScenes
from training.draft import Drafts, draft_losses, to_learn, train_draft
from training.engine.addition import Task, photographed
from training.recipe import DraftRecipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

QUICK = DraftRecipe(
    steps=40,
    batch_size=4,
    lr=1e-2,
    warmup_steps=2,
    cooldown_steps=10,
    ema_decay=0.0,
    pictures=8,
    width=8,
    pyramids=2,
    upside_down=0.0,
    figure_steps=40,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a floor below the sky, which has no depth."""
    return write_floors(tmp_path_factory.mktemp("scenes"))


def test_it_learns_the_greys_and_the_result_opens(tiny_guided: Path, scenes: Path, tmp_path: Path) -> None:
    task = Task(str(tiny_guided), scenes, tmp_path / "run", device="cpu")
    folder = train_draft(task, QUICK)
    losses = [line["loss"] for line in step_lines(task.out)]
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:2])
    trained = load(folder, device="cpu")
    assert trained.draft is not None
    photo = Photo(RenderedScenes(scenes)[7].rgb, None, None)
    grey = trained.draft(trained.photo_features(photo, trained.checkpoint.default_resolution))
    assert grey[..., 0, :].mean() > 0.7 and grey[..., -1, :].mean() < -0.6  # the sky is far, the ground is near


def test_the_sky_is_the_far_plane_and_a_picture_of_one_depth_does_not_count(tiny_guided: Path, scenes: Path) -> None:
    pipeline, a_set = load(tiny_guided, device="cpu"), RenderedScenes(scenes)
    sample = a_set[0]

    def learned(depth_m: np.ndarray) -> list[torch.Tensor]:
        return to_learn(pipeline, replace(sample, depth_m=depth_m), a_set)

    *features, grey, known = learned(sample.depth_m)
    assert grey.shape == known.shape == (1, *grid_of(tuple(one[None] for one in features)))
    assert bool((known == 1).all()) and bool((grey[:, 0] == 1).all()) and grey[0, -1].mean() < -0.9
    assert grey[0].mean(dim=1).diff().max() <= 1e-6  # nearer from row to row
    *_, known = learned(np.full_like(sample.depth_m, 3.0))
    assert not known.any()
    *_, known = learned(np.where(sample.depth_m < 1, np.nan, sample.depth_m))
    assert 0 < known.mean() < 1


def test_a_share_of_the_pictures_is_learned_upside_down_with_its_depth(scenes: Path) -> None:
    a_set = RenderedScenes(scenes)
    for upside_down in (0.0, 1.0):
        seen = photographed(a_set[3], QUICK.changed(upside_down=upside_down), 3)
        upright = photographed(a_set[3], QUICK.changed(upside_down=0.0), 3)
        rows = slice(None, None, -1 if upside_down else 1)
        np.testing.assert_array_equal(seen.rgb, upright.rgb[rows])
        np.testing.assert_array_equal(seen.depth_m, a_set[3].depth_m[rows])
    recipe = QUICK.changed(upside_down=0.3)
    turned = [photographed(a_set[0], recipe, number).depth_m[0, 0] != np.inf for number in range(40)]
    assert 4 <= sum(turned) <= 20


def test_every_pyramid_is_scored_where_depth_is_known_and_features_are_left_out_by_the_seed() -> None:
    features = (torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3))
    network = DraftNetwork((3, 5), width=8, pyramids=2, feature_dropout=0.5).train()
    known = torch.ones(2, 1, 8, 12)
    known[..., :6] = 0
    grey = torch.where(known > 0, 0.5, 99.0)

    def loss(seed: int) -> float:
        return draft_losses(network, Drafts(features, grey, known), seed)["loss"].item()

    assert loss(1) == loss(1) != loss(2)
    network.eval()
    each = network.each(features)
    assert loss(1) == pytest.approx((each - 0.5).abs()[..., 6:].mean().item(), rel=1e-5)
    torch.testing.assert_close(network(features), each.mean(dim=1, keepdim=True))
