"""The compare lab without a browser: the shared job, the board that fills, its cost and bounds, and what is drawn."""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from marigold_core import Cell, Progress, cli, load
from marigold_core.comparison.board import Board
from marigold_core.comparison.paint import MapPaint
from marigold_core.comparison.sweep import Comparison, Tile
from marigold_core.errors import CheckpointError, ExportError, SettingsError
from marigold_core.images.photo import load_photo
from marigold_core.serving.comparison_jobs import MOST_MINUTES, MOST_SHOWN, Comparisons, ask
from marigold_core.serving.jobs import Service
from marigold_core.serving.results import Shelf
from marigold_core.settings import Settings
from marigold_core.ui.api import fault
from marigold_core.ui.api_compare import read_comparison
from marigold_core.ui.screens import compare_grid
from marigold_core.ui.screens.compare_grid import Grid, draw_table

SMALL = {"steps": [1, 2], "sizes": [1, 3], "processing_resolution": 32}


def job(comparisons: Comparisons, photo: object, *checkpoints: object, **asked: object) -> tuple[Board, list]:
    """Run a small comparison to its end -> its board and its events."""
    _, board = comparisons.begin(photo, ask(**{**SMALL, **asked}), [str(name) for name in checkpoints])
    return board, list(comparisons.run(board))


def board_of(cells: int, folder: Path = Path(), name: str = "tiny", **asked: object) -> Board:
    """Make a board that has the first so many of its cells."""
    comparison = Comparison(**{"steps": (1, 2), "sizes": (1, 3), "seeds": (0,), **asked})
    board = Board(load_photo(np.zeros((30, 40, 3), np.uint8)), comparison, (name,), folder)
    for checkpoint, seed, steps, members in board.places()[:cells]:
        settings = Settings(num_inference_steps=steps, ensemble_size=members, seed=seed)
        values = np.random.default_rng(steps * 100 + members).random((30, 40), np.float32)
        board.tiles.append(Tile(checkpoint, settings, 0.5, "depth", "affine", values, 0.1 if members > 2 else None))
    return board


@pytest.fixture(autouse=True)
def own_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "files", loader=lambda name: load(name, device="cpu"))


@pytest.fixture
def comparisons(service: Service) -> Comparisons:
    return Comparisons(service)


# ------------------------------------------------------------------------------- the grid, step by step


def test_a_grid_tells_every_step_and_counts_them_all(tiny_depth: Path, photo: Callable) -> None:
    events = list(load(tiny_depth, device="cpu").stream_grid(photo(), (1, 2), (1, 2), (0, 7), 32))
    steps = [event.done for event in events if isinstance(event, Progress)]
    assert {event.total for event in events if isinstance(event, Progress)} == {2 * (1 + 2) * 2}
    assert steps == sorted(steps) and steps[-1] == 12
    assert sum(isinstance(event, Cell) for event in events) == 8


def test_a_closed_grid_takes_no_further_step(tiny_depth: Path, photo: Callable, monkeypatch) -> None:
    pipe, steps = load(tiny_depth, device="cpu"), []
    predict = pipe.predict_velocity
    monkeypatch.setattr(pipe, "predict_velocity", lambda *given: (steps.append(1), predict(*given))[1])
    events = pipe.stream_grid(photo(), (20,), (5,), (0,), 32)
    next(events), next(events)
    taken = len(steps)
    events.close()  # type: ignore[attr-defined]
    assert len(steps) == taken < 5


# ------------------------------------------------------------------------------- the job


def test_a_comparison_has_the_figures_of_the_command(
    comparisons: Comparisons, tiny_depth: Path, folder: Path, out: Path, write: Callable
) -> None:
    picture = write(folder / "a.png")
    board, events = job(comparisons, picture, tiny_depth, seeds=[0, 7])
    assert [tile for tile in events if isinstance(tile, Tile)] == board.tiles
    assert [(tile.settings.seed, tile.steps, tile.members) for tile in board.tiles] == [
        place[1:] for place in board.places()
    ]
    words = ["--steps", "1,2", "--sizes", "1,3", "--seeds", "0,7", "--processing-resolution", "32", "--device", "cpu"]
    assert cli.main(["compare", str(picture), "-o", str(out), "--model", str(tiny_depth), "--quiet", *words]) == 0
    sheet, differences, table = comparisons.export(board)
    assert {path.name for path in (sheet, differences, table)} == {path.name for path in (out / "a").iterdir()}
    assert figures(table) == figures(out / "a" / "compare.csv")


def figures(path: Path) -> list[dict[str, str]]:
    """Read a table without the times, which no two runs share."""
    return [{**row, "seconds": ""} for row in csv.DictReader(path.read_text().splitlines())]


def test_it_takes_the_turn_and_gives_it_back_when_it_is_closed(
    comparisons: Comparisons, service: Service, tiny_depth: Path, photo: Callable
) -> None:
    _, board = comparisons.begin(photo(), ask(**{**SMALL, "steps": [1, 20]}), [str(tiny_depth)])
    events = comparisons.run(board)
    while not isinstance(next(events), Tile):
        pass
    other = service.run(photo(), Settings(num_inference_steps=1, processing_resolution=32), str(tiny_depth))
    assert "waiting" in next(stage for stage in told(other) if "loading" not in stage)
    events.close()  # type: ignore[attr-defined]
    assert len(board.tiles) == 1
    assert any("member 1" in stage for stage in told(other))


def told(events: Iterator[object]) -> Iterator[str]:
    return (event.stage for event in events if isinstance(event, Progress))


def test_checkpoints_follow_one_another_under_one_bar(
    comparisons: Comparisons, tiny_depth: Path, tiny_depth_lcm: Path, photo: Callable
) -> None:
    board, events = job(comparisons, photo(), tiny_depth, tiny_depth_lcm)
    assert [tile.checkpoint for tile in board.tiles] == [tiny_depth.name] * 4 + [tiny_depth_lcm.name] * 4
    bar = [(event.done, event.total) for event in events if isinstance(event, Progress) and event.total]
    assert bar == sorted(bar) and bar[-1] == (2 * 3 * 3, 2 * 3 * 3)


def test_what_cannot_be_compared_is_refused_before_the_first_cell(
    comparisons: Comparisons, service: Service, tiny_depth: Path, tiny_normals: Path, photo: Callable
) -> None:
    depth = str(tiny_depth)
    with pytest.raises(SettingsError, match=f"72 cells are too many .* at most {MOST_SHOWN}"):
        comparisons.begin(photo(), ask([1, 2, 4], [1, 2, 3, 4, 5, 6], [0, 1, 2, 3]), [depth])
    with pytest.raises(SettingsError, match="at least one checkpoint"):
        comparisons.begin(photo(), ask(**SMALL), [])
    with pytest.raises(SettingsError, match="at least one number of steps"):
        ask([], [1], [0])
    for checkpoints, asked, message in (
        ([depth, str(tiny_normals)], ask(**SMALL), "results differ in meaning"),
        ([depth, depth], ask(**SMALL), "Two of the checkpoints"),
        ([depth], Comparison(steps=(1,), sizes=(1,), processing_resolution=32, most_minutes=1e-6), "would take about"),
        ([depth], ask([50], [20], [0], 2048), "too much for one run"),
    ):
        _, board = comparisons.begin(photo(600, 800), asked, checkpoints)
        with pytest.raises(SettingsError, match=message):
            list(comparisons.run(board))
        assert board.tiles == []
    assert len(job(comparisons, photo(), depth)[0].tiles) == 4  # none of them has kept the turn


def test_the_cost_is_told_without_the_model_and_shares_what_cells_share(
    service: Service, comparisons: Comparisons, tiny_depth: Path, photo: Callable, monkeypatch
) -> None:
    asked = ask([1, 2, 4, 10], [1, 3, 5, 10], [0], 32)
    guess = comparisons.cost(asked, [str(tiny_depth)], (48, 64))
    assert (guess.cells, guess.measured) == (16, False)
    job(comparisons, photo(), tiny_depth)
    monkeypatch.setattr(service, "warm", lambda name: pytest.fail("the model was asked for"))
    cost = comparisons.cost(asked, [str(tiny_depth)], (48, 64))
    pace = service.forecast(Settings(processing_resolution=32), (48, 64), str(tiny_depth)).pace
    assert cost.measured and cost.seconds == pytest.approx(pace.predict_s(asked))
    alone = sum(
        pace.encode_s + size * (n * pace.step_s + pace.decode_s) for n, size in product(asked.steps, asked.sizes)
    )
    assert cost.separate_s == pytest.approx(alone)
    assert cost.seconds < 0.6 * cost.separate_s
    with pytest.raises(SettingsError, match="would take about"):
        comparisons.cost(asked.model_copy(update={"most_minutes": 1e-6}), [str(tiny_depth)], (48, 64))
    assert asked.most_minutes == MOST_MINUTES


# ------------------------------------------------------------------------------- what is kept


def test_the_longest_unused_makes_room_and_is_tidied_away() -> None:
    dropped = []
    shelf = Shelf(100, dropped.append)
    first, second, third = (SimpleNamespace(size_bytes=size) for size in (40, 40, 200))
    one, two = shelf.put(first), shelf.put(second)
    assert shelf.get(one) is first
    second.size_bytes = 70  # a board grows after it was put
    shelf.put(SimpleNamespace(size_bytes=10))
    assert dropped == [second] and shelf.get(two) is None and shelf.get(one) is first
    assert shelf.get(shelf.put(third)) is third  # alone it may be as heavy as it is
    assert shelf.get(one) is shelf.get(None) is shelf.get("no such id") is None


def test_a_board_that_is_gone_is_told(comparisons: Comparisons) -> None:
    for key in (None, "0" * 32):
        with pytest.raises(ExportError, match="no longer kept"):
            comparisons.board(key)
    with pytest.raises(ExportError, match="no cell yet"):
        comparisons.export(board_of(0))


def test_a_pinned_cell_is_what_the_others_are_measured_against() -> None:
    board = board_of(4)
    assert [row.is_reference for row in board.rows()] == [False, False, False, True]
    assert board.rows() is board.rows()  # measured once
    board.pin(1)
    assert [row.is_reference for row in board.rows()] == [False, True, False, False]
    assert board.rows()[1].difference.max() < 1e-5 < board.rows()[3].difference.mean()
    for nowhere in (-1, 4):
        board.pin(nowhere)
    assert board.pinned == 1
    less = board_of(3)
    assert less.size_bytes < board_of(4).size_bytes < board.size_bytes  # its differences count too


# ------------------------------------------------------------------------------- what is drawn


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep pictures out of the page's cache -> the files that were written."""
    written: list[str] = []

    def save(picture, folder: str, name: str, format: str) -> str:
        written.append(str(tmp_path / f"{len(written)}.png"))
        picture.save(written[-1])
        return written[-1]

    monkeypatch.setattr(compare_grid, "save_pil_to_cache", save)
    return written


def test_cells_stand_in_their_places_and_the_rest_is_still_to_come(painted: list[str]) -> None:
    drawn = Grid().draw(board_of(3, seeds=(0, 5)))
    assert drawn.count("<table") == 2 and "tiny, seed 5" in drawn
    assert re.findall(r"data-cell='(\d+)'", drawn) == ["0", "1", "2"]
    assert drawn.count("<span class='cell'>") == 5
    assert re.findall(r"scope='(?:row|col)'>([^<]+)", drawn)[:4] == ["1 member", "3 members", "1 step", "2 steps"]
    assert drawn.count("aria-pressed='true'") == 1
    assert "uncertainty 0.100" in drawn


def test_a_picture_is_painted_once(painted: list[str]) -> None:
    grid, board = Grid(), board_of(2)
    for cells in (2, 3, 4):
        board.tiles[:] = board_of(cells).tiles
        grid.draw(board)
    assert len(painted) == 4
    board.shows = "differences"
    grid.draw(board)
    board.pin(0)
    grid.draw(board)
    assert len(painted) == 4 + 4 + 4
    board.shows = "maps"
    assert painted[0] in grid.draw(board) and len(painted) == 12


def test_names_are_text_and_never_markup(painted: list[str]) -> None:
    board = board_of(4, name="<img src=x onerror=alert(1)>'\"")
    for drawn in (Grid().draw(board), draw_table(board.rows())):
        assert "<img src=x" not in drawn and "onerror=alert(1)&gt;&#x27;&quot;" in drawn


def test_the_table_says_what_is_known(painted: list[str]) -> None:
    assert draw_table([]) == ""
    drawn = draw_table(board_of(4).rows())
    assert drawn.count("class='reference'") == 1 and "<td>reference</td>" in drawn
    assert drawn.count("needs 3 members") == 2 and drawn.count("0.1000") == 2
    assert "Reference: tiny, seed 0, 2  steps, 3  members; difference: mean after fitting scale and shift" in drawn


def test_normals_have_no_colour_bar() -> None:
    assert "toward the viewer" in compare_grid.draw_bar(MapPaint("Surface normals", -1.0, 1.0, None).bar)


# ------------------------------------------------------------------------------- the endpoint's arguments


def test_arguments_become_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARIGOLD_MODEL", raising=False)
    asked, names = read_comparison(None, None, None, None, None)
    assert (asked.steps, asked.sizes, asked.seeds, names) == ((1, 2, 4, 10), (1, 3, 5, 10), (0,), ["nano"])
    assert read_comparison([4, 1], [2], [7], 64, ["nano"])[0].steps == (1, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": [51]}, "steps must be less than or equal to 50"),
        ({"steps": 4}, "steps must be a valid tuple"),
        ({"sizes": [True]}, "sizes must be a valid integer"),
        ({"sizes": []}, "at least one number of steps"),
        ({"seeds": ["0"]}, "seeds must be a valid integer"),
        ({"processing_resolution": 100}, "processing_resolution must be a multiple of 8"),
        ({"checkpoints": "nano"}, "checkpoints must be a list"),
        ({"checkpoints": ["/etc"]}, "There is no checkpoint"),
        ({"checkpoints": []}, "at least one checkpoint"),
        ({"seeds": list(range(9))}, "cells are too many"),
        ({"colormap": "pink"}, "colormap has no 'pink'"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(wrong: dict, message: str) -> None:
    names = ("steps", "sizes", "seeds", "processing_resolution", "checkpoints", "colormap")
    right = {"photo": "photo.png", **dict.fromkeys(names)}
    assert fault(right) is None
    assert message in (fault({**right, **wrong}) or "")


def test_a_checkpoint_that_is_not_offered_is_refused() -> None:
    with pytest.raises(CheckpointError, match="choose one of"):
        read_comparison(None, None, None, None, ["../nano"])
