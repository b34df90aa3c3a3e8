"""Validation during a run: scores on pictures with known depth, sample pictures, curves of the metrics."""

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import ModelMixin
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marigold_core import Settings
from marigold_core.errors import ExportError
from marigold_core.images.colormaps import depth_to_rgb
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.framing import Batch
from training.data.random_streams import stream
from training.data.sets.sample import DepthSet, labels, spread
from training.engine.metrics_log import MetricsLog, Record
from training.engine.noise import gaussian_noise
from training.recipe import Recipe
from training.scoring.plots import draw_sheet, save_figure
from training.scoring.protocols import choose_protocol
from training.scoring.scores import BASELINES, Row, averages, compare

VALIDATION_STEPS = 1  # denoising steps and members, as published
SHOWN = 4  # pictures of a sheet
MOST_STEPS = 4
UNKNOWN = 217  # grey of pixels whose depth is not known
SMOOTH = 50  # steps that a point of the loss curve is the mean of, at most


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
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)  # AbsRel of each, by set; computed once

    def __call__(self, network: ModelMixin, step: int, log: MetricsLog, stopping: Callable[[], bool]) -> None:
        """Validate, draw samples and curves if they are due at ``step``, unless the run is ``stopping``."""
        validate = self.sets and self._due(step, self.recipe.validate_steps) and step not in log.scores
        sheet = self.folder / "samples" / f"step_{step:08d}.png"
        draw = self._due(step, self.recipe.figure_steps) and not sheet.exists()
        if stopping() or not (validate or draw):
            return
        kind = f"{'held-out' if self.sets else 'training'} pictures"
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same class, with the weights that will be saved)
        network.eval()
        with torch.inference_mode():
            if validate and (scores := self._scores(pipeline, step, stopping)):
                log.add(scores)
            try:
                if draw:
                    columns = ("photo", "truth", "1 step", f"{most_steps(pipeline)} steps")
                    draw_sheet(f"{kind}, step {step}", columns, self._rows(pipeline), sheet)
                draw_curves(log.read(), self.folder / "curves.png")
            except ExportError as error:  # training goes on without pictures
                print(f"Not drawn at step {step}: {error}", file=sys.stderr)
        network.train()

    def _rows(self, pipeline: MarigoldPipeline) -> Rows:
        if self.sets:
            return held_out_sheet(pipeline, self.sets[0], self.recipe.validate_px, self.recipe.seed)
        return sample_sheet(pipeline, self.examples, self.recipe.seed)

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.recipe.steps)

    def _scores(self, pipeline: MarigoldPipeline, step: int, stopping: Callable[[], bool]) -> Record | None:
        """Score the weights: one step, one member, scale and shift fitted; None if the run is to stop.

        Source: Ke et al. 2024, section 4.2.
        """
        means: dict[str, Row] = {}
        for label, a_set in zip(labels(self.sets), self.sets, strict=True):
            protocol = choose_protocol(a_set.kind)
            rows = []
            guesses: dict[str, list[Row]] = {name: [] for name in BASELINES}
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
                if label not in self.baselines:
                    for name, guess in BASELINES.items():
                        guesses[name].append(compare(guess(sample.rgb), sample.depth_m, protocol).row)
            means[label] = averages(rows)
            if label not in self.baselines:
                self.baselines[label] = {name: averages(found)["abs_rel"] for name, found in guesses.items()}
        first = next(iter(means.values()))
        print(f"Step {step}: " + json.dumps({name: round(row["abs_rel"], 4) for name, row in means.items()}))
        return {"step": step, "validation": means, "score": first["abs_rel"], "baselines": dict(self.baselines)}


def sample_sheet(pipeline: MarigoldPipeline, batch: Batch, seed: int) -> Rows:
    """Denoise the first pictures of a micro-batch -> photo, truth, 1 step, the checkpoint's steps (at most 4).

    The start noise is a function of ``seed``, the same in every sheet of a run.
    """
    image, target = (part[:SHOWN].to(pipeline.device) for part in (batch.image, batch.target))
    if not batch.encoded:
        image, target = pipeline.encode(image), pipeline.encode(target)
    noise = gaussian_noise(image.shape, stream(seed, SHOWN)).to(image)
    latents = [target]
    for steps in (1, most_steps(pipeline)):
        *_, latent = pipeline.denoise(image, noise, steps)
        latents.append(latent)
    maps = [pipeline.modality.from_vae(pipeline.decode(latent)) for latent in latents]  # [B, 1, H, W] in [0, 1]
    pictures = (pipeline.decode(image).float().clamp(-1, 1) + 1) / 2 * 255
    photos = pictures.round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, 3]
    return [
        (name, [photo, *(depth_to_rgb(depth[number, 0].float().cpu().numpy()) for depth in maps)])
        for number, (name, photo) in enumerate(zip(batch.names, photos, strict=False))
    ]


def held_out_sheet(pipeline: MarigoldPipeline, a_set: DepthSet, resolution_px: int | None, seed: int) -> Rows:
    """Predict pictures that are spread over a set -> photo, truth, 1 step, the checkpoint's steps (at most 4)."""
    rows: Rows = []
    for number in spread(a_set, SHOWN):
        sample = a_set[number]
        depth, known = torch.from_numpy(sample.depth_m)[None, None], np.isfinite(sample.depth_m)
        truth = (Depth().to_vae(depth, depth.isfinite())[0, 0].numpy() + 1) / 2
        coloured = np.where(known[..., None], depth_to_rgb(truth), UNKNOWN).astype(np.uint8)
        pictures = [sample.rgb, coloured]
        for steps in (1, most_steps(pipeline)):
            settings = Settings(num_inference_steps=steps, processing_resolution=resolution_px, seed=seed)
            pictures.append(depth_to_rgb(pipeline(sample.rgb, settings).values))
        rows.append((sample.name, pictures))
    return rows


def most_steps(pipeline: MarigoldPipeline) -> int:
    """Return the denoising steps of the last column of a sheet."""
    return min(MOST_STEPS, pipeline.checkpoint.default_steps)


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Draw loss, gradient, learning rate and validation scores, beside baselines, over steps as a PNG."""
    steps = [record for record in records if "loss" in record]
    scores = [record for record in records if "score" in record]
    figure = Figure((10, 6), dpi=110, layout="constrained")
    panes = figure.subplots(2, 2)
    for pane, name in zip(panes.flat, ("loss", "gradient", "lr"), strict=False):
        x, y = _smooth([record["step"] for record in steps], [record[name] for record in steps], name != "lr")
        pane.plot(x, y, linewidth=1)
        pane.set(title={"lr": "learning rate", "gradient": "gradient norm"}.get(name, name), xlabel="step")
    for label in dict.fromkeys(label for record in scores for label in _validation(record)):
        known = [(record["step"], _validation(record)[label]) for record in scores if label in _validation(record)]
        (line,) = panes[1, 1].plot(*zip(*known, strict=True), marker="o", markersize=3, label=label)
        baselines = cast(dict[str, dict[str, float]], scores[-1].get("baselines", {}))
        for (name, score), dash in zip(baselines.get(label, {}).items(), ("--", ":"), strict=False):
            panes[1, 1].axhline(score, color=line.get_color(), linestyle=dash, linewidth=1, label=f"{name}, {label}")
    panes[1, 1].set(title="validation AbsRel", xlabel="step")
    for pane in panes.flat:
        pane.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panes[1, 1].legend(fontsize=8) if scores else panes[1, 1].remove()
    save_figure(figure, path)


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
