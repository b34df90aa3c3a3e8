"""What the stop rule saves and what it costs: ``python -m tests.bench.stopping [--truth DATA]``.

Every photo is run once with all members. For each threshold the run is cut where the rule would have ended it, and the
map it would have given is compared with that of all members and, where depth was measured, with the truth. Fixed
numbers of members stand below: a rule is worth its line only where it beats them.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from marigold_core import Cell, Prediction, Settings, load
from marigold_core.cli.console import table
from marigold_core.comparison.sweep import difference, reduce
from marigold_core.files import examples
from marigold_core.images.photo import load_photo
from marigold_core.pipeline.convergence import ConvergencePoint, converged_at, convergence_curve
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import write_json
from tests.bench.timing import machine
from training.data.sets import open_set
from training.engine.command import check_json_out
from training.scoring.protocols import Protocol, choose_protocol
from training.scoring.scores import compare

THRESHOLDS = (0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02)
SIZES = (4, 6, 8, 10)
COLUMNS = ("rule", "members", "most", "time saved", "from all members", "worst", "AbsRel", "its change", "worst")


@dataclass(frozen=True)
class Run:
    """One photo with all members: what each number of members has given."""

    name: str
    points: list[ConvergencePoint]
    seconds: list[float]  # from the start until the map of so many members was there
    apart: list[float]  # mean difference to the last map, in shares of the depth range
    abs_rel: list[float] | None  # None: no truth


def run_all(pipe: MarigoldPipeline, settings: Settings, truth: str | None) -> Iterator[Run]:
    """Run the example photos and the pictures of a data set with measured depth."""
    for path in examples.photos():
        yield run_one(pipe, settings, path.stem, load_photo(path).pixels, None, None)
    if truth:
        a_set = open_set(truth, "test")
        for number in range(len(a_set)):
            sample = a_set[number]
            yield run_one(pipe, settings, sample.name, sample.rgb, sample.depth_m, choose_protocol(a_set.kind))


def run_one(
    pipe: MarigoldPipeline,
    settings: Settings,
    name: str,
    picture: np.ndarray,
    truth_m: np.ndarray | None,
    protocol: Protocol | None,
) -> Run:
    """Run one picture [H, W, 3] and keep a small map and the score of every number of members."""
    seconds, tiles, scores, last = list[float](), [], list[float](), None
    spent, began = 0.0, perf_counter()
    for event in pipe.stream(picture, settings):
        if not isinstance(event, Prediction):
            continue
        spent += perf_counter() - began
        last = event
        seconds.append(spent)
        tiles.append(reduce(Cell(event, spent)).values)
        if truth_m is not None and protocol is not None:
            scores.append(compare(replace(event, uncertainty=None), truth_m, protocol).row["abs_rel"])
        began = perf_counter()  # scoring is not the run's time
    assert last is not None
    apart = [float(difference(values, tiles[-1], last.kind).mean()) for values in tiles]
    return Run(name, convergence_curve(last), seconds, apart, scores or None)


def sum_up(runs: list[Run], used: Callable[[Run], int], rule: str) -> dict[str, object]:
    """Cut every run after ``used`` members -> means and worst cases of one line."""
    counts = [used(run) for run in runs]
    saved = [1 - run.seconds[count - 1] / run.seconds[-1] for run, count in zip(runs, counts, strict=True)]
    apart = [run.apart[count - 1] for run, count in zip(runs, counts, strict=True)]
    scored = [(run.abs_rel[count - 1], run.abs_rel[-1]) for run, count in zip(runs, counts, strict=True) if run.abs_rel]
    changes = [found - whole for found, whole in scored]
    return {
        "rule": rule,
        "members": float(np.mean(counts)),
        "most": max(counts),
        "time_saved": float(np.mean(saved)),
        "apart": float(np.mean(apart)),
        "worst_apart": max(apart),
        "abs_rel": float(np.mean([found for found, _ in scored])) if scored else None,
        "abs_rel_change": float(np.mean(changes)) if scored else None,
        "worst_change": max(changes) if scored else None,
    }


def lines(runs: list[Run]) -> list[dict[str, object]]:
    """Make a line for every threshold and for every fixed number of members."""
    most = len(runs[0].points)
    rules = [
        sum_up(runs, lambda run, below=below: converged_at(run.points, below) or most, f"below {below:.2%}")
        for below in THRESHOLDS
    ]
    sizes = [sum_up(runs, lambda run, size=size: size, f"{size} members") for size in SIZES if size <= most]
    return [*rules, *sizes, sum_up(runs, lambda run: most, f"all {most}")]


def cells(line: dict[str, object]) -> tuple[str, ...]:
    """Write one line of the printed table."""
    forms = ("{}", "{:.1f}", "{}", "{:.0%}", "{:.2%}", "{:.2%}", "{:.4f}", "{:+.4f}", "{:+.4f}")
    return tuple("" if value is None else form.format(value) for form, value in zip(forms, line.values(), strict=True))


def main() -> None:
    """Run, print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.stopping", description="cost and gain of the stop rule"
    )
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--truth", help="data set with measured depth, as training.evaluate takes it")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("outputs/stopping.json"), help="file to write")
    given = parser.parse_args()
    check_json_out(given.json, ("machine", "settings", "lines"))
    pipe = load(given.checkpoint)
    settings = Settings(num_inference_steps=given.steps, ensemble_size=given.members, batch_size=1)
    runs = []
    for run in run_all(pipe, settings, given.truth):
        runs.append(run)
        print(f"{run.name}: {run.seconds[-1]:.1f} s", flush=True)
    made = lines(runs)
    report = {
        "checkpoint": pipe.checkpoint.name,
        "sha256": pipe.checkpoint.sha256,
        "settings": settings.model_dump(),
        "machine": machine(torch.device(pipe.device)),
        "lines": made,
        "photos": [
            {
                "name": run.name,
                "moved": [point.change for point in run.points],
                "apart": run.apart,
                "abs_rel": run.abs_rel,
            }
            for run in runs
        ],
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, report)
    print("", table([COLUMNS, *map(cells, made)]), f"{len(runs)} photos, written to {given.json}", sep="\n")


if __name__ == "__main__":
    main()
