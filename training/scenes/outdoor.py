"""Outdoor scenes: streets between houses, open land with mountains and woods, drives along a track of the assets."""

import numpy as np

from training.scenes import meshes, models
from training.scenes.assets import Assets
from training.scenes.light import outdoor_light
from training.scenes.models import BOX, PLANE, textured
from training.scenes.types import CANDIDATES, Camera, Material, Scene, field_of_view, place, triple

STREET_M = 160.0


def make_street(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a straight street with houses, parked and moving cars, people, trees and lamps."""
    haze_m = rng.uniform(150, 900)
    scene = Scene("street", outdoor_light(rng, (0.0, 0.0, -12.0), 34.0, haze_m))
    road, pavement = rng.uniform(5, 14), rng.uniform(1.5, 4.5)
    _lay_ground(rng, assets, scene, road, pavement)
    for side in models.SIDES:
        _build_houses(rng, assets, scene, side, road / 2 + pavement)
        _fill_pavement(rng, assets, scene, side, road, pavement)
    if rng.random() < 0.5:  # the street ends at a cross street
        view = textured(rng, assets, "window_facade", tile_m=6)
        scene.add_mesh(BOX, view, place((0, 0, -rng.uniform(50, 110)), (70, rng.uniform(6, 20), 8)), "building")
    for _ in range(rng.integers(0, 6)):
        thing = models.any_vehicle(rng, assets)
        lane = rng.choice([-0.25, 0.25]) * road
        yaw = models.yaw_along(thing, 0 if lane < 0 else 180)
        scene.add(thing, place((lane, 0, -rng.uniform(5, 70)), 1, yaw), "vehicle")
    for _ in range(CANDIDATES):
        x = rng.uniform(-0.5, 0.5) * road + rng.choice([-1, 0, 0, 1]) * pavement * 0.6
        up = rng.choice([1.2, 1.5, 1.7, 2.2, 5.0], p=[0.15, 0.35, 0.3, 0.15, 0.05])
        eye = triple((x, up, rng.uniform(-6, 4)))
        turn = np.radians(rng.normal(0, 10) if rng.random() < 0.6 else rng.uniform(-75, 75))
        target = (eye[0] + 20 * np.sin(turn), eye[1] + rng.normal(-0.6, 1.6), eye[2] - 20 * np.cos(turn))
        scene.cameras.append(Camera(eye, triple(target), field_of_view(rng), float(rng.normal(0, 1.5))))
    return scene


def _lay_ground(rng: np.random.Generator, assets: Assets, scene: Scene, road: float, pavement: float) -> None:
    """Lay road, kerbs, pavements, lane marks and the land beside."""
    tar = textured(rng, assets, "road", tile_m=4)
    centre = -STREET_M / 2 + 15
    land = textured(rng, assets, "grass", "ground", tile_m=5)
    scene.add_mesh(PLANE, land, place((0, -0.05, centre), (900, 1, 900)), "ground")
    scene.add_mesh(PLANE, tar, place((0, 0, centre), (road, 1, STREET_M)), "ground")
    flags = textured(rng, assets, "tile", "plaster_wall", "road", tile_m=2)
    kerb, white = Material(None, (0.6, 0.6, 0.58)), Material(None, (0.9, 0.9, 0.86))
    for side in models.SIDES:
        edge = side * road / 2
        spot = (edge + side * pavement / 2, -0.1, centre)
        scene.add_mesh(BOX, flags, place(spot, (pavement, 0.22, STREET_M)), "ground")
        scene.add_mesh(BOX, kerb, place((edge, -0.1, centre), (0.15, 0.225, STREET_M)), "ground")
    if rng.random() < 0.8:
        dash, gap = (3, 4.5) if rng.random() < 0.7 else (STREET_M, STREET_M)
        for z in np.arange(10, -STREET_M, -(dash + gap)):
            scene.add_mesh(PLANE, white, place((0, 0.008, z - dash / 2), (0.14, 1, dash)), "ground", False)
    if rng.random() < 0.3:
        z = -rng.uniform(6, 25)
        for x in np.arange(-road / 2 + 0.5, road / 2 - 0.3, 1.0):
            scene.add_mesh(PLANE, white, place((x, 0.01, z), (0.5, 1, 3.2)), "ground", False)


def _build_houses(rng: np.random.Generator, assets: Assets, scene: Scene, side: int, line: float) -> None:
    """Build one side of the street: houses, gaps with trees, fences and hedges."""
    z, open_land = 12.0, rng.random() < 0.25
    while z > -130 and scene.faces() < 60_000:
        width = rng.uniform(6, 22)
        front = line + (0.0 if rng.random() < 0.6 else rng.uniform(1, 8))
        found = assets.model_sometimes(rng, "building", 0.3)
        if open_land and rng.random() < 0.7 or rng.random() < 0.15:
            for _ in range(rng.integers(1, 5)):
                spot = (side * (line + rng.uniform(1.5, 15)), 0, z - rng.uniform(0, width))
                scene.add(models.any_tree(rng, assets), place(spot, 1, rng.uniform(0, 360)), "plant")
            hedge = textured(rng, assets, "grass", "brick", "wood", tile_m=1)
            size = (0.5, rng.uniform(0.5, 2), width)
            scene.add_mesh(BOX, hedge, place((side * (line + 0.4), 0, z - width / 2), size), "building")
        elif found is not None:
            width = found.size[0]
            spot = (side * (front + found.size[2] / 2), 0, z - width / 2)
            scene.add(found, place(spot, 1, -90.0 * side), "building")
        else:
            size = rng.uniform(4, 22), rng.uniform(7, 14)  # height, depth
            wall = textured(rng, assets, "window_facade", "window_facade", "brick", tile_m=6)
            _build_house(rng, assets, scene, side, front, z, (size[1], size[0], width), wall)
        z -= width + (0 if rng.random() < 0.5 else rng.uniform(0.5, 6))


def _build_house(
    rng: np.random.Generator,
    assets: Assets,
    scene: Scene,
    side: int,
    front: float,
    z: float,
    size: tuple[float, float, float],
    wall: Material,
) -> None:
    """Build a box of a size with windows that stand out of its wall, and a roof or a cornice."""
    deep, height, width = size
    x, middle = side * (front + deep / 2), z - width / 2
    scene.add_mesh(BOX, wall, place((x, 0, middle), size), "building")
    glass, frame = Material(None, (0.16, 0.19, 0.23), gloss=0.8), Material(None, triple(rng.uniform(0.5, 0.95, 3)))
    storey, step = rng.uniform(2.8, 3.6), rng.uniform(2.0, 3.5)
    wide, tall = rng.uniform(0.9, 1.5), rng.uniform(1.2, 2.0)
    if rng.random() < 0.6:
        for y in np.arange(1.0, min(height, 14) - tall, storey):
            for along in np.arange(step / 2, width - wide, step):
                at = z - along - wide / 2
                scene.add_mesh(BOX, frame, place((side * front, y, at), (0.16, tall, wide)), "opening")
                pane = place((side * (front - 0.03), y + 0.08, at), (0.16, tall - 0.16, wide - 0.2))
                scene.add_mesh(BOX, glass, pane, "opening")
    tiles = textured(rng, assets, "roof", "roof", "metal", tile_m=2)
    spot = (x, height, middle)
    if rng.random() < 0.5:
        ridge = place(spot, (deep + 0.6, rng.uniform(2, 4), width + 0.4))
        scene.add_mesh(meshes.frustum(0.02, 1.0), tiles, ridge, "building")
    else:
        scene.add_mesh(BOX, frame, place(spot, (deep + 0.4, 0.4, width + 0.1)), "building")


def _fill_pavement(
    rng: np.random.Generator, assets: Assets, scene: Scene, side: int, road: float, pavement: float
) -> None:
    """Park cars at the kerb; set lamps, trees, street furniture and people on the pavement."""
    heading = 0.0 if side < 0 else 180.0
    if rng.random() < 0.7:
        z = rng.uniform(2, 8)
        while z > -70 and scene.faces() < 80_000:
            thing = models.any_vehicle(rng, assets)
            wide = min(thing.size[0], thing.size[2])
            if rng.random() < rng.uniform(0.3, 0.9) and max(thing.size) < 8:
                at = (side * (road / 2 - wide / 2 - 0.2), 0, z - max(thing.size) / 2)
                scene.add(thing, place(at, 1, models.yaw_along(thing, heading) + rng.normal(0, 2)), "vehicle")
            z -= max(thing.size[0], thing.size[2]) + rng.uniform(0.6, 6)
    trees, step = rng.random() < 0.5, rng.uniform(7, 18)
    for z in np.arange(rng.uniform(-4, 4), -90, -step):
        leafy = trees and rng.random() < 0.7
        thing = models.tree(rng, assets, rng.uniform(3, 8)) if leafy else models.lamp_post(rng)
        scene.add(thing, place((side * (road / 2 + 0.6), 0.12, z), 1, heading), "plant" if trees else "object")
    for _ in range(rng.integers(0, 8)):
        found = assets.model(rng, "person" if rng.random() < 0.6 else "street")
        label = "object" if found and found.size[1] < 1.4 else "person"
        spot = (side * (road / 2 + rng.uniform(0.5, pavement)), 0.12, -rng.uniform(3, 40))
        scene.add(found or models.person(rng), place(spot, 1, rng.uniform(0, 360)), label)


# ------------------------------------------------------------------------------- open land


def draw_terrain(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw grid lines, fine at the middle and coarse far out, and heights: gentle near by, mountains far off."""
    lines = np.linspace(-1, 1, 150)
    lines = np.sign(lines) * (np.abs(lines) * 60 + np.abs(lines) ** 3 * 2400)
    x, z = np.meshgrid(lines, lines)
    radius = np.hypot(x, z)
    heights = np.zeros_like(x)
    near, far = rng.uniform(0.2, 1.5), rng.choice([rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.35)])
    bend = 40 * np.sin(x / 210 + 1.3 * np.sin(z / 330)), 40 * np.sin(z / 190 + 1.1 * np.sin(x / 270))
    distant = np.clip((radius - 250) / 1500, 0, 1)
    for wave_m in (9.0, 25.0, 70.0, 200.0, 500.0, 1200.0):
        share = wave_m * (0.012 * near if wave_m < 100 else 0.05 * near * np.clip(radius / wave_m, 0, 1))
        share = share + wave_m * far * distant * (wave_m > 100) * (0.6 if wave_m > 600 else 0.4)
        for _ in range(3):
            fx, fz = rng.normal(0, 2 * np.pi / wave_m, 2)
            wave = np.sin(fx * (x + bend[0]) + fz * (z + bend[1]) + rng.uniform(0, 6.3))
            heights += share * (1 - 2 * np.abs(wave) if wave_m > 150 else wave) / 2
    return lines, heights


def make_landscape(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build hills, mountains, water, trees and rocks under a wide sky."""
    lines, heights = draw_terrain(rng)
    middle = len(lines) // 2
    heights -= heights[middle, middle]
    scene = Scene("landscape", outdoor_light(rng, (0.0, 0.0, 0.0), 45.0, rng.uniform(700, 6000)))
    _cover_land(rng, assets, scene, meshes.height_field(lines, lines, heights, tile_m=1.0))
    if rng.random() < 0.4:
        level = rng.uniform(-6, -0.8)
        water = Material(assets.texture(rng, "water"), (0.9, 0.95, 1.0), 40.0, gloss=0.8)
        scene.add_mesh(PLANE, water, place((0, level, 0), (5000, 1, 5000)), "water", False)

    def height(x: float, z: float) -> float:
        i, j = np.searchsorted(lines, [z, x]) - 1
        u, v = (z - lines[i]) / (lines[i + 1] - lines[i]), (x - lines[j]) / (lines[j + 1] - lines[j])
        low, high = heights[i, j : j + 2], heights[i + 1, j : j + 2]
        return float((1 - u) * ((1 - v) * low[0] + v * low[1]) + u * ((1 - v) * high[0] + v * high[1]))

    kinds = [models.any_tree(rng, assets) for _ in range(5)]
    wood = rng.uniform(0, 6.3, 2)
    for _ in range(int(rng.choice([10, 60, 160]))):
        x, z = rng.normal(0, 1, 2) * rng.choice([15, 50, 150])
        if abs(np.hypot(x, z)) > 4 and np.sin(x / 30 + wood[0]) + np.sin(z / 30 + wood[1]) > -0.6:
            thing = kinds[rng.integers(len(kinds))]
            if scene.faces() + thing.faces < 130_000:
                matrix = place((x, height(x, z) - 0.1, z), rng.uniform(0.5, 1.3), rng.uniform(0, 360))
                scene.add(thing, matrix, "plant")
    stone = Material(assets.texture(rng, "rock"), repeat=1.5)
    for _ in range(rng.integers(0, 30)):
        x, z = rng.normal(0, 1, 2) * rng.choice([6, 20, 60])
        size = rng.uniform(0.15, 1.6) * rng.uniform(0.5, 1.2, 3)
        shape = models.lumps()[rng.integers(10)]
        scene.add_mesh(shape, stone, place((x, height(x, z) - 0.2 * size[1], z), size, rng.uniform(0, 360)), "ground")
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            role = str(rng.choice(["building", "person", "car", "street"]))
            thing = assets.model(rng, role) or models.person(rng)
            x, z = rng.normal(0, 18, 2)
            scene.add(thing, place((x, height(x, z) - 0.05, z), 1, rng.uniform(0, 360)), "building")
    for _ in range(CANDIDATES):
        x, z = rng.normal(0, 12, 2)
        y = height(x, z) + float(rng.choice([0.6, 1.6, 1.8, 4, 15], p=[0.15, 0.35, 0.25, 0.15, 0.1]))
        turn, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.normal(-4, 7))
        target = (x + np.cos(turn), y + float(np.tan(pitch)), z + np.sin(turn))
        scene.cameras.append(Camera(triple((x, y, z)), triple(target), field_of_view(rng), float(rng.normal(0, 2))))
    return scene


def _cover_land(rng: np.random.Generator, assets: Assets, scene: Scene, land: meshes.Mesh) -> None:
    """Cover the land by slope and height: grass or soil on the flat, rock where it is steep, snow high up."""
    flat = str(rng.choice(["grass", "grass", "ground", "snow"]))
    centres = land.positions[land.faces].mean(1)
    steep = land.normals[land.faces].mean(1)[:, 1] < rng.uniform(0.8, 0.93)
    high = centres[:, 1] > rng.uniform(80, 400)
    far = np.abs(centres[:, [0, 2]]).max(1) > 90
    tint = triple(rng.uniform(0.7, 1.0, 3))
    for kind, chosen in (("snow", high & ~steep), ("rock", steep), (flat, ~high & ~steep)):
        texture = assets.texture(rng, kind)
        for distant, metres in ((False, rng.uniform(2, 5)), (True, rng.uniform(20, 60))):
            faces = chosen & (far == distant)
            if faces.any():
                ground = Material(texture, tint, repeat=1 / metres)
                scene.add_mesh(meshes.keep_faces(land, faces), ground, place(), "ground", not distant)


def make_drive(rng: np.random.Generator, assets: Assets) -> Scene:
    """Drive along a track of the assets with other cars; without assets, a street instead."""
    found = assets.track(rng)
    if found is None:
        return make_street(rng, assets)
    track, road = found
    here = road[int(rng.integers(len(road)))]
    scene = Scene("drive", outdoor_light(rng, triple(here), 45.0, rng.uniform(300, 2000)))
    scene.add(track, place(), "ground")
    around = np.linalg.norm(road - here, axis=1)
    close, eyes = road[around < 60], road[around < 25]
    for _ in range(rng.integers(0, 5)):
        spot = close[rng.integers(len(close))]
        if np.linalg.norm(spot - here) > 5 and scene.faces() < 90_000:
            thing = models.any_vehicle(rng, assets)
            scene.add(thing, place(spot, 1, rng.uniform(0, 360)), "vehicle")
    for _ in range(CANDIDATES):
        eye = eyes[rng.integers(len(eyes))]
        away = np.linalg.norm(road - eye, axis=1)
        ahead = road[(away > 8) & (away < 45)]
        aim = ahead[rng.integers(len(ahead))] if len(ahead) else eye + [10, 0, 0]
        up = float(rng.uniform(1.1, 2.2))
        target = aim + [0, up + rng.normal(-0.3, 1.0), 0]
        eye = triple(eye + [0, up, 0])
        scene.cameras.append(Camera(eye, triple(target), field_of_view(rng), float(rng.normal(0, 2))))
    return scene
