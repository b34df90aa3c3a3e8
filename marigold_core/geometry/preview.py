"""GLB files for viewers in the browser, of shapes whose own files these do not draw well.

STL has neither colour nor an upright side, and the viewer reads no PLY.
"""

import json
import struct
from typing import Any, cast

import numpy as np
import trimesh
from trimesh.exchange import gltf

from marigold_core.images.colormaps import to_linear

CLAY = np.array([0.60, 0.53, 0.45])  # linear red, green and blue where the light falls straight
LIGHT = np.array([-0.5, 0.6, 0.62])  # toward the lamp, over the left shoulder
AMBIENT = 0.12
TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])  # from OpenCV axes: y up, the camera at the origin looking along -z
JSON, BIN = 0x4E4F534A, 0x004E4942  # the two chunks of a GLB
UNLIT = "KHR_materials_unlit"


def relief_glb(solid: trimesh.Trimesh) -> bytes:
    """Solid in millimetres -> GLB of matt clay, its longest edge 1, standing upright like the photo.

    Its shading is painted on: shallow relief shows in light from the side alone, and viewers light from everywhere.
    """
    share = AMBIENT + (1 - AMBIENT) * np.clip(solid.vertex_normals @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    colours = np.rint(255 * share[:, None] * CLAY).astype(np.uint8)
    standing = trimesh.Trimesh(solid.vertices / solid.extents.max(), solid.faces, process=False, vertex_colors=colours)
    return _export_unlit(standing)


def points_glb(cloud: trimesh.PointCloud) -> bytes:
    """Coloured points in OpenCV axes -> GLB. glTF wants linear light where photos have sRGB."""
    linear = to_linear(np.asarray(cloud.colors)[:, :3])
    upright: Any = trimesh.PointCloud(cast(Any, cloud).vertices, colors=np.rint(linear * 255).astype(np.uint8))
    return _export_unlit(upright.apply_transform(TO_GLTF))


def read_vertices(glb: bytes) -> tuple[np.ndarray, int]:
    """GLB with one mesh, as written here or by ``export`` -> (its vertices [N, 3] float32, how many triangles)."""
    (length,) = struct.unpack_from("<I", glb, 12)
    tree = json.loads(glb[20 : 20 + length])
    (primitive,) = tree["meshes"][0]["primitives"]
    accessor = tree["accessors"][primitive["attributes"]["POSITION"]]
    begin = 28 + length + tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor["byteOffset"]
    vertices = np.frombuffer(glb, "<f4", 3 * accessor["count"], begin).reshape(-1, 3)
    indices = primitive.get("indices")
    return vertices, 0 if indices is None else tree["accessors"][indices]["count"] // 3


def centred(glb: bytes, *, about_origin: bool = False) -> bytes:
    """GLB with one mesh -> the same, and a triangle without area that makes its box lie evenly about the optical axis.

    The viewer looks at the middle of the box, and so along the axis of the photo; ``about_origin`` makes the camera's
    own place the middle.
    """
    vertices, _ = read_vertices(glb)
    reach = abs(vertices).max(axis=0)
    ends = np.stack([-reach, reach, reach])
    if not about_origin:
        ends[:, 2] = vertices[0, 2]
    corners = ends.astype("<f4")
    (length,) = struct.unpack_from("<I", glb, 12)
    tree, body = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    place = {"buffer": 0, "byteOffset": len(body), "byteLength": corners.nbytes}
    limits = {"min": corners.min(axis=0).tolist(), "max": corners.max(axis=0).tolist()}
    about = {"componentType": 5126, "type": "VEC3", "count": len(corners)}
    tree["scenes"][tree.get("scene", 0)]["nodes"].append(len(tree["nodes"]))
    tree["nodes"].append({"mesh": len(tree["meshes"])})
    tree["meshes"].append({"primitives": [{"attributes": {"POSITION": len(tree["accessors"])}}]})
    tree["accessors"].append({"bufferView": len(tree["bufferViews"]), **about, **limits})
    tree["bufferViews"].append(place)
    tree["buffers"][0]["byteLength"] = len(body) + corners.nbytes
    head = json.dumps(tree, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 4)
    body += corners.tobytes()
    total = 28 + len(head) + len(body)
    return glb[:8] + struct.pack("<III", total, len(head), JSON) + head + struct.pack("<II", len(body), BIN) + body


def _export_unlit(shape: Any) -> bytes:
    return cast(Any, gltf).export_glb(shape.scene(), include_normals=False, tree_postprocessor=_unlit_vertices)


def make_unlit(tree: dict[str, Any]) -> None:
    """Have viewers show the colours of the materials of a glTF tree as they are: those of a photo are lit already."""
    for material in tree["materials"]:
        material["extensions"] = {UNLIT: {}}
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), UNLIT]


def _unlit_vertices(tree: dict[str, Any]) -> None:
    """Have viewers show the colours of the vertices as they are."""
    tree["materials"] = [{"doubleSided": True}]
    make_unlit(tree)
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
