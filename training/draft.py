"""Stage 2: a prior's draft decoder, ``python -m training.draft --start-from ... --latents ... --out runs/draft``.

It is trained as a plain regressor from the prior's stored features to the grey of the depth map, before the U-Net,
which then takes its map as a further input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.image_prior import ImagePrior
from marigold_core.pipeline.modalities import Depth
from training.data.latent_cache import autoencoder_sha256, prior_sha256
from training.data.loader import LoadedBatch, Loader
from training.data.sampling import Latents, Plan
from training.engine.command import run
from training.engine.figures import FigureCallback
from training.engine.fingerprint import run_fingerprint
from training.engine.loop import Losses, Run, run_loop
from training.engine.processes import accelerator_for
from training.prior import add_draft
from training.recipe import DraftRecipe
from training.start import find_start


@dataclass(frozen=True)
class Task:
    """What to train on and where, beside the recipe."""

    start_from: str  # checkpoint with an image prior, or a run
    out: Path  # folder of the run; its newest step_* folder is a whole checkpoint
    latents: tuple[Path, ...]  # folders of encoded pictures with features, from training.latents
    minutes: float | None = None  # stop after this time
    device: Literal["auto", "cpu"] = "auto"  # where to train


def train_draft(task: Task, recipe: DraftRecipe) -> Path:
    """Train the draft decoder of a checkpoint that is given one -> the newest checkpoint of the run.

    The loss is the absolute error of the grey in each latent cell whose depth is known.
    Raises: MarigoldError for unusable starts or latents, and what ``loop.run_loop`` raises.
    """
    accelerator = accelerator_for(recipe, task.device)
    if accelerator.num_processes > 1:
        raise MarigoldError("The draft decoder is small and is trained by one process; start it without a launcher.")
    base = task.out / "start"
    if not base.exists():
        add_draft(find_start(task.start_from), base, recipe.width, recipe.seed)
    pipeline = load(base, device=str(accelerator.device), dtype="float32")
    prior = cast(ImagePrior, pipeline.prior)
    if not isinstance(pipeline.modality, Depth):
        raise MarigoldError(f"A draft is one of depth, and the start predicts {pipeline.modality.name}.")
    sources = [Latents(folder) for folder in task.latents]
    for latents in sources:
        latents.check(autoencoder_sha256(pipeline), prior_sha256(pipeline), pipeline.modality)
        batch = latents.read([0], (0,))
        if batch.grey is None or not batch.features:
            raise MarigoldError(
                f"{latents.label} has no features or no greys to train a draft on; encode the pictures again with: "
                "python -m training.latents --checkpoint START"
            )
    plan = Plan(sources, recipe.batch_size, recipe.shares, recipe.seed)
    assert prior.draft is not None
    prior.draft.requires_grad_(True)

    def loss(network: nn.Module, step: int, delivery: LoadedBatch) -> Losses:
        batch = delivery.batch
        with torch.random.fork_rng(devices=[prior.device] if prior.device.type == "cuda" else []):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            seen = tuple(F.dropout2d(found.to(prior.device), recipe.feature_dropout) for found in batch.features)
        *_, guess = cast(ImagePrior, network).with_draft(seen)
        grey, valid = (cast(torch.Tensor, part).to(guess.device) for part in (batch.grey, batch.valid))
        error = (F.interpolate(guess.float(), grey.shape[-2:], mode="bilinear", align_corners=False) - grey).abs()
        return {"loss": (error * valid).sum() / valid.sum().clamp_min(1), "usable": valid.float().mean()}

    data = [source.fingerprint() for source in sources]
    fingerprint = run_fingerprint(recipe, load(base).checkpoint.sha256, data, accelerator.device.type)
    settings, figures = Run(task.out, base, "prior", fingerprint), FigureCallback(recipe, task.out)
    return run_loop(prior, loss, Loader(plan), recipe, settings, accelerator, callback=figures, minutes=task.minutes)


def main(task: Task, recipe: DraftRecipe = DraftRecipe()) -> None:  # noqa: B008 (frozen)
    """Train a draft decoder on the features of an image prior; the same command resumes a run that was stopped."""
    print(train_draft(task, recipe))


if __name__ == "__main__":
    run(main, "python -m training.draft")
