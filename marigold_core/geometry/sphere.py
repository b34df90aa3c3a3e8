"""Panoramas of 360 degrees: views cut out of them, distances of views brought together, and a mesh around the camera.

A panorama is equirectangular: its width is the full circle, its height from straight up to straight down. Axes are
those of ``camera``: x right, y down, z forward, toward the middle of the panorama. Views are the six faces of a cube,
each wider than its face, so that neighbours overlap. A view's depth is along its own axis; a panorama holds distances,
since every direction is as good as another.
"""

import math

import numpy as np
import trimesh

from marigold_core.geometry.camera import focal_length_px, unproject
from marigold_core.geometry.depth_filters import ndimage, sharpen
from marigold_core.geometry.mesh import TEXTURE_PX, cut_faces, nothing_left, sample_grid, textured
from marigold_core.settings import ClippedSettings

FACES = ("front", "right", "back", "left", "up", "down")
FACE_FOV_DEG = 110.0  # 90 would leave no overlap; much more, and the rims are stretched
SAMPLES = 4000  # directions at which views are compared, evenly over the sphere
PRIOR = 1e-4  # weight of a view's own scale and shift against what the overlaps say
STEEPER = 2.0  # by so much more must distances jump to be cut: the triangles of a whole circle are wider than a photo's
OUTLIER = 0.1  # relative difference of two views from which on a direction counts less


def directions(height: int, width: int) -> np.ndarray:
    """The unit vectors [H, W, 3] float32 that the pixels of a panorama show."""
    longitude = (np.arange(width) + 0.5) / width * 2 * math.pi - math.pi
    latitude = (np.arange(height) + 0.5) / height * math.pi - math.pi / 2  # down is positive
    across, level = np.cos(latitude)[:, None], np.ones(width)
    parts = [across * np.sin(longitude), np.sin(latitude)[:, None] * level, across * np.cos(longitude)]
    return np.stack(parts, axis=-1).astype(np.float32)


def face_axes(face: int) -> np.ndarray:
    """[3, 3], rows right, down, forward of a view, by its number in ``FACES``."""
    if face < 4:
        c, s = (round(part(math.radians(90 * face))) for part in (math.cos, math.sin))
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)
    up = 1 if face == 4 else -1
    return np.array([[1, 0, 0], [0, 0, up], [0, -up, 0]], np.float32)


def cut_out(panorama: np.ndarray, face: int, side_px: int) -> np.ndarray:
    """Panorama [H, W, 3] uint8 -> the view [side, side, 3] uint8 of a face."""
    height, width = panorama.shape[:2]
    rays = unproject(np.ones((side_px, side_px), np.float32), FACE_FOV_DEG) @ face_axes(face)
    longitude = np.arctan2(rays[..., 0], rays[..., 2])
    latitude = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    columns = (longitude + math.pi) / (2 * math.pi) * width - 0.5
    rows = np.clip((latitude + math.pi / 2) / math.pi * height - 0.5, 0, height - 1)
    padded = np.concatenate([panorama[:, -1:], panorama, panorama[:, :1]], axis=1)  # it goes on around the back
    planes = [
        ndimage.map_coordinates(padded[..., k].astype(np.float32), [rows, columns + 1], order=1, mode="nearest")
        for k in range(3)
    ]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def face_side_px(width: int, most_px: int) -> int:
    """The side of a view that shows a panorama of this width as finely as it is, at most ``most_px``."""
    full = 2 * math.tan(math.radians(FACE_FOV_DEG) / 2) * width / (2 * math.pi)
    return max(16, min(round(full), most_px) // 8 * 8)


def look_up(z: np.ndarray, face: int, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a view [side, side] z knows of directions [..., 3] -> z, distance over z, and weight, 0 outside of it."""
    side = len(z)
    right, down, forward = np.moveaxis(rays @ face_axes(face).T, -1, 0)
    ahead = forward > 1e-3
    scale = focal_length_px(side, FACE_FOV_DEG) / np.where(ahead, forward, 1)
    x, y = right * scale + side / 2 - 0.5, down * scale + side / 2 - 0.5
    rim = 1 - np.maximum(np.abs(x - side / 2 + 0.5), np.abs(y - side / 2 + 0.5)) / (side / 2)
    weight = np.where(ahead, np.clip(rim, 0, 1) ** 2, 0)  # views are best in their middle, and end softly
    found = ndimage.map_coordinates(z, [y, x], order=1, mode="nearest")
    return found, 1 / np.where(ahead, forward, 1), weight


def align(views: list[np.ndarray], *, has_shift: bool = True) -> tuple[np.ndarray, float]:
    """Fit a scale and a shift [F, 2] to the z [side, side] of each view, so that overlaps agree in distance.

    A shift of z changes distances by more toward the rim of a view, so that overlaps tell it from the scale. Where they
    tell little, each view's own is kept. Also returned is the median relative difference in the overlaps that is left.
    """
    rays = _even_directions(SAMPLES)
    found = [look_up(z, face, rays) for face, z in enumerate(views)]
    rows, level = list[np.ndarray](), np.median(np.concatenate([z.ravel()[::97] for z in views]))
    for one in range(len(views)):
        for other in range(one):
            (z1, k1, w1), (z2, k2, w2) = found[one], found[other]
            both = np.minimum(w1, w2) > 0
            row = np.zeros((int(both.sum()), 2 * len(views)))
            size = (z1 * k1 + z2 * k2)[both] / 2
            row[:, 2 * one], row[:, 2 * one + 1] = (z1 * k1)[both] / size, k1[both] * level / size
            row[:, 2 * other], row[:, 2 * other + 1] = -(z2 * k2)[both] / size, -k2[both] * level / size
            rows.append(row)
    overlaps = np.concatenate(rows)
    prior = np.tile([1.0, 0.0], len(views))
    held = math.sqrt(PRIOR * len(overlaps)) * np.eye(2 * len(views))
    if not has_shift:
        held[1::2] *= 1e4
    weight = np.ones(len(overlaps))
    answer = prior
    for _ in range(5):
        design = np.concatenate([overlaps * weight[:, None], held])
        answer = np.linalg.lstsq(design, np.concatenate([np.zeros(len(overlaps)), held @ prior]), rcond=None)[0]
        answer = answer / max(answer[::2].mean(), 1e-3)  # the whole has no scale
        weight = 1 / np.sqrt(1 + (overlaps @ answer / OUTLIER) ** 2)
    return answer.reshape(-1, 2) * [1.0, level], float(np.median(np.abs(overlaps @ answer)))


def blend(views: list[np.ndarray], fitted: np.ndarray, height: int, width: int) -> np.ndarray:
    """Distances [H, W] float32 of a panorama from the z of its views and their scales and shifts [F, 2]; farthest 1."""
    rays = directions(height, width)
    total, weights = np.zeros((height, width)), np.zeros((height, width))
    least = 1e-3 * max(float((scale * z + shift).max()) for z, (scale, shift) in zip(views, fitted, strict=True))
    for face, (z, (scale, shift)) in enumerate(zip(views, fitted, strict=True)):
        found, ratio, weight = look_up(z, face, rays)
        total += weight * np.maximum(scale * found + shift, least) * ratio
        weights += weight
    distance = total / weights
    return (distance / distance.max()).astype(np.float32)


def sphere_mesh(distance: np.ndarray, photo: np.ndarray, settings: ClippedSettings) -> trimesh.Trimesh:
    """Distances [H, W] and the panorama [H, W, 3] -> a textured mesh around the camera, seen from inside.

    Raises:
        ExportError: the cuts leave nothing.
    """
    height, width = distance.shape
    rows, columns = sample_grid((height, width), settings.max_triangles)
    edge_cut = STEEPER * settings.edge_cut
    r = sharpen(distance, edge_cut)[np.ix_(rows, columns)]
    rays = directions(height, width)[np.ix_(rows, columns)]
    for pole, down in ((0, -1.0), (-1, 1.0)):  # the outermost row becomes one point, so that nothing is open there
        r[pole], rays[pole] = r[pole].mean(), (0.0, down, 0.0)
    r, rays = np.concatenate([r, r[:, :1]], axis=1), np.concatenate([rays, rays[:, :1]], axis=1)  # once around
    kept = (r >= settings.near_clip * r.max()) & (r <= settings.far_clip * r.max())
    faces = cut_faces(r, kept, edge_cut)
    if not len(faces):
        raise nothing_left(settings)
    u, v = (np.append(columns, columns[0] + width) + 0.5) / width, 1 - (rows + 0.5) / height
    uv = np.stack(np.broadcast_arrays(u[None, :], v[:, None]), axis=-1).reshape(-1, 2)
    return textured((rays * r[..., None]).reshape(-1, 3), faces, uv, photo, 2 * TEXTURE_PX, name="panorama")


def _even_directions(count: int) -> np.ndarray:
    """[count, 3] unit vectors, evenly over the sphere. Source: Fibonacci lattice, Gonzalez 2010, section 2."""
    k = np.arange(count) + 0.5
    down, turn = 1 - 2 * k / count, math.pi * (1 + math.sqrt(5)) * k
    across = np.sqrt(1 - down**2)
    return np.stack([across * np.cos(turn), down, across * np.sin(turn)], axis=-1)
