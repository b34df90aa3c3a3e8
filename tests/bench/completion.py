"""How far a few measured points go: ``python -m tests.bench.completion DATA [DATA ...]``.

Points are drawn at random from the measured depth of each picture and given to three ways to metres: scale and shift
of the finished map fitted to them by least squares, the same with what is left at the points interpolated smoothly
over the map, and completion. The rest of the measured depth scores them, without any further alignment.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marigold_core import Anchor, Hints, Settings, load
from marigold_core.calibration.interpolation import interpolate
from marigold_core.cli.console import table
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import write_json
from tests.bench.timing import machine
from training.data.sets import open_set
from training.data.sets.sample import Sample
from training.engine.command import check_json_out

COUNTS = (5, 50, 500)
MEMBERS = 4  # of the maps that are fitted: about the time of a member that is guided in 50 steps, or less
WAYS = ("least squares", "and interpolation", "completion")
MEASURES = ("AbsRel", "MAE, m", "RMSE, m", "delta1")
Row = dict[str, float | int | str]


def score(values: np.ndarray, truth_m: np.ndarray, counted: np.ndarray) -> list[float]:
    """Depth in metres [H, W] against the measured one -> the measures."""
    found, given = np.maximum(values[counted], 1e-3), truth_m[counted]
    off = np.abs(found - given)
    within = np.maximum(found / given, given / found) < 1.25
    return [float(np.mean(off / given)), float(off.mean()), float(np.sqrt(np.mean(off**2))), float(within.mean())]


def run_one(pipe: MarigoldPipeline, sample: Sample, counts: Sequence[int], seed: int) -> Iterator[Row]:
    """Score every way on one picture with every number of points."""
    known = np.isfinite(sample.depth_m) & (sample.depth_m > 0)
    places = np.argwhere(known)
    relative = pipe(sample.rgb, Settings(num_inference_steps=4, ensemble_size=MEMBERS, seed=seed)).values
    for count in counts:
        chosen = places[np.random.default_rng([seed, count]).choice(len(places), count, replace=False)]
        given = sample.depth_m[tuple(chosen.T)].astype(np.float64)
        counted = known.copy()
        counted[tuple(chosen.T)] = False
        equations = np.stack([relative[tuple(chosen.T)], np.ones(count)], axis=1)
        fitted = relative * (line := np.linalg.lstsq(equations, given)[0])[0] + line[1]
        anchors = [Anchor(x + 0.5, y + 0.5, metres) for (y, x), metres in zip(chosen, given, strict=True)]
        completed = pipe.complete(sample.rgb, Hints(anchors, method="completion"), Settings(seed=seed)).values
        smooth = fitted + interpolate(chosen, given - fitted[tuple(chosen.T)], fitted.shape)
        for way, values in zip(WAYS, (fitted, smooth, completed), strict=True):
            measured = score(values, sample.depth_m, counted)
            yield {"picture": sample.name, "points": count, "way": way, **dict(zip(MEASURES, measured, strict=True))}


def main() -> None:
    """Run, print the means, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", help="data sets with measured depth, as training.evaluate takes them")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--most", type=int, default=1000, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json-out", type=Path)
    given = parser.parse_args()
    check_json_out(given.json_out, ("rows", "members"))
    pipe, found = load(given.model), dict[str, list[Row]]()
    for spec in given.data:
        a_set = open_set(spec, "test")
        found[spec] = []
        for number in range(min(given.most, len(a_set))):
            found[spec] += run_one(pipe, a_set[number], COUNTS, given.seed)
            print(f"{number + 1} of {len(a_set)}", flush=True)
        print(f"\n{spec}\n{summary(found[spec])}", flush=True)
    if given.json_out:
        record = {
            "machine": machine(pipe.device),
            "model": given.model,
            "seed": given.seed,
            "members": MEMBERS,
            "rows": found,
        }
        write_json(given.json_out, record)


def summary(rows: Sequence[Row]) -> str:
    """Lay out the mean of every measure by number of points and way."""
    lines: list[tuple[str, ...]] = [("points", "way", *MEASURES)]
    for count in COUNTS:
        for way in WAYS:
            chosen = [row for row in rows if (row["points"], row["way"]) == (count, way)]
            means = [float(np.mean([float(row[name]) for row in chosen])) for name in MEASURES]
            lines.append((str(count), way, *(f"{mean:.3f}" for mean in means)))
    return table(lines)


if __name__ == "__main__":
    main()
