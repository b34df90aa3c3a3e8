"""Test-time views: what each member sees, and that its map comes back to the photo's grid."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from marigold_core import Prediction, Settings, load
from marigold_core.pipeline.modalities import Depth, Normals
from marigold_core.pipeline.views import VIEWS, View, count_views, relative_pixels, view_of
from tests.pipeline.test_pipeline import QUICK, members

pytestmark = pytest.mark.numeric

ALL = len(VIEWS["mirrored-rescaled"])


@pytest.mark.parametrize("views", VIEWS)
def test_the_first_member_sees_the_photo_as_it_is(pipe, picture, views):
    assert np.array_equal(members(pipe, picture, views=views), members(pipe, picture))


def test_the_second_member_sees_the_mirror_image(pipe, picture):
    found = members(pipe, picture, ensemble_size=3, views="mirrored")
    plain = members(pipe, picture, ensemble_size=3)
    mirrored = members(pipe, picture[:, ::-1], ensemble_size=2)[..., ::-1]
    assert np.array_equal(found[1], mirrored[1]) and not np.array_equal(found[1], plain[1])
    assert np.array_equal(found[[0, 2]], plain[[0, 2]])


def test_mirrored_normals_face_the_other_way(tiny_normals, picture):
    pipe = load(tiny_normals, device="cpu")
    found = members(pipe, picture, ensemble_size=2, views="mirrored")[1]
    mirrored = members(pipe, picture[:, ::-1], ensemble_size=2)[1][:, ::-1]
    np.testing.assert_array_equal(found, mirrored * np.array([-1, 1, 1], np.float32))


@pytest.mark.parametrize(("k", "resolution", "flip"), [(1, 64, True), (2, 40, True), (5, 40, False)])
def test_members_of_other_sizes_come_back_to_the_grid_of_the_photo(pipe, picture, k, resolution, flip):
    found = members(pipe, picture, ensemble_size=k + 1, views="mirrored-rescaled")
    seen = picture[:, ::-1] if flip else picture
    alone = members(pipe, seen, ensemble_size=k + 1, processing_resolution=resolution)[k]
    alone = alone[:, ::-1].copy() if flip else alone
    resized = F.interpolate(torch.tensor(alone)[None, None], found.shape[1:], mode="bilinear")[0, 0].numpy()
    assert found.shape[1:] == (34, 48) and max(alone.shape) == resolution
    np.testing.assert_allclose(found[k], resized, atol=1e-3)


@pytest.mark.parametrize("checkpoint", ["tiny_depth", "tiny_depth_lcm", "tiny_guided"])
def test_members_do_not_depend_on_the_batch(checkpoint, picture, request):
    pipe = load(request.getfixturevalue(checkpoint), device="cpu")
    settings = {"ensemble_size": ALL + 1, "views": "mirrored-rescaled"}
    one = members(pipe, picture, batch_size=1, **settings)
    np.testing.assert_allclose(members(pipe, picture, batch_size=ALL + 1, **settings), one, atol=1e-3)


def test_members_of_a_batch_come_in_their_order_with_progress_between(pipe, picture):
    settings = Settings(**QUICK, ensemble_size=4, batch_size=4, views="mirrored-rescaled")
    events = list(pipe.stream(picture, settings))
    made = [event.settings for event in events if isinstance(event, Prediction)]
    assert [one.ensemble_size for one in made if isinstance(one, Settings)] == [1, 2, 3, 4]
    steps = [event for event in events if "step" in getattr(event, "stage", "")]
    assert [(step.done, step.total) for step in steps] == [(2, 8), (4, 8), (5, 8), (6, 8), (7, 8), (8, 8)]
    assert steps[0].stage == "members 1, 4 of 4, step 1 of 2"


def test_the_photo_is_encoded_once_in_each_view_and_members_can_be_added(pipe, picture, calls_of):
    calls = calls_of(pipe.vae, "encode")
    whole = pipe(picture, Settings(**QUICK, ensemble_size=ALL + 2, views="mirrored-rescaled"))
    assert len(calls) == ALL
    part = pipe(picture, Settings(**QUICK, ensemble_size=2, views="mirrored-rescaled"))
    assert len(calls) == ALL + 2
    *_, more = pipe.stream(picture, Settings(**QUICK, ensemble_size=4, views="mirrored-rescaled"), start=part)
    assert len(calls) == ALL + 4
    assert np.array_equal(more.members, whole.members[:4])


def test_a_grid_has_the_members_of_single_runs(pipe, picture):
    asked: dict[str, Any] = {"processing_resolution": 48, "views": "mirrored-rescaled"}
    for cell in pipe.grid(picture, steps=[1, 2], sizes=[1, 3], seeds=[0, 7], **asked):
        assert cell.settings.views == "mirrored-rescaled"
        assert np.array_equal(cell.prediction.members, pipe(picture, cell.settings).members)


def test_the_noise_of_a_member_has_the_size_of_its_view(pipe, picture):
    sizes = [
        tuple(pipe.member_noise(picture, Settings(**QUICK, views="mirrored-rescaled"), k).shape[-2:]) for k in range(4)
    ]
    height, width = sizes[0]
    assert sizes[3] == sizes[0] and sizes[1] > (height, width) > sizes[2]


def test_the_mirror_image_of_a_mirror_image_is_the_map():
    for modality, channels in ((Depth(), 1), (Normals(), 3)):
        values = torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(0))
        assert torch.equal(modality.mirror(modality.mirror(values)), values)
    facing_right = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert Normals().mirror(facing_right).flatten().tolist() == [-1, 0, 0]


@pytest.mark.parametrize(
    ("scale", "resolution", "size", "seen"),
    [
        (1.0, 0, (50, 70), 0),
        (1.0, 250, (50, 70), 250),
        (1.25, 256, (50, 70), 320),
        (0.875, 256, (50, 70), 224),
        (1.25, 0, (480, 640), 800),
        (0.875, 16, (20, 16), 16),  # no smaller than the least resolution
        (1.25, 2048, (3000, 4000), 2048),  # no larger than the largest
        (1.25, 0, (3000, 4000), 4000),  # unless the photo is
    ],
)
def test_sizes_of_views_are_resolutions(scale, resolution, size, seen):
    assert View(scale=scale).resolution(resolution, size) == seen


def test_views_are_counted_and_weighed():
    assert [count_views("mirrored", members) for members in (1, 2, 9)] == [1, 2, 2]
    assert relative_pixels("mirrored", 5) == 1
    assert relative_pixels("mirrored-rescaled", 2) == pytest.approx((1 + 1.25**2) / 2)
    assert [view_of("mirrored", k).mirrored for k in range(4)] == [False, True, False, True]
