"""Layers: what can be shown on either side of a comparison, painted from a kept prediction; and their legends."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from marigold_core.geometry.camera import normals
from marigold_core.images.boxes import draw_boxes, has_boxes
from marigold_core.images.colormaps import (
    colour_range,
    depth_to_rgb,
    layer_to_rgb,
    normals_to_rgb,
    stretch,
    to_rgb,
    uncertainty_to_rgb,
    uncertainty_top,
)
from marigold_core.images.differences import resize_map, shrink
from marigold_core.prediction import Prediction
from marigold_core.settings import Colormap, ColourSettings, MeshSettings
from marigold_core.ui import text
from marigold_core.ui.pictures import PREVIEW_PX, photo_file, preview, preview_size, shrunk
from marigold_core.ui.templates import render

PHOTO, DEPTH, GREY, UNCERTAINTY, NORMALS, MEMBER = "photo", "depth", "grey", "uncertainty", "normals", "member "
BOXES = "boxes"
GREYS: Colormap = "gray"
STOPS = 24  # colours of a legend's gradient
TICKS = 5


def offered(prediction: Prediction) -> list[tuple[str, str]]:
    """List what a prediction can show, as (label, name)."""
    own = {"depth": (DEPTH, GREY, NORMALS), "normals": (NORMALS,)}
    names = [PHOTO, *own.get(prediction.modality, (layer.name for layer in prediction.layers))]
    if has_boxes(prediction.layers):
        names.insert(1, BOXES)
    if prediction.uncertainty is not None:
        names.append(UNCERTAINTY)
    layers = [(text.LAYERS[name], name) for name in names]
    count = 0 if prediction.members is None else len(prediction.members)
    return layers + [(text.LAYER_MEMBER.format(number=k), f"{MEMBER}{k}") for k in range(1, count + 1)]


def main_layer(prediction: Prediction) -> str:
    """Name the layer that the prediction is about."""
    if prediction.layers:
        return BOXES if has_boxes(prediction.layers) else prediction.layers[0].name
    return DEPTH if prediction.modality == "depth" else NORMALS


def paint(prediction: Prediction, layer: str, colours: ColourSettings, mesh: MeshSettings) -> str:
    """Paint a layer as the page shows it, all of one size -> its file; normals are those of ``mesh``."""
    if layer == PHOTO:
        return photo_file(prediction.photo)
    if layer == BOXES:
        small = shrunk(prediction.photo)
        return preview(draw_boxes(small, prediction.boxes(), small.width / prediction.photo.shape[1]))
    if layer == UNCERTAINTY:
        assert prediction.uncertainty is not None  # it is not offered otherwise
        spread = shrink(prediction.uncertainty, PREVIEW_PX)
        return preview(uncertainty_to_rgb(spread, uncertainty_top(prediction.uncertainty)))
    if layer.startswith(MEMBER):
        return _paint_member(prediction, int(layer.removeprefix(MEMBER)) - 1, colours)
    if own := next((one for one in prediction.layers if one.name == layer), None):
        kind = "class" if own.classes else prediction.kind
        return preview(layer_to_rgb(shrink(prediction.layer(own.name), PREVIEW_PX, kind=kind), own))
    small = replace(prediction, values=shrink(prediction.values, PREVIEW_PX, kind=prediction.kind))
    if layer == NORMALS:
        return preview(normals_to_rgb(normals(small, mesh)))
    unit = stretch(small.values, *colour_range(prediction, colours))
    return preview(depth_to_rgb(unit, GREYS if layer == GREY else colours.colormap, invert=colours.invert))


def _paint_member(prediction: Prediction, index: int, colours: ColourSettings) -> str:
    """Paint one member as the network gave it: before alignment, enlarged from the size that the network sees."""
    assert prediction.members is not None  # it is not offered otherwise
    member = prediction.members[index].astype(np.float32)
    width, height = preview_size(prediction.photo.shape)
    member = resize_map(member, (height, width), kind=prediction.kind)
    if prediction.modality != "depth":
        return preview(to_rgb(replace(prediction, values=member)))
    unit = stretch(member, *colour_range(prediction, colours))
    return preview(depth_to_rgb(unit, colours.colormap, invert=colours.invert))


# ------------------------------------------------------------------------------- legends


def draw_legends(prediction: Prediction, layers: Iterable[str], colours: ColourSettings) -> str:
    """Draw what the colours of these layers mean, each legend once -> HTML."""
    kinds = dict.fromkeys(_legend_of(layer, prediction) for layer in layers if layer not in (PHOTO, BOXES))
    return render("legends", legends=[_legend(prediction, kind, colours) for kind in kinds])


def format_share(share: float, modality: str) -> str:
    """Write a share of the depth range as "3.1 %" or "0.25 %", of normals half turns as "12°"."""
    if modality == "normals":
        return f"{share * 180:.1f}°"
    return f"{share * 100:.{1 if share >= 0.01 else 2}f} %"


def format_uncertainty(value: float, prediction: Prediction) -> str:
    """Write an uncertainty in metres where the map has them, else as a share."""
    return f"{value:.2f} m" if prediction.kind == "metric" else format_share(value, prediction.modality)


def _legend_of(layer: str, prediction: Prediction) -> str:
    """Name the layer whose legend a layer has; members are coloured like the map they are members of."""
    if not layer.startswith(MEMBER):
        return layer
    return prediction.layers[0].name if prediction.layers else main_layer(prediction)


def _legend(prediction: Prediction, kind: str, colours: ColourSettings) -> dict[str, object]:
    """Caption, with colours from left to right and the ticks below, or with classes, or alone (normals, layers)."""
    if kind == NORMALS:
        return {"caption": text.KEY_NORMALS}
    for layer in prediction.layers:
        if layer.name == kind:
            caption = text.KEY_LAYERS[layer.name] + text.KEY_UP_TO_SCALE * layer.up_to_scale
            return {"caption": caption, "classes": layer.classes}
    ramp = np.linspace(0, 1, STOPS, dtype=np.float32)[None]
    if kind == UNCERTAINTY:
        assert prediction.uncertainty is not None  # the layer is not offered otherwise
        top = uncertainty_top(prediction.uncertainty)
        half, most = format_uncertainty(top / 2, prediction), format_uncertainty(top, prediction)
        ticks, caption = (
            ["0", half, text.KEY_MORE.format(tick=most)],
            text.KEY_UNCERTAINTY[prediction.uncertainty_measure],
        )
        return {"caption": caption, "colours": uncertainty_to_rgb(ramp, 1.0)[0], "ticks": ticks}
    unit = " m" if prediction.kind == "metric" else ""
    numbers = [f"{number:.2f}{unit}" for number in np.linspace(*colour_range(prediction, colours), TICKS)]
    return {
        "caption": text.KEY_KINDS[prediction.kind],
        "colours": depth_to_rgb(ramp, GREYS if kind == GREY else colours.colormap, invert=colours.invert)[0],
        "ticks": [f"{text.NEAR} {numbers[0]}", *numbers[1:-1], f"{numbers[-1]} {text.FAR}"],
    }
