"""Furniture made of primitives, and the shapes and looks that all made things share."""

import numpy as np

from training.scenes import meshes
from training.scenes.assets import Assets
from training.scenes.meshes import Mesh
from training.scenes.textures import colour
from training.scenes.types import Look, Model, Part, Vector, model, place, triple

BOX, PLANE, CARD = meshes.frustum(), meshes.plane(), meshes.card()
CYLINDER, BALL = meshes.cylinder(), meshes.sphere()
SHADE, TAPER = meshes.lathe([(0.5, 0), (0.3, 1)]), meshes.frustum(0.8, 0.8)
CROSS = meshes.card(3)
HANDLE = Look(None, (0.4, 0.4, 0.42), gloss=0.6)


def part(shape: Mesh, look: Look, size: Vector, position: Vector = (0, 0, 0), yaw_deg: float = 0.0) -> Part:
    """Place a unit shape of a size in metres inside a model."""
    return Part(shape, look, place(position, size, yaw_deg))


def paint(rng: np.random.Generator, gloss: float = 0.2) -> Look:
    """Draw a plain colour."""
    return Look(None, triple(colour(rng, 0.9, 0.08, 0.95)), gloss=gloss * rng.random())


def surface(rng: np.random.Generator, assets: Assets, *kinds: str, tile_m: float = 1.0) -> Look:
    """Draw a textured look laid along the faces."""
    gain = rng.uniform(0.7, 1.0)
    texture = assets.texture(rng, *kinds)
    return Look(texture, (gain, gain, gain), tile_m * rng.uniform(0.7, 1.6), gloss=0.25 * rng.random())


def table(rng: np.random.Generator, assets: Assets, size: Vector | None = None) -> Model:
    """Build a table of a size (or a drawn one): a top, and four legs or two side boards."""
    width, height, depth = (
        (rng.uniform(0.7, 2.0), rng.uniform(0.4, 0.8), rng.uniform(0.6, 1.0)) if size is None else size
    )
    top = surface(rng, assets, "wood", "wood", "metal", "plaster_wall")
    legs = top if rng.random() < 0.5 else paint(rng)
    thick = rng.uniform(0.02, 0.05)
    parts = [part(BOX, top, (width, thick, depth), (0, height - thick, 0))]
    if rng.random() < 0.75:
        leg = rng.uniform(0.03, 0.08)
        shape = CYLINDER if rng.random() < 0.4 else BOX
        for x in (-width / 2 + leg, width / 2 - leg):
            parts += [
                part(shape, legs, (leg, height - thick, leg), (x, 0, z)) for z in (leg - depth / 2, depth / 2 - leg)
            ]
    else:
        parts += [part(BOX, legs, (0.03, height - thick, 0.9 * depth), (x * width * 0.46, 0, 0)) for x in (-1, 1)]
    return model(parts)


def chair(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a chair, its front towards +z."""
    seat, width, depth = rng.uniform(0.42, 0.5), rng.uniform(0.4, 0.52), rng.uniform(0.4, 0.5)
    cloth = surface(rng, assets, "carpet_fabric", "wood", tile_m=0.5)
    frame = paint(rng)
    parts = [part(BOX, cloth, (width, 0.05, depth), (0, seat - 0.05, 0))]
    parts.append(part(BOX, cloth, (width, rng.uniform(0.3, 0.5), 0.04), (0, seat + 0.08, -depth / 2)))
    for x in (-width / 2 + 0.02, width / 2 - 0.02):
        parts.append(part(BOX, frame, (0.035, seat - 0.05, 0.035), (x, 0, depth / 2 - 0.02)))
        parts.append(part(BOX, frame, (0.035, seat + 0.1, 0.035), (x, 0, -depth / 2 + 0.02)))
    return model(parts)


def sofa(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a sofa or an armchair, its front towards +z."""
    width, depth, seat = rng.uniform(0.8, 2.3), rng.uniform(0.8, 1.0), rng.uniform(0.38, 0.46)
    cloth = surface(rng, assets, "carpet_fabric", tile_m=0.6)
    parts = [
        part(BOX, cloth, (width, seat, depth)),
        part(TAPER, cloth, (width, rng.uniform(0.35, 0.5), 0.25), (0, seat, -depth / 2 + 0.13)),
    ]
    parts += [part(BOX, cloth, (0.18, seat + 0.2, depth), (x * (width / 2 - 0.09), 0, 0.001)) for x in (-1, 1)]
    pillow = surface(rng, assets, "carpet_fabric", tile_m=0.4)
    for x in rng.uniform(-0.35, 0.35, rng.integers(0, 4)) * width:
        parts.append(part(TAPER, pillow, (0.4, 0.38, 0.15), (x, seat, -depth / 2 + 0.3), rng.uniform(-20, 20)))
    return model(parts)


def cabinet(rng: np.random.Generator, assets: Assets, height: float | None = None) -> Model:
    """Build a cupboard or a chest of drawers with fronts and handles."""
    width, depth = rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.6)
    height = height or float(rng.choice([0.5, 0.8, 0.9, 1.2, 2.0]) * rng.uniform(0.9, 1.1))
    body = surface(rng, assets, "wood", "wood", "plaster_wall", "metal")
    front = body if rng.random() < 0.5 else surface(rng, assets, "wood", "plaster_wall")
    columns, rows = max(1, int(width / 0.55)), int(rng.integers(1, 5))
    parts = [part(BOX, body, (width, height, depth))]
    w, h = width / columns, (height - 0.06) / rows
    for i in range(columns):
        for j in range(rows):
            x, y = (i + 0.5) * w - width / 2, 0.05 + j * h
            parts.append(part(BOX, front, (w - 0.015, h - 0.015, 0.02), (x, y, depth / 2)))
            parts.append(part(BOX, HANDLE, (min(0.12, w / 2), 0.015, 0.03), (x, y + 0.75 * h, depth / 2 + 0.015)))
    return model(parts)


def bookcase(rng: np.random.Generator, assets: Assets) -> Model:
    """Build an open shelf filled with rows of books, packages and gaps."""
    width, depth = rng.uniform(0.6, 2.4), rng.uniform(0.25, 0.4)
    rows, step = int(rng.integers(2, 7)), rng.uniform(0.28, 0.4)
    body = surface(rng, assets, "wood", "wood", "plaster_wall", "metal")
    height, board = rows * step + 0.02, 0.022
    columns = max(1, round(width / rng.uniform(0.4, 0.9)))
    parts = [
        part(BOX, body, (board, height, depth), (x, 0, 0)) for x in np.linspace(-width / 2, width / 2, columns + 1)
    ]
    parts += [part(BOX, body, (width, board, depth), (0, k * step, 0)) for k in range(rows + 1)]
    if rng.random() < 0.7:
        parts.append(part(BOX, body, (width, height, 0.01), (0, 0, -depth / 2 + 0.005)))
    fullness = rng.uniform(0.2, 0.95)
    for k in range(rows):
        for i in range(columns):
            if rng.random() > fullness:
                continue
            cell = width / columns
            fill, tall = cell * rng.uniform(0.3, 0.92), step * rng.uniform(0.5, 0.85)
            x = (i + 0.5) * cell - width / 2 + (cell * 0.95 - fill) / 2 * rng.choice([-1, 1])
            look = Look(assets.texture(rng, "spines", "spines", "label"), repeat=1.0)
            parts.append(part(BOX, look, (fill, tall, depth * rng.uniform(0.5, 0.85)), (x, k * step + board, 0)))
    return model(parts)


def lamp(rng: np.random.Generator) -> Model:
    """Build a standing lamp with a lit shade."""
    height = rng.uniform(0.35, 1.7)
    metal = paint(rng, 0.8)
    shade = Look(None, (1.0, 0.93, 0.8), glow=0.5)
    r = rng.uniform(0.2, 0.4) * min(1, height)
    parts = [part(CYLINDER, metal, (0.6 * r, 0.02, 0.6 * r)), part(CYLINDER, metal, (0.02, height, 0.02))]
    return model([*parts, part(SHADE, shade, (r, 0.6 * r, r), (0, height - 0.3 * r, 0))])


def plant(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a plant in a pot."""
    height = rng.uniform(0.25, 1.5)
    pot = rng.uniform(0.25, 0.4) * height
    leaves = Look(assets.texture(rng, "foliage"), (0.8, 0.9, 0.7))
    parts = [part(CYLINDER, paint(rng), (pot, 0.8 * pot, pot))]
    return model([*parts, part(CROSS, leaves, (0.8 * height, height - 0.6 * pot, 0.8 * height), (0, 0.6 * pot, 0))])
