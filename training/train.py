"""Stage 3: the U-Net, ``python -m training.train --recipe nano --start-from ... --latents ... --out runs/nano``.

Several processes train together when ``accelerate launch`` or ``torchrun`` starts them.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.latent_cache import autoencoder_sha256, prior_sha256
from training.data.loader import SLOWEST_S, LoadedBatch, Loader, OnBadSample
from training.data.photographs import Unlabelled, folder_colours
from training.data.random_streams import stream
from training.data.sampling import Latents, Pictures, Plan, Source
from training.data.sets import open_set
from training.engine.command import run
from training.engine.fingerprint import run_fingerprint
from training.engine.loop import Losses, Run, run_loop
from training.engine.losses import feature_distance, velocity_loss
from training.engine.metrics_log import MetricsLog
from training.engine.processes import accelerator_for
from training.engine.validation import ValidationCallback
from training.recipe import PRESETS, Recipe
from training.start import prepare_start


@dataclass(frozen=True)
class Objective:
    """The loss of a micro-batch, through the pipeline that inference runs."""

    pipeline: MarigoldPipeline
    recipe: Recipe
    unlabelled: Unlabelled | None

    def __call__(self, network: nn.Module, micro: int, delivery: LoadedBatch) -> Losses:
        """Score the network on a micro-batch -> "loss", which is minimised, and its parts."""
        batch = delivery.batch
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same network, as the accelerator wrapped it)
        image, target, valid = (part.to(self.pipeline.device) for part in (batch.image, batch.target, batch.valid))
        with torch.no_grad():
            if not batch.encoded:
                image, target = self.pipeline.encode(image), self.pipeline.encode(target)
            features = tuple(found.to(image.device) for found in batch.features)
            prior = self.pipeline.prior
            features = prior.with_draft(features) if features and prior else self.pipeline.features(image)
        loss = velocity_loss(pipeline, image, target, valid, recipe=self.recipe, micro=micro, features=features)
        if self.unlabelled is None:
            return {"loss": loss}
        size = (image.shape[2] * self.pipeline.factor, image.shape[3] * self.pipeline.factor)
        with torch.no_grad():
            real = self.pipeline.encode(self.unlabelled.batch(len(image), size, micro).to(image.device))
        distance = feature_distance(self.pipeline, image, real, stream(self.recipe.seed, micro, 1))
        return {"loss": loss + self.recipe.align_weight * distance, "velocity": loss, "features": distance}


@dataclass(frozen=True)
class Task:
    """What to train on and where, beside the recipe."""

    start_from: str  # what to begin with: a Stable Diffusion 2 folder, a Marigold folder or name, a run, or new:SHAPE
    out: Path  # folder of the run; its newest step_* folder is a whole checkpoint
    data: tuple[str, ...] = ()  # data sets, KIND:FOLDER each, encoded as they are seen
    latents: tuple[Path, ...] = ()  # folders of encoded pictures, from training.latents with the start's autoencoder
    # data sets, KIND:FOLDER each; the first one's AbsRel decides which checkpoint is kept as the best
    validation: tuple[str, ...] = ()
    validation_pictures: int = 80  # pictures of each validation set, spread evenly
    photos: Path | None = None  # folder of photographs whose colours are lent to the pictures
    unlabelled: Path | None = None  # folder of real photographs for --align-weight
    workers: int = 0  # processes that read pictures ahead; the result is the same for any number
    loader_timeout_s: float = SLOWEST_S  # a worker that delivers nothing for so long is taken for stuck
    # what to do with a damaged picture: raise ends the run, skip takes the next one
    on_bad_sample: OnBadSample = "raise"
    minutes: float | None = None  # stop after this time
    device: Literal["auto", "cpu"] = "auto"  # where to train
    allow_change: bool = False  # go on although recipe, data or versions are not those the run was begun with


def train(task: Task, recipe: Recipe) -> Path:
    """Train the U-Net of a start model -> the newest checkpoint of the run.

    Raises: MarigoldError for unusable starts, data or settings, and what ``loop.run_loop`` raises.
    """
    if not task.data and not task.latents:
        raise MarigoldError("There is nothing to train on: give --data KIND:FOLDER or --latents FOLDER.")
    if recipe.align_weight and task.unlabelled is None:
        raise MarigoldError("--align-weight needs real photographs: give a folder of them with --unlabelled.")
    # 1. Everything that can be wrong is opened before anything heavy is.
    accelerator = accelerator_for(recipe, task.device)
    validation = [open_set(spec, "val") for spec in task.validation]
    pictures = [open_set(spec) for spec in task.data]
    real = Unlabelled(task.unlabelled, recipe.seed) if task.unlabelled and recipe.align_weight else None
    colours = folder_colours(task.photos) if task.photos else None
    encoded = [Latents(folder) for folder in task.latents]
    # 2. The start, and the pipeline object that inference runs.
    with accelerator.main_process_first():
        base = prepare_start(
            task.start_from, task.out / "start", noise_schedule=recipe.noise_schedule, seed=recipe.seed
        )
    pipeline = load(base, device=str(accelerator.device), dtype="float32")
    pipeline.prompt = pipeline.prompt.clone()  # loaded in inference mode, which autograd refuses
    pipeline.unet.train().requires_grad_(True)
    # 3. Which pictures make which step.
    depth = cast(Depth, pipeline.modality)  # no start predicts anything else
    sources: list[Source] = [Pictures(a_set, recipe, pipeline.factor, colours, depth) for a_set in pictures]
    made_by = autoencoder_sha256(pipeline), prior_sha256(pipeline), depth.transfer
    for latents in encoded:
        latents.check(*made_by)
    sources += encoded
    plan = Plan(sources, recipe.micro_batch_size or recipe.batch_size, recipe.shares, recipe.seed)
    data = [source.fingerprint() for source in sources]
    counts = ", ".join(f"{sum(map(len, source.groups()))} of {source.label}" for source in sources)
    accelerator.print(f"Training on {counts}", flush=True)
    examples = next(Loader(plan, on_bad_sample=task.on_bad_sample)(range(1))).batch
    # 4. The loop.
    fingerprint = run_fingerprint(recipe, pipeline.checkpoint.sha256, data, accelerator.device.type)
    newest = run_loop(
        pipeline.unet,
        Objective(pipeline, recipe, real),
        Loader(plan, task.workers, task.on_bad_sample, task.loader_timeout_s),
        recipe,
        Run(task.out, base, "unet", fingerprint, task.allow_change),
        accelerator,
        callback=ValidationCallback(pipeline, recipe, validation, task.validation_pictures, examples, task.out),
        minutes=task.minutes,
    )
    best = MetricsLog(task.out / "metrics.jsonl").best_step
    accelerator.print(newest if best is None else f"{newest}; step {best} validated best")
    return newest


def main(task: Task, recipe: Recipe) -> None:
    """Train the U-Net; the same command resumes a run that was stopped."""
    train(task, recipe)


if __name__ == "__main__":
    run(main, "python -m training.train", presets=PRESETS)
