"""Depth to geometry: camera rays, points, normals, a textured mesh and a point cloud.

Axes inside: OpenCV, x right, y down, z forward along the optical axis, camera at the origin, principal point at the
photo's centre. Normals are for people and point X right, Y up, Z toward the viewer. glTF's axes appear in ``export``.

Affine depth knows neither its shift nor its scale. ``MeshSettings.near_ratio`` supplies the shift; the far plane is
the unit of length. Scale and metric depth are used as they are.
"""

import math
import threading

import fast_simplification
import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from .errors import ExportError
from .prediction import Prediction
from .settings import MeshSettings

DEFAULT_FOV_X_DEG = 55.0  # a phone's or camera's usual wide lens; stated to people in MeshSettings.fov_x_deg
GRID_PX = 1024  # longest side of the grid that geometry is made on
TEXTURE_PX = 2048  # longest side of the mesh's texture

_GRID_SHARES = (4, 2, 1)  # triangles of the grid for one of the mesh; the last needs no simplification
_SIMPLIFIER = threading.Lock()  # the library keeps its one mesh in global variables


def metric_z(prediction: Prediction, settings: MeshSettings) -> np.ndarray:
    """Depth prediction -> [H, W] float32 z > 0 along the optical axis: metres for kind "metric", else of unknown unit.

    Affine values are straight lines in the quantity the model thinks in: depth, log depth or disparity, from
    ``near_ratio`` at 0 to 1 at 1.

    Raises:
        ExportError: the prediction is not depth or holds values that are not numbers.
    """
    if prediction.modality != "depth":
        raise ExportError(f"Geometry is made from depth, but this is a {prediction.modality} prediction.")
    values = prediction.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ExportError("The depth map holds values that are not numbers; run again with dtype float32.")
    if prediction.kind != "affine":
        farthest = float(values.max())
        return np.maximum(values, 1e-3 * farthest) if farthest > 0 else np.ones_like(values)
    near = settings.near_ratio
    values = np.clip(values, 0, 1)
    if prediction.space == "log":
        return np.exp(math.log(near) * (1 - values))
    if prediction.space == "disparity":
        return 1 / (1 / near + (1 - 1 / near) * values)
    return near + (1 - near) * values


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


def edge_mask(z: np.ndarray, edge_cut: float) -> np.ndarray:
    """[H, W] z > 0 -> [H, W] bool: True where z jumps by more than the share ``edge_cut`` within 3x3; 0 finds none."""
    if edge_cut == 0:
        return np.zeros(z.shape, bool)
    padded = np.pad(z, 1, mode="edge")
    rows = padded[:-2], padded[1:-1], padded[2:]
    high, low = np.maximum.reduce(rows), np.minimum.reduce(rows)
    high = np.maximum.reduce([high[:, :-2], high[:, 1:-1], high[:, 2:]])
    low = np.minimum.reduce([low[:, :-2], low[:, 1:-1], low[:, 2:]])
    return high - low > edge_cut * z


def build_mesh(prediction: Prediction, settings: MeshSettings) -> trimesh.Trimesh:
    """Depth prediction -> textured perspective mesh, OpenCV axes, front faces toward the camera.

    At most ``max_triangles`` triangles; none spans a depth jump. Cost: about a second for the default 200,000.

    Raises:
        ExportError: as ``metric_z``, or ``edge_cut`` leaves no triangle.
    """
    z = metric_z(prediction, settings)
    fov_x_deg = field_of_view(prediction, settings)
    height, width = z.shape
    surfaces = (_surface(z, fov_x_deg, share * settings.max_triangles, settings) for share in _GRID_SHARES)
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

    Raises:
        ExportError: as ``build_mesh``.
    """
    z = metric_z(prediction, settings)
    grid = np.ix_(*sample_grid(z.shape, None))
    points = unproject(z, field_of_view(prediction, settings))[grid]
    kept = ~edge_mask(z[grid], settings.edge_cut)
    if not kept.any():
        raise ExportError("edge_cut leaves no points; raise it, or give 0 to keep them all.")
    return trimesh.PointCloud(points[kept], colors=prediction.photo[grid][kept])


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
    """[2 (h - 1)(w - 1), 3] int32 triangles of a row-major grid of vertices, turned toward the camera."""
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    top_left, top_right = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    low_left, low_right = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    upper, lower = (top_left, low_left, top_right), (top_right, low_left, low_right)
    return np.concatenate([np.stack(upper, axis=1), np.stack(lower, axis=1)])


def _focal_px(width: int, fov_x_deg: float) -> float:
    return width / (2 * math.tan(math.radians(fov_x_deg) / 2))


def _rays(shape: tuple[int, ...], fov_x_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """x/z [1, W] and y/z [H, 1] of the pixel centres."""
    height, width = shape
    focal_px = _focal_px(width, fov_x_deg)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal_px
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / focal_px
    return x[None, :], y[:, None]


def _slope(values: np.ndarray, axis: int) -> np.ndarray:
    """Change a pixel along ``axis``: the mean of both one-sided differences, the smaller one weighing more."""
    step = np.diff(values, axis=axis)
    first, last = np.take(step, [0], axis), np.take(step, [-1], axis)
    before, after = np.concatenate([first, step], axis), np.concatenate([step, last], axis)
    slight = (3e-3 * values) ** 2  # steps below this share are noise, not edges: there both count alike
    square_before, square_after = before**2 + slight, after**2 + slight
    return (before * square_after + after * square_before) / (square_before + square_after)


def _surface(
    z: np.ndarray, fov_x_deg: float, grid_triangles: int, settings: MeshSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Depth on a grid of so many triangles -> (vertices [N, 3], faces [M, 3]), cut and simplified.

    Vertices are (x/z, y/z, log z): simplified there, an error looks equally large near and far, and the first two
    say where on the photo a vertex lies.
    """
    grid = np.ix_(*sample_grid(z.shape, grid_triangles))
    x, y = (plane[grid] for plane in np.broadcast_arrays(*_rays(z.shape, fov_x_deg)))
    z = z[grid]
    faces = grid_faces(*z.shape)
    faces = faces[~edge_mask(z, settings.edge_cut).ravel()[faces].any(axis=1)]
    if not len(faces):
        raise ExportError("edge_cut leaves nothing of the mesh; raise it, or give 0 to keep every triangle.")
    used = np.zeros(z.size, bool)
    used[faces] = True
    vertices = np.stack([x, y, np.log(z)], axis=-1).reshape(-1, 3)[used]
    faces = (np.cumsum(used, dtype=np.int32) - 1)[faces]
    if len(faces) > settings.max_triangles:
        with _SIMPLIFIER:
            vertices, faces, *_ = fast_simplification.simplify(vertices, faces, target_count=settings.max_triangles)
    return vertices, faces
