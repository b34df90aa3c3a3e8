"""A panorama's distances: right in a planted room, whatever scale and shift each view came with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from marigold_core import ImageError, Settings, cli
from marigold_core.files.panorama import NAMES, save_panorama
from marigold_core.geometry import sphere
from marigold_core.geometry.camera import pixel_rays
from marigold_core.pipeline.panorama import Panorama, stream_panorama
from marigold_core.prediction import Progress
from tests.helpers.clips import PlantedPipe
from tests.helpers.command_line import QUICK, run_command

HALF = np.array([3.0, 1.4, 2.2])  # metres from the camera to the walls of a box room
SIZE = (96, 192)


def room(rays: np.ndarray) -> np.ndarray:
    """Distance to the walls along unit vectors [..., 3]."""
    return (HALF / np.maximum(np.abs(rays), 1e-9)).min(axis=-1)


def views(side: int) -> list[np.ndarray]:
    x, y = pixel_rays((side, side), sphere.FACE_FOV_DEG)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    length = np.linalg.norm(rays, axis=-1)
    return [room(rays / length[..., None] @ sphere.face_axes(face)) / length for face in range(6)]


def picture(height: int, width: int) -> np.ndarray:
    return np.rint(127.5 + 127.5 * sphere.directions(height, width)).astype(np.uint8)


def errors(distance: np.ndarray) -> np.ndarray:
    truth = room(sphere.directions(*distance.shape))
    return np.abs(distance / np.median(distance / truth) / truth - 1)


def test_views_show_their_side_of_the_panorama() -> None:
    made = [
        sphere.cut_out(picture(256, 512), face, 64)[31:33, 31:33].mean(axis=(0, 1)) / 127.5 - 1 for face in range(6)
    ]
    forward = [[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, -1, 0], [0, 1, 0]]
    np.testing.assert_allclose(made, forward, atol=0.02)
    for face in range(6):
        axes = sphere.face_axes(face)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(axes) == pytest.approx(1)
        np.testing.assert_array_equal(axes[2], forward[face])


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_scales_and_shifts_of_views_are_found_from_the_overlaps(noise: float) -> None:
    rng, z = np.random.default_rng(0), views(64)
    disturbed = [(one - rng.uniform(-0.1, 0.3)) / rng.uniform(0.7, 1.4) for one in z]
    disturbed = [one * (1 + noise * rng.normal(size=one.shape)) for one in disturbed]
    fitted, seam = sphere.align([one.astype(np.float32) for one in disturbed])
    distance = sphere.blend(disturbed, fitted, *SIZE)
    assert distance.dtype == np.float32 and distance.max() == 1 and distance.min() > 0
    assert np.median(errors(distance)) < 0.02 + noise and seam < 0.01 + 2 * noise
    apart = sphere.blend(disturbed, np.tile([1.0, 0.0], (6, 1)), *SIZE)
    assert np.median(errors(apart)) > 0.08


def planted(depths: list[np.ndarray]) -> Any:
    return PlantedPipe([(one - one.min()) / np.ptp(one) for one in depths])


def test_a_panorama_becomes_distances_and_a_mesh_around_the_camera(tmp_path: Path) -> None:
    side = sphere.face_side_px(SIZE[1], 512)
    *progress, made = stream_panorama(planted(views(side)), picture(*SIZE), Settings(processing_resolution=512))
    told = [event.stage for event in progress if isinstance(event, Progress)]
    assert isinstance(made, Panorama) and told[:3] == [
        "looking front",
        "looking front: reading the photo",
        "looking right",
    ]
    assert made.distance.shape == SIZE and made.seam < 0.1
    assert np.corrcoef(made.distance.ravel(), room(sphere.directions(*SIZE)).ravel())[0, 1] > 0.9
    left, right = made.distance[:, 0], made.distance[:, -1]
    assert np.abs(left - right).max() < 0.05  # no seam at the back

    files = save_panorama(made, tmp_path)
    np.testing.assert_array_equal(np.load(files["npy"]), made.distance)
    with Image.open(files["png16"]) as levels, Image.open(files["color"]) as colours:
        assert levels.mode.startswith("I;16") and colours.size == SIZE[::-1]
        nearest, said = float(levels.info["near"]), levels.info
        stored = nearest + np.asarray(levels) / 65535.0 * (float(said["far"]) - nearest)
        np.testing.assert_allclose(stored, made.distance, atol=1e-5)
        assert said["sign"] == "near is black" and said["distance"].startswith(
            "distance from the camera along each ray"
        )
        assert colours.info["sign"] == "near is the first colour of Spectral"
    mesh: Any = trimesh.load(files["glb"], force="mesh")
    heading = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (heading.max(axis=0) > 0.95).all() and (heading.min(axis=0) < -0.95).all()  # all around
    inward = (mesh.face_normals * mesh.triangles_center).sum(axis=1) < 0
    assert inward.mean() > 0.95
    np.testing.assert_allclose(heading[[0, -1]], [[0, 1, 0], [0, -1, 0]], atol=1e-6)  # closed above and below
    assert len(mesh.faces) == 2 * (SIZE[0] - 1) * SIZE[1]  # the walls of a room have no jump
    assert json.loads(files["record"].read_text())["seam"] == made.seam


def test_what_is_no_full_panorama_is_refused() -> None:
    with pytest.raises(ImageError, match="twice as wide as high, but this has 64 x 48 pixels"):
        list(stream_panorama(planted(views(32)), np.zeros((48, 64, 3), np.uint8)))


def test_a_real_checkpoint_on_the_command_line(tmp_path: Path, tiny_depth: Path, capsys) -> None:
    photo = Image.fromarray(picture(64, 128))
    photo.save(tmp_path / "around.png", save_all=True, append_images=[photo.rotate(180)])
    words = ["panorama", tmp_path / "around.png", "-o", tmp_path / "out", "--model", tiny_depth]
    words += ["--device", "cpu", *QUICK]
    empty = ["--near-clip", "0.95", "--far-clip", "0.96", "--max-triangles", "1000", "--overwrite"]
    assert run_command(*words) == cli.ALL_DONE
    told = capsys.readouterr()
    assert "where they overlap" in told.out and "several pictures" in told.err
    record = json.loads((tmp_path / "out" / "around" / NAMES["record"]).read_text())
    assert record["note"] in told.err
    assert len(list((tmp_path / "out" / "around").iterdir())) == 5
    assert run_command(*words) == cli.USAGE
    assert run_command(*words, *empty) == cli.ALL_DONE
    assert "panorama.glb was left out: The cuts leave nothing" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "around" / NAMES["record"]).read_text())
    left = {path.name for path in (tmp_path / "out" / "around").iterdir()}
    assert left == {*NAMES.values()} - {"panorama.glb"} and [*record["left_out"]] == ["panorama.glb"]
