"""Depth to a coloured point cloud."""

import numpy as np
import trimesh

from marigold_core.geometry.depth_filters import edge_mask, without_specks
from marigold_core.geometry.mesh import GRID_SHARES, nothing_left, sample_depth
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings


def point_cloud(prediction: Prediction, settings: MeshSettings) -> trimesh.PointCloud:
    """Depth prediction -> coloured points, OpenCV axes; which they are says ``sample_points``, which also may raise."""
    points, pixels = sample_points(prediction, settings)
    return trimesh.PointCloud(points, colors=prediction.photo.reshape(-1, 3)[pixels])


def sample_points(prediction: Prediction, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """Depth prediction -> points [N, 3], OpenCV axes, and the pixels [N] they show, counted row by row.

    At most twice ``max_triangles``: the grid that a mesh of so many triangles is simplified from, without the points
    that float at depth jumps.

    Raises:
        ExportError: as ``build_mesh``.
    """
    grid = sample_depth(prediction, GRID_SHARES[0] * settings.max_triangles, settings)
    kept = without_specks(grid.kept & ~edge_mask(grid.z, settings.edge_cut))
    if not kept.any():
        missing = prediction.missing
        raise nothing_left(settings, holes=missing is not None and not without_specks(~missing[grid.index]).any())
    rows, columns = grid.index
    pixels = rows * prediction.values.shape[1] + columns
    return np.stack([grid.x * grid.z, grid.y * grid.z, grid.z], axis=-1)[kept], pixels[kept]
