"""Several jobs at once: their members go through the U-Net together, and each gets what it would get alone."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest
import torch

from marigold_core import Settings, load
from marigold_core.pipeline.together import Rows, TogetherPipeline

JOBS = [  # two of one size, which are at different steps at one time, and one of another
    Settings(num_inference_steps=2, ensemble_size=2, seed=1, processing_resolution=64),
    Settings(num_inference_steps=3, ensemble_size=1, seed=2, processing_resolution=64),
    Settings(num_inference_steps=3, ensemble_size=1, seed=2, processing_resolution=48),
]


@pytest.mark.parametrize("checkpoint", ["tiny_depth", "tiny_guided"])
def test_jobs_that_run_together_get_what_each_gets_alone(
    checkpoint: str, request: pytest.FixtureRequest, photo, one_thread: None
) -> None:
    folder: Path = request.getfixturevalue(checkpoint)
    pipe, passes = TogetherPipeline.from_pretrained(folder, device="cpu"), list[int]()
    asked, all_asked, lock = list[tuple[Rows, Future[torch.Tensor]]](), Barrier(len(JOBS)), Lock()

    def submit(rows: Rows) -> torch.Tensor:
        answer = Future[torch.Tensor]()
        with lock:
            asked.append((rows, answer))
        if all_asked.wait() == 0:
            passes.append(len(asked))
            for (_, one), found in zip(asked, pipe.predict_velocities([rows for rows, _ in asked]), strict=True):
                one.set_result(found)
            asked.clear()
        return answer.result()

    pipe.submit = submit
    photos = [photo(48, 64, seed) for seed in range(len(JOBS))]
    with ThreadPoolExecutor(len(JOBS)) as threads:  # each job has three steps or, of its two members, four

        def run(number: int) -> np.ndarray:
            *_, last = pipe.stream(photos[number], JOBS[number])
            if number:
                nothing = torch.zeros(1, 4, 9, 9)
                pipe.submit(Rows(nothing, nothing, torch.tensor(1), ()))  # as many as the first job
            return last.values  # type: ignore[union-attr]

        found = [*threads.map(run, range(len(JOBS)))]
    assert passes == [3] * 4
    alone = load(folder, device="cpu")
    for number, settings in enumerate(JOBS):
        expected = alone(photos[number], settings).values
        np.testing.assert_allclose(found[number], expected, atol=1e-4)  # sums of larger batches round differently


def test_a_pass_that_is_too_large_is_made_one_by_one(tiny_depth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = TogetherPipeline.from_pretrained(tiny_depth, device="cpu")
    torch.manual_seed(0)
    asked = [Rows(torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor(500 * k), ()) for k in (0, 1)]
    together, real = pipe.predict_velocities(asked), TogetherPipeline._pass

    def small(self: TogetherPipeline, rows: list[Rows]) -> object:
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, rows)

    monkeypatch.setattr(TogetherPipeline, "_pass", small)
    for one, other in zip(pipe.predict_velocities(asked), together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
