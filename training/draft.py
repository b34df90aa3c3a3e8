"""Stage 4: the network that drafts depth, ``python -m training.draft --start-from ... --data ... --out runs/draft``.

It learns, as a plain regressor, the depth maps of rendered pictures that were given the faults of photographs, from the
image prior's features of them. Its map is averaged with that of the members.
"""

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.checkpoints.layout import DRAFT
from marigold_core.errors import MarigoldError
from marigold_core.images.colormaps import depth_to_rgb
from marigold_core.images.photo import Photo
from marigold_core.pipeline.draft import DraftNetwork
from marigold_core.pipeline.image_prior import Features, grid_of
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.sets.sample import DepthSet, Sample
from training.data.targets import which_count
from training.engine.addition import MAPS, NUMBERS_EACH, Addition, Stored, Task, photographed, store
from training.engine.command import run
from training.engine.loop import Losses
from training.recipe import DraftRecipe, Framing
from training.start import find_start

FRAMING = Framing(far_m=80.0)  # the sky is the far plane


class Drafts(NamedTuple):
    """A batch of pictures, the finest features being [B, C, h, w]; maps are [B, 1, 2 h, 2 w]."""

    features: Features
    grey: Tensor  # of the depth map, in [-1, 1]
    known: Tensor  # share of a cell whose depth is known
    names: tuple[str, ...] = ()  # for the loop's messages; there would be too many


class Batches(Stored):
    """Training batches: pictures of one size, a function of (seed, step)."""

    def batch(self, step: int) -> Drafts:
        """Draw the batch of a step."""
        (*features, grey, known), _ = self.draw(step)
        return Drafts(tuple(features), grey, known)


def compute_features(run: Addition, recipe: DraftRecipe) -> None:
    """Compute the features of every picture and the map to learn -> ``maps/NUMBER.safetensors``; what is there is kept.

    Raises: MarigoldError when that was made otherwise, or the start has no image prior.
    """
    for pipeline, number, target in run.missing(".safetensors", 2 * NUMBERS_EACH):
        if pipeline.prior is None:
            raise MarigoldError("Depth is drafted from an image prior's features, and the start has none.")
        store(target, to_learn(pipeline, photographed(run.scenes[number], recipe, number), run.scenes))


def to_learn(pipeline: MarigoldPipeline, sample: Sample, a_set: DepthSet) -> list[Tensor]:
    """Compute features of a picture of a data set, and paint its depth -> what ``Stored.read`` reads."""
    features = pipeline.photo_features(Photo(sample.rgb, None, None), pipeline.checkpoint.default_resolution)
    depth_m = torch.from_numpy(sample.depth_m.copy())[None, None]
    measured, known = which_count(depth_m, a_set, FRAMING)
    grey = cast(Depth, pipeline.modality).to_vae(depth_m, measured)[:, :1]
    if not (grey[measured] < 1).any():  # of one depth alone: it has no near and no far plane
        known = torch.zeros_like(known)
    size = grid_of(features)
    share = F.adaptive_avg_pool2d(known.float(), size)
    grey = F.adaptive_avg_pool2d(torch.where(known, grey, 0), size) / share.clamp_min(1e-6)
    return [*(one[0].float() for one in features), grey[0], share[0]]


def draft_losses(network: nn.Module, batch: Drafts, seed: int) -> Losses:
    """Score pyramids by their absolute error in grey, where depth is known; ``seed`` chooses the features left out."""
    with torch.random.fork_rng(devices=[batch.grey.device] if batch.grey.device.type == "cuda" else []):
        torch.manual_seed(seed)
        each = cast(DraftNetwork, network).each(batch.features)
    error = ((each - batch.grey).abs() * batch.known).mean(dim=1)
    return {"loss": error.sum() / batch.known.sum().clamp_min(1), "usable": batch.known.mean()}


def train_draft(task: Task, recipe: DraftRecipe) -> Path:
    """Compute the pictures' features, then train the network on them -> the newest checkpoint of the run.

    Raises: MarigoldError for unusable starts or data, and what ``loop.run_loop`` raises.
    """
    run = Addition(task, recipe, find_start(task.start_from), DRAFT)
    compute_features(run, recipe)
    batches = Batches(recipe, run.numbers, task.out / MAPS)
    channels = [len(one) for one in batches.read(run.numbers[0])[:-2]]

    def make() -> DraftNetwork:
        return DraftNetwork(channels, recipe.width, recipe.pyramids, recipe.feature_dropout)

    def loss(network: DraftNetwork, step: int, batch: Drafts) -> Losses:
        return draft_losses(network, batch, recipe.seed * 1_000_003 + step)

    def show(network: DraftNetwork, number: int) -> tuple[np.ndarray, ...]:
        *features, grey, _ = (one[None].to(network.device) for one in batches.read(number))
        photo = run.scenes[number].rgb
        maps = (F.interpolate(one, photo.shape[:2], mode="bilinear") for one in (grey, network(tuple(features))))
        return photo, *(depth_to_rgb(((one[0, 0] + 1) / 2).clamp(0, 1).cpu().numpy()) for one in maps)

    return run.train(DraftNetwork, make, batches.batch, loss, ("photo", "depth", "draft"), show)


def main(task: Task, recipe: DraftRecipe = DraftRecipe()) -> None:  # noqa: B008 (frozen)
    """Train the network that drafts depth; the same command resumes a run that was stopped."""
    print(train_draft(task, recipe))


if __name__ == "__main__":
    run(main, "python -m training.draft")
