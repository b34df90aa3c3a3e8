"""Predictions to files: one short writer a file, in one table; ``save`` writes them atomically.

Every file is made from arrays alone, so no metadata of the photo (place, camera, person) reaches an output. Writers
import their libraries themselves: trimesh alone takes half a second, and a colour picture does not need it.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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


def _png(array: np.ndarray, texts: dict[str, str] | None = None) -> bytes:
    """A picture [H, W] or [H, W, 3]; ``texts`` become text chunks, which programs show as its properties."""
    file, info = BytesIO(), PngInfo()
    for name, value in (texts or {}).items():
        info.add_text(name, value)
    Image.fromarray(array).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _meaning(prediction: Prediction, near: float, far: float, sign: str) -> dict[str, str]:
    """What a picture of depth states about itself: the depths at its two ends, which is which, and their claim."""
    return {"near": f"{near:.9g}", "far": f"{far:.9g}", "sign": sign, "depth": manifest.claim(prediction)}


def _jpeg(image: Image.Image) -> bytes:
    """A photo for eyes: 10 dB nearer to it than by Pillow's defaults, which halve the resolution of colours."""
    file = BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def _grey_16bit(prediction: Prediction, *, near_white: bool) -> bytes:
    """Depth over its whole range as a grey picture of 16 bits."""
    unit = colormaps.to_unit(prediction)
    levels = np.rint((1 - unit if near_white else unit) * np.float32(65535)).astype(np.uint16)
    sign = "near is white" if near_white else "near is black"
    return _png(levels, _meaning(prediction, *colormaps.value_range(prediction), sign))


def _depth_color(content: _Content) -> bytes:
    prediction, colours = content.prediction, content.colours
    sign = f"near is the {'last' if colours.invert else 'first'} colour of {colours.colormap}"
    texts = _meaning(prediction, *colormaps.colour_range(prediction, colours), sign)
    return _png(colormaps.to_rgb(prediction, colours), texts)


def _mesh_glb(content: _Content) -> bytes:
    """Textured mesh in glTF's axes: y up, the photo's camera at the origin looking along -z."""
    import trimesh
    from trimesh.exchange import gltf

    from marigold_core.geometry import camera, preview
    from marigold_core.geometry.mesh import build_mesh

    prediction = content.prediction
    mesh: Any = build_mesh(prediction, content.mesh)
    mesh.apply_transform(preview.TO_GLTF)
    lens = {
        "aspectRatio": prediction.photo.shape[1] / prediction.photo.shape[0],
        "yfov": math.radians(camera.vertical_field_of_view(prediction, content.mesh)),
        "znear": float(-mesh.vertices[:, 2].max()) / 2,  # half way to the nearest point
    }

    def encode_texture(buffers: dict[Any, bytes], tree: dict[str, Any]) -> None:
        """Replace trimesh's own JPEG of the texture, whose quality it does not let one choose."""
        view = list(buffers)[tree["images"][0]["bufferView"]]
        photo = _jpeg(mesh.visual.material.baseColorTexture)
        buffers[view] = photo + bytes(-len(photo) % 4)  # glTF aligns to 4 bytes

    def finish(tree: dict[str, Any]) -> None:
        """Have viewers show the photo's own colours, which are lit already; add the camera and the unit."""
        for material in tree["materials"]:
            material["extensions"] = {preview.UNLIT: {}}
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), preview.UNLIT]
        tree["cameras"] = [{"name": "photo camera", "type": "perspective", "perspective": lens}]
        tree["scenes"][0]["nodes"].append(len(tree["nodes"]))
        tree["nodes"].append({"name": "photo camera", "camera": 0})
        tree["asset"]["extras"] = {"depth": manifest.claim(prediction)}

    return cast(Any, gltf).export_glb(
        trimesh.Scene({"photo mesh": mesh}),
        include_normals=False,
        tree_postprocessor=finish,
        buffer_postprocessor=encode_texture,
    )


def _points_ply(content: _Content) -> bytes:
    """Coloured points with normals, and uncertainty where there is one, in the axes of the GLB."""
    import trimesh
    from trimesh.exchange import ply

    from marigold_core.geometry import preview
    from marigold_core.geometry.points import sample_points

    prediction = content.prediction
    points, pixels = sample_points(prediction, content.mesh)
    cloud: Any = trimesh.PointCloud(points, colors=prediction.photo.reshape(-1, 3)[pixels])
    cloud.apply_transform(preview.TO_GLTF)
    normals = content.normals.reshape(-1, 3)[pixels]  # in these axes already
    attributes: dict[str, np.ndarray] = {"nx": normals[:, 0], "ny": normals[:, 1], "nz": normals[:, 2]}
    comments = [f"depth is {manifest.claim(prediction)}"]
    if prediction.uncertainty is not None:
        attributes["uncertainty"] = prediction.uncertainty.ravel()[pixels]
        comments.append("uncertainty is the spread of the members, in the units of depth.npy")
    cloud.vertex_attributes = attributes
    file = cast(Any, ply).export_ply(cloud)
    stated = "".join(f"\ncomment {comment}" for comment in comments) + "\nelement vertex"
    return file.replace(b"\nelement vertex", stated.encode("ascii"), 1)


def _relief_stl(content: _Content) -> bytes:
    from trimesh.exchange import stl

    from marigold_core.geometry.relief import relief

    return cast(Any, stl).export_stl(relief(content.prediction, content.mesh))


def _exr(content: _Content, channels: dict[str, np.ndarray]) -> bytes:
    """Lossless channels [H, W], float16 or float32; the header says what the depth means and the unit of metres."""
    import OpenEXR

    exr, file, kind = cast(Any, OpenEXR), BytesIO(), content.prediction.kind
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    header |= {"comments": manifest.claim(content.prediction)} | ({"unit": "metre"} if kind == "metric" else {})
    exr.File(header, {name: np.ascontiguousarray(channel) for name, channel in channels.items()}).write(file)
    return file.getvalue()


def _depth_exr(content: _Content) -> bytes:
    """The values twice: compositing programs look for a channel named Z, and all others show none but Y as grey."""
    values = content.prediction.values.astype(np.float32)
    return _exr(content, {"Y": values, "Z": values})


_FILES: dict[str, tuple[str, Callable[[_Content], bytes]]] = {
    "npy": ("depth.npy", lambda content: _npy(content.prediction.values)),
    "png16": (
        "depth_16bit.png",
        lambda content: _grey_16bit(content.prediction, near_white=content.colours.invert),
    ),
    "color": ("depth_color.png", _depth_color),
    "uncertainty": ("uncertainty.png", lambda content: _png(colormaps.uncertainty_to_rgb(content.spread))),
    "uncertainty_npy": ("uncertainty.npy", lambda content: _npy(content.spread)),
    "normals": ("normals.png", lambda content: _png(colormaps.normals_to_rgb(content.normals))),
    "normals_npy": ("normals.npy", lambda content: _npy(content.normals)),
    "glb": ("mesh.glb", _mesh_glb),
    "ply": ("points.ply", _points_ply),
    "stl": ("relief.stl", _relief_stl),
    "exr": ("depth.exr", _depth_exr),
}
