"""Draws a scene with OpenGL on EGL, on a GPU or in software: colour, exact z, normals, labels, albedo, instances.

A pixel's depth, normal, albedo and instance come from one sample at its centre, its colour is the mean of 2x2. Textures
with holes are cut by ``discard`` in both. Invariant: a view depends on the scene, camera and size, not on earlier ones.
"""

import atexit
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import moderngl
import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.images.colormaps import rgb_to_normals
from training.data.sets.rendered import View
from training.scenes import shaders
from training.scenes.meshes import Mesh
from training.scenes.textures import Texture
from training.scenes.types import Camera, Item, Lighting, Material, Scene, triple

NEAR_M, FAR_M = 0.05, 6000.0
SHADOW_PX = 1024
INSTANCE_FLOATS = 20
OCCLUSION_STRENGTH = 1.5


@lru_cache(maxsize=1)
def rasterizer() -> "Rasterizer":
    """Start the process's one rasterizer, or return it: OpenGL objects freed under another context would harm it.

    Raises: MarigoldError when the machine has no EGL driver.
    """
    atexit.register(rasterizer.cache_clear)  # moderngl cannot free what outlives its own module
    return Rasterizer()


class Rasterizer:
    """Holds the OpenGL context, its programs and what was uploaded; made by ``rasterizer()``.

    Raises: MarigoldError when the machine has no EGL driver.
    """

    def __init__(self) -> None:
        try:
            # moderngl annotates its keyword arguments as one dictionary
            self.context = moderngl.create_context(
                standalone=True,
                require=330,
                backend="egl",  # pyright: ignore[reportArgumentType]
            )
        except Exception as error:  # moderngl raises bare Exception for a missing driver
            raise MarigoldError(
                f"OpenGL on EGL could not be started ({error}); install libegl1 and libgl1-mesa-dri, or a GPU driver."
            ) from error
        self.context.gc_mode = "auto"
        make = self.context.program
        cut = {"": "", "holes": shaders.HOLES}
        self.surface = {k: make(shaders.VERTEX, shaders.SURFACE.replace("CUTOUT", line)) for k, line in cut.items()}
        self.shadow = {k: make(shaders.VERTEX, shaders.SHADOW.replace("CUTOUT", line)) for k, line in cut.items()}
        self.sky = make(shaders.SCREEN, shaders.SKY)
        self.resolve = make(shaders.SCREEN, shaders.RESOLVE)
        self.sky_screen = self.context.vertex_array(self.sky, [])
        self.resolve_screen = self.context.vertex_array(self.resolve, [])
        self.shadow_map = self.context.depth_texture((SHADOW_PX, SHADOW_PX))
        self.shadow_map.compare_func = "<="
        self.shadow_map.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self.shadow_target = self.context.framebuffer(depth_attachment=self.shadow_map)
        self.meshes: WeakKeyDictionary[Mesh, tuple[moderngl.Buffer, moderngl.Buffer]] = WeakKeyDictionary()
        self.textures: WeakKeyDictionary[Texture, moderngl.Texture] = WeakKeyDictionary()
        self.targets: dict[tuple[int, int], Targets] = {}
        self.white = Texture(np.full((1, 1, 4), 255, np.uint8))

    def views(self, scene: Scene, size: tuple[int, int]) -> Iterator[tuple[Camera, View]]:
        """A scene and (width, height) in pixels -> each candidate camera with what it sees, drawn when asked for."""
        batches = self._batches(scene.items)
        shadow_matrix = self._draw_shadows(scene.lighting, batches)
        for camera in scene.cameras:
            yield camera, self._draw(scene.lighting, batches, shadow_matrix, camera, size)

    def _batches(self, items: list[Item]) -> list["Batch"]:
        grouped: dict[tuple[int, int, bool], list[Item]] = defaultdict(list)
        for item in items:
            grouped[id(item.mesh), id(item.material.texture), item.casts_shadow].append(item)
        return [self._batch(group) for group in grouped.values()]

    def _batch(self, group: list[Item]) -> "Batch":
        shape, texture = group[0].mesh, group[0].material.texture or self.white
        rows = np.empty((len(group), INSTANCE_FLOATS), np.float32)
        for row, item in zip(rows, group, strict=True):
            row[:12] = item.matrix[:3].ravel()
            row[12:] = instance_floats(item.material, item.label, item.instance)
        instances = self.context.buffer(rows.tobytes())
        kind = "holes" if texture.has_holes else ""
        drawn, shadow = (self._array(program[kind], shape, instances) for program in (self.surface, self.shadow))
        return Batch(
            drawn, shadow, self._texture(texture), rows[:, [3, 7, 11]], reach(shape, rows), group[0].casts_shadow
        )

    def _array(self, program: moderngl.Program, shape: Mesh, instances: moderngl.Buffer) -> moderngl.VertexArray:
        if shape not in self.meshes:
            vertices = np.hstack([shape.positions, shape.normals, shape.uvs]).astype(np.float32)
            self.meshes[shape] = (self.context.buffer(vertices.tobytes()), self.context.buffer(shape.faces.tobytes()))
        vertices, indices = self.meshes[shape]
        names = ("in_position", "in_normal", "in_uv"), ("in_row0", "in_row1", "in_row2", "in_tint", "in_extra")
        layout = [(vertices, "3f 3f 2f", *names[0]), (instances, "4f 4f 4f 4f 4f/i", *names[1])]
        return self.context.vertex_array(program, layout, indices, skip_errors=True)

    def _texture(self, texture: Texture) -> moderngl.Texture:
        if texture not in self.textures:
            height, width = texture.pixels.shape[:2]
            uploaded = self.context.texture((width, height), 4, np.ascontiguousarray(texture.pixels).tobytes())
            uploaded.build_mipmaps()
            uploaded.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            self.textures[texture] = uploaded
        return self.textures[texture]

    def _draw_shadows(self, lighting: Lighting, batches: list["Batch"]) -> np.ndarray:
        matrix = shadow_matrix(lighting)
        self.shadow_target.use()
        self.shadow_target.clear(depth=1.0)
        self.context.enable_only(moderngl.DEPTH_TEST)
        self.context.polygon_offset = (1.5, 2.0)
        for program in self.shadow.values():
            set_uniforms(program, view_projection=matrix)
        for batch in batches:
            if batch.casts_shadow:
                batch.texture.use(0)
                batch.shadow.render(instances=batch.count)
        self.context.polygon_offset = (0.0, 0.0)
        return matrix

    def _draw(
        self, lighting: Lighting, batches: list["Batch"], shadow: np.ndarray, camera: Camera, size: tuple[int, int]
    ) -> View:
        if size not in self.targets:
            self.targets[size] = Targets(self.context, size)
        targets = self.targets[size]
        targets.samples.use()
        targets.samples.clear(depth=1.0)
        self.context.enable_only(moderngl.DEPTH_TEST)
        rotation, half = camera.rotation(), half_size(camera, size)
        texel_m = 2 * lighting.shadow_radius_m / SHADOW_PX
        for program in self.surface.values():
            set_uniforms(
                program, view_projection=view_projection(camera, size), shadow_matrix=shadow, eye=camera.eye,
                shadow_bias_m=1.5 * texel_m, to_camera=rotation, key=(*lighting.key, float(lighting.key_is_lamp)),
                key_colour=lighting.key_colour, fill=lighting.fill, fill_colour=lighting.fill_colour,
                ambient=lighting.ambient, haze=(*lighting.haze_colour, lighting.haze_per_m), shadow_map=1,
            )  # fmt: skip
        self.shadow_map.use(1)
        for batch in sorted(batches, key=lambda batch: batch.nearness(camera.eye)):  # what is hidden is not shaded
            batch.texture.use(0)
            batch.surface.render(instances=batch.count)
        self.context.depth_func = "<="
        self._texture(lighting.sky or self.white).use(0)
        set_uniforms(self.sky, to_world=rotation.T, half_size=half, gain=lighting.sky_gain)
        self.sky_screen.render(moderngl.TRIANGLES, vertices=3)
        self.context.depth_func = "<"
        self.context.enable_only(moderngl.NOTHING)
        targets.pixels.use()
        for unit, texture in enumerate(targets.textures):
            texture.use(unit)
        set_uniforms(self.resolve, colours=0, depths=1, normals=2, albedos=3, half_size=half)
        set_uniforms(self.resolve, reach_m=0.012 * lighting.shadow_radius_m + 0.15, strength=OCCLUSION_STRENGTH)
        self.resolve_screen.render(moderngl.TRIANGLES, vertices=3)
        return targets.read()


@dataclass(frozen=True, eq=False)
class Batch:
    """Instances of one mesh with one texture."""

    surface: moderngl.VertexArray
    shadow: moderngl.VertexArray
    texture: moderngl.Texture
    places: np.ndarray  # [N, 3] where the instances are
    reach_m: float  # how far the largest of them extends from its place
    casts_shadow: bool

    @property
    def count(self) -> int:
        """Count the instances."""
        return len(self.places)

    def nearness(self, eye: tuple[float, float, float]) -> float:
        """Estimate the order of drawing, in metres: small things close by first, walls and ground last."""
        return float(np.linalg.norm(self.places - eye, axis=1).min()) + self.reach_m


class Targets:
    """Framebuffers of one picture size: 2x2 samples a pixel, and the pixels themselves."""

    def __init__(self, context: moderngl.Context, size: tuple[int, int]):
        self.size = size
        double = (2 * size[0], 2 * size[1])
        self.textures = attachments(context, double)
        self.samples = context.framebuffer(self.textures, context.depth_renderbuffer(double))
        self.pixels = context.framebuffer(attachments(context, size))

    def read(self) -> View:
        """Read the resolved picture back; row 0 is its top, as the projection draws upside down."""
        width, height = self.size
        colour = np.frombuffer(self.pixels.read(components=3, attachment=0, alignment=1), np.uint8)
        depth = np.frombuffer(self.pixels.read(components=1, attachment=1, dtype="f4"), np.float32)
        normal = np.frombuffer(self.pixels.read(components=4, attachment=2), np.uint8).reshape(height, width, 4)
        albedo = np.frombuffer(self.pixels.read(components=4, attachment=3), np.uint8).reshape(height, width, 4)
        depth = depth.reshape(height, width)
        sky = depth == 0
        directions = rgb_to_normals(normal[..., :3]) * np.array([1, -1, -1], np.float32)
        directions[sky] = 0
        return View(
            rgb=colour.reshape(height, width, 3),
            depth_m=np.where(sky, np.inf, depth).astype(np.float32),
            normals=directions,
            labels=np.where(sky, 0, normal[..., 3]).astype(np.uint8),
            albedo=np.where(sky[..., None], 0, albedo[..., :3]).astype(np.uint8),
            instances=np.where(sky, 0, albedo[..., 3]).astype(np.uint8),
        )


def reach(shape: Mesh, rows: np.ndarray) -> float:
    """A mesh and [N, 20] instances of it -> the largest distance of a corner from an instance's place, in metres."""
    span = np.abs(shape.positions).max(0)
    return float(np.linalg.norm(np.abs(rows[:, :12].reshape(-1, 3, 4)[..., :3]) @ span, axis=1).max())


def attachments(context: moderngl.Context, size: tuple[int, int]) -> list[moderngl.Texture]:
    """Make colour, depth, normal and albedo textures of a size in pixels."""
    made = [
        context.texture(size, 4),
        context.texture(size, 1, dtype="f4"),
        *(context.texture(size, 4) for _ in range(2)),
    ]
    for texture in made:
        texture.filter = (moderngl.NEAREST, moderngl.NEAREST)
    return made


def instance_floats(material: Material, label: int, instance: int) -> tuple[float, ...]:
    """A material, a label and an instance -> the eight floats of an instance that the shaders name tint and extra."""
    tiling = material.tile_m if material.tile_m > 0 else -material.repeat
    return (*material.tint, material.glow, tiling, material.gloss, label, instance)


def half_size(camera: Camera, size: tuple[int, int]) -> tuple[float, float]:
    """Camera and picture size -> tangents of half its fields of view, across and down."""
    focal_px = camera.focal_px(*size)
    return size[0] / 2 / focal_px, size[1] / 2 / focal_px


def view_projection(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """[4, 4] world -> clip space with y down (so rows are read back from the top) and w = depth.

    Shifted by a quarter pixel, so that the first of a pixel's 2x2 samples lies on its centre.
    """
    rotation, (half_x, half_y) = camera.rotation(), half_size(camera, size)
    view = np.eye(4)
    view[:3, :3] = rotation
    view[:3, 3] = -rotation @ np.asarray(camera.eye, float)
    span = FAR_M - NEAR_M
    projection = np.array(
        [
            [1 / half_x, 0, -0.5 / size[0], 0],
            [0, 1 / half_y, -0.5 / size[1], 0],
            [0, 0, (FAR_M + NEAR_M) / span, -2 * FAR_M * NEAR_M / span],
            [0, 0, 1, 0],
        ]
    )
    return projection @ view


def shadow_matrix(lighting: Lighting) -> np.ndarray:
    """[4, 4] world -> clip space of the light with shadows: parallel for a sun, 140 degrees downwards for a lamp."""
    radius = lighting.shadow_radius_m
    if lighting.key_is_lamp:
        x, y, z = lighting.key
        return view_projection(Camera(lighting.key, (x, y - 1, z + 1e-3), 140.0), (SHADOW_PX, SHADOW_PX))
    sun = np.asarray(lighting.key, float) / np.linalg.norm(lighting.key)
    centre = np.asarray(lighting.shadow_centre, float)
    rotation = Camera(triple(centre + 4 * radius * sun), triple(centre), 90.0).rotation()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation / radius
    matrix[2, :3] /= 4
    matrix[:3, 3] = -matrix[:3, :3] @ centre
    return matrix


def set_uniforms(program: moderngl.Program, **values: np.ndarray | tuple[float, ...] | float) -> None:
    """Write uniforms, matrices row by row; those that the compiler dropped as unused are left out."""
    for name, value in values.items():
        uniform = program.get(name, None)
        if not isinstance(uniform, moderngl.Uniform):
            continue
        if isinstance(value, np.ndarray):
            matrix = value.ndim == 2 and value.shape[0] == value.shape[1]
            uniform.write(np.ascontiguousarray(value.T if matrix else value, np.float32).tobytes())
        else:
            uniform.value = value
