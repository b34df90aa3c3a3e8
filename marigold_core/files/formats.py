"""One short writer a file, in one table: what ``save`` writes.

Every file is made from arrays alone, so no metadata of the photo (place, camera, person) reaches an output. Writers
import their libraries themselves: trimesh alone takes half a second, and a colour picture does not need it.
"""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from io import SEEK_END, BytesIO
from typing import Any, cast, get_args
from zipfile import ZipFile

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from marigold_core.errors import ExportError
from marigold_core.files import archive, manifest
from marigold_core.files.presets import MILLIMETRES_MAX
from marigold_core.geometry.camera import (
    bands_of_normals,
    field_of_view,
    focal_length_px,
    metric_z,
    vertical_field_of_view,
)
from marigold_core.images import colormaps
from marigold_core.images.bands import each_band, in_bands
from marigold_core.images.intrinsics import LayerName
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, Format, MeshSettings

_3MF = "http://schemas.microsoft.com/3dmanufacturing"
_OPC = "http://schemas.openxmlformats.org/package/2006"
_NORMALS = {
    "quantity": "normals",
    "meaning": "unit vectors: red is X to the right, green Y up, blue Z toward the viewer",
    "range": "0 to 255 is -1 to 1",
}
_FILLED = {"meaning": "white where the photo does not show what an eye would see"}
LAYERS: tuple[LayerName, ...] = get_args(LayerName)
JPEG_MAX_PX = 65500  # of libjpeg


@dataclass(frozen=True)
class Content:
    """What the writers make files of."""

    prediction: Prediction
    mesh: MeshSettings
    colours: ColourSettings
    prefix: str = ""  # what the names of all files begin with

    @property
    def normals(self) -> Iterator[np.ndarray]:
        """Bands [h, W, 3] of the normals, from the top."""
        return bands_of_normals(self.prediction, self.mesh)

    @cached_property
    def stereo(self) -> tuple[np.ndarray, np.ndarray]:
        """The pair and the mask of what is filled in, which are two files."""
        from marigold_core.geometry.stereo import stereo_pair

        return stereo_pair(self.prediction, self.mesh)

    @cached_property
    def relief(self) -> Any:
        """The solid in millimetres, which STL and 3MF hold."""
        from marigold_core.geometry.relief import relief

        return relief(self.prediction, self.mesh)

    @property
    def uncertainty(self) -> np.ndarray:
        """[H, W], of a prediction that has uncertainty."""
        assert self.prediction.uncertainty is not None  # save has refused it
        return self.prediction.uncertainty


def npy(array: np.ndarray) -> Iterator[bytes]:
    """Numbers of any shape as float32, in pieces."""
    return _npy(array.shape, each_band(lambda rows: rows.astype(np.float32), array))


def _npy(shape: tuple[int, ...], bands: Iterator[np.ndarray]) -> Iterator[bytes]:
    head, form = BytesIO(), cast(Any, np.lib.format)
    form.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield head.getvalue()
    yield from (band.astype("<f4", copy=False).tobytes() for band in bands)


def png(array: np.ndarray, texts: dict[str, str] | None = None) -> bytes:
    """A picture [H, W] or [H, W, 3]; ``texts`` become text chunks, which programs show as its properties."""
    file, info = BytesIO(), PngInfo()
    for name, value in (texts or {}).items():
        info.add_text(name, value)
    Image.fromarray(array).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def ends(near: float, far: float, sign: str) -> dict[str, str]:
    """What a picture of depth or distance states about its two ends: the values there, and which is which."""
    return {"near": f"{near:.9g}", "far": f"{far:.9g}", "sign": sign}


def colour_sign(colours: ColourSettings) -> str:
    """What a coloured picture states about which end is which."""
    return f"near is the {'last' if colours.invert else 'first'} colour of {colours.colormap}"


def _meaning(prediction: Prediction, near: float, far: float, sign: str) -> dict[str, str]:
    """What a picture of depth states about itself: its ``ends``, and the claim of the result."""
    return ends(near, far, sign) | {"depth": manifest.claim(prediction)}


def _jpeg(image: Image.Image) -> bytes:
    """A photo for eyes: 10 dB nearer to it than by Pillow's defaults, which halve the resolution of colours."""
    if max(image.size) > JPEG_MAX_PX:
        raise ExportError(
            f"A JPEG has at most {JPEG_MAX_PX} pixels a side, but the picture has {image.width} x {image.height}; "
            "give a smaller photo."
        )
    file = BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def _grey_16bit(prediction: Prediction, *, near_white: bool) -> bytes:
    """Depth over its whole range as a grey picture of 16 bits."""
    levels = colormaps.to_levels(prediction, np.uint16, near_white=near_white)
    sign = "near is white" if near_white else "near is black"
    return png(levels, _meaning(prediction, *colormaps.value_range(prediction), sign))


def _depth_color(content: Content) -> bytes:
    prediction, colours = content.prediction, content.colours
    texts = _meaning(prediction, *colormaps.colour_range(prediction, colours), colour_sign(colours))
    return png(colormaps.to_rgb(prediction, colours), texts)


def _normals(content: Content) -> bytes:
    return png(np.concatenate([colormaps.normals_to_rgb(band) for band in content.normals]), _NORMALS)


def _normals_npy(content: Content) -> Iterator[bytes]:
    height, width = content.prediction.values.shape[:2]
    return _npy((height, width, 3), content.normals)


def _normals_at(content: Content, pixels: np.ndarray) -> np.ndarray:
    """The normals [N, 3] of pixels [N], which are counted row by row and increase."""
    found, first = list[np.ndarray](), 0
    for band in content.normals:
        flat = band.reshape(-1, 3)
        found.append(flat[pixels[slice(*np.searchsorted(pixels, (first, first + len(flat))))] - first])
        first += len(flat)
    return np.concatenate(found)


def _uncertainty(content: Content) -> bytes:
    top = colormaps.uncertainty_top(content.uncertainty)
    texts = {
        "quantity": "uncertainty",
        "meaning": content.prediction.uncertainty_meaning,
        "low": "0",
        "high": f"{top:.9g}",
        "sign": "low is the first colour of inferno, high and more the last",
    }
    return png(colormaps.uncertainty_to_rgb(content.uncertainty, top), texts)


def _mesh_glb(content: Content) -> bytes:
    """Textured mesh in glTF's axes: y up, the photo's camera at the origin looking along -z."""
    import trimesh
    from trimesh.exchange import gltf

    from marigold_core.geometry import preview
    from marigold_core.geometry.mesh import build_mesh

    prediction = content.prediction
    mesh: Any = build_mesh(prediction, content.mesh)
    mesh.apply_transform(preview.TO_GLTF)
    lens = {
        "aspectRatio": prediction.photo.shape[1] / prediction.photo.shape[0],
        "yfov": math.radians(vertical_field_of_view(prediction, content.mesh)),
        "znear": float(-mesh.vertices[:, 2].max()) / 2,  # half way to the nearest point
    }

    def encode_texture(buffers: dict[Any, bytes], tree: dict[str, Any]) -> None:
        """Replace trimesh's own JPEG of the texture, whose quality it does not let one choose."""
        view = list(buffers)[tree["images"][0]["bufferView"]]
        photo = _jpeg(mesh.visual.material.baseColorTexture)
        buffers[view] = photo + bytes(-len(photo) % 4)  # glTF aligns to 4 bytes

    def finish(tree: dict[str, Any]) -> None:
        """Have viewers show the photo's own colours; add the camera and the unit."""
        preview.make_unlit(tree)
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


def _points_ply(content: Content) -> bytes:
    """Coloured points with normals, and uncertainty where there is one, in the axes of the GLB."""
    import trimesh
    from trimesh.exchange import ply

    from marigold_core.geometry import preview
    from marigold_core.geometry.points import sample_points

    prediction = content.prediction
    points, pixels = sample_points(prediction, content.mesh)
    cloud: Any = trimesh.PointCloud(points, colors=prediction.photo.reshape(-1, 3)[pixels])
    cloud.apply_transform(preview.TO_GLTF)
    normals = _normals_at(content, pixels)  # in these axes already
    attributes: dict[str, np.ndarray] = {"nx": normals[:, 0], "ny": normals[:, 1], "nz": normals[:, 2]}
    comments = [f"depth is {manifest.claim(prediction)}"]
    if prediction.uncertainty is not None:
        attributes["uncertainty"] = prediction.uncertainty.ravel()[pixels]
        comments.append(f"uncertainty is the {prediction.uncertainty_meaning}")
    cloud.vertex_attributes = attributes
    file = cast(Any, ply).export_ply(cloud)
    stated = "".join(f"\ncomment {comment}" for comment in comments) + "\nelement vertex"
    return file.replace(b"\nelement vertex", stated.encode("ascii"), 1)


def _stl(solid: Any) -> bytes:
    from trimesh.exchange import stl

    return cast(Any, stl).export_stl(solid)


def _exr(content: Content, channels: dict[str, np.ndarray]) -> bytes:
    """Lossless channels [H, W], float16 or float32; the header says what the depth means and the unit of metres."""
    import OpenEXR

    exr, file, kind = cast(Any, OpenEXR), BytesIO(), content.prediction.kind
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    header |= {"comments": manifest.claim(content.prediction)} | ({"unit": "metre"} if kind == "metric" else {})
    exr.File(header, {name: np.ascontiguousarray(channel) for name, channel in channels.items()}).write(file)
    return file.getvalue()


def _depth_exr(content: Content) -> bytes:
    """The values twice: compositing programs look for a channel named Z, and all others show none but Y as grey."""
    values = content.prediction.known_values.astype(np.float32)
    return _exr(content, {"Y": values, "Z": values})


# ------------------------------------------------------------------------------- intrinsic images


def _layer(content: Content, name: LayerName, bits: int) -> bytes:
    """One layer as it looks, with what its numbers are."""
    layer = next(one for one in content.prediction.layers if one.name == name)
    texts, values = {"layer": name, "meaning": layer.meaning}, content.prediction.layer(name)
    if layer.classes and bits == 8:
        colours = ", ".join(f"{one.name} #{bytes(one.rgb).hex()}" for one in layer.classes)
        return png(colormaps.layer_to_rgb(values, layer), texts | {"colours": colours})
    if layer.classes:
        return png(values.astype(np.uint16), texts)
    white = colormaps.white_of(values, layer)
    texts |= {"white": f"{white:.9g}", "tones": "sRGB" if layer.in_colour else "linear"}
    shown = colormaps.to_display(values, layer)
    if bits == 8:
        return png(np.rint(shown * np.float32(255)).astype(np.uint8), texts)
    levels = np.rint(shown * np.float32(65535)).astype(np.uint16)
    return _png_rgb_16bit(levels, texts) if layer.in_colour else png(levels, texts)


def _png_rgb_16bit(levels: np.ndarray, texts: dict[str, str]) -> bytes:
    """A picture [H, W, 3] of 16 bits, which Pillow does not write. Source: W3C, PNG specification, 11.2 and 9.2."""
    height, width = levels.shape[:2]
    rows = levels.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # the filter "up", which is number 2
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), above], axis=1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))]
    chunks += [(b"tEXt", f"{name}\0{text}".encode("latin-1")) for name, text in texts.items()]
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    file = BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, SEEK_END)
    for kind, body in chunks:
        putchunk(file, kind, body)
    return file.getvalue()


def _layers_npz(content: Content) -> bytes:
    """The numbers of the network, an array a layer."""
    file = BytesIO()
    arrays = {layer.name: content.prediction.layer(layer.name) for layer in content.prediction.layers}
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _layers_exr(content: Content) -> bytes:
    """All layers under their names, colours as linear light."""
    channels: dict[str, np.ndarray] = {}
    for layer in content.prediction.layers:
        light = np.atleast_3d(colormaps.to_light(content.prediction.layer(layer.name), layer))
        names = "RGB" if layer.in_colour else "Y"
        channels |= {f"{layer.name}.{name}": light[..., number] for number, name in enumerate(names)}
    return _exr(content, channels)


# ------------------------------------------------------------------------------- files that programs want


def _controlnet(content: Content) -> bytes:
    """Disparity as three channels of 8 bits, near white: what the depth models of ControlNet were trained on."""
    disparity = 1 / metric_z(content.prediction, content.mesh)
    far, near = float(disparity.min()), float(disparity.max())
    levels = in_bands(
        lambda rows: np.rint(colormaps.stretch(rows, far, near) * np.float32(255)).astype(np.uint8), disparity
    )
    texts = _meaning(content.prediction, *colormaps.value_range(content.prediction), "near is white")
    return png(np.repeat(levels[..., None], 3, axis=-1), texts | {"quantity": "disparity"})


def _rgbz_exr(content: Content) -> bytes:
    """The photo as linear light, which compositing works in, beside the values."""
    photo = content.prediction.photo
    channels = {
        name: in_bands(lambda rows: colormaps.to_linear(rows).astype(np.float16), photo[..., number])
        for number, name in enumerate("RGB")
    }
    return _exr(content, channels | {"Z": content.prediction.known_values.astype(np.float32)})


def _depth_mm(content: Content) -> bytes:
    """Metres as whole millimetres of 16 bits; 0 is unknown, as is what is beyond."""

    def rounded(metres: np.ndarray) -> np.ndarray:
        millimetres = np.rint(metres.astype(np.float64) * 1000)
        millimetres[~((millimetres > 0) & (millimetres <= MILLIMETRES_MAX))] = 0
        return millimetres.astype(np.uint16)

    texts = _meaning(content.prediction, *colormaps.value_range(content.prediction), "near is black")
    return png(in_bands(rounded, content.prediction.known_values), texts | {"unit": "millimetre", "unknown": "0"})


def _intrinsics(content: Content) -> bytes:
    """Open3D's camera; it counts pixels from the middle of the first one, and lists the matrix by columns."""
    height, width = content.prediction.photo.shape[:2]
    focal_px = focal_length_px(width, field_of_view(content.prediction, content.mesh))
    matrix = [focal_px, 0.0, 0.0, 0.0, focal_px, 0.0, (width - 1) / 2, (height - 1) / 2, 1.0]
    return _json({"width": width, "height": height, "intrinsic_matrix": matrix})


def _transforms(content: Content) -> bytes:
    """One frame of nerfstudio's format; its camera has OpenGL's axes, those of the points and the mesh."""
    height, width = content.prediction.photo.shape[:2]
    focal_px = focal_length_px(width, field_of_view(content.prediction, content.mesh))
    name = {file: f"{content.prefix}{FILES[file][0]}" for file in ("photo", "depth_mm", "ply")}
    frame = {"file_path": name["photo"], "depth_file_path": name["depth_mm"], "transform_matrix": np.eye(4).tolist()}
    lens = {"w": width, "h": height, "fl_x": focal_px, "fl_y": focal_px, "cx": width / 2, "cy": height / 2}
    return _json({"camera_model": "OPENCV", **lens, "ply_file_path": name["ply"], "frames": [frame]})


def _side_by_side(content: Content) -> bytes:
    grey = colormaps.to_levels(content.prediction, np.uint8, near_white=True)
    photo = content.prediction.photo
    height, width = grey.shape
    both = Image.new("RGB", (2 * width, height))
    both.paste(Image.fromarray(photo), (0, 0))
    both.paste(Image.fromarray(grey).convert("RGB"), (width, 0))
    return _jpeg(both)


def _lithophane_stl(content: Content) -> bytes:
    from marigold_core.geometry.relief import lithophane

    return _stl(lithophane(content.prediction.photo, content.mesh))


def _relief_3mf(content: Content) -> bytes:
    """The relief with its unit. trimesh writes 3MF too, but with random numbers, other bytes every time."""
    vertices = "".join(f'<vertex x="{x:.4f}" y="{y:.4f}" z="{z:.4f}"/>' for x, y, z in content.relief.vertices.tolist())
    faces = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in content.relief.faces.tolist())
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_OPC}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_OPC}/relationships">'
        f'<Relationship Target="/3D/3dmodel.model" Id="rel0" Type="{_3MF}/2013/01/3dmodel"/></Relationships>',
        "3D/3dmodel.model": f'<model unit="millimeter" xml:lang="en-US" xmlns="{_3MF}/core/2015/02"><resources>'
        f'<object id="1" name="relief" type="model"><mesh><vertices>{vertices}</vertices>'
        f'<triangles>{faces}</triangles></mesh></object></resources><build><item objectid="1"/></build></model>',
    }
    file = BytesIO()
    with ZipFile(file, "w") as package:
        for name, text in parts.items():
            package.writestr(archive.entry(name), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}')
    return file.getvalue()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


FILES: dict[str, tuple[str, Callable[[Content], bytes | Iterator[bytes]]]] = {
    "npy": ("depth.npy", lambda content: npy(content.prediction.known_values)),
    "png16": ("depth_16bit.png", lambda content: _grey_16bit(content.prediction, near_white=content.colours.invert)),
    "color": ("depth_color.png", _depth_color),
    "uncertainty": ("uncertainty.png", _uncertainty),
    "uncertainty_npy": ("uncertainty.npy", lambda content: npy(content.uncertainty)),
    "normals": ("normals.png", _normals),
    "normals_npy": ("normals.npy", _normals_npy),
    "glb": ("mesh.glb", _mesh_glb),
    "ply": ("points.ply", _points_ply),
    "stl": ("relief.stl", lambda content: _stl(content.relief)),
    "exr": ("depth.exr", _depth_exr),
    "controlnet": ("controlnet.png", _controlnet),
    "height": ("height_16bit.png", lambda content: _grey_16bit(content.prediction, near_white=True)),
    "rgbz": ("rgbz.exr", _rgbz_exr),
    "photo": ("photo.jpg", lambda content: _jpeg(Image.fromarray(content.prediction.photo))),
    "depth_mm": ("depth_mm.png", _depth_mm),
    "intrinsics": ("intrinsics.json", _intrinsics),
    "transforms": ("transforms.json", _transforms),
    "side_by_side": ("looking_glass.jpg", _side_by_side),
    "stereo": ("stereo.jpg", lambda content: _jpeg(Image.fromarray(content.stereo[0]))),
    "stereo_filled": ("stereo_filled.png", lambda content: png(content.stereo[1], _FILLED)),
    "lithophane": ("lithophane.stl", _lithophane_stl),
    "relief_3mf": ("relief.3mf", _relief_3mf),
    **{name: (f"{name}.png", partial(_layer, name=name, bits=8)) for name in LAYERS},
    **{f"{name}_16bit": (f"{name}_16bit.png", partial(_layer, name=name, bits=16)) for name in LAYERS},
    "layers": ("layers.npz", _layers_npz),
    "layers_exr": ("layers.exr", _layers_exr),
}

_WITH_ARRAY: dict[Format, tuple[str, ...]] = {
    "uncertainty": ("uncertainty", "uncertainty_npy"),
    "normals": ("normals", "normals_npy"),
}
_OF_LAYERS: dict[Format, tuple[str, ...]] = {
    "npy": ("layers",),
    "png16": tuple(f"{name}_16bit" for name in LAYERS),
    "color": LAYERS,
    "uncertainty": _WITH_ARRAY["uncertainty"],
    "exr": ("layers_exr",),
}
FILES_OF: dict[str, dict[Format, tuple[str, ...]]] = {  # the files of each format, by modality
    "depth": {name: _WITH_ARRAY.get(name, (name,)) for name in get_args(Format)},
    "normals": _WITH_ARRAY,
    "intrinsics": _OF_LAYERS,
    "segmentation": _OF_LAYERS,
}
