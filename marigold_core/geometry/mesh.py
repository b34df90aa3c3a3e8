"""Depth to geometry: camera rays, points, normals, a textured mesh and a point cloud.

Axes inside: OpenCV, x right, y down, z forward along the optical axis, camera at the origin, principal point at the
photo's centre. Normals are for people and point X right, Y up, Z toward the viewer. glTF's axes appear in ``export``.

Affine depth knows neither its shift nor its scale. ``MeshSettings.near_ratio`` supplies the shift; the far plane is
the unit of length. Scale and metric depth are used as they are.
"""

import math
import threading
from dataclasses import replace

import fast_simplification
import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from marigold_core.errors import ExportError
from marigold_core.geometry.depth_filters import cut_faces, edge_mask, sample_grid, sharpen, smooth, without_specks
from marigold_core.images.colormaps import to_unit, value_range
from marigold_core.prediction import Prediction, Space
from marigold_core.settings import MeshSettings

DEFAULT_FOV_X_DEG = 55.0  # a phone's or camera's usual wide lens; stated to people in MeshSettings.fov_x_deg
TEXTURE_PX = 2048  # longest side of the mesh's texture

_GRID_SHARES = (4, 2, 1)  # triangles of the grid for one of the mesh; the last needs no simplification
_NOTHING_LEFT = "The cuts leave nothing; give edge_cut 0, uncertainty_cut 0, near_clip 0 and far_clip 1 to keep all."
_SIMPLIFIER = threading.Lock()  # the library keeps its one mesh in global variables


def metric_z(prediction: Prediction, settings: MeshSettings) -> np.ndarray:
    """Depth prediction -> [H, W] float32 z > 0 along the optical axis: metres for kind "metric", else of unknown unit.

    Affine values are straight lines in the quantity the model thinks in: depth, log depth or disparity, from
    ``near_ratio`` at 0 to 1 at 1. ``smoothing`` is a share of the depth, so the filter sees its logarithm.

    Raises:
        ExportError: the prediction is not depth or holds values that are not numbers.
    """
    if prediction.modality != "depth":
        raise ExportError(f"Geometry is made from depth, but this is a {prediction.modality} prediction.")
    values = prediction.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ExportError("The depth map holds values that are not numbers; run again with dtype float32.")
    z = _placed(values, prediction.space, settings.near_ratio) if prediction.kind == "affine" else _positive(values)
    return np.exp(smooth(np.log(z), settings.smoothing)) if settings.smoothing else z


def field_of_view(prediction: Prediction, settings: MeshSettings) -> float:
    """The horizontal field of view in degrees: as set, else from EXIF, else ``DEFAULT_FOV_X_DEG``."""
    return settings.fov_x_deg or prediction.fov_x_deg or DEFAULT_FOV_X_DEG


def unproject(z: np.ndarray, fov_x_deg: float) -> np.ndarray:
    """[H, W] z -> [H, W, 3] float32 points in the unit of z, OpenCV axes."""
    x, y = _rays(z.shape, fov_x_deg)
    return np.stack([x * z, y * z, z], axis=-1).astype(np.float32)


def normals_from_depth(z: np.ndarray, fov_x_deg: float) -> np.ndarray:
    """[H, W] z > 0 -> [H, W, 3] float32 unit normals, X right, Y up, Z toward the viewer.

    Differences are taken of 1/z, which is linear across a plane, so planes are exact. Of the two neighbours on an
    axis the one on the same surface gets nearly all the weight, so normals stay clean beside a depth jump.
    """
    disparity = 1 / z.astype(np.float32)
    x, y = _rays(z.shape, fov_x_deg)
    du, dv = _slope(disparity, axis=1), _slope(disparity, axis=0)
    # cross(dP/du, dP/dv) for P = (x, y, 1) / disparity, up to a positive factor
    normals = np.stack([-du, dv, disparity / _focal_px(z.shape[1], fov_x_deg) - x * du - y * dv], axis=-1)
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def normals(prediction: Prediction, settings: MeshSettings) -> np.ndarray:
    """Any prediction -> [H, W, 3] float32 unit normals: its own, or those of its depth surface.

    Raises:
        ExportError: as ``metric_z``.
    """
    if prediction.modality == "normals":
        return prediction.values.astype(np.float32)
    return normals_from_depth(metric_z(prediction, settings), field_of_view(prediction, settings))


def build_mesh(prediction: Prediction, settings: MeshSettings) -> trimesh.Trimesh:
    """Depth prediction -> textured perspective mesh, OpenCV axes, front faces toward the camera.

    At most ``max_triangles`` triangles; none spans a depth jump. Cost: about a second for the default 200,000.

    Raises:
        ExportError: as ``metric_z``, the cuts leave nothing, or ``uncertainty_cut`` is given but no uncertainty.
    """
    fov_x_deg = field_of_view(prediction, settings)
    height, width = prediction.values.shape[:2]
    surfaces = (_surface(prediction, share * settings.max_triangles, settings) for share in _GRID_SHARES)
    seen, faces = next(surface for surface in surfaces if len(surface[1]) <= settings.max_triangles)
    x, y, z = seen[:, 0], seen[:, 1], np.exp(seen[:, 2])
    focal_px = _focal_px(width, fov_x_deg)
    uv = np.stack([0.5 + x * focal_px / width, 0.5 - y * focal_px / height], axis=-1)
    texture = Image.fromarray(prediction.photo)
    texture.thumbnail((TEXTURE_PX, TEXTURE_PX))
    texture.format = "JPEG"  # read by trimesh's GLB writer, which would make PNGs several times larger
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    vertices = np.stack([x * z, y * z, z], axis=-1)
    return trimesh.Trimesh(vertices, faces, visual=TextureVisuals(uv=uv, material=material), process=False)


def point_cloud(prediction: Prediction, settings: MeshSettings) -> trimesh.PointCloud:
    """Depth prediction -> coloured points, OpenCV axes, without those that float at depth jumps.

    At most twice ``max_triangles`` points: the grid that a mesh of so many triangles is simplified from.

    Raises:
        ExportError: as ``build_mesh``.
    """
    grid, z, kept = _seen(prediction, _GRID_SHARES[0] * settings.max_triangles, settings)
    kept = without_specks(kept & ~edge_mask(z, settings.edge_cut))
    if not kept.any():
        raise ExportError(_NOTHING_LEFT)
    x, y = (plane[grid] for plane in _rays(prediction.values.shape, field_of_view(prediction, settings)))
    points = np.stack([x * z, y * z, z], axis=-1)[kept]
    return trimesh.PointCloud(points, colors=prediction.photo[grid][kept])


def _placed(values: np.ndarray, space: Space, near: float) -> np.ndarray:
    """Affine values, near = 0 and far = 1 -> z from ``near`` to 1."""
    values = np.clip(values, 0, 1)
    if space == "log":
        return np.exp(math.log(near) * (1 - values))
    if space == "disparity":
        return 1 / (1 / near + (1 - 1 / near) * values)
    return near + (1 - near) * values


def _positive(values: np.ndarray) -> np.ndarray:
    farthest = float(values.max())
    return np.maximum(values, 1e-3 * farthest) if farthest > 0 else np.ones_like(values)


def _focal_px(width: int, fov_x_deg: float) -> float:
    return width / (2 * math.tan(math.radians(fov_x_deg) / 2))


def _rays(shape: tuple[int, ...], fov_x_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """x/z and y/z of the pixel centres, each [H, W], as views of a row and a column."""
    height, width = shape[:2]
    focal_px = _focal_px(width, fov_x_deg)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal_px
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / focal_px
    return np.broadcast_to(x[None, :], (height, width)), np.broadcast_to(y[:, None], (height, width))


def _slope(values: np.ndarray, axis: int) -> np.ndarray:
    """Change a pixel along ``axis``: the mean of both one-sided differences, the smaller one weighing more."""
    step = np.diff(values, axis=axis)
    first, last = np.take(step, [0], axis), np.take(step, [-1], axis)
    before, after = np.concatenate([first, step], axis), np.concatenate([step, last], axis)
    slight = (3e-3 * values) ** 2  # steps below this share are noise, not edges: there both count alike
    square_before, square_after = before**2 + slight, after**2 + slight
    return (before * square_after + after * square_before) / (square_before + square_after)


def _seen(
    prediction: Prediction, grid_triangles: int, settings: MeshSettings
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Depth on a grid of so many triangles -> (index of the grid, its z [h, w], which pixels are wanted [h, w])."""
    grid = np.ix_(*sample_grid(prediction.values.shape, grid_triangles))
    part = replace(prediction, values=prediction.values[grid])
    z = sharpen(metric_z(part, settings), settings.edge_cut)
    unit = to_unit(part)
    wanted = (unit >= settings.near_clip) & (unit <= settings.far_clip)
    if settings.uncertainty_cut:
        if prediction.uncertainty is None:
            raise ExportError("uncertainty_cut needs an uncertainty; raise ensemble_size to 3 or more.")
        low, high = value_range(prediction)
        wanted &= prediction.uncertainty[grid] <= settings.uncertainty_cut * (high - low)
    return grid, z, wanted


def _surface(prediction: Prediction, grid_triangles: int, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """Depth on a grid of so many triangles -> (vertices [N, 3], faces [M, 3]), cut and simplified.

    Vertices are (x/z, y/z, log z): simplified there, an error looks equally large near and far, and the first two
    say where on the photo a vertex lies.
    """
    grid, z, wanted = _seen(prediction, grid_triangles, settings)
    faces = cut_faces(z, wanted, settings.edge_cut)
    if not len(faces):
        raise ExportError(_NOTHING_LEFT)
    x, y = (plane[grid] for plane in _rays(prediction.values.shape, field_of_view(prediction, settings)))
    used = np.zeros(z.size, bool)
    used[faces] = True
    vertices = np.stack([x, y, np.log(z)], axis=-1).reshape(-1, 3)[used]
    faces = (np.cumsum(used, dtype=np.int32) - 1)[faces]
    if len(faces) > settings.max_triangles:
        with _SIMPLIFIER:
            vertices, faces, *_ = fast_simplification.simplify(vertices, faces, target_count=settings.max_triangles)
    return vertices, faces
