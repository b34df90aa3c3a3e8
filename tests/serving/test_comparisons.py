"""Comparisons as jobs: cells in order, one job at a time, the cost and its bounds, what is kept."""

import csv
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from marigold_core import Cell, Progress, from_depth, load
from marigold_core.comparison.sweep import Comparison, Sweep
from marigold_core.errors import ExportError, SettingsError
from marigold_core.serving import kept
from marigold_core.serving.jobs import MAX_CELLS, MAX_MINUTES, Service, shared_comparison
from marigold_core.serving.results import Form, ResultStore
from marigold_core.settings import Settings
from marigold_core.ui.screens.compare import draw_grid
from tests.helpers.command_line import run_command
from tests.helpers.predictions import prediction_of
from tests.helpers.sweeps import sweep_of

SMALL = {"steps": [1, 2], "sizes": [1, 3], "processing_resolution": 32}


def job(service: Service, photo: Any, *checkpoints: object, **asked: object) -> tuple[str, Sweep, list]:
    """Run a small comparison to its end -> its id, itself and its events."""
    comparison = shared_comparison(**{**SMALL, **asked})
    key, sweep = service.begin_comparison(photo, comparison, [str(name) for name in checkpoints])
    return key, sweep, list(service.run_comparison(sweep))


@pytest.fixture(autouse=True)
def own_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# ------------------------------------------------------------------------------- the grid, step by step


def test_a_grid_tells_every_step_and_counts_them_all(tiny_depth: Path, photo: Callable) -> None:
    events = list(
        load(tiny_depth, device="cpu").stream_grid(photo(), (1, 2), (1, 2), (0, 7), Settings(processing_resolution=32))
    )
    steps = [event.done for event in events if isinstance(event, Progress)]
    assert {event.total for event in events if isinstance(event, Progress)} == {2 * (1 + 2) * 2}
    assert steps == sorted(steps) and steps[-1] == 12
    assert sum(isinstance(event, Cell) for event in events) == 8


def test_a_kept_depth_map_of_the_same_photo_takes_part(service: Service, tiny_depth: Path, photo: Callable) -> None:
    pixels, z = photo(24, 32), np.add.outer(np.arange(24), np.arange(32)) + 5.0
    given, run = service.keep(from_depth(pixels, z)), service.keep(prediction_of(z, photo=pixels))
    asked = shared_comparison(**SMALL)
    for beside, seen, count in ((given, pixels, 5), (given, pixels[::-1], 4), (run, pixels, 4), ("gone", pixels, 4)):
        _, sweep = service.begin_comparison(seen, asked, [str(tiny_depth)], beside)
        if seen is pixels:
            list(service.run_comparison(sweep))
            assert len(sweep.tiles) == count and sweep.done == 4
            assert sweep.rows()[0].tile.checkpoint == ("given: array" if count == 5 else tiny_depth.name)
            assert draw_grid(sweep, {}).count("data-cell=") == count
        else:
            assert sweep.given is None


def test_a_closed_grid_takes_no_further_step(tiny_depth: Path, photo: Callable, monkeypatch) -> None:
    pipe, steps = load(tiny_depth, device="cpu"), []
    predict = pipe.predict_velocity
    monkeypatch.setattr(pipe, "predict_velocity", lambda *given: (steps.append(1), predict(*given))[1])
    events = pipe.stream_grid(photo(), (20,), (5,), (0,), Settings(processing_resolution=32))
    assert next(events) and next(events)
    taken = len(steps)
    events.close()  # type: ignore[attr-defined]
    assert len(steps) == taken < 5


# ------------------------------------------------------------------------------- the job


def test_a_comparison_has_the_figures_of_the_command(service, tiny_depth, folder, out, write) -> None:
    picture = write(folder / "a.png")
    key, sweep, events = job(service, picture, tiny_depth, seeds=[0, 7])
    cells = [event for event in events if isinstance(event, Cell)]
    assert [cell.settings.seed for cell in cells] == [tile.seed for tile in sweep.tiles]
    places = [(tile.seed, tile.steps, tile.members) for tile in sweep.tiles]
    assert places == [place[1:] for place in sweep.places()]
    words = ["--steps", "1,2", "--sizes", "1,3", "--seeds", "0,7", "--processing-resolution", "32", "--device", "cpu"]
    assert run_command("compare", picture, "-o", out, "--model", tiny_depth, "--quiet", *words) == 0
    sheet, differences, table = service.export_comparison(key)
    assert {path.name for path in (sheet, differences, table)} == {path.name for path in (out / "a").iterdir()}
    assert figures(table) == figures(out / "a" / "compare.csv")


def figures(path: Path) -> list[dict[str, str]]:
    """Read a table without the times, which no two runs share."""
    return [{**row, "seconds": ""} for row in csv.DictReader(path.read_text().splitlines())]


def test_it_has_the_model_alone_and_frees_it_when_it_is_closed(service, tiny_depth, photo) -> None:
    asked = shared_comparison(**{**SMALL, "steps": [1, 20]})
    _, sweep = service.begin_comparison(photo(), asked, [str(tiny_depth)])
    events = service.run_comparison(sweep)
    while not isinstance(next(events), Cell):
        pass
    other = service.run(photo(), Settings(num_inference_steps=1, processing_resolution=32), str(tiny_depth))
    assert "waiting" in next(stage for stage in stages(other) if "loading" not in stage)
    events.close()
    assert len(sweep.tiles) == 1
    assert any("member 1" in stage for stage in stages(other))


def stages(events: Iterator[object]) -> Iterator[str]:
    return (event.stage for event in events if isinstance(event, Progress))


def test_checkpoints_follow_one_another_under_one_bar(service, tiny_depth, tiny_depth_lcm, photo) -> None:
    _, sweep, events = job(service, photo(), tiny_depth, tiny_depth_lcm)
    assert [tile.checkpoint for tile in sweep.tiles] == [tiny_depth.name] * 4 + [tiny_depth_lcm.name] * 4
    bar = [(event.done, event.total) for event in events if isinstance(event, Progress) and event.total]
    assert bar == sorted(bar) and bar[-1] == (2 * 3 * 3, 2 * 3 * 3)


def test_what_cannot_be_compared_is_refused_before_the_first_cell(service, tiny_depth, tiny_normals, photo) -> None:
    depth, small = str(tiny_depth), shared_comparison(**SMALL)
    too_many = shared_comparison(steps=[1, 2, 4], sizes=[1, 2, 3, 4, 5, 6], seeds=[0, 1, 2, 3])
    with pytest.raises(SettingsError, match=f"72 cells are too many .* at most {MAX_CELLS}"):
        service.begin_comparison(photo(), too_many, [depth])
    with pytest.raises(SettingsError, match="at least one checkpoint"):
        service.begin_comparison(photo(), small, [])
    with pytest.raises(SettingsError, match="steps must have at least one value"):
        shared_comparison(steps=[], sizes=[1], seeds=[0])
    too_large = shared_comparison(steps=[50], sizes=[20], seeds=[0], processing_resolution=2048)
    too_long = Comparison(steps=(1,), sizes=(1,), processing_resolution=32, most_minutes=1e-6)
    for checkpoints, asked, message in (
        ([depth, str(tiny_normals)], small, "results differ in meaning"),
        ([depth, depth], small, "Two of the checkpoints"),
        ([depth], too_long, "would take about"),
        ([depth], too_large, "too much for one run"),
    ):
        _, sweep = service.begin_comparison(photo(600, 800), asked, checkpoints)
        with pytest.raises(SettingsError, match=message):
            list(service.run_comparison(sweep))
        assert sweep.tiles == []
    assert len(job(service, photo(), depth)[1].tiles) == 4  # none of them has kept the model


def test_the_cost_is_told_without_the_model_and_shares_what_cells_share(
    service: Service, tiny_depth: Path, photo: Callable, monkeypatch
) -> None:
    asked = shared_comparison(steps=[1, 2, 4, 10], sizes=[1, 3, 5, 10], seeds=[0], processing_resolution=32)
    guess = service.comparison_cost(asked, [str(tiny_depth)], (48, 64))
    assert (guess.cells, guess.measured) == (16, False)
    job(service, photo(), tiny_depth)
    monkeypatch.setattr(service, "warm", lambda name: pytest.fail("the model was asked for"))
    cost = service.comparison_cost(asked, [str(tiny_depth)], (48, 64))
    parts = service.estimate(Settings(processing_resolution=32), (48, 64), str(tiny_depth)).parts
    assert cost.measured and cost.seconds == pytest.approx(parts.predict_s(asked))
    alone = sum(
        parts.encode_s + size * (n * parts.step_s + parts.decode_s) for n, size in product(asked.steps, asked.sizes)
    )
    assert cost.separate_s == pytest.approx(alone)
    assert cost.seconds < 0.6 * cost.separate_s
    with pytest.raises(SettingsError, match="would take about"):
        service.comparison_cost(asked.changed(most_minutes=1e-6), [str(tiny_depth)], (48, 64))
    assert asked.most_minutes == MAX_MINUTES


# ------------------------------------------------------------------------------- what is kept


def test_the_longest_unused_makes_room_and_its_files_are_removed(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, 100, "It is gone.", Form(kept.write, lambda path: kept.read(path, Sweep)))
    first, second, third, fourth = (cast(Any, SimpleNamespace(size_bytes=size)) for size in (40, 40, 200, 10))
    one, two = store.put(first), store.put(second)
    for key in (one, two):
        store.folder(key).mkdir()
    assert store.get(one) is first
    second.size_bytes = 70  # a comparison grows after it was put
    store.put(fourth)
    assert two not in store and not store.folder(two).exists()
    assert store.get(one) is first and store.folder(one).exists()
    assert store.get(store.put(third)) is third  # alone it may be as large as it is
    for key in (one, None, "no such id"):
        with pytest.raises(ExportError, match="It is gone"):
            store.get(key)


def test_a_comparison_that_is_gone_or_empty_is_refused(service: Service, photo: Callable) -> None:
    for key in (None, "0" * 32):
        with pytest.raises(ExportError, match="no longer kept"):
            service.comparison(key)
        with pytest.raises(ExportError, match="no longer kept"):
            service.export_comparison(key)
    key, _ = service.begin_comparison(photo(), shared_comparison(**SMALL), ["nano"])
    with pytest.raises(ExportError, match="no cell yet"):
        service.export_comparison(key)


def test_a_pinned_cell_is_what_the_others_are_measured_against() -> None:
    sweep = sweep_of(4)
    assert [row.is_reference for row in sweep.rows()] == [False, False, False, True]
    assert sweep.rows() is sweep.rows()  # measured once
    sweep.pin(1)
    assert [row.is_reference for row in sweep.rows()] == [False, True, False, False]
    assert sweep.rows()[1].difference.max() < 1e-5 < sweep.rows()[3].difference.mean()
    for nowhere in (-1, 4):
        sweep.pin(nowhere)
    assert sweep.pinned == 1
    less = sweep_of(3)
    assert less.size_bytes < sweep_of(4).size_bytes < sweep.size_bytes  # its differences count too
