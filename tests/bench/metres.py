"""How good metres become, ``python -m tests.bench.metres DATA``: the solver's share of the error and the model's.

On photos with measured depth a few pixels are told, as a person with a tape would. Once the map is the truth itself
with noise of 1 % of its range, so that what is left is the solver's error; once it is the model's. The least-squares
line through every measured pixel, which nobody can know, shows what the model's map would allow.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from marigold_core import Prediction, Settings, load
from marigold_core.calibration.anchors import Anchor
from marigold_core.calibration.calibrate import Hints, calibrate
from marigold_core.cli.console import table
from marigold_core.errors import CalibrationError
from marigold_core.storage import write_json
from tests.bench.timing import machine
from training.data.sets import open_set
from training.engine.command import check_json_out
from training.scoring.protocols import choose_protocol
from training.scoring.scores import compare

COUNTS = (2, 3, 5, 10)
DRAWS = 20
NOISE = 0.01  # of the depth range
COLUMNS = ("hints", "true map", "worst tenth", "refused", "model's map", "worst tenth", "refused")


def planted(prediction: Prediction, truth_m: np.ndarray, known: np.ndarray) -> Prediction:
    """Put the truth with noise in the place of what the model says; where it is unknown it is far."""
    low, high = truth_m[known].min(), truth_m[known].max()
    noise = np.random.default_rng(0).normal(size=truth_m.shape) * NOISE
    values = np.where(known, (truth_m - low) / (high - low), 1.0) + noise
    return replace(prediction, values=values.clip(0, 1).astype(np.float32), uncertainty=None, members=None)


def told(truth_m: np.ndarray, known: np.ndarray, count: int, seed: int) -> Hints:
    """Draw pixels to tell, one from each of ``count`` equal parts of the measured depths: some near, some far."""
    rows, columns = np.nonzero(known)
    order = np.argsort(truth_m[known], kind="stable")
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(part) for part in np.array_split(order, count)]
    return Hints(tuple(Anchor(int(columns[k]), int(rows[k]), float(truth_m[rows[k], columns[k]])) for k in chosen))


def error(prediction: Prediction, truth_m: np.ndarray, known: np.ndarray, hints: Hints) -> float | None:
    """Calibrate -> AbsRel in metres, None when it is refused."""
    try:
        found = calibrate(prediction, hints).values
    except CalibrationError:
        return None
    return float(np.mean(np.abs(found[known] - truth_m[known]) / truth_m[known]))


def sum_up(errors: list[float | None]) -> dict[str, float]:
    """Median and 90th percentile of what was not refused, and the share of what was."""
    solved = [value for value in errors if value is not None]
    middle, worst = (float(np.quantile(solved, share)) for share in (0.5, 0.9))
    return {"median": middle, "p90": worst, "refused": 1 - len(solved) / len(errors)}


def cells(line: dict[str, float]) -> tuple[str, ...]:
    """Write one half of a line of the table."""
    return (f"{line['median']:.3f}", f"{line['p90']:.3f}", f"{line['refused']:.0%}")


def main() -> None:
    """Run, print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.metres", description="errors of metres from hints")
    parser.add_argument("data", help="data set with measured depth, as training.evaluate takes it")
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--json", type=Path, default=Path("outputs/metres.json"), help="file to write")
    given = parser.parse_args()
    check_json_out(given.json, ("machine", "draws", "lines"))
    a_set, pipe = open_set(given.data, "test"), load(given.checkpoint)
    protocol, settings = choose_protocol(a_set.kind), Settings(num_inference_steps=4, ensemble_size=4)
    errors: dict[int, tuple[list[float | None], list[float | None]]] = {count: ([], []) for count in COUNTS}
    fitted = []
    for number in range(len(a_set)):
        sample = a_set[number]
        truth_m = sample.depth_m
        known = np.isfinite(truth_m) & (truth_m > protocol.near_m) & (truth_m < protocol.far_m)
        made = pipe(sample.rgb, settings)
        fitted.append(compare(made, truth_m, protocol).row["abs_rel"])
        maps = planted(made, truth_m, known), made
        for count in COUNTS:
            for draw in range(DRAWS):
                hints = told(truth_m, known, count, draw)
                for some, prediction in zip(errors[count], maps, strict=True):
                    some.append(error(prediction, truth_m, known, hints))
        print(sample.name, flush=True)
    lines = [{"hints": count, "true": sum_up(exact), "model": sum_up(own)} for count, (exact, own) in errors.items()]
    report = {
        "checkpoint": pipe.checkpoint.name,
        "sha256": pipe.checkpoint.sha256,
        "machine": machine(torch.device(pipe.device)),
        "photos": len(a_set),
        "draws": DRAWS,
        "noise": NOISE,
        "fitted_to_every_pixel": float(np.mean(fitted)),
        "lines": lines,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, report)
    rows = [(str(count), *cells(sum_up(exact)), *cells(sum_up(own))) for count, (exact, own) in errors.items()]
    print(
        "", table([COLUMNS, *rows]), f"fitted to every pixel: {np.mean(fitted):.3f}; written to {given.json}", sep="\n"
    )


if __name__ == "__main__":
    main()
