"""Files opened by the programs that they are for, and the numbers that these read compared with the result."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plyfile import PlyData

from marigold_core.files.writers import save
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
    import trimesh

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
    import trimesh

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
    subprocess.run(["npm", "install", "--silent", "--prefix", tmp_path, GLTF_VALIDATOR], check=True, timeout=120)
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
    assert any("in the units of depth.npy" in comment for comment in content.comments)
