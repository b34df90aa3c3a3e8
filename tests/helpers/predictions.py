"""Predictions made of plain arrays, for tests in which the model and the settings do not matter."""

from dataclasses import replace
from typing import Any

import numpy as np

from marigold_core.images.intrinsics import Layer
from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import Settings

LAYERS = (
    Layer("albedo", 0, (0, 1, 2), "linear"),
    Layer("shading", 1, (0, 1, 2), "linear", up_to_scale=True),
    Layer("roughness", 2, (0,), "linear"),
)


def layers_of(height: int, width: int, members: int = 3, **others: Any) -> Prediction:
    """Intrinsic images of a photo [H, W], as a checkpoint with three pictures makes them."""
    values = np.random.default_rng(0).random((height, width, 7)).astype(np.float32) * 0.5
    others = {"uncertainty": values[..., 0] / 9, "members": np.stack([values] * members).astype(np.float16)} | others
    settings = Settings(ensemble_size=members).resolved(4, 64)
    made = prediction_of(values, kind="unit-range", settings=settings, **others)
    return replace(made, modality="intrinsics", layers=LAYERS)


def prediction_of(values: np.ndarray, kind: Kind = "affine", space: Space = "depth", **others: Any) -> Prediction:
    """[H, W] depth or [H, W, 3] normals -> its prediction, over a black photo unless another one is given."""
    return Prediction(
        modality="normals" if kind == "unit-vector" else "depth",
        kind=kind,
        space=space,
        values=values.astype(np.float32),
        **{
            "uncertainty": None,
            "members": None,
            "photo": np.zeros((*values.shape[:2], 3), np.uint8),
            "fov_x_deg": None,
            "settings": Settings().resolved(4, 64),
            "checkpoint": "tiny",
            "checkpoint_sha256": "0" * 64,
            **others,
        },
    )
