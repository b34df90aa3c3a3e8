"""Previews show the shapes that the files hold, the right way up and in the photo's colours."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh

from marigold_core.files.writers import save
from marigold_core.geometry.points import point_cloud
from marigold_core.geometry.preview import LIGHT, points_glb, read_vertices, relief_glb
from marigold_core.geometry.relief import relief
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings
from tests.helpers.predictions import prediction_of

MESH = MeshSettings(max_triangles=3000, edge_cut=0, fov_x_deg=60)


@pytest.fixture
def depth() -> Prediction:
    y, x = np.mgrid[0:24, 0:32] / 32
    photo = np.full((24, 32, 3), (0, 128, 255), np.uint8)
    return prediction_of(0.5 + 0.4 * np.sin(6 * x) * np.cos(5 * y), photo=photo)


def test_vertices_are_read_as_a_library_reads_them(depth: Prediction, tmp_path: Path) -> None:
    mesh = save(depth, tmp_path, ["glb"], mesh=MESH)["glb"].read_bytes()
    for glb in (mesh, relief_glb(relief(depth, MESH)), points_glb(point_cloud(depth, MESH))):
        vertices, triangles = read_vertices(glb)
        (opened,) = trimesh.load_scene(BytesIO(glb), file_type="glb").geometry.values()
        np.testing.assert_array_equal(vertices, opened.vertices.astype(np.float32))
        assert triangles == len(getattr(opened, "faces", ()))


def test_a_relief_stands_upright_and_its_light_is_painted_on(depth: Prediction) -> None:
    solid = relief(depth, MESH)
    glb = relief_glb(solid)
    vertices, triangles = read_vertices(glb)
    assert np.ptp(vertices, axis=0) == pytest.approx(solid.extents / solid.extents.max(), rel=1e-5)
    assert np.ptp(vertices, axis=0).max() == pytest.approx(1) and triangles == len(solid.faces)
    assert b"KHR_materials_unlit" in glb
    (opened,) = trimesh.load_scene(BytesIO(glb), file_type="glb").geometry.values()
    brightness = opened.visual.vertex_attributes["color"][:, :3].sum(axis=1)
    lamp = solid.vertex_normals @ LIGHT
    assert np.corrcoef(brightness, lamp.clip(0))[0, 1] > 0.999


def test_points_are_unlit_and_their_colours_linear(depth: Prediction) -> None:
    cloud = point_cloud(depth, MESH)
    glb = points_glb(cloud)
    np.testing.assert_allclose(read_vertices(glb)[0], cloud.vertices * (1, -1, -1), atol=1e-5)
    (opened,) = trimesh.load_scene(BytesIO(glb), file_type="glb").geometry.values()
    assert np.asarray(opened.colors)[0, :3].tolist() == [0, 55, 255]  # 128 of sRGB is 21.6 per cent of the light
    assert b"KHR_materials_unlit" in glb
