"""A run with several pictures at once: what every other run can do, it can too; what needs depth is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marigold_core import CalibrationError, Hints, Settings, SettingsError, calibrate, load
from marigold_core.calibration.anchors import Anchor
from marigold_core.checkpoints.registry import find
from marigold_core.comparison.contact_sheet import draw, paint_differences, paint_maps
from marigold_core.comparison.sweep import against_reference, check_alike, reduce
from marigold_core.images.colormaps import layer_to_rgb, to_rgb
from marigold_core.images.intrinsics import Layer
from marigold_core.pipeline.convergence import convergence_curve

pytestmark = pytest.mark.numeric

QUICK = Settings(num_inference_steps=2, processing_resolution=64, ensemble_size=4)


def test_members_can_be_added_seen_mirrored_and_watched(tiny_intrinsics: Path, photo: Any) -> None:
    pipe: Any = load(tiny_intrinsics, device="cpu")
    found = pipe(photo(48, 64), QUICK.changed(views="mirrored"))
    channels = sum(len(layer.channels) for layer in found.layers)
    assert found.values.shape == (48, 64, channels) and found.members.shape == (4, 48, 64, channels)
    assert found.values.min() >= 0 and found.values.max() <= 1
    three = pipe(photo(48, 64), QUICK.changed(ensemble_size=3, views="mirrored"))
    *_, continued = pipe.stream(photo(48, 64), QUICK.changed(views="mirrored"), start=three)
    np.testing.assert_allclose(continued.values, found.values, atol=1e-3)  # members are kept in half precision
    points = convergence_curve(found)
    changes = [point.change for point in points]
    assert len(points) == 4 and changes[0] is None and all(change for change in changes[1:])
    largest = pipe(photo(48, 64), QUICK.changed(processing_resolution=0, ensemble_size=1)).values
    assert largest.shape == (48, 64, channels)


def test_settings_are_compared_over_all_layers_and_shown_by_the_first(tiny_intrinsics: Path, photo: Any) -> None:
    cells = list(load(tiny_intrinsics, device="cpu").grid(photo(48, 64), steps=[1, 2], sizes=[1, 3]))
    rows = against_reference([reduce(cell) for cell in cells])
    first, last = cells[0].prediction, cells[-1].prediction
    assert rows[0].difference.mean() == pytest.approx(np.abs(first.values - last.values).mean(), rel=1e-4)
    painted = paint_maps(rows)
    assert painted.shows == "Albedo" and painted.bar is None
    np.testing.assert_array_equal(painted.picture(rows[0]), to_rgb(first))
    for paint in (painted, paint_differences(rows)):
        assert draw(rows, photo(48, 64), paint).startswith(b"\x89PNG")


def test_intrinsics_stand_in_no_table_with_depth_and_have_no_metres(
    tiny_intrinsics: Path, tiny_depth: Path, photo: Any
) -> None:
    with pytest.raises(SettingsError, match=r"differ in meaning: .* gives albedo and .*, .* gives affine depth"):
        check_alike([find(tiny_intrinsics), find(tiny_depth)])
    found = load(tiny_intrinsics, device="cpu")(photo(48, 64), QUICK.changed(ensemble_size=1))
    with pytest.raises(CalibrationError, match="Metres are found for depth, not for intrinsics"):
        calibrate(found, Hints(anchors=(Anchor(3, 4, 2.0), Anchor(9, 9, 5.0))))


def test_of_unknown_scale_the_brightest_is_white_and_linear_light_is_seen_through_the_curve_of_srgb() -> None:
    values = np.linspace(0, 0.5, 5, dtype=np.float32)[None, :, None].repeat(3, axis=-1)
    shading = Layer("shading", 0, (0, 1, 2), "linear", up_to_scale=True)
    albedo = Layer("albedo", 0, (0, 1, 2), "linear")
    assert layer_to_rgb(values, shading)[0, :, 0].tolist() == [0, 137, 188, 225, 255]  # sRGB of 0, .25, .5, .75, 1
    assert layer_to_rgb(values, albedo)[0, -1, 0] == 188
    stored = Layer("albedo", 0, (0, 1, 2), "srgb")
    assert layer_to_rgb(values, stored)[0, -1].tolist() == [128] * 3
    assert layer_to_rgb(values[..., 0], Layer("roughness", 1, (0,), "linear"))[0, -1].tolist() == [128] * 3
