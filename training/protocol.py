"""What is compared with what: a protocol, and the guesses that every score should be read beside."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field

from marigold_core.settings import Frozen
from training.metrics import AlignmentSpace, abs_rel, align, delta
from training.readers import Measured

Predictor = Callable[[np.ndarray], np.ndarray]  # photo [H, W, 3] uint8 -> map [h, w] that grows with depth
Fractions = tuple[float, float, float, float]  # top, bottom, left, right as shares of height and width


class Protocol(Frozen):
    """What is compared with what. Numbers of different protocols cannot be compared."""

    space: AlignmentSpace = Field(default="depth", description="quantity in which scale and shift are fitted")
    near_m: float = Field(default=1e-3, gt=0, description="nearest depth that counts, metres")
    far_m: float = Field(default=80.0, gt=0, description="farthest depth that counts, metres")
    crop: Fractions | None = Field(
        default=None, description="part of the picture that counts: top, bottom, left, right, 0-1"
    )

    def mask(self, truth_m: np.ndarray) -> np.ndarray:
        """Choose the pixels of [H, W] that count: measured, in range, inside the crop."""
        valid = np.isfinite(truth_m)
        valid[valid] = (truth_m[valid] > self.near_m) & (truth_m[valid] < self.far_m)
        if self.crop is not None:
            height, width = truth_m.shape
            top, bottom, left, right = self.crop
            inside = np.zeros_like(valid)
            inside[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
            valid &= inside
        return valid

    def score(self, prediction: np.ndarray, truth_m: np.ndarray) -> dict[str, float]:
        """Score one map [h, w] against the truth [H, W] -> AbsRel and delta1 over the pixels that count."""
        valid = self.mask(truth_m)
        if prediction.shape != truth_m.shape:
            size = truth_m.shape[::-1]
            prediction = np.asarray(
                Image.fromarray(prediction.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
            )
        aligned = align(prediction, truth_m, valid, self.space)[valid].clip(self.near_m, self.far_m)
        truth = truth_m[valid].astype(np.float64)
        return {"abs_rel": abs_rel(aligned, truth), "delta1": delta(aligned, truth)}


def ramp(pixels: np.ndarray) -> np.ndarray:
    """Guess without looking that depth grows from the bottom to the top."""
    height, width = pixels.shape[:2]
    return np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], width, axis=1)


def constant(pixels: np.ndarray) -> np.ndarray:
    """Guess without looking that all is equally far."""
    return np.zeros(pixels.shape[:2], np.float32)


BASELINES: dict[str, Predictor] = {"vertical ramp": ramp, "constant": constant}


def evaluate(predict: Predictor, photos: Sequence[Measured], protocol: Protocol) -> list[dict[str, float]]:
    """Score a predictor on every photograph -> one row of metrics each, in their order."""
    return [protocol.score(predict(photo.pixels), photo.depth_m) for photo in photos]


def averages(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average each metric over photographs, every photograph counting the same."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
