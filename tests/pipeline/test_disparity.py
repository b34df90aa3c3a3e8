"""A checkpoint that predicts disparity, white where it is near: near is near in everything that is made of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from marigold_core import CheckpointError, Hints, Prediction, Settings, SettingsError, calibrate, load, save
from marigold_core.checkpoints.registry import find
from marigold_core.comparison.sweep import against_reference, check_alike, reduce
from marigold_core.files import replay
from marigold_core.geometry.camera import metric_z, normals
from marigold_core.images.colormaps import to_rgb
from marigold_core.pipeline.convergence import convergence_curve
from marigold_core.pipeline.member_values import member_values_at
from marigold_core.prediction import Cell
from marigold_core.settings import MeshSettings
from tests.helpers.damage import edit
from tests.helpers.measured_room import FOV_DEG, abs_rel, anchors, room

QUICK = Settings(num_inference_steps=1, processing_resolution=160, ensemble_size=3)
Z = room()
NEAREST, FARTHEST = (80, 119), (2, 2)  # (x, y): the floor at the camera, the window
MESH = MeshSettings(fov_x_deg=FOV_DEG, near_ratio=float(Z.min() / Z.max()), edge_cut=0)


@pytest.fixture(scope="module")
def folder(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers saves a MarigoldDepthPipeline made with ``prediction_type="disparity"``."""
    folder = Path(shutil.copytree(tiny_depth, tmp_path_factory.mktemp("disparity") / "turned"))
    edit(folder / "model_index.json", prediction_type="disparity")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Prediction:
    """Three members of a network that knows the room, each with some noise."""
    pipe: Any = load(folder, device="cpu")
    grey = (1 / Z - 1 / Z.max()) / (1 / Z.min() - 1 / Z.max())
    rng = np.random.default_rng(0)

    def decode(latent: torch.Tensor) -> torch.Tensor:
        picture = torch.as_tensor(2 * (grey + rng.normal(0, 1e-3, Z.shape)) - 1)
        return picture.float().expand(len(latent), 3, -1, -1)

    pipe.decode = decode
    return pipe(np.zeros((*Z.shape, 3), np.uint8), QUICK)


def at(values: np.ndarray, place: tuple[int, int]) -> Any:
    return values[place[1], place[0]]


def test_values_grow_with_distance_and_it_is_said(made: Prediction, tmp_path: Path) -> None:
    assert (made.kind, made.space) == ("affine", "disparity")
    assert at(made.values, NEAREST) < 0.01 and at(made.values, FARTHEST) > 0.99
    assert np.corrcoef(made.values.ravel(), -1 / Z.ravel())[0, 1] > 0.999
    assert "0 = near plane, 1 = far plane" in made.convention and "of 1 / depth" in made.convention
    record = json.loads(save(made, tmp_path, ["npy"])["manifest"].read_text())
    assert (record["kind"], record["space"], record["convention"]) == ("affine", "disparity", made.convention)


def test_the_decoders_picture_of_one_member_is_turned(folder: Path, tiny_depth: Path, photo: Any) -> None:
    one, turned = (load(path, device="cpu")(photo(), Settings(num_inference_steps=1)) for path in (tiny_depth, folder))
    np.testing.assert_allclose(turned.values, 1 - one.values, atol=1e-6)


def test_pictures_and_files_show_near_as_near(made: Prediction, tmp_path: Path) -> None:
    assert at(to_rgb(made), NEAREST).tolist() == [158, 1, 66] and at(to_rgb(made), FARTHEST).tolist() == [94, 79, 162]
    paths = save(made, tmp_path, ["npy", "png16", "glb", "ply", "exr"], mesh=MESH)
    grey = np.asarray(Image.open(paths["png16"]))
    assert at(grey, NEAREST) < 1000 and at(grey, FARTHEST) > 64000
    for name in ("glb", "ply"):
        points: Any = trimesh.load(paths[name])
        points = points.to_geometry() if name == "glb" else points
        nearest, farthest = (points.vertices[number] for number in np.argsort(-points.vertices[:, 2])[[0, -1]])
        assert nearest[1] < 0 < farthest[1]  # the floor at the camera, the window


def test_geometry_and_metres_are_those_of_the_room(made: Prediction) -> None:
    np.testing.assert_allclose(metric_z(made, MESH), Z / Z.max(), rtol=0.05)
    floor = normals(made, MESH)[100:118, 20:140].reshape(-1, 3)
    assert np.median(floor @ [0, 1, 0]) > 0.95
    found = calibrate(made, Hints(anchors=anchors(Z, 4)))
    assert abs_rel(found, Z) < 0.02 and found.scale < 0
    assert found.uncertainty is not None and at(found.uncertainty, FARTHEST) > at(found.uncertainty, NEAREST)


def test_members_and_uncertainty_are_in_the_same_direction(made: Prediction) -> None:
    assert made.uncertainty is not None and made.uncertainty.max() < 0.02
    near, far = (member_values_at(made, *place) for place in (NEAREST, FARTHEST))
    assert near.depths.max() < 0.02 < 0.98 < far.depths.min()
    assert convergence_curve(made)[-1].members == 3


def test_comparing_and_replaying(made: Prediction, folder: Path, tiny_depth: Path, photo: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="turned gives affine disparity, tiny-depth gives affine depth"):
        check_alike([find(folder), find(tiny_depth)])
    cells = [reduce(Cell(made, 1.0)), reduce(Cell(load(tiny_depth, device="cpu")(made.photo, QUICK), 1.0))]
    assert against_reference(cells[:1])[0].difference.max() < 1e-6
    with pytest.raises(SettingsError, match="one kind"):
        against_reference(cells)
    pipe = load(folder, device="cpu")
    first = save(pipe(photo(), Settings(num_inference_steps=1)), tmp_path / "first", ["npy", "color"])
    record = replay.read(first["manifest"])
    assert replay.find_checkpoint(record, str(folder)).space == "disparity"
    assert isinstance(record.settings, Settings)
    again = replay.write(pipe(photo(), record.settings), record, tmp_path / "again")
    assert not again.fell_short
    with pytest.raises(CheckpointError, match="other weights"):
        replay.find_checkpoint(record, str(tiny_depth))


@pytest.mark.parametrize("changes", [{"prediction_type": "disparity"}, {"depth_space": "log"}])
@pytest.mark.parametrize("shift", [True, False])
def test_a_disparity_of_known_scale_is_refused(tiny_depth: Path, tmp_path: Path, changes: Any, shift: bool) -> None:
    folder = Path(shutil.copytree(tiny_depth, tmp_path / "known"))
    edit(folder / "model_index.json", scale_invariant=shift, shift_invariant=False, **changes)
    with pytest.raises(CheckpointError, match="of a known scale or shift cannot be used"):
        find(folder)
