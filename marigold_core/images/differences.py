"""How far two maps of one kind lie apart, whatever their kind leaves open."""

import numpy as np
from PIL import Image

from marigold_core.prediction import Kind


def difference(values: np.ndarray, reference: np.ndarray, kind: Kind) -> np.ndarray:
    """Two maps [h, w] or [h, w, 3] of one kind -> how far they lie apart at each pixel, [h, w] float32 >= 0.

    Depth: what remains after a least squares fit of what the kind leaves open, scale and shift or scale alone, in the
    reference's units. A fit never turns a map over. Normals: the angle between them over pi.
    """
    if kind == "unit-vector":
        return (np.arccos(np.clip((values * reference).sum(-1), -1, 1)) / np.pi).astype(np.float32)
    return np.abs(_fit(values.astype(np.float64), reference.astype(np.float64), kind) - reference).astype(np.float32)


def shrink(values: np.ndarray, longest_px: int) -> np.ndarray:
    """[H, W] or [H, W, 3] float32 -> the same map with its longest edge at most that; vectors stay unit."""
    height, width = values.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    if scale == 1:
        return values
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX))
        for plane in np.moveaxis(np.atleast_3d(values), -1, 0)
    ]
    if values.ndim == 2:
        return planes[0]
    vectors = np.stack(planes, axis=-1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _fit(values: np.ndarray, reference: np.ndarray, kind: Kind) -> np.ndarray:
    if kind == "metric":
        return values
    centre = values.mean() if kind == "affine" else 0.0
    target = reference.mean() if kind == "affine" else 0.0
    offset = values - centre
    spread = float((offset**2).sum())
    scale = max(0.0, float((offset * (reference - target)).sum()) / spread) if spread else 0.0
    return scale * offset + target
