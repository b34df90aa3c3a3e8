"""Files opened by the programs that they are for, and the numbers that these read compared with the result."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import OpenEXR
import pytest
import trimesh
from plyfile import PlyData

from marigold_core.calibration.calibrate import Hints
from marigold_core.errors import ExportError
from marigold_core.files.formats import FILES
from marigold_core.files.manifest import Manifest
from marigold_core.files.presets import PRESETS, SaveFor
from marigold_core.files.writers import file_names, save
from marigold_core.geometry.camera import metric_z, normals
from marigold_core.geometry.depth_filters import sharpen
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings
from tests.helpers.predictions import prediction_of

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # OpenCV reads EXR where it is told to before it is imported
import cv2  # noqa: E402

MESH = MeshSettings(max_triangles=8000, fov_x_deg=60)
GLTF_VALIDATOR = "gltf-validator@2.0.0-dev.3.10"  # Khronos'


@pytest.fixture(scope="module")
def depth() -> Prediction:
    """A wavy surface before a coloured photo, with uncertainty."""
    y, x = np.mgrid[0:96, 0:128] / 128
    values = (0.5 + 0.45 * np.sin(6 * x) * np.cos(5 * y)).astype(np.float32)
    photo = np.stack([x * 250, y * 250, 250 - x * 250], axis=-1).astype(np.uint8)
    return prediction_of(values, uncertainty=(0.01 + 0.02 * x).astype(np.float32), photo=photo)


def camera_of(glb: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    length = int.from_bytes(glb[12:16], "little")
    tree = json.loads(glb[20 : 20 + length])
    (node,) = (node for node in tree["nodes"] if "camera" in node)
    return tree, tree["cameras"][node["camera"]]["perspective"]


# ------------------------------------------------------------------------------- EXR


def test_opencv_reads_the_exr_as_grey(depth: Prediction, tmp_path: Path) -> None:
    read = cv2.imread(str(save(depth, tmp_path, ["exr"])["exr"]), cv2.IMREAD_UNCHANGED)
    assert read is not None and read.dtype == np.float32
    np.testing.assert_array_equal(read if read.ndim == 2 else read[..., 0], depth.values)


# ------------------------------------------------------------------------------- GLB


def test_the_camera_of_the_glb_sees_the_photo(depth: Prediction, tmp_path: Path) -> None:
    """Vertices projected by it land where their texture coordinates say: at most a hundredth of a pixel away."""
    path = save(depth, tmp_path, ["glb"], mesh=MESH)["glb"]
    tree, lens = camera_of(path.read_bytes())
    assert lens["aspectRatio"] == pytest.approx(128 / 96)
    assert np.tan(lens["yfov"] / 2) * lens["aspectRatio"] == pytest.approx(np.tan(np.radians(30)))
    assert {node["name"] for node in tree["nodes"]} == {"photo mesh", "photo camera"}
    mesh: Any = trimesh.load_mesh(path)
    assert 0 < lens["znear"] < -mesh.vertices[:, 2].max()
    x, y = mesh.vertices[:, 0] / -mesh.vertices[:, 2], mesh.vertices[:, 1] / -mesh.vertices[:, 2]
    top = np.tan(lens["yfov"] / 2)
    seen = np.stack([x / (top * lens["aspectRatio"]), y / top], axis=-1) / 2 + 0.5
    np.testing.assert_allclose(seen, mesh.visual.uv, atol=1e-4)


def test_the_texture_keeps_the_colours_of_small_things(tmp_path: Path) -> None:
    """Stripes of one pixel, red and blue, which halved colours would mix to grey."""
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[:, ::2, 0] = photo[:, 1::2, 2] = 200
    ramp = prediction_of(np.linspace(0, 1, 64 * 64).reshape(64, 64), photo=photo)
    mesh: Any = trimesh.load_mesh(save(ramp, tmp_path, ["glb"])["glb"])
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), float)
    assert 10 * np.log10(255**2 / ((texture - photo) ** 2).mean()) > 38


def test_khronos_validator_finds_nothing(depth: Prediction, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Debian's npm is missing")
    path = save(depth, tmp_path, ["glb"], mesh=MESH)["glb"]
    install = ["npm", "install", "--silent", "--prefix", str(tmp_path), GLTF_VALIDATOR]
    if subprocess.run(install, check=False, timeout=120).returncode:
        pytest.skip("npm cannot install the validator: no registry can be reached")
    script = "const fs = require('fs'); require('gltf-validator').validateBytes(new Uint8Array(fs.readFileSync("
    script += f"{json.dumps(str(path))}))).then(found => console.log(JSON.stringify(found)))"
    answer = subprocess.run(["node", "-e", script], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    issues = json.loads(answer.stdout)["issues"]
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


# ------------------------------------------------------------------------------- PLY


def test_plyfile_reads_points_normals_colours_and_uncertainty(depth: Prediction, tmp_path: Path) -> None:
    uncut = MESH.changed(edge_cut=0)
    content = PlyData.read(save(depth, tmp_path, ["ply"], mesh=uncut)["ply"])
    points = content["vertex"]
    stack: Callable[..., np.ndarray] = lambda *names: np.stack([points[name] for name in names], axis=-1)  # noqa: E731
    z = sharpen(metric_z(depth, uncut), 0)
    np.testing.assert_allclose(points["z"], -z.ravel(), rtol=1e-5)
    np.testing.assert_allclose(stack("nx", "ny", "nz"), normals(depth, uncut).reshape(-1, 3), atol=1e-6)
    assert (np.einsum("ij,ij->i", stack("x", "y", "z"), stack("nx", "ny", "nz")) < 0).all()  # toward the camera
    np.testing.assert_array_equal(stack("red", "green", "blue"), depth.photo.reshape(-1, 3))
    assert depth.uncertainty is not None
    np.testing.assert_array_equal(points["uncertainty"], depth.uncertainty.ravel())
    assert any("in the units of the depth" in comment for comment in content.comments)


# ------------------------------------------------------------------------------- files for programs


@pytest.fixture(scope="module")
def metres(depth: Prediction) -> Prediction:
    return replace(depth, kind="metric", values=(depth.values * 4 + 1).astype(np.float32))


def for_program(prediction: Prediction, name: SaveFor, folder: Path) -> dict[str, Path]:
    return save(prediction, folder, save_for=[name], mesh=MESH)


def read_cv2(path: Path) -> np.ndarray:
    """As OpenCV reads it, colours in the order of the photo."""
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read is not None
    return read[..., ::-1] if read.ndim == 3 else read


def test_every_program_has_a_line_and_its_files(metres: Prediction, tmp_path: Path) -> None:
    assert get_args(SaveFor) == tuple(PRESETS)
    for name, preset in PRESETS.items():
        paths = for_program(metres, name, tmp_path / name)
        assert tuple(paths) == (*preset.files, "manifest")
        record = Manifest.model_validate_json(paths["manifest"].read_text())
        assert record.save_for == {name: preset.tick} and set(record.files) == {
            paths[file].name for file in preset.files
        }
        again = for_program(metres, name, tmp_path / "again" / name)
        assert all(again[file].read_bytes() == paths[file].read_bytes() for file in preset.files)


def test_programs_that_need_metres_are_refused_relative_depth(depth: Prediction, tmp_path: Path) -> None:
    metric: list[SaveFor] = ["rgbd", "nerfstudio"]
    assert metric == [name for name, preset in PRESETS.items() if preset.metric]
    for name in metric:
        with pytest.raises(ExportError, match="needs depth in metres, but this depth is relative: calibrate it first"):
            for_program(depth, name, tmp_path / "out")
        assert file_names(None, depth, 1, save_for=[name], hints=Hints(near_m=1.0))
    vectors = replace(depth, modality="normals", kind="unit-vector", values=normals(depth, MESH))
    with pytest.raises(ExportError, match="needs depth, not normals"):
        for_program(vectors, "print", tmp_path / "out")
    with pytest.raises(ExportError, match="no files for 'maya'; choose from controlnet"):
        for_program(depth, "maya", tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_control_map_is_disparity_near_white_in_three_channels(depth: Prediction, tmp_path: Path) -> None:
    levels = read_cv2(for_program(depth, "controlnet", tmp_path)["controlnet"])
    assert levels.shape == (96, 128, 3) and levels.dtype == np.uint8 and (levels == levels[..., :1]).all()
    z = metric_z(depth, MESH)
    assert (levels[z == z.min()] == 255).all() and (levels[z == z.max()] == 0).all()
    expected = (1 / z - 1 / z.max()) / (1 / z.min() - 1 / z.max())
    np.testing.assert_allclose(levels[..., 0] / 255, expected, atol=0.51 / 255)


@pytest.mark.parametrize("name", ["displacement", "cnc"])
def test_height_maps_are_near_white_of_16_bits(depth: Prediction, tmp_path: Path, name: SaveFor) -> None:
    levels = read_cv2(for_program(depth, name, tmp_path)["height"])
    assert levels.dtype == np.uint16 and levels.ndim == 2
    np.testing.assert_allclose(1 - levels / 65535, depth.values, atol=0.51 / 65535)


def test_compositing_has_linear_colours_beside_z(metres: Prediction, tmp_path: Path) -> None:
    path = for_program(metres, "compositing", tmp_path)["rgbz"]
    light = read_cv2(path)[..., :3]
    srgb = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb * 255, metres.photo, atol=0.5)
    with OpenEXR.File(str(path), separate_channels=True) as file:
        assert sorted(file.channels()) == ["B", "G", "R", "Z"] and file.header()["unit"] == "metre"
        np.testing.assert_array_equal(file.channels()["Z"].pixels, metres.values)


def test_rgbd_gives_the_points_of_the_ply_as_open3d_computes_them(metres: Prediction, tmp_path: Path) -> None:
    """Open3D: z = level / depth_scale, x = (u - cx) z / fx with u counted from the middle of the first pixel."""
    paths = save(metres, tmp_path, ["ply"], save_for=["rgbd"], mesh=MESH.changed(edge_cut=0))
    levels, camera = read_cv2(paths["depth_mm"]), json.loads(paths["intrinsics"].read_text())
    assert levels.dtype == np.uint16 and read_cv2(paths["photo"]).shape == (96, 128, 3)
    fx, _, _, _, fy, _, cx, cy, _ = camera["intrinsic_matrix"]
    z, (v, u) = levels / 1000, np.mgrid[:96, :128]
    np.testing.assert_allclose(z, metres.values, atol=0.00051)
    points = np.stack([(u - cx) * z / fx, -(v - cy) * z / fy, -z], axis=-1).reshape(-1, 3)
    stored = PlyData.read(paths["ply"])["vertex"]
    np.testing.assert_allclose(points, np.stack([stored[axis] for axis in "xyz"], axis=-1), atol=0.002)
    far = replace(metres, values=metres.values * 30)  # what 16 bits cannot hold is unknown, not wrapped
    paths = for_program(far, "rgbd", tmp_path / "far")
    assert ((read_cv2(paths["depth_mm"]) == 0) == (far.values > 65.535)).all()
    record = Manifest.model_validate_json(paths["manifest"].read_text())
    assert f" {(far.values > 65.535).mean():.1%} of the pixels are farther than 65.5 m" in record.save_for["rgbd"]


def test_transforms_name_the_files_and_the_camera(metres: Prediction, tmp_path: Path) -> None:
    paths = save(metres, tmp_path, save_for=["nerfstudio"], mesh=MESH, prefix="IMG_1_")
    stated = json.loads(paths["transforms"].read_text())
    assert (stated["w"], stated["h"], stated["cx"], stated["cy"]) == (128, 96, 64, 48)
    assert stated["fl_x"] == stated["fl_y"] == pytest.approx(64 / np.tan(np.radians(30)))
    (frame,) = stated["frames"]
    named = (frame["file_path"], frame["depth_file_path"], stated["ply_file_path"])
    assert named == ("IMG_1_photo.jpg", "IMG_1_depth_mm.png", "IMG_1_points.ply")
    assert all((tmp_path / name).is_file() for name in named)
    np.testing.assert_array_equal(frame["transform_matrix"], np.eye(4))  # OpenGL's axes, those of the points


def test_looking_glass_has_the_photo_left_and_depth_right(depth: Prediction, tmp_path: Path) -> None:
    both = read_cv2(for_program(depth, "looking-glass", tmp_path)["side_by_side"]).astype(float)
    assert both.shape == (96, 256, 3)
    assert np.abs(both[:, :128] - depth.photo).mean() < 3
    assert np.abs(both[:, 128:] / 255 - (1 - depth.values)[..., None]).mean() < 0.01


def test_a_lithophane_is_thick_where_the_photo_is_dark(depth: Prediction, tmp_path: Path) -> None:
    plate: Any = trimesh.load_mesh(for_program(depth, "lithophane", tmp_path)["lithophane"])
    assert plate.is_volume and plate.extents.max() == pytest.approx(100)
    halves = replace(depth, photo=np.repeat(np.where(np.arange(128) < 64, 0, 255)[None, :, None], 96, 0).repeat(3, 2))
    halves = replace(halves, photo=halves.photo.astype(np.uint8))
    plate = trimesh.load_mesh(for_program(halves, "lithophane", tmp_path / "halves")["lithophane"])
    x, z = plate.vertices[:, 0], plate.vertices[:, 2]
    assert z[x < 40].max() == pytest.approx(3) and z[(x > 60) & (z > 0)].max() == pytest.approx(0.6)


def test_3mf_is_the_relief_of_the_stl_in_millimetres(depth: Prediction, tmp_path: Path) -> None:
    """Read from its XML as the core specification orders it: unit, one object, one item to build."""
    paths = for_program(depth, "print", tmp_path)
    relief: Any = trimesh.load_mesh(paths["stl"])
    with ZipFile(paths["relief_3mf"]) as package:
        assert package.testzip() is None and package.namelist()[0] == "[Content_Types].xml"
        model = ElementTree.fromstring(package.read("3D/3dmodel.model"))
    space = {"m": "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"}
    assert model.get("unit") == "millimeter" and model.find("m:build/m:item", space) is not None
    vertices = [[float(one.get(axis, "")) for axis in "xyz"] for one in model.iterfind(".//m:vertex", space)]
    faces = [
        [int(one.get(corner, "")) for corner in ("v1", "v2", "v3")] for one in model.iterfind(".//m:triangle", space)
    ]
    solid = trimesh.Trimesh(vertices, faces, process=False)
    assert solid.is_volume and solid.extents == pytest.approx(relief.extents, abs=1e-3)
    assert solid.volume == pytest.approx(relief.volume, rel=1e-4)


def test_flat_names_cannot_be_taken_for_those_of_another_photo() -> None:
    """a_b.png is either b.png of photo a or, were there such a file, of photo a_b nothing."""
    names = [*(name for name, _ in FILES.values()), "manifest.json"]
    assert len(set(names)) == len(names)
    assert [(a, b) for a in names for b in names if a.endswith(f"_{b}")] == []
