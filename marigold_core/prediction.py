"""What a run yields: small progress events on the way and a ``Prediction`` at the end of every member."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from marigold_core.settings import ResolvedSettings

Kind = Literal["affine", "scale", "metric", "unit-vector"]  # what may be claimed about the values
Space = Literal["depth", "log", "disparity"]  # the quantity that the network predicts; values always grow with distance
DepthTransfer = Literal["linear", "root"]  # from depth to the grey of the picture that the autoencoder encodes


@dataclass(frozen=True)
class Prediction:
    """One result at the photo's size.

    Depth: 0 = near plane, 1 = far plane, z along the optical axis, unknown scale and shift for kind "affine".
    Normals: unit vectors, X right, Y up, Z toward the viewer.
    """

    modality: str  # "depth" or "normals"
    kind: Kind
    space: Space
    values: np.ndarray  # depth [H, W] float32, normals [H, W, 3] float32
    uncertainty: np.ndarray | None  # [H, W] float32 >= 0, spread of the members in the units of values; None below 3
    members: np.ndarray | None  # [E, h, w] or [E, h, w, 3] float16 at processing resolution, before alignment
    photo: np.ndarray  # [H, W, 3] uint8, upright
    fov_x_deg: float | None  # horizontal field of view from EXIF, degrees
    settings: ResolvedSettings
    checkpoint: str  # short name, hub id or the folder's name
    checkpoint_sha256: str
    device: str | None = None  # "cpu", "cuda" or "mps"; None where that was not kept
    dtype: str | None = None  # of the weights: "float32", "float16" or "bfloat16"


@dataclass(frozen=True)
class Progress:
    """What a run has done: ``done`` of ``total`` units of work, ``stage`` in words; total 0 means unknown."""

    done: int
    total: int
    stage: str


class ProgressEvents:
    """The progress events of a run, to iterate over; ``result`` is its last prediction once they are through."""

    result: Prediction

    def __init__(self, events: Iterator[Progress | Prediction]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Progress]:
        for event in self._events:
            if isinstance(event, Prediction):
                self.result = event
            else:
                yield event


@dataclass(frozen=True)
class Cell:
    """One cell of a comparison: its prediction, and the seconds its own members took (encoding excluded)."""

    prediction: Prediction
    seconds: float

    @property
    def settings(self) -> ResolvedSettings:
        """The settings this cell stands for."""
        return self.prediction.settings
