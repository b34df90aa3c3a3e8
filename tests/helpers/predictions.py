"""Predictions made of plain arrays, for tests in which the model and the settings do not matter."""

from typing import Any

import numpy as np

from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import Settings


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
