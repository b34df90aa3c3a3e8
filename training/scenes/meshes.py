"""Triangle meshes of simple shapes, in numpy: the geometry that rendered scenes are made of without any asset.

Invariant: a shape stands on y = 0 (y up), is centred in x and z, and has unit normals; sizes are in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CREASE_COS = 0.75  # neighbouring bands of a lathe that bend less than acos of this share their normal


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one normal and one texture coordinate a vertex; compared and cached by identity."""

    positions: np.ndarray  # [V, 3] float32, metres
    normals: np.ndarray  # [V, 3] float32, unit
    uvs: np.ndarray  # [V, 2] float32
    faces: np.ndarray  # [F, 3] int32


def mesh(positions, normals, uvs, faces) -> Mesh:
    """Array-likes of V vertices and F triangles -> Mesh in the types the renderer uploads."""
    return Mesh(
        np.ascontiguousarray(positions, np.float32),
        np.ascontiguousarray(normals, np.float32),
        np.ascontiguousarray(uvs, np.float32),
        np.ascontiguousarray(faces, np.int32),
    )


def flat(quads: Sequence[np.ndarray]) -> Mesh:
    """Planar quads, each [4, 3] in order around its edge -> Mesh with one normal a quad and uv 0..1 on each."""
    corners = np.asarray(quads, np.float32)  # [Q, 4, 3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    alternative = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 0])  # where corners 0 and 1 meet
    normals = np.where(lengths > 1e-9, normals, alternative)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    first = 4 * np.arange(len(corners))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    uvs = np.tile([[0, 1], [1, 1], [1, 0], [0, 0]], (len(corners), 1))
    return mesh(corners.reshape(-1, 3), np.repeat(normals, 4, axis=0), uvs, faces)


def frustum(top_x: float = 1.0, top_z: float = 1.0) -> Mesh:
    """Fractions of the base -> a unit box whose top face is scaled by them (1, 1 is the box itself)."""
    x, z = top_x / 2, top_z / 2
    b = [(-0.5, 0, 0.5), (0.5, 0, 0.5), (0.5, 0, -0.5), (-0.5, 0, -0.5)]
    t = [(-x, 1, z), (x, 1, z), (x, 1, -z), (-x, 1, -z)]
    sides = [[b[i], b[(i + 1) % 4], t[(i + 1) % 4], t[i]] for i in range(4)]
    return flat([np.asarray(quad, float) for quad in [*sides, t, b[::-1]]])


def plane() -> Mesh:
    """Make a unit square on y = 0 that faces up."""
    return flat([np.array([(-0.5, 0, 0.5), (0.5, 0, 0.5), (0.5, 0, -0.5), (-0.5, 0, -0.5)])])


def card(copies: int = 1) -> Mesh:
    """Make unit squares standing on y = 0, turned about the y axis in equal steps: pictures (1), foliage (2, 3)."""
    quads = []
    for angle in np.pi * np.arange(copies) / copies:
        c, s = np.cos(angle) / 2, np.sin(angle) / 2
        quads.append(np.array([(-c, 0, s), (c, 0, -s), (c, 1, -s), (-c, 1, s)]))
    return flat(quads)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 20) -> Mesh:
    """Turn a profile of (radius, height) points, listed from the bottom outwards, about the y axis."""
    points = np.asarray(profile, float)
    steps = np.diff(points, axis=0)
    bands = np.stack([steps[:, 1], -steps[:, 0]], axis=1)  # outward normal of each band, in (radius, height)
    bands /= np.linalg.norm(bands, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(steps, axis=1))])
    positions, normals, uvs, faces = [], [], [], []
    for i in range(len(steps)):
        for end, other in ((i, i - 1), (i + 1, i + 1)):
            normal = bands[i]
            if 0 <= other < len(bands) and normal @ bands[other] > CREASE_COS:
                normal = (normal + bands[other]) / np.linalg.norm(normal + bands[other])
            radius, height = points[end]
            ones = np.ones_like(angle)
            positions.append(np.stack([radius * np.cos(angle), height * ones, radius * np.sin(angle)], 1))
            normals.append(np.stack([normal[0] * np.cos(angle), normal[1] * ones, normal[0] * np.sin(angle)], 1))
            uvs.append(np.stack([angle / (2 * np.pi), (1 - along[end] / along[-1]) * ones], 1))
        low = 2 * i * (segments + 1) + np.arange(segments)[:, None]
        high = low + segments + 1
        faces += [np.hstack([low, high, low + 1]), np.hstack([low + 1, high, high + 1])]
    return mesh(*(np.concatenate(rows) for rows in (positions, normals, uvs, faces)))


def cylinder(segments: int = 20) -> Mesh:
    """Make a closed cylinder of diameter and height 1."""
    return lathe([(1e-4, 0), (0.5, 0), (0.5, 1), (1e-4, 1)], segments)


def ring(inner: float, segments: int = 24) -> Mesh:
    """Inner radius as a fraction of the outer -> a flat-sided ring (a tape roll, a tyre) of diameter and height 1."""
    r = inner / 2
    return lathe([(r, 1), (r, 0), (0.5, 0), (0.5, 1), (r, 1)], segments)


def sphere(segments: int = 20, rings: int = 12) -> Mesh:
    """Make a sphere of diameter 1 that touches y = 0."""
    angle = np.linspace(0, np.pi, rings + 1)
    profile = [(max(0.5 * np.sin(a), 1e-5), 0.5 - 0.5 * np.cos(a)) for a in angle]
    return lathe(profile, segments)


def blob(rng: np.random.Generator, roughness: float = 0.25) -> Mesh:
    """Make a lumpy ball of about diameter 1: a rock, a bush, a crown of a tree."""
    ball = sphere(18, 12)
    unit = ball.positions - [0, 0.5, 0]
    swell = np.zeros(len(unit))
    for _ in range(6):
        swell += np.sin(unit @ rng.normal(0, 6, 3) + rng.uniform(0, 6.3)) / 6
    positions = unit * (1 + roughness * 2 * swell[:, None])
    positions[:, 1] -= positions[:, 1].min()
    normals = smooth_normals(positions, ball.faces)
    return mesh(positions, normals, ball.uvs * [3, 2], ball.faces)


def smooth_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[V, 3] positions, [F, 3] triangles -> [V, 3] unit normals, averaged by area over all vertices at one place."""
    corners = positions[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    _, place = np.unique(np.round(positions, 5), axis=0, return_inverse=True)
    total = np.zeros((place.max() + 1, 3))
    np.add.at(total, place[faces].ravel(), np.repeat(area, 3, axis=0))
    normals = total[place]
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def height_field(xs: np.ndarray, zs: np.ndarray, heights: np.ndarray, tile_m: float = 1.0) -> Mesh:
    """[X] and [Z] grid lines and [Z, X] heights, metres -> a terrain whose uv repeats every ``tile_m`` metres."""
    x, z = np.meshgrid(xs, zs)
    positions = np.stack([x, heights, z], axis=-1).reshape(-1, 3)
    columns = len(xs)
    first = (np.arange(len(zs) - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    faces = np.concatenate([first + [0, columns, 1], first + [1, columns, columns + 1]])
    slope_x = np.gradient(heights, xs, axis=1)
    slope_z = np.gradient(heights, zs, axis=0)
    normals = np.stack([-slope_x, np.ones_like(slope_x), -slope_z], axis=-1).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return mesh(positions, normals, positions[:, [0, 2]] / tile_m, faces)


def keep_faces(terrain: Mesh, chosen: np.ndarray) -> Mesh:
    """A mesh and a [F] mask -> the same vertices with the chosen triangles only."""
    return Mesh(terrain.positions, terrain.normals, terrain.uvs, np.ascontiguousarray(terrain.faces[chosen]))
