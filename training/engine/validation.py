"""Validation during a run: scores on pictures with known depth, sample pictures, curves of the metrics."""

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from diffusers import ModelMixin
from PIL import Image

from marigold_core import Settings, storage
from marigold_core.errors import ExportError
from marigold_core.images.colormaps import depth_to_rgb
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.framing import Batch
from training.data.random_streams import stream
from training.data.sets.sample import DepthSet, spread
from training.engine.metrics_log import MetricsLog, Record
from training.engine.noise import gaussian_noise
from training.recipe import Recipe
from training.scoring.protocols import choose_protocol
from training.scoring.scores import Row, averages, compare

VALIDATION_STEPS = 1  # denoising steps and members, as published
SHOWN = 4  # pictures of a sheet
MOST_STEPS = 4
GAP_PX = 4
SMOOTH = 50  # steps that a point of the loss curve is the mean of, at most


@dataclass(frozen=True)
class ValidationCallback:
    """Validates and draws every so many steps, as the recipe says, and at the end; nothing is done twice."""

    pipeline: MarigoldPipeline
    recipe: Recipe
    sets: Sequence[DepthSet]
    pictures: int  # of each set, spread evenly
    examples: Batch  # for sample pictures
    folder: Path

    def __call__(self, network: ModelMixin, step: int, log: MetricsLog, stopping: Callable[[], bool]) -> None:
        """Validate, draw samples and curves if they are due at ``step``, unless the run is ``stopping``."""
        validate = self.sets and self._due(step, self.recipe.validate_steps) and step not in log.scores
        sheet = self.folder / "samples" / f"step_{step:08d}.png"
        draw = self._due(step, self.recipe.figure_steps) and not sheet.exists()
        if stopping() or not (validate or draw):
            return
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same class, with the weights that will be saved)
        network.eval()
        with torch.inference_mode():
            if validate and (scores := self._scores(pipeline, step, stopping)):
                log.add(scores)
            try:
                if draw:
                    with storage.replacing(sheet) as aside:
                        sample_sheet(pipeline, self.examples, self.recipe.seed).save(aside, format="png")
                draw_curves(log.read(), self.folder / "curves.png")
            except ExportError as error:  # training goes on without pictures
                print(f"Not drawn at step {step}: {error}", file=sys.stderr)
        network.train()

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.recipe.steps)

    def _scores(self, pipeline: MarigoldPipeline, step: int, stopping: Callable[[], bool]) -> Record | None:
        """Score the weights: one step, one member, scale and shift fitted; None if the run is to stop.

        Source: Ke et al. 2024, section 4.2.
        """
        means: dict[str, Row] = {}
        for a_set in self.sets:
            protocol = choose_protocol(a_set.kind)
            rows = []
            for number in spread(a_set, self.pictures):
                if stopping():
                    return None
                sample = a_set[number]
                settings = Settings(
                    num_inference_steps=VALIDATION_STEPS,
                    processing_resolution=self.recipe.validate_px,
                    seed=(self.recipe.seed + number) % 2**32,
                )
                rows.append(compare(pipeline(sample.rgb, settings), sample.depth_m, protocol).row)
            means[f"{a_set.kind} {a_set.folder.name}"] = averages(rows)
        first = next(iter(means.values()))
        print(f"Step {step}: " + json.dumps({name: round(row["abs_rel"], 4) for name, row in means.items()}))
        return {"step": step, "validation": means, "score": first["abs_rel"]}


def sample_sheet(pipeline: MarigoldPipeline, batch: Batch, seed: int) -> Image.Image:
    """Denoise the first pictures of a micro-batch -> a sheet: photo, truth, 1 step, the checkpoint's steps (at most 4).

    The start noise is a function of ``seed``, the same in every sheet of a run.
    """
    image, target = (part[:SHOWN].to(pipeline.device) for part in (batch.image, batch.target))
    if not batch.encoded:
        image, target = pipeline.encode(image), pipeline.encode(target)
    noise = gaussian_noise(image.shape, stream(seed, SHOWN)).to(image)
    latents = [target]
    for steps in (1, min(MOST_STEPS, pipeline.checkpoint.default_steps)):
        *_, latent = pipeline.denoise(image, noise, steps)
        latents.append(latent)
    maps = [pipeline.modality.from_vae(pipeline.decode(latent)) for latent in latents]  # [B, 1, H, W] in [0, 1]
    pictures = (pipeline.decode(image).float().clamp(-1, 1) + 1) / 2 * 255
    photos = pictures.round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, 3]
    rows = [
        [photo, *(depth_to_rgb(depth[number, 0].float().cpu().numpy()) for depth in maps)]
        for number, photo in enumerate(photos)
    ]
    gaps = ((0, GAP_PX), (0, GAP_PX), (0, 0))
    sheet = np.concatenate(
        [np.concatenate([np.pad(picture, gaps, constant_values=255) for picture in row], axis=1) for row in rows]
    )
    return Image.fromarray(sheet[:-GAP_PX, :-GAP_PX])


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Draw loss, gradient, learning rate and validation scores over steps as a PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [record for record in records if "loss" in record]
    scores = [record for record in records if "score" in record]
    figure, panes = pyplot.subplots(2, 2, figsize=(10, 6), layout="constrained")
    for pane, name in zip(panes.flat, ("loss", "gradient", "lr"), strict=False):
        x, y = _smooth([record["step"] for record in steps], [record[name] for record in steps], name != "lr")
        pane.plot(x, y, linewidth=1)
        pane.set(title={"lr": "learning rate", "gradient": "gradient norm"}.get(name, name), xlabel="step")
    for label in dict.fromkeys(label for record in scores for label in _validation(record)):
        known = [(record["step"], _validation(record)[label]) for record in scores if label in _validation(record)]
        panes[1, 1].plot(*zip(*known, strict=True), marker="o", markersize=3, label=label)
    panes[1, 1].set(title="validation AbsRel", xlabel="step")
    panes[1, 1].legend() if scores else panes[1, 1].remove()
    with storage.replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=110)
    pyplot.close(figure)


def _validation(record: Record) -> dict[str, float]:
    """Return AbsRel by data set."""
    means = record["validation"]
    assert isinstance(means, dict)
    return {label: row["abs_rel"] for label, row in means.items()}


def _smooth(x: Sequence[object], y: Sequence[object], smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring points, without those that are not finite (skipped steps)."""
    steps, values = np.array(x, dtype=float), np.array(y, dtype=float)
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    width = min(SMOOTH, len(values) // 10)
    if not smooth or width < 2:
        return steps, values
    kernel = np.ones(width) / width
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")
