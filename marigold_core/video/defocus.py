"""Depth of field from one photo: sharp at a chosen distance, blurred like by a wide aperture before and behind it."""

from itertools import product
from pathlib import Path

import cv2
import numpy as np

from marigold_core import storage
from marigold_core.files.formats import png
from marigold_core.geometry.camera import metric_z
from marigold_core.geometry.depth_filters import ndimage, sharpen
from marigold_core.images.colormaps import from_linear, to_linear
from marigold_core.prediction import Prediction
from marigold_core.settings import CameraSettings
from marigold_core.video.settings import DefocusSettings, check_focus

FILES = {"picture": "defocus.png", "invented": "defocus_invented.png"}
LAYERS = 16
LONGEST_PX = 2048  # of the picture that is made
OUTLINE_PX = 2  # by which an outline of the map may miss that of the photo, which is a pixel or two wide itself
JUMP = 2  # layers over which depth jumps rather than slopes
ALIKE = 0.02  # difference of light below which two pixels look alike
FILL_PX = 2.0  # by which what is filled is smoothed: rows of pixels are repeated otherwise
SEEN = 0.02  # share of a pixel's light from which on what is behind an edge counts as shown


def defocus(
    prediction: Prediction, settings: DefocusSettings | None = None, mesh: CameraSettings | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A photo with its depth -> the picture [h, w, 3] uint8 and which pixels [h, w] show what the photo does not.

    The blur grows with the difference of 1 / z, as that of a thin lens does. Layers are laid over each other from far
    to near, each with the light of its own pixels alone, so that a sharp edge does not bleed into what is behind it;
    what a blurred edge lets through from behind is filled with the nearest pixels there. Light is linear.

    Raises:
        ExportError: the prediction is not depth.
        SettingsError: the focus lies outside the photo.
    """
    settings, mesh = settings or DefocusSettings(), mesh or CameraSettings()
    height, width = prediction.photo.shape[:2]
    x, y = check_focus(settings, prediction.photo_size)
    x, y = x * width / prediction.photo_size[1], y * height / prediction.photo_size[0]
    z = sharpen(metric_z(prediction, mesh), mesh.edge_cut)
    scale = min(1.0, LONGEST_PX / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    light = to_linear(cv2.resize(prediction.photo, size, interpolation=cv2.INTER_AREA))
    nearness = 1 / z
    focus = float(np.median(nearness[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]))
    nearness = cv2.resize(nearness.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    low, high = float(nearness.min()), float(nearness.max())
    step = (high - low) / LAYERS or 1.0
    layer = np.clip(np.rint((nearness - focus) / step), -LAYERS, LAYERS).astype(int)  # 0 is sharp
    widest = settings.aperture * max(size) / 2  # radius where 1 / z differs by the whole focus distance
    made, invented = light, np.zeros(layer.shape, np.float32)
    front, back, share = split_outlines(layer, light)
    layer = np.where(share > 0.5, front, back)
    for number in np.unique(layer):
        radius = float(widest * abs(number) * step / max(focus, step))
        own = (front == number) & (back == number)
        own = own if own.any() else layer == number
        nearest = ndimage.distance_transform_edt(~own, return_distances=False, return_indices=True)
        filled = light[tuple(nearest)]
        filled = np.where(own[..., None], light, cv2.GaussianBlur(filled, (0, 0), FILL_PX))
        colours = _blur(filled, radius)
        if number == layer.min():
            made, invented = colours, (layer != number).astype(np.float32)
            continue
        share_of = np.where(back >= number, 1, np.where(front >= number, share, 0)).astype(np.float32)
        cover = _blur(share_of, radius)
        made = made + cover[..., None] * (colours - made)
        hidden = _blur((layer >= number - 1).astype(np.float32), radius)  # the next layer of a slope shows nothing new
        invented = np.where(layer > number, 1.0, invented * (1 - hidden))  # light from behind the pixel's own layer
    return np.rint(255 * from_linear(np.clip(made, 0, 1))).astype(np.uint8), invented > SEEN


def split_outlines(layer: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell how the light of a pixel near a jump of depth is shared by two layers, as outlines of a photo are of both.

    A pixel that looks like one off the outline, on either side, is of that side. Else its share of the layer in front
    is where its colour lies between those of the nearest pixels of both sides. So the outline is that of the photo,
    where the map's is a pixel or two beside it.

    Args:
        layer: numbers of layers [h, w], the nearest the greatest.
        light: the photo [h, w, 3], linear.

    Returns:
        The layers in front and behind [h, w], the same where a pixel is of one alone, and the share [h, w] of the
        first.
    """
    side = 2 * OUTLINE_PX + 1
    high, low = ndimage.maximum_filter(layer, side), ndimage.minimum_filter(layer, side)
    at_jump = high - low > JUMP
    places = np.flatnonzero(at_jump)
    rows, columns = np.divmod(places, layer.shape[1])
    layers, colours = layer.reshape(-1), light.reshape(-1, 3)
    middle = (high + low).reshape(-1)[places] / 2
    nearest = np.full((2, len(places)), -1)  # the place of the nearest pixel behind and in front
    unlike = np.full((2, len(places)), np.inf)  # how much the most similar of either side differs
    reach = range(-side, side + 1)
    for y, x in sorted(product(reach, reach), key=lambda offset: offset[0] ** 2 + offset[1] ** 2):
        row, column = np.clip(rows + y, 0, layer.shape[0] - 1), np.clip(columns + x, 0, layer.shape[1] - 1)
        there = row * layer.shape[1] + column
        is_off, is_front = ~at_jump.reshape(-1)[there], layers[there] > middle
        differs = np.abs(colours[there] - colours[places]).max(-1)
        for number, of_side in enumerate((is_off & ~is_front, is_off & is_front)):
            nearest[number] = np.where(of_side & (nearest[number] < 0), there, nearest[number])
            unlike[number] = np.where(of_side, np.minimum(unlike[number], differs), unlike[number])
    behind, ahead = colours[nearest]
    across = ahead - behind
    mixed: np.ndarray = ((colours[places] - behind) * across).sum(-1) / np.maximum((across**2).sum(-1), 1e-6)
    by_map, by_likeness = (layers[places] > middle).astype(np.float64), (unlike[1] < unlike[0]).astype(np.float64)
    share: np.ndarray = np.where((nearest >= 0).all(0), np.clip(mixed, 0, 1), by_map)
    share = np.where(unlike.min(0) < ALIKE, by_likeness, share)
    front, back, shares = layers.copy(), layers.copy(), np.ones(len(layers), np.float32)
    for number, one in enumerate((back, front)):  # a thing that is too thin to have an inside stays as it is
        one[places] = np.where((nearest >= 0).all(0), layers[nearest[number]], layers[places])
    front[places] = np.where(share == 0, back[places], front[places])
    back[places] = np.where(share == 1, front[places], back[places])
    shares[places] = share
    shape = layer.shape
    return front.reshape(shape), back.reshape(shape), shares.reshape(shape)


def save_defocus(
    prediction: Prediction,
    folder: str | Path,
    settings: DefocusSettings | None = None,
    mesh: CameraSettings | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the picture of ``defocus`` and one that is white where it is invented -> their paths.

    Raises:
        ExportError: a file exists already, the prediction is not depth, or the disk refuses.
        SettingsError: the focus lies outside the photo.
    """
    paths = {name: Path(folder) / file for name, file in FILES.items()}
    storage.refuse_existing(paths.values(), overwrite)
    texts = (None, {"meaning": "white where the photo does not show what is to be seen"})
    for path, picture, text in zip(paths.values(), defocus(prediction, settings, mesh), texts, strict=True):
        storage.write_bytes(path, png(picture, text))
    return paths


def _blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Average [h, w] or [h, w, 3] over a disc."""
    if radius < 0.5:
        return values
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return cv2.filter2D(values.astype(np.float32), -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE)
