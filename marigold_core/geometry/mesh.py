"""Depth to a textured triangle mesh: the grid of pixels, cuts at depth jumps, simplification, texture coordinates."""

import math
import threading
from dataclasses import dataclass, replace
from typing import Any

import fast_simplification  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from marigold_core.errors import ExportError
from marigold_core.geometry.camera import field_of_view, focal_length_px, metric_z, pixel_rays
from marigold_core.geometry.depth_filters import sharpen, without_specks
from marigold_core.images.colormaps import to_unit, value_range
from marigold_core.prediction import Prediction
from marigold_core.settings import ClippedSettings, MeshSettings

GRID_PX = 1024  # longest side of the grid that geometry is made on
TEXTURE_PX = 2048  # longest side of the mesh's texture
GRID_SHARES = (4, 2, 1)  # triangles of the grid for one of the mesh; the last needs no simplification
NO_SPREAD = "uncertainty_cut needs 3 or more members (ensemble_size) here; a depth map from elsewhere has none."
HOLES = "The holes of the depth map leave nothing: no three neighbouring pixels have values; give one with fewer holes."
KEEP_ALL = {"edge_cut": 0, "uncertainty_cut": 0, "near_clip": 0, "far_clip": 1}

_SIMPLIFIER = threading.Lock()  # the library keeps its one mesh in global variables


def build_mesh(prediction: Prediction, settings: MeshSettings) -> trimesh.Trimesh:
    """Depth prediction -> textured perspective mesh, OpenCV axes, front faces toward the camera.

    At most ``max_triangles`` triangles; none spans a depth jump. Cost: about a second for the default 200,000.

    Raises:
        ExportError: as ``metric_z``, the cuts leave nothing, or ``uncertainty_cut`` is given but no uncertainty.
    """
    height, width = prediction.values.shape[:2]
    surfaces = (_surface(prediction, share * settings.max_triangles, settings) for share in GRID_SHARES)
    vertices, faces = next(surface for surface in surfaces if len(surface[1]) <= settings.max_triangles)
    x, y, z = vertices[:, 0], vertices[:, 1], np.exp(vertices[:, 2])
    focal_px = focal_length_px(width, field_of_view(prediction, settings))
    uv = np.stack([0.5 + x * focal_px / width, 0.5 - y * focal_px / height], axis=-1)
    points = np.stack([x * z, y * z, z], axis=-1)
    return textured(points, faces, uv, prediction.photo, TEXTURE_PX, name="photo", doubleSided=True)


def textured(
    points: np.ndarray, faces: np.ndarray, uv: np.ndarray, photo: np.ndarray, longest_px: int, **look: Any
) -> trimesh.Trimesh:
    """Triangles [M, 3] of points [N, 3] that show a photo at uv [N, 2], as a texture of at most that longest side."""
    texture = Image.fromarray(photo)
    texture.thumbnail((longest_px, longest_px))
    texture.format = "JPEG"  # read by trimesh's GLB writer, which would make PNGs several times larger
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, **look)
    return trimesh.Trimesh(points, faces, visual=TextureVisuals(uv=uv, material=material), process=False)


def sample_grid(shape: tuple[int, ...], max_triangles: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of a map that geometry is made on: at most ``GRID_PX`` a side and ``max_triangles`` in all.

    Pixels are picked, never averaged: an average across a depth jump would be a point in mid-air.
    """
    height, width = shape[:2]
    scale = min(1.0, GRID_PX / max(height, width))
    if max_triangles is not None:
        scale = min(scale, math.sqrt(max_triangles / (2 * height * width)))
    rows, cols = (np.linspace(0, side - 1, max(2, int(side * scale))) for side in (height, width))
    return np.rint(rows).astype(int), np.rint(cols).astype(int)


def grid_faces(height: int, width: int) -> np.ndarray:
    """[2 (h - 1)(w - 1), 3] int32 triangles of a row-major grid of vertices, facing the camera.

    The upper triangles of all cells come first, then the lower ones.
    """
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    top_left, top_right = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    low_left, low_right = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    upper, lower = (top_left, low_left, top_right), (top_right, low_left, low_right)
    return np.concatenate([np.stack(upper, axis=1), np.stack(lower, axis=1)])


@dataclass(frozen=True)
class GridSample:
    """The pixels of a prediction that geometry is made on."""

    index: tuple[np.ndarray, ...]  # picks the grid from an array of the photo's size
    x: np.ndarray  # [h, w], as are the following: x/z of the rays
    y: np.ndarray  # y/z of the rays
    z: np.ndarray  # sharpened depth
    kept: np.ndarray  # whether the pixel has a value, and the clips and ``uncertainty_cut`` leave it


def sample_depth(prediction: Prediction, grid_triangles: int, settings: MeshSettings) -> GridSample:
    """Sample a depth prediction on a grid of at most ``grid_triangles``, for meshes and points.

    Raises:
        ExportError: as ``metric_z``, or ``uncertainty_cut`` is given but no uncertainty.
    """
    index = np.ix_(*sample_grid(prediction.values.shape, grid_triangles))
    sampled = replace(prediction, values=prediction.values[index])
    z = sharpen(metric_z(sampled, settings), settings.edge_cut)
    unit = to_unit(sampled)
    kept = (unit >= settings.near_clip) & (unit <= settings.far_clip)
    if prediction.missing is not None:
        kept &= ~prediction.missing[index]
    if settings.uncertainty_cut:
        if prediction.uncertainty is None:
            raise ExportError(NO_SPREAD)
        low, high = value_range(prediction)
        kept &= prediction.uncertainty[index] <= settings.uncertainty_cut * (high - low)
    x, y = pixel_rays(prediction.values.shape, field_of_view(prediction, settings))
    return GridSample(index, x[index], y[index], z, kept)


def cut_faces(z: np.ndarray, kept: np.ndarray, edge_cut: float) -> np.ndarray:
    """[H, W] z > 0 and which of its pixels are kept -> [M, 3] triangles of its grid.

    Left out: those with a corner that is not kept, those that span a depth jump above ``edge_cut``, and specks.
    """
    height, width = z.shape
    faces = grid_faces(height, width)
    good = np.all(kept.ravel()[faces], axis=1)
    if edge_cut:
        corners = z.ravel()[faces]
        low = corners.min(axis=1)
        good &= corners.max(axis=1) - low <= edge_cut * low
    halves = good.reshape(2, height - 1, width - 1)
    return faces[(halves & without_specks(np.logical_or(*halves))).ravel()]


def nothing_left(settings: ClippedSettings, *, holes: bool = False) -> ExportError:
    """Say that nothing is left, because of the cuts that are set, or because of ``holes`` whatever is cut."""
    cuts = [f"{name} {keeps}" for name, keeps in KEEP_ALL.items() if getattr(settings, name, keeps) != keeps]
    return ExportError(HOLES if holes else f"The cuts leave nothing; give {' and '.join(cuts)} to keep all.")


def _surface(prediction: Prediction, grid_triangles: int, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """Depth on a grid of at most ``grid_triangles`` -> (vertices [N, 3], faces [M, 3]), cut and simplified.

    Vertices are (x/z, y/z, log z): simplified there, an error looks equally large near and far, and the first two
    give the vertex's position on the photo.
    """
    grid = sample_depth(prediction, grid_triangles, settings)
    faces = cut_faces(grid.z, grid.kept, settings.edge_cut)
    if not len(faces):
        known = None if prediction.missing is None else ~prediction.missing[grid.index]
        raise nothing_left(settings, holes=known is not None and not len(cut_faces(grid.z, known, 0)))
    used = np.zeros(grid.z.size, bool)
    used[faces] = True
    vertices = np.stack([grid.x, grid.y, np.log(grid.z)], axis=-1).reshape(-1, 3)[used]
    faces = (np.cumsum(used, dtype=np.int32) - 1)[faces]
    if len(faces) > settings.max_triangles:
        with _SIMPLIFIER:
            vertices, faces, *_ = fast_simplification.simplify(vertices, faces, target_count=settings.max_triangles)
    return vertices, faces
