"""Denoising steps x members x seed x checkpoint side by side: what it will cost, and how far the results lie apart.

Every cell is reduced to a small map as soon as it is there, so that a large comparison holds no large arrays. Nothing
here prints, draws or writes; ``sheet`` makes pictures of the rows.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Self, TypedDict

import numpy as np
from pydantic import Field, field_validator, model_validator

from marigold_core.errors import SettingsError
from marigold_core.images.differences import difference, shrink
from marigold_core.prediction import Cell, Kind, Prediction, Progress
from marigold_core.settings import Frozen, ResolvedSettings, Settings, bounds, help_text

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline, PhotoSource

COMPARED_PX = 512  # longest edge of the maps that are compared and shown
MOST_CELLS = 200  # of one checkpoint: a sheet of more could not be read
SHEET, DIFFERENCES, TABLE = "compare.png", "compare_difference.png", "compare.csv"
PLACES = {"seconds": 3, "uncertainty": 4, "difference": 4, "difference_p95": 4}  # decimal places in tables


class Record(TypedDict):
    """The figures of one cell."""

    checkpoint: str
    seed: int
    steps: int
    members: int
    seconds: float  # its members alone, without encoding
    uncertainty: float | None  # mean over the photo; None below three members
    difference: float  # mean over the photo, to the reference
    difference_p95: float
    reference: bool


COLUMNS = tuple(Record.__annotations__)


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
        if not values:
            raise ValueError("choose at least one number of steps, one size and one seed")
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

    def run(self, pipe: "MarigoldPipeline", photo: "PhotoSource") -> Iterator[Progress | Cell]:
        """Yield every cell of one checkpoint, members and encodes shared; sizes ascend fastest, then steps."""
        return pipe.stream_grid(photo, self.steps, self.sizes, self.seeds, self.processing_resolution)


def check_alike(checkpoints: Sequence["Checkpoint"]) -> None:
    """Refuse checkpoints that cannot stand in one table. Raises: SettingsError."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"Two of the checkpoints are called {twice!r}; give one of them a folder of another name.")
    if len({(checkpoint.modality, checkpoint.kind, checkpoint.space) for checkpoint in checkpoints}) > 1:
        kinds = ", ".join(f"{one.name} gives {one.kind} {one.modality}" for one in checkpoints)
        raise SettingsError(f"The checkpoints cannot be compared, as their results differ in meaning: {kinds}.")


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

    def separate_s(self, asked: Comparison) -> float:
        """Predict the seconds of all cells as runs of their own, which share nothing."""
        members = len(asked.steps) * sum(asked.sizes) * len(asked.seeds)
        steps = sum(asked.steps) * sum(asked.sizes) * len(asked.seeds)
        return asked.cells * self.encode_s + steps * self.step_s + members * self.decode_s


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
            " it may; choose fewer or smaller values."
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
    settings: ResolvedSettings
    seconds: float  # its members alone, without encoding
    modality: str
    kind: Kind
    values: np.ndarray  # [h, w] or [h, w, 3] float32, longest edge at most COMPARED_PX
    uncertainty: float | None  # mean over the photo; None below three members

    @property
    def steps(self) -> int:
        """Denoising steps of each member."""
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

    @cached_property
    def record(self) -> Record:
        """Gather the figures of the cell."""
        tile = self.tile
        return {
            "checkpoint": tile.checkpoint,
            "seed": tile.settings.seed,
            "steps": tile.steps,
            "members": tile.members,
            "seconds": tile.seconds,
            "uncertainty": tile.uncertainty,
            "difference": float(self.difference.mean()),
            "difference_p95": float(np.percentile(self.difference, 95)),
            "reference": self.is_reference,
        }

    def figures(self) -> tuple[str, ...]:
        """Write the figures as they stand in the table; what is not known is empty."""
        return tuple(_figure(name, value) for name, value in self.record.items())


def reduce(cell: Cell) -> Tile:
    """Keep of a cell what its row and its picture need."""
    made = cell.prediction
    doubt = None if made.uncertainty is None else float(made.uncertainty.mean())
    return Tile(
        made.checkpoint, made.settings, cell.seconds, made.modality, made.kind, shrink(made.values, COMPARED_PX), doubt
    )


def against_reference(tiles: Sequence[Tile], reference: Tile | None = None) -> list[Row]:
    """Measure every tile against one of them -> rows in the same order.

    By default the reference is the tile of most steps, then members, among equals the first.
    Raises: SettingsError when the tiles are not all of one modality and kind.
    """
    if len({(tile.modality, tile.kind) for tile in tiles}) > 1:
        raise SettingsError("Only results of one kind can be compared: all depth, or all normals.")
    reference = reference or max(tiles, key=lambda tile: (tile.steps, tile.members))
    return [Row(tile, difference(tile.values, reference.values, tile.kind), tile is reference) for tile in tiles]


def to_csv(rows: Iterable[Row]) -> bytes:
    """Rows -> the table as a CSV file, one line a cell under a line of names."""
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows(row.figures() for row in rows)
    return file.getvalue().encode()


def _figure(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.{PLACES[name]}f}" if name in PLACES else str(value)
