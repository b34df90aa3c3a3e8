"""What a run yields: small progress events on the way and a ``Prediction`` at the end of every member."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from marigold_core.settings import Kind, ResolvedSettings

Space = Literal["depth", "log", "disparity"]  # the quantity that the network predicts; values always grow with distance
_CONVENTIONS: dict[Kind, str] = {
    "affine": "0 = near plane, 1 = far plane, z along the optical axis, up to an unknown scale and shift",
    "scale": "z along the optical axis from the camera, up to an unknown scale",
    "metric": "z along the optical axis from the camera, in metres",
    "unit-vector": "unit vectors, X right, Y up, Z toward the viewer",
}
_OF_SPACE: dict[Space, str] = {
    "depth": "",
    "log": " of the logarithm of depth",
    "disparity": " of 1 / depth, turned so that values grow with distance",
}
DepthTransfer = Literal["linear", "root"]  # from depth to the grey of the picture that the autoencoder encodes


@dataclass(frozen=True, eq=False, repr=False)
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
    tiled: bool = False  # whether memory ran out, so that the autoencoder worked in tiles, whose seams may show
    note: str | None = None  # what a person should know about how the photo was decoded
    given_size: tuple[int, int] | None = None  # (height, width) of the photo where it was read smaller

    @property
    def photo_size(self) -> tuple[int, int]:
        """(height, width) of the photo that was given: positions on it are in pixels of this size."""
        height, width = self.photo.shape[:2]
        return self.given_size or (height, width)

    @property
    def convention(self) -> str:
        """What the values mean, near and far end included, in a line that files carry."""
        return _CONVENTIONS[self.kind] + _OF_SPACE[self.space]

    def __eq__(self, other: object) -> bool:
        """Compare all fields, arrays value by value."""
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, one.name), getattr(other, one.name)) for one in fields(self))

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # arrays have none

    def __repr__(self) -> str:
        """Describe it in one line."""
        height, width = self.values.shape[:2]
        of = f" in {self.space}" if self.space != "depth" else ""
        made = self.settings
        return (
            f"<{type(self).__name__}: {self.kind} {self.modality}{of}, {width} x {height},"
            f" checkpoint {self.checkpoint}, {made.num_inference_steps} steps, {made.ensemble_size} members,"
            f" seed {made.seed}>"
        )

    def _repr_png_(self) -> bytes:
        """Make the picture that a notebook shows."""
        from marigold_core.images.colormaps import to_png

        return to_png(self)

    def show(self) -> None:
        """Show the picture, in the notebook or in the system's picture viewer.

        Raises:
            ExportError: there is neither.
        """
        from marigold_core.images.colormaps import show

        show(self)


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


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return np.array_equal(one, other, equal_nan=True) if type(one) is np.ndarray else one == other
