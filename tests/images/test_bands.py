"""Work in bands of rows gives the very same numbers and files, and holds little on the way."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from marigold_core.files.presets import PRESETS
from marigold_core.files.writers import formats_for, save
from marigold_core.geometry.stereo import stereo_pair
from marigold_core.images import bands
from marigold_core.images.bands import in_bands
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings
from tests.helpers.command_line import fingerprints
from tests.helpers.predictions import prediction_of


def scene(height: int, width: int) -> Prediction:
    """Depth with slopes, jumps and noise, under a photo of noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(width)
    values = (0.3 * x + 0.3 * y + 0.3 * (np.sin(20 * x) > y) + 0.01 * rng.random((height, width))).astype(np.float32)
    photo = rng.integers(0, 256, (height, width, 3), np.uint8)
    return prediction_of(values, uncertainty=values * np.float32(0.1), photo=photo)


@pytest.mark.parametrize("kind", ["affine", "metric"])
def test_files_of_many_bands_have_the_bytes_of_those_of_one(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(scene(150, 97), kind=kind)
    programs = [name for name, preset in PRESETS.items() if kind == "metric" or not preset.metric]
    how: dict[str, Any] = {"save_for": programs, "mesh": MeshSettings(max_triangles=4000)}
    save(made, tmp_path / "one", formats_for(made), **how)
    monkeypatch.setattr(bands, "BAND_NUMBERS", 97 * 11)
    save(made, tmp_path / "many", formats_for(made), **how)
    assert fingerprints(tmp_path / "many") == fingerprints(tmp_path / "one")


@pytest.mark.parametrize("layout", get_args(MeshSettings.model_fields["stereo_layout"].annotation))
def test_stereo_pairs_of_many_bands_are_those_of_one(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, mesh = scene(90, 61), MeshSettings(stereo_layout=layout)
    one = stereo_pair(made, mesh)
    monkeypatch.setattr(bands, "BAND_NUMBERS", 61 * 7)
    for found, expected in zip(stereo_pair(made, mesh), one, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_band_sees_the_rows_around_it_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def change(rows: np.ndarray) -> np.ndarray:
        seen.append(len(rows))
        return rows * 2

    monkeypatch.setattr(bands, "BAND_NUMBERS", 5 * 3)
    values = np.arange(30).reshape(10, 3)
    np.testing.assert_array_equal(in_bands(change, values), values * 2)
    assert seen == [5, 5]
    monkeypatch.setattr(bands, "BAND_NUMBERS", 1)
    np.testing.assert_array_equal(in_bands(change, values, halo=1), values * 2)
    assert seen[2:] == [5, 6, 3]
    assert in_bands(change, values[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("formats", "programs", "most"),
    [(["npy", "png16", "color", "uncertainty"], (), 1.5), (["normals"], (), 3.0), ((), ["stereo"], 6.0)],
)
def test_files_of_a_large_photo_take_little_memory(
    formats: Any, programs: Any, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of arrays, in sizes of the depth; whole, they took 4, 13 and 32."""
    monkeypatch.setattr(bands, "BAND_NUMBERS", 1 << 15)
    made = scene(1000, 1500)
    save(made, tmp_path / "warm", formats, save_for=programs)  # libraries are imported
    tracemalloc.start()
    try:
        save(made, tmp_path / "large", formats, save_for=programs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most * made.values.nbytes
