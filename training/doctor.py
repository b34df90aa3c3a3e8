"""Checks every file of data sets before a run does, ``python -m training.doctor DATA...``.

Every picture is read once, as training would read it. DATA is what training takes (``training.data.sets.open_set``) or
a folder of latents (``training.latents``). Shards are opened one by one, because a single damaged one keeps the whole
folder from opening.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import tyro

from marigold_core.errors import MarigoldError
from marigold_core.storage import write_json
from training.data.dataset_checks import (
    Fault,
    Finding,
    SoundPicture,
    check_index,
    check_latents,
    check_picture,
    check_rendered,
    holds_latents,
)
from training.data.sets import open_set
from training.engine.command import check_json_out, run
from training.engine.progress import follow

Part = TypeVar("Part")  # a picture or a shard
FAULTY = 1  # exit status
SHOWN = 3  # sizes in a summary


@dataclass(frozen=True)
class Report:
    """The findings in one data set."""

    data: str
    sound: int  # pictures without a fault; the rest of the fields but one is about them
    sizes: dict[str, int]  # "480x640": how many pictures
    known: float  # share of pixels whose depth counts
    range_m: tuple[float, float] | None  # of the depths that count; latents have none
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        sizes = [f"{size} ({count})" for size, count in self.sizes.items()]
        if len(sizes) > SHOWN:
            sizes[SHOWN:] = [f"{len(sizes) - SHOWN} more sizes"]
        depths = [f"depth {self.range_m[0]:.3g} to {self.range_m[1]:.3g} m"] if self.range_m else []
        faults = f"{len(self.faults) or 'no'} fault{'' if len(self.faults) == 1 else 's'}"
        words = [f"{self.sound} sound pictures", *sizes, f"{self.known:.1%} known", *depths, faults]
        return f"{self.data}: {', '.join(words)}"


def examine(data: str, split: str = "train", workers: int = 4) -> Report:
    """Read a whole data set, or a folder of latents, and report every fault.

    Raises: MarigoldError when it cannot be opened at all.
    """
    folder = Path(data.removeprefix("rendered:"))
    shards = sorted(path for path in folder.glob("shard_*") if path.is_dir())
    if holds_latents(folder):
        found = check_index(folder) + _check_all(check_latents, shards, data, workers)
    elif shards:
        found = _check_all(check_rendered, shards, data, workers)
    else:
        a_set = open_set(data, split)
        a_set.sizes()  # from here on they are known, so that not every worker reads them
        found = _check_all(partial(check_picture, a_set), range(len(a_set)), data, workers)
    return _report(data, found)


def _check_all(
    check: Callable[[Part], list[Finding]], parts: Sequence[Part], label: str, workers: int
) -> list[Finding]:
    """Check all parts side by side; decoding releases the interpreter's lock, so that threads are enough."""
    pool = ThreadPoolExecutor(workers)
    try:
        return [one for found in follow(pool.map(check, parts), len(parts), label) for one in found]
    finally:
        pool.shutdown(cancel_futures=True)


def _report(data: str, found: Sequence[Finding]) -> Report:
    sound = [one for one in found if isinstance(one, SoundPicture)]
    sizes = Counter(f"{height}x{width}" for height, width in (one.size for one in sound))
    near_m = min((one.near_m for one in sound), default=np.inf)
    far_m = max((one.far_m for one in sound), default=-np.inf)
    return Report(
        data,
        len(sound),
        dict(sizes.most_common()),
        float(np.mean([one.known for one in sound])) if sound else 0.0,
        (near_m, far_m) if near_m <= far_m else None,
        tuple(one for one in found if isinstance(one, Fault)),
    )


def main(
    data: tyro.conf.Positional[tuple[str, ...]],
    split: str = "train",
    workers: int = os.cpu_count() or 1,
    json_out: Path | None = None,
) -> int:
    """Read data sets from end to end and name every file that is missing, damaged or without depth.

    The exit status is 1 when there is one.

    Args:
        data: data sets, as KIND:FOLDER, KIND/SPLIT:FOLDER or a folder that tells its kind, and folders of latents.
        split: part of those sets of which no part is named.
        workers: pictures that are read at a time.
        json_out: file for all that was found.
    """
    if not data or workers < 1:
        raise MarigoldError("Give at least one data set, such as hypersim:FOLDER, and at least one worker.")
    check_json_out(json_out, [field.name for field in fields(Report)])
    reports = []
    for one in data:
        reports.append(examine(one, split, workers))
        for fault in reports[-1].faults:
            print(f"{one}: {fault.where}: {fault.what}")
    print(*reports, sep="\n")
    if json_out is not None:
        write_json(json_out, [asdict(report) for report in reports])
    return FAULTY if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    run(main, "python -m training.doctor")
