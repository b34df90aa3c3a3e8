"""Streets: a straight road between houses, with cars, people, trees and lamps."""

import numpy as np

from training.scenes import meshes
from training.scenes import outdoor_objects as figures
from training.scenes.assets import Assets
from training.scenes.light import outdoor_light
from training.scenes.models import BOX, PLANE, surface
from training.scenes.types import CANDIDATES, Camera, Look, Scene, field_of_view, place, triple

STREET_M = 160.0


def make_street(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a straight street with houses, parked and moving cars, people, trees and lamps."""
    haze_m = rng.uniform(150, 900)
    scene = Scene("street", outdoor_light(rng, (0.0, 0.0, -12.0), 34.0, haze_m))
    road, pavement = rng.uniform(5, 14), rng.uniform(1.5, 4.5)
    ground(rng, assets, scene, road, pavement)
    for side in (-1, 1):
        houses(rng, assets, scene, side, road / 2 + pavement)
        kerbside(rng, assets, scene, side, road, pavement)
    if rng.random() < 0.5:  # the street ends at a cross street
        view = surface(rng, assets, "window_facade", tile_m=6)
        scene.add_mesh(BOX, view, place((0, 0, -rng.uniform(50, 110)), (70, rng.uniform(6, 20), 8)), "building")
    for _ in range(rng.integers(0, 6)):
        thing = figures.any_vehicle(rng, assets)
        lane = rng.choice([-0.25, 0.25]) * road
        heading = 0 if lane < 0 else 180
        scene.add(thing, place((lane, 0, -rng.uniform(5, 70)), 1, figures.along_z(thing, heading)), "vehicle")
    for _ in range(CANDIDATES):
        x = rng.uniform(-0.5, 0.5) * road + rng.choice([-1, 0, 0, 1]) * pavement * 0.6
        eye = (
            float(x),
            float(rng.choice([1.2, 1.5, 1.7, 2.2, 5.0], p=[0.15, 0.35, 0.3, 0.15, 0.05])),
            float(rng.uniform(-6, 4)),
        )
        turn = np.radians(rng.normal(0, 10) if rng.random() < 0.6 else rng.uniform(-75, 75))
        target = (eye[0] + 20 * np.sin(turn), eye[1] + rng.normal(-0.6, 1.6), eye[2] - 20 * np.cos(turn))
        scene.cameras.append(Camera(eye, triple(target), field_of_view(rng), float(rng.normal(0, 1.5))))
    return scene


def ground(rng: np.random.Generator, assets: Assets, scene: Scene, road: float, pavement: float) -> None:
    """Lay road, kerbs, pavements, lane marks and the land beside."""
    tar = surface(rng, assets, "road", tile_m=4)
    centre = -STREET_M / 2 + 15
    scene.add_mesh(
        PLANE, surface(rng, assets, "grass", "ground", tile_m=5), place((0, -0.05, centre), (900, 1, 900)), "ground"
    )
    scene.add_mesh(PLANE, tar, place((0, 0, centre), (road, 1, STREET_M)), "ground")
    flags = surface(rng, assets, "tile", "plaster_wall", "road", tile_m=2)
    kerb = Look(None, (0.6, 0.6, 0.58))
    for side in (-1, 1):
        edge = side * road / 2
        scene.add_mesh(
            BOX, flags, place((edge + side * pavement / 2, -0.1, centre), (pavement, 0.22, STREET_M)), "ground"
        )
        scene.add_mesh(BOX, kerb, place((edge, -0.1, centre), (0.15, 0.225, STREET_M)), "ground")
    paint = Look(None, (0.9, 0.9, 0.86))
    if rng.random() < 0.8:
        dash, gap = (3, 4.5) if rng.random() < 0.7 else (STREET_M, STREET_M)
        for z in np.arange(10, -STREET_M, -(dash + gap)):
            scene.add_mesh(PLANE, paint, place((0, 0.008, z - dash / 2), (0.14, 1, dash)), "ground", False)
    if rng.random() < 0.3:
        z = -rng.uniform(6, 25)
        for x in np.arange(-road / 2 + 0.5, road / 2 - 0.3, 1.0):
            scene.add_mesh(PLANE, paint, place((x, 0.01, z), (0.5, 1, 3.2)), "ground", False)


def houses(rng: np.random.Generator, assets: Assets, scene: Scene, side: int, line: float) -> None:
    """Build one side of the street: houses, gaps with trees, fences and hedges."""
    z, open_land = 12.0, rng.random() < 0.25
    while z > -130 and scene.faces() < 60_000:
        width = rng.uniform(6, 22)
        back = 0.0 if rng.random() < 0.6 else rng.uniform(1, 8)
        found = assets.model(rng, "building") if rng.random() < 0.3 else None
        if open_land and rng.random() < 0.7 or rng.random() < 0.15:
            for _ in range(rng.integers(1, 5)):
                spot = (side * (line + rng.uniform(1.5, 15)), 0, z - rng.uniform(0, width))
                scene.add(figures.any_tree(rng, assets), place(spot, 1, rng.uniform(0, 360)), "plant")
            hedge = surface(rng, assets, "grass", "brick", "wood", tile_m=1)
            scene.add_mesh(
                BOX,
                hedge,
                place((side * (line + 0.4), 0, z - width / 2), (0.5, rng.uniform(0.5, 2), width)),
                "building",
            )
        elif found is not None:
            deep, yaw = found.size[2], -90.0 * side
            width = found.size[0]
            scene.add(found, place((side * (line + back + deep / 2), 0, z - width / 2), 1, yaw), "building")
        else:
            height, deep = rng.uniform(4, 22), rng.uniform(7, 14)
            look = surface(rng, assets, "window_facade", "window_facade", "brick", tile_m=6)
            spot = (side * (line + back + deep / 2), 0, z - width / 2)
            scene.add_mesh(BOX, look, place(spot, (deep, height, width)), "building")
            details(rng, assets, scene, side, line + back, z, width, height, deep)
        z -= width + (0 if rng.random() < 0.5 else rng.uniform(0.5, 6))


def details(
    rng, assets: Assets, scene: Scene, side: int, front: float, z: float, width: float, height: float, deep: float
):
    """Give a house windows that stand out of the wall, a door, a roof or a cornice."""
    glass, frame = Look(None, (0.16, 0.19, 0.23), gloss=0.8), Look(None, triple(rng.uniform(0.5, 0.95, 3)))
    storey, step = rng.uniform(2.8, 3.6), rng.uniform(2.0, 3.5)
    wide, tall = rng.uniform(0.9, 1.5), rng.uniform(1.2, 2.0)
    if rng.random() < 0.6:
        for y in np.arange(1.0, min(height, 14) - tall, storey):
            for along in np.arange(step / 2, width - wide, step):
                at = (side * front, y, z - along - wide / 2)
                scene.add_mesh(BOX, frame, place(at, (0.16, tall, wide)), "opening")
                scene.add_mesh(
                    BOX,
                    glass,
                    place((side * (front - 0.03), y + 0.08, at[2]), (0.16, tall - 0.16, wide - 0.2)),
                    "opening",
                )
    roof = surface(rng, assets, "roof", "roof", "metal", tile_m=2)
    spot = (side * (front + deep / 2), height, z - width / 2)
    if rng.random() < 0.5:
        scene.add_mesh(
            meshes.frustum(0.02, 1.0), roof, place(spot, (deep + 0.6, rng.uniform(2, 4), width + 0.4)), "building"
        )
    else:
        scene.add_mesh(BOX, frame, place(spot, (deep + 0.4, 0.4, width + 0.1)), "building")


def kerbside(rng: np.random.Generator, assets: Assets, scene: Scene, side: int, road: float, pavement: float) -> None:
    """Park cars at the kerb; set lamps, trees, street furniture and people on the pavement."""
    heading = 0 if side < 0 else 180
    if rng.random() < 0.7:
        z = rng.uniform(2, 8)
        while z > -70 and scene.faces() < 80_000:
            thing = figures.any_vehicle(rng, assets)
            if rng.random() < rng.uniform(0.3, 0.9) and max(thing.size) < 8:
                at = (side * (road / 2 - min(thing.size[0], thing.size[2]) / 2 - 0.2), 0, z - max(thing.size) / 2)
                scene.add(thing, place(at, 1, figures.along_z(thing, heading) + rng.normal(0, 2)), "vehicle")
            z -= max(thing.size[0], thing.size[2]) + rng.uniform(0.6, 6)
    trees, step = rng.random() < 0.5, rng.uniform(7, 18)
    for z in np.arange(rng.uniform(-4, 4), -90, -step):
        spot = (side * (road / 2 + 0.6), 0.12, z)
        thing = figures.tree(rng, assets, rng.uniform(3, 8)) if trees and rng.random() < 0.7 else figures.lamp_post(rng)
        yaw = 0.0 if side < 0 else 180.0
        scene.add(thing, place(spot, 1, yaw), "plant" if trees else "object")
    for _ in range(rng.integers(0, 8)):
        found = assets.model(rng, "person") if rng.random() < 0.6 else assets.model(rng, "street")
        label = "object" if found and found.size[1] < 1.4 else "person"
        spot = (side * (road / 2 + rng.uniform(0.5, pavement)), 0.12, -rng.uniform(3, 40))
        scene.add(found or figures.person(rng), place(spot, 1, rng.uniform(0, 360)), label)
