"""Every written file read back and compared; what does not suit, and what the disk refuses, said in a sentence."""

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image
from pydantic import ValidationError

from marigold_core import cli, storage
from marigold_core.cli import photo_folders
from marigold_core.errors import ExportError, ImageError, MarigoldError, SettingsError
from marigold_core.files.manifest import Manifest
from marigold_core.files.presets import SaveFor
from marigold_core.files.reader import from_depth
from marigold_core.files.writers import formats_for, formats_of, save
from marigold_core.geometry.camera import metric_z, normals
from marigold_core.geometry.mesh import build_mesh
from marigold_core.images.colormaps import depth_to_rgb, normals_to_rgb, uncertainty_to_rgb
from marigold_core.images.intrinsics import ClassColour, Layer
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, Format, MeshSettings, Settings
from tests.helpers.command_line import fingerprints, run_command
from tests.helpers.encoded import encoded
from tests.helpers.predictions import LAYERS, layers_of, prediction_of

CLASSES = Layer(
    "classes", 0, (0, 1, 2), "srgb", classes=(ClassColour("wall", (10, 20, 0)), ClassColour("sky", (255, 200, 0)))
)
MESH = MeshSettings(max_triangles=3000, relief_mm=120, fov_x_deg=60)
NAMES = {
    "npy": "depth.npy",
    "png16": "depth_16bit.png",
    "color": "depth_color.png",
    "uncertainty": "uncertainty.png",
    "uncertainty_npy": "uncertainty.npy",
    "normals": "normals.png",
    "normals_npy": "normals.npy",
    "glb": "mesh.glb",
    "ply": "points.ply",
    "stl": "relief.stl",
    "exr": "depth.exr",
    "manifest": "manifest.json",
}


@pytest.fixture
def depth() -> Prediction:
    y, x = np.mgrid[0:48, 0:64] / 64
    values = (0.5 + 0.49 * np.sin(6 * x) * np.cos(5 * y)).astype(np.float32)
    photo = np.stack([x * 250, y * 250, 250 - x * 250], axis=-1).astype(np.uint8)
    settings = Settings(ensemble_size=5, seed=7).resolved(4, 64)
    return prediction_of(values, uncertainty=values * 0.03, photo=photo, fov_x_deg=61.5, settings=settings)


@pytest.fixture
def vectors(depth: Prediction) -> Prediction:
    return replace(depth, modality="normals", kind="unit-vector", values=normals(depth, MESH), uncertainty=None)


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.info.keys() <= {"near", "far", "sign", "depth", "quantity", "meaning", "low", "high", "range"}
        assert len(image.getexif()) == 0
        return np.asarray(image)


def glb_tree(content: bytes) -> dict:
    magic, version, length, json_length, kind = struct.unpack("<4sIII4s", content[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    return json.loads(content[20 : 20 + json_length])


# ------------------------------------------------------------------------------- reading back


def test_every_format_is_written_under_its_name(depth: Prediction, tmp_path: Path) -> None:
    paths = save(depth, tmp_path / "new" / "photo", mesh=MESH)
    assert {name: path.name for name, path in paths.items()} == NAMES
    assert sorted(path.name for path in (tmp_path / "new" / "photo").iterdir()) == sorted(NAMES.values())
    assert set(get_args(Format)) <= paths.keys()


def test_depth_arrays_and_pictures(depth: Prediction, tmp_path: Path) -> None:
    paths = save(depth, tmp_path, ["npy", "png16", "color"], colours=ColourSettings(colormap="cividis"))
    stored = np.load(paths["npy"], allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, depth.values)
    levels = read_png(paths["png16"])
    assert levels.dtype == np.uint16 and len(np.unique(levels)) > 2000
    np.testing.assert_allclose(levels / 65535, depth.values, atol=0.51 / 65535)
    np.testing.assert_array_equal(read_png(paths["color"]), depth_to_rgb(depth.values, "cividis"))


def texts(path: Path) -> dict[Any, Any]:
    with Image.open(path) as image:
        return dict(image.info)


def test_pictures_of_depth_state_near_far_and_sign(depth: Prediction, tmp_path: Path) -> None:
    """As text chunks, which travel with a picture that has lost its manifest."""
    metres = replace(depth, kind="metric", values=depth.values * 7 + 1.5)
    ends = float(metres.values.min()), float(metres.values.max())
    for invert, signs in ((False, ("black", "first")), (True, ("white", "last"))):
        colours = ColourSettings(colormap="magma", range_from=0.25, invert=invert)
        paths = save(metres, tmp_path / str(invert), ["png16", "color"], colours=colours)
        grey, coloured = texts(paths["png16"]), texts(paths["color"])
        assert (grey["sign"], coloured["sign"]) == (f"near is {signs[0]}", f"near is the {signs[1]} colour of magma")
        assert [float(str(grey[end])) for end in ("near", "far")] == pytest.approx(ends, rel=1e-7)
        assert float(str(coloured["near"])) == pytest.approx(ends[0] + 0.25 * (ends[1] - ends[0]), rel=1e-6)
        assert "in metres" in str(grey["depth"])
        levels = read_png(paths["png16"]) / 65535.0
        near_level, far_level = (1, 0) if invert else (0, 1)
        found = ends[0] + (levels - near_level) / (far_level - near_level) * (ends[1] - ends[0])
        np.testing.assert_allclose(found, metres.values, atol=2e-4)
        told = Manifest.model_validate_json(paths["manifest"].read_text()).png16_range
        assert told is not None and (told.low, told.high) == pytest.approx(ends[::-1] if invert else ends)


def test_pictures_of_uncertainty_and_normals_state_what_they_mean(depth: Prediction, tmp_path: Path) -> None:
    spread = np.linspace(0, 0.4, depth.values.size, dtype=np.float32).reshape(depth.values.shape)
    paths = save(replace(depth, uncertainty=spread), tmp_path / "depth", ["uncertainty", "normals"])
    said = texts(paths["uncertainty"])
    assert said["quantity"] == "uncertainty" and "spread of the members after alignment" in said["meaning"]
    assert said["low"] == "0" and float(said["high"]) == pytest.approx(0.38, abs=1e-3)  # of 95 % of the pixels
    turned = prediction_of(normals(depth, MESH), kind="unit-vector", uncertainty=spread)
    others = save(turned, tmp_path / "normals", ["uncertainty", "normals"])
    assert "angle" in texts(others["uncertainty"])["meaning"]
    for path in (paths["normals"], others["normals"]):
        said = texts(path)
        assert said["quantity"] == "normals" and said["range"] == "0 to 255 is -1 to 1"
        assert "red is X to the right, green Y up, blue Z toward the viewer" in said["meaning"]
    pair = save(depth, tmp_path / "pair", save_for=["stereo"])
    assert "does not show" in texts(pair["stereo_filled"])["meaning"]


def test_the_colour_picture_has_the_range_and_the_direction_that_were_chosen(depth: Prediction, tmp_path: Path) -> None:
    chosen = ColourSettings(colormap="magma", range_from=0.25, range_to=0.75, invert=True)
    paths = save(depth, tmp_path, ["color", "png16"], colours=chosen)
    expected = depth_to_rgb((depth.values - 0.25) / 0.5, "magma", invert=True)
    assert np.abs(read_png(paths["color"]).astype(int) - expected).max() <= 3  # float32 rounding at a colour's edge
    np.testing.assert_allclose(1 - read_png(paths["png16"]) / 65535, depth.values, atol=0.51 / 65535)  # no range
    assert Manifest.model_validate_json(paths["manifest"].read_text()).colours == chosen


def test_16_bits_are_used_from_end_to_end(depth: Prediction, tmp_path: Path) -> None:
    metres = replace(depth, kind="metric", values=depth.values * 7 + 1.5)
    paths = save(metres, tmp_path / "metres", ["png16"])
    levels = read_png(paths["png16"])
    assert (levels.min(), levels.max()) == (0, 65535)
    told = Manifest.model_validate_json(paths["manifest"].read_text()).png16_range
    assert told is not None
    np.testing.assert_allclose(told.low + (told.high - told.low) * levels / 65535.0, metres.values, atol=2e-4)
    outside = replace(depth, values=depth.values * 1.5 - 0.2)  # clipped, not wrapped
    levels = read_png(save(outside, tmp_path / "outside", ["png16"])["png16"])
    assert (levels[outside.values > 1] == 65535).all() and (levels[outside.values < 0] == 0).all()


def test_uncertainty_and_normals_come_as_array_and_picture(depth: Prediction, tmp_path: Path) -> None:
    paths = save(depth, tmp_path, ["uncertainty", "normals"], mesh=MESH)
    np.testing.assert_array_equal(np.load(paths["uncertainty_npy"]), depth.uncertainty)
    np.testing.assert_array_equal(read_png(paths["uncertainty"]), uncertainty_to_rgb(depth.values * 0.03))
    np.testing.assert_array_equal(np.load(paths["normals_npy"]), normals(depth, MESH))
    np.testing.assert_array_equal(read_png(paths["normals"]), normals_to_rgb(normals(depth, MESH)))


def test_the_glb_opens_unlit_textured_and_in_gltf_axes(depth: Prediction, tmp_path: Path) -> None:
    content = save(depth, tmp_path, ["glb"], mesh=MESH)["glb"].read_bytes()
    tree = glb_tree(content)
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    (material,) = tree["materials"]
    assert material["extensions"] == {"KHR_materials_unlit": {}} and material["doubleSided"]
    assert tree["images"][0]["mimeType"] == "image/jpeg"
    opened: Any = trimesh.load_mesh(BytesIO(content), file_type="glb")
    expected: Any = build_mesh(depth, MESH)
    assert 0 < len(opened.faces) == len(expected.faces) <= 3000
    np.testing.assert_allclose(opened.vertices, expected.vertices * (1, -1, -1), atol=1e-5)
    assert opened.vertices[:, 2].max() < 0  # before a camera at the origin that looks along -z
    np.testing.assert_allclose(opened.visual.uv, expected.visual.uv, atol=1e-5)
    texture = opened.visual.material.baseColorTexture
    assert texture.size == (64, 48) and len(texture.getexif()) == 0
    assert np.abs(np.asarray(texture.convert("RGB")).astype(int) - depth.photo).mean() < 4


def test_large_textures_are_capped(depth: Prediction, tmp_path: Path) -> None:
    wide = replace(depth, photo=np.zeros((300, 4000, 3), np.uint8), values=np.zeros((300, 4000), np.float32))
    opened: Any = trimesh.load_mesh(save(wide, tmp_path, ["glb"], mesh=MESH)["glb"])
    assert opened.visual.material.baseColorTexture.size == (2048, 154)


def test_points_keep_their_colours(depth: Prediction, tmp_path: Path) -> None:
    uncut = MeshSettings(fov_x_deg=60, edge_cut=0)
    cloud = trimesh.load(save(depth, tmp_path, ["ply"], mesh=uncut)["ply"])
    assert isinstance(cloud, trimesh.PointCloud)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], depth.photo.reshape(-1, 3))
    np.testing.assert_allclose(cloud.vertices[:, 2], -metric_z(depth, MESH).ravel(), atol=1e-5)


def test_points_lie_on_the_mesh_of_the_same_result(depth: Prediction, tmp_path: Path) -> None:
    paths = save(depth, tmp_path, ["glb", "ply"], mesh=MeshSettings(fov_x_deg=60))
    mesh: Any = trimesh.load_mesh(paths["glb"])
    cloud: Any = trimesh.load(paths["ply"])
    np.testing.assert_allclose(mesh.bounds, cloud.bounds, atol=0.02)
    assert np.abs(trimesh.proximity.closest_point_naive(mesh, cloud.vertices[::97])[1]).max() < 0.01


def test_the_relief_opens_watertight_and_in_millimetres(depth: Prediction, tmp_path: Path) -> None:
    solid = trimesh.load_mesh(save(depth, tmp_path, ["stl"], mesh=MESH)["stl"])
    assert solid.is_watertight and solid.is_volume
    assert solid.extents.max() == pytest.approx(120) and solid.bounds[0] == pytest.approx([0, 0, 0])


def test_the_exr_holds_the_very_values(depth: Prediction, tmp_path: Path) -> None:
    path = save(depth, tmp_path, ["exr"])["exr"]
    with OpenEXR.File(str(path)) as file:
        assert sorted(file.channels()) == ["Y", "Z"]
        for channel in file.channels().values():
            assert channel.pixels.dtype == np.float32
            np.testing.assert_array_equal(channel.pixels, depth.values)
        assert "unit" not in file.header() and "unknown scale" in file.header()["comments"]
    metres = replace(depth, kind="metric")
    with OpenEXR.File(str(save(metres, tmp_path / "metres", ["exr"])["exr"])) as file:
        assert file.header()["unit"] == "metre"


def test_values_twice_cost_an_exr_little(tmp_path: Path) -> None:
    """Y and Z lie near enough to each other for the compression to see that they are the same."""
    from marigold_core.files.formats import Content, _exr

    y, x = np.mgrid[0:400, 0:4000] / 4000
    noise = np.random.default_rng(0).normal(0, 1e-3, x.shape)
    source = prediction_of(0.5 + 0.4 * np.sin(9 * x + 5 * y) + noise)
    content = Content(source, MESH, ColourSettings())
    once = len(_exr(content, {"Z": source.values}))
    assert len(_exr(content, {"Y": source.values, "Z": source.values})) < 1.05 * once


# ------------------------------------------------------------------------------- manifest


def test_the_manifest_says_what_was_done(depth: Prediction, tmp_path: Path) -> None:
    paths = save(depth, tmp_path, ["npy", "glb"], mesh=MESH, colours=ColourSettings(colormap="magma"))
    text = paths["manifest"].read_text()
    record = Manifest.model_validate_json(text)
    assert record.schema_version == 4 and json.loads(text)["schema_version"] == 4
    assert (record.settings, record.mesh, record.colours.colormap) == (depth.settings, MESH, "magma")
    assert (record.checkpoint, record.checkpoint_sha256) == ("tiny", "0" * 64)
    assert (record.modality, record.kind, record.space, record.fov_x_deg) == ("depth", "affine", "depth", 61.5)
    assert "0 = near plane, 1 = far plane" in record.convention
    camera, focal_px = record.camera, 32 / np.tan(np.radians(30))
    assert camera is not None and (camera.fov_x_deg, camera.origin) == (60, "given")
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((focal_px, focal_px, 32, 24))
    assert record.value_range.low == depth.values.min() and record.value_range.high == depth.values.max()
    assert (record.photo.width, record.photo.height) == (64, 48)
    assert record.photo.sha256 == hashlib.sha256(depth.photo.tobytes()).hexdigest()
    assert record.files == {name: fingerprints(tmp_path)[name] for name in ("depth.npy", "mesh.glb")}
    assert {"python", "marigold_core", "torch", "diffusers", "transformers", "numpy"} <= record.versions.keys()
    assert Manifest.model_validate_json(record.model_dump_json()) == record
    assert str(tmp_path) not in text and str(Path.home()) not in text


def test_writing_needs_no_torch() -> None:
    code = "import marigold_core.files.writers, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 5},
        {"surprise": 1},
        {"kind": "sure"},
        {"settings": {"seed": -1}},
        {"value_range": {"low": "0", "high": 1}},
        {"files": {"../depth.npy": "0"}},
        {"left_out": {"a\\b.npy": "no mesh"}},
    ],
)
def test_a_changed_manifest_is_not_read(depth: Prediction, tmp_path: Path, change: dict[str, object]) -> None:
    record = json.loads(save(depth, tmp_path, [])["manifest"].read_text())
    with pytest.raises((ValidationError, SettingsError)):
        Manifest.model_validate_json(json.dumps(record | change))


def test_the_same_prediction_writes_the_same_bytes(depth: Prediction, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(depth, tmp_path / folder, mesh=MESH)
    assert fingerprints(tmp_path / "a") == fingerprints(tmp_path / "b")


def test_no_metadata_of_the_photo_reaches_an_output(depth: Prediction, tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x010F] = "SECRETCAMERA"
    tags.get_ifd(0x8825)[29] = "SECRETPLACE"
    file = encoded(depth.photo, "JPEG", exif=tags, comment=b"SECRETWORDS")
    assert file.count(b"SECRET") == 3
    photo = load_photo(file)
    for path in save(replace(depth, photo=photo.pixels), tmp_path, mesh=MESH).values():
        assert b"SECRET" not in path.read_bytes() and b"Exif" not in path.read_bytes(), path.name


# ------------------------------------------------------------------------------- what does not suit


def test_normals_predictions_write_normals_only(vectors: Prediction, tmp_path: Path) -> None:
    assert formats_for(vectors) == ("normals",)
    assert formats_for(replace(vectors, uncertainty=np.zeros((48, 64), np.float32))) == ("uncertainty", "normals")
    paths = save(vectors, tmp_path)
    assert sorted(paths) == ["manifest", "normals", "normals_npy"]
    np.testing.assert_array_equal(np.load(paths["normals_npy"]), vectors.values)
    assert Manifest.model_validate_json(paths["manifest"].read_text()).png16_range is None
    for name in ("npy", "png16", "color", "glb", "ply", "stl", "exr"):
        with pytest.raises(ExportError, match=f"prediction of normals has no {name}"):
            save(vectors, tmp_path / "other", [name])  # type: ignore[list-item]


# ------------------------------------------------------------------------------- intrinsic images


def test_intrinsics_write_their_layers(tmp_path: Path) -> None:
    made = layers_of(48, 64)
    paths = save(made, tmp_path)
    pictures = [f"{name}{bits}.png" for name in ("albedo", "shading", "roughness") for bits in ("", "_16bit")]
    rest = ["layers.npz", "layers.exr", "uncertainty.png", "uncertainty.npy", "manifest.json"]
    assert sorted(path.name for path in paths.values()) == sorted([*pictures, *rest])

    with np.load(paths["layers"], allow_pickle=False) as stored:
        assert {name: stored[name].shape[2:] for name in stored} == {"albedo": (3,), "shading": (3,), "roughness": ()}
        np.testing.assert_array_equal(stored["albedo"], made.values[..., :3])
        np.testing.assert_array_equal(stored["roughness"], made.values[..., 6])
    picture = cv2.imread(str(paths["albedo_16bit"]), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    light = picture[..., ::-1]  # blue comes first
    assert light.dtype == np.uint16
    linear = ((light / 65535 + 0.055) / 1.055) ** 2.4  # sRGB's curve, but for its first steps
    bright = made.values[..., :3] > 0.01
    np.testing.assert_allclose(linear[bright], made.values[..., :3][bright], atol=2e-5)
    shading = np.asarray(Image.open(paths["shading"]))
    assert shading.max() == 255  # of unknown scale: the brightest is white
    rough = np.asarray(Image.open(paths["roughness_16bit"]))
    np.testing.assert_allclose(rough / 65535, made.values[..., 6], atol=0.51 / 65535)  # no colour: no curve
    said = texts(paths["shading_16bit"])
    assert said == {"layer": "shading", "meaning": LAYERS[1].meaning, "white": said["white"], "tones": "sRGB"}
    assert float(said["white"]) == pytest.approx(made.values[..., 3:6].max())
    assert [texts(paths["roughness"])[name] for name in ("white", "tones")] == ["1", "linear"]

    exr: Any = OpenEXR.File(str(paths["layers_exr"]), separate_channels=True)
    channels = exr.channels()
    assert set(channels) == {*(f"{name}.{c}" for name in ("albedo", "shading") for c in "RGB"), "roughness.Y"}
    np.testing.assert_array_equal(channels["shading.G"].pixels, made.values[..., 4])

    record = Manifest.model_validate_json(paths["manifest"].read_text())
    assert record.layers == {layer.name: layer.meaning for layer in LAYERS}
    assert record.png16_range is None and record.camera is None and "up to an unknown scale" in record.convention
    assert formats_of(record) == ("npy", "png16", "color", "uncertainty", "exr")


def test_what_intrinsics_have_not_is_refused(tmp_path: Path) -> None:
    made = layers_of(24, 32)
    for name in ("normals", "glb", "ply", "stl"):
        with pytest.raises(ExportError, match=f"prediction of intrinsics has no {name}; its formats are npy, png16"):
            save(made, tmp_path, [name])  # type: ignore[list-item]
    with pytest.raises(ExportError, match="needs depth, not intrinsics"):
        save(made, tmp_path, save_for=["displacement"])
    with pytest.raises(ExportError, match="Geometry is made from depth, not from intrinsics"):
        normals(made, MESH)
    save(made, tmp_path / "out")
    for name, words in {"albedo.png": "has colours", "roughness.png": "roughness.png of a result, no"}.items():
        with pytest.raises(ImageError, match=words):
            from_depth(made.photo, tmp_path / "out" / name)
    (tmp_path / "out" / "manifest.json").unlink()
    for name in ("roughness.png", "roughness_16bit.png"):
        with pytest.raises(ImageError, match="This is the layer roughness of a result, no depth map"):
            from_depth(made.photo, tmp_path / "out" / name)
    walls = replace(made, modality="segmentation", kind="class", layers=(CLASSES,), values=made.values[..., 0].round())
    paths = save(walls, tmp_path / "classes")
    paths["manifest"].unlink()
    assert texts(paths["classes"])["colours"] == "wall #0a1400, sky #ffc800"
    for name, words in (
        ("classes", "has colours"),
        ("classes_16bit", "This is the layer classes of a result, no depth map"),
        ("layers_exr", "This is a file of layers of a result, no depth map"),
    ):
        with pytest.raises(ImageError, match=words):
            from_depth(made.photo, paths[name])


def test_what_does_not_suit_is_refused_before_anything_is_written(depth: Prediction, tmp_path: Path) -> None:
    lone = replace(depth, uncertainty=None)
    assert "uncertainty" not in formats_for(lone)
    holed = replace(depth, values=np.where(depth.values > 0.9, np.nan, depth.values))
    cases = [
        (lone, "uncertainty", "needs 3 or more members"),
        (depth, "docx", "choose from npy"),
        (holed, "npy", "numbers"),
    ]
    for prediction, name, words in cases:
        with pytest.raises(ExportError, match=words):
            save(prediction, tmp_path / "out", ["color", name])  # type: ignore[list-item]
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(depth: Prediction, tmp_path: Path) -> None:
    save(depth, tmp_path, ["npy"])
    before = fingerprints(tmp_path)
    other = replace(depth, values=depth.values * 0.5)
    with pytest.raises(ExportError, match="depth.npy exists already"):
        save(other, tmp_path, ["color", "npy"])
    assert fingerprints(tmp_path) == before
    paths = save(other, tmp_path, ["color", "npy"], overwrite=True)
    np.testing.assert_array_equal(np.load(paths["npy"]), other.values)
    assert Manifest.model_validate_json(paths["manifest"].read_text()).files.keys() == {"depth_color.png", "depth.npy"}


# ------------------------------------------------------------------------------- the disk refuses


def test_a_full_disk_leaves_no_partial_file_and_no_manifest(depth: Prediction, tmp_path: Path) -> None:
    code = f"""
import resource, signal
import numpy as np
from marigold_core.storage import write_bytes
from marigold_core.errors import ExportError
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
write_bytes(Path({str(tmp_path)!r}) / "small.npy", bytes(9_000))
try:
    write_bytes(Path({str(tmp_path)!r}) / "large.npy", bytes(20_000))
except ExportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "disk is full" in result.stdout and "large.npy was not written" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["small.npy"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "does not allow writing"), (errno.EIO, "was not written")],
)
def test_refusals_keep_the_old_file_and_drop_the_manifest(depth, tmp_path, monkeypatch, number, words) -> None:
    save(depth, tmp_path, ["npy"])
    old = (tmp_path / "depth.npy").read_bytes()

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ExportError, match=words) as refusal:
        save(replace(depth, values=depth.values * 0.5), tmp_path, ["npy"], overwrite=True)
    assert "depth.npy" in str(refusal.value) and str(tmp_path) not in str(refusal.value)
    assert (tmp_path / "depth.npy").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["depth.npy"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"formats": "npy"}, "formats must be a list of names, but got 'npy'"),
        ({"save_for": "cnc"}, "save_for must be a list of names, but got 'cnc'"),
        ({"prediction": None}, r"prediction must be Prediction\(...\), but got None"),
        ({"mesh": {"edge_cut": 0}}, r"mesh must be MeshSettings\(...\), but got {'edge_cut': 0}"),
        ({"folder": 3}, "folder must be a path, but got 3"),
        ({"folder": b"out"}, "folder must be a path, but got b'out'"),
        ({"prefix": 3}, "prefix must be a text, but got 3"),
        ({"overwrite": "no"}, "overwrite must be True or False, but got 'no'"),
        ({"formats": 3}, "formats must be a list of names, but got 3"),
        ({"save_for": None}, "save_for must be a list of names, but got None"),
        ({"save_for": [["cnc"]]}, r"There are no files for \['cnc'\]"),
        ({"prefix": "../x_"}, "A prefix is the beginning of a file's name, but got '../x_'"),
    ],
)
def test_arguments_of_another_type_are_one_sentence(depth: Prediction, tmp_path: Path, given: dict, said: str) -> None:
    with pytest.raises(MarigoldError, match=said):
        save(**{"prediction": depth, "folder": tmp_path, **given})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("program", ["looking-glass", "stereo"])
def test_a_pair_wider_than_a_jpeg_may_be_is_said(program: SaveFor, tmp_path: Path) -> None:
    wide = prediction_of(np.tile(np.linspace(0, 1, 33000), (2, 1)))
    with pytest.raises(ExportError, match="at most 65500 pixels a side, but the picture has 66000 x 2; give a smaller"):
        save(wide, tmp_path, save_for=[program])


def test_a_file_in_the_place_of_the_folder_is_said(depth: Prediction, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ExportError, match="depth.npy was not written: a file is where its folder should be"):
        save(depth, tmp_path / "out", ["npy"])


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), storage.replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "a.bin", b"a")
    (tmp_path / "b.bin").write_bytes(b"b")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "b.bin").stat().st_mode


def test_what_depth_allows_no_points_of_leaves_the_other_files(tmp_path: Path, capsys) -> None:
    """Noise whose depth jumps everywhere."""
    rng = np.random.default_rng(0)
    photo, noise = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), rng.random((16, 16)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    Image.fromarray(photo).save(tmp_path / "a.png")
    words = ["import-depth", tmp_path / "a.png", tmp_path / "noise.npy", "-o", tmp_path / "out", "--edge-cut", "0.01"]
    assert run_command(*words) == cli.ALL_DONE
    assert "points.ply was left out: The cuts leave nothing" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out" / "a").iterdir()}
    assert {"depth.npy", "depth_16bit.png", "depth.exr", "relief.stl", "manifest.json"} <= written
    record = Manifest.model_validate_json((tmp_path / "out" / "a" / "manifest.json").read_text())
    assert "points.ply" in record.left_out and written == {*record.files, "manifest.json"}
    names = [*record.files, *record.left_out]
    assert photo_folders.is_done(tmp_path / "out" / "a", photo, names, mesh=record.mesh)
    made = from_depth(photo, noise)
    with pytest.raises(ExportError, match="cuts leave nothing"):
        save(made, tmp_path / "asked", ["ply"], mesh=record.mesh)
