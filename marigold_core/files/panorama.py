"""The files of a panorama: distances as numbers and pictures, and a mesh around the camera."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.files import manifest
from marigold_core.files.formats import png
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
    sign = f"near is the {'last' if colours.invert else 'first'} colour of {colours.colormap}"
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
    written = {
        "npy": _npy(panorama.distance),
        "png16": png(levels, _meaning(nearest, 1.0, f"near is {'white' if colours.invert else 'black'}")),
        "color": png(picture, _meaning(near, far, sign)),
        **mesh_file,
        "record": (json.dumps(record, indent=2) + "\n").encode(),
    }
    for name, content in written.items():
        storage.write_bytes(paths[name], content)
    return paths


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _meaning(near: float, far: float, sign: str) -> dict[str, str]:
    """What a picture states about itself: the distances at its two ends, which is which, and their convention."""
    return {"near": f"{near:.9g}", "far": f"{far:.9g}", "sign": sign, "distance": CONVENTION}


def _glb(panorama: Panorama, settings: ClippedSettings) -> bytes:
    import trimesh
    from trimesh.exchange import gltf

    mesh: Any = sphere.sphere_mesh(panorama.distance, panorama.photo, settings)
    mesh.apply_transform(preview.TO_GLTF)

    def finish(tree: dict[str, Any]) -> None:
        for material in tree["materials"]:
            material["extensions"] = {preview.UNLIT: {}}
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), preview.UNLIT]

    scene = trimesh.Scene({"panorama": mesh})
    return cast(Any, gltf).export_glb(scene, include_normals=False, tree_postprocessor=finish)
