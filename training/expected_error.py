"""Stage 4: the network that expects a checkpoint's errors, ``python -m training.expected_error --out runs/error``.

The checkpoint predicts rendered pictures that were given the faults of photographs; the network learns where these maps
are wrong, from what it will be given later: the image prior's features, the map, and the spread of its members or none.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.checkpoints.layout import ERROR
from marigold_core.errors import MarigoldError
from marigold_core.images.colormaps import depth_to_rgb, uncertainty_to_rgb
from marigold_core.images.photo import Photo
from marigold_core.pipeline.expected_error import ErrorNetwork
from marigold_core.pipeline.image_prior import grid_of
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.prediction import Prediction
from marigold_core.settings import ResolvedSettings, Settings
from training.data.sets.sample import Sample
from training.engine.addition import MAPS, NUMBERS_EACH, Addition, Stored, Task, photographed, store
from training.engine.command import run
from training.engine.loop import Losses
from training.recipe import ExpectedErrorRecipe
from training.scoring.alignment import align
from training.scoring.protocols import choose_protocol
from training.start import find_start

STEPS, MEMBERS = 4, 4  # of a prediction that is learned from
KNOWN_FROM = 0.5  # share of the pixels of a cell whose depth is known, from which it counts
LARGEST = 50.0  # an error counts as at most so many times what was expected


class Errors(NamedTuple):
    """A batch of predictions, the finest features being [B, C, h, w]; all maps are [B, 1, 2 h, 2 w]."""

    features: tuple[Tensor, ...]
    depth: Tensor  # in [0, 1]
    spread: Tensor  # of the members
    error: Tensor  # after the best scale and shift, in the units of depth
    counts: Tensor  # 1 where the error is known, else 0
    is_known: Tensor  # [B, 1, 1, 1]: whether the network is shown the spread
    names: tuple[str, ...] = ()  # for the loop's messages; there would be too many


class Batches(Stored):
    """Training batches: predictions of pictures of one size, a function of (seed, step)."""

    recipe: ExpectedErrorRecipe

    def batch(self, step: int) -> Errors:
        """Draw the batch of a step."""
        (*features, depth, spread, error, counts), rng = self.draw(step)
        is_known = torch.from_numpy(rng.random((len(depth), 1, 1, 1)) >= self.recipe.alone).float()
        return Errors(tuple(features), depth, spread, error, counts, is_known)


def predict_errors(run: Addition, recipe: ExpectedErrorRecipe) -> None:
    """Let the checkpoint predict pictures -> ``maps/NUMBER.safetensors``; what is there is kept.

    Raises: MarigoldError when that was made otherwise, or the start has no image prior.
    """
    for pipeline, number, target in run.missing(".safetensors", 2 * NUMBERS_EACH):
        if pipeline.prior is None:
            raise MarigoldError("Errors are expected from an image prior's features, and the start has none.")
        sample = photographed(run.scenes[number], recipe, number)
        made = pipeline(sample.rgb, Settings(num_inference_steps=STEPS, ensemble_size=MEMBERS, seed=number))
        store(target, compare_with_truth(pipeline, made, sample, run.scenes.kind))


def compare_with_truth(pipeline: MarigoldPipeline, made: Prediction, sample: Sample, kind: str) -> list[Tensor]:
    """Compare a prediction that kept its members with the truth -> what ``Batches.read`` reads."""
    assert made.members is not None and isinstance(made.settings, ResolvedSettings)
    features = pipeline.photo_features(Photo(made.photo, None, None), made.settings.processing_resolution)
    stack = torch.from_numpy(made.members.astype(np.float32))[:, None].to(pipeline.device)
    values, spread = (one.cpu() for one in pipeline.fuse(stack, features, pipeline.modality))
    counted = choose_protocol(kind).counted(sample.depth_m)
    error, slope = np.zeros_like(made.values), 0.0
    if counted.any() and np.ptp(made.values[counted]) > 0:
        aligned_m = align(made.values, sample.depth_m, counted)
        low, high = made.values.argmin(), made.values.argmax()
        slope = float((aligned_m.flat[high] - aligned_m.flat[low]) / np.ptp(made.values))
    if slope > 0:
        error = np.where(counted, np.abs(aligned_m - np.where(counted, sample.depth_m, 0)), 0) / slope
    size = grid_of(features)
    known = F.adaptive_avg_pool2d(torch.from_numpy(counted & (slope > 0))[None].float(), size)
    error = F.adaptive_avg_pool2d(torch.from_numpy(error)[None].float(), size) / known.clamp_min(1e-6)
    maps = (F.adaptive_avg_pool2d(one[0], size) for one in (values.clamp(0, 1), spread))
    return [*(one[0].float().cpu() for one in features), *maps, error, (known >= KNOWN_FROM).float()]


def error_losses(network: nn.Module, batch: Errors) -> Losses:
    """Score expectations as the scale of a Laplace distribution of errors: its negative log likelihood."""
    expected = network(batch.features, batch.depth, batch.spread, batch.is_known)
    each = (batch.error * (-expected).exp()).clamp_max(LARGEST) + expected
    share = batch.counts.sum().clamp_min(1)
    means = {
        name: ((one * batch.counts).sum() / share).detach()
        for name, one in (("error", batch.error), ("expected", expected.exp()))
    }
    return {"loss": (each * batch.counts).sum() / share, **means}


def train_expected_error(task: Task, recipe: ExpectedErrorRecipe) -> Path:
    """Predict the pictures, then train the network on the errors -> the newest checkpoint of the run.

    Raises: MarigoldError for unusable starts or data, and what ``loop.run_loop`` raises.
    """
    run = Addition(task, recipe, find_start(task.start_from), ERROR)
    predict_errors(run, recipe)
    batches = Batches(recipe, run.numbers, task.out / MAPS)
    channels = [len(one) for one in batches.read(run.numbers[0])[:-4]]

    def make() -> ErrorNetwork:
        return ErrorNetwork(channels, recipe.width)

    def loss(network: ErrorNetwork, step: int, batch: Errors) -> Losses:
        return error_losses(network, batch)

    def show(network: ErrorNetwork, number: int) -> tuple[np.ndarray, ...]:
        *features, depth, spread, error, _ = (one[None].to(network.device) for one in batches.read(number))
        photo = run.scenes[number].rgb
        maps = (depth, error, *(network.expected(tuple(features), depth, one) for one in (None, spread)))
        shown, *errors = (F.interpolate(one, photo.shape[:2], mode="bilinear")[0, 0].cpu().numpy() for one in maps)
        top = float(np.percentile(errors[0], 98)) or 1.0
        return photo, depth_to_rgb(shown), *(uncertainty_to_rgb(one, top) for one in errors)

    columns = ("photo", "predicted", "error", "expected, 1 member", f"expected, {MEMBERS} members")
    return run.train(ErrorNetwork, make, batches.batch, loss, columns, show)


def main(task: Task, recipe: ExpectedErrorRecipe = ExpectedErrorRecipe()) -> None:  # noqa: B008 (frozen)
    """Train the network that expects a checkpoint's errors; the same command resumes a run that was stopped."""
    print(train_expected_error(task, recipe))


if __name__ == "__main__":
    run(main, "python -m training.expected_error")
