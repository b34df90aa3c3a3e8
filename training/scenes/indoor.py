"""Indoor scenes: furnished rooms, close views of table tops, and heaps of objects in boxes and on floors."""

import numpy as np

from training.scenes import models
from training.scenes.assets import Assets
from training.scenes.light import indoor_light
from training.scenes.models import BOX, CARD, PLANE, any_small, textured
from training.scenes.types import (
    CANDIDATES,
    Camera,
    Material,
    Model,
    Scene,
    Triple,
    field_of_view,
    orbit,
    place,
    random_rotation,
    triple,
)


class Room:
    """A box room and the floor that its furniture occupies, so that pieces do not overlap."""

    def __init__(self, rng: np.random.Generator, assets: Assets, size: Triple, kind: str = "room"):
        self.rng, self.assets = rng, assets
        self.width, self.depth, self.height = size
        self.floor = np.array([self.width, self.depth])
        self.scene = Scene(kind, indoor_light(rng, self.width, self.depth, self.height))
        self.taken: list[tuple[float, float, float, float]] = []  # x0, z0, x1, z1 on the floor

    def free(self, x: float, z: float, width: float, depth: float, margin: float = 0.03) -> bool:
        """Return whether a rectangle about (x, z) lies in the room and overlaps nothing that stands there."""
        x0, x1, z0, z1 = x - width / 2, x + width / 2, z - depth / 2, z + depth / 2
        half_x, half_z = self.width / 2 + 1e-6, self.depth / 2 + 1e-6
        if x0 < -half_x or x1 > half_x or z0 < -half_z or z1 > half_z:
            return False
        return not any(
            x0 < b + margin and a < x1 + margin and z0 < d + margin and c < z1 + margin for a, c, b, d in self.taken
        )

    def put(self, thing: Model, x: float, z: float, yaw_deg: float, label: str = "furniture") -> bool:
        """Stand a model on the floor if there is space."""
        c, s = abs(np.cos(np.radians(yaw_deg))), abs(np.sin(np.radians(yaw_deg)))
        width, depth = c * thing.size[0] + s * thing.size[2], s * thing.size[0] + c * thing.size[2]
        if thing.size[1] > self.height or not self.free(x, z, width, depth):
            return False
        self.taken.append((x - width / 2, z - depth / 2, x + width / 2, z + depth / 2))
        self.scene.add(thing, place((x, 0, z), 1, yaw_deg), label)
        return True

    def length(self, side: int) -> float:
        """Measure a wall, 0..3."""
        return self.width if side % 2 == 0 else self.depth

    def on_wall(self, side: int, along: float, out: float) -> Triple:
        """Wall 0..3, place along it in [-1, 1], distance from it -> x, z and the yaw that faces the room."""
        reach = self.length(side) / 2
        x, z = ((along * reach, out - self.depth / 2), (self.width / 2 - out, along * reach))[side % 2]
        return (x, z, 0.0 if side == 0 else -90.0) if side < 2 else (-x, -z, 180.0 if side == 2 else 90.0)

    def build_shell(self) -> None:
        """Build floor, ceiling, four walls (some with a window to the outside), skirting."""
        rng, assets, scene = self.rng, self.assets, self.scene
        area = (self.width, 1, self.depth)
        floor = textured(rng, assets, "wood", "carpet_fabric", "tile", "floor", "carpet_fabric", tile_m=1.4)
        scene.add_mesh(PLANE, floor, place(scale=area), "ground", False)
        white = rng.random() < 0.8
        ceiling = Material(None, (0.93, 0.93, 0.91)) if white else textured(rng, assets, "plaster_wall", "wood")
        scene.add_mesh(PLANE, ceiling, place((0, self.height, 0), area), "ceiling", False)
        wall = accent = textured(rng, assets, "plaster_wall", tile_m=2.2)
        if rng.random() < 0.55:
            grey = np.clip(rng.uniform(0.6, 0.97) + rng.normal(0, 0.03, 3), 0.2, 1)
            wall = accent = Material(None, triple(grey))
        if rng.random() < 0.4:
            accent = textured(rng, assets, "plaster_wall", "brick", "wood", "tile", tile_m=2.0)
        windows = set(rng.permutation(4)[: rng.choice(3, p=[0.5, 0.35, 0.15])].tolist())
        for side in range(4):
            self._build_wall(side, accent if side == 0 else wall, side in windows)

    def _build_wall(self, side: int, material: Material, window: bool) -> None:
        """Build one wall of boxes about an opening, with a frame and the street far outside."""
        rng, scene, length = self.rng, self.scene, self.length(side)
        x, z, yaw = self.on_wall(side, 0, -0.05)
        base = place((x, 0, z), 1, yaw)

        def box(left, right, low, high, material=material, thick=0.1, out=0.0, label="wall") -> None:
            matrix = base @ place(((left + right) / 2, low, out), (right - left, high - low, thick))
            scene.add_mesh(BOX, material, matrix, label, False)

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
            frame = Material(None, (0.92, 0.92, 0.9) if rng.random() < 0.7 else (0.35, 0.25, 0.17))
            for a in np.linspace(left, right, int(rng.integers(2, 5))):
                box(a - 0.03, a + 0.03, low, high, frame, 0.06, label="opening")
            for b in (low, high):
                box(left, right, b - 0.03, b + 0.03, frame, 0.14, label="opening")
            if rng.random() < 0.5:  # a curtain, or glass too bright to see through
                pane = Material(self.assets.texture(rng, "carpet_fabric", "plaster_wall"), glow=rng.uniform(0.3, 1))
                scene.add_mesh(CARD, pane, base @ place((middle, low, 0), (width, high - low, 1)), "opening", False)
                return
            outside = place((x, -rng.uniform(0, 8), z), 1, yaw) @ place((0, 0, -30), (60, 1, 58))
            scene.add_mesh(PLANE, textured(rng, self.assets, "grass", "road", tile_m=3), outside, "ground", False)
            for _ in range(rng.integers(0, 3)):
                view = textured(rng, self.assets, "window_facade", "brick", tile_m=6)
                spot = (rng.uniform(-20, 20), -8, -rng.uniform(12, 40))
                block = base @ place(spot, rng.uniform([6, 10, 6], [20, 25, 10]))
                scene.add_mesh(BOX, view, block, "building", False)
        if rng.random() < 0.6:
            box(-length / 2, length / 2, 0, 0.08, Material(None, (0.85, 0.85, 0.83)), 0.03, 0.06)

    def furnish_walls(self, budget_faces: int) -> None:
        """Stand furniture along the walls, with small things on top, and hang pictures above."""
        rng, has_door = self.rng, False
        for side in rng.permutation(4):
            length = self.length(side)
            at = rng.uniform(0, 0.5)
            while at < length - 0.4 and self.scene.faces() < budget_faces:
                door = None if has_door else self.assets.model_sometimes(rng, "door", 0.3)
                flat_top, thing = (False, door) if door else self._wall_piece()
                width, depth = thing.size[0], thing.size[2]
                if width > length - at or depth > min(self.width, self.depth) * 0.4:
                    at += 0.4
                    continue
                out = 0.02 if door else depth / 2 + rng.uniform(0.01, 0.06)
                x, z, yaw = self.on_wall(side, (at + width / 2) * 2 / length - 1, out)
                if door:
                    self.scene.add(door, place((x, 0, z), 1, yaw), "opening")
                    has_door = True
                elif self.put(thing, x, z, yaw) and flat_top and thing.size[1] < 1.4 and rng.random() < 0.8:
                    self.fill_top(thing, place((x, 0, z), 1, yaw), int(rng.integers(1, 6)))
                at += width + (rng.uniform(0.02, 0.2) if rng.random() < 0.5 else rng.uniform(0.3, 1.4))
            for _ in range(rng.integers(0, 4)):
                self._hang(side)

    def _wall_piece(self) -> tuple[bool, Model]:
        """Draw a piece of furniture with its back to a wall -> it, and whether things can stand on it."""
        rng, assets = self.rng, self.assets
        role = str(rng.choice(["standing", "surface"], p=[0.65, 0.35]))
        found = assets.model_sometimes(rng, role, 0.65)
        if found is not None:
            return role == "surface", found
        flat_top = rng.random() < 0.65
        flat, others = (models.cabinet, models.bookcase, models.table), (models.sofa, models.plant, models.chair)
        return flat_top, (flat if flat_top else others)[rng.integers(3)](rng, assets)

    def _hang(self, side: int) -> None:
        """Hang a picture, a screen or a fitting on a wall."""
        rng = self.rng
        mounted = self.assets.model_sometimes(rng, "mounted", 0.35)
        if mounted is not None:
            x, z, yaw = self.on_wall(side, rng.uniform(-0.8, 0.8), mounted.size[2] / 2)
            y = min(rng.uniform(1.3, 1.9), self.height - mounted.size[1])
            self.scene.add(mounted, place((x, y, z), 1, yaw), "object")
            return
        width, height = rng.uniform(0.25, 1.1, 2)
        x, z, yaw = self.on_wall(side, rng.uniform(-0.8, 0.8), 0.015)
        base = place((x, rng.uniform(1.2, 1.5), z), 1, yaw)
        dark = rng.uniform(0.05, 0.9)
        frame = Material(None, (dark, dark * 0.9, dark * 0.8))
        self.scene.add_mesh(BOX, frame, base @ place(scale=(width, height, 0.03)), "object")
        image = Material(self.assets.texture(rng, "painting", "label"))
        inner = place((0, 0.05 * height, 0.017), (0.9 * width, 0.9 * height, 1))
        self.scene.add_mesh(CARD, image, base @ inner, "object")

    def fill_top(self, support: Model, matrix: np.ndarray, count: int, spread: float = 0.42) -> None:
        """Stand small things on the top of a model, apart from each other."""
        rng, assets = self.rng, self.assets
        spots: list[Triple] = []  # x, z and radius of what stands there
        for _ in range(count):
            choice = rng.random()
            if choice < 0.1 and support.size[0] > 0.6:
                thing = models.monitor(rng, assets)
            elif choice < 0.16:
                thing = models.lamp(rng) if rng.random() < 0.5 else models.plant(rng, assets)
            else:
                thing = models.keyboard(rng) if choice < 0.22 else any_small(rng, assets)
            reach = np.hypot(thing.size[0], thing.size[2]) / 2
            if thing.size[1] > 0.75:
                continue
            limits = np.maximum(support.size[[0, 2]] * spread - 0.6 * reach, 0.0)
            for _ in range(6):
                x, z = rng.uniform(-limits, limits)
                if all(np.hypot(x - a, z - b) > 0.85 * (reach + r) for a, b, r in spots):
                    spots.append((x, z, reach))
                    yaw = rng.normal(0, 25) if rng.random() < 0.6 else rng.uniform(0, 360)
                    self.scene.add(thing, matrix @ place((x, support.size[1], z), 1, yaw), "object")
                    break

    def furnish_middle(self) -> None:
        """Stand a group in the middle of the room: a table with chairs, a sofa group, or single pieces."""
        rng, assets = self.rng, self.assets
        x, z = rng.uniform(-0.2, 0.2, 2) * self.floor
        rug = assets.model_sometimes(rng, "rug", 0.3)
        if rug is not None:
            self.scene.add(rug, place((x, 0.004, z), 1, rng.choice([0, 90])), "ground")
        elif rng.random() < 0.35:
            wide, deep = np.minimum(rng.uniform(1, 3, 2), self.floor)
            carpet = textured(rng, assets, "carpet_fabric", tile_m=0.8)
            self.scene.add_mesh(BOX, carpet, place((x, 0, z), (wide, 0.012, deep)), "ground")
        if rng.random() < 0.75:
            table = assets.model_sometimes(rng, "table", 0.5) or models.table(rng, assets)
            yaw = float(rng.choice([0, 90])) + rng.normal(0, 6)
            if self.put(table, x, z, yaw):
                self.fill_top(table, place((x, 0, z), 1, yaw), int(rng.integers(0, 8)))
                self.add_seats(table, x, z, yaw)
        for _ in range(rng.integers(1, 6)):
            x, z = rng.uniform(-0.4, 0.4, 2) * self.floor
            if rng.random() < 0.25:
                thing, label = any_small(rng, assets), "object"
            elif rng.random() < 0.12:
                thing, label = assets.model(rng, "person") or models.person(rng), "person"
            else:
                thing, label = assets.model(rng, "standing") or models.chair(rng, assets), "furniture"
            self.put(thing, x, z, rng.uniform(0, 360), label)

    def add_seats(self, table: Model, x: float, z: float, yaw: float) -> None:
        """Set chairs about a table, facing it."""
        rng = self.rng
        seat = self.assets.model_sometimes(rng, "chair", 0.6) or models.chair(rng, self.assets)
        for turn in (0, 90, 180, 270):
            if rng.random() < 0.65:
                reach = table.size[2 if turn % 180 == 0 else 0] / 2 + seat.size[2] / 2 + rng.uniform(-0.02, 0.4)
                angle = np.radians(yaw + turn)
                facing = yaw + turn + 180 + rng.normal(0, 15)
                self.put(seat, x + reach * np.sin(angle), z + reach * np.cos(angle), facing)

    def free_eye(self, low: float, high: float) -> Triple:
        """Draw a free place for a camera, at a height in [low, high]."""
        rng, x, z = self.rng, 0.0, 0.0
        for _ in range(30):
            x, z = rng.uniform(-0.48, 0.48, 2) * self.floor
            if self.free(x, z, 0.3, 0.3):
                break
        return triple((x, rng.uniform(low, min(high, self.height - 0.2)), z))


def make_room(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a furnished room seen from within."""
    room = Room(rng, assets, (rng.uniform(2.6, 7.5), rng.uniform(2.6, 8.0), rng.uniform(2.3, 3.3)))
    room.build_shell()
    room.furnish_walls(int(rng.choice([25_000, 60_000])))
    room.furnish_middle()
    for _ in range(CANDIDATES):
        eye = room.free_eye(0.6, 2.0)
        x, z = rng.uniform(-0.45, 0.45, 2) * room.floor
        if np.hypot(x - eye[0], z - eye[2]) < 0.35 * max(room.width, room.depth):
            x, z = -0.9 * np.array([eye[0], eye[2]]) + rng.normal(0, 0.3, 2)
        target = triple((x, np.clip(rng.normal(0.8, 0.4), 0, 2), z))
        room.scene.cameras.append(Camera(eye, target, field_of_view(rng), float(rng.normal(0, 2.5))))
    return room.scene


def make_table(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a table (or a floor) with things on it, seen from close by."""
    room = Room(rng, assets, (rng.uniform(3, 7), rng.uniform(3, 7), rng.uniform(2.4, 3.2)), "table")
    room.build_shell()
    width, depth = rng.uniform(0.9, 2.2), rng.uniform(0.7, 1.3)
    on_floor = rng.random() < 0.15
    size = np.array([width, 0.0 if on_floor else rng.uniform(0.4, 0.85), depth])
    support = Model((), size, 0) if on_floor else models.table(rng, assets, size)
    x, z = rng.uniform(-0.25, 0.25, 2) * room.floor
    yaw = float(rng.uniform(0, 360))
    room.taken.append((x - 0.8, z - 0.8, x + 0.8, z + 0.8))
    matrix = place((x, 0, z), 1, yaw)
    room.scene.add(support, matrix, "furniture")
    room.fill_top(support, matrix, int(rng.integers(2, 20)), float(rng.choice([0.2, 0.3, 0.45])))
    if not on_floor:
        room.add_seats(support, x, z, yaw)
    room.furnish_walls(25_000)
    for _ in range(CANDIDATES):
        tilt, turn = rng.uniform(15, 70), rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.55, 1.7)
        aim = np.array([x, size[1] + 0.05, z]) + rng.normal(0, 0.1, 3) * [width, 0.3, depth]
        away = orbit(tilt, turn)
        eye = aim + distance * away
        if max(abs(eye[0]) - room.width / 2, abs(eye[2]) - room.depth / 2, eye[1] - room.height) > -0.1:
            eye = aim + 0.6 * away
        room.scene.cameras.append(Camera(triple(eye), triple(aim), float(rng.uniform(42, 75)), float(rng.normal(0, 4))))
    return room.scene


def make_objects(rng: np.random.Generator, assets: Assets) -> Scene:
    """Build a heap of things in a bin or on a floor, or things that float, seen from above or the side."""
    room = Room(rng, assets, (rng.uniform(2.5, 5), rng.uniform(2.5, 5), rng.uniform(2.4, 3.0)), "objects")
    room.build_shell()
    style = rng.choice(["bin", "heap", "float"], p=[0.5, 0.25, 0.25])
    width, depth, height = rng.uniform([0.4, 0.35, 0.12], [0.85, 0.65, 0.4]) * (1.6 if style == "heap" else 1)
    base = rng.uniform(0, 0.7) if style == "bin" else 0.0
    if style == "bin":
        room.scene.add(models.open_bin(rng, assets, width, depth, height), place((0, base, 0)), "furniture")
        if base > 0.3:
            room.scene.add(models.table(rng, assets, np.array([1.3, base, 0.9])), place(), "furniture")
    count = int(rng.integers(6, 28))
    for k in range(count):
        thing = any_small(rng, assets)
        if style != "float" and max(thing.size) > 0.36:
            continue
        if style == "float":
            spot = np.array([rng.normal(0, 0.5), rng.uniform(0.3, 1.8), rng.normal(0, 0.5)])
            matrix = place(spot) @ random_rotation(rng) @ place(scale=rng.uniform(1, 4))
        else:
            limits = np.maximum(np.array([width, depth]) / 2 - 0.7 * np.linalg.norm(thing.size) / 2, 0.02)
            x, z = rng.uniform(-limits, limits)
            level = base + 0.02 + (height * 0.8 if style == "bin" else 0.12) * k / count
            lying = random_rotation(rng) if rng.random() < 0.6 else place(yaw_deg=rng.uniform(0, 360))
            matrix = place((x, level - lowest(thing, lying), z)) @ lying
        room.scene.add(thing, matrix, "object")
    room.furnish_walls(20_000)
    top = base + height if style == "bin" else 0.2 if style == "heap" else 1.0
    low = np.array([-room.width / 2 + 0.1, 0.3, -room.depth / 2 + 0.1])
    high = np.array([room.width / 2 - 0.1, room.height - 0.1, room.depth / 2 - 0.1])
    for _ in range(CANDIDATES):
        tilt = rng.uniform(5 if style == "float" else 30, 88 if style == "bin" else 60)
        turn = rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(1.2, 2.2) if style == "float" else rng.uniform(0.6, 1.2)
        aim = np.array([0, top * 0.8, 0]) + rng.normal(0, 0.06, 3)
        eye = np.clip(aim + distance * orbit(tilt, turn), low, high)
        room.scene.cameras.append(Camera(triple(eye), triple(aim), float(rng.uniform(40, 75)), float(rng.normal(0, 8))))
    return room.scene


def lowest(thing: Model, turned: np.ndarray) -> float:
    """A model and its rotation -> how far its lowest corner lies below its origin (negative)."""
    w, h, d = thing.size
    corners = np.array([(x, y, z) for x in (-w / 2, w / 2) for y in (0, h) for z in (-d / 2, d / 2)])
    return float((corners @ turned[:3, :3].T)[:, 1].min())
