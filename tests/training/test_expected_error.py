"""The error network's training: what it learns from, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from marigold_core import Settings, load
from marigold_core.pipeline.image_prior import grid_of
from tests.helpers.floors import WIDTH, write_floors
from tests.helpers.training_runs import lines
from training.data.sets.rendered import RenderedScenes
from training.engine.addition import MAPS, SHOWN, Task
from training.expected_error import Batches, Errors, compare_with_truth, error_losses, train_expected_error
from training.recipe import ExpectedErrorRecipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

QUICK = ExpectedErrorRecipe(
    steps=60,
    batch_size=2,
    lr=1e-2,
    warmup_steps=1,
    cooldown_steps=2,
    ema_decay=0.0,
    pictures=8,
    width=4,
    figure_steps=60,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a floor below the sky, which has no depth."""
    return write_floors(tmp_path_factory.mktemp("scenes"))


def test_it_learns_and_the_result_opens(tiny_guided: Path, scenes: Path, tmp_path: Path) -> None:
    task = Task(str(tiny_guided), scenes, tmp_path / "run", device="cpu")
    prior = load(tiny_guided, device="cpu").prior
    assert prior is not None
    plant(task.out / MAPS, prior.channels)
    folder = train_expected_error(task, QUICK)
    logged = [line for line in lines(task.out) if "expected" in line]
    # The loss of expecting the mean error everywhere is the logarithm of it plus 1.
    better = [line["loss"] - np.log(line["error"]) - 1 for line in logged]
    assert np.mean(better[-4:]) < 0 < better[0]
    assert load(folder, device="cpu").expected_error is not None


def plant(folder: Path, channels: list[int]) -> None:
    """Write predictions whose error is .2 where the features are 1, and .02 where they are 0."""
    folder.mkdir(parents=True)
    for number in range(8):
        fine = torch.from_numpy(np.random.default_rng(number).integers(0, 2, (1, 4, 6))).float()
        features = [fine[:, :: 2**level, :: 2**level].expand(width, -1, -1) for level, width in enumerate(channels)]
        error = 0.02 + 0.18 * fine.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        parts = [*features, torch.rand(1, 8, 12), torch.rand(1, 8, 12), error, torch.ones(1, 8, 12)]
        write(folder / f"{number:06d}.safetensors", parts)


def write(path: Path, parts: list[torch.Tensor]) -> None:
    """Write what ``Batches`` read."""
    save_file({f"{place:02d}": torch.tensor(part.numpy()).half() for place, part in enumerate(parts)}, path)


def test_what_it_learns_from_is_the_error_where_the_truth_is_known(tiny_guided: Path, scenes: Path) -> None:
    """A map that is the truth, up to scale and shift, but for a corner."""
    pipeline, sample = load(tiny_guided, device="cpu"), RenderedScenes(scenes)[0]
    values = (np.where(np.isinf(sample.depth_m), 15.0, sample.depth_m) / 20 + 0.1).astype(np.float32)
    values[-16:, :16] += 0.2
    settings = Settings(num_inference_steps=1, ensemble_size=1, processing_resolution=WIDTH)
    made = replace(pipeline(sample.rgb, settings), values=values, members=values[None].astype(np.float16))
    *features, depth, spread, error, counts = compare_with_truth(pipeline, made, sample, "rendered")
    assert pipeline.prior is not None and [len(one) for one in features] == pipeline.prior.channels
    shape = (1, *grid_of(tuple(one[None] for one in features)))
    assert depth.shape == spread.shape == error.shape == counts.shape == shape
    assert 0 < counts.mean() < 1 and error[counts == 0].abs().max() < 1e-6  # the sky
    assert error[0, -1, 0] > 2 * error[0, -1, -1]


def test_members_are_hidden_now_and_then_and_pictures_that_are_shown_are_not_trained_on(tmp_path: Path) -> None:
    for number in range(SHOWN + 2):
        one = torch.full((1, 4, 6), float(number))
        write(tmp_path / f"{number:06d}.safetensors", [one[:, ::2, ::2], one, one, one, one])
    learned = Batches(QUICK.changed(batch_size=8), range(SHOWN + 2), tmp_path)
    batches = [learned.batch(step) for step in range(20)]
    assert {float(one) for batch in batches for one in batch.depth.flatten()} == {float(SHOWN), SHOWN + 1.0}
    shown = torch.cat([batch.is_known.flatten() for batch in batches]).mean()
    assert abs(shown - (1 - QUICK.alone)) < 0.15


def test_the_best_expectation_is_the_mean_error_and_unknown_places_do_not_count() -> None:
    errors = torch.tensor([[[[0.1, 0.3], [9.0, 9.0]]]])
    counts = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    batch = Errors((), errors, errors, errors, counts, torch.ones(1, 1, 1, 1))

    def loss(expected: float) -> float:
        network = torch.nn.Module()
        network.forward = lambda *given: torch.full_like(errors, expected).log()
        return float(error_losses(network, batch)["loss"])

    assert loss(0.2) < min(loss(0.15), loss(0.25))
    assert loss(0.2) == pytest.approx(np.log(0.2) + 1, rel=1e-5)
