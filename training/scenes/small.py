"""Small things to stand on tables and to heap up: packages, crockery, screens, keyboards."""

from functools import lru_cache

import numpy as np

from training.scenes import meshes
from training.scenes.assets import Assets
from training.scenes.meshes import Mesh
from training.scenes.models import BALL, BOX, CARD, CYLINDER, TAPER, paint, part
from training.scenes.types import Look, Model, Part, model, place

TAPE = meshes.ring(0.6)


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
        shapes["mug"].append(
            meshes.lathe([(1e-3, 0), (low, 0), (high, 1), (high - 0.04, 1), (low - 0.04, 0.08), (1e-3, 0.08)], 18)
        )
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
    look = Look(assets.texture(rng, "label", "plaster_wall"), gloss=0.5) if rng.random() < 0.5 else paint(rng, 0.8)
    parts = [part(shapes[rng.integers(len(shapes))], look, (height, height, height))]
    if kind == "mug":
        handle = meshes.ring(0.75, 12)
        upright = np.array([[1, 0, 0, 0.42], [0, 0, -1, 0.5], [0, 1, 0, -0.06], [0, 0, 0, 1]])
        parts.append(Part(handle, look, place(scale=height) @ upright @ place(scale=(0.6, 0.12, 0.7))))
    return model(parts)


def package(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw a printed box, carton, can, jar, book, tape roll or ball."""
    kind = str(rng.choice(["box", "box", "box", "can", "can", "book", "roll", "ball", "carton"]))
    look = Look(assets.texture(rng, "label"), gloss=0.3 * rng.random(), repeat=float(rng.choice([1, 1, 2])))
    if kind == "box":
        return model([part(BOX, look, rng.uniform([0.05, 0.06, 0.04], [0.26, 0.28, 0.2]))])
    if kind == "carton":
        width, height = rng.uniform(0.07, 0.1), rng.uniform(0.16, 0.24)
        top = part(meshes.frustum(1.0, 0.05), look, (width, 0.05, width), (0, height, 0))
        return model([part(BOX, look, (width, height, width)), top])
    if kind == "can":
        width, height = rng.uniform(0.05, 0.12), rng.uniform(0.06, 0.2)
        lid = part(CYLINDER, paint(rng, 0.8), (0.96 * width, 0.01, 0.96 * width), (0, height - 0.004, 0))
        return model([part(CYLINDER, look, (width, height, width)), lid])
    if kind == "book":
        width, thick = rng.uniform(0.12, 0.24), rng.uniform(0.01, 0.05)
        pages = part(
            BOX, Look(None, (0.9, 0.88, 0.8)), (0.98 * width, 0.8 * thick, 1.38 * width), (0.02 * width, 0.1 * thick, 0)
        )
        covers = [part(BOX, look, (width, 0.1 * thick, 1.4 * width), (0, y * thick, 0)) for y in (0, 0.9)]
        return model([pages, *covers])
    if kind == "roll":
        return model([part(TAPE, paint(rng), (0.1, rng.uniform(0.02, 0.06), 0.1))])
    width = rng.uniform(0.05, 0.24)
    return model([part(BALL, look if rng.random() < 0.5 else paint(rng, 0.6), (width, width, width))])


def monitor(rng: np.random.Generator, assets: Assets) -> Model:
    """Build a screen on a foot."""
    width = rng.uniform(0.4, 0.65)
    height = width * rng.uniform(0.56, 0.8)
    frame = Look(None, (0.08, 0.08, 0.09) if rng.random() < 0.7 else (0.75, 0.75, 0.76), gloss=0.3)
    screen = Look(assets.texture(rng, "painting", "label"), (0.7, 0.75, 0.8), glow=0.6 * float(rng.random() < 0.6))
    return model(
        [
            part(CYLINDER, frame, (0.4 * width, 0.015, 0.3 * width)),
            part(BOX, frame, (0.06, 0.25, 0.03), (0, 0, -0.03)),
            part(BOX, frame, (width, height, 0.04), (0, 0.12, 0)),
            part(CARD, screen, (0.94 * width, 0.9 * height, 1), (0, 0.12 + 0.05 * height, 0.022)),
        ]
    )


def keyboard(rng: np.random.Generator) -> Model:
    """Build a keyboard with rows of keys."""
    dark = rng.random() < 0.6
    base = Look(None, (0.1, 0.1, 0.1) if dark else (0.7, 0.7, 0.7))
    key = Look(None, (0.17, 0.17, 0.17) if dark else (0.85, 0.85, 0.85))
    parts = [part(BOX, base, (0.44, 0.018, 0.15))]
    for row in range(5):
        parts += [
            part(TAPER, key, (0.022, 0.012, 0.022), (-0.2 + 0.027 * k, 0.016, -0.056 + 0.028 * row)) for k in range(16)
        ]
    return model(parts)


def small_thing(rng: np.random.Generator, assets: Assets) -> Model:
    """Draw something to stand on a table: a package, crockery or a model from the assets."""
    found = assets.model(rng, "object") if rng.random() < 0.4 else None
    if found is not None:
        return found
    return package(rng, assets) if rng.random() < 0.65 else crockery(rng, assets)
