"""A room of known depth in metres, and what a perfect network would predict of it."""

from dataclasses import replace

import numpy as np

from marigold_core.calibration.anchors import Anchor, Length
from marigold_core.calibration.calibrate import Calibrated
from marigold_core.calibration.plane_fit import Patch
from marigold_core.geometry.camera import unproject
from marigold_core.prediction import Prediction, Space
from tests.helpers.predictions import prediction_of

SPACES: tuple[Space, ...] = ("depth", "log", "disparity")
HEIGHT, WIDTH, FOV_DEG = 120, 160, 60.0
FLOOR = Patch(((12, 88), (150, 119)))
SPOTS = ((80, 112), (20, 20), (75, 58), (140, 100), (60, 92))  # near, wall, box, floor, floor


def room(floor_m: float = 1.5, wall_m: float = 8.0) -> np.ndarray:
    """[H, W] metres along the axis: a floor, a wall at its end, a box before it and in the corner a window."""
    rays = unproject(np.ones((HEIGHT, WIDTH), np.float32), FOV_DEG).astype(np.float64)
    z = 1 / np.maximum(rays[..., 1] / floor_m, 1 / wall_m)
    z[:6, :6] = 1.25 * wall_m
    return np.where((np.abs(rays[..., 0]) < 0.12) & (np.abs(rays[..., 1]) < 0.15), 4.0, z)


def planted(z: np.ndarray, space: Space = "depth", fov_x_deg: float | None = FOV_DEG) -> Prediction:
    """Metres -> the prediction of a perfect network of this space: 0 nearest, 1 farthest."""
    line = {"depth": z, "log": np.log(z), "disparity": -1 / z}[space]
    values = (line - line.min()) / np.ptp(line)
    return prediction_of(values, "affine", space, fov_x_deg=fov_x_deg, checkpoint="planted")


def unknowns(z: np.ndarray, space: Space) -> tuple[float, float]:
    line = {"depth": z, "log": np.log(z), "disparity": 1 / z}[space]
    near, far = (line.max(), line.min()) if space == "disparity" else (line.min(), line.max())
    return far - near, near


def noisy(prediction: Prediction, share: float, seed: int) -> Prediction:
    noise = np.random.default_rng(seed).normal(size=prediction.values.shape) * share
    return replace(prediction, values=(prediction.values + noise).clip(0, 1).astype(np.float32))


def anchors(z: np.ndarray, count: int) -> tuple[Anchor, ...]:
    return tuple(Anchor(x, y, float(z[y, x])) for x, y in SPOTS[:count])


def length(z: np.ndarray, a: tuple[int, int], b: tuple[int, int]) -> Length:
    points = unproject(z.astype(np.float32), FOV_DEG).astype(np.float64)
    return Length(*a, *b, float(np.linalg.norm(points[a[1], a[0]] - points[b[1], b[0]])))


def abs_rel(found: Calibrated, z: np.ndarray) -> float:
    return float(np.mean(np.abs(found.values - z) / z))
