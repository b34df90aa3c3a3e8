"""A grid of runs on one photo that share what they have in common, watched step by step."""

from collections.abc import Iterator, Sequence
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING

from marigold_core.images.photo import Photo
from marigold_core.pipeline.sampling import FirstSteps, look_at, run_members
from marigold_core.prediction import Cell, Progress
from marigold_core.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from marigold_core.pipeline.pipeline import MarigoldPipeline


def run_grid(
    pipe: "MarigoldPipeline",
    photo: Photo,
    steps: Sequence[int],
    sizes: Sequence[int],
    seeds: Sequence[int],
    processing_resolution: int | None,
) -> Iterator[Progress | Cell]:
    """Yield a ``Progress`` each step and a ``Cell`` for every (seed, steps, size), sizes ascending.

    The photo is encoded once, members 1..5 are the first of 1..10, and the rows of a seed share their first step.
    The time of a cell leaves out what the caller does with an event.
    """
    condition, shared = None, FirstSteps(pipe)
    total, before = len(seeds) * sum(steps) * max(sizes), 0  # steps of single members
    for seed, n in product(seeds, steps):
        choice = {"num_inference_steps": n, "seed": seed, "processing_resolution": processing_resolution}
        settings = pipe.resolve(Settings(**choice, ensemble_size=max(sizes)))
        condition = condition or look_at(pipe, photo, settings.processing_resolution or 0)  # resolved; 0 is native
        members: list[Tensor] = []
        seconds, began = 0.0, perf_counter()
        for event in run_members(pipe, condition, settings, first=0, shared=shared):
            if isinstance(event, Progress):
                seconds += perf_counter() - began
                yield Progress(before + event.done, total, event.stage)
                began = perf_counter()
                continue
            members.append(event)
            if len(members) in sizes:
                seconds += perf_counter() - began + shared.take_saved_s()
                yield Cell(pipe.fuse_members(photo, settings, members), seconds)
                began = perf_counter()
        before += n * max(sizes)
