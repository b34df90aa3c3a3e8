"""What a scene is: meshes with materials, placed by matrices, lit by a few lights and seen by cameras.

World axes: x right, y up, z towards the viewer of a default camera; metres. Camera axes: x right, y down, z forward.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from training.scenes.meshes import Mesh
from training.scenes.textures import Texture, Triple

LABELS = (
    *("sky", "ground", "wall", "ceiling", "furniture", "object", "plant"),
    *("vehicle", "person", "building", "water", "opening"),
)
"""Names of the label values of a rendered picture; the sky is 0 and the only one without a depth."""

THINGS = ("furniture", "object", "plant", "vehicle", "person")
"""Labels whose models are counted one by one; the others are stuff."""

MOST_INSTANCES = 255

CANDIDATES = 12
"""Cameras proposed for a scene; the renderer keeps those that see something."""

Vector = np.ndarray | Triple


def triple(values: Iterable[float]) -> Triple:
    """Three numbers of any kind -> a tuple of floats."""
    x, y, z = values
    return float(x), float(y), float(z)


@dataclass(frozen=True, eq=False)
class Material:
    """The colour and gloss of a surface: sRGB texture times sRGB tint, or the tint alone."""

    texture: Texture | None = None
    tint: Triple = (1.0, 1.0, 1.0)
    tile_m: float = 0.0  # above 0: the texture is laid along the faces and repeats every tile_m; 0: the mesh's own uv
    repeat: float = 1.0  # factor on the mesh's own uv
    gloss: float = 0.0  # strength of the highlight, 0..1
    glow: float = 0.0  # share of the surface's own light, 0..1


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh with a material, placed inside a model."""

    mesh: Mesh
    material: Material
    matrix: np.ndarray = field(default_factory=lambda: np.eye(4))  # [4, 4] part -> model


@dataclass(frozen=True, eq=False)
class Model:
    """A thing made of parts; it stands on y = 0, centred in x and z, its front towards +z."""

    parts: tuple[Part, ...]
    size: np.ndarray  # [3] width, height, depth in metres
    faces: int

    def with_materials(self, materials: list[Material]) -> "Model":
        """The same model where the parts without a texture have the given materials in turn."""
        count = len(materials)
        changed = (replace(part, material=materials[k % count]) for k, part in enumerate(self.parts))
        chosen = (old if old.material.texture else new for old, new in zip(self.parts, changed, strict=True))
        return replace(self, parts=tuple(chosen))


def model(parts: list[Part]) -> Model:
    """Parts -> the model they make, its size measured from their corners (in place, not moved)."""
    corners = []
    for part in parts:
        low, high = part.mesh.positions.min(0), part.mesh.positions.max(0)
        box = np.array([(x, y, z, 1) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        corners.append((box @ part.matrix.T)[:, :3])
    points = np.concatenate(corners)
    reach = 2 * np.abs(points).max(0)
    size = np.array([reach[0], points[:, 1].max(), reach[2]])
    return Model(tuple(parts), size, sum(len(part.mesh.faces) for part in parts))


def place(position: Vector = (0, 0, 0), scale: Vector | float = 1.0, yaw_deg: float = 0.0) -> np.ndarray:
    """Position in metres, scale, turn about y -> [4, 4] matrix that scales, turns, then moves."""
    angle = np.radians(yaw_deg)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) * np.broadcast_to(np.asarray(scale, float), 3)
    matrix[:3, 3] = position
    return matrix


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw a [4, 4] rotation, even over all directions."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    matrix = np.eye(4)
    matrix[:3, :3] = q * np.sign(np.linalg.det(q))
    return matrix


def orbit(tilt_deg: float, turn: float) -> np.ndarray:
    """Angle above the ground in degrees and about y in radians -> [3] unit direction."""
    tilt = np.radians(tilt_deg)
    return np.array([np.cos(tilt) * np.cos(turn), np.sin(tilt), np.cos(tilt) * np.sin(turn)])


@dataclass(frozen=True, eq=False)
class Item:
    """One part in the world."""

    mesh: Mesh
    material: Material
    matrix: np.ndarray  # [4, 4] mesh -> world
    label: int
    casts_shadow: bool = True
    instance: int = 0  # number of the thing that it is a part of, from 1; 0 for stuff


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: the fields of view give its shape, the picture size its pixels."""

    eye: Triple
    target: Triple
    fov_x_deg: float  # of the longer side, so that portrait and landscape pictures see equally wide
    roll_deg: float = 0.0

    def rotation(self) -> np.ndarray:
        """[3, 3] matrix, rows right, down, forward: world directions -> camera axes."""
        forward = np.subtract(self.target, self.eye).astype(float)
        forward /= np.linalg.norm(forward)
        helper = np.array([0.0, 1, 0]) if abs(forward[1]) < 0.999 else np.array([0.0, 0, -1])
        right = np.cross(forward, helper)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(np.radians(self.roll_deg)), np.sin(np.radians(self.roll_deg))
        return np.stack([c * right + s * down, c * down - s * right, forward])

    def focal_px(self, width_px: int, height_px: int) -> float:
        """Picture size -> focal length in pixels (square pixels)."""
        return max(width_px, height_px) / 2 / np.tan(np.radians(self.fov_x_deg) / 2)


@dataclass(frozen=True)
class Lighting:
    """One light with shadows (a sun or a lamp), one without, light from all around, haze and the sky's picture."""

    key: Triple  # the sun's direction (towards it) or the lamp's position
    key_is_lamp: bool
    key_colour: Triple  # linear radiance it gives a white surface it faces (a lamp: at 2 m)
    shadow_centre: Triple
    shadow_radius_m: float
    ambient: np.ndarray  # [6, 3] linear light from +x, -x, +y, -y, +z, -z
    fill: Triple = (0.0, 0.0, 0.0)
    fill_colour: Triple = (0.0, 0.0, 0.0)
    haze_per_m: float = 0.0
    haze_colour: Triple = (0.7, 0.75, 0.8)
    sky: Texture | None = None  # equirectangular; None is white
    sky_gain: float = 1.0


@dataclass
class Scene:
    """Everything that the renderer needs; ``cameras`` are candidates, tried in order."""

    kind: str
    lighting: Lighting
    items: list[Item] = field(default_factory=list)
    cameras: list[Camera] = field(default_factory=list)
    things: int = 0  # how many were placed

    def add(self, thing: Model, matrix: np.ndarray, label: str, casts_shadow: bool = True) -> None:
        """Place a model."""
        code, number = LABELS.index(label), 0
        if label in THINGS and self.things < MOST_INSTANCES:  # what comes later is drawn and not counted
            self.things += 1
            number = self.things
        for part in thing.parts:
            self.items.append(Item(part.mesh, part.material, matrix @ part.matrix, code, casts_shadow, number))

    def add_mesh(
        self, shape: Mesh, material: Material, matrix: np.ndarray, label: str, casts_shadow: bool = True
    ) -> None:
        """Place a single mesh."""
        self.items.append(Item(shape, material, matrix, LABELS.index(label), casts_shadow))

    def faces(self) -> int:
        """Count the triangles of the whole scene."""
        return sum(len(item.mesh.faces) for item in self.items)


def field_of_view(rng: np.random.Generator) -> float:
    """Draw a horizontal field of view in degrees: mostly 50 to 75, now and then 35 to 110."""
    return float(rng.uniform(50, 75) if rng.random() < 0.65 else rng.uniform(35, 110))
