"""A comparison: denoising steps x members x seeds x checkpoints on one photo, its cost, its run and its differences.

Command line, page and HTTP endpoint call the same ``run``. Every cell is reduced to a small map as soon as it is there,
so that a large comparison holds no large arrays. Nothing here prints, draws or writes files; ``contact_sheet`` does.
"""

import csv
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from marigold_core.errors import SettingsError
from marigold_core.images.differences import difference, shrink
from marigold_core.images.intrinsics import Layer
from marigold_core.pipeline.views import count_views, relative_pixels
from marigold_core.prediction import Cell, Kind, Prediction, Progress, Space, UncertaintyMeasure
from marigold_core.settings import (
    DEFAULT_COLORMAP,
    Colormap,
    DepthReading,
    Frozen,
    Pixels,
    Settings,
    Views,
    bounds,
    default,
    help_text,
)

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint, Claim
    from marigold_core.images.photo import Photo
    from marigold_core.pipeline.pipeline import MarigoldPipeline

COMPARED_PX = 512  # longest edge of the maps that are compared and shown
MAX_CELLS = 200  # of one checkpoint: a sheet of more could not be read
MAX_MINUTES = 30.0
PLACES = {"seconds": 3, "uncertainty": 4, "difference": 4, "difference_p95": 4}  # decimal places in tables


# ------------------------------------------------------------------------------- what is compared


def _range(name: str) -> Any:
    """Return the range of a setting for the items of a list of its values."""
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
    processing_resolution: Pixels | None = Field(default=None, description=help_text(Settings, "processing_resolution"))
    views: Views = Field(default=default(Settings, "views"), description=help_text(Settings, "views"))
    most_minutes: float = Field(default=MAX_MINUTES, gt=0, description="refuse beforehand what would take longer")

    @field_validator("steps", "sizes", "seeds", mode="before")
    @classmethod
    def _as_tuple(cls, values: object) -> object:
        return tuple(cast(list[object], values)) if isinstance(values, list) else values

    @field_validator("steps", "sizes", "seeds")
    @classmethod
    def _ascending(cls, values: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not values:
            raise ValueError(f"{info.field_name} must have at least one value")
        return tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _usable(self) -> Self:
        Settings(processing_resolution=self.processing_resolution)
        if self.cells > MAX_CELLS:
            raise ValueError(f"{self.cells} cells are too many for one sheet, which holds {MAX_CELLS}")
        return self

    @property
    def cells(self) -> int:
        """Number of cells of one checkpoint."""
        return len(self.steps) * len(self.sizes) * len(self.seeds)

    @property
    def largest(self) -> Settings:
        """Settings of the cell of most steps and members."""
        return self.shared.changed(num_inference_steps=max(self.steps), ensemble_size=max(self.sizes))

    @property
    def sample(self) -> Settings:
        """Settings of the run that ``measure`` times: one member of two steps, or of one where no cell has more."""
        return self.shared.changed(num_inference_steps=min(2, max(self.steps)))

    @property
    def shared(self) -> Settings:
        """Settings that all cells have in common."""
        return Settings(processing_resolution=self.processing_resolution, views=self.views)


def count_cells(requested: Comparison, checkpoints: Sequence[str], max_cells: int | None = None) -> int:
    """Count the cells of all checkpoints; ``max_cells`` is a lower maximum than that of ``Comparison``.

    Raises:
        SettingsError: there are more cells than that, or no checkpoint.
    """
    if not checkpoints:
        raise SettingsError("Choose at least one checkpoint.")
    cells = len(checkpoints) * requested.cells
    if max_cells is not None and cells > max_cells:
        raise SettingsError(f"{cells} cells are too many to look at side by side; choose at most {max_cells}.")
    return cells


def check_alike(checkpoints: "Sequence[Checkpoint | Claim]") -> None:
    """Refuse checkpoints that cannot stand in one table. Raises: SettingsError."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"Two of the checkpoints are called {twice!r}; give one of them a folder of another name.")
    if len({(one.modality, one.kind, one.space, one.layers) for one in checkpoints}) > 1:
        kinds = ", ".join(f"{one.name} gives {_quantity(one)}" for one in checkpoints)
        raise SettingsError(f"The checkpoints cannot be compared, as their results differ in meaning: {kinds}.")


def _quantity(checkpoint: "Checkpoint | Claim | Prediction") -> str:
    """Name what a network predicts, or what a map holds, such as "affine log depth" or "albedo and roughness"."""
    if checkpoint.layers:
        return " and ".join(layer.name for layer in checkpoint.layers)
    quantity = {"depth": checkpoint.modality, "log": "log depth", "disparity": "disparity"}[checkpoint.space]
    return f"{checkpoint.kind} {quantity}"


# ------------------------------------------------------------------------------- what it costs


@dataclass(frozen=True)
class PartTimes:
    """Seconds of the parts of a run on this machine, for one checkpoint and photo."""

    encode_s: float
    step_s: float  # of one member
    decode_s: float  # of one member, and of bringing it to the photo's size

    def run_s(self, members: int, steps: int, decodes: int, views: Views) -> float:
        """Predict the seconds of ``members`` members of one photo, each with so many steps and decodes."""
        each = relative_pixels(views, members) * (steps * self.step_s + decodes * self.decode_s)
        return count_views(views, members) * self.encode_s + members * each

    def predict_s(self, requested: Comparison) -> float:
        """Predict the seconds of all cells of a comparison: encoding, members and first steps are shared."""
        members = max(requested.sizes) * len(requested.seeds)
        steps = 1 + sum(requested.steps) - len(requested.steps)
        return self.run_s(members, steps, len(requested.steps), requested.views)

    def separate_s(self, requested: Comparison) -> float:
        """Predict the seconds of all cells as runs of their own, which share nothing."""
        cells = product(requested.seeds, requested.steps, requested.sizes)
        return sum(self.run_s(members, steps, 1, requested.views) for _, steps, members in cells)


@dataclass(frozen=True)
class Cost:
    """What a comparison will cost."""

    cells: int
    seconds: float
    separate_s: float  # as many runs of their own would take
    measured: bool  # False: a first guess, nothing was timed here yet
    download_bytes: int  # to fetch first, in a time that cannot be predicted


def measure(events: Iterator[Progress | Prediction]) -> Generator[Progress, None, PartTimes]:
    """Time the parts of a run with the settings ``Comparison.sample``; a step is the second one, which is warmed up.

    Of a run of one step half of the time before the end of that step is taken as the step's.
    """
    times = [perf_counter()]
    for event in events:
        if isinstance(event, Prediction) or "step" in event.stage:
            times.append(perf_counter())
        yield Progress(0, 0, "timing a first member")
    first, *later, decode_s = np.diff(times).tolist()
    step_s = later[0] if later else first / 2
    return PartTimes(max(0.0, first - step_s), step_s, decode_s)


def check_minutes(seconds: float, requested: Comparison) -> None:
    """Refuse what would take longer than it may. Raises: SettingsError with the predicted time."""
    if seconds > requested.most_minutes * 60:
        raise SettingsError(
            f"This comparison would take about {format_seconds(seconds)}, more than the"
            f" {format_seconds(requested.most_minutes * 60)} it may; choose fewer or smaller values."
        )


def format_seconds(seconds: float) -> str:
    """12.3 -> "12 s", 100 -> "1.7 minutes"; below 10 s with one decimal place."""
    if seconds >= 90:
        return f"{seconds / 60:.{seconds < 600:d}f} minutes"
    return f"{seconds:.{seconds < 9.95:d}f} s"


# ------------------------------------------------------------------------------- how far results lie apart

TILE_COLUMNS = ("checkpoint", "seed", "steps", "members", "seconds", "uncertainty", "uncertainty_measure")
COLUMNS = (*TILE_COLUMNS, "difference", "difference_p95", "reference")  # mean, 95th percentile; whether it is the one
Record = dict[str, Any]  # the figures of one cell, by column


@dataclass(frozen=True)
class Tile:
    """One cell, or a depth map from elsewhere beside the cells, reduced."""

    checkpoint: str
    modality: str
    kind: Kind
    space: Space
    values: np.ndarray  # [h, w] or [h, w, C] float32, longest edge at most COMPARED_PX
    seed: int | None = None  # None, as steps, members and seconds, of a map from elsewhere
    steps: int | None = None
    members: int | None = None
    seconds: float | None = None  # its members alone, without encoding
    uncertainty: float | None = None  # mean over the photo; None where it has none
    uncertainty_measure: UncertaintyMeasure | None = None  # what that is the mean of
    layers: tuple[Layer, ...] = ()  # of intrinsics
    missing: np.ndarray | None = None  # [h, w] bool: where a map from elsewhere has no value


@dataclass(frozen=True)
class Row:
    """One cell beside the reference."""

    tile: Tile
    difference: np.ndarray  # [h, w] >= 0, see ``difference``; 0 where one of the two has no value
    is_reference: bool
    known: np.ndarray | slice  # [h, w] bool: where both have a value

    @cached_property
    def record(self) -> Record:
        """Gather the figures of the cell."""
        return {
            **{name: getattr(self.tile, name) for name in TILE_COLUMNS},
            "difference": float(self.difference[self.known].mean()),
            "difference_p95": float(np.percentile(self.difference[self.known], 95)),
            "reference": self.is_reference,
        }

    def figures(self) -> tuple[str, ...]:
        """Format the figures for a table; what is not known is empty."""
        return tuple(_figure(name, value) for name, value in self.record.items())


def reduce(cell: Cell) -> Tile:
    """Keep of a cell what its row and its picture need."""
    made, used = cell.prediction, cell.settings
    return Tile(
        checkpoint=made.checkpoint,
        modality=made.modality,
        kind=made.kind,
        space=made.space,
        values=shrink(made.values, COMPARED_PX, kind=made.kind),
        seed=used.seed,
        steps=used.num_inference_steps,
        members=used.ensemble_size,
        seconds=cell.seconds,
        uncertainty=None if made.uncertainty is None else float(made.uncertainty.mean()),
        uncertainty_measure=None if made.uncertainty is None else made.uncertainty_measure,
        layers=made.layers,
    )


def check_reading(reading: DepthReading, is_given: bool, fov_x_deg: float | None = None) -> None:
    """Refuse to read a depth map from elsewhere in some way where there is none. Raises: SettingsError."""
    given = reading.model_dump(exclude_none=True) | ({} if fov_x_deg is None else {"fov_x_deg": fov_x_deg})
    if given and not is_given:
        raise SettingsError(f"{next(iter(given))} is of use with a depth map.")


def reduce_given(given: Prediction, cell: "Prediction | Checkpoint | Claim") -> Tile:
    """Keep of a depth map from elsewhere what stands beside cells, turned into the quantity that ``cell`` is in.

    Raises: SettingsError where the two cannot be compared.
    """
    values, missing = given.values.astype(np.float64), given.missing
    if given.kind in ("scale", "metric") and cell.kind in ("affine", "scale"):  # what is more is given up
        if cell.kind == "affine":
            values = {"depth": values, "log": np.log(values), "disparity": -1 / values}[cell.space]
            values = values - values.min()
        values = values / (values.max() or 1.0)
    elif (given.modality, given.kind, given.space) != (cell.modality, cell.kind, cell.space):
        raise SettingsError(
            f"The depth map cannot be compared: it is {_quantity(given)}, but the checkpoint gives {_quantity(cell)}."
        )
    small = shrink(values.astype(np.float32), COMPARED_PX)
    unknown = None if missing is None else shrink(missing.astype(np.float32), COMPARED_PX) > 0
    return Tile(given.checkpoint, cell.modality, cell.kind, cell.space, small, missing=unknown)


def against_reference(tiles: Sequence[Tile], reference: Tile | None = None) -> list[Row]:
    """Measure every tile against one of them -> rows in the same order.

    By default the reference is a map from elsewhere, else the tile of most steps, then members, among equals the first.
    Raises: SettingsError when the tiles are not all of one modality, kind and space.
    """
    if len({(tile.modality, tile.kind, tile.space, tile.layers) for tile in tiles}) > 1:
        raise SettingsError("Only results of one kind can be compared: all depth, all disparity or all normals.")
    reference = reference or max(tiles, key=lambda tile: (tile.steps or np.inf, tile.members or np.inf))
    return [_row(tile, reference) for tile in tiles]


def _row(tile: Tile, reference: Tile) -> Row:
    unknown = [one.missing for one in (tile, reference) if one.missing is not None]
    known = ~np.any(unknown, axis=0) if unknown else np.s_[:]
    apart = difference(tile.values, reference.values, tile.kind, known)
    for missing in unknown:
        apart[missing] = 0
    return Row(tile, apart, tile is reference, known)


def to_csv(rows: Iterable[Row]) -> bytes:
    """Rows -> the table as a CSV file, one line a cell under a line of names."""
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows(map(no_formula, row.figures()) for row in rows)
    return file.getvalue().encode(errors="backslashreplace")


def no_formula(cell: str) -> str:
    """Keep a spreadsheet from running a name as a formula; numbers stay numbers."""
    return (
        f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not re.fullmatch(r"[-+]?[\d.]+", cell) else cell
    )


def _figure(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.{PLACES[name]}f}" if name in PLACES else str(value)


# ------------------------------------------------------------------------------- running it


@dataclass(eq=False)
class Sweep:
    """One comparison during its run and after: the cells so far, what they are measured against, how they are shown.

    A job appends tiles while the page may pin one, or choose other colours.
    """

    photo: "Photo"
    requested: Comparison
    checkpoints: tuple[str, ...]
    shows: Literal["maps", "differences"] = "maps"
    colormap: Colormap = DEFAULT_COLORMAP
    pinned: int | None = None  # the tile that the others are measured against; None: as ``against_reference``
    is_running: bool = False
    given: Prediction | None = None  # a depth map of the photo from elsewhere, which comes before the first cell
    file: Path | None = None  # that the photo was read from
    tiles: list[Tile] = field(default_factory=list[Tile])  # in the order of ``places``, after the given map's
    _measured: tuple[int, int | None, list[Row]] = field(default=(0, None, []), init=False)  # tiles, pinned, rows

    def places(self) -> list[tuple[str, int, int, int]]:
        """List what the cells stand for: checkpoint, seed, steps, members; sizes ascend fastest."""
        return list(product(self.checkpoints, self.requested.seeds, self.requested.steps, self.requested.sizes))

    @property
    def done(self) -> int:
        """Number of cells so far."""
        return max(0, len(self.tiles) - (self.given is not None))

    def rows(self) -> list[Row]:
        """Measure the cells so far against the pinned one."""
        tiles, pinned = list(self.tiles), self.pinned
        if self._measured[:2] != (len(tiles), pinned):
            reference = None if pinned is None else tiles[pinned]
            self._measured = len(tiles), pinned, against_reference(tiles, reference)
        return self._measured[2]

    def pin(self, number: int) -> None:
        """Measure the others against this cell; the number of one that is not there changes nothing."""
        if 0 <= number < len(self.tiles):
            self.pinned = number

    @property
    def size_bytes(self) -> int:
        """Memory held by the arrays."""
        maps = sum(tile.values.nbytes for tile in list(self.tiles))
        return self.photo.pixels.nbytes + maps + sum(row.difference.nbytes for row in self._measured[2])


def run(
    sweep: Sweep,
    open_pipeline: Callable[[str], Generator[Progress, None, "MarigoldPipeline"]],
    time_parts: Callable[[str], Generator[Progress, None, PartTimes]],
    announce: Callable[[float], None] | None = None,
) -> Iterator[Progress | Cell]:
    """Predict the time, refuse what would take too long, then fill ``sweep``, yielding progress and every cell.

    Closing the iterator stops before the next step and keeps the cells so far.

    Args:
        sweep: what is compared; its tiles are appended one by one, sizes ascending fastest, then steps.
        open_pipeline: yields progress while a checkpoint is loaded and returns its pipeline.
        time_parts: yields progress and returns the seconds that the parts of a run of a checkpoint take.
        announce: is called with the predicted seconds before the first cell.

    Raises:
        SettingsError: the comparison would take longer than ``Comparison.most_minutes``.
    """
    requested, count, seconds = sweep.requested, len(sweep.checkpoints), 0.0
    for checkpoint in sweep.checkpoints:
        parts = yield from time_parts(checkpoint)
        seconds += parts.predict_s(requested)
    check_minutes(seconds, requested)
    if announce is not None:
        announce(seconds)
    for number, checkpoint in enumerate(sweep.checkpoints):
        pipe = yield from open_pipeline(checkpoint)
        for event in pipe.stream_grid(sweep.photo, requested.steps, requested.sizes, requested.seeds, requested.shared):
            if isinstance(event, Progress):
                yield Progress(number * event.total + event.done, count * event.total, event.stage)
            else:
                if sweep.given and not sweep.tiles:
                    sweep.tiles.append(reduce_given(sweep.given, event.prediction))
                sweep.tiles.append(reduce(event))
                yield event
