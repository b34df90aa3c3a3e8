"""Indoor scenes: furnished rooms, close views of table tops, and heaps of objects in boxes and on floors."""

import numpy as np

from training.scenes import models as furniture
from training.scenes.assets import Assets
from training.scenes.furnish import Room
from training.scenes.models import BOX, paint, part, surface
from training.scenes.small import small_thing
from training.scenes.types import CANDIDATES, Camera, Model, Scene, field_of_view, model, place, triple, tumble


def make_room(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a furnished room seen from within."""
    room = Room(rng, assets, rng.uniform(2.6, 7.5), rng.uniform(2.6, 8.0), rng.uniform(2.3, 3.3))
    room.shell()
    room.line_walls(int(rng.choice([25_000, 60_000])))
    room.middle()
    for _ in range(CANDIDATES):
        eye = room.eye(0.6, 2.0)
        aim = rng.uniform(-0.45, 0.45, 2) * [room.width, room.depth]
        if np.hypot(aim[0] - eye[0], aim[1] - eye[2]) < 0.35 * max(room.width, room.depth):
            aim = -0.9 * np.array([eye[0], eye[2]]) + rng.normal(0, 0.3, 2)
        target = (float(aim[0]), float(np.clip(rng.normal(0.8, 0.4), 0, 2)), float(aim[1]))
        room.scene.cameras.append(Camera(eye, target, field_of_view(rng), float(rng.normal(0, 2.5))))
    return room.scene


def make_table(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a table (or a floor) with things on it, seen from close by."""
    room = Room(rng, assets, rng.uniform(3, 7), rng.uniform(3, 7), rng.uniform(2.4, 3.2))
    room.scene.kind = "table"
    room.shell()
    width, depth = rng.uniform(0.9, 2.2), rng.uniform(0.7, 1.3)
    on_floor = rng.random() < 0.15
    size = np.array([width, 0.0 if on_floor else rng.uniform(0.4, 0.85), depth])
    support = Model((), size, 0) if on_floor else furniture.table(rng, assets, size)
    x, z = rng.uniform(-0.25, 0.25, 2) * [room.width, room.depth]
    yaw = float(rng.uniform(0, 360))
    room.taken.append((x - 0.8, z - 0.8, x + 0.8, z + 0.8))
    matrix = place((x, 0, z), 1, yaw)
    room.scene.add(support, matrix, "furniture")
    room.dress(support, matrix, int(rng.integers(2, 20)), float(rng.choice([0.2, 0.3, 0.45])))
    if not on_floor:
        room.seats(support, x, z, yaw)
    room.line_walls(25_000)
    for _ in range(CANDIDATES):
        tilt, turn = np.radians(rng.uniform(15, 70)), rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.55, 1.7)
        aim = np.array([x, size[1] + 0.05, z]) + rng.normal(0, 0.1, 3) * [width, 0.3, depth]
        away = np.array([np.cos(tilt) * np.cos(turn), np.sin(tilt), np.cos(tilt) * np.sin(turn)])
        eye = aim + distance * away
        if max(abs(eye[0]) - room.width / 2, abs(eye[2]) - room.depth / 2, eye[1] - room.height) > -0.1:
            eye = aim + 0.6 * away
        room.scene.cameras.append(Camera(triple(eye), triple(aim), float(rng.uniform(42, 75)), float(rng.normal(0, 4))))
    return room.scene


def make_objects(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a heap of things in a bin or on a floor, or things that float, seen from above or the side."""
    room = Room(rng, assets, rng.uniform(2.5, 5), rng.uniform(2.5, 5), rng.uniform(2.4, 3.0))
    room.scene.kind = "objects"
    room.shell()
    style = rng.choice(["bin", "heap", "float"], p=[0.5, 0.25, 0.25])
    width, depth, height = rng.uniform([0.4, 0.35, 0.12], [0.85, 0.65, 0.4]) * (1.6 if style == "heap" else 1)
    base = rng.uniform(0, 0.7) if style == "bin" else 0.0
    if style == "bin":
        room.scene.add(open_bin(rng, assets, width, depth, height), place((0, base, 0)), "furniture")
        if base > 0.3:
            shelf = furniture.table(rng, assets, np.array([1.3, base, 0.9]))
            room.scene.add(shelf, place(), "furniture")
    count = int(rng.integers(6, 28))
    for k in range(count):
        thing = small_thing(rng, assets)
        if style != "float" and max(thing.size) > 0.36:
            continue
        reach = np.linalg.norm(thing.size) / 2
        if style == "float":
            spot = np.array([rng.normal(0, 0.5), rng.uniform(0.3, 1.8), rng.normal(0, 0.5)])
            matrix = place(spot) @ tumble(rng) @ place(scale=rng.uniform(1, 4))
        else:
            limits = np.maximum(np.array([width, depth]) / 2 - 0.7 * reach, 0.02)
            x, z = rng.uniform(-limits, limits)
            level = base + 0.02 + (height * 0.8 if style == "bin" else 0.12) * k / count
            lying = tumble(rng) if rng.random() < 0.6 else place(yaw_deg=rng.uniform(0, 360))
            drop = lowest(thing, lying)
            matrix = place((x, level - drop, z)) @ lying
        room.scene.add(thing, matrix, "object")
    room.line_walls(20_000)
    top = base + height if style == "bin" else 0.2 if style == "heap" else 1.0
    for _ in range(CANDIDATES):
        low = 5 if style == "float" else 30
        tilt, turn = np.radians(rng.uniform(low, 88 if style == "bin" else 60)), rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.6, 1.2) if style != "float" else rng.uniform(1.2, 2.2)
        away = np.array([np.cos(tilt) * np.cos(turn), np.sin(tilt), np.cos(tilt) * np.sin(turn)])
        aim = np.array([0, top * 0.8, 0]) + rng.normal(0, 0.06, 3)
        eye = np.clip(aim + distance * away, [-room.width / 2 + 0.1, 0.3, -room.depth / 2 + 0.1], None)
        eye = np.minimum(eye, [room.width / 2 - 0.1, room.height - 0.1, room.depth / 2 - 0.1])
        room.scene.cameras.append(Camera(triple(eye), triple(aim), float(rng.uniform(40, 75)), float(rng.normal(0, 8))))
    return room.scene


def lowest(thing: Model, turned: np.ndarray) -> float:
    """A model and its rotation -> how far its lowest corner lies below its origin (negative)."""
    w, h, d = thing.size
    corners = np.array([(x, y, z) for x in (-w / 2, w / 2) for y in (0, h) for z in (-d / 2, d / 2)])
    return float((corners @ turned[:3, :3].T)[:, 1].min())


def open_bin(rng: np.random.Generator, assets: Assets, width: float, depth: float, height: float) -> Model:
    """Build an open box of five boards."""
    look = paint(rng) if rng.random() < 0.6 else surface(rng, assets, "wood", "metal", "carpet_fabric")
    wall = 0.015
    parts = [part(BOX, look, (width, wall, depth))]
    parts += [part(BOX, look, (wall, height, depth), (x * width / 2, 0, 0)) for x in (-1, 1)]
    parts += [part(BOX, look, (width, height, wall), (0, 0, z * depth / 2)) for z in (-1, 1)]
    return model(parts)
