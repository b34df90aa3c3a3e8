"""Protocols: which pixels count, and the published ones."""

import math

import numpy as np
import pytest

from marigold_core.errors import SettingsError
from training.data.sets import KINDS
from training.scoring.protocols import CROPS, PRESETS, Crop, Overrides, Protocol, choose_protocol

# (near, far, crop, mask, resolution, alignment_max_px). Source: Ke et al. 2024 and the authors' released scripts.
PUBLISHED = {
    "nyu": (1e-3, 10, "nyu", "range", 0, 0),
    "kitti": (1e-5, 80, "eigen", "range", 0, 0),
    "kitti-garg": (1e-5, 80, "garg", "range", 0, 0),
    "eth3d": (1e-5, math.inf, "none", "range", 756, 1024),
    "scannet": (1e-3, 10, "none", "range", 0, 0),
    "diode": (0.6, 350, "none", "known", 640, 0),
    "hypersim": (1e-5, 65, "none", "range", 0, 0),
    "vkitti": (1e-5, 80, "none", "range", 0, 0),
    "measured": (1e-3, 80, "none", "range", None, 0),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_numbers(name: str) -> None:
    one = PRESETS[name]
    found = one.near_m, one.far_m, one.crop, one.mask, one.processing_resolution, one.alignment_max_px
    assert found == PUBLISHED[name]
    assert (one.alignment, one.averaging) == ("auto", "pictures")


@pytest.mark.parametrize(
    ("crop", "size", "rows", "columns"),
    [
        ("garg", (352, 1216), (143, 349), (43, 1172)),
        ("eigen", (352, 1216), (117, 321), (43, 1172)),
        ("nyu", (480, 640), (45, 471), (41, 601)),
        ("none", (375, 1242), (0, 375), (0, 1242)),
    ],
)
def test_crops_are_the_published_pixels(
    crop: Crop, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    found = Protocol(crop=crop).window(*size)
    assert [(cut.start, cut.stop) for cut in found] == [rows, columns]
    counted = Protocol(crop=crop).counted(np.ones(size))
    assert counted.sum() == (rows[1] - rows[0]) * (columns[1] - columns[0])
    assert counted[rows[0] : rows[1], columns[0] : columns[1]].all()


def test_what_does_not_count() -> None:
    depth = np.full((10, 10), 2.0, np.float32)
    depth[0] = np.nan
    depth[1] = 81
    depth[2] = 5e-4
    depth[3] = np.inf
    assert Protocol().counted(depth).sum() == 60
    assert PRESETS["eth3d"].counted(depth).sum() == 80  # no limit, but the sky has no depth
    assert PRESETS["diode"].counted(depth).sum() == 80  # its own mask says what is known, whatever the depth
    assert Protocol(near_m=2).counted(depth).sum() == 0  # the ends do not count
    assert Protocol(far_m=2).counted(depth).sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_has_a_protocol(kind: str) -> None:
    assert choose_protocol(kind) == PRESETS.get(kind, PRESETS["measured"])


def test_a_name_goes_before_the_kind_and_single_fields_before_both() -> None:
    assert choose_protocol("measured", "kitti") == PRESETS["kitti"]
    changed = choose_protocol("nyu", "kitti", Overrides(far_m=50.0, crop="none", alignment="disparity"))
    assert changed == Protocol(near_m=1e-5, far_m=50, alignment="disparity", processing_resolution=0)


def test_every_field_but_the_resolution_can_be_overridden() -> None:
    """The resolution is an option of the prediction's settings."""
    assert set(Overrides.model_fields) == set(Protocol.model_fields) - {"processing_resolution"}


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(SettingsError, match="'nyuv2'.*kitti-garg"):
        choose_protocol("nyu", "nyuv2")
    with pytest.raises(SettingsError, match="near_m must be greater than 0"):
        choose_protocol("nyu", None, Overrides(near_m=-1.0))
    with pytest.raises(SettingsError, match="alignment"):
        Protocol(alignment="affine")  # pyright: ignore[reportArgumentType]
    assert "none" in CROPS
