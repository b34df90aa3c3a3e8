from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marigold_core.errors import MarigoldError
from training.data.photographs import Unlabelled, folder_colours

pytestmark = pytest.mark.numeric


@pytest.fixture
def photos(tmp_path: Path, write) -> Path:
    write(tmp_path / "photos" / "one.jpg", 1)
    write(tmp_path / "photos" / "below" / "two.PNG", 2)
    (tmp_path / "photos" / "notes.txt").write_text("not a photo")
    return tmp_path / "photos"


def test_unlabelled_photographs_are_a_function_of_seed_and_place(photos: Path) -> None:
    source, again, other = Unlabelled(photos, 0), Unlabelled(photos, 0), Unlabelled(photos, 1)
    assert [path.name for path in source.paths] == ["two.PNG", "one.jpg"]
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
