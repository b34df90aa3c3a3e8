"""Photos a second a core, what Ray adds to a photo that takes a second, and what a million names take.

``python -m tests.bench.cluster --out tests/bench/cluster.json``. The photo is a second of sleep, so that the figure
does not depend on what else the cores do; it is the time from the first photo's end to the last one's, per photo, of
one actor and tasks of one photo, against the same in a loop. Photos a second a core are those of an actor with nano,
from the file to its files, by the time that the process had a core.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from marigold_core import ColourSettings, MeshSettings, Settings
from marigold_core.cli import cluster
from marigold_core.cli.photo_folders import Job
from marigold_core.cli.predictor import Outcome, Work
from marigold_core.storage import write_json

PHOTO_S = 1.0


class OneSecond(cluster.Actor):
    """An actor whose photos take a second and no core."""

    def __init__(self, work: Work, environment: dict[str, str]) -> None:
        self._work = work

    def _predict(self, place: str) -> str:
        time.sleep(PHOTO_S)
        return json.dumps(asdict(Outcome("done", seconds=time.time())))  # when it ended, by the clock of the actor


def seconds_a_photo(outcomes: Iterator[Outcome]) -> tuple[float, float]:
    """Seconds from one photo's end to the next one's, and until the first one's."""
    began = time.time()
    ends = sorted(float(outcome.seconds or 0) for outcome in outcomes)
    return (ends[-1] - ends[0]) / (len(ends) - 1), ends[0] - began


def listing(folder: Path, names: int) -> dict[str, float]:
    """Seconds to write and read the list of finished photos for so many names, and to ask it for each."""
    jobs = [Job(Path(f"/photos/{k:07}.jpg"), folder / f"{k:07}", "1|2") for k in range(names)]
    finished, began = cluster.FinishedList(work_in(folder)), time.perf_counter()
    for job in jobs:
        finished.add(job)
    finished.write()
    written = time.perf_counter()
    known = finished.read()
    assert all(finished.line(job) in known for job in jobs)
    return {"names": names, "list_s": written - began, "resume_s": time.perf_counter() - written}


def work_in(folder: Path) -> Work:
    """Describe a run that writes into a folder."""
    run: Any = SimpleNamespace(
        flat=False,
        overwrite=False,
        device="cpu",
        dtype="float32",
        tiny_autoencoder=None,
        formats=("npy", "png16"),
        save_for=(),
        json=False,
    )
    files = ("depth.npy", "depth_16bit.png")
    return Work(folder, run, Settings().resolved(4, 256), MeshSettings(), ColourSettings(), "nano", "0", files, 0.0)


def photos_a_core_second(folder: Path, count: int = 24) -> float:
    """Predict examples, 1 thread, depth as NPY and PNG -> photos in a second of a core."""
    torch.set_num_threads(1)
    actor = cluster.Actor(work_in(folder), {}, cluster.Attempts().note)
    photos = sorted(Path("assets/examples").glob("*.jpg"))
    jobs = [Job(photos[k % len(photos)].absolute(), folder / f"photo{k}") for k in range(count)]
    cluster.outcome_of(actor._predict(cluster.place_of(jobs[0])))
    began = time.process_time()
    outcomes = [cluster.outcome_of(actor._predict(cluster.place_of(job))) for job in jobs[1:]]
    assert {outcome.state for outcome in outcomes} == {"done"}, outcomes
    return len(outcomes) / (time.process_time() - began)


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--photos", type=int, default=30)
    options.add_argument("--names", type=int, default=1_000_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as made:
        jobs = [Job(Path(f"/photos/{k}.jpg"), Path(made) / str(k)) for k in range(given.photos)]
        one: dict[str, Any] = {"ray_actors": 1}
        work, alone = work_in(Path(made)), OneSecond(work_in(Path(made)), {})
        loop, _ = seconds_a_photo(cluster.outcome_of(alone._predict(cluster.place_of(job))) for job in jobs[:10])
        spread = cluster._outcomes(jobs, work, "", cluster.ClusterOptions(**one), OneSecond)
        on_ray, start = seconds_a_photo(outcome for _, outcome in spread)
        found = {
            "command": f"python -m tests.bench.cluster {' '.join(sys.argv[1:])}",
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "photo_s": PHOTO_S,
            "loop_s": round(loop, 4),
            "ray_s": round(on_ray, 4),
            "overhead": round(on_ray / loop - 1, 4),
            "start_s": round(start - PHOTO_S, 1),
            "photos_a_core_second": round(photos_a_core_second(Path(made)), 2),
            "finished_list": {name: round(value, 1) for name, value in listing(Path(made), given.names).items()},
        }
    write_json(given.out, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
