"""Predictions to files: one short writer a file, in one table; ``save`` writes them atomically.

Every file is made from arrays alone, so no metadata of the photo (place, camera, person) reaches an output. Writers
import their libraries themselves: trimesh alone takes half a second, and a colour picture does not need it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.files import manifest
from marigold_core.images import colormaps
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, Format, MeshSettings

MANIFEST = "manifest.json"


def save(
    prediction: Prediction,
    folder: str | Path,
    formats: Sequence[Format] | None = None,
    *,
    mesh: MeshSettings | None = None,
    colours: ColourSettings | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the files of the formats and ``manifest.json`` into a folder.

    Each file is complete or absent; the manifest comes last, so where it is there all others are.

    Args:
        prediction: what to write.
        folder: where to; it is made if need be.
        formats: which files; by default all that suit the prediction.
        mesh: how depth becomes geometry and normals.
        colours: how depth is coloured in ``depth_color.png``.
        overwrite: whether files that exist already are replaced.

    Returns:
        The path of each file by format. "uncertainty" and "normals" stand for the picture; their arrays come with them
        as "uncertainty_npy" and "normals_npy".

    Raises:
        ExportError: a format does not suit the prediction, a file exists already, or the disk refuses.
    """
    folder, mesh, colours = Path(folder), mesh or MeshSettings(), colours or ColourSettings()
    names = _names(_check(formats, prediction.modality, prediction.uncertainty is not None))
    if not np.isfinite(prediction.values).all():
        raise ExportError("The prediction holds values that are not numbers; run again with dtype float32.")
    paths = {name: folder / _FILES[name][0] for name in names}
    paths["manifest"] = folder / MANIFEST
    existing = [path.name for path in paths.values() if path.exists()]
    if existing and not overwrite:
        raise ExportError(f"{existing[0]} exists already; allow overwriting or choose another folder.")
    if existing:
        storage.remove(paths["manifest"])  # it states hashes of files that are about to change

    content = _Content(prediction, mesh, colours)
    hashes = dict[str, str]()
    for name in names:
        written = _FILES[name][1](content)
        storage.write_bytes(paths[name], written)
        hashes[paths[name].name] = manifest.sha256(written)
    record = manifest.describe(prediction, mesh, colours, hashes)
    storage.write_bytes(paths["manifest"], (record.model_dump_json(indent=2) + "\n").encode())
    return paths


# ------------------------------------------------------------------------------- what suits


def formats_for(prediction: Prediction) -> tuple[Format, ...]:
    """List the formats that suit: normals are no depth, and fewer than three members have no uncertainty."""
    return _check(None, prediction.modality, prediction.uncertainty is not None)


def formats_of(files: Collection[str]) -> tuple[Format, ...]:
    """List the formats that wrote files of these names."""
    return tuple(name for name in get_args(Format) if _FILES[name][0] in files)


def file_names(formats: Sequence[Format] | None, modality: str, ensemble_size: int) -> list[str]:
    """List the files that ``save`` would write of a result of so many members, the manifest aside; nothing is made.

    Raises:
        ExportError: a format does not suit such a result.
    """
    return [_FILES[name][0] for name in _names(_check(formats, modality, ensemble_size >= 3))]


def _check(formats: Sequence[Format] | None, modality: str, has_uncertainty: bool) -> tuple[Format, ...]:
    """Return formats that all suit a result, None for every one that does. Raises: ExportError."""
    if formats is None:
        return tuple(name for name in get_args(Format) if _refusal(name, modality, has_uncertainty) is None)
    for name in formats:
        if refusal := _refusal(name, modality, has_uncertainty):
            raise ExportError(refusal)
    return tuple(formats)


def _refusal(name: str, modality: str, has_uncertainty: bool) -> str | None:
    """Return why a result has no such file, a sentence, or None where it has."""
    if name not in _FILES:
        return f"Unknown format {name!r}; choose from {', '.join(get_args(Format))}."
    if name == "uncertainty":
        return None if has_uncertainty else "Uncertainty needs 3 or more members; raise ensemble_size."
    if modality == "normals" and name != "normals":
        return f"A normals prediction has no {name}; its formats are normals and uncertainty."
    return None


def _names(formats: Sequence[str]) -> list[str]:
    """Formats -> the names of their files in ``_FILES``, each once."""
    return list(dict.fromkeys(file for name in formats for file in (name, f"{name}_npy") if file in _FILES))


# ------------------------------------------------------------------------------- writers


@dataclass(frozen=True)
class _Content:
    """What the writers make files of."""

    prediction: Prediction
    mesh: MeshSettings
    colours: ColourSettings

    @cached_property
    def normals(self) -> np.ndarray:
        """[H, W, 3], for the picture and the array."""
        from marigold_core.geometry.camera import normals

        return normals(self.prediction, self.mesh)

    @property
    def spread(self) -> np.ndarray:
        """[H, W], of a prediction that has uncertainty."""
        assert self.prediction.uncertainty is not None  # _check has refused it
        return self.prediction.uncertainty


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, np.asarray(array, np.float32), allow_pickle=False)
    return file.getvalue()


def _png(array: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _depth_16bit(content: _Content) -> bytes:
    return _png(np.rint(colormaps.to_unit(content.prediction) * np.float32(65535)).astype(np.uint16))


def _mesh_glb(content: _Content) -> bytes:
    """Textured mesh in glTF's axes: y up, the camera at the origin looking along -z."""
    from trimesh.exchange import gltf

    from marigold_core.geometry import preview
    from marigold_core.geometry.mesh import build_mesh

    mesh: Any = build_mesh(content.prediction, content.mesh)
    mesh.apply_transform(preview.TO_GLTF)

    def finish(tree: dict[str, Any]) -> None:
        """Have viewers show the photo's own colours, which are lit already, and state the unit."""
        for material in tree["materials"]:
            material["extensions"] = {preview.UNLIT: {}}
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), preview.UNLIT]
        tree["asset"]["extras"] = {"depth": manifest.claim(content.prediction)}

    return cast(Any, gltf).export_glb(mesh.scene(), include_normals=False, tree_postprocessor=finish)


def _points_ply(content: _Content) -> bytes:
    from trimesh.exchange import ply

    from marigold_core.geometry.points import point_cloud

    file = cast(Any, ply).export_ply(point_cloud(content.prediction, content.mesh))
    comment = f"\ncomment depth is {manifest.claim(content.prediction)}\nelement vertex"
    return file.replace(b"\nelement vertex", comment.encode("ascii"), 1)


def _relief_stl(content: _Content) -> bytes:
    from trimesh.exchange import stl

    from marigold_core.geometry.relief import relief

    return cast(Any, stl).export_stl(relief(content.prediction, content.mesh))


def _depth_exr(content: _Content) -> bytes:
    """One lossless float32 channel named Z, the name compositing programs look for."""
    import OpenEXR

    exr, file = cast(Any, OpenEXR), BytesIO()
    comments = manifest.claim(content.prediction)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage, "comments": comments}
    exr.File(header, {"Z": np.ascontiguousarray(content.prediction.values, np.float32)}).write(file)
    return file.getvalue()


_FILES: dict[str, tuple[str, Callable[[_Content], bytes]]] = {
    "npy": ("depth.npy", lambda content: _npy(content.prediction.values)),
    "png16": ("depth_16bit.png", _depth_16bit),
    "color": ("depth_color.png", lambda content: _png(colormaps.to_rgb(content.prediction, content.colours))),
    "uncertainty": ("uncertainty.png", lambda content: _png(colormaps.uncertainty_to_rgb(content.spread))),
    "uncertainty_npy": ("uncertainty.npy", lambda content: _npy(content.spread)),
    "normals": ("normals.png", lambda content: _png(colormaps.normals_to_rgb(content.normals))),
    "normals_npy": ("normals.npy", lambda content: _npy(content.normals)),
    "glb": ("mesh.glb", _mesh_glb),
    "ply": ("points.ply", _points_ply),
    "stl": ("relief.stl", _relief_stl),
    "exr": ("depth.exr", _depth_exr),
}
