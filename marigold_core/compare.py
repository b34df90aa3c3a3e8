"""Denoising steps x members x seed x checkpoint side by side: what it will cost, and how far the results lie apart.

Every cell is reduced to a small map as soon as it is there, so that a large comparison holds no large arrays. Nothing
here prints, draws or writes; ``sheet`` makes pictures of the rows.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from .errors import SettingsError
from .prediction import Cell, Kind, Prediction
from .settings import Frozen, Settings, bounds, help_text

if TYPE_CHECKING:
    from .pipeline import MarigoldPipeline, PhotoSource

COMPARED_PX = 512  # longest edge of the maps that are compared and shown
MOST_CELLS = 200  # of one checkpoint: a sheet of more could not be read
COLUMNS = (
    *("checkpoint", "seed", "steps", "members", "seconds"),
    *("uncertainty", "difference", "difference_p95", "reference"),
)


def _range(name: str) -> object:
    """Take the range of a setting over for the items of a list of its values."""
    low, high = bounds(Settings, name)
    return Field(ge=low, le=high)


class Comparison(Frozen):
    """The cells of one comparison, and how long it may take."""

    steps: tuple[Annotated[int, _range("num_inference_steps")], ...] = Field(
        default=(1, 2, 4, 10), description="denoising steps to compare: the rows"
    )
    sizes: tuple[Annotated[int, _range("ensemble_size")], ...] = Field(
        default=(1, 3, 5, 10), description="numbers of members to compare: the columns"
    )
    seeds: tuple[Annotated[int, _range("seed")], ...] = Field(default=(0,), description="seeds to compare")
    processing_resolution: int | None = Field(default=None, description=help_text(Settings, "processing_resolution"))
    most_minutes: float = Field(default=30.0, gt=0, description="refuse beforehand what would take longer")

    @field_validator("steps", "sizes", "seeds")
    @classmethod
    def _ascending(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _usable(self) -> Self:
        Settings(processing_resolution=self.processing_resolution)
        if self.cells > MOST_CELLS:
            raise ValueError(f"{self.cells} cells are too many for one sheet, which holds {MOST_CELLS}")
        return self

    @property
    def cells(self) -> int:
        """Number of cells of one checkpoint."""
        return len(self.steps) * len(self.sizes) * len(self.seeds)

    def run(self, pipe: "MarigoldPipeline", photo: "PhotoSource") -> Iterator[Cell]:
        """Yield every cell of one checkpoint, members and encodes shared; sizes ascend fastest, then steps."""
        return pipe.grid(
            photo,
            steps=self.steps,
            sizes=self.sizes,
            seeds=self.seeds,
            processing_resolution=self.processing_resolution,
        )


# ------------------------------------------------------------------------------- what it costs


@dataclass(frozen=True)
class Pace:
    """Seconds of the parts of a run on this machine, for one checkpoint and photo."""

    encode_s: float
    step_s: float  # of one member
    decode_s: float  # of one member, and of bringing it to the photo's size

    def predict_s(self, asked: Comparison) -> float:
        """Predict the seconds of all cells of a comparison: encoding, members and first steps are shared."""
        members = max(asked.sizes) * len(asked.seeds)
        steps = 1 + sum(asked.steps) - len(asked.steps)
        return self.encode_s + members * (steps * self.step_s + len(asked.steps) * self.decode_s)


def measure(pipe: "MarigoldPipeline", photo: "PhotoSource", processing_resolution: int | None) -> Pace:
    """Run one member of two steps and time its parts; the first step, which warms the machine up, is not trusted."""
    settings = Settings(num_inference_steps=2, processing_resolution=processing_resolution)
    times = [perf_counter()]
    for event in pipe.stream(photo, settings):
        if isinstance(event, Prediction) or "step" in event.stage:
            times.append(perf_counter())
    first, step_s, decode_s = np.diff(times).tolist()
    return Pace(max(0.0, first - step_s), step_s, decode_s)


def check_minutes(seconds: float, asked: Comparison) -> None:
    """Refuse what would take longer than it may. Raises: SettingsError that says the predicted time."""
    if seconds > asked.most_minutes * 60:
        raise SettingsError(
            f"This comparison would take about {in_words(seconds)}, more than the {in_words(asked.most_minutes * 60)}"
            " it may; choose fewer steps, sizes or seeds, or raise most_minutes."
        )


def in_words(seconds: float) -> str:
    """12.3 -> "12 s", 100 -> "1.7 minutes"; below 10 s with one decimal place."""
    if seconds >= 90:
        return f"{seconds / 60:.{seconds < 600:d}f} minutes"
    return f"{seconds:.{seconds < 9.95:d}f} s"


# ------------------------------------------------------------------------------- how far results lie apart


@dataclass(frozen=True)
class Tile:
    """One cell, reduced."""

    checkpoint: str
    settings: Settings
    seconds: float  # its members alone, without encoding
    modality: str
    kind: Kind
    values: np.ndarray  # [h, w] or [h, w, 3] float32, longest edge at most COMPARED_PX
    uncertainty: float | None  # mean over the photo; None below three members

    @property
    def steps(self) -> int:
        """Denoising steps of each member."""
        assert self.settings.num_inference_steps is not None  # the settings of a prediction are resolved
        return self.settings.num_inference_steps

    @property
    def members(self) -> int:
        """Members that were fused."""
        return self.settings.ensemble_size


@dataclass(frozen=True)
class Row:
    """One cell beside the reference."""

    tile: Tile
    difference: np.ndarray  # [h, w] >= 0, see ``difference``
    is_reference: bool

    def figures(self) -> tuple[str, ...]:
        """The row of the table, as ``COLUMNS``; what is not known is empty."""
        tile = self.tile
        doubt = "" if tile.uncertainty is None else f"{tile.uncertainty:.4f}"
        apart = f"{self.difference.mean():.4f}", f"{np.percentile(self.difference, 95):.4f}"
        which = tile.checkpoint, str(tile.settings.seed), str(tile.steps), str(tile.members)
        return (*which, f"{tile.seconds:.3f}", doubt, *apart, "yes" if self.is_reference else "")


def reduce(cell: Cell) -> Tile:
    """Keep of a cell what its row and its picture need."""
    made = cell.prediction
    doubt = None if made.uncertainty is None else float(made.uncertainty.mean())
    return Tile(made.checkpoint, made.settings, cell.seconds, made.modality, made.kind, _shrink(made.values), doubt)


def against_reference(tiles: Sequence[Tile]) -> list[Row]:
    """Measure every tile against the one of most steps and members, among equals the first -> rows in the same order.

    Raises: SettingsError when the tiles are not all of one modality and kind.
    """
    if len({(tile.modality, tile.kind) for tile in tiles}) > 1:
        raise SettingsError("Only results of one kind can be compared: all depth, or all normals.")
    reference = max(tiles, key=lambda tile: (tile.steps, tile.members))
    return [Row(tile, difference(tile.values, reference.values, tile.kind), tile is reference) for tile in tiles]


def difference(values: np.ndarray, reference: np.ndarray, kind: Kind) -> np.ndarray:
    """Two maps [h, w] or [h, w, 3] of one kind -> how far they lie apart at each pixel, [h, w] float32 >= 0.

    Depth: what remains after a least squares fit of what the kind leaves open, scale and shift or scale alone, in the
    reference's units. A fit never turns a map over. Normals: the angle between them over pi.
    """
    if kind == "unit-vector":
        return (np.arccos(np.clip((values * reference).sum(-1), -1, 1)) / np.pi).astype(np.float32)
    return np.abs(_fit(values.astype(np.float64), reference.astype(np.float64), kind) - reference).astype(np.float32)


def to_csv(rows: Iterable[Row]) -> bytes:
    """Rows -> the table as a CSV file, one line a cell under a line of names."""
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows(row.figures() for row in rows)
    return file.getvalue().encode()


def _fit(values: np.ndarray, reference: np.ndarray, kind: Kind) -> np.ndarray:
    if kind == "metric":
        return values
    centre = values.mean() if kind == "affine" else 0.0
    target = reference.mean() if kind == "affine" else 0.0
    offset = values - centre
    spread = float((offset**2).sum())
    scale = max(0.0, float((offset * (reference - target)).sum()) / spread) if spread else 0.0
    return scale * offset + target


def _shrink(values: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 3] float32 -> the same map with its longest edge at most COMPARED_PX; vectors stay unit."""
    height, width = values.shape[:2]
    scale = min(1.0, COMPARED_PX / max(height, width))
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
