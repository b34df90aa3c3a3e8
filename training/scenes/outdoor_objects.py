"""What stands outdoors: cars, trees, people, lamp posts, and the lumps that rocks and crowns are made of."""

from functools import lru_cache

import numpy as np

from training.scenes import meshes
from training.scenes.assets import Assets
from training.scenes.meshes import Mesh
from training.scenes.models import BALL, BOX, CROSS, CYLINDER, TAPER, paint, part
from training.scenes.types import Look, Model, Part, model, place, triple

CONE = meshes.lathe([(0.5, 0), (0.01, 1)])
CABIN, CHEST = meshes.frustum(0.82, 0.6), meshes.frustum(1.25, 1.0)


def car(rng: np.random.Generator) -> Model:
    """Build a car of boxes with wheels, its front towards +z."""
    length, width, body = rng.uniform(3.6, 4.8), rng.uniform(1.65, 1.85), rng.uniform(0.55, 0.75)
    coat, glass = paint(rng, 1.0), Look(None, (0.1, 0.12, 0.14), gloss=0.9)
    tyre = Look(None, (0.06, 0.06, 0.06))
    cabin = length * rng.uniform(0.5, 0.65)
    parts = [
        part(BOX, coat, (width, body, length), (0, 0.25, 0)),
        part(CABIN, glass, (0.96 * width, 0.5, cabin), (0, 0.25 + body, -0.05 * length)),
        part(BOX, coat, (0.78 * width, 0.03, 0.58 * cabin), (0, 0.74 + body, -0.05 * length)),
    ]
    sideways = np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for x in (-1, 1):
        for z in (-0.32, 0.32):
            wheel = place((x * width / 2 - 0.1, 0.32, z * length)) @ sideways @ place(scale=(0.64, 0.2, 0.64))
            parts.append(Part(CYLINDER, tyre, wheel))
        parts.append(
            part(BOX, Look(None, (0.95, 0.95, 0.85), glow=0.3), (0.3, 0.12, 0.02), (x * 0.33 * width, 0.6, length / 2))
        )
        parts.append(
            part(BOX, Look(None, (0.6, 0.05, 0.05)), (0.25, 0.14, 0.02), (x * 0.36 * width, 0.65, -length / 2))
        )
    return model(parts)


@lru_cache(maxsize=1)
def crowns() -> list[Mesh]:
    """Lumpy balls for crowns, bushes and rocks, drawn once."""
    rng = np.random.default_rng(11)
    return [meshes.blob(rng, rng.uniform(0.15, 0.4)) for _ in range(10)]


def tree(rng: np.random.Generator, assets: Assets, height: float | None = None) -> Model:
    """Build a tree: a trunk and crossed pictures of foliage, lumps, or the tiers of a conifer."""
    height = height or rng.uniform(3, 12)
    trunk = part(
        CYLINDER,
        Look(assets.texture(rng, "wood", "rock"), (0.5, 0.42, 0.36), 0.6),
        (0.04 * height, 0.55 * height, 0.04 * height),
    )
    style = rng.random()
    green = Look(assets.texture(rng, "foliage"), triple(rng.uniform(0.6, 1.0, 3)))
    if style < 0.45:
        crown = [
            part(CROSS, green, (0.75 * height, 0.8 * height, 0.75 * height), (0, 0.22 * height, 0), rng.uniform(0, 60))
        ]
    elif style < 0.75:
        leafy = Look(assets.texture(rng, "grass"), triple(rng.uniform(0.55, 0.85, 3) * [0.9, 1, 0.7]))
        crown = []
        for _ in range(rng.integers(3, 7)):
            spot = rng.normal(0, 0.13, 3) * height
            size = height * rng.uniform(0.25, 0.5)
            shape = crowns()[rng.integers(len(crowns()))]
            crown.append(part(shape, leafy, (size, size, size), (spot[0], 0.45 * height + abs(spot[1]), spot[2])))
    else:
        needles = Look(assets.texture(rng, "grass"), triple(rng.uniform(0.35, 0.6, 3) * [0.8, 1, 0.8]), repeat=3)
        crown = [
            part(CONE, needles, (s * height, 0.4 * height, s * height), (0, y * height, 0))
            for s, y in ((0.42, 0.15), (0.34, 0.35), (0.24, 0.6))
        ]
    return model([trunk, *crown])


def person(rng: np.random.Generator) -> Model:
    """Build a standing or walking figure of rounded parts."""
    height = rng.uniform(1.55, 1.9)
    coat, trousers, skin = (
        paint(rng),
        paint(rng),
        Look(None, triple(np.array([0.85, 0.65, 0.5]) * rng.uniform(0.45, 1.05))),
    )
    stride = rng.uniform(0, 0.2)
    parts = [part(TAPER, trousers, (0.16, 0.5 * height, 0.18), (x * 0.1, 0, x * stride / 2)) for x in (-1, 1)]
    parts.append(part(CHEST, coat, (0.36, 0.36 * height, 0.22), (0, 0.47 * height, 0)))
    parts += [part(BOX, coat, (0.1, 0.36 * height, 0.12), (x * 0.26, 0.45 * height, 0)) for x in (-1, 1)]
    parts.append(part(BALL, skin, (0.17, 0.23, 0.2), (0, height - 0.23, 0)))
    return model([*parts, part(BALL, paint(rng), (0.19, 0.14, 0.21), (0, height - 0.13, -0.02))])


def lamp_post(rng: np.random.Generator) -> Model:
    """Build a street lamp or a sign on a pole."""
    height, metal = rng.uniform(2.4, 8), Look(None, (0.35, 0.36, 0.37), gloss=0.3)
    parts = [part(CYLINDER, metal, (0.12, height, 0.12))]
    if height > 4.5:
        parts.append(part(BOX, metal, (1.6, 0.08, 0.1), (0.7, height, 0)))
        parts.append(part(BOX, Look(None, (0.8, 0.8, 0.75)), (0.5, 0.12, 0.2), (1.3, height - 0.1, 0)))
    else:
        shape = BOX if rng.random() < 0.5 else CYLINDER
        parts.append(part(shape, paint(rng), (0.6, 0.6 if shape is BOX else 0.1, 0.03), (0, height - 0.6, 0.08)))
    return model(parts)


def any_vehicle(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a car, a van or a bus, from the assets or made of boxes."""
    return (assets.model(rng, "car") if rng.random() < 0.75 else None) or car(rng)


def any_tree(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a tree from the assets or of primitives."""
    return (assets.model(rng, "tree") if rng.random() < 0.35 else None) or tree(rng, assets)


def along_z(thing: Model, yaw_deg: float) -> float:
    """A model and a heading -> the yaw that lays its longer side along it."""
    return yaw_deg + (90.0 if thing.size[0] > thing.size[2] else 0.0)
