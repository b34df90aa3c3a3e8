"""Open land: hills and mountains with water and woods, and drives along a track from the assets."""

import numpy as np

from training.scenes import meshes
from training.scenes import outdoor_objects as figures
from training.scenes.assets import Assets
from training.scenes.light import outdoor_light
from training.scenes.models import PLANE
from training.scenes.street import make_street
from training.scenes.types import CANDIDATES, Camera, Look, Scene, field_of_view, place, triple


def terrain(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw grid lines, fine at the middle and coarse far out, and heights: gentle near by, mountains far off."""
    lines = np.linspace(-1, 1, 150)
    lines = np.sign(lines) * (np.abs(lines) * 60 + np.abs(lines) ** 3 * 2400)
    x, z = np.meshgrid(lines, lines)
    radius = np.hypot(x, z)
    heights = np.zeros_like(x)
    near, far = rng.uniform(0.2, 1.5), rng.choice([rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.35)])
    bend = 40 * np.sin(x / 210 + 1.3 * np.sin(z / 330)), 40 * np.sin(z / 190 + 1.1 * np.sin(x / 270))
    for wave_m in (9.0, 25.0, 70.0, 200.0, 500.0, 1200.0):
        share = wave_m * (0.012 * near if wave_m < 100 else 0.05 * near * np.clip(radius / wave_m, 0, 1))
        share = share + wave_m * far * np.clip((radius - 250) / 1500, 0, 1) * (wave_m > 100) * (
            0.6 if wave_m > 600 else 0.4
        )
        for _ in range(3):
            fx, fz = rng.normal(0, 2 * np.pi / wave_m, 2)
            wave = np.sin(fx * (x + bend[0]) + fz * (z + bend[1]) + rng.uniform(0, 6.3))
            heights += share * (1 - 2 * np.abs(wave) if wave_m > 150 else wave) / 2
    return lines, heights


def make_landscape(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build hills, mountains, water, trees and rocks under a wide sky."""
    lines, heights = terrain(rng)
    middle = len(lines) // 2
    heights -= heights[middle, middle]
    scene = Scene("landscape", outdoor_light(rng, (0.0, 0.0, 0.0), 45.0, rng.uniform(700, 6000)))
    land = meshes.height_field(lines, lines, heights, tile_m=1.0)
    cover(rng, assets, scene, land)
    if rng.random() < 0.4:
        level = rng.uniform(-6, -0.8)
        water = Look(assets.texture(rng, "water"), (0.9, 0.95, 1.0), 40.0, gloss=0.8)
        scene.add_mesh(PLANE, water, place((0, level, 0), (5000, 1, 5000)), "water", False)

    def height(x: float, z: float) -> float:
        i, j = np.searchsorted(lines, [z, x]) - 1
        u, v = (z - lines[i]) / (lines[i + 1] - lines[i]), (x - lines[j]) / (lines[j + 1] - lines[j])
        low, high = heights[i, j : j + 2], heights[i + 1, j : j + 2]
        return float((1 - u) * ((1 - v) * low[0] + v * low[1]) + u * ((1 - v) * high[0] + v * high[1]))

    kinds = [figures.any_tree(rng, assets) for _ in range(5)]
    wood = rng.uniform(0, 6.3, 2)
    for _ in range(int(rng.choice([10, 60, 160]))):
        x, z = rng.normal(0, 1, 2) * rng.choice([15, 50, 150])
        if abs(np.hypot(x, z)) > 4 and np.sin(x / 30 + wood[0]) + np.sin(z / 30 + wood[1]) > -0.6:
            thing = kinds[rng.integers(len(kinds))]
            if scene.faces() + thing.faces < 130_000:
                matrix = place((x, height(x, z) - 0.1, z), rng.uniform(0.5, 1.3), rng.uniform(0, 360))
                scene.add(thing, matrix, "plant")
    stone = Look(assets.texture(rng, "rock"), repeat=1.5)
    for _ in range(rng.integers(0, 30)):
        x, z = rng.normal(0, 1, 2) * rng.choice([6, 20, 60])
        size = rng.uniform(0.15, 1.6) * rng.uniform(0.5, 1.2, 3)
        shape = figures.crowns()[rng.integers(10)]
        scene.add_mesh(shape, stone, place((x, height(x, z) - 0.2 * size[1], z), size, rng.uniform(0, 360)), "ground")
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            thing = assets.model(rng, str(rng.choice(["building", "person", "car", "street"]))) or figures.person(rng)
            x, z = rng.normal(0, 18, 2)
            scene.add(thing, place((x, height(x, z) - 0.05, z), 1, rng.uniform(0, 360)), "building")
    for _ in range(CANDIDATES):
        x, z = rng.normal(0, 12, 2)
        eye = (
            float(x),
            height(x, z) + float(rng.choice([0.6, 1.6, 1.8, 4, 15], p=[0.15, 0.35, 0.25, 0.15, 0.1])),
            float(z),
        )
        turn, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.normal(-4, 7))
        target = (eye[0] + np.cos(turn), eye[1] + float(np.tan(pitch)), eye[2] + np.sin(turn))
        scene.cameras.append(Camera(eye, triple(target), field_of_view(rng), float(rng.normal(0, 2))))
    return scene


def cover(rng: np.random.Generator, assets: Assets, scene: Scene, land: meshes.Mesh) -> None:
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
                look = Look(texture, tint, repeat=1 / metres)
                scene.add_mesh(meshes.keep_faces(land, faces), look, place(), "ground", not distant)


def make_drive(rng: np.random.Generator, assets: Assets) -> Scene:
    """Drive along a track of the assets with other cars; without assets, a street instead."""
    found = assets.track(rng)
    if found is None:
        return make_street(rng, assets)
    track, road = found
    start = int(rng.integers(len(road)))
    here = road[start]
    centre = triple(here)
    scene = Scene("drive", outdoor_light(rng, centre, 45.0, rng.uniform(300, 2000)))
    scene.add(track, place(), "ground")
    around = np.linalg.norm(road - here, axis=1)
    close = road[(around < 60)]
    for _ in range(rng.integers(0, 5)):
        spot = close[rng.integers(len(close))]
        if np.linalg.norm(spot - here) > 5 and scene.faces() < 90_000:
            thing = figures.any_vehicle(rng, assets)
            matrix = place(spot, 1, rng.uniform(0, 360))
            scene.add(thing, matrix, "vehicle")
    eyes = road[around < 25]
    for _ in range(CANDIDATES):
        eye = eyes[rng.integers(len(eyes))]
        away = np.linalg.norm(road - eye, axis=1)
        ahead = road[(away > 8) & (away < 45)]
        aim = ahead[rng.integers(len(ahead))] if len(ahead) else eye + [10, 0, 0]
        up = float(rng.uniform(1.1, 2.2))
        eye = eye + [0, up, 0]
        target = aim + [0, up + rng.normal(-0.3, 1.0), 0]
        scene.cameras.append(Camera(triple(eye), triple(target), field_of_view(rng), float(rng.normal(0, 2))))
    return scene
