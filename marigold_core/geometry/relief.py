"""Printable solids, closed on every side: depth as a relief on a plate, a photo as a lithophane.

Axes for printing: x right, y up in the photo, z up from the plate; millimetres.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
from PIL import Image
from PIL.Image import Resampling

from marigold_core.errors import ExportError
from marigold_core.geometry.depth_filters import smooth
from marigold_core.geometry.mesh import grid_faces, sample_grid
from marigold_core.images.colormaps import stretch, value_range
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings

PLA_G_PER_CM3 = 1.24  # the usual plastic of home printers
LITHOPHANE_MM = 0.6, 3.0  # thickness of white, which still holds together, and of black, which lets no light through


@dataclass(frozen=True)
class Solid:
    """Measurements of a solid for printing."""

    watertight: bool  # closed, and every face's normal points outward
    size_mm: tuple[float, float, float]  # x, y, and z up from the plate
    volume_cm3: float

    @property
    def weight_g(self) -> float:
        """Weight when printed full, in PLA."""
        return self.volume_cm3 * PLA_G_PER_CM3


def relief(prediction: Prediction, settings: MeshSettings) -> trimesh.Trimesh:
    """Depth prediction -> watertight solid, longest edge ``relief_mm``, near parts high.

    At most ``max_triangles`` triangles. What lies outside the clips is level with them: a solid has no holes, so the
    cuts of the mesh do not apply, and the whole height is used for what lies between.

    Raises:
        ExportError: the prediction is not depth or holds values that are not numbers.
    """
    values = prediction.values
    if prediction.modality != "depth" or not np.isfinite(values).all():
        raise ExportError("A relief is made from a depth map whose values are all numbers.")
    rows, cols = _grid(values.shape, settings)
    unit = stretch(values[np.ix_(rows, cols)], *value_range(prediction))
    depth = smooth(unit.astype(np.float64), settings.smoothing)
    depth = np.clip(depth, settings.near_clip, settings.far_clip)
    span = float(depth.max() - depth.min()) or 1.0
    height_mm = settings.relief_base_mm + settings.relief_height_mm * (depth.max() - depth) / span
    return _solid(height_mm, rows, cols, settings)


def lithophane(photo: np.ndarray, settings: MeshSettings) -> trimesh.Trimesh:
    """Photo [H, W, 3] uint8 -> watertight plate, longest edge ``relief_mm``, thick where the photo is dark.

    Lit from behind it shows the photo. At most ``max_triangles`` triangles.
    """
    rows, cols = _grid(photo.shape, settings)
    grey = Image.fromarray(photo).convert("L").resize((len(cols), len(rows)), Resampling.BOX)
    thin, thick = LITHOPHANE_MM
    return _solid(thick - (thick - thin) * np.asarray(grey, np.float64) / 255, rows, cols, settings)


def _grid(shape: tuple[int, ...], settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of a map that a solid of at most ``max_triangles`` is made on."""
    rows, cols = sample_grid(shape, settings.max_triangles)
    sides_and_bottom = 6 * (len(rows) + len(cols))  # triangles
    return sample_grid(shape, settings.max_triangles - sides_and_bottom)


def _solid(height_mm: np.ndarray, rows: np.ndarray, cols: np.ndarray, settings: MeshSettings) -> trimesh.Trimesh:
    """Heights [h, w] above the plate's bottom at these pixels of the photo -> solid in millimetres."""
    mm_per_px = settings.relief_mm / max(rows[-1], cols[-1])
    x, y = np.broadcast_arrays(cols * mm_per_px, (rows[-1] - rows)[:, None] * mm_per_px)
    vertices, faces = _close(np.stack([x, y, height_mm], axis=-1).reshape(-1, 3), *height_mm.shape)
    return trimesh.Trimesh(vertices, faces, process=False)


def measure(solid: trimesh.Trimesh) -> Solid:
    """Measure a solid in millimetres, however it was made, and find holes and faces whose normals point inward."""
    x, y, z = (float(side) for side in solid.extents)
    return Solid(solid.is_volume, (x, y, z), float(solid.volume) / 1000)


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
