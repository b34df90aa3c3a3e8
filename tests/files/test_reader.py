"""Depth maps from elsewhere as predictions: right values and kinds, our own files read back, and metres from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from marigold_core import Anchor, CalibrationError, DepthReading, Hints, MarigoldError, calibrate, from_depth, save
from marigold_core.calibration.calibrate import distance_m
from marigold_core.errors import SettingsError
from marigold_core.files.manifest import Manifest
from marigold_core.geometry.camera import metric_z, pixel_rays
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, MeshSettings
from tests.helpers.encoded import encoded
from tests.helpers.predictions import prediction_of
from tests.images.test_depth_map import LEVELS, PORTRAIT, gdepth_photo

SIZE = 48, 64
PHOTO = np.random.default_rng(3).integers(0, 255, (*SIZE, 3), np.uint8)
Z = (2 + np.add.outer(np.arange(48) / 48, np.arange(64) / 16)).astype(np.float32)  # 2 to 7 metres
UNIT = (Z - Z.min()) / np.ptp(Z)


def given(depth: object, **reading: object) -> Prediction:
    return from_depth(PHOTO, depth, DepthReading(**reading))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- what values mean


def test_without_a_word_values_are_relative_depth_and_the_note_says_so() -> None:
    found = given(Z)
    assert (found.kind, found.space, found.checkpoint, found.device) == ("affine", "depth", "given: array", None)
    np.testing.assert_allclose(found.values, UNIT, atol=1e-6)
    assert found.note == (
        "Not all of what its values mean was stated; taken as usual: depth, relative, greater is farther."
        " An array carries no unit: metres need it said (1 metre for a depth.npy of ours); our EXR and PNG carry it."
    )
    full = DepthReading(quantity="depth", greater="farther", kind="affine", measured="axis")
    assert found.settings == full
    assert found.members is None and found.uncertainty is None and found.fused == 0
    assert repr(found) == "<Prediction: affine depth, 64 x 48, given: array>"


def test_what_is_stated_is_not_called_usual() -> None:
    assert given(Z, quantity="depth", greater="farther", kind="affine").note is None
    assert given(Z, quantity="depth", unit_m=1.0).note is None


@pytest.mark.parametrize(
    ("values", "reading", "kind", "space", "expected"),
    [
        (Z, {"unit_m": 1.0}, "metric", "depth", Z),
        (np.rint(Z * 1000).astype(np.uint16), {"unit_m": 0.001}, "metric", "depth", np.rint(Z * 1000) / 1000),
        (1 / Z, {"quantity": "disparity", "unit_m": 1.0}, "metric", "depth", Z),
        (96.5 / Z, {"quantity": "disparity", "unit_m": 96.5}, "metric", "depth", Z),  # pixels: focal length x baseline
        (np.log(Z), {"quantity": "log", "unit_m": 1.0}, "metric", "depth", Z),
        (Z * 7, {"kind": "scale"}, "scale", "depth", Z / Z.max()),
        (3 / Z, {"kind": "scale", "quantity": "disparity"}, "scale", "depth", Z / Z.max()),
        (-Z, {"greater": "nearer", "quantity": "depth"}, "affine", "depth", UNIT),
        (5 - 3 * UNIT, {"greater": "nearer"}, "affine", "disparity", UNIT),
        (5 - 3 * UNIT, {"quantity": "disparity"}, "affine", "disparity", UNIT),
        (UNIT - 9, {"quantity": "log"}, "affine", "log", UNIT),
    ],
)
def test_each_meaning_has_its_values(values, reading, kind, space, expected) -> None:
    found = given(values, **reading)
    assert (found.kind, found.space) == (kind, space)
    np.testing.assert_allclose(found.values, expected, rtol=2e-6, atol=2e-6)
    assert found.values.dtype == np.float32


@pytest.mark.parametrize("fov_x_deg", [-10.0, 0.0, 500.0, float("nan")])
def test_a_field_of_view_that_no_camera_has_is_refused(fov_x_deg: float) -> None:
    with pytest.raises(SettingsError, match="fov_x_deg"):
        from_depth(PHOTO, Z, DepthReading(unit_m=1.0, measured="ray"), fov_x_deg=fov_x_deg)


def test_distances_along_rays_become_depth_along_the_axis() -> None:
    x, y = pixel_rays(SIZE, 70)
    distance = Z * np.sqrt(x**2 + y**2 + 1)
    found = from_depth(PHOTO, distance, DepthReading(unit_m=1.0, measured="ray"), fov_x_deg=70)
    np.testing.assert_allclose(found.values, Z, rtol=1e-5)
    assert found.fov_x_deg == 70


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"kind": "metric"}, "unit_m is needed for metres"),
        ({"kind": "affine", "unit_m": 1.0}, "unit_m makes metres, but kind is affine"),
        ({"kind": "scale", "quantity": "disparity", "greater": "farther"}, "disparity of kind scale is nearer"),
        ({"measured": "ray"}, "measured along rays needs kind"),
        ({"measured": "ray", "unit_m": 1.0}, "the photo tells no field of view"),
        ({"unit_m": 0.0}, "unit_m must be greater than 0"),
        ({"greater": "far"}, "greater must be 'farther' or 'nearer'"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(reading: dict[str, object], message: str) -> None:
    with pytest.raises(MarigoldError, match=message):
        given(Z, **reading)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.full(SIZE, 3.0), "one value or none"),
        (np.full(SIZE, np.nan), "one value or none"),
        (np.linspace(0, 1e300, Z.size).reshape(SIZE), "one value or none below 1,000,000,000"),
        (np.linspace(1e299, 1e300, Z.size).reshape(SIZE), "All values of the depth map are too large"),
        (np.ones((48, 48)) * Z[:, :48], "another aspect than the photo of 64 x 48"),
        (Z.T, "another aspect"),
        ([[1, 2], [3, 4]], "a path, bytes or an array"),
        ("nowhere.png", "The depth map cannot be read: there is no such file"),
        (None, "this photo is no file"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(depth: object, message: str) -> None:
    with pytest.raises(MarigoldError, match=message):
        given(depth)


@pytest.mark.parametrize(
    ("far", "reading", "is_said"),
    [
        (2e9, {"unit_m": 1.0}, True),
        (np.inf, {}, True),
        (2e6, {"unit_m": 1000.0}, True),
        (1e-10, {"quantity": "disparity", "unit_m": 1.0}, True),
        (30.0, {"quantity": "log", "unit_m": 1.0}, True),
        (0.0, {"unit_m": 1.0}, False),
        (np.nan, {}, False),
    ],
)
def test_what_is_too_far_is_said_to_count_as_no_value(far: float, reading: dict[str, Any], is_said: bool) -> None:
    depth = np.where(np.quantile(Z, 0.9) < Z, far, Z)
    found = given(depth, **reading)
    assert found.missing is not None and np.array_equal(found.missing, np.isnan(depth) | (depth == far))
    assert ("as which 1,000,000,000 and more counts" in (found.note or "")) == is_said


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (12, 16), (378, 518), (384, 512)])
def test_a_map_of_another_size_is_resized(size: tuple[int, int]) -> None:
    rows, columns = ((np.arange(side) + 0.5) / side for side in size)
    plane = 2 + np.add.outer(rows, 4 * columns)
    found = given(plane, unit_m=1.0)
    rows, columns = ((np.arange(side) + 0.5) / side for side in SIZE)
    np.testing.assert_allclose(found.values, 2 + np.add.outer(rows, 4 * columns), atol=0.13)
    assert found.note is not None and f"{size[1]} x {size[0]} was resized to the photo's 64 x 48" in found.note


# ------------------------------------------------------------------------------- missing values


def test_missing_values_stay_missing_through_mesh_files_and_metres(tmp_path: Path) -> None:
    millimetres = np.rint(Z * 1000).astype(np.uint16)
    millimetres[10:30, 20:40] = 0
    Image.fromarray(millimetres).save(tmp_path / "kinect.png")
    found = given(tmp_path / "kinect.png", unit_m=0.001)
    hole = millimetres == 0
    assert found.missing is not None and np.array_equal(found.missing, hole)
    assert np.isfinite(found.values).all() and found.values.min() > 1.9
    assert found.note is not None and "13.0% of its pixels have no value" in found.note
    paths = save(found, tmp_path / "out", ["npy", "exr", "ply", "glb", "png16"], save_for=["rgbd"])
    assert np.array_equal(np.isnan(np.load(paths["npy"])), hole)
    assert np.array_equal(np.asarray(Image.open(paths["depth_mm"])) == 0, hole)
    record = Manifest.model_validate_json(paths["manifest"].read_text())
    assert record.missing_share == pytest.approx(hole.mean())
    cloud: Any = trimesh.load(paths["ply"])
    x, y = -cloud.vertices[:, 0] / cloud.vertices[:, 2], cloud.vertices[:, 1] / cloud.vertices[:, 2]
    focal_px = record.camera.fx if record.camera else 0
    columns, rows = (np.floor(x * focal_px + 32).astype(int), np.floor(y * focal_px + 24).astype(int))
    assert len(rows) > 1500 and not hole[rows.clip(0, 47), columns.clip(0, 63)].any()
    relative = given(np.where(hole, np.nan, Z))
    with pytest.raises(CalibrationError, match="where the depth map has no value"):
        calibrate(relative, Hints(anchors=[Anchor(30, 20, 3.0), Anchor(5, 5, 2.0)]))
    with pytest.raises(CalibrationError, match="where the depth map has no value"):
        distance_m(found, (30, 20), (5, 5), 60)
    again = from_depth(PHOTO, paths["npy"])
    assert again.missing is not None and np.array_equal(again.missing, hole)


def test_hints_turn_a_given_map_into_metres() -> None:
    found = given(0.25 * Z + 3)
    metres = calibrate(found, Hints(anchors=[Anchor(2, 3, float(Z[3, 2])), Anchor(60, 40, float(Z[40, 60]))]))
    np.testing.assert_allclose(metres.values, Z, rtol=1e-3)
    assert metres.kind == "metric"


# ------------------------------------------------------------------------------- our own files


@pytest.mark.parametrize("prefix", ["", "IMG_1_"])
@pytest.mark.parametrize(
    ("kind", "space"),
    [("affine", "depth"), ("affine", "log"), ("affine", "disparity"), ("scale", "depth"), ("metric", "depth")],
)
def test_our_own_files_are_read_back(kind, space, prefix, tmp_path: Path) -> None:
    values = {"affine": 0.1 + 0.7 * UNIT, "scale": Z / Z.max(), "metric": Z}[kind].astype(np.float32)
    made = prediction_of(values, kind, space, photo=PHOTO, fov_x_deg=50.0)
    programs = ["compositing", "displacement", *(["rgbd"] if kind == "metric" else [])]
    for invert in (False, True):
        colours, folder = ColourSettings(invert=invert), tmp_path / str(invert)
        paths = save(made, folder, ["npy", "png16", "exr"], save_for=programs, colours=colours, prefix=prefix)  # type: ignore[arg-type]
        for name in ("npy", "exr", "rgbz", "png16", "height", *(["depth_mm"] if kind == "metric" else [])):
            found = from_depth(PHOTO, paths[name])
            assert (found.kind, found.space, found.note) == (kind, space, None), name
            step = {"npy": 0, "exr": 0, "rgbz": 0, "depth_mm": 5.1e-4}.get(name, 0.51 * float(np.ptp(values)) / 65535)
            tolerance = max(step, 0.51 / 65535) if step else 0
            np.testing.assert_allclose(found.values, values, rtol=0, atol=tolerance, err_msg=name)
            assert found.fov_x_deg == 50  # as the manifest says


def test_a_map_for_controlnet_is_read_as_the_disparity_that_it_is(tmp_path: Path) -> None:
    made = prediction_of(Z, "metric", photo=PHOTO)
    found = from_depth(PHOTO, save(made, tmp_path / "a", (), save_for=["controlnet"])["controlnet"])
    np.testing.assert_allclose(1 / found.values, 1 / Z, atol=0.51 / 255 * float(np.ptp(1 / Z)))
    made = prediction_of(UNIT, photo=PHOTO)
    found = from_depth(PHOTO, save(made, tmp_path / "b", (), save_for=["controlnet"])["controlnet"])
    assert (found.kind, found.space) == ("affine", "disparity")
    disparity = 1 / metric_z(made, MeshSettings())
    turned = (disparity.max() - disparity) / np.ptp(disparity)
    np.testing.assert_allclose(found.values, turned, atol=0.51 / 255)


def test_files_of_ours_that_are_no_depth_say_so(tmp_path: Path) -> None:
    made = prediction_of(UNIT, photo=PHOTO, uncertainty=UNIT * 0.1)
    paths = save(made, tmp_path, ["color", "uncertainty", "normals"])
    for name in ("color", "uncertainty", "uncertainty_npy", "normals", "normals_npy"):
        with pytest.raises(MarigoldError, match="no depth map|colour|one number a pixel"):
            from_depth(PHOTO, paths[name])


# ------------------------------------------------------------------------------- photos that carry depth


def test_a_heic_portrait_is_relative_disparity_and_metres_where_its_unit_is_stated() -> None:
    found = from_depth(PORTRAIT)
    assert (found.kind, found.space, found.checkpoint) == ("affine", "disparity", "given: portrait.heic")
    assert found.note is not None and "taken as usual: relative, greater is nearer" in found.note
    assert found.values[0, 0] == pytest.approx(1, abs=0.01) and found.values[-1, -1] == pytest.approx(0, abs=0.01)
    metres = from_depth(PORTRAIT, reading=DepthReading(unit_m=1.0))
    assert metres.kind == "metric" and metres.values[0, 0] == pytest.approx(2, rel=0.02)  # 0.5 per metre


def test_a_photo_with_google_depth_is_in_metres(tmp_path: Path) -> None:
    (tmp_path / "lens.jpg").write_bytes(gdepth_photo(encoded(LEVELS.astype(np.uint8))))
    found = from_depth(tmp_path / "lens.jpg")
    assert (found.kind, found.checkpoint, found.values.shape) == ("metric", "given: lens.jpg", (36, 48))
    assert found.values[0, 0] == pytest.approx(2) and found.values.max() == pytest.approx(5.37, rel=0.01)
    assert from_depth((tmp_path / "lens.jpg").read_bytes()).values.tolist() == found.values.tolist()
    relative = from_depth(tmp_path / "lens.jpg", reading=DepthReading(kind="affine"))
    assert (relative.kind, relative.space) == ("affine", "disparity")
