"""The comparisons of every visitor: each is told its cost, bounded, run in the service's one turn, and kept."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marigold_core.comparison.board import Board
from marigold_core.comparison.sweep import Comparison, Tile, check_alike, check_minutes, reduce
from marigold_core.errors import ExportError, SettingsError
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Progress
from marigold_core.serving.jobs import Service, check_cost
from marigold_core.serving.results import Shelf
from marigold_core.serving.run_times import timed
from marigold_core.settings import Settings, default

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import PhotoSource

MOST_SHOWN = 64  # cells of one comparison, all checkpoints together
MOST_MINUTES = 10.0  # others wait meanwhile
KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Cost:
    """What a comparison will cost."""

    cells: int
    seconds: float
    separate_s: float  # as many runs of their own would take
    measured: bool  # False: a first guess, nothing was timed here yet
    download_bytes: int  # to fetch first, whose time nobody knows


class Comparisons:
    """Runs comparisons and keeps their boards under ids that cannot be guessed. Thread-safe."""

    def __init__(self, service: Service, kept_bytes: int = KEPT_BYTES) -> None:
        """Begin without any; ``service`` gives the checkpoints, the turn and the folder."""
        self._service = service
        self._boards: Shelf[Board] = Shelf(kept_bytes, lambda board: shutil.rmtree(board.folder, ignore_errors=True))

    def cost(self, asked: Comparison, checkpoints: Sequence[str], photo_size: tuple[int, int]) -> Cost:
        """Say what a comparison on a photo [H, W] will cost; loads nothing.

        Raises: SettingsError when it is more than one comparison may; CheckpointError.
        """
        cells = check_cells(asked, checkpoints)
        told = [self._service.forecast(_one(asked), photo_size, checkpoint) for checkpoint in checkpoints]
        cost = Cost(
            cells,
            sum(forecast.pace.predict_s(asked) for forecast in told),
            sum(forecast.pace.separate_s(asked) for forecast in told),
            all(forecast.measured for forecast in told),
            sum(forecast.download_bytes for forecast in told),
        )
        if cost.measured:
            check_minutes(cost.seconds, asked)
        return cost

    def begin(self, photo: "PhotoSource", asked: Comparison, checkpoints: Sequence[str]) -> tuple[str, Board]:
        """Keep an empty board for a comparison -> its id and itself. Raises: ImageError, SettingsError."""
        check_cells(asked, checkpoints)
        board = Board(load_photo(photo), asked, tuple(checkpoints), self._service.new_folder())
        return self._boards.put(board), board

    def run(self, board: Board) -> Iterator[Progress | Tile]:
        """Fill a board, yielding progress and every ``Tile`` that was added; closing stops before the next step.

        Checkpoints are loaded and the time is bounded before the first cell; where nothing was timed yet, a member of
        two steps is. Raises: SettingsError, CheckpointError.
        """
        service, asked, size = self._service, board.asked, board.photo.pixels.shape[:2]
        records = []
        for checkpoint in board.checkpoints:
            pipe = yield from service.loaded(checkpoint)
            largest = {"num_inference_steps": max(asked.steps), "ensemble_size": max(asked.sizes)}
            check_cost(pipe.resolve(Settings(**largest, processing_resolution=asked.processing_resolution)), size)
            records.append(pipe.checkpoint)
        check_alike(records)
        yield from service.take_turn()
        try:
            for checkpoint in board.checkpoints:
                if not service.forecast(_one(asked), size, checkpoint).measured:
                    yield from self._time(board, checkpoint)
            self.cost(asked, board.checkpoints, size)
            yield from self._fill(board)
        finally:
            service.end_turn()

    def board(self, key: str | None) -> Board:
        """Return a kept board. Raises: ExportError when there is none, or it had to make room."""
        board = self._boards.get(key)
        if board is None:
            raise ExportError("This comparison is no longer kept; run it again.")
        return board

    def export(self, board: Board) -> list[Path]:
        """Write the cells so far as ``python -m marigold_core compare`` does -> sheet, differences, table.

        Raises: ExportError when there is no cell yet or the disk refuses.
        """
        from marigold_core.comparison.contact_sheet import write

        if not board.tiles:
            raise ExportError("There is no cell yet to write; run the comparison first.")
        return write(board.rows(), board.photo.pixels, board.colormap, board.folder)

    def _time(self, board: Board, checkpoint: str) -> Iterator[Progress]:
        """Run one member of two steps for its times alone."""
        pipe = yield from self._service.loaded(checkpoint)
        for _ in timed(pipe.stream(board.photo, _one(board.asked)), checkpoint):
            yield Progress(0, 0, "timing a first member")

    def _fill(self, board: Board) -> Iterator[Progress | Tile]:
        count = len(board.checkpoints)
        for number, checkpoint in enumerate(board.checkpoints):
            pipe = yield from self._service.loaded(checkpoint)
            for event in board.asked.run(pipe, board.photo):
                if isinstance(event, Progress):
                    yield Progress(number * event.total + event.done, count * event.total, event.stage)
                else:
                    board.tiles.append(reduce(event))
                    yield board.tiles[-1]


def ask(
    steps: Sequence[int] = default(Comparison, "steps"),
    sizes: Sequence[int] = default(Comparison, "sizes"),
    seeds: Sequence[int] = default(Comparison, "seeds"),
    processing_resolution: int | None = default(Comparison, "processing_resolution"),
) -> Comparison:
    """Make a comparison of what a visitor asked for, with the time that one may take. Raises: SettingsError."""
    return Comparison(
        steps=_tuple(steps),
        sizes=_tuple(sizes),
        seeds=_tuple(seeds),
        processing_resolution=processing_resolution,
        most_minutes=MOST_MINUTES,
    )


def check_cells(asked: Comparison, checkpoints: Sequence[str]) -> int:
    """Count the cells. Raises: SettingsError when there are more than can be shown."""
    if not checkpoints:
        raise SettingsError("Choose at least one checkpoint.")
    cells = len(checkpoints) * asked.cells
    if cells > MOST_SHOWN:
        raise SettingsError(f"{cells} cells are too many to look at side by side; choose at most {MOST_SHOWN}.")
    return cells


def _tuple(values: Sequence[int]) -> tuple[int, ...]:
    """Turn a list into the tuple that ``Comparison`` wants; what is no list goes on as it is, to be refused there."""
    return tuple(values) if isinstance(values, list) else values  # type: ignore[return-value]


def _one(asked: Comparison) -> Settings:
    """Make settings of the least run at the comparison's resolution whose parts can be timed."""
    return Settings(num_inference_steps=2, processing_resolution=asked.processing_resolution)
