"""Trains the U-Net, ``python -m training.train --recipe nano --start-from ... --latents ... --out runs/nano``.

Several processes train together when ``accelerate launch`` or ``torchrun`` starts them.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.options import AUTO
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.latent_cache import autoencoder_sha256, prior_sha256
from training.data.loader import SLOWEST_S, LoadedBatch, Loader, OnBadSample
from training.data.photographs import Unlabelled, folder_colours
from training.data.random_streams import stream
from training.data.sampling import Latents, Pictures, Plan, Source
from training.data.sets import open_set
from training.data.targets import TargetName
from training.engine import checkpoints
from training.engine.command import run
from training.engine.fingerprint import check_folder, read_run, run_fingerprint
from training.engine.loop import Losses, Run, run_loop
from training.engine.losses import end_to_end_loss, feature_distance, velocity_loss
from training.engine.processes import accelerator_for
from training.engine.validation import ValidationCallback
from training.models.lora import make_trainable, merged
from training.recipe import PRESETS, Recipe
from training.start import prepare_start


@dataclass(frozen=True)
class Objective:
    """The loss of a micro-batch, through the pipeline that inference runs."""

    pipeline: MarigoldPipeline
    recipe: Recipe
    unlabelled: Unlabelled | None

    def __call__(self, network: nn.Module, micro: int, loaded: LoadedBatch) -> Losses:
        """Score the network on a micro-batch -> "loss", which is minimised, and its parts."""
        batch = loaded.batch
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same network, as the accelerator wrapped it)
        image, target, valid = (part.to(self.pipeline.device) for part in (batch.image, batch.target, batch.valid))
        with torch.no_grad():
            end_to_end = self.recipe.objective == "end_to_end"
            if not batch.encoded:
                image, target = self.pipeline.encode(image), target if end_to_end else self.pipeline.encode(target)
            elif end_to_end:
                target = self.pipeline.decode(target).float()
            features = tuple(found.to(image.device) for found in batch.features)
            features = features or self.pipeline.features(image)
        score = end_to_end_loss if end_to_end else velocity_loss
        loss = score(pipeline, image, target, valid, recipe=self.recipe, micro=micro, features=features)
        usable = valid.float().mean()
        if self.unlabelled is None:
            return {"loss": loss, "usable": usable}
        size = (image.shape[2] * self.pipeline.factor, image.shape[3] * self.pipeline.factor)
        with torch.no_grad():
            real = self.pipeline.encode(self.unlabelled.batch(len(image), size, micro).to(image.device))
        distance = feature_distance(self.pipeline, image, real, stream(self.recipe.seed, micro, 1))
        return {
            "loss": loss + self.recipe.align_weight * distance,
            "usable": usable,
            "velocity": loss,
            "features": distance,
        }


@dataclass(frozen=True)
class Task:
    """What to train on and where, beside the recipe."""

    start_from: str  # what to begin with: a Stable Diffusion 2 folder, a Marigold folder or name, a run, or new:SHAPE
    out: Path  # folder of the run; its newest step_* folder is a whole checkpoint
    # what the network learns to predict: log is of depth, metric depth in metres; start: what the start predicts
    target: TargetName | Literal["start"] = "start"
    data: tuple[str, ...] = ()  # data sets, KIND:FOLDER each, encoded as they are seen
    latents: tuple[Path, ...] = ()  # folders of encoded pictures, from training.latents with the start's autoencoder
    # data sets, KIND:FOLDER each; the error on the first one decides which checkpoint is kept as the best
    validation: tuple[str, ...] = ()
    validation_pictures: int = 80  # pictures of each validation set, spread evenly
    photos: Path | None = None  # folder of photographs whose colours are lent to the pictures
    # real photographs for --align-weight: a folder, or a data set KIND/SPLIT:FOLDER whose depth is not looked at
    unlabelled: str | None = None
    workers: int = 0  # processes that read pictures ahead; the result is the same for any number
    loader_timeout_s: float = SLOWEST_S  # a worker that gives no micro-batch for so long counts as stuck
    # what to do with a damaged picture: raise ends the run, skip takes the next one
    on_bad_sample: OnBadSample = "raise"
    # what accelerate reports the metrics to beside metrics.jsonl, such as tensorboard, wandb or trackio
    trackers: tuple[str, ...] = ()
    minutes: float | None = None  # stop after this time
    device: Literal["auto", "cpu"] = "auto"  # where to train
    allow_change: bool = False  # go on although recipe, data or versions are not those the run was begun with
    config: Path | None = None  # run.json of an earlier run, whose options hold unless others are given


OF_A_CALL = ("out", "config", "minutes", "allow_change", "trackers")  # fields of a task that say nothing about the run
LARGEST_PX = 2048  # resolution that settings accept


def jsonable(task: Task) -> dict[str, object]:
    """Write a task as JSON can hold it: paths as absolute text, tuples as lists."""
    return json.loads(json.dumps(asdict(task), default=lambda path: str(Path(path).absolute())))


def train(task: Task, recipe: Recipe) -> Path:
    """Train the U-Net of a start model -> the newest checkpoint of the run.

    Raises: MarigoldError for unusable starts, data or settings, and what ``loop.run_loop`` raises.
    """
    if not task.data and not task.latents:
        raise MarigoldError("There is nothing to train on: give --data KIND:FOLDER or --latents FOLDER.")
    if recipe.align_weight and task.unlabelled is None:
        raise MarigoldError("--align-weight needs real photographs: give a folder of them with --unlabelled.")
    # 1. Everything that can be wrong is opened before anything heavy is.
    check_folder(task.out)
    accelerator = accelerator_for(recipe, task.device, task.trackers, task.out)
    validation = [open_set(spec, "val") for spec in task.validation]
    pictures = [open_set(spec) for spec in task.data]
    real = Unlabelled(task.unlabelled, recipe.seed) if task.unlabelled and recipe.align_weight else None
    colours = folder_colours(task.photos) if task.photos else None
    encoded = [Latents(folder) for folder in task.latents]
    # 2. The start, and the pipeline object that inference runs.
    with accelerator.main_process_first():
        base = prepare_start(
            task.start_from,
            task.out / "start",
            noise_schedule=recipe.noise_schedule,
            target=task.target,
            objective=recipe.objective,
            seed=recipe.seed,
            replace=checkpoints.latest(task.out) is None,  # nothing was trained from an earlier one
        )
    pipeline = load(base, device=str(accelerator.device), dtype="float32")
    pipeline.prompt = pipeline.prompt.clone()  # loaded in inference mode, which autograd refuses
    make_trainable(pipeline.unet, recipe)
    # 3. Which pictures make which step.
    target = pipeline.modality
    sources: list[Source] = [Pictures(a_set, recipe, pipeline.factor, colours, target) for a_set in pictures]
    made_by = autoencoder_sha256(pipeline), prior_sha256(pipeline), target
    for latents in encoded:
        latents.check(*made_by)
    sources += encoded
    plan = Plan(sources, recipe.micro_batch_size or recipe.batch_size, recipe.shares, recipe.seed)
    data = [source.fingerprint() for source in sources]
    counts = [f"{sum(map(len, source.groups())):,} pictures of {source.label}" for source in sources]
    accelerator.print(f"Training on {', '.join(counts)}", flush=True)
    examples = next(Loader(plan, on_bad_sample=task.on_bad_sample)(range(1))).batch
    # 4. The loop.
    fingerprint = run_fingerprint(recipe, pipeline.checkpoint.sha256, data, accelerator.device.type)
    main_source = sources[int(np.argmax(plan.shares))]
    record = {
        "task": {name: value for name, value in jsonable(task).items() if name not in OF_A_CALL},
        "pictures": counts,
        "resolution_px": min(main_source.long_edge_px(pipeline.factor) // 8 * 8, LARGEST_PX),
    }
    newest = run_loop(
        pipeline.unet,
        Objective(pipeline, recipe, real),
        Loader(plan, task.workers, task.on_bad_sample, task.loader_timeout_s),
        recipe,
        Run(task.out, base, "unet", fingerprint, task.allow_change, record, merged if recipe.lora_rank else None),
        accelerator,
        callback=ValidationCallback(pipeline, recipe, validation, task.validation_pictures, examples, task.out),
        minutes=task.minutes,
    )
    best = checkpoints.choose(task.out).reason
    accelerator.print(newest, best, sep="\n")
    return newest


def main(task: Task, recipe: Recipe) -> None:
    """Train the U-Net; the same command resumes a run that was stopped."""
    train(task, recipe)


def with_config(words: Sequence[str]) -> list[str]:
    """Put the options of an earlier run, where ``--config`` names its ``run.json``, before those that are given.

    Raises: MarigoldError when the file is missing or no record of a training.
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config", type=Path)
    path = reader.parse_known_args(words)[0].config
    if path is None:
        return list(words)
    if not path.is_file():
        raise MarigoldError(f"There is no {path}: give the run.json of an earlier run with --config.")
    record = read_run(path)
    recipe, task = record.get("recipe"), record.get("task")
    if not isinstance(recipe, dict) or not isinstance(task, dict):
        raise MarigoldError(f"{path} does not hold the options of a run of training.train.")
    given = {word.partition("=")[0].removeprefix("--").replace("_", "-") for word in words if word.startswith("--")}
    given |= {"data"} if "latents" in given else {"latents"} if "data" in given else set()  # one goes for the other
    found: list[str] = []
    for name, value in {**recipe, **task}.items():
        option = name.replace("_", "-")
        if option in given or (name in task and value in (None, [], False)):
            continue
        if name in task and isinstance(value, list):
            found += [f"--{option}", *map(str, value)]
        elif isinstance(value, bool):
            found += [f"--{option}" if value else f"--no-{option}"]
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else AUTO if value is None else str(value)
            found += [f"--{option}", text]
    return [*found, *words]


if __name__ == "__main__":
    run(main, "python -m training.train", presets=PRESETS, expand=with_config)
