"""Depth to a printable solid: a height field on a plate, closed on every side.

Axes for printing: x right, y up in the photo, z up from the plate; millimetres.
"""

import numpy as np
import trimesh

from .errors import ExportError
from .geometry import grid_faces, sample_grid
from .prediction import Prediction
from .settings import MeshSettings

HEIGHT_SHARE = 0.2  # from the farthest to the nearest point, of the longest edge
PLATE_SHARE = 0.03  # thickness under the farthest point, of the longest edge


def relief(prediction: Prediction, settings: MeshSettings) -> trimesh.Trimesh:
    """Depth prediction -> watertight solid, longest edge ``relief_mm``, near parts high.

    At most ``max_triangles`` triangles.

    Raises:
        ExportError: the prediction is not depth or holds values that are not numbers.
    """
    values = prediction.values
    if prediction.modality != "depth" or not np.isfinite(values).all():
        raise ExportError("A relief is made from a depth map whose values are all numbers.")
    rows, cols = sample_grid(values.shape, settings.max_triangles)
    sides_and_bottom = 6 * (len(rows) + len(cols))  # triangles
    rows, cols = sample_grid(values.shape, settings.max_triangles - sides_and_bottom)
    values = values[np.ix_(rows, cols)].astype(np.float64)
    span = float(values.max() - values.min()) or 1.0
    height = PLATE_SHARE + HEIGHT_SHARE * (values.max() - values) / span
    mm_per_px = settings.relief_mm / max(rows[-1], cols[-1])
    x, y = np.meshgrid(cols * mm_per_px, (rows[-1] - rows) * mm_per_px)
    top = np.stack([x, y, height * settings.relief_mm], axis=-1).reshape(-1, 3)
    vertices, faces = _close(top, *values.shape)
    return trimesh.Trimesh(vertices, faces, process=False)


def _close(top: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """[H * W, 3] row-major top surface -> (vertices, faces) of a solid with upright sides and a bottom at z = 0."""
    index = np.arange(height * width).reshape(height, width)
    rim = np.concatenate([index[-1, :-1], index[:0:-1, -1], index[0, :0:-1], index[:-1, 0]])  # counter-clockwise
    foot = len(top) + np.arange(len(rim))
    centre = np.full(len(rim), len(top) + len(rim))
    flat = np.array([1.0, 1.0, 0.0])
    vertices = np.concatenate([top, top[rim] * flat, top.mean(axis=0, keepdims=True) * flat])
    next_rim, next_foot = np.roll(rim, -1), np.roll(foot, -1)
    closing = [(foot, next_foot, next_rim), (foot, next_rim, rim), (centre, next_foot, foot)]
    faces = [grid_faces(height, width), *(np.stack(corners, axis=1) for corners in closing)]
    return vertices, np.concatenate(faces)
