"""The 3D screen without a browser: where the camera stands, and the sentences about a shape."""

from dataclasses import replace

import numpy as np
import pytest

from marigold_core.geometry.relief import Solid
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings, Settings
from marigold_core.ui import text
from marigold_core.ui.screens.mesh import (
    FIELDS,
    FILES,
    VIEW_ASPECT,
    VIEW_TANGENT,
    camera_position,
    describe,
    fov_source,
)


@pytest.mark.parametrize("away", [None, (0.35, 0.37, 0.86), (1.0, -0.5, 0.2)])
def test_the_camera_sees_every_vertex_and_one_at_its_edge(away: tuple[float, ...] | None) -> None:
    vertices = np.random.default_rng(0).normal(size=(500, 3)) * (3, 1, 2) + (5, -4, -30)
    alpha, beta, radius = camera_position(vertices, None if away is None else np.array(away))
    a, b = np.radians([alpha, beta])
    back = np.array([np.cos(a) * np.sin(b), np.cos(b), np.sin(a) * np.sin(b)])
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    towards = -middle if away is None else np.array(away)
    np.testing.assert_allclose(back, towards / np.linalg.norm(towards), atol=1e-6)
    rays = vertices - (middle + radius * back)
    right = np.cross(-back, (0, 1, 0)) / np.linalg.norm(np.cross(-back, (0, 1, 0)))
    distance = rays @ -back
    assert (distance > 0).all()
    across, upward = abs(rays @ right) / distance / VIEW_ASPECT, abs(rays @ np.cross(right, -back)) / distance
    assert np.maximum(across, upward).max() == pytest.approx(VIEW_TANGENT)


def test_every_setting_of_a_shape_has_a_control_with_a_name() -> None:
    assert FIELDS.keys() == MeshSettings.model_fields.keys() == text.MESH_LABELS.keys()
    assert set().union(*(shapes for _, shapes in FIELDS.values())) == text.SHAPES.keys() == {*FILES, "normals"}


RUN = Settings().resolved(4, 64)


def test_the_field_of_view_says_where_it_comes_from() -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    plain = Prediction("depth", "affine", "depth", photo[..., 0], None, None, photo, None, RUN, "tiny", "")
    known = replace(plain, fov_x_deg=61.53)
    assert "does not say, 55" in fov_source(plain, 55)
    assert "as you set it, the photo does not say" in fov_source(plain, 60)
    assert fov_source(known, 61.5).endswith("; from the photo's EXIF data")
    assert fov_source(known, 55).endswith("as you set it, 61.5 from the photo's EXIF data")
    assert fov_source(replace(known, kind="metric"), 61.5).endswith("as the measurement had it")


def test_facts_are_those_of_the_file() -> None:
    assert describe("mesh", 100, 2000, None, 1_234_567) == "2,000 triangles · GLB, 1.2 MB"
    assert describe("points", 4100, 0, None, 65_000) == "4,100 points · PLY, 65 kB"
    relief = describe("relief", 100, 2000, Solid(True, (100.0, 75.0, 23.0), 100.0), 10**6)
    assert relief.startswith("Watertight · 100 × 75 × 23.0 mm · 100 cm³, 124 g of PLA")
    assert describe("relief", 100, 2000, Solid(False, (1.0, 1.0, 1.0), 1.0), 1).startswith("<b>Not watertight")
