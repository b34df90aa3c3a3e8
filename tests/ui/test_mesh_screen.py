"""The 3D screen without a browser: where the camera stands, and the sentences about a shape."""

import asyncio
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import gradio as gr
import numpy as np
import pytest
import trimesh

from marigold_core.files.writers import save
from marigold_core.geometry.preview import centred, read_vertices
from marigold_core.geometry.relief import Solid
from marigold_core.prediction import Prediction
from marigold_core.serving.jobs import Service
from marigold_core.settings import MeshSettings, Settings
from marigold_core.ui import text
from marigold_core.ui.run_controller import RunController
from marigold_core.ui.screens.mesh import (
    FIELDS,
    FILES,
    IN_VIEW,
    VIEW_ASPECT,
    VIEW_TANGENT,
    MeshScreen,
    camera_position,
    describe,
    fov_source,
)
from tests.helpers.measured_room import planted


@pytest.mark.parametrize("away", [None, (0.35, 0.37, 0.86), (1.0, -0.5, 0.2)])
def test_the_camera_sees_nearly_every_vertex_and_the_rest_is_outside(away: tuple[float, ...] | None) -> None:
    vertices = np.random.default_rng(0).normal(size=(500, 3)) * (3, 1, 2) + (5, -4, -30)
    alpha, beta, radius = camera_position(vertices, None if away is None else np.array(away))
    a, b = np.radians([alpha, beta])
    back = np.array([np.cos(a) * np.sin(b), np.cos(b), np.sin(a) * np.sin(b)])
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    towards = np.array(away or (0.0, 0.0, 1.0))  # by default along the photo's own axis, as the box of ``centred`` lies
    middle = np.array([0, 0, middle[2]]) if away is None else middle
    np.testing.assert_allclose(back, towards / np.linalg.norm(towards), atol=1e-6)
    rays = vertices - (middle + radius * back)
    right = np.cross(-back, (0, 1, 0)) / np.linalg.norm(np.cross(-back, (0, 1, 0)))
    distance = rays @ -back
    across, upward = abs(rays @ right) / distance / VIEW_ASPECT, abs(rays @ np.cross(right, -back)) / distance
    inside = (distance > 0) & (np.maximum(across, upward) <= VIEW_TANGENT * (1 + 1e-9))
    assert inside.mean() == pytest.approx(IN_VIEW, abs=2 / len(vertices))


def test_every_setting_of_a_shape_has_a_control_with_a_name() -> None:
    assert FIELDS.keys() == text.MESH_LABELS.keys()
    assert {*FIELDS, *text.STEREO} == MeshSettings.model_fields.keys()  # a stereo pair is set beside its file
    assert set().union(*(shapes for _, shapes in FIELDS.values())) == text.SHAPES.keys() == {*FILES, "normals"}


def test_the_camera_that_a_visitor_has_set_stays_for_results_of_the_same_photo(tmp_path: Path) -> None:
    z = 2 + np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    controller = RunController(Service(tmp_path))

    async def draw() -> MeshScreen:  # in a loop that is closed again
        with gr.Blocks(), gr.Tab(text.SCENE_TAB) as tab:
            return MeshScreen(controller, tab)

    screen = asyncio.run(draw())
    fov, near = screen.mesh["fov_x_deg"], screen.mesh["near_ratio"]
    first = planted(z, fov_x_deg=None)
    values: Any = {controller.result: None}
    assert {fov, near} <= screen.finish(first, values).keys()
    values = {controller.result: controller.service.keep(first)}
    assert not {fov, near} & screen.finish(replace(first, uncertainty=first.values), values).keys()
    assert fov in screen.finish(replace(first, fov_x_deg=61.0), values)
    assert near in screen.finish(replace(first, kind="metric"), values)
    assert {fov, near} <= screen.finish(replace(first, photo=255 - first.photo), values).keys()
    controller.service.close()


RUN = Settings().resolved(4, 64)


def test_the_field_of_view_says_where_it_comes_from() -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    plain = Prediction("depth", "affine", "depth", photo[..., 0], None, None, photo, None, RUN, "tiny", "")
    known = replace(plain, fov_x_deg=61.53)
    assert "does not say, 55" in fov_source(plain, 55)
    assert "as you set it, the photo does not say" in fov_source(plain, 60)
    assert fov_source(known, 61.5).endswith("; from the photo's EXIF data")
    assert fov_source(known, 55).endswith("as you set it, 61.5 from the photo's EXIF data")
    assert fov_source(replace(known, kind="metric"), 61.5).endswith("from the photo's EXIF data")


def test_facts_are_those_of_the_file() -> None:
    assert describe("mesh", 100, 2000, None, 1_234_567) == "2,000 triangles · GLB, 1.2 MB"
    assert describe("points", 4100, 0, None, 65_000) == "4,100 points · PLY, 65 kB"
    relief = describe("relief", 100, 2000, Solid(True, (100.0, 75.0, 23.0), 100.0), 10**6)
    assert relief.startswith("Watertight · 100 × 75 × 23.0 mm · 100 cm³, 124 g of PLA")
    assert describe("relief", 100, 2000, Solid(False, (1.0, 1.0, 1.0), 1.0), 1).startswith("<b>Not watertight")


def test_the_viewer_gets_a_box_about_the_optical_axis_and_the_same_vertices(tmp_path: Path) -> None:
    z = 2 + np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    glb = save(planted(z), tmp_path, ["glb"])["glb"].read_bytes()
    shown = centred(glb)
    np.testing.assert_array_equal(read_vertices(shown)[0], read_vertices(glb)[0])
    bounds = cast(Any, trimesh.load(BytesIO(shown), file_type="glb")).bounds
    np.testing.assert_allclose(bounds[0, :2], -bounds[1, :2], rtol=1e-6)
    assert len(shown) % 4 == 0 and int.from_bytes(shown[8:12], "little") == len(shown)
