"""Known depths from a sparse map: positions, units, what stands for unknown, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import Anchor, CalibrationError, ImageError
from marigold_core.calibration.sparse import MAX_POINTS, read_sparse


def saved(folder: Path, values: np.ndarray, name: str = "sparse.npy") -> Path:
    path = folder / name
    Image.fromarray(values).save(path) if name.endswith("png") else np.save(path, values)
    return path


def test_positions_are_those_of_the_photo(tmp_path: Path):
    values = np.zeros((30, 40), np.float32)
    values[2, 3], values[20, 39], values[5, 5], values[6, 6] = 2.5, 7.25, np.nan, -1
    assert read_sparse(saved(tmp_path, values), (30, 40)) == [Anchor(3.5, 2.5, 2.5), Anchor(39.5, 20.5, 7.25)]
    found = read_sparse(saved(tmp_path, values), (60, 80), along="ray")
    assert found == [Anchor(7.0, 5.0, 2.5, "ray"), Anchor(79.0, 41.0, 7.25, "ray")]


def test_of_a_larger_map_each_pixel_of_the_photo_has_one_depth(tmp_path: Path):
    values = np.arange(1.5, 1201.5, dtype=np.float32).reshape(30, 40)
    found = read_sparse(saved(tmp_path, values), (15, 20))
    assert len({(int(one.y), int(one.x)) for one in found}) == len(found) == 15 * 20


def test_whole_numbers_need_their_unit(tmp_path: Path):
    values = np.zeros((30, 40), np.uint16)
    values[2, 3], values[9, 9] = 2500, 7250
    path = saved(tmp_path, values, "sparse.png")
    with pytest.raises(CalibrationError, match=re.escape("say with sparse_unit_m how many metres 1 is")):
        read_sparse(path, (30, 40))
    assert [one.metres for one in read_sparse(path, (30, 40), unit_m=0.001)] == [2.5, 7.25]


def test_of_very_many_as_many_are_drawn_every_time(tmp_path: Path):
    values = np.random.default_rng(0).uniform(1, 9, (100, 90)).astype(np.float32)
    path = saved(tmp_path, values)
    found = read_sparse(path, (100, 90))
    assert len(found) == MAX_POINTS and found == read_sparse(path, (100, 90))
    assert all(values[int(one.y), int(one.x)] == np.float32(one.metres) for one in found)
    assert {int(one.y) // 25 for one in found} == {0, 1, 2, 3}


def test_what_is_no_sparse_map_of_the_photo_is_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match="not the shape of the photo's 90 x 30"):
        read_sparse(saved(tmp_path, np.ones((30, 40), np.float32)), (30, 90))
    with pytest.raises(CalibrationError, match="holds no depth that is known"):
        read_sparse(saved(tmp_path, np.zeros((30, 40), np.float32)), (30, 40))
    with pytest.raises(ImageError):
        read_sparse(saved(tmp_path, np.ones((30, 40, 3), np.float32)), (30, 40))
