"""Models made of primitives: furniture, small things to stand on tables, and what stands outdoors.

Each function draws one variant from its generator; where there is a folder of assets, the ``any_`` functions choose
between its models and these.
"""

from functools import lru_cache

import numpy as np

from training.scenes import meshes
from training.scenes.assets import Assets
from training.scenes.meshes import Mesh
from training.scenes.textures import colour
from training.scenes.types import Material, Model, Part, Vector, model, place, triple

BOX, PLANE, CARD, CROSS = meshes.frustum(), meshes.plane(), meshes.card(), meshes.card(3)
CYLINDER, BALL, TAPE = meshes.cylinder(), meshes.sphere(), meshes.ring(0.6)
SHADE, CONE = meshes.lathe([(0.5, 0), (0.3, 1)]), meshes.lathe([(0.5, 0), (0.01, 1)])
TAPER, CABIN, CHEST = meshes.frustum(0.8, 0.8), meshes.frustum(0.82, 0.6), meshes.frustum(1.25, 1.0)
HANDLE = Material(None, (0.4, 0.4, 0.42), gloss=0.6)
SIDES = (-1, 1)


def part(
    shape: Mesh, material: Material, size: Vector | float, position: Vector = (0, 0, 0), yaw_deg: float = 0.0
) -> Part:
    """Place a unit shape of a size in metres inside a model."""
    return Part(shape, material, place(position, size, yaw_deg))


def painted(rng: np.random.Generator, gloss: float = 0.2) -> Material:
    """Draw a plain colour."""
    return Material(None, triple(colour(rng, 0.9, 0.08, 0.95)), gloss=gloss * rng.random())


def textured(rng: np.random.Generator, assets: Assets, *kinds: str, tile_m: float = 1.0) -> Material:
    """Draw a textured material laid along the faces."""
    gain = rng.uniform(0.7, 1.0)
    texture = assets.texture(rng, *kinds)
    return Material(texture, (gain, gain, gain), tile_m * rng.uniform(0.7, 1.6), gloss=0.25 * rng.random())


# ------------------------------------------------------------------------------- furniture


def table(rng: np.random.Generator, assets: Assets, size: Vector | None = None) -> Model:
    """Build a table of a size (or a drawn one): a top, and four legs or two side boards."""
    if size is None:
        size = rng.uniform(0.7, 2.0), rng.uniform(0.4, 0.8), rng.uniform(0.6, 1.0)
    width, height, depth = size
    top = textured(rng, assets, "wood", "wood", "metal", "plaster_wall")
    legs = top if rng.random() < 0.5 else painted(rng)
    thick = rng.uniform(0.02, 0.05)
    high = height - thick
    parts = [part(BOX, top, (width, thick, depth), (0, high, 0))]
    if rng.random() < 0.75:
        leg = rng.uniform(0.03, 0.08)
        shape = CYLINDER if rng.random() < 0.4 else BOX
        places = [(x, 0, z) for x in (-width / 2 + leg, width / 2 - leg) for z in (leg - depth / 2, depth / 2 - leg)]
        parts += [part(shape, legs, (leg, high, leg), spot) for spot in places]
    else:
        parts += [part(BOX, legs, (0.03, high, 0.9 * depth), (x * width * 0.46, 0, 0)) for x in SIDES]
    return model(parts)


def chair(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a chair, its front towards +z."""
    seat, width, depth = rng.uniform(0.42, 0.5), rng.uniform(0.4, 0.52), rng.uniform(0.4, 0.5)
    cloth = textured(rng, assets, "carpet_fabric", "wood", tile_m=0.5)
    frame = painted(rng)
    parts = [part(BOX, cloth, (width, 0.05, depth), (0, seat - 0.05, 0))]
    parts.append(part(BOX, cloth, (width, rng.uniform(0.3, 0.5), 0.04), (0, seat + 0.08, -depth / 2)))
    for x in (-width / 2 + 0.02, width / 2 - 0.02):
        parts.append(part(BOX, frame, (0.035, seat - 0.05, 0.035), (x, 0, depth / 2 - 0.02)))
        parts.append(part(BOX, frame, (0.035, seat + 0.1, 0.035), (x, 0, -depth / 2 + 0.02)))
    return model(parts)


def sofa(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a sofa or an armchair, its front towards +z."""
    width, depth, seat = rng.uniform(0.8, 2.3), rng.uniform(0.8, 1.0), rng.uniform(0.38, 0.46)
    cloth = textured(rng, assets, "carpet_fabric", tile_m=0.6)
    parts = [part(BOX, cloth, (width, seat, depth))]
    parts.append(part(TAPER, cloth, (width, rng.uniform(0.35, 0.5), 0.25), (0, seat, -depth / 2 + 0.13)))
    parts += [part(BOX, cloth, (0.18, seat + 0.2, depth), (x * (width / 2 - 0.09), 0, 0.001)) for x in SIDES]
    pillow = textured(rng, assets, "carpet_fabric", tile_m=0.4)
    for x in rng.uniform(-0.35, 0.35, rng.integers(0, 4)) * width:
        parts.append(part(TAPER, pillow, (0.4, 0.38, 0.15), (x, seat, -depth / 2 + 0.3), rng.uniform(-20, 20)))
    return model(parts)


def cabinet(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a cupboard or a chest of drawers with fronts and handles."""
    width, depth = rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.6)
    height = float(rng.choice([0.5, 0.8, 0.9, 1.2, 2.0]) * rng.uniform(0.9, 1.1))
    body = textured(rng, assets, "wood", "wood", "plaster_wall", "metal")
    front = body if rng.random() < 0.5 else textured(rng, assets, "wood", "plaster_wall")
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
    body = textured(rng, assets, "wood", "wood", "plaster_wall", "metal")
    height, board = rows * step + 0.02, 0.022
    columns = max(1, round(width / rng.uniform(0.4, 0.9)))
    uprights = np.linspace(-width / 2, width / 2, columns + 1)
    parts = [part(BOX, body, (board, height, depth), (x, 0, 0)) for x in uprights]
    parts += [part(BOX, body, (width, board, depth), (0, k * step, 0)) for k in range(rows + 1)]
    if rng.random() < 0.7:
        parts.append(part(BOX, body, (width, height, 0.01), (0, 0, -depth / 2 + 0.005)))
    fullness, cell = rng.uniform(0.2, 0.95), width / columns
    for k in range(rows):
        for i in range(columns):
            if rng.random() > fullness:
                continue
            fill, tall = cell * rng.uniform(0.3, 0.92), step * rng.uniform(0.5, 0.85)
            x = (i + 0.5) * cell - width / 2 + (cell * 0.95 - fill) / 2 * rng.choice([-1, 1])
            books = Material(assets.texture(rng, "spines", "spines", "label"))
            parts.append(part(BOX, books, (fill, tall, depth * rng.uniform(0.5, 0.85)), (x, k * step + board, 0)))
    return model(parts)


def lamp(rng: np.random.Generator) -> Model:
    """Build a standing lamp with a lit shade."""
    height = rng.uniform(0.35, 1.7)
    metal = painted(rng, 0.8)
    shade = Material(None, (1.0, 0.93, 0.8), glow=0.5)
    r = rng.uniform(0.2, 0.4) * min(1, height)
    parts = [part(CYLINDER, metal, (0.6 * r, 0.02, 0.6 * r)), part(CYLINDER, metal, (0.02, height, 0.02))]
    return model([*parts, part(SHADE, shade, (r, 0.6 * r, r), (0, height - 0.3 * r, 0))])


def plant(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a plant in a pot."""
    height = rng.uniform(0.25, 1.5)
    pot = rng.uniform(0.25, 0.4) * height
    leaves = Material(assets.texture(rng, "foliage"), (0.8, 0.9, 0.7))
    parts = [part(CYLINDER, painted(rng), (pot, 0.8 * pot, pot))]
    return model([*parts, part(CROSS, leaves, (0.8 * height, height - 0.6 * pot, 0.8 * height), (0, 0.6 * pot, 0))])


def open_bin(rng: np.random.Generator, assets: Assets, width: float, depth: float, height: float) -> Model:
    """Build an open box of five boards."""
    board = painted(rng) if rng.random() < 0.6 else textured(rng, assets, "wood", "metal", "carpet_fabric")
    wall = 0.015
    parts = [part(BOX, board, (width, wall, depth))]
    parts += [part(BOX, board, (wall, height, depth), (x * width / 2, 0, 0)) for x in SIDES]
    return model([*parts, *(part(BOX, board, (width, height, wall), (0, 0, z * depth / 2)) for z in SIDES)])


# ------------------------------------------------------------------------------- small things


@lru_cache(maxsize=1)
def turned_shapes() -> dict[str, list[Mesh]]:
    """Crockery and bottles as turned profiles of unit height, drawn once."""
    rng = np.random.default_rng(7)
    shapes: dict[str, list[Mesh]] = {"bottle": [], "mug": [], "bowl": [], "vase": []}
    for _ in range(6):
        r, neck, shoulder = rng.uniform(0.13, 0.24), rng.uniform(0.04, 0.08), rng.uniform(0.5, 0.75)
        body = [(1e-3, 0), (r, 0.0), (r, shoulder), (neck + 0.3 * (r - neck), shoulder + 0.1), (neck, 0.82)]
        shapes["bottle"].append(meshes.lathe([*body, (neck, 0.9), (1.3 * neck, 0.9), (1.3 * neck, 1), (1e-3, 1)], 18))
        low, high = rng.uniform(0.3, 0.45), rng.uniform(0.38, 0.5)
        inside = [(high - 0.04, 1), (low - 0.04, 0.08), (1e-3, 0.08)]
        shapes["mug"].append(meshes.lathe([(1e-3, 0), (low, 0), (high, 1), *inside], 18))
        curve = [(0.4 + 0.9 * np.sin(a), 1 - np.cos(a)) for a in np.linspace(0, 1.5, 6)]
        inner = [(x - 0.06, y + 0.05) for x, y in curve[::-1]]
        shapes["bowl"].append(meshes.lathe([(1e-3, 0), *curve, *inner, (1e-3, 0.05)], 20))
        wave = [(0.28 + 0.14 * np.sin(5 * t * rng.uniform(0.8, 1.2) + 0.5), t) for t in np.linspace(0, 1, 9)]
        shapes["vase"].append(meshes.lathe([(1e-3, 0), *wave, (0.1, 0.9)], 18))
    return shapes


def crockery(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a bottle, mug, bowl or vase."""
    kind = str(rng.choice(["bottle", "bottle", "mug", "mug", "bowl", "vase"]))
    shapes = turned_shapes()[kind]
    height = {"bottle": 0.26, "mug": 0.1, "bowl": 0.07, "vase": 0.25}[kind] * rng.uniform(0.8, 1.3)
    glazed = rng.random() < 0.5
    clay = Material(assets.texture(rng, "label", "plaster_wall"), gloss=0.5) if glazed else painted(rng, 0.8)
    parts = [part(shapes[rng.integers(len(shapes))], clay, height)]
    if kind == "mug":
        upright = np.array([[1, 0, 0, 0.42], [0, 0, -1, 0.5], [0, 1, 0, -0.06], [0, 0, 0, 1]])
        handle = place(scale=height) @ upright @ place(scale=(0.6, 0.12, 0.7))
        parts.append(Part(meshes.ring(0.75, 12), clay, handle))
    return model(parts)


def package(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a printed box, carton, can, jar, book, tape roll or ball."""
    kind = str(rng.choice(["box", "box", "box", "can", "can", "book", "roll", "ball", "carton"]))
    print_ = Material(assets.texture(rng, "label"), gloss=0.3 * rng.random(), repeat=float(rng.choice([1, 1, 2])))
    if kind == "box":
        return model([part(BOX, print_, rng.uniform([0.05, 0.06, 0.04], [0.26, 0.28, 0.2]))])
    if kind == "carton":
        width, height = rng.uniform(0.07, 0.1), rng.uniform(0.16, 0.24)
        top = part(meshes.frustum(1.0, 0.05), print_, (width, 0.05, width), (0, height, 0))
        return model([part(BOX, print_, (width, height, width)), top])
    if kind == "can":
        width, height = rng.uniform(0.05, 0.12), rng.uniform(0.06, 0.2)
        lid = part(CYLINDER, painted(rng, 0.8), (0.96 * width, 0.01, 0.96 * width), (0, height - 0.004, 0))
        return model([part(CYLINDER, print_, (width, height, width)), lid])
    if kind == "book":
        width, thick = rng.uniform(0.12, 0.24), rng.uniform(0.01, 0.05)
        block, paper = (0.98 * width, 0.8 * thick, 1.38 * width), Material(None, (0.9, 0.88, 0.8))
        covers = [part(BOX, print_, (width, 0.1 * thick, 1.4 * width), (0, y * thick, 0)) for y in (0, 0.9)]
        return model([part(BOX, paper, block, (0.02 * width, 0.1 * thick, 0)), *covers])
    if kind == "roll":
        return model([part(TAPE, painted(rng), (0.1, rng.uniform(0.02, 0.06), 0.1))])
    width = rng.uniform(0.05, 0.24)
    return model([part(BALL, print_ if rng.random() < 0.5 else painted(rng, 0.6), width)])


def monitor(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a screen on a foot."""
    width = rng.uniform(0.4, 0.65)
    height = width * rng.uniform(0.56, 0.8)
    frame = Material(None, (0.08, 0.08, 0.09) if rng.random() < 0.7 else (0.75, 0.75, 0.76), gloss=0.3)
    picture = assets.texture(rng, "painting", "label")
    screen = Material(picture, (0.7, 0.75, 0.8), glow=0.6 * float(rng.random() < 0.6))
    foot = [
        part(CYLINDER, frame, (0.4 * width, 0.015, 0.3 * width)),
        part(BOX, frame, (0.06, 0.25, 0.03), (0, 0, -0.03)),
    ]
    case = part(BOX, frame, (width, height, 0.04), (0, 0.12, 0))
    return model([*foot, case, part(CARD, screen, (0.94 * width, 0.9 * height, 1), (0, 0.12 + 0.05 * height, 0.022))])


def keyboard(rng: np.random.Generator) -> Model:
    """Build a keyboard with rows of keys."""
    dark = rng.random() < 0.6
    base, key = (Material(None, (grey, grey, grey)) for grey in ((0.1, 0.17) if dark else (0.7, 0.85)))
    places = [(-0.2 + 0.027 * k, 0.016, -0.056 + 0.028 * row) for row in range(5) for k in range(16)]
    keys = [part(TAPER, key, (0.022, 0.012, 0.022), spot) for spot in places]
    return model([part(BOX, base, (0.44, 0.018, 0.15)), *keys])


def any_small(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw something to stand on a table: a package, crockery or a model from the assets."""
    found = assets.model_sometimes(rng, "object", 0.4)
    return found or (package(rng, assets) if rng.random() < 0.65 else crockery(rng, assets))


# ------------------------------------------------------------------------------- outdoors


def car(rng: np.random.Generator) -> Model:
    """Build a car of boxes with wheels, its front towards +z."""
    length, width, body = rng.uniform(3.6, 4.8), rng.uniform(1.65, 1.85), rng.uniform(0.55, 0.75)
    coat, glass = painted(rng, 1.0), Material(None, (0.1, 0.12, 0.14), gloss=0.9)
    tyre = Material(None, (0.06, 0.06, 0.06))
    front, rear = Material(None, (0.95, 0.95, 0.85), glow=0.3), Material(None, (0.6, 0.05, 0.05))
    cabin = length * rng.uniform(0.5, 0.65)
    parts = [
        part(BOX, coat, (width, body, length), (0, 0.25, 0)),
        part(CABIN, glass, (0.96 * width, 0.5, cabin), (0, 0.25 + body, -0.05 * length)),
        part(BOX, coat, (0.78 * width, 0.03, 0.58 * cabin), (0, 0.74 + body, -0.05 * length)),
    ]
    sideways = np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for x in SIDES:
        for z in (-0.32, 0.32):
            wheel = place((x * width / 2 - 0.1, 0.32, z * length)) @ sideways @ place(scale=(0.64, 0.2, 0.64))
            parts.append(Part(CYLINDER, tyre, wheel))
        parts.append(part(BOX, front, (0.3, 0.12, 0.02), (x * 0.33 * width, 0.6, length / 2)))
        parts.append(part(BOX, rear, (0.25, 0.14, 0.02), (x * 0.36 * width, 0.65, -length / 2)))
    return model(parts)


@lru_cache(maxsize=1)
def lumps() -> list[Mesh]:
    """Lumpy balls for crowns, bushes and rocks, drawn once."""
    rng = np.random.default_rng(11)
    return [meshes.blob(rng, rng.uniform(0.15, 0.4)) for _ in range(10)]


def tree(rng: np.random.Generator, assets: Assets, height: float | None = None) -> Model:
    """Build a tree: a trunk and crossed pictures of foliage, lumps, or the tiers of a conifer."""
    height = height or rng.uniform(3, 12)
    bark = Material(assets.texture(rng, "wood", "rock"), (0.5, 0.42, 0.36), 0.6)
    parts = [part(CYLINDER, bark, (0.04 * height, 0.55 * height, 0.04 * height))]
    style = rng.random()
    green = Material(assets.texture(rng, "foliage"), triple(rng.uniform(0.6, 1.0, 3)))
    if style < 0.45:
        size, spot = (0.75 * height, 0.8 * height, 0.75 * height), (0, 0.22 * height, 0)
        parts.append(part(CROSS, green, size, spot, rng.uniform(0, 60)))
    elif style < 0.75:
        leafy = Material(assets.texture(rng, "grass"), triple(rng.uniform(0.55, 0.85, 3) * [0.9, 1, 0.7]))
        for _ in range(rng.integers(3, 7)):
            x, y, z = rng.normal(0, 0.13, 3) * height
            size = height * rng.uniform(0.25, 0.5)
            parts.append(part(lumps()[rng.integers(len(lumps()))], leafy, size, (x, 0.45 * height + abs(y), z)))
    else:
        needles = Material(assets.texture(rng, "grass"), triple(rng.uniform(0.35, 0.6, 3) * [0.8, 1, 0.8]), repeat=3)
        for s, y in ((0.42, 0.15), (0.34, 0.35), (0.24, 0.6)):
            parts.append(part(CONE, needles, (s * height, 0.4 * height, s * height), (0, y * height, 0)))
    return model(parts)


def person(rng: np.random.Generator) -> Model:
    """Build a standing or walking figure of rounded parts."""
    height = rng.uniform(1.55, 1.9)
    coat, trousers = painted(rng), painted(rng)
    skin = Material(None, triple(np.array([0.85, 0.65, 0.5]) * rng.uniform(0.45, 1.05)))
    stride = rng.uniform(0, 0.2)
    parts = [part(TAPER, trousers, (0.16, 0.5 * height, 0.18), (x * 0.1, 0, x * stride / 2)) for x in SIDES]
    parts.append(part(CHEST, coat, (0.36, 0.36 * height, 0.22), (0, 0.47 * height, 0)))
    parts += [part(BOX, coat, (0.1, 0.36 * height, 0.12), (x * 0.26, 0.45 * height, 0)) for x in SIDES]
    parts.append(part(BALL, skin, (0.17, 0.23, 0.2), (0, height - 0.23, 0)))
    return model([*parts, part(BALL, painted(rng), (0.19, 0.14, 0.21), (0, height - 0.13, -0.02))])


def lamp_post(rng: np.random.Generator) -> Model:
    """Build a street lamp or a sign on a pole."""
    height, metal = rng.uniform(2.4, 8), Material(None, (0.35, 0.36, 0.37), gloss=0.3)
    parts = [part(CYLINDER, metal, (0.12, height, 0.12))]
    if height > 4.5:
        parts.append(part(BOX, metal, (1.6, 0.08, 0.1), (0.7, height, 0)))
        parts.append(part(BOX, Material(None, (0.8, 0.8, 0.75)), (0.5, 0.12, 0.2), (1.3, height - 0.1, 0)))
    else:
        shape, high = (BOX, 0.6) if rng.random() < 0.5 else (CYLINDER, 0.1)
        parts.append(part(shape, painted(rng), (0.6, high, 0.03), (0, height - 0.6, 0.08)))
    return model(parts)


def any_vehicle(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a car, a van or a bus, from the assets or made of boxes."""
    return assets.model_sometimes(rng, "car", 0.75) or car(rng)


def any_tree(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a tree from the assets or of primitives."""
    return assets.model_sometimes(rng, "tree", 0.35) or tree(rng, assets)


def yaw_along(thing: Model, yaw_deg: float) -> float:
    """A model and a heading -> the yaw that lays its longer side along it."""
    return yaw_deg + (90.0 if thing.size[0] > thing.size[2] else 0.0)
