"""Matrices from the world to the picture, and to the shadow map."""

import numpy as np

from training.scenes.types import Camera, Lighting, triple

NEAR_M, FAR_M = 0.05, 6000.0
SHADOW_PX = 1024


def half_size(camera: Camera, size: tuple[int, int]) -> tuple[float, float]:
    """Camera and picture size -> tangents of half its fields of view, across and down."""
    focal_px = camera.focal_px(*size)
    return size[0] / 2 / focal_px, size[1] / 2 / focal_px


def view_projection(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """[4, 4] world -> clip space with y down (so rows are read back from the top) and w = depth.

    Shifted by a quarter pixel, so that the first of a pixel's 2x2 samples lies on its centre.
    """
    rotation, (half_x, half_y) = camera.rotation(), half_size(camera, size)
    view = np.eye(4)
    view[:3, :3] = rotation
    view[:3, 3] = -rotation @ np.asarray(camera.eye, float)
    span = FAR_M - NEAR_M
    projection = np.array(
        [
            [1 / half_x, 0, -0.5 / size[0], 0],
            [0, 1 / half_y, -0.5 / size[1], 0],
            [0, 0, (FAR_M + NEAR_M) / span, -2 * FAR_M * NEAR_M / span],
            [0, 0, 1, 0],
        ]
    )
    return projection @ view


def shadow_matrix(lighting: Lighting) -> np.ndarray:
    """[4, 4] world -> clip space of the light with shadows: parallel for a sun, 140 degrees downwards for a lamp."""
    radius = lighting.shadow_radius_m
    if lighting.key_is_lamp:
        x, y, z = lighting.key
        return view_projection(Camera(lighting.key, (x, y - 1, z + 1e-3), 140.0), (SHADOW_PX, SHADOW_PX))
    sun = np.asarray(lighting.key, float) / np.linalg.norm(lighting.key)
    centre = np.asarray(lighting.shadow_centre, float)
    rotation = Camera(triple(centre + 4 * radius * sun), triple(centre), 90.0).rotation()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation / radius
    matrix[2, :3] /= 4
    matrix[:3, 3] = -matrix[:3, :3] @ centre
    return matrix
