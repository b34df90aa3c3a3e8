"""The renderer against closed forms, and its shards on disk."""

import shutil
from dataclasses import replace
from pathlib import Path

import moderngl
import numpy as np
import pytest

from marigold_core.errors import MarigoldError
from tests.helpers.damage import failing
from training import render
from training.data.sets import rendered
from training.data.sets.rendered import RenderedScenes, View
from training.engine import workers
from training.render import RenderSettings, SceneRenderer, worth_keeping
from training.scenes import meshes, rasterizer
from training.scenes.textures import Texture
from training.scenes.types import LABELS, Camera, Lighting, Material, Scene, place

SIZE = (96, 64)
LIGHT = Lighting(
    key=(0.3, 1.0, 0.2),
    key_is_lamp=False,
    key_colour=(0.8, 0.8, 0.8),
    shadow_centre=(0.0, 0.0, 0.0),
    shadow_radius_m=8.0,
    ambient=np.full((6, 3), 0.3),
)


@pytest.fixture(scope="module")
def draw():
    """Return a function that draws a scene from one camera."""
    try:
        machine = rasterizer.rasterizer()
    except MarigoldError as error:
        pytest.skip(str(error))

    def first_view(scene: Scene, camera: Camera, size=SIZE) -> View:
        scene.cameras = [camera]
        return next(machine.views(scene, size))[1]

    return first_view


def rays(camera: Camera, size=SIZE) -> np.ndarray:
    """[H, W, 3] world directions through pixel centres whose component along the optical axis is 1."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    focal_px = camera.focal_px(width, height)
    return np.stack([x / focal_px, y / focal_px, np.ones_like(x)], axis=-1) @ camera.rotation()


def scene_of(*things) -> Scene:
    scene = Scene("room", LIGHT)
    for shape, look, matrix, label in things:
        scene.add_mesh(shape, look, matrix, label)
    return scene


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
@pytest.mark.parametrize("roll_deg", [0.0, 17.0])
def test_depth_and_normals_of_a_floor(draw, size, roll_deg):
    camera = Camera((0.3, 1.5, 2.0), (0.8, 0.4, -1.0), 70.0, roll_deg)
    view = draw(scene_of((meshes.plane(), Material(), place(scale=(200, 1, 200)), "ground")), camera, size)
    expected = -camera.eye[1] / rays(camera, size)[..., 1]
    hit = (expected > 0) & (expected < 40)
    assert hit.mean() > 0.3
    np.testing.assert_allclose(view.depth_m[hit], expected[hit], rtol=1e-4)
    assert np.isinf(view.depth_m[(expected < 0)]).all()
    up = camera.rotation() @ [0, 1, 0] * [1, -1, -1]
    np.testing.assert_allclose(view.normals[hit], np.broadcast_to(up, view.normals[hit].shape), atol=0.01)
    assert (view.normals[np.isinf(view.depth_m)] == 0).all()


def test_depth_and_normals_of_a_sphere(draw):
    camera = Camera((0.0, 1.0, 4.0), (0.2, 0.9, 0.0), 50.0)
    ball = meshes.sphere(256, 192)
    view = draw(scene_of((ball, Material(), place((0.2, -0.1, 0.0), 2.0), "object")), camera)
    directions, centre = rays(camera), np.array([0.2, 0.9, 0.0])
    offset = np.asarray(camera.eye) - centre
    a, b, c = (directions**2).sum(-1), directions @ offset, offset @ offset - 1
    inside = b**2 - a * c > 0.05
    expected = (-b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a
    np.testing.assert_allclose(view.depth_m[inside], expected[inside], rtol=1e-3)
    outward = (offset + expected[..., None] * directions) @ camera.rotation().T * [1, -1, -1]
    np.testing.assert_allclose(view.normals[inside], outward[inside], atol=0.03)


def test_depth_is_never_averaged_over_an_edge(draw):
    """A box before a wall, both facing the camera: two depths, nothing between."""
    camera = Camera((0.0, 0.5, 3.0), (0.0, 0.5, 0.0), 60.0, 11.0)
    things = [
        (meshes.frustum(), Material(), place(), "object"),
        (meshes.card(), Material(), place((0, -9, -2), 20), "wall"),
    ]
    view = draw(scene_of(*things), camera)
    np.testing.assert_allclose(np.unique(np.round(view.depth_m, 3)), [2.5, 5.0], atol=2e-3)
    np.testing.assert_array_equal(view.labels == LABELS.index("object"), view.depth_m < 3)


def test_holes_of_a_texture_are_cut_from_depth_and_colour(draw):
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:32, ..., 3] = 0  # the upper half is a hole
    red = Material(None, (0.9, 0.05, 0.05))
    things = [
        (meshes.card(), Material(Texture(pixels)), place((0, 0, 0), 2), "plant"),
        (meshes.card(), red, place((0, -9, -3), 20), "wall"),
    ]
    view = draw(scene_of(*things), Camera((0.0, 1.0, 2.0), (0.0, 1.0, 0.0), 60.0))
    column = view.depth_m[:, SIZE[0] // 2]
    np.testing.assert_allclose(column[8:30], 5.0, rtol=1e-3)
    np.testing.assert_allclose(column[34:56], 2.0, rtol=1e-3)
    above, below = view.rgb[20, SIZE[0] // 2].astype(int), view.rgb[45, SIZE[0] // 2].astype(int)
    assert above[0] > 2 * above[1] and abs(below[0] - below[1]) < 5


def test_instances_of_one_mesh_keep_their_places_and_looks(draw):
    box = meshes.frustum()
    things = [
        (box, Material(None, (0.9, 0.1, 0.1)), place((-1, 0, 0)), "object"),
        (box, Material(None, (0.1, 0.1, 0.9)), place((1, 0, -1)), "furniture"),
    ]
    view = draw(scene_of(*things), Camera((0.0, 0.5, 3.0), (0.0, 0.5, 0.0), 70.0))
    left, right = view.labels == LABELS.index("object"), view.labels == LABELS.index("furniture")
    assert left[:, :48].sum() == left.sum() > 50 and right[:, 48:].sum() == right.sum() > 50
    red, blue = view.rgb[left].mean(0), view.rgb[right].mean(0)
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]


@pytest.mark.parametrize("light", [LIGHT, replace(LIGHT, key_colour=(0.1, 0.2, 0.9), ambient=np.full((6, 3), 0.05))])
def test_albedo_is_the_colour_of_the_surface_whatever_the_light(draw, light):
    tint = np.array([0.9, 0.5, 0.05])
    scene = scene_of((meshes.frustum(), Material(None, tuple(tint), gloss=1.0), place(), "object"))
    scene.lighting = light
    view = draw(scene, Camera((0.4, 0.9, 3.0), (0.0, 0.5, 0.0), 60.0))
    seen = view.labels == LABELS.index("object")
    base = tint**2  # materials are painted with gamma 2
    expected = np.where(base <= 0.0031308, 12.92 * base, 1.055 * base ** (1 / 2.4) - 0.055) * 255
    assert seen.mean() > 0.05 and view.albedo is not None
    np.testing.assert_allclose(view.albedo[seen], np.broadcast_to(expected, (seen.sum(), 3)), atol=1.5)
    assert (view.albedo[~seen] == 0).all()


def test_a_box_throws_a_shadow(draw):
    camera = Camera((0.0, 6.0, 0.01), (0.0, 0.0, 0.0), 60.0)
    floor = (meshes.plane(), Material(), place(scale=(30, 1, 30)), "ground")
    lit = draw(scene_of(floor), camera).rgb.astype(int)
    box = (meshes.frustum(), Material(), place((0, 2, 0)), "object")
    shaded = draw(scene_of(floor, box), camera)
    ground = shaded.labels == LABELS.index("ground")
    darker = (lit - shaded.rgb).mean(-1)[ground]
    assert 0.01 < (darker > 20).mean() < 0.3


def test_no_driver_is_one_sentence(monkeypatch):
    monkeypatch.setattr(moderngl, "create_context", failing(Exception("cannot open libEGL")))
    with pytest.raises(MarigoldError, match="libegl1"):
        rasterizer.Rasterizer()


def a_view(depth_m: np.ndarray) -> View:
    rgb = np.random.default_rng(0).integers(0, 255, (*depth_m.shape, 3), np.uint8)
    return View(
        rgb, depth_m.astype(np.float32), np.zeros((*depth_m.shape, 3), np.float32), np.ones(depth_m.shape, np.uint8)
    )


def test_only_views_that_show_something_are_kept():
    ramp = np.linspace(1, 4, 64 * 64).reshape(64, 64)
    assert worth_keeping(a_view(ramp))
    assert not worth_keeping(a_view(np.full((64, 64), 2.0))), "a bare wall"
    assert not worth_keeping(a_view(np.where(ramp < 1.5, 0.1, ramp))), "inside a thing"
    assert not worth_keeping(a_view(np.where(ramp > 1.5, np.inf, ramp))), "sky alone"
    assert not worth_keeping(replace(a_view(ramp), rgb=np.zeros((64, 64, 3), np.uint8))), "the dark"


HARSH = "harsh"
SETTINGS = RenderSettings(seed=3, width=64, height=32, views_per_scene=2, assets=None, shard_samples=4)


def contents(shard: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(shard.iterdir())}


def test_shards_resume_and_repeat_byte_for_byte(draw, tmp_path):
    assert render.render(SETTINGS, tmp_path, 10) == 3
    first = {path.name: contents(path) for path in sorted(tmp_path.glob("shard_*"))}
    assert list(first) == ["shard_00000", "shard_00001", "shard_00002"]
    assert first["shard_00000"]["rgb.npy"] != first["shard_00001"]["rgb.npy"]
    shutil.rmtree(tmp_path / "shard_00001")
    assert render.render(SETTINGS, tmp_path, 12) == 1
    assert render.render(SETTINGS, tmp_path, 12) == 0
    assert {path.name: contents(path) for path in sorted(tmp_path.glob("shard_*"))} == first


def test_harsh_light_changes_nothing_but_the_light(draw):
    usual, harsh = (
        SceneRenderer(SETTINGS.changed(light=light)).pictures((5, 0, 0), (64, 48)) for light in ("usual", "harsh")
    )
    (_, camera, one), (_, same_camera, other) = usual[0], harsh[0]
    assert camera == same_camera and np.abs(one.rgb.astype(float) - other.rgb).mean() > 5
    for name in ("depth_m", "normals", "labels", "albedo"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_shard_is_whole_or_absent(tmp_path, monkeypatch):
    def interrupt(path, array):
        if "depth" in str(path):
            raise KeyboardInterrupt

    monkeypatch.setattr(rendered.np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rendered.write_shard(tmp_path / "shard_00000", [a_view(np.ones((32, 32)))], {})
    assert not (tmp_path / "shard_00000").exists()
    with pytest.raises(MarigoldError, match="no rendered shard"):
        RenderedScenes(tmp_path)


def test_samples_come_back_as_they_were_rendered(draw, tmp_path):
    renderer = SceneRenderer(SETTINGS)
    for number in (0, render.PORTRAIT_EVERY - 1):
        renderer.shard(tmp_path, number)
    scenes = RenderedScenes(tmp_path)
    assert len(scenes) == 8 and [len(shard) for shard in scenes.shards] == [4, 4]
    assert scenes[0].rgb.shape == (32, 64, 3) and scenes[-1].rgb.shape == (64, 32, 3), "every sixth shard is portrait"
    with pytest.raises(IndexError):
        scenes[8]
    kind, camera, view = renderer.pictures((SETTINGS.seed, 0, 0), (64, 32))[0]
    sample = scenes[0]
    assert sample.kind == kind and sample.fov_x_deg == pytest.approx(camera.fov_x_deg)
    np.testing.assert_array_equal(sample.rgb, view.rgb)
    np.testing.assert_array_equal(sample.labels, view.labels)
    assert sample.albedo is not None and view.albedo is not None and (sample.albedo > 0).any()
    np.testing.assert_array_equal(sample.albedo, view.albedo)
    np.testing.assert_array_equal(np.isinf(sample.depth_m), np.isinf(view.depth_m))
    np.testing.assert_allclose(sample.depth_m, view.depth_m, rtol=2**-11)
    np.testing.assert_allclose(sample.normals, view.normals, atol=0.005)
    (tmp_path / "shard_00000" / "albedo.npy").unlink()  # as older versions wrote shards
    older = RenderedScenes(tmp_path)[0]
    assert older.albedo is None and not any("albedo" in path.name for path in RenderedScenes(tmp_path).files(0))
    np.testing.assert_array_equal(older.rgb, view.rgb)


@pytest.fixture
def drawn(monkeypatch):
    """Shards without a renderer."""

    def shard(self, out, number):
        settings = self.settings.recorded()
        meta = {"kinds": ["room"] * 4, "fov_x_deg": [60.0] * 4, "settings": settings}
        rendered.write_shard(out / f"shard_{number:05d}", [a_view(np.ones((32, 64)))] * 4, meta)

    monkeypatch.setattr(SceneRenderer, "__init__", lambda self, settings: setattr(self, "settings", settings))
    monkeypatch.setattr(SceneRenderer, "shard", shard)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"kinds": ("room",)},
        {"width": 96},
        {"shard_samples": 8},
        {"views_per_scene": 1},
        {"light": "harsh"},
    ],
)
def test_a_folder_holds_shards_of_one_choice_of_settings(drawn, change, tmp_path):
    render.render(SETTINGS, tmp_path, 8)
    before = {path.name: contents(path) for path in tmp_path.glob("shard_*")}
    (name,) = change
    with pytest.raises(MarigoldError, match=f"rendered with another {name} "):
        render.render(SETTINGS.changed(**change), tmp_path, 16)
    assert {path.name: contents(path) for path in tmp_path.glob("shard_*")} == before
    assert render.render(SETTINGS, tmp_path, 12) == 1


def test_other_assets_are_other_settings_and_old_shards_are_understood(drawn, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(f'["{name}"]')
    first, second = (SETTINGS.changed(assets=str(tmp_path / name)) for name in ("a", "b"))
    render.render(first, tmp_path / "out", 4)
    with pytest.raises(MarigoldError, match="another assets"):
        render.render(second, tmp_path / "out", 8)
    meta = tmp_path / "out" / "shard_00000" / "meta.json"
    older = meta.read_text().replace(f'"{first.recorded()["assets"]}"', "true").replace(', "light": "usual"', "")
    assert "light" not in older
    meta.write_text(older)
    assert render.render(second, tmp_path / "out", 8) == 1


def test_what_a_killed_renderer_left_is_cleared(drawn, tmp_path):
    (tmp_path / ".shard_00009.marigold-unfinished").mkdir()
    (tmp_path / ".shard_00009.marigold-unfinished" / "rgb.npy").write_bytes(b"half")
    render.render(SETTINGS, tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".marigold-lock") == ["shard_00000"]


def test_hidden_files_of_the_users_stay(drawn, tmp_path):
    mine = (
        ".lock",
        ".draft.tmp/a",
        ".notes.tmp/b",
        ".c.unfinished",
        "deep/.d.tmp",
        "deep/.shard_00000.marigold-unfinished/e",
    )
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    render.render(SETTINGS, tmp_path, 4)
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}


def test_a_second_renderer_and_a_full_disk_are_refused(drawn, tmp_path, capsys, monkeypatch):
    with workers.locked(tmp_path), pytest.raises(MarigoldError, match="Another process works in"):
        render.render(SETTINGS, tmp_path, 4)
    render.render(SETTINGS, tmp_path, 4)
    assert "4 pictures need: 0.1 MB in" in capsys.readouterr().out
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(MarigoldError, match="disk is too small"):
        render.render(SETTINGS, tmp_path, 8)
