"""Numbers to pictures: colour maps for depth and uncertainty, the usual colours for normals, layers as they look."""

import os
import sys
from io import BytesIO
from typing import Any, Protocol, get_args

import matplotlib
import numpy as np
from PIL import Image, ImageShow

from marigold_core.errors import ExportError, SettingsError
from marigold_core.images.bands import in_bands
from marigold_core.images.intrinsics import Claimed, Layer, channels_of
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, ColourSettings

HALF_BYTE = 127.5  # maps [-1, 1] to 0 to 255
NOTEBOOK_PX = 1024  # longest edge of the picture in a notebook


class Map(Claimed, Protocol):
    """What is turned into a picture: a ``Prediction``, which itself shows its picture by means of this module."""

    @property
    def values(self) -> np.ndarray:
        """Depth [H, W], normals [H, W, 3] or intrinsics [H, W, C]."""
        ...


def depth_to_rgb(values: np.ndarray, colormap: Colormap = DEFAULT_COLORMAP, *, invert: bool = False) -> np.ndarray:
    """[H, W] depth in [0, 1] -> [H, W, 3] uint8.

    Near is the start of the map (red in Spectral), ``invert`` swaps the ends. Values outside [0, 1] take the colour
    of the nearer end.

    Raises:
        SettingsError: no such colour map.
    """
    if colormap not in get_args(Colormap):
        raise SettingsError(f"Unknown colormap {colormap!r}; choose from {', '.join(get_args(Colormap))}.")
    table = matplotlib.colormaps[colormap](np.arange(256), bytes=True)[:, :3]
    # A table of 256 colours gives those of calling the map, without its float64 copies of the picture.
    colours = table[::-1] if invert else table
    return in_bands(lambda rows: colours[np.minimum(np.clip(rows, 0, 1) * 256, 255).astype(np.uint8)], values)


def uncertainty_to_rgb(
    uncertainty: np.ndarray, maximum: float | None = None, colormap: Colormap = "inferno"
) -> np.ndarray:
    """[H, W] spread >= 0 -> [H, W, 3] uint8, darkest at 0.

    ``maximum`` takes the last colour; by default it is the map's own 95th percentile. Give one ``maximum`` to pictures
    that are to be compared. A map of zeros is all first colour.
    """
    top = uncertainty_top(uncertainty) if maximum is None else maximum
    return in_bands(lambda rows: depth_to_rgb(rows / (top if top > 0 else 1.0), colormap), uncertainty)


def uncertainty_top(uncertainty: np.ndarray) -> float:
    """[H, W] spread >= 0 -> the value that takes the last colour; 1 for a map of zeros."""
    top = float(np.percentile(uncertainty, 95))
    return top if top > 0 else float(uncertainty.max()) or 1.0  # nearly all zero: whatever is not stands out


def normals_to_rgb(normals: np.ndarray) -> np.ndarray:
    """[H, W, 3] unit vectors -> [H, W, 3] uint8: each axis from -1 to 1 becomes 0 to 255."""
    return in_bands(lambda rows: np.rint((np.clip(rows, -1, 1) + 1) * HALF_BYTE).astype(np.uint8), normals)


def rgb_to_normals(rgb: np.ndarray) -> np.ndarray:
    """[..., 3] uint8, as ``normals_to_rgb`` makes them -> [..., 3] float32 in [-1, 1], unit length but for rounding."""
    return rgb.astype(np.float32) / HALF_BYTE - 1


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """SRGB [...] in [0, 1], or uint8 -> the same as light, float32 in [0, 1]. Source: IEC 61966-2-1."""
    if rgb.dtype == np.uint8:
        return to_linear(np.arange(256) / 255)[rgb]
    srgb = rgb.astype(np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def from_linear(light: np.ndarray) -> np.ndarray:
    """Light [...] in [0, 1] -> the same as sRGB, float32 in [0, 1]; ``to_linear`` inverted."""
    light = light.astype(np.float64)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def to_display(values: np.ndarray, layer: Layer) -> np.ndarray:
    """[H, W, 3] or [H, W] of a layer -> the same in [0, 1] as a picture shows it: colours as sRGB, others unchanged.

    Of unknown scale, the greatest number becomes 1.
    """
    shown = np.clip(values, 0, 1).astype(np.float32) / np.float32(white_of(values, layer))
    return from_linear(shown) if layer.in_colour and layer.space == "linear" else shown


def white_of(values: np.ndarray, layer: Layer) -> float:
    """Return the number of a layer that a picture of it shows as white; of unknown scale the greatest."""
    return max(float(np.clip(values.max(), 0, 1)), 1e-6) if layer.up_to_scale else 1.0


def to_light(values: np.ndarray, layer: Layer) -> np.ndarray:
    """[H, W, 3] or [H, W] of a layer -> float32 as linear light, which renderers take; what is no colour is kept."""
    values = values.astype(np.float32)
    return to_linear(values) if layer.in_colour and layer.space == "srgb" else values


def layer_to_rgb(values: np.ndarray, layer: Layer) -> np.ndarray:
    """[H, W, 3] or [H, W] of a layer -> [H, W, 3] uint8 as ``to_display`` shows it, other numbers as grey."""
    if layer.classes:
        return np.array([one.rgb for one in layer.classes], np.uint8)[values.astype(int)]
    levels = np.rint(to_display(values, layer) * np.float32(255)).astype(np.uint8)
    return levels if layer.in_colour else np.repeat(levels[..., None], 3, axis=-1)


def value_range(prediction: Map) -> tuple[float, float]:
    """The depths shown as 0 and 1: those themselves for kind "affine", else the map's least and greatest value."""
    if prediction.kind == "affine":
        return 0.0, 1.0
    return float(prediction.values.min()), float(prediction.values.max())


def to_unit(prediction: Map) -> np.ndarray:
    """Depth prediction -> [H, W] float32 in [0, 1] over its ``value_range``; a constant map of another kind is 0."""
    return stretch(prediction.values, *value_range(prediction))


def to_levels(prediction: Map, top: type[np.integer[Any]], *, near_white: bool) -> np.ndarray:
    """Depth prediction -> [H, W] from 0 to the greatest number of an unsigned type, over its ``value_range``."""
    low, high = value_range(prediction)
    white = np.float32(np.iinfo(top).max)

    def levels(values: np.ndarray) -> np.ndarray:
        unit = stretch(values, low, high)
        return np.rint((1 - unit if near_white else unit) * white).astype(top)

    return in_bands(levels, prediction.values)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """[H, W] -> [H, W] float32 in [0, 1], from ``low`` to ``high``; all 0 or 1 where these are the same."""
    return np.clip((values - low) / ((high - low) or 1e-9), 0, 1).astype(np.float32)


def colour_range(prediction: Map, colours: ColourSettings) -> tuple[float, float]:
    """The depths that take the first and the last colour, in the units of the map; the nearer one comes first."""
    low, high = value_range(prediction)
    return low + colours.range_from * (high - low), low + colours.range_to * (high - low)


def to_rgb(prediction: Map, colours: ColourSettings | None = None) -> np.ndarray:
    """Any prediction -> [H, W, 3] uint8; the colours, by default those of ``ColourSettings``, apply to depth only.

    Of intrinsics it is the first layer, albedo.
    """
    if prediction.modality == "normals":
        return normals_to_rgb(prediction.values)
    if prediction.layers:
        first = prediction.layers[0]
        return layer_to_rgb(channels_of(prediction.layers, first.name, prediction.values), first)
    colours = colours or ColourSettings()
    low, high = colour_range(prediction, colours)
    name, invert = colours.colormap, colours.invert
    return in_bands(lambda rows: depth_to_rgb(stretch(rows, low, high), name, invert=invert), prediction.values)


def to_png(prediction: Map, longest_px: int = NOTEBOOK_PX) -> bytes:
    """Any prediction -> its picture as a PNG file, its longest edge at most that."""
    picture, file = Image.fromarray(to_rgb(prediction)), BytesIO()
    picture.thumbnail((longest_px, longest_px))
    picture.save(file, "PNG")
    return file.getvalue()


def show(prediction: Map) -> None:
    """Show the picture of a prediction: in the notebook that this runs in, else in the system's picture viewer.

    Raises:
        ExportError: there is neither.
    """
    ipython: Any = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        ipython.display.display(prediction)
        return
    without_screen = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if without_screen or not ImageShow.show(Image.fromarray(to_rgb(prediction))):  # which would not see that it fails
        raise ExportError('This machine has no program that shows pictures; write it with save(..., ["color"]).')
