"""Furnishes a room: walls with windows, furniture along them and in the middle, things on tables and on walls."""

import numpy as np

from training.scenes import models as furniture
from training.scenes import small
from training.scenes.assets import Assets
from training.scenes.light import indoor_light
from training.scenes.models import BOX, CARD, PLANE, surface
from training.scenes.outdoor_objects import person
from training.scenes.types import Look, Model, Scene, place, triple


class Room:
    """A box room under furnishing: what stands where, so that nothing is put into something else."""

    def __init__(self, rng: np.random.Generator, assets: Assets, width: float, depth: float, height: float):
        self.rng, self.assets = rng, assets
        self.width, self.depth, self.height = width, depth, height
        self.scene = Scene("room", indoor_light(rng, width, depth, height))
        self.taken: list[tuple[float, float, float, float]] = []  # x0, z0, x1, z1 on the floor

    def free(self, x: float, z: float, width: float, depth: float, margin: float = 0.03) -> bool:
        """Say whether a rectangle about (x, z) lies in the room and overlaps nothing."""
        x0, x1, z0, z1 = x - width / 2, x + width / 2, z - depth / 2, z + depth / 2
        half_x, half_z = self.width / 2 + 1e-6, self.depth / 2 + 1e-6
        if x0 < -half_x or x1 > half_x or z0 < -half_z or z1 > half_z:
            return False
        return not any(
            x0 < b + margin and a < x1 + margin and z0 < d + margin and c < z1 + margin for a, c, b, d in self.taken
        )

    def put(self, thing: Model, x: float, z: float, yaw_deg: float, label: str = "furniture") -> bool:
        """Stand a model on the floor if there is room."""
        c, s = abs(np.cos(np.radians(yaw_deg))), abs(np.sin(np.radians(yaw_deg)))
        width, depth = c * thing.size[0] + s * thing.size[2], s * thing.size[0] + c * thing.size[2]
        if thing.size[1] > self.height or not self.free(x, z, width, depth):
            return False
        self.taken.append((x - width / 2, z - depth / 2, x + width / 2, z + depth / 2))
        self.scene.add(thing, place((x, 0, z), 1, yaw_deg), label)
        return True

    def on_wall(self, side: int, along: float, out: float) -> tuple[float, float, float]:
        """Wall 0..3, place along it in [-1, 1], distance from it -> x, z and the yaw that faces the room."""
        reach = (self.width if side % 2 == 0 else self.depth) / 2
        x, z = ((along * reach, out - self.depth / 2), (self.width / 2 - out, along * reach))[side % 2]
        return (x, z, 0.0 if side == 0 else -90.0) if side < 2 else (-x, -z, 180.0 if side == 2 else 90.0)

    def shell(self) -> None:
        """Build floor, ceiling, four walls (some with a window to the outside), skirting."""
        rng, assets, scene = self.rng, self.assets, self.scene
        floor = surface(rng, assets, "wood", "carpet_fabric", "tile", "floor", "carpet_fabric", tile_m=1.4)
        scene.add_mesh(PLANE, floor, place(scale=(self.width, 1, self.depth)), "ground", False)
        ceiling = Look(None, (0.93, 0.93, 0.91)) if rng.random() < 0.8 else surface(rng, assets, "plaster_wall", "wood")
        scene.add_mesh(PLANE, ceiling, place((0, self.height, 0), (self.width, 1, self.depth)), "ceiling", False)
        wall = surface(rng, assets, "plaster_wall", tile_m=2.2)
        if rng.random() < 0.55:
            wall = Look(None, triple(np.clip(rng.uniform(0.6, 0.97) + rng.normal(0, 0.03, 3), 0.2, 1)))
        accent = (
            surface(rng, assets, "plaster_wall", "brick", "wood", "tile", tile_m=2.0) if rng.random() < 0.4 else wall
        )
        windows = set(rng.permutation(4)[: rng.choice(3, p=[0.5, 0.35, 0.15])].tolist())
        for side in range(4):
            self.wall(side, accent if side == 0 else wall, side in windows)

    def wall(self, side: int, look: Look, window: bool) -> None:
        """Build one wall of boxes about an opening, with a frame and the street far outside."""
        rng, scene = self.rng, self.scene
        length = self.width if side % 2 == 0 else self.depth
        x, z, yaw = self.on_wall(side, 0, -0.05)
        base = place((x, 0, z), 1, yaw)

        def box(
            left: float,
            right: float,
            low: float,
            high: float,
            look: Look = look,
            thick: float = 0.1,
            out=0.0,
            label="wall",
        ):
            matrix = base @ place(((left + right) / 2, low, out), (right - left, high - low, thick))
            scene.add_mesh(BOX, look, matrix, label, False)

        half = length / 2 + 0.1
        if not window:
            box(-half, half, 0, self.height)
        else:
            low, high = rng.uniform(0.3, 1.0), rng.uniform(1.9, 2.25)
            width = rng.uniform(0.35, 0.8) * min(length, 3.5)
            middle = rng.uniform(-0.5, 0.5) * (length - width) * 0.9
            left, right = middle - width / 2, middle + width / 2
            box(-half, left, 0, self.height)
            box(right, half, 0, self.height)
            box(left, right, 0, low)
            box(left, right, high, self.height)
            frame = Look(None, (0.92, 0.92, 0.9) if rng.random() < 0.7 else (0.35, 0.25, 0.17))
            for a in np.linspace(left, right, int(rng.integers(2, 5))):
                box(a - 0.03, a + 0.03, low, high, frame, 0.06, label="opening")
            for b in (low, high):
                box(left, right, b - 0.03, b + 0.03, frame, 0.14, label="opening")
            if rng.random() < 0.5:  # a curtain, or glass too bright to see through
                pane = Look(self.assets.texture(rng, "carpet_fabric", "plaster_wall"), glow=rng.uniform(0.3, 1))
                scene.add_mesh(CARD, pane, base @ place((middle, low, 0), (width, high - low, 1)), "opening", False)
                return
            outside = place((x, -rng.uniform(0, 8), z), 1, yaw) @ place((0, 0, -30), (60, 1, 58))
            scene.add_mesh(PLANE, surface(rng, self.assets, "grass", "road", tile_m=3), outside, "ground", False)
            for _ in range(rng.integers(0, 3)):
                view = surface(rng, self.assets, "window_facade", "brick", tile_m=6)
                block = base @ place(
                    (rng.uniform(-20, 20), -8, -rng.uniform(12, 40)), rng.uniform([6, 10, 6], [20, 25, 10])
                )
                scene.add_mesh(BOX, view, block, "building", False)
        if rng.random() < 0.6:
            box(-length / 2, length / 2, 0, 0.08, Look(None, (0.85, 0.85, 0.83)), 0.03, 0.06)

    def line_walls(self, budget_faces: int) -> None:
        """Stand furniture along the walls, with small things on top, and hang pictures above."""
        rng, assets = self.rng, self.assets
        doors = 0
        for side in rng.permutation(4):
            length = self.width if side % 2 == 0 else self.depth
            at = rng.uniform(0, 0.5)
            while at < length - 0.4 and self.scene.faces() < budget_faces:
                door = assets.model(rng, "door") if doors == 0 and rng.random() < 0.3 else None
                flat_top, thing = (False, door) if door else self.wall_piece()
                width, depth = thing.size[0], thing.size[2]
                if width > length - at or depth > min(self.width, self.depth) * 0.4:
                    at += 0.4
                    continue
                out = 0.02 if door else depth / 2 + rng.uniform(0.01, 0.06)
                x, z, yaw = self.on_wall(side, (at + width / 2) * 2 / length - 1, out)
                if door:
                    self.scene.add(door, place((x, 0, z), 1, yaw), "opening")
                    doors += 1
                elif self.put(thing, x, z, yaw) and flat_top and thing.size[1] < 1.4 and rng.random() < 0.8:
                    self.dress(thing, place((x, 0, z), 1, yaw), int(rng.integers(1, 6)))
                at += width + (rng.uniform(0.02, 0.2) if rng.random() < 0.5 else rng.uniform(0.3, 1.4))
            for _ in range(rng.integers(0, 4)):
                self.hang(side)

    def wall_piece(self) -> tuple[bool, Model]:
        """Draw something that stands with its back to a wall, and say whether things can stand on it."""
        rng, assets = self.rng, self.assets
        role = str(rng.choice(["standing", "surface"], p=[0.65, 0.35]))
        found = assets.model(rng, role) if rng.random() < 0.65 else None
        if found is not None:
            return role == "surface", found
        flat_top = rng.random() < 0.65
        made = (
            (furniture.cabinet, furniture.bookcase, furniture.table)
            if flat_top
            else (furniture.sofa, furniture.plant, furniture.chair)
        )
        return flat_top, made[rng.integers(3)](rng, assets)

    def hang(self, side: int) -> None:
        """Hang a picture, a screen or a fitting on a wall."""
        rng = self.rng
        mounted = self.assets.model(rng, "mounted") if rng.random() < 0.35 else None
        if mounted is not None:
            x, z, yaw = self.on_wall(side, rng.uniform(-0.8, 0.8), mounted.size[2] / 2)
            self.scene.add(
                mounted, place((x, min(rng.uniform(1.3, 1.9), self.height - mounted.size[1]), z), 1, yaw), "object"
            )
            return
        width, height = rng.uniform(0.25, 1.1, 2)
        x, z, yaw = self.on_wall(side, rng.uniform(-0.8, 0.8), 0.015)
        base = place((x, rng.uniform(1.2, 1.5), z), 1, yaw)
        dark = rng.uniform(0.05, 0.9)
        self.scene.add_mesh(
            BOX, Look(None, (dark, dark * 0.9, dark * 0.8)), base @ place(scale=(width, height, 0.03)), "object"
        )
        image = Look(self.assets.texture(rng, "painting", "label"))
        inner = place((0, 0.05 * height, 0.017), (0.9 * width, 0.9 * height, 1))
        self.scene.add_mesh(CARD, image, base @ inner, "object")

    def dress(self, support: Model, matrix: np.ndarray, count: int, spread: float = 0.42) -> None:
        """Stand small things on the top of a model, apart from each other."""
        rng, spots = self.rng, []
        for _ in range(count):
            choice = rng.random()
            if choice < 0.1 and support.size[0] > 0.6:
                thing = small.monitor(rng, self.assets)
            elif choice < 0.16:
                thing = furniture.lamp(rng) if rng.random() < 0.5 else furniture.plant(rng, self.assets)
            elif choice < 0.22:
                thing = small.keyboard(rng)
            else:
                thing = small.small_thing(rng, self.assets)
            reach = np.hypot(thing.size[0], thing.size[2]) / 2
            if thing.size[1] > 0.75:
                continue
            for _ in range(6):
                limits = np.maximum(support.size[[0, 2]] * spread - 0.6 * reach, 0.0)
                x, z = rng.uniform(-limits, limits)
                if all(np.hypot(x - a, z - b) > 0.85 * (reach + r) for a, b, r in spots):
                    spots.append((x, z, reach))
                    yaw = rng.normal(0, 25) if rng.random() < 0.6 else rng.uniform(0, 360)
                    self.scene.add(thing, matrix @ place((x, support.size[1], z), 1, yaw), "object")
                    break

    def middle(self) -> None:
        """Stand a group in the middle of the room: a table with chairs, a sofa group, or single pieces."""
        rng, assets = self.rng, self.assets
        x, z = rng.uniform(-0.2, 0.2, 2) * [self.width, self.depth]
        rug = assets.model(rng, "rug") if rng.random() < 0.3 else None
        if rug is not None:
            self.scene.add(rug, place((x, 0.004, z), 1, rng.choice([0, 90])), "ground")
        elif rng.random() < 0.35:
            wide, deep = rng.uniform(1, 3, 2)
            look = surface(rng, assets, "carpet_fabric", tile_m=0.8)
            self.scene.add_mesh(
                BOX, look, place((x, 0, z), (min(wide, self.width), 0.012, min(deep, self.depth))), "ground"
            )
        if rng.random() < 0.75:
            table = (assets.model(rng, "table") if rng.random() < 0.5 else None) or furniture.table(rng, assets)
            yaw = float(rng.choice([0, 90])) + rng.normal(0, 6)
            if self.put(table, x, z, yaw):
                self.dress(table, place((x, 0, z), 1, yaw), int(rng.integers(0, 8)))
                self.seats(table, x, z, yaw)
        for _ in range(rng.integers(1, 6)):
            spot = rng.uniform(-0.4, 0.4, 2) * [self.width, self.depth]
            if rng.random() < 0.25:
                thing, label = small.small_thing(rng, assets), "object"
            elif rng.random() < 0.12:
                thing, label = assets.model(rng, "person") or person(rng), "person"
            else:
                thing, label = assets.model(rng, "standing") or furniture.chair(rng, assets), "furniture"
            self.put(thing, spot[0], spot[1], rng.uniform(0, 360), label)

    def seats(self, table: Model, x: float, z: float, yaw: float) -> None:
        """Set chairs about a table, facing it."""
        rng = self.rng
        seat = (self.assets.model(rng, "chair") if rng.random() < 0.6 else None) or furniture.chair(rng, self.assets)
        for turn in (0, 90, 180, 270):
            if rng.random() < 0.65:
                reach = table.size[2 if turn % 180 == 0 else 0] / 2 + seat.size[2] / 2 + rng.uniform(-0.02, 0.4)
                angle = np.radians(yaw + turn)
                facing = yaw + turn + 180 + rng.normal(0, 15)
                self.put(seat, x + reach * np.sin(angle), z + reach * np.cos(angle), facing)

    def eye(self, low: float, high: float) -> tuple[float, float, float]:
        """Draw a free place for a camera, at a height in [low, high]."""
        rng = self.rng
        for _ in range(30):
            x, z = rng.uniform(-0.48, 0.48, 2) * [self.width, self.depth]
            if self.free(x, z, 0.3, 0.3):
                break
        return (float(x), float(rng.uniform(low, min(high, self.height - 0.2))), float(z))
