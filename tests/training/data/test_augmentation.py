import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marigold_core.errors import MarigoldError
from training.data.augmentation import (
    crop_nearest,
    crop_picture,
    draw_crop,
    measure_colours,
    motion_blur,
    photographic,
    turn_hue,
)
from training.data.photographs import Unlabelled, folder_colours, photographs
from training.data.random_streams import stream

pytestmark = pytest.mark.numeric


# ------------------------------------------------------------------------------------------- crops


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


# ------------------------------------------------------------------------------------------- faults


def test_faults_change_every_picture_and_repeat() -> None:
    pictures = torch.rand(4, 3, 32, 48, generator=stream(0))
    before = pictures.clone()
    once, again = (photographic(pictures, stream(1), colours=torch.full((2, 3, 2), 0.3)) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(pictures, before)
    assert once.shape == pictures.shape
    assert ((once - pictures).abs().mean(dim=(1, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("size", [(24, 32), (96, 640)])
def test_faulty_pictures_stay_pictures(size: tuple[int, int]) -> None:
    extremes = torch.cat([torch.zeros(8, 3, *size), torch.ones(8, 3, *size), torch.rand(8, 3, *size)])
    faulty = photographic(extremes, stream(3))
    assert faulty.min() >= 0
    assert faulty.max() <= 1


def test_a_share_of_the_pictures_is_affected() -> None:
    pictures = torch.rand(1, 3, 8, 12, generator=stream(0)).expand(200, -1, -1, -1)
    faulty = photographic(pictures, stream(1), share=0.3)
    changed = ~(faulty == pictures).all(dim=3).all(dim=2).all(dim=1)
    assert 40 < changed.sum() < 80
    assert len({picture.numpy().tobytes() for picture in faulty[changed]}) == changed.sum()  # each its own faults
    assert photographic(pictures, stream(1), share=0.0) is pictures


def test_motion_blurs_along_a_line() -> None:
    point = torch.zeros(3, 1, 15, 15)
    point[:, :, 7, 7] = 1
    along, down, slanted = motion_blur(point, torch.tensor([5.0, 3, 11]), torch.tensor([0, math.pi / 2, math.pi / 4]))
    assert along[0, 7].tolist() == pytest.approx([0] * 5 + [0.2] * 5 + [0] * 5, abs=1e-5)
    assert down[0, :, 7].tolist() == pytest.approx([0] * 6 + [1 / 3] * 3 + [0] * 6, abs=1e-5)
    rows, columns = slanted[0].nonzero(as_tuple=True)
    assert ((rows - columns).abs() <= 1).all()
    assert (rows.max() - rows.min()).item() in (8, 10)  # 11 long at 45 degrees
    assert slanted.sum().item() == pytest.approx(1, abs=1e-5)


def test_motion_leaves_an_even_picture_as_it_is() -> None:
    even = torch.full((16, 3, 9, 9), 0.7)
    lengths = torch.tensor([3.0, 5, 7, 11]).repeat(4)
    assert torch.allclose(motion_blur(even, lengths, torch.linspace(0, math.pi, 16)), even, atol=1e-5)


def test_hues_turn_and_grey_stays() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.4, 0.4, 0.4]]).T.reshape(1, 3, 1, 3)
    turned = turn_hue(colours, torch.tensor([1 / 3]).view(1, 1, 1, 1))
    assert torch.allclose(turned[0, :, 0, 0], torch.tensor([0.0, 1, 0]), atol=1e-5)  # red becomes green
    assert torch.allclose(turned[0, :, 0, 1], torch.tensor([0.0, 0, 1]), atol=1e-5)  # green becomes blue
    assert torch.allclose(turned[..., 2], colours[..., 2], atol=1e-5)
    back = turn_hue(turn_hue(colours, torch.full((1, 1, 1, 1), 0.17)), torch.full((1, 1, 1, 1), -0.17))
    assert torch.allclose(back, colours, atol=1e-5)


def test_pictures_take_over_the_colours_of_a_real_one() -> None:
    pictures = torch.rand(200, 3, 16, 24, generator=stream(0))
    red = np.zeros((4, 4, 3), np.uint8) + np.array([230, 25, 25], np.uint8)
    look = torch.from_numpy(measure_colours(red))[None]
    assert look[0, 0].tolist() == pytest.approx([230 / 255, 0], abs=1e-5)
    lent, own = (photographic(pictures, stream(1), colours).mean(dim=(2, 3)) for colours in (look, None))
    redder = lent[:, 0] - lent[:, 1] > 0.15
    assert 50 < redder.sum() < 110  # half, but for those whose colour is then taken away again
    assert (own[:, 0] - own[:, 1]).abs().mean() < 0.1


# ------------------------------------------------------------------------------- photographs without depth


@pytest.fixture
def photos(tmp_path: Path, write) -> Path:
    write(tmp_path / "photos" / "one.jpg", 1)
    write(tmp_path / "photos" / "below" / "two.PNG", 2)
    (tmp_path / "photos" / "notes.txt").write_text("not a photo")
    return tmp_path / "photos"


def test_unlabelled_photographs_are_a_function_of_seed_and_place(photos: Path) -> None:
    source, again, other = Unlabelled(photos, 0), Unlabelled(photos, 0), Unlabelled(photos, 1)
    assert source.photographs.names == ["below/two.PNG", "one.jpg"]
    batch = source.batch(6, (32, 40), place=3)
    assert batch.shape == (6, 3, 32, 40)
    assert batch.dtype == torch.float32
    assert -1 <= batch.min() < 0 < batch.max() <= 1
    assert torch.equal(again.batch(6, (32, 40), place=3), batch)
    assert not torch.equal(source.batch(6, (32, 40), place=4), batch)
    assert not torch.equal(other.batch(6, (32, 40), place=3), batch)


def test_colours_of_a_folder(photos: Path) -> None:
    colours = folder_colours(photos)
    assert colours.shape == (2, 3, 2)
    pixels = np.asarray(Image.open(photos / "below" / "two.PNG")) / 255
    assert colours[0, :, 0].tolist() == pytest.approx(pixels.mean(axis=(0, 1)), abs=1e-4)


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    for use in (folder_colours, lambda folder: Unlabelled(folder, 0)):
        with pytest.raises(MarigoldError, match="holds no photograph"):
            use(tmp_path)
        with pytest.raises(MarigoldError, match="There is no folder .*none"):
            use(tmp_path / "none")


def test_photographs_are_what_pairs_take_too_and_no_hidden_files(tmp_path: Path) -> None:
    for name in ("a.tif", "b.avif"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "._a.tif").write_bytes(b"of a Mac")
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    found = photographs(tmp_path)
    assert found.names == ["a.tif", "b.avif", "c.jpg"]
    with pytest.raises(MarigoldError, match="c.jpg: This is not a photo that can be read"):
        found.read(2)
