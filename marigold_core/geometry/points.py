"""Depth to a coloured point cloud."""

import numpy as np
import trimesh

from marigold_core.errors import ExportError
from marigold_core.geometry.depth_filters import edge_mask, without_specks
from marigold_core.geometry.mesh import GRID_SHARES, NOTHING_LEFT, sample_depth
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings


def point_cloud(prediction: Prediction, settings: MeshSettings) -> trimesh.PointCloud:
    """Depth prediction -> coloured points, OpenCV axes, without those that float at depth jumps.

    At most twice ``max_triangles`` points: the grid that a mesh of so many triangles is simplified from.

    Raises:
        ExportError: as ``build_mesh``.
    """
    grid = sample_depth(prediction, GRID_SHARES[0] * settings.max_triangles, settings)
    kept = without_specks(grid.kept & ~edge_mask(grid.z, settings.edge_cut))
    if not kept.any():
        raise ExportError(NOTHING_LEFT)
    points = np.stack([grid.x * grid.z, grid.y * grid.z, grid.z], axis=-1)[kept]
    return trimesh.PointCloud(points, colors=prediction.photo[grid.index][kept])
