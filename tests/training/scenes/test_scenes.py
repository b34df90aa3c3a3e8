"""Worlds made from a seed: shapes, textures, furnishing, and the folder of assets."""

import json

import numpy as np
import pytest
import trimesh
import trimesh.visual
from PIL import Image

from training.scenes import KINDS, make_scene, meshes, models, textures
from training.scenes.assets import Assets, roles
from training.scenes.indoor import Room
from training.scenes.types import CANDIDATES, LABELS, Camera, Model, model, place, random_rotation

BARE = Assets()


def areas(shape: meshes.Mesh) -> np.ndarray:
    corners = shape.positions[shape.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


SHAPES = {
    "box": meshes.frustum(),
    "frustum": meshes.frustum(0.5, 0.02),
    "plane": meshes.plane(),
    "cards": meshes.card(3),
    "cylinder": meshes.cylinder(),
    "ring": meshes.ring(0.5),
    "sphere": meshes.sphere(),
    "blob": meshes.blob(np.random.default_rng(1)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_stand_on_the_ground_with_unit_normals(shape):
    assert shape.positions[:, 1].min() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(shape.normals, axis=1), 1, atol=1e-5)
    big = np.linalg.norm(areas(shape), axis=1) > 1e-6
    facing = (areas(shape)[:, None] * shape.normals[shape.faces]).sum(-1)
    same_side = np.sign(facing[big].mean(1))
    assert abs(same_side.sum()) == len(same_side), "all faces wind the same way about their normals"


def test_closed_shapes_hold_the_volume_they_should():
    def volume(shape):
        corners = shape.positions[shape.faces].astype(float)
        return abs(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)

    assert volume(SHAPES["box"]) == pytest.approx(1)
    assert volume(meshes.cylinder(200)) == pytest.approx(np.pi / 4, rel=1e-2)
    assert volume(meshes.sphere(100, 80)) == pytest.approx(np.pi / 6, rel=1e-2)


def test_terrain_normals_follow_the_slope():
    lines = np.linspace(-2, 2, 9)
    land = meshes.height_field(lines, lines, 0.5 * lines[None] + 0 * lines[:, None])
    slope = np.array([-0.5, 1, 0]) / np.hypot(0.5, 1)
    np.testing.assert_allclose(land.normals, np.broadcast_to(slope, land.normals.shape), atol=1e-6)
    assert (areas(land)[:, 1] > 0).all()


@pytest.mark.parametrize("kind", textures.DRAWINGS)
def test_drawn_textures_repeat_and_only_foliage_has_holes(kind):
    first, second = (textures.draw(kind, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.shape == (textures.SIZE_PX, textures.SIZE_PX, 4) and first.pixels.dtype == np.uint8
    assert first.pixels[..., :3].std() > 1, "not one flat colour"
    assert first.has_holes == (kind == "foliage")


def test_noise_has_no_seam():
    field = textures.noise(np.random.default_rng(2), 2.0)
    inner = np.abs(np.diff(field, axis=0)).mean()
    assert np.abs(field[0] - field[-1]).mean() < 2 * inner


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_without_assets(kind):
    scene, again, other = make_scene(4, BARE, [kind]), make_scene(4, BARE, [kind]), make_scene(5, BARE, [kind])
    matrices = np.stack([item.matrix for item in scene.items])
    np.testing.assert_array_equal(matrices, np.stack([item.matrix for item in again.items]))
    assert scene.cameras == again.cameras != other.cameras
    assert np.isfinite(matrices).all() and (np.abs(np.linalg.det(matrices)) > 0).all()
    assert len(scene.cameras) == CANDIDATES and len(scene.items) > 10 and scene.faces() < 200_000
    assert {item.label for item in scene.items} <= set(range(1, len(LABELS))), "the sky is no thing"


def test_kinds_mix_by_weight():
    assert sum(weight for _, weight in KINDS.values()) == pytest.approx(1)
    assert len({make_scene((8, k), BARE).kind for k in range(16)}) >= 4
    assert {make_scene((8, k), BARE, ["street", "drive"]).kind for k in range(16)} <= {"street", "drive"}


def test_furniture_does_not_overlap_and_stays_in_the_room():
    room = Room(np.random.default_rng(6), BARE, (5.0, 4.0, 2.6))
    room.furnish_walls(40_000)
    room.furnish_middle()
    assert len(room.taken) > 4
    for k, (a, c, b, d) in enumerate(room.taken):
        assert -2.5 - 1e-6 <= a < b <= 2.5 + 1e-6 and -2 - 1e-6 <= c < d <= 2 + 1e-6
        assert not any(a < q and p < b and c < s and r < d for p, r, q, s in room.taken[k + 1 :])


def test_small_things_stand_on_the_table_top():
    room = Room(np.random.default_rng(7), BARE, (4.0, 4.0, 2.6))
    top = Model((), np.array([1.5, 0.7, 0.9]), 0)
    room.fill_top(top, place((0.5, 0, 0.2), 1, 30), 8)
    assert len(room.scene.items) > 5
    lows = [(item.mesh.positions @ item.matrix[:3, :3].T + item.matrix[:3, 3])[:, 1].min() for item in room.scene.items]
    assert min(lows) == pytest.approx(0.7, abs=0.01)


def test_walls_face_the_room():
    room = Room(np.random.default_rng(0), BARE, (6.0, 4.0, 2.5))
    for side in range(4):
        x, z, yaw = room.on_wall(side, 0.0, 0.1)
        front = place(yaw_deg=yaw)[:3, 2]
        assert front @ [x, 0, z] < 0 and max(abs(x) - 3, abs(z) - 2) == pytest.approx(-0.1)


MAKERS = {
    "table": lambda rng: models.table(rng, BARE),
    "chair": lambda rng: models.chair(rng, BARE),
    "cabinet": lambda rng: models.cabinet(rng, BARE),
    "package": lambda rng: models.package(rng, BARE),
    "crockery": lambda rng: models.crockery(rng, BARE),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_models_size_is_that_of_its_parts(make):
    for seed in range(8):
        thing = make(np.random.default_rng(seed))
        points = np.concatenate(
            [part.mesh.positions @ part.matrix[:3, :3].T + part.matrix[:3, 3] for part in thing.parts]
        )
        assert points[:, 1].min() > -1e-5 and points[:, 1].max() == pytest.approx(thing.size[1], rel=1e-5)
        assert (np.abs(points[:, [0, 2]]) <= thing.size[[0, 2]] / 2 + 1e-5).all()
    assert model(list(thing.parts)).faces == sum(len(part.mesh.faces) for part in thing.parts)


def test_rotations_are_rigid():
    turned = random_rotation(np.random.default_rng(3))[:3, :3]
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)
    axes = Camera((1.0, 2.0, 3.0), (0.0, 0.5, -1.0), 60.0, 20.0).rotation()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)


def entry(name: str, extents_m: list[float], **more) -> dict:
    return {"name": name, "kind": "furniture", "extents_m": extents_m, "faces": 12, **more}


def test_roles_follow_size_and_name():
    assert roles(entry("Oak table", [1.2, 0.75, 0.8], category="Living room")) == ["standing", "surface", "table"]
    assert roles(entry("Milk", [0.1, 0.25, 0.1], category="Kitchen")) == ["object"]
    assert roles(entry("Hood", [0.6, 0.1, 0.5], category="Kitchen", elevation_cm="150")) == ["mounted"]
    assert roles(entry("Male", [0.6, 1.8, 0.4], category="Characters")) == ["person"]
    assert roles(entry("City bus", [3.0, 3.0, 12.2], category="Vehicles")) == ["car"]
    assert roles(entry("tower", [30, 200, 30], kind="building")) == []


@pytest.fixture
def folder(tmp_path):
    """Make a folder of two assets: a table with a textured and a plain part, and a red wood texture."""
    scene = trimesh.Scene()
    top = trimesh.creation.box((1.2, 0.1, 0.8))
    top.apply_translation((0, 0.65, 0))
    picture = Image.new("RGB", (600, 8), (10, 200, 30))
    top.visual = trimesh.visual.TextureVisuals(
        uv=np.zeros((len(top.vertices), 2)), material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    )
    leg = trimesh.creation.box((0.1, 0.6, 0.1))
    leg.apply_translation((0, 0.3, 0))
    scene.add_geometry([top, leg])
    scene.export(tmp_path / "table.glb")
    Image.new("RGB", (16, 16), (200, 20, 20)).save(tmp_path / "red.png")
    table = entry("Oak table", [1.2, 0.7, 0.8], category="Living room", path="table.glb")
    red = {"path": "red.png", "kind": "texture", "cls": "wood", "tileable": True, "alpha": False, "faces": None}
    (tmp_path / "index.json").write_text(json.dumps([table, red]))
    return tmp_path


def test_a_folder_of_assets_is_used(folder):
    assets = Assets(folder)
    found = assets.model(np.random.default_rng(1), "table")
    assert found is not None and found.faces == 24
    np.testing.assert_allclose(found.size, [1.2, 0.7, 0.8])
    top = next(part for part in found.parts if part.mesh.positions[:, 1].min() > 0.5)
    assert top.material.texture is not None and top.material.texture.pixels.shape == (8, 256, 4)
    reds = [assets.texture(np.random.default_rng(k), "wood").pixels.shape == (16, 16, 4) for k in range(20)]
    assert 0 < sum(reds) < 20, "photographed mostly, drawn now and then"
    assert assets.model(np.random.default_rng(1), "car") is None
    assert assets.track(np.random.default_rng(1)) is None


def test_a_scene_does_not_depend_on_what_was_loaded_before(folder):
    warm = Assets(folder)
    make_scene(1, warm, ["room"])
    fresh, reused = make_scene(2, Assets(folder), ["room"]), make_scene(2, warm, ["room"])
    assert fresh.cameras == reused.cameras and len(fresh.items) == len(reused.items)
    for a, b in zip(fresh.items, reused.items, strict=True):
        np.testing.assert_array_equal(a.matrix, b.matrix)
        if a.material.texture and b.material.texture:
            np.testing.assert_array_equal(a.material.texture.pixels, b.material.texture.pixels)
