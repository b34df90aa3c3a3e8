"""Camera, normals, cuts, meshes, points and reliefs on shapes whose answer is known."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from trimesh.visual.texture import TextureVisuals

from marigold_core.errors import ExportError
from marigold_core.geometry.camera import (
    DEFAULT_FOV_DEG,
    DEFAULT_NEAR_RATIO,
    field_of_view,
    metric_z,
    normals,
    unproject,
    vertical_field_of_view,
)
from marigold_core.geometry.depth_filters import edge_mask, sharpen, smooth, without_specks
from marigold_core.geometry.mesh import GRID_PX, build_mesh, sample_grid
from marigold_core.geometry.points import point_cloud
from marigold_core.geometry.relief import PLA_G_PER_CM3, measure, relief
from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import MeshSettings, bounds
from tests.helpers.predictions import prediction_of

pytestmark = pytest.mark.numeric

COARSE = MeshSettings(max_triangles=2000)


def prediction(values: np.ndarray, kind: Kind = "affine", space: Space = "depth") -> Prediction:
    """Depth over a photo whose red grows to the right and whose green grows downward."""
    height, width = values.shape
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    photo[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return prediction_of(values, kind, space, photo=photo)


def hills(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return 0.5 + 0.25 * np.sin(7 * x) * np.cos(5 * y)


def step(height: int = 48, width: int = 64) -> np.ndarray:
    values = np.full((height, width), 0.8)
    values[height // 4 : -height // 4, width // 4 : -width // 4] = 0.1
    return values


def texture_positions(mesh: trimesh.Trimesh) -> np.ndarray:
    assert isinstance(mesh.visual, TextureVisuals)
    return np.asarray(mesh.visual.uv)


def plane(normal: tuple[float, float, float], height: int = 30, width: int = 40, fov: float = 60) -> np.ndarray:
    """z of the plane at distance 1 with a unit normal given in the outward axes (X right, Y up, Z to the viewer)."""
    rays = unproject(np.ones((height, width), np.float32), fov).astype(np.float64)
    n = np.array(normal) * (1, -1, -1)  # in OpenCV axes
    return 1 / -(rays @ n)


def normals_of(z: np.ndarray) -> np.ndarray:
    return normals(prediction_of(z, "metric"), MeshSettings(fov_x_deg=60))


# ------------------------------------------------------------------------------- z


@pytest.mark.parametrize("space", ["depth", "log", "disparity"])
def test_affine_values_run_from_the_near_ratio_to_one(space: Space) -> None:
    z = metric_z(prediction(np.array([[-0.1, 0.0, 0.5, 1.0, 1.2]]), space=space), MeshSettings(near_ratio=0.2))
    middle = {"depth": 0.6, "log": math.sqrt(0.2), "disparity": 2 / (1 / 0.2 + 1)}[space]
    np.testing.assert_allclose(z[0], [0.2, 0.2, middle, 1, 1], rtol=1e-5)
    assert z.dtype == np.float32


def test_metric_and_scale_depth_are_used_as_they_are() -> None:
    metres = hills() * 10
    np.testing.assert_array_equal(metric_z(prediction(metres, "metric"), COARSE), metres.astype(np.float32))
    z = metric_z(prediction(np.array([[0.0, 2.0]]), "scale"), COARSE)
    assert 0 < z[0, 0] < 0.01 and z[0, 1] == 2
    assert (metric_z(prediction(np.zeros((4, 4)), "scale"), COARSE) == 1).all()


def test_what_is_no_depth_is_refused() -> None:
    holed = hills()
    holed[2, 3] = np.nan
    for function in (build_mesh, point_cloud, relief, normals):
        with pytest.raises(ExportError, match="numbers"):
            function(prediction(holed), COARSE)
    vectors = prediction_of(np.ones((48, 64, 3)), "unit-vector")
    for function in (build_mesh, point_cloud, relief):
        with pytest.raises(ExportError, match="depth"):
            function(vectors, COARSE)


def test_the_field_of_view_is_the_set_one_else_exif_else_the_default() -> None:
    plain = prediction(hills())
    assert field_of_view(plain, COARSE) == pytest.approx(DEFAULT_FOV_DEG)
    upright = prediction(hills().T)
    assert vertical_field_of_view(upright, COARSE) == pytest.approx(DEFAULT_FOV_DEG)
    assert field_of_view(upright, COARSE) == pytest.approx(vertical_field_of_view(plain, COARSE))
    assert field_of_view(replace(plain, fov_x_deg=70.0), COARSE) == 70
    assert field_of_view(replace(plain, fov_x_deg=70.0), MeshSettings(fov_x_deg=40)) == 40
    assert f"{DEFAULT_FOV_DEG:.0f}" in (MeshSettings.model_fields["fov_x_deg"].description or "")


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_telephoto_lens_shows_is_at_most_half_again_as_deep_as_wide(turned: bool) -> None:
    def nearest(fov_deg: float, ratio: float | None = None) -> float:
        """For a field of view along the longer edge, of a photo of 4:3 or 3:4."""
        half = math.tan(math.radians(fov_deg) / 2) * (3 / 4 if turned else 1)
        values = np.linspace(0, 1, 12).reshape((4, 3) if turned else (3, 4))
        seen = replace(prediction(values), fov_x_deg=math.degrees(2 * math.atan(half)))
        z = metric_z(seen, MeshSettings(near_ratio=ratio))
        assert z.max() == pytest.approx(1, abs=1e-6)
        return float(z.min())

    assert f"{DEFAULT_NEAR_RATIO}" in (MeshSettings.model_fields["near_ratio"].description or "")
    assert nearest(110) == nearest(30) == pytest.approx(DEFAULT_NEAR_RATIO)
    for fov_deg in (10, 3, 0.5):
        assert 1 - nearest(fov_deg) == pytest.approx(1.5 * 2 * math.tan(math.radians(fov_deg) / 2), rel=1e-4)
    assert nearest(0.1) == pytest.approx(bounds(MeshSettings, "near_ratio")[1])
    assert nearest(3, 0.1) == pytest.approx(0.1)


# ------------------------------------------------------------------------------- points and normals


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.integers(16, 60), st.integers(16, 60), st.floats(5, 150), st.floats(0.01, 100))
def test_projecting_unprojected_points_gives_the_pixels_back(h: int, w: int, fov: float, depth: float) -> None:
    points = unproject(np.full((h, w), depth, np.float32), fov).astype(np.float64)
    focal = w / 2 / math.tan(math.radians(fov) / 2)
    u = points[..., 0] / points[..., 2] * focal + w / 2
    v = points[..., 1] / points[..., 2] * focal + h / 2
    np.testing.assert_allclose(u, np.broadcast_to(np.arange(w) + 0.5, (h, w)), atol=1e-3)
    np.testing.assert_allclose(v, np.broadcast_to(np.arange(h)[:, None] + 0.5, (h, w)), atol=1e-3)


@pytest.mark.parametrize(
    "normal", [(0, 0, 1), (0, 0.9, 0.43589), (0.6, 0, 0.8), (-0.6, 0.48, 0.64), (0.1, -0.7, 0.70711)]
)
def test_normals_of_planes_are_exact(normal: tuple[float, float, float]) -> None:
    z = plane(normal)
    found = normals_of(z)
    np.testing.assert_allclose(found, np.broadcast_to(normal, found.shape), atol=2e-3)
    assert found.dtype == np.float32


def test_a_depth_jump_does_not_bend_the_normals_beside_it() -> None:
    z = plane((0.6, 0, 0.8))
    z[:, 20:] *= 3
    np.testing.assert_allclose(normals_of(z)[..., 0], 0.6, atol=0.02)


def test_normals_of_noise_are_unit_vectors_toward_the_viewer() -> None:
    z = np.random.default_rng(0).uniform(0.2, 5, (40, 50)).astype(np.float32)
    found = normals_of(z)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    toward = (found * unproject(z, 60) * (-1, 1, 1)).sum(axis=-1)  # against the ray, both in outward axes
    assert (toward > 0).all()


def test_a_normals_prediction_gives_its_own_normals() -> None:
    values = np.random.default_rng(0).normal(size=(20, 20, 3)).astype(np.float32)
    np.testing.assert_array_equal(normals(prediction_of(values, "unit-vector"), COARSE), values)


# ------------------------------------------------------------------------------- cuts


def test_edges_are_the_pixels_beside_a_jump() -> None:
    z = np.ones((10, 12), np.float32)
    z[:, 6:] = 1.05
    expected = np.zeros((10, 12), bool)
    expected[:, 5:7] = True
    for factor in (1, 100):  # near and far: the share counts
        np.testing.assert_array_equal(edge_mask(z * factor, 0.04), expected)
    assert not edge_mask(z, 0.06).any()
    assert not edge_mask(step(), 0).any()


def test_ramps_become_steps_and_slopes_stay() -> None:
    ramp = np.interp(np.arange(400), [0, 197, 203, 399], [1, 1, 2, 2])
    sharp = sharpen(np.tile(ramp, (20, 1)), 0.2)
    assert set(np.unique(sharp)) == {1, 2} and (np.diff(sharp[0]) != 0).sum() == 1
    slope = 1 / np.tile(np.linspace(1, 0.02, 400), (20, 1))  # a floor up to near its horizon
    inner = np.s_[:, 8:-8]  # beside the photo's border nothing tells a slope from a jump
    np.testing.assert_array_equal(sharpen(slope, 0.02)[inner], slope[inner])
    np.testing.assert_array_equal(sharpen(np.tile(ramp, (20, 1)), 0), np.tile(ramp, (20, 1)))


def test_smoothing_levels_noise_and_keeps_edges_and_planes() -> None:
    rng = np.random.default_rng(0)
    wall = np.where(np.arange(300) < 150, 0.2, 0.8) + rng.normal(0, 0.01, (200, 300))
    even = smooth(wall, 0.05)
    assert even[:, :140].std() < 0.25 * wall[:, :140].std()
    assert even[:, :149].mean() == pytest.approx(0.2, abs=5e-3) and even[:, 151:].mean() == pytest.approx(0.8, abs=5e-3)
    assert (even[:, 150] - even[:, 149]).mean() > 0.55
    plane = np.add.outer(np.arange(200), np.arange(300)) / 500
    np.testing.assert_allclose(smooth(plane, 0.05)[10:-10, 10:-10], plane[10:-10, 10:-10], atol=1e-9)
    assert smooth(wall, 0) is wall


def test_specks_go_and_pieces_stay() -> None:
    mask = np.zeros((80, 100), bool)
    mask[5:75, 5:60] = True
    mask[6:74, 20:22] = False
    mask[70, 20:22] = True  # a bridge: still one piece
    mask[20:30, 70:90] = True
    winding = np.zeros_like(mask)
    winding[40:60:4, 65:95] = winding[40:57, 65] = True
    expected = mask | winding
    mask = expected.copy()
    mask[0, 0] = mask[35, 70] = True
    np.testing.assert_array_equal(without_specks(mask), expected)
    mask[expected] = False
    np.testing.assert_array_equal(without_specks(mask), mask)  # all are equally small
    assert not without_specks(np.zeros((4, 5), bool)).any()


# ------------------------------------------------------------------------------- mesh


def test_mesh_vertices_lie_on_their_pixels_rays_at_their_depth() -> None:
    source = prediction(hills())
    mesh = build_mesh(source, MeshSettings(edge_cut=0, fov_x_deg=60))
    assert len(mesh.vertices) == 48 * 64 and len(mesh.faces) == 2 * 47 * 63
    expected = unproject(metric_z(source, MeshSettings()), 60).reshape(-1, 3)
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-5)
    u, v = np.meshgrid((np.arange(64) + 0.5) / 64, 1 - (np.arange(48) + 0.5) / 48)
    np.testing.assert_allclose(texture_positions(mesh), np.stack([u.ravel(), v.ravel()], axis=1), atol=1e-5)


def test_mesh_faces_look_at_the_camera() -> None:
    mesh = build_mesh(prediction(hills()), MeshSettings(edge_cut=0))
    assert ((mesh.face_normals * mesh.triangles_center).sum(axis=1) < 0).all()


def test_no_triangle_spans_a_depth_jump() -> None:
    mesh = build_mesh(prediction(step()), MeshSettings())
    z = mesh.vertices[mesh.faces][..., 2]
    assert (np.ptp(z, axis=1) < 0.04).all()
    assert len(mesh.split(only_watertight=False)) == 2
    whole = build_mesh(prediction(step()), MeshSettings(edge_cut=0))
    assert np.ptp(whole.vertices[whole.faces][..., 2], axis=1).max() > 0.4


@pytest.mark.parametrize("max_triangles", [1000, 5000])
def test_simplified_meshes_keep_the_budget_the_surface_and_the_texture(max_triangles: int) -> None:
    source = prediction(hills(192, 256))
    mesh = build_mesh(source, MeshSettings(max_triangles=max_triangles, edge_cut=0, fov_x_deg=60))
    assert 0.9 * max_triangles < len(mesh.faces) <= max_triangles
    x, y, z = mesh.vertices.T
    focal = 128 / math.tan(math.radians(30))
    uv = np.stack([0.5 + x / z * focal / 256, 0.5 - y / z * focal / 192], axis=1)
    np.testing.assert_allclose(texture_positions(mesh), uv, atol=1e-5)
    cols = np.clip(uv[:, 0] * 256, 0, 255).astype(int)
    rows = np.clip((1 - uv[:, 1]) * 192, 0, 191).astype(int)
    truth = metric_z(source, MeshSettings())[rows, cols]
    assert np.abs(z / truth - 1).max() < 0.03
    assert np.ptp(uv, axis=0).min() > 0.97  # the borders have not shrunk


def test_torn_surfaces_keep_the_budget_too() -> None:
    noise = np.random.default_rng(0).uniform(0, 1, (200, 300))
    for edge_cut in (0.0, 0.6, 1.0):
        mesh = build_mesh(prediction(noise), MeshSettings(max_triangles=1000, edge_cut=edge_cut))
        assert 0 < len(mesh.faces) <= 1000


def test_cuts_that_leave_nothing_are_said() -> None:
    flat = prediction(np.full((40, 40), 0.5))
    for function in (build_mesh, point_cloud):
        with pytest.raises(ExportError, match="cuts leave nothing; give edge_cut 0 and near_clip 0 to keep all"):
            function(flat, MeshSettings(near_clip=0.6))


@pytest.mark.parametrize("edge_cut", [0, 0.2])
def test_holes_that_leave_nothing_are_the_cause_whatever_is_cut(edge_cut: float) -> None:
    holes = np.zeros((40, 40), bool)
    holes[::2] = True
    with pytest.raises(ExportError, match="holes of the depth map leave nothing"):
        build_mesh(replace(prediction(np.full((40, 40), 0.5)), missing=holes), MeshSettings(edge_cut=edge_cut))


def test_a_blurred_jump_is_cut_along_one_line_and_leaves_no_ramp() -> None:
    y, x = np.mgrid[0:100, 0:200]
    inside = np.clip((40 - np.hypot(x - 100, y - 50)) / 3 + 0.5, 0, 1)  # a disc, its rim soft over three pixels
    mesh = build_mesh(prediction(0.9 - 0.8 * inside), MeshSettings(edge_cut=0.2))
    z = mesh.vertices[:, 2]
    near, far = 0.25 + 0.75 * 0.1, 0.25 + 0.75 * 0.9
    assert np.minimum(abs(z - near), abs(z - far)).max() < 1e-3
    assert len(mesh.split(only_watertight=False)) == 2
    assert len(mesh.faces) > 0.94 * 2 * 99 * 199  # the gap is one triangle wide


def test_what_lies_outside_the_clips_is_left_out() -> None:
    source = prediction(hills())
    clips = MeshSettings(near_clip=0.3, far_clip=0.7, edge_cut=0)
    low, high = 0.25 + 0.75 * 0.3, 0.25 + 0.75 * 0.7
    for vertices in (build_mesh(source, clips).vertices, point_cloud(source, clips).vertices):
        assert vertices[:, 2].min() >= low - 1e-6 and vertices[:, 2].max() <= high + 1e-6
    metres = prediction(hills() * 8 + 2, "metric")  # 4 to 8 metres: the share is of that
    z = point_cloud(metres, MeshSettings(far_clip=0.5, edge_cut=0)).vertices[:, 2]
    middle = float(metres.values.min() + metres.values.max()) / 2
    assert middle - 0.1 < z.max() <= middle


def test_what_the_members_disagree_on_is_left_out() -> None:
    doubt = np.zeros((48, 64), np.float32)
    doubt[:, :32] = 0.2
    source = replace(prediction(hills()), uncertainty=doubt)
    cut = MeshSettings(uncertainty_cut=0.1, edge_cut=0, fov_x_deg=60)
    assert len(point_cloud(source, cut).vertices) == 48 * 32
    assert build_mesh(source, cut).vertices[:, 0].min() > 0  # the right half of the photo
    assert len(build_mesh(source, MeshSettings(uncertainty_cut=0.3, edge_cut=0)).faces) == 2 * 47 * 63
    metres = replace(source, kind="metric", values=hills().astype(np.float32) * 10, uncertainty=doubt * 1.5)
    assert len(point_cloud(metres, cut).vertices) == 48 * 64  # 0.3 m of 5 m: a share of the depth range here as well
    for function in (build_mesh, point_cloud):
        with pytest.raises(ExportError, match="needs 3 or more members"):
            function(prediction(hills()), cut)


def test_smoothing_is_part_of_every_shape() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (48, 64))
    rough, even = prediction(np.full((48, 64), 0.5) + noise), MeshSettings(smoothing=0.1, edge_cut=0)
    plain = MeshSettings(edge_cut=0)
    for make in (build_mesh, point_cloud):
        assert make(rough, even).vertices[:, 2].std() < 0.7 * make(rough, plain).vertices[:, 2].std()
    assert normals(rough, even)[..., 2].mean() > normals(rough, plain)[..., 2].mean()
    assert relief(rough, even).area < relief(rough, plain).area


@pytest.mark.parametrize("shape", [(16, 16), (16, 320), (320, 16), (1200, 90)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_depth_of_any_shape_has_geometry(shape: tuple[int, int], level: float) -> None:
    flat = prediction(np.full(shape, level))
    mesh = build_mesh(flat, COARSE)
    assert np.isfinite(mesh.vertices).all() and 0 < len(mesh.faces) <= 2000
    assert len(point_cloud(flat, COARSE).vertices) > 0
    assert relief(flat, COARSE).is_watertight
    np.testing.assert_allclose(normals(flat, COARSE)[..., 2], 1, atol=1e-4)


def test_the_mesh_of_a_photo_is_made_in_seconds() -> None:
    source = prediction(hills(576, 768))
    start = time.process_time()
    mesh = build_mesh(source, MeshSettings())
    assert time.process_time() - start < 8  # about 1 s on a quiet core
    assert 190_000 < len(mesh.faces) <= 200_000


def test_parallel_meshes_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    sources = [prediction(hills(120, 160) * scale) for scale in (0.3, 0.6, 0.9, 1.0)]
    alone = [build_mesh(source, COARSE).vertices for source in sources]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda source: build_mesh(source, COARSE).vertices, sources * 3))
    for i, vertices in enumerate(together):
        np.testing.assert_array_equal(vertices, alone[i % 4])


# ------------------------------------------------------------------------------- grid and points


def test_grids_keep_the_corners_and_their_limits() -> None:
    rows, cols = sample_grid((3000, 4000), None)
    assert (rows[0], rows[-1], cols[0], cols[-1]) == (0, 2999, 0, 3999)
    assert len(cols) == GRID_PX and len(rows) == GRID_PX * 3 // 4
    rows, cols = sample_grid((3000, 4000), 1000)
    assert 2 * len(rows) * len(cols) <= 1000
    rows, cols = sample_grid((48, 64), None)
    assert len(rows) == 48 and len(cols) == 64


def test_points_carry_the_photo_s_colours_and_none_floats_between() -> None:
    source = prediction(step())
    cloud = point_cloud(source, MeshSettings(fov_x_deg=60))
    z = metric_z(source, MeshSettings())
    kept = ~edge_mask(z, MeshSettings().edge_cut)
    np.testing.assert_allclose(cloud.vertices, unproject(z, 60)[kept], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], source.photo[kept])
    assert 0 < kept.sum() < kept.size


# ------------------------------------------------------------------------------- relief


@pytest.mark.parametrize("values", [hills(), hills(64, 48), step(), np.eye(40)])
def test_reliefs_are_closed_solids_of_the_asked_size(values: np.ndarray) -> None:
    asked = MeshSettings(relief_mm=150, relief_height_mm=12, relief_base_mm=2.5, max_triangles=20_000)
    solid = relief(prediction(values), asked)
    assert solid.is_watertight and solid.is_winding_consistent and solid.is_volume
    width, depth, height = solid.extents
    assert max(width, depth) == pytest.approx(150)
    assert width / depth == pytest.approx((values.shape[1] - 1) / (values.shape[0] - 1))
    assert height == pytest.approx(12 + 2.5)
    assert solid.bounds[0] == pytest.approx([0, 0, 0])
    assert len(solid.faces) <= 20_000


def test_near_parts_of_a_relief_are_high_and_right_way_round() -> None:
    values = np.ones((20, 30))
    values[:5, :6] = 0  # near, at the photo's top left
    solid = relief(prediction(values), MeshSettings(relief_mm=290))  # 10 mm a pixel
    top = solid.vertices[solid.vertices[:, 2] > 3 + 20 / 2]
    assert top[:, 0].max() == pytest.approx(50) and top[:, 1].min() == pytest.approx(190 - 40)


def test_flat_reliefs_are_plates() -> None:
    solid = relief(prediction(np.full((16, 320), 0.4)), MeshSettings(relief_mm=100, max_triangles=1000))
    found = measure(solid)
    assert found.watertight and len(solid.faces) <= 1000
    assert found.size_mm == pytest.approx((100, 100 * 15 / 319, 3))
    assert found.volume_cm3 == pytest.approx(10 * (10 * 15 / 319) * 0.3)
    assert found.weight_g == pytest.approx(found.volume_cm3 * PLA_G_PER_CM3)


def test_a_hole_or_a_turned_face_is_not_called_watertight() -> None:
    solid = relief(prediction(hills()), COARSE)
    holed, turned = solid.copy(), solid.copy()
    holed.update_faces(np.arange(len(solid.faces)) != 7)
    turned.faces[7] = turned.faces[7][::-1]
    assert [measure(body).watertight for body in (solid, holed, turned)] == [True, False, False]


def test_clips_give_the_whole_height_of_a_relief_to_what_lies_between() -> None:
    ramp = prediction(np.tile(np.linspace(0, 1, 101), (20, 1)))
    z = relief(ramp, MeshSettings(near_clip=0.2, far_clip=0.6)).vertices[: 20 * 101, 2].reshape(20, 101)
    np.testing.assert_allclose(z[:, :21], 23, atol=1e-5)
    np.testing.assert_allclose(z[:, 60:], 3, atol=1e-5)
    assert z[0, 40] == pytest.approx(13, abs=1e-4)
