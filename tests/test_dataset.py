from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core.errors import MarigoldError
from training.augment import crop_nearest, crop_picture, draw_crop, photographic
from training.dataset import LatentBatches
from training.latents import crop_size, write_latents
from training.noise import stream


def test_crops_keep_their_shape_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for aspect in (0.4, 1.0, 4 / 3, 2.5):
        for _ in range(20):
            left, top, right, bottom = draw_crop(48, 64, aspect, rng)
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 48
            assert (right - left) / (bottom - top) == pytest.approx(aspect)


def test_picture_and_depth_are_cropped_alike() -> None:
    values = np.zeros((48, 64), np.float32)
    values[12:36, 16:48] = 1
    box = (8.0, 6.0, 56.0, 42.0)
    picture = crop_picture((values[..., None] * 255).repeat(3, axis=2).astype(np.uint8), box, (24, 32))[..., 0] / 255
    nearest = crop_nearest(values, box, (24, 32))
    assert set(np.unique(nearest)) == {0, 1}  # nothing between near and far is invented
    assert np.abs(picture - nearest).mean() < 0.05


def test_photographic_faults_change_pictures_and_repeat() -> None:
    pictures = torch.rand(4, 3, 32, 48, generator=stream(0))
    once, again = (photographic(pictures, stream(1), looks=torch.full((2, 3, 2), 0.3)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == pictures.shape
    assert once.min() >= 0
    assert once.max() <= 1
    assert ((once - pictures).abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_all_crop_sizes_cost_the_same_and_fit_the_autoencoder() -> None:
    assert crop_size(192, 4 / 3) == (144, 192)
    for aspect in (0.4, 0.75, 1.0, 16 / 9, 2.5):
        height, width = crop_size(192, aspect)
        assert height % 16 == width % 16 == 0
        assert height * width == pytest.approx(192 * 144, rel=0.15)


def test_an_epoch_shows_every_picture_once_and_repeats(tmp_path: Path) -> None:
    for number, (h, w) in enumerate([(4, 6), (6, 4)]):
        rows = np.arange(8, dtype=np.float16)[:, None, None, None] + 100 * number
        image = np.broadcast_to(rows, (8, 4, h, w))
        write_latents(
            tmp_path / f"shard_{number:05d}_v0", {"image": image, "target": image, "valid": np.ones((8, 1, h, w), bool)}
        )
    batches, again = LatentBatches(tmp_path, 4, seed=1), LatentBatches(tmp_path, 4, seed=1)
    assert batches.steps_an_epoch == 4
    seen = [batches.batch(step)[0] for step in range(8)]
    assert sorted(torch.cat([image[:, 0, 0, 0] for image in seen[:4]]).tolist()) == [*range(8), *range(100, 108)]
    assert not all(torch.equal(a[:, 0, 0, 0], b[:, 0, 0, 0]) for a, b in zip(seen[:4], seen[4:], strict=True))
    assert torch.equal(again.batch(6)[0], seen[6])  # whatever was read before


def test_a_folder_without_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match=r"training\.latents"):
        LatentBatches(tmp_path, 4, seed=0)
