"""The pinhole camera: depth along the optical axis, field of view, rays, points and normals.

Axes: OpenCV, x right, y down, z forward along the optical axis, camera at the origin, principal point at the photo's
centre. Normals are for people and point X right, Y up, Z toward the viewer. glTF's axes appear only in ``preview`` and
``files``.

Affine depth knows neither its shift nor its scale. ``near_ratio`` supplies the shift; the far plane is the unit of
length. Scale and metric depth are used as they are.
"""

import math
from collections.abc import Iterator

import numpy as np

from marigold_core.errors import ExportError
from marigold_core.geometry.depth_filters import smooth
from marigold_core.images.bands import each_band, in_bands
from marigold_core.prediction import Prediction, Space
from marigold_core.settings import CameraSettings, bounds

DEFAULT_FOV_DEG = 55.0  # along the longer edge: a phone's or camera's usual wide lens, held upright or not
DEFAULT_NEAR_RATIO = 0.25
DEEPEST = 1.5  # times as deep as wide: what a telephoto lens shows would otherwise be a needle


def metric_z(prediction: Prediction, settings: CameraSettings) -> np.ndarray:
    """Depth prediction -> [H, W] float32 z > 0 along the optical axis: metres for kind "metric", else of unknown unit.

    Affine values are linear in the quantity the model predicts: depth, log depth or disparity, from ``near_ratio``
    at 0 to 1 at 1. ``smoothing`` is a share of the depth, so the filter is applied to its logarithm.

    Raises:
        ExportError: the prediction is not depth or holds values that are not numbers.
    """
    if prediction.modality != "depth":
        raise ExportError(f"Geometry is made from depth, not from {prediction.modality}.")
    z = prediction.values.astype(np.float32, copy=False)
    if not np.isfinite(z).all():
        raise ExportError("The depth map holds values that are not numbers; run again with dtype float32.")
    if prediction.kind == "affine":
        near = near_ratio(prediction, settings)
        z = in_bands(lambda rows: _affine_to_z(rows, prediction.space, near), z)
    else:
        farthest = float(z.max())
        z = np.maximum(z, 1e-3 * farthest) if farthest > 0 else np.ones_like(z)
    return np.exp(smooth(np.log(z), settings.smoothing)) if settings.smoothing else z


def field_of_view(prediction: Prediction, settings: CameraSettings) -> float:
    """The horizontal field of view in degrees: as set, else from EXIF, else as ``default_fov_x_deg`` assumes."""
    return settings.fov_x_deg or prediction.fov_x_deg or default_fov_x_deg(prediction)


def default_fov_x_deg(prediction: Prediction) -> float:
    """The horizontal field of view in degrees of a photo that does not tell: ``DEFAULT_FOV_DEG`` on its longer edge."""
    return assumed_fov_x_deg(*prediction.values.shape[:2])


def assumed_fov_x_deg(height: int, width: int) -> float:
    """The horizontal field of view in degrees of any picture of this shape that sees ``DEFAULT_FOV_DEG``."""
    across = math.tan(math.radians(DEFAULT_FOV_DEG) / 2) * width / max(height, width)
    return math.degrees(2 * math.atan(across))


def near_ratio(prediction: Prediction, settings: CameraSettings) -> float:
    """The nearest depth of affine depth in units of the farthest: as set, else ``DEFAULT_NEAR_RATIO``.

    It is more where the scene would be over ``DEEPEST`` times as deep as it is wide at its far end.
    """
    if settings.near_ratio is not None:
        return settings.near_ratio
    height, width = prediction.values.shape[:2]
    far_width = 2 * math.tan(math.radians(field_of_view(prediction, settings)) / 2) * max(height, width) / width
    return max(DEFAULT_NEAR_RATIO, min(1 - DEEPEST * far_width, bounds(CameraSettings, "near_ratio")[1]))


def vertical_field_of_view(prediction: Prediction, settings: CameraSettings) -> float:
    """The vertical field of view in degrees that belongs to ``field_of_view``: pixels are square."""
    height, width = prediction.values.shape[:2]
    return math.degrees(2 * math.atan(height / 2 / focal_length_px(width, field_of_view(prediction, settings))))


def focal_length_px(width: int, fov_x_deg: float) -> float:
    """The focal length, in pixels, of a photo of this width."""
    return width / (2 * math.tan(math.radians(fov_x_deg) / 2))


def pixel_rays(shape: tuple[int, ...], fov_x_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """x/z and y/z of the pixel centres, each [H, W], as views of a row and a column."""
    height, width = shape[:2]
    focal_px = focal_length_px(width, fov_x_deg)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal_px
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / focal_px
    return np.broadcast_to(x[None, :], (height, width)), np.broadcast_to(y[:, None], (height, width))


def unproject(z: np.ndarray, fov_x_deg: float) -> np.ndarray:
    """[H, W] z -> [H, W, 3] float32 points in the unit of z, OpenCV axes."""
    x, y = pixel_rays(z.shape, fov_x_deg)
    return np.stack([x * z, y * z, z], axis=-1).astype(np.float32)


def _normals_of(z: np.ndarray, fov_x_deg: float) -> Iterator[np.ndarray]:
    """[H, W] z > 0 -> bands [h, W, 3] float32 of unit normals, X right, Y up, Z toward the viewer.

    Differences are taken of 1/z, which is linear across a plane, so planes are exact. Of the two neighbours on an
    axis the one on the same surface gets nearly all the weight, so normals are right up to a depth jump.
    """
    focal_px = focal_length_px(z.shape[1], fov_x_deg)

    def of_rows(z: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        disparity = 1 / z.astype(np.float32)
        du, dv = _derivative(disparity, axis=1), _derivative(disparity, axis=0)
        # cross(dP/du, dP/dv) for P = (x, y, 1) / disparity, up to a positive factor
        vectors = np.stack([-du, dv, disparity / focal_px - x * du - y * dv], axis=-1)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    return each_band(of_rows, z, *pixel_rays(z.shape, fov_x_deg), halo=1)


def normals(prediction: Prediction, settings: CameraSettings) -> np.ndarray:
    """Any prediction -> [H, W, 3] float32 unit normals: its own, or those of its depth surface.

    Raises:
        ExportError: as ``metric_z``.
    """
    return np.concatenate([*bands_of_normals(prediction, settings)])


def bands_of_normals(prediction: Prediction, settings: CameraSettings) -> Iterator[np.ndarray]:
    """Make the ``normals`` in bands [h, W, 3] from the top: together they take three times as much as the depth."""
    if prediction.modality == "normals":
        return iter([prediction.values.astype(np.float32, copy=False)])
    return _normals_of(metric_z(prediction, settings), field_of_view(prediction, settings))


def _affine_to_z(values: np.ndarray, space: Space, near: float) -> np.ndarray:
    """Affine values, near = 0 and far = 1 -> z from ``near`` to 1."""
    values = np.clip(values, 0, 1)
    if space == "log":
        return np.exp(math.log(near) * (1 - values))
    if space == "disparity":
        return 1 / (1 / near + (1 - 1 / near) * values)
    return near + (1 - near) * values


def _derivative(values: np.ndarray, axis: int) -> np.ndarray:
    """Change per pixel along ``axis``: the mean of both one-sided differences, the smaller one weighing more."""
    step = np.diff(values, axis=axis)
    first, last = np.take(step, [0], axis), np.take(step, [-1], axis)
    before, after = np.concatenate([first, step], axis), np.concatenate([step, last], axis)
    noise = (3e-3 * values) ** 2  # differences below this share are noise, not edges: there both count alike
    square_before, square_after = before**2 + noise, after**2 + noise
    return (before * square_after + after * square_before) / (square_before + square_after)
