"""Where scenes get their models and textures: a folder of assets when there is one, drawings and primitives always.

The folder's ``index.json`` is a list of entries with ``path``, ``kind``, ``extents_m``, ``faces`` and, for textures,
``cls`` and ``tileable``. Assets are chosen by the generator passed in, so a scene depends on its seed and the folder
alone, not on what was loaded before.
"""

import io
import json
import re
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from training.scenes import textures
from training.scenes.meshes import mesh
from training.scenes.textures import Texture
from training.scenes.types import Material, Model, Part, model, triple

TEXTURE_PX = 256  # more is lost in pictures of this size
MODEL_FACES = 9_000
TRACK_FACES = 42_000
DRAWN_VARIANTS = 16  # of each kind of procedural texture
SHARE_DRAWN = 0.2  # of textures, where photographed ones exist

CAR = re.compile(
    r"hatchback|suv|pickup|ambulance|prius|peugeot|renault|chevrolet|smart car|^van|^suv|^bus$|city bus", re.I
)
TREE = re.compile(r"tree|palm|oak|pine|bush|fern", re.I)
STREET = re.compile(
    r"lamppost|park light|street light|bench|mailbox|letters box|fire_hydrant|dumpster|stop_sign|telephone_pole|"
    r"postbox|jersey|construction_barrel|streetlamp|postlamp|fountain|stop_light|bus_stop|bicycle|scooter|dustbin",
    re.I,
)
SKIP = re.compile(
    r"elevator|mezzanine|wall|floor|ceiling|column|src_|swimming|tower|_plane|tatami|railing|crossing", re.I
)
SURFACE = re.compile(r"table|desk|cabinet|drawer|chest|stand|dresser|island|counter|buffet|sideboard|washing", re.I)
INDOOR = {"Living room", "Kitchen", "Bedroom", "Bathroom", "Office", "Miscellaneous", "Lights"}
INDOOR_KINDS = {"aws_small_house", "aws_hospital", "aws_bookstore"}


def roles(entry: dict) -> list[str]:
    """One model's entry of the index -> the parts it can play in a scene."""
    name, kind, category = entry["name"], entry["kind"], entry.get("category")
    width, height, depth = entry["extents_m"]
    longest = max(width, height, depth)
    if kind == "vehicle" or (CAR.search(name) and longest > 2.2):
        return ["car"]
    if kind == "building" or (kind == "gazebo" and longest > 6 and height > 3):
        return ["building"] if 3 < height < 40 and longest < 60 else []
    if TREE.search(name) and height > 0.8:
        return ["tree"]
    if STREET.search(name):
        return ["street"]
    if category == "Characters":
        return ["person"] if height > 1.4 and longest < 2 else ["object"] if longest < 0.6 else []
    if entry.get("door_or_window"):
        return ["door"] if height > 1.9 and not entry.get("elevation_cm") and width < 2.2 else []
    if not (category in INDOOR or kind in INDOOR_KINDS or kind == "gazebo") or SKIP.search(name):
        return []
    if entry.get("elevation_cm"):
        return ["mounted"] if float(entry["elevation_cm"]) > 50 and longest < 1.5 else []
    if longest <= 0.5 and height > 0.02 and kind != "gazebo":
        return ["object"]
    if height < 0.06 and longest > 0.6:
        return ["rug"]
    if kind == "gazebo" or not 0.3 < height < 2.5 or longest >= 2.6 or min(width, depth) <= 0.15:
        return []
    also = {
        "surface": SURFACE.search(name) and height < 1.1,
        "chair": re.search("chair|stool|puff|armchair", name, re.I),
        "table": re.search("table|desk", name, re.I) and 0.35 < height < 0.95 and longest > 0.7,
    }
    return ["standing", *(role for role, fits in also.items() if fits)]


def load_model(path: Path, entry: dict) -> Model:
    """A GLB file -> its parts with textures of at most ``TEXTURE_PX``; parts of clear glass are left out."""
    scene = trimesh.load_scene(path, process=False)
    parts = []
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        material = getattr(geometry.visual, "material", None)
        factor = np.array([200, 200, 200, 255]) if material is None else np.asarray(material.main_color)
        image = getattr(material, "baseColorTexture", None)
        uv = getattr(geometry.visual, "uv", None)
        if len(geometry.faces) == 0 or (image is None and factor[3] < 128):
            continue
        positions = trimesh.transform_points(geometry.vertices, matrix)
        normals = geometry.vertex_normals @ np.linalg.inv(matrix[:3, :3])
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        if image is not None and uv is not None:
            material = Material(picture(image), triple(np.maximum(factor[:3] / 255, 0.2)))
            uv = uv * [1, -1] + [0, 1]  # glTF loaders turn v upside down; the renderer's v = 0 is the first row
        else:
            material = Material(None, triple(factor[:3] / 255 * 0.9 + 0.03))
            uv = laid_along(positions, normals)
        parts.append(Part(mesh(positions, normals, uv, geometry.faces), material))
    made = model(parts)
    return Model(made.parts, np.asarray(entry["extents_m"], float), made.faces)


def laid_along(positions: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """[V, 3] positions and normals -> [V, 2] uv in metres, along the axis that each normal is nearest to."""
    axis = np.abs(normals).argmax(1)
    pairs = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    return np.take_along_axis(positions, pairs, axis=1)


def picture(image: Image.Image) -> Texture:
    """An image -> a texture of at most ``TEXTURE_PX`` a side."""
    image = image.convert("RGBA")
    if max(image.size) > TEXTURE_PX:
        image = image.resize((min(image.width, TEXTURE_PX), min(image.height, TEXTURE_PX)), Image.Resampling.BOX)
    return Texture(np.ascontiguousarray(image))


@cache
def drawn_texture(kind: str, variant: int) -> Texture:
    """Draw one of the procedural textures of a kind, once a process."""
    return textures.draw(kind, np.random.default_rng([list(textures.DRAWINGS).index(kind), variant]))


class Assets:
    """Models by role and textures by kind; loading is lazy and cached.

    With no folder every texture is drawn and ``model`` finds nothing: scenes then use primitives.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.models: dict[str, list[dict]] = {}
        self.pictures: dict[str, list[dict]] = {}
        self.tracks: list[dict] = []
        entries = json.loads((folder / "index.json").read_text()) if folder else []
        for entry in sorted(entries, key=lambda entry: entry["path"]):
            kind = entry["kind"]
            if kind == "texture":
                if entry["tileable"] and entry["alpha"] == (entry["cls"] == "foliage"):
                    self.pictures.setdefault(entry["cls"], []).append(entry)
            elif kind == "outdoor_scene":
                if entry.get("n_road") and entry["faces"] <= TRACK_FACES:
                    self.tracks.append(entry)
            elif kind not in ("hdri", "scene") and entry["faces"] <= MODEL_FACES:
                for role in roles(entry):
                    self.models.setdefault(role, []).append(entry)
        self._load = lru_cache(maxsize=900)(self._load_uncached)
        self._photo = lru_cache(maxsize=800)(self._photo_uncached)

    def _load_uncached(self, path: str) -> Model:
        assert self.folder is not None
        entry = next(e for group in [*self.models.values(), self.tracks] for e in group if e["path"] == path)
        return load_model(self.folder / path, entry)

    def _photo_uncached(self, path: str) -> Texture:
        assert self.folder is not None
        with Image.open(io.BytesIO((self.folder / path).read_bytes())) as image:
            return picture(image)

    def texture(self, rng: np.random.Generator, *kinds: str) -> Texture:
        """Draw a texture of one of the kinds: photographed where the folder has one (mostly), else procedural."""
        kind = kinds[rng.integers(len(kinds))]
        choice, drawn, variant = rng.random(), rng.random() < SHARE_DRAWN, int(rng.integers(DRAWN_VARIANTS))
        photos = self.pictures.get(kind, [])
        if photos and not (drawn and kind in textures.DRAWINGS):
            photo = self._photo(photos[int(choice * len(photos))]["path"])
            if photo.has_holes == (kind == "foliage"):  # some files' alpha is not the outline that their index promises
                return photo
        return drawn_texture(kind, variant)

    def model(self, rng: np.random.Generator, role: str) -> Model | None:
        """Draw a model that can play the role, or None; plain parts take tints or textures of their own."""
        choice, found = rng.random(), self.models.get(role, [])
        if not found:
            return None
        thing = self._load(found[int(choice * len(found))]["path"])
        if any(part.material.texture is None for part in thing.parts) and rng.random() < 0.6:
            return thing.with_materials([self.finish(rng) for _ in range(3)])
        return thing

    def model_sometimes(self, rng: np.random.Generator, role: str, share: float) -> Model | None:
        """Draw a model in a ``share`` of the cases; None in the others, and where there is none."""
        return self.model(rng, role) if rng.random() < share else None

    def finish(self, rng: np.random.Generator) -> Material:
        """Draw a material for a part without a picture: wood, cloth, metal, or a plain colour."""
        if rng.random() < 0.35:
            return Material(None, triple(textures.colour(rng, 0.8, 0.1, 0.95)), gloss=rng.uniform(0, 0.4))
        texture = self.texture(rng, "wood", "wood", "carpet_fabric", "metal", "plaster_wall")
        return Material(
            texture, triple(rng.uniform(0.6, 1.0, 3)), repeat=rng.uniform(0.7, 2.0), gloss=rng.uniform(0, 0.3)
        )

    def track(self, rng: np.random.Generator) -> tuple[Model, np.ndarray] | None:
        """Draw a landscape with a road -> its model and [N, 3] points along the road, or None without assets."""
        if not self.tracks or self.folder is None:
            return None
        entry = self.tracks[rng.integers(len(self.tracks))]
        return self._load(entry["path"]), np.load(self.folder / entry["road_points"]).astype(float)
