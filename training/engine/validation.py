"""Validation during the U-Net's training: scores on pictures with known depth, sample pictures."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin

from marigold_core import Settings
from marigold_core.images.colormaps import depth_to_rgb, layer_to_rgb, normals_to_rgb, stretch, to_rgb
from marigold_core.images.intrinsics import channels_of
from marigold_core.pipeline.modalities import Depth, Intrinsics, Modality, Normals, Segmentation
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.framing import Batch
from training.data.random_streams import stream
from training.data.sets.sample import DepthSet, Sample, labels, spread
from training.data.targets import focal_px, planes, target_of
from training.engine.figures import CURVES, draw_curves, drawing, due, sheet_path
from training.engine.metrics_log import DECIDES, MetricsLog, Record
from training.engine.noise import gaussian_noise
from training.recipe import Framing, Recipe
from training.scoring.plots import draw_sheet
from training.scoring.protocols import choose_protocol
from training.scoring.scores import Row
from training.scoring.targets import blind_protocol, metric_of, photo_of

VALIDATION_STEPS = 1  # denoising steps and members, as published
SHOWN = 4  # pictures of a sheet
MOST_STEPS = 4
UNKNOWN = 217  # grey of pixels whose depth is not known


Rows = list[tuple[str, list[np.ndarray]]]  # name of a picture and its pictures [H, W, 3] uint8


@dataclass(frozen=True)
class ValidationCallback:
    """Validates and draws every so many steps, as the recipe says, and at the end; nothing is done twice."""

    pipeline: MarigoldPipeline
    recipe: Recipe
    sets: Sequence[DepthSet]
    pictures: int  # of each set, spread evenly
    examples: Batch  # for sample pictures
    folder: Path
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)  # error of each, by set; computed once

    def __call__(self, network: ModelMixin, step: int, log: MetricsLog, stopping: Callable[[], bool]) -> None:
        """Validate, draw samples and curves if they are due at ``step``, unless the run is ``stopping``."""
        validate = self.sets and due(step, self.recipe.validate_steps, self.recipe) and step not in log.scores
        sheet = sheet_path(self.folder, step)
        draw = due(step, self.recipe.figure_steps, self.recipe) and not sheet.exists()
        if stopping() or not (validate or draw):
            return
        kind = "held-out pictures" if self.sets else "training pictures as the autoencoder decodes them"
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same class, with the weights that will be saved)
        network.eval()
        with torch.inference_mode():
            if validate and (scores := self._scores(pipeline, step, stopping)):
                log.add(scores)
            with drawing(step):
                if draw:
                    columns = ("photo", "truth", "1 step", f"{most_steps(pipeline)} steps")
                    draw_sheet(f"{kind}, step {step}", columns, self._rows(pipeline), sheet)
                draw_curves(log.read(), self.folder / CURVES)
        network.train()

    def _rows(self, pipeline: MarigoldPipeline) -> Rows:
        if self.sets:
            return held_out_sheet(pipeline, self.sets[0], self.recipe.validate_px, self.recipe.seed)
        return sample_sheet(pipeline, self.examples, self.recipe.seed)

    def _scores(self, pipeline: MarigoldPipeline, step: int, stopping: Callable[[], bool]) -> Record | None:
        """Score the weights: one step, one member, scale and shift fitted; None if the run is to stop.

        Source: Ke et al. 2024, section 4.2.
        """
        means: dict[str, Row] = {}
        metric = metric_of(pipeline.modality)
        for label, a_set in zip(labels(self.sets), self.sets, strict=True):
            protocol = choose_protocol(a_set.kind)
            blind = blind_protocol(protocol, pipeline.modality)
            rows: list[Row] = []
            guesses: list[dict[str, Row]] = []
            for number in spread(a_set, self.pictures):
                if stopping():
                    return None
                sample = a_set[number]
                settings = Settings(
                    num_inference_steps=VALIDATION_STEPS,
                    processing_resolution=self.recipe.validate_px,
                    seed=(self.recipe.seed + number) % 2**32,
                )
                rows.append(metric.row(pipeline(photo_of(sample), settings), sample, protocol))
                if label not in self.baselines:
                    guesses.append(metric.guess(sample, blind))
            means[label] = metric.mean(rows, protocol.averaging)
            if guesses:
                by_name = {name: [guess[name] for guess in guesses] for name in metric.baselines}
                found = {name: metric.mean(rows, protocol.averaging) for name, rows in by_name.items()}
                self.baselines[label] = {name: row[metric.decides] for name, row in found.items()}
        first = next(iter(means.values()))
        print(f"Step {step}: " + json.dumps({name: round(row[metric.decides], 4) for name, row in means.items()}))
        decided = {} if metric.decides == DECIDES else {"decides": metric.decides}
        record: Record = {"step": step, "validation": means, "score": metric.score(first), **decided}
        return record | {"baselines": dict(self.baselines)}


def sample_sheet(pipeline: MarigoldPipeline, batch: Batch, seed: int) -> Rows:
    """Denoise the first pictures of a micro-batch -> photo, truth, 1 step, the checkpoint's steps (at most 4).

    The start noise is a function of ``seed``, the same in every sheet of a run.
    """
    image, target = (part[:SHOWN].to(pipeline.device) for part in (batch.image, batch.target))
    if not batch.encoded:
        image, target = pipeline.encode(image), pipeline.encode(target)
    noise = gaussian_noise(target.shape, stream(seed, SHOWN)).to(image)
    noise = torch.zeros_like(noise) if pipeline.checkpoint.family.deterministic else noise
    latents = [target]
    for steps in (1, most_steps(pipeline)):
        *_, latent = pipeline.denoise(image, noise, steps)
        latents.append(latent)
    maps = [pipeline.modality.from_vae(pipeline.decode(latent)) for latent in latents]  # [B, C, H, W]
    pictures = (pipeline.decode(image).float().clamp(-1, 1) + 1) / 2 * 255
    photos = pictures.round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, 3]
    return [
        (name, [photo, *(_coloured(pipeline.modality, found[number]) for found in maps)])
        for number, (name, photo) in enumerate(zip(batch.names, photos, strict=False))
    ]


def held_out_sheet(pipeline: MarigoldPipeline, a_set: DepthSet, resolution_px: int | None, seed: int) -> Rows:
    """Predict pictures that are spread over a set -> photo, truth, 1 step, the checkpoint's steps (at most 4)."""
    rows: Rows = []
    for number in spread(a_set, SHOWN):
        sample = a_set[number]
        pictures = [sample.rgb, _coloured_truth(pipeline.modality, sample, a_set)]
        for steps in (1, most_steps(pipeline)):
            settings = Settings(num_inference_steps=steps, processing_resolution=resolution_px, seed=seed)
            pictures.append(to_rgb(pipeline(photo_of(sample), settings)))
        rows.append((sample.name, pictures))
    return rows


def _coloured(modality: Modality, values: torch.Tensor) -> np.ndarray:
    """Colour the values [C, H, W] of a modality -> [H, W, 3] uint8."""
    array = values.float().permute(1, 2, 0).cpu().numpy()
    if isinstance(modality, Normals):
        return normals_to_rgb(array)
    if isinstance(modality, Intrinsics | Segmentation):
        first = modality.layers[0]
        return layer_to_rgb(channels_of(modality.layers, first.name, array), first)
    if isinstance(modality, Depth) and modality.range_m:
        return depth_to_rgb(stretch(np.log(array[..., 0]), *np.log(modality.range_m)))
    return depth_to_rgb(array[..., 0])


def _coloured_truth(modality: Modality, sample: Sample, a_set: DepthSet) -> np.ndarray:
    """Colour the truth of a sample as the modality paints it, grey where it is not known -> [H, W, 3] uint8."""
    target = target_of(modality)
    values = target.finish(planes(target.values(sample, focal_px(sample, 1.0)))[None])
    known, _ = target.masks(values, a_set, Framing())
    painted = modality.from_vae(modality.to_vae(values, known))
    return np.where(known[0, 0, ..., None].numpy(), _coloured(modality, painted[0]), UNKNOWN).astype(np.uint8)


def most_steps(pipeline: MarigoldPipeline) -> int:
    """Return the denoising steps of the last column of a sheet."""
    return min(MOST_STEPS, pipeline.checkpoint.default_steps)
