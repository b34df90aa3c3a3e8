"""Scores of one checkpoint over a grid of steps, members and seeds, stored picture by picture."""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from diffusers import DDIMScheduler
from tqdm import tqdm

from marigold_core.checkpoints.weights import write_json
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.sets.sample import DepthSet
from training.models.networks import Spacing
from training.scoring.protocols import choose_protocol
from training.scoring.scores import Row, averages, compare

KEPT = ("pixels", "abs_rel", "delta1")  # of the metrics of a picture

Grid = dict[tuple[int, int], "Score"]  # by steps and members


@dataclass(frozen=True)
class SweepOptions:
    """Steps, members and seeds; every picture is predicted with all combinations."""

    steps: tuple[int, ...]  # denoising steps
    members: tuple[int, ...]  # of an ensemble; the first of ten members are those of five
    seeds: tuple[int, ...]
    spacing: Spacing | None  # of the timesteps; None: as the pipeline places them
    processing_resolution: int | None  # as in Settings


@dataclass(frozen=True)
class Score:
    """One number of steps and members: means over pictures, then statistics over seeds."""

    abs_rel: float  # mean over seeds
    delta1: float  # mean over seeds
    std: float  # of AbsRel over seeds
    range: float  # highest minus lowest AbsRel over seeds
    spread: float | None  # mean uncertainty, in units of the depth range; None below three members


def place_timesteps(pipeline: MarigoldPipeline, spacing: Spacing | None) -> MarigoldPipeline:
    """Make a pipeline take its timesteps with this spacing, whatever its checkpoint was stored with; None: leave it.

    With leading spacing a single step lies at t = 1, where the network expects an almost clean latent but gets noise.
    Source: Martin Garcia et al. 2025, who found this in the released inference of v1-0.
    Raises: MarigoldError for a scheduler that has no spacing.
    """
    if spacing is None:
        return pipeline
    if not isinstance(pipeline.scheduler, DDIMScheduler):
        raise MarigoldError(f"{pipeline.checkpoint.name} has no DDIM scheduler, whose timesteps could be placed.")
    changed = copy.copy(pipeline)
    changed.scheduler = DDIMScheduler(**{**pipeline.scheduler.config, "timestep_spacing": spacing})
    changed.respace = False
    return changed


def score_grid(
    pipeline: MarigoldPipeline, a_set: DepthSet, numbers: Sequence[int], options: SweepOptions, path: Path
) -> Grid:
    """Score a pipeline on the pictures ``numbers`` of a set, and keep each picture's scores in the JSON ``path``.

    Pictures that are in it are not predicted again; scores of another checkpoint, set or options are dropped.
    """
    made_with = {"checkpoint": pipeline.checkpoint.sha256, "kind": a_set.kind, **asdict(options)}
    made_with = json.loads(json.dumps(made_with))  # as it comes back from the file: lists instead of tuples
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows: dict[str, dict[str, Row]] = kept["rows"] if kept.get("made_with") == made_with else {}
    pipeline = place_timesteps(pipeline, options.spacing)
    for number in tqdm(numbers, desc=path.parent.name, unit="picture", disable=None):
        if a_set.name(number) not in rows:
            rows[a_set.name(number)] = _score_picture(pipeline, a_set, number, options)
            write_json(path, {"made_with": made_with, "rows": rows})
    used = [rows[a_set.name(number)] for number in numbers]
    return {
        (steps, members): _sum_up(used, steps, members, options.seeds)
        for steps in options.steps
        for members in options.members
    }


def _score_picture(pipeline: MarigoldPipeline, a_set: DepthSet, number: int, options: SweepOptions) -> dict[str, Row]:
    """Predict one picture in every combination -> its metrics and spread, each under the name of its cell."""
    sample, protocol = a_set[number], choose_protocol(a_set.kind)
    rows = {}
    for cell in pipeline.grid(
        sample.rgb,
        steps=options.steps,
        sizes=options.members,
        seeds=options.seeds,
        processing_resolution=options.processing_resolution,
    ):
        alone = replace(cell.prediction, uncertainty=None)  # rank correlations would cost more than the prediction
        found = compare(alone, sample.depth_m, protocol).row
        row = {name: found[name] for name in KEPT if not math.isnan(found.get(name, math.nan))}
        if cell.prediction.uncertainty is not None:
            row["spread"] = float(cell.prediction.uncertainty.mean())
        used = cell.settings
        rows[_name(used.num_inference_steps, used.ensemble_size, used.seed)] = row
    return rows


def _name(steps: int | None, members: int, seed: int) -> str:
    """Name a cell as JSON can."""
    return f"{steps} steps, {members} members, seed {seed}"


def _sum_up(rows: Sequence[dict[str, Row]], steps: int, members: int, seeds: Sequence[int]) -> Score:
    """Average one cell over pictures, then over seeds."""
    means = [averages([row[_name(steps, members, seed)] for row in rows]) for seed in seeds]
    abs_rel = np.array([mean["abs_rel"] for mean in means])
    spreads = [mean["spread"] for mean in means if "spread" in mean]
    return Score(
        abs_rel=float(abs_rel.mean()),
        delta1=float(np.mean([mean["delta1"] for mean in means])),
        std=float(abs_rel.std()),
        range=float(np.ptp(abs_rel)),
        spread=float(np.mean(spreads)) if spreads else None,
    )
