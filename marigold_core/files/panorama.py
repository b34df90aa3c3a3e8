"""The files of a panorama: distances as numbers and pictures, and a mesh around the camera."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.files import manifest
from marigold_core.files.formats import colour_sign, ends, npy, png
from marigold_core.geometry import preview, sphere
from marigold_core.images.colormaps import depth_to_rgb, stretch
from marigold_core.pipeline.panorama import Panorama
from marigold_core.settings import ClippedSettings, ColourSettings

NAMES = {
    "npy": "distance.npy",
    "png16": "distance_16bit.png",
    "color": "distance_color.png",
    "glb": "panorama.glb",
    "record": "panorama.json",
}
CONVENTION = "distance from the camera along each ray, the farthest is 1, up to an unknown scale"


def save_panorama(
    panorama: Panorama,
    folder: str | Path,
    *,
    mesh: ClippedSettings | None = None,
    colours: ColourSettings | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write distances, their pictures, the mesh and a record into a folder -> the path of each by name.

    Where the cuts leave no mesh the others are written, and the record says so.

    Raises:
        ExportError: a file exists already, or the disk refuses.
    """
    mesh, colours = mesh or ClippedSettings(), colours or ColourSettings()
    paths = {name: Path(folder) / file for name, file in NAMES.items()}
    storage.refuse_existing(paths.values(), overwrite)
    left_out = dict[str, str]()
    try:
        mesh_file = {"glb": _glb(panorama, mesh)}
    except ExportError as error:
        mesh_file, unwritten = {}, paths.pop("glb")
        left_out[unwritten.name] = str(error)
        storage.remove(unwritten)  # of an earlier run
    nearest = float(panorama.distance.min())
    unit = (panorama.distance - nearest) / ((1 - nearest) or 1.0)
    shown = stretch(unit, colours.range_from, colours.range_to)
    picture = depth_to_rgb(shown, colours.colormap, invert=colours.invert)
    levels = np.rint((1 - unit if colours.invert else unit) * 65535).astype(np.uint16)
    near, far = (nearest + end * (1 - nearest) for end in (colours.range_from, colours.range_to))
    record = {
        "schema_version": 1,
        "convention": CONVENTION,
        "range": {"near": nearest, "far": 1.0},
        "seam": panorama.seam,
        "note": panorama.note,
        "checkpoint": panorama.view.checkpoint,
        "checkpoint_sha256": panorama.view.checkpoint_sha256,
        "settings": panorama.view.settings.model_dump(mode="json"),
        "left_out": left_out,
        "versions": manifest.versions(),
    }
    meaning = {"distance": CONVENTION}
    written = {
        "npy": npy(panorama.distance),
        "png16": png(levels, ends(nearest, 1.0, f"near is {'white' if colours.invert else 'black'}") | meaning),
        "color": png(picture, ends(near, far, colour_sign(colours)) | meaning),
        **mesh_file,
    }
    for name, content in written.items():
        storage.write_bytes(paths[name], content)
    storage.write_json(paths["record"], record)
    return paths


def _glb(panorama: Panorama, settings: ClippedSettings) -> bytes:
    import trimesh
    from trimesh.exchange import gltf

    mesh: Any = sphere.sphere_mesh(panorama.distance, panorama.photo, settings)
    mesh.apply_transform(preview.TO_GLTF)
    scene = trimesh.Scene({"panorama": mesh})
    return cast(Any, gltf).export_glb(scene, include_normals=False, tree_postprocessor=preview.make_unlit)
