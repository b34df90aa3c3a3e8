"""What can stand on either side of the comparison: painted from a kept prediction, never by running the model."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from marigold_core.geometry.camera import normals
from marigold_core.images.colormaps import (
    depth_to_rgb,
    normals_to_rgb,
    stretch,
    uncertainty_to_rgb,
    uncertainty_top,
    value_range,
)
from marigold_core.images.differences import shrink
from marigold_core.prediction import Prediction
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, MeshSettings
from marigold_core.ui import text
from marigold_core.ui.pictures import PREVIEW_PX, photo_file, preview, preview_size

PHOTO, DEPTH, GREY, DOUBT, NORMALS, MEMBER = "photo", "depth", "grey", "uncertainty", "normals", "member "
GREYS: Colormap = "gray"


@dataclass(frozen=True)
class Look:
    """How depth is coloured."""

    colormap: Colormap = DEFAULT_COLORMAP
    near: float = 0.0  # the part of the map's range that the colours span, in shares of it
    far: float = 1.0
    invert: bool = False

    def ends(self, prediction: Prediction) -> tuple[float, float]:
        """Return the depths that take the first and the last colour, in the units of the map."""
        low, high = value_range(prediction)
        near, far = sorted((self.near, self.far))
        return low + near * (high - low), low + far * (high - low)


def offered(prediction: Prediction) -> list[tuple[str, str]]:
    """List what a prediction can show, as (label, name)."""
    names = [PHOTO, *((DEPTH, GREY) if prediction.modality == "depth" else ()), NORMALS]
    if prediction.uncertainty is not None:
        names.append(DOUBT)
    layers = [(text.LAYERS[name], name) for name in names]
    count = 0 if prediction.members is None else len(prediction.members)
    return layers + [(text.LAYER_MEMBER.format(number=k), f"{MEMBER}{k}") for k in range(1, count + 1)]


def main_layer(prediction: Prediction) -> str:
    """Name the layer that the prediction is about."""
    return DEPTH if prediction.modality == "depth" else NORMALS


def paint(prediction: Prediction, layer: str, look: Look) -> str:
    """Paint a layer as the page shows it, all of one size -> its file."""
    if layer == PHOTO:
        return photo_file(prediction)
    if layer == DOUBT:
        assert prediction.uncertainty is not None  # it is not offered otherwise
        spread = shrink(prediction.uncertainty, PREVIEW_PX)
        return preview(uncertainty_to_rgb(spread, uncertainty_top(prediction.uncertainty)))
    if layer.startswith(MEMBER):
        return _paint_member(prediction, int(layer.removeprefix(MEMBER)) - 1, look)
    small = replace(prediction, values=shrink(prediction.values, PREVIEW_PX))
    if layer == NORMALS:
        return preview(normals_to_rgb(normals(small, MeshSettings())))
    unit = stretch(small.values, *look.ends(prediction))
    return preview(depth_to_rgb(unit, GREYS if layer == GREY else look.colormap, invert=look.invert))


def _paint_member(prediction: Prediction, index: int, look: Look) -> str:
    """Paint one member as the network gave it: before alignment, enlarged from the size that the network sees."""
    assert prediction.members is not None  # it is not offered otherwise
    member = prediction.members[index].astype(np.float32)
    size = preview_size(prediction.photo.shape)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        for plane in np.moveaxis(np.atleast_3d(member), -1, 0)
    ]
    if prediction.modality == "normals":
        return preview(normals_to_rgb(np.stack(planes, axis=-1)))
    unit = stretch(planes[0], *look.ends(prediction))
    return preview(depth_to_rgb(unit, look.colormap, invert=look.invert))
