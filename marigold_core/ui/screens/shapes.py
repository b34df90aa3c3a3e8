"""What is said of a shape on the 3D screen, and where it is seen from at the start."""

import math
from typing import Literal

import numpy as np

from marigold_core.geometry.camera import DEFAULT_FOV_X_DEG
from marigold_core.geometry.relief import Solid
from marigold_core.prediction import Prediction
from marigold_core.settings import Format
from marigold_core.ui import text

Shape = Literal["mesh", "relief", "points", "normals"]
FILES: dict[str, Format] = {"mesh": "glb", "relief": "stl", "points": "ply"}

VIEW_ASPECT = 1.2  # the 3D viewer is at least this much wider than high
VIEW_TANGENT = 0.39  # of half the 3D viewer's own field of view, less a margin
RELIEF_FROM = np.array([0.35, 0.37, 0.86])  # where a relief is seen from: a little from the right and above


def fov_source(prediction: Prediction, fov_x_deg: float) -> str:
    """Say where a field of view in degrees comes from."""
    known = prediction.fov_x_deg
    if known is None:
        return text.FOV_ASSUMED if fov_x_deg == DEFAULT_FOV_X_DEG else text.FOV_GIVEN
    origin = text.FOV_EXIF if prediction.kind == "affine" else text.FOV_MEASURED
    if abs(fov_x_deg - known) < 0.06:  # shown with one digit after the point
        return text.FOV_KNOWN.format(origin=origin)
    return text.FOV_CHANGED.format(known=known, origin=origin)


def facts(shape: Shape, vertices: int, triangles: int, solid: Solid | None, size_bytes: int) -> str:
    """Say what a shape consists of, and how large its file is."""
    file = f"{FILES[shape].upper()}, {text.size(size_bytes)}"
    if shape == "points":
        return text.POINTS_FACTS.format(points=vertices, file=file)
    if solid is None:
        return text.MESH_FACTS.format(triangles=triangles, file=file)
    width, height, thickness = solid.size_mm
    return text.RELIEF_FACTS.format(
        closed=text.WATERTIGHT if solid.watertight else text.NOT_WATERTIGHT,
        width=width,
        height=height,
        thickness=thickness,
        volume=solid.volume_cm3,
        weight=solid.weight_g,
        triangles=triangles,
        file=file,
    )


def camera_position(vertices: np.ndarray, away: np.ndarray | None = None) -> tuple[float, float, float]:
    """Vertices [N, 3], y up -> where the viewer's camera stands: degrees around, from the zenith, and the distance.

    It looks at the middle of the vertices' box from the direction ``away``, by default from where the photo was taken,
    and is as near as it can be with every vertex in view.
    """
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    back = -middle if away is None else away
    back = back / np.linalg.norm(back)
    right = np.cross((0, 1, 0), back) / np.hypot(back[0], back[2])
    seen = vertices - middle
    aside = np.maximum(abs(seen @ right) / VIEW_ASPECT, abs(seen @ np.cross(back, right)))
    distance = float((aside / VIEW_TANGENT + seen @ back).max())
    return math.degrees(math.atan2(back[2], back[0])), math.degrees(math.acos(back[1])), distance
