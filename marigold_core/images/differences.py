"""Maps resized, and how far two of one kind lie apart, whatever their kind leaves open."""

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from marigold_core.settings import Kind

NEAR_QUANTILE, FAR_QUANTILE = 0.02, 0.98
ROUNDING = 1e-5  # of a depth


def difference(
    values: np.ndarray, reference: np.ndarray, kind: Kind, known: np.ndarray | slice = np.s_[:]
) -> np.ndarray:
    """Two maps [h, w] or [h, w, C] of one kind -> how far they lie apart at each pixel, [h, w] float32 >= 0.

    Depth: what remains after a least squares fit of what the kind leaves open, scale and shift or scale alone, to the
    ``known`` pixels [h, w], in the reference's units. A negative scale is never fitted. Normals: the angle between
    them over pi. Intrinsics [h, w, C]: the mean over their channels.
    """
    if kind == "unit-vector":
        return (np.arccos(np.clip((values * reference).sum(-1), -1, 1)) / np.pi).astype(np.float32)
    if kind == "class":
        return (values != reference).astype(np.float32)
    if kind == "unit-range":
        return np.abs(values - reference).mean(axis=-1)
    fitted = _fit(values.astype(np.float64), reference.astype(np.float64), kind, known)
    return np.abs(fitted - reference).astype(np.float32)


def resize_map(
    values: np.ndarray, size: tuple[int, int], resample: Resampling | None = None, kind: Kind = "affine"
) -> np.ndarray:
    """Resize a map [h, w] or [h, w, C] to (height, width) in float32; a map of that size is returned as it is.

    By default the area average when it becomes smaller, bilinear when an edge becomes longer. Vectors of ``kind``
    "unit-vector" are brought back to unit length.
    """
    height, width = size
    if values.shape[:2] == size:
        return values
    if kind == "class":  # there is none between two of them
        resample = Resampling.NEAREST
    if resample is None:
        resample = Resampling.BOX if height <= values.shape[0] and width <= values.shape[1] else Resampling.BILINEAR
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), resample))
        for plane in np.moveaxis(np.atleast_3d(values), -1, 0)
    ]
    if values.ndim == 2:
        return planes[0]
    resized = np.stack(planes, axis=-1)
    if kind != "unit-vector":
        return resized
    return resized / np.maximum(np.linalg.norm(resized, axis=-1, keepdims=True), 1e-6)


def shrink(
    values: np.ndarray, longest_px: int, resample: Resampling | None = None, kind: Kind = "affine"
) -> np.ndarray:
    """[H, W] or [H, W, C] float32 -> the same map with its longest edge at most that, by ``resize_map``."""
    height, width = values.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    return resize_map(values, (max(1, round(height * scale)), max(1, round(width * scale))), resample, kind)


def _fit(values: np.ndarray, reference: np.ndarray, kind: Kind, known: np.ndarray | slice) -> np.ndarray:
    if kind == "metric":
        return values
    centre = values[known].mean() if kind == "affine" else 0.0
    target = reference[known].mean() if kind == "affine" else 0.0
    offset, wanted = values - centre, reference - target
    spread = float((offset[known] ** 2).sum())
    scale = max(0.0, float((offset[known] * wanted[known]).sum()) / spread) if spread else 0.0
    return scale * offset + target


def depth_planes(known: np.ndarray) -> tuple[float, float] | None:
    """Depths [N], or another quantity of theirs -> the near and the far plane; None where all are one depth.

    They are the 2 % and the 98 % quantile. What differs by less than float32 rounds in a renderer's formulas is one.
    Source: Ke et al. 2024, section 3.2, robust ends of the valid depth range.
    """
    if not known.size:
        return None
    # numpy selects where torch sorts: a sixth of the time, and no limit of 16 million values
    near, far = np.quantile(known, (NEAR_QUANTILE, FAR_QUANTILE)).tolist()
    return (near, far) if far - near > ROUNDING * max(abs(near), abs(far)) else None
