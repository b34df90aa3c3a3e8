"""Predictions to files: one short writer a file, in one table; ``build`` gives bytes, ``save`` writes them atomically.

Every file is made from arrays alone, so no metadata of the photo (place, camera, person) reaches an output. Writers
import their libraries themselves: trimesh alone takes half a second, and a colour picture does not need it.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.files import manifest
from marigold_core.images import colormaps
from marigold_core.prediction import Prediction
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, Format, MeshSettings

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class _Job:
    """A prediction and how it is to look."""

    prediction: Prediction
    mesh: MeshSettings
    colormap: Colormap

    @cached_property
    def normals(self) -> np.ndarray:
        """[H, W, 3], for the picture and the array."""
        from marigold_core.geometry import camera

        return camera.normals(self.prediction, self.mesh)


def build(
    prediction: Prediction, name: str, *, mesh: MeshSettings | None = None, colormap: Colormap = DEFAULT_COLORMAP
) -> bytes:
    """Prediction -> the content of one file; ``name`` is a format, "uncertainty_npy" or "normals_npy".

    Raises:
        ExportError: the file does not suit the prediction, or its library is missing.
    """
    _check(prediction, name)
    return _FILES[name][1](_Job(prediction, mesh or MeshSettings(), colormap))


def formats_for(prediction: Prediction) -> tuple[Format, ...]:
    """The formats that suit a prediction: normals are no depth, and fewer than three members have no uncertainty."""
    return _suiting(prediction.modality, prediction.uncertainty is not None)


def file_names(formats: Sequence[Format] | None, modality: str, ensemble_size: int) -> list[str]:
    """The files that ``save`` would write of a result of so many members, the manifest aside; nothing is made.

    Raises:
        ExportError: a format does not suit such a result.
    """
    formats = _suiting(modality, ensemble_size >= 3) if formats is None else formats
    for name in formats:
        if refusal := _refusal(name, modality, ensemble_size >= 3):
            raise ExportError(refusal)
    return [_FILES[name][0] for name in _names(formats)]


def formats_of(files: Collection[str]) -> tuple[Format, ...]:
    """The formats that wrote files of these names."""
    return tuple(name for name in get_args(Format) if _FILES[name][0] in files)


def save(
    prediction: Prediction,
    folder: str | Path,
    formats: Sequence[Format] | None = None,
    *,
    mesh: MeshSettings | None = None,
    colormap: Colormap = DEFAULT_COLORMAP,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the files of the formats and ``manifest.json`` into ``folder`` -> {format: path}, by default all that suit.

    "uncertainty" and "normals" stand for the picture; their arrays come with them as "uncertainty_npy" and
    "normals_npy". Each file is complete or absent; the manifest comes last, so it vouches for the others.

    Raises:
        ExportError: a format does not suit the prediction, a file exists already, or the disk refuses.
    """
    folder = Path(folder)
    mesh = mesh or MeshSettings()
    formats = formats_for(prediction) if formats is None else formats
    for name in formats:
        _check(prediction, name)
    names = _names(formats)
    paths = {name: folder / _FILES[name][0] for name in names}
    paths["manifest"] = folder / MANIFEST
    existing = [path.name for path in paths.values() if os.path.exists(path)]
    if existing and not overwrite:
        raise ExportError(f"{existing[0]} exists already; allow overwriting or choose another folder.")
    if existing:
        storage.remove(paths["manifest"])  # it would vouch for files that are about to change

    job = _Job(prediction, mesh, colormap)
    hashes = {}
    for name in names:
        content = _FILES[name][1](job)
        storage.write_bytes(paths[name], content)
        hashes[paths[name].name] = manifest.sha256(content)
    record = manifest.describe(prediction, mesh, colormap, hashes)
    storage.write_bytes(paths["manifest"], (record.model_dump_json(indent=2) + "\n").encode())
    return paths


def _names(formats: Sequence[str]) -> list[str]:
    """Formats -> the names of their files in ``_FILES``, each once."""
    return list(dict.fromkeys(file for name in formats for file in (name, f"{name}_npy") if file in _FILES))


# ------------------------------------------------------------------------------- what suits


def _suiting(modality: str, has_uncertainty: bool) -> tuple[Format, ...]:
    return tuple(name for name in get_args(Format) if _refusal(name, modality, has_uncertainty) is None)


def _refusal(name: str, modality: str, has_uncertainty: bool) -> str | None:
    """Why a prediction has no such file, a sentence, or None where it has."""
    if name not in _FILES:
        return f"Unknown format {name!r}; choose from {', '.join(get_args(Format))}."
    if name.startswith("uncertainty"):
        if not has_uncertainty:
            return "Uncertainty needs 3 or more members; raise ensemble_size."
    elif modality == "normals" and not name.startswith("normals"):
        return f"A normals prediction has no {name}; its formats are normals and uncertainty."
    return None


def _check(prediction: Prediction, name: str) -> None:
    refusal = _refusal(name, prediction.modality, prediction.uncertainty is not None)
    if refusal:
        raise ExportError(refusal)
    if not np.isfinite(prediction.values).all():
        raise ExportError("The prediction holds values that are not numbers; run again with dtype float32.")


# ------------------------------------------------------------------------------- writers


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, np.asarray(array, np.float32), allow_pickle=False)
    return file.getvalue()


def _png(array: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _spread(job: _Job) -> np.ndarray:
    assert job.prediction.uncertainty is not None  # _check has refused it
    return job.prediction.uncertainty


def _depth_16bit(job: _Job) -> bytes:
    return _png(np.rint(colormaps.to_unit(job.prediction) * np.float32(65535)).astype(np.uint16))


def _mesh_glb(job: _Job) -> bytes:
    """Textured mesh in glTF's axes: y up, the camera at the origin looking along -z."""
    from trimesh.exchange.gltf import export_glb

    from marigold_core.geometry import preview
    from marigold_core.geometry.mesh import build_mesh

    mesh = build_mesh(job.prediction, job.mesh)
    mesh.apply_transform(preview.TO_GLTF)

    def finish(tree: dict) -> None:
        """Have viewers show the photo's own colours, which are lit already, and say what the unit is."""
        for material in tree["materials"]:
            material["extensions"] = {preview.UNLIT: {}}
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), preview.UNLIT]
        tree["asset"]["extras"] = {"depth": manifest.claim(job.prediction)}

    return export_glb(mesh.scene(), include_normals=False, tree_postprocessor=finish)


def _points_ply(job: _Job) -> bytes:
    from trimesh.exchange.ply import export_ply

    from marigold_core.geometry.points import point_cloud

    content = export_ply(point_cloud(job.prediction, job.mesh))
    comment = f"\ncomment depth is {manifest.claim(job.prediction)}\nelement vertex"
    return content.replace(b"\nelement vertex", comment.encode("ascii"), 1)


def _relief_stl(job: _Job) -> bytes:
    from trimesh.exchange.stl import export_stl

    from marigold_core.geometry.relief import relief

    return export_stl(relief(job.prediction, job.mesh))


def _depth_exr(job: _Job) -> bytes:
    """One lossless float32 channel named Z, the name compositing programs look for."""
    import OpenEXR

    file = BytesIO()
    comments = manifest.claim(job.prediction)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "comments": comments}
    OpenEXR.File(header, {"Z": np.ascontiguousarray(job.prediction.values, np.float32)}).write(file)
    return file.getvalue()


_FILES: dict[str, tuple[str, Callable[[_Job], bytes]]] = {
    "npy": ("depth.npy", lambda job: _npy(job.prediction.values)),
    "png16": ("depth_16bit.png", _depth_16bit),
    "color": ("depth_color.png", lambda job: _png(colormaps.to_rgb(job.prediction, job.colormap))),
    "uncertainty": ("uncertainty.png", lambda job: _png(colormaps.uncertainty_to_rgb(_spread(job)))),
    "uncertainty_npy": ("uncertainty.npy", lambda job: _npy(_spread(job))),
    "normals": ("normals.png", lambda job: _png(colormaps.normals_to_rgb(job.normals))),
    "normals_npy": ("normals.npy", lambda job: _npy(job.normals)),
    "glb": ("mesh.glb", _mesh_glb),
    "ply": ("points.ply", _points_ply),
    "stl": ("relief.stl", _relief_stl),
    "exr": ("depth.exr", _depth_exr),
}
