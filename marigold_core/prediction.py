"""What a run yields: small progress events on the way and a ``Prediction`` at the end of every member."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from marigold_core.images.boxes import Box, find_boxes
from marigold_core.images.intrinsics import Layer, LayerName, channels_of
from marigold_core.settings import DepthReading, Kind, ResolvedSettings, Space

_CONVENTIONS: dict[Kind, str] = {
    "affine": "0 = near plane, 1 = far plane, z along the optical axis, up to an unknown scale and shift",
    "scale": "z along the optical axis from the camera, up to an unknown scale",
    "metric": "z along the optical axis from the camera, in metres",
    "unit-vector": "unit vectors, X right, Y up, Z toward the viewer",
    "unit-range": "layers of numbers in [0, 1]",
    "class": "numbers of classes",
}
_OF_SPACE: dict[Space, str] = {
    "depth": "",
    "log": " of the logarithm of depth",
    "disparity": " of 1 / depth, turned so that values grow with distance",
}
UncertaintyMeasure = Literal["spread", "expected error"]
_SPREADS: dict[str, str] = {  # what uncertainty is, by modality
    "depth": "spread of the members after alignment, in the units of the depth",
    "normals": "mean angle between the members and their mean direction, as a share of 180 degrees",
    "segmentation": "share of the members with another class",
    "intrinsics": "spread of the members, the mean of all layers",
}
_EXPECTED = (
    "error that a network expects, from 3 members on its mean with three times their spread, in the units of the depth"
)
SPREAD_FROM = 3  # members; the spread of two says too little
DepthTransfer = Literal["linear", "root"]  # from depth to the grey of the picture that the autoencoder encodes


def gives_uncertainty(members: int, expects_errors: bool) -> bool:
    """Whether so many members give uncertainty, of a checkpoint that expects errors by a network or does not."""
    return members >= SPREAD_FROM or (members > 0 and expects_errors)


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One result at the photo's size.

    Depth: 0 = near plane, 1 = far plane, z along the optical axis, unknown scale and shift for kind "affine".
    Normals: unit vectors, X right, Y up, Z toward the viewer.
    Intrinsics: the channels of all ``layers`` in their order, each in [0, 1]. Segmentation: numbers of classes.
    """

    modality: str  # "depth", "normals", "intrinsics" or "segmentation"
    kind: Kind
    space: Space  # the quantity that the network predicts; values always grow with distance
    values: np.ndarray  # depth, classes [H, W], normals [H, W, 3], intrinsics [H, W, C], float32; all are numbers
    uncertainty: np.ndarray | None  # [H, W] float32 >= 0, in the units of values; a spread is None below 3 members
    members: np.ndarray | None  # [E, h, w] or [E, h, w, C] float16 at processing resolution, before alignment
    photo: np.ndarray  # [H, W, 3] uint8, upright
    fov_x_deg: float | None  # horizontal field of view from EXIF, degrees
    settings: ResolvedSettings | DepthReading  # of the run, or how a depth map from elsewhere was read
    checkpoint: str  # short name, hub id or the folder's name; of a map from elsewhere "given: NAME"
    checkpoint_sha256: str  # of its weights, or of the file of that map
    device: str | None = None  # "cpu", "cuda" or "mps"; None where that was not kept
    dtype: str | None = None  # of the weights: "float32", "float16" or "bfloat16"
    torch_threads: int | None = None  # of the run, which decide last bits; None where that was not kept
    machine: str | None = None  # likewise: system, instructions of the processor, GPU
    tiled: bool = False  # whether memory ran out, so that the autoencoder worked in tiles, whose seams may show
    note: str | None = None  # what a person should know about how the photo was decoded
    given_size: tuple[int, int] | None = None  # (height, width) of the photo where it was read smaller
    missing: np.ndarray | None = None  # [H, W] bool: where a map from elsewhere has no value, only one filled in
    tiny_decoder: str | None = None  # name and hash of the tiny autoencoder that decoded members; None: none did
    preview: bool = False  # whether its last member was decoded by that for a preview only
    uncertainty_measure: UncertaintyMeasure = "spread"  # what the uncertainty is
    layers: tuple[Layer, ...] = ()  # of intrinsics and classes: what the channels of the values are

    def layer(self, name: LayerName) -> np.ndarray:
        """Return a layer of intrinsics -> [H, W, 3], without colour [H, W], float32 in [0, 1].

        Raises: SettingsError where there is no such layer.
        """
        return channels_of(self.layers, name, self.values)

    def boxes(self) -> list[Box]:
        """Read objects off centres, sizes and classes -> boxes in pixels of ``photo``, best first.

        Raises: SettingsError for a prediction without these layers.
        """
        return find_boxes(self.layers, self.values)

    def has_uncertainty(self, members: int, *, guided: bool = False) -> bool:
        """Whether it has uncertainty, whatever is asked for."""
        return self.uncertainty is not None

    @property
    def spread(self) -> np.ndarray | None:
        """The uncertainty where it is the spread of the members; None where an error is expected in its place."""
        return self.uncertainty if self.uncertainty_measure == "spread" else None

    @property
    def uncertainty_meaning(self) -> str:
        """What the uncertainty is, in a line that files carry."""
        return _SPREADS[self.modality] if self.uncertainty_measure == "spread" else _EXPECTED

    @property
    def known_values(self) -> np.ndarray:
        """The values, NaN where they are ``missing``."""
        return self.values if self.missing is None else np.where(self.missing, np.float32(np.nan), self.values)

    @property
    def fused(self) -> int:
        """How many members it was made of; 0 for a depth map from elsewhere."""
        return self.settings.ensemble_size if isinstance(self.settings, ResolvedSettings) else 0

    @property
    def photo_size(self) -> tuple[int, int]:
        """(height, width) of the photo that was given: positions on it are in pixels of this size."""
        height, width = self.photo.shape[:2]
        return self.given_size or (height, width)

    @property
    def convention(self) -> str:
        """What the values mean, near and far end included, in a line that files carry."""
        layers = "".join(f"; {layer.name}: {layer.meaning}" for layer in self.layers)
        return _convention(self.kind, self.space) + layers

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
        made, how = self.settings, f", {self.checkpoint}"
        if isinstance(made, ResolvedSettings):
            steps, members = made.num_inference_steps, made.ensemble_size
            counts = f"{steps} step{'s' * (steps != 1)}, {members} member{'s' * (members != 1)}"
            how = f", checkpoint {self.checkpoint}, {counts}, seed {made.seed}"
        return f"<{type(self).__name__}: {self.kind} {self.modality}{of}, {width} x {height}{how}>"

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
        assert isinstance(self.prediction.settings, ResolvedSettings)  # cells are made by runs
        return self.prediction.settings


def meaning_of(claim: str) -> tuple[Kind, Space] | None:
    """Read the kind and the space back from a line that begins "kind: convention"; None for any other line."""
    for kind in _CONVENTIONS:
        for space in _OF_SPACE:
            if claim.partition(";")[0] == f"{kind}: {_convention(kind, space)}".partition(";")[0]:
                return kind, space
    return None


def _convention(kind: Kind, space: Space) -> str:
    return _CONVENTIONS[kind] + _OF_SPACE[space]


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return np.array_equal(one, other, equal_nan=True) if type(one) is np.ndarray else one == other
