"""A photo and its depth to what two eyes would see, side by side or as an anaglyph."""

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from marigold_core.geometry.camera import field_of_view, focal_length_px, metric_z
from marigold_core.geometry.depth_filters import sharpen
from marigold_core.images.bands import in_bands
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings

CRACK_PX = 2  # gaps this narrow in one surface come of rounding


def stereo_pair(prediction: Prediction, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """Depth prediction -> picture [H, W', 3] uint8 and mask [H, W'] bool of what the photo does not show.

    The eyes look in parallel, ``stereo_eye_distance`` of the nearest depth apart, to both sides of the camera. What
    lies at ``stereo_convergence`` is at the same place in both pictures, as if it lay on the screen; what one eye alone
    sees behind an edge is filled from the farther side, row by row, and marked. W' is 2 W, for half width W, one more
    where that is odd, and W for anaglyphs, of which red is the left eye's.

    Raises:
        ExportError: as ``metric_z``.
    """
    z = sharpen(metric_z(prediction, settings), settings.edge_cut)
    near, far = float(z.min()), float(z.max())
    screen = 1 / (near + settings.stereo_convergence * (far - near))
    focal_px = focal_length_px(z.shape[1], field_of_view(prediction, settings))
    distance, layout = settings.stereo_eye_distance, settings.stereo_layout

    def draw(photo: np.ndarray, z: np.ndarray) -> np.ndarray:
        half_px = focal_px * distance * near * (1 / z - screen) / 2  # the near ones have the most
        (left, left_filled), (right, right_filled) = (_seen(photo, half_px, side) for side in (1, -1))
        if layout == "anaglyph":
            return np.dstack([left[..., :1], right[..., 1:], left_filled | right_filled])
        if layout.startswith("cross-eyed"):
            left, left_filled, right, right_filled = right, right_filled, left, left_filled
        pictures, masks = [left, right], [left_filled, right_filled]
        if layout.endswith("half"):  # each by itself, so that none has a share of the other where the width is odd
            pictures = [_halved(eye) for eye in pictures]
            masks = [_halved(255 * eye.astype(np.uint8)) > 0 for eye in masks]
        return np.dstack([np.hstack(pictures), np.hstack(masks)])

    drawn = in_bands(draw, prediction.photo, z)
    return np.ascontiguousarray(drawn[..., :3]), drawn[..., 3] > 0


def _halved(picture: np.ndarray) -> np.ndarray:
    """Picture [H, W] or [H, W, 3] uint8 -> [H, ceil(W / 2)] or with 3: the means of what each pixel covers."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize(((width + 1) // 2, height), Resampling.BOX))


def _seen(photo: np.ndarray, shift_px: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Move each pixel to the ``side`` (1 is right) by its shift, the largest hiding others -> (picture, filled)."""
    height, width = shift_px.shape
    rows, columns = np.indices((height, width), sparse=True)
    order = np.argsort(shift_px, axis=1, kind="stable")  # the nearest come last and stay
    shifts = np.take_along_axis(shift_px, order, axis=1)
    places = np.rint(order + side * shifts).astype(np.intp)
    moved = np.full((height, width + 2), np.nan, np.float32)  # what leaves the picture goes to the two extra columns
    moved[rows, np.clip(places, -1, width) + 1] = shifts
    moved = moved[:, 1:-1]

    seen = ~np.isnan(moved)
    before = np.maximum.accumulate(np.where(seen, columns, -1), axis=1)  # the last pixel seen on the left, or -1
    after = np.minimum.accumulate(np.where(seen, columns, width)[:, ::-1], axis=1)[:, ::-1]
    ends = [np.take_along_axis(moved, np.clip(found, 0, width - 1), axis=1) for found in (before, after)]
    low, high = np.fmin(*ends), np.fmax(*ends)
    inside = (before >= 0) & (after < width)
    crack = inside & (after - before <= CRACK_PX + 1) & (high - low <= CRACK_PX)
    filled = ~seen & ~crack
    from_left = (before >= 0) & ((after == width) | (ends[0] <= ends[1]))
    farther = np.where(from_left, before, np.minimum(after, width - 1))
    moved = np.where(seen, moved, np.where(crack, (low + high) / 2, np.take_along_axis(moved, farther, axis=1)))
    moved = np.nan_to_num(moved)  # of rows that leave the picture as a whole
    return _sample(photo, np.where(filled, farther, columns) - side * moved), filled


def _sample(photo: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Photo [H, W, 3] at the columns x [H, W], between pixels linearly."""
    height, width = x.shape
    rows, _ = np.indices((height, width), sparse=True)
    x = np.clip(x, 0, width - 1)
    first = np.minimum(x.astype(np.intp), width - 2)
    share = (x - first)[..., None].astype(np.float32)
    return np.rint(photo[rows, first] * (1 - share) + photo[rows, first + 1] * share).astype(np.uint8)
