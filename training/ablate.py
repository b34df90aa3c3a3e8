"""The paper's ablations in miniature, ``python -m training.ablate NAME --start-from ... --validation ... --out ...``.

Each variant of a training ablation is a run of ``training.train`` in a folder of its own, and the scores of every
picture are kept, so the same command resumes where it was stopped. Published figures are AbsRel, or AbsRel / delta1, in
percent. Those of the paper's ablations are on the NYUv2 training split and 800 pictures of KITTI's, so only differences
between rows can be compared with ours.
"""

import copy
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from diffusers import DDIMScheduler

from marigold_core import load, storage
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import write_json
from training.data.sets import open_set
from training.data.sets.sample import DepthSet, labels, spread
from training.engine.checkpoints import step_of
from training.engine.command import check_json_out, run
from training.engine.progress import follow
from training.models.networks import Spacing
from training.recipe import PRESETS, Recipe
from training.scoring.protocols import choose_protocol
from training.scoring.scores import Row, averages, compare
from training.start import find_start
from training.train import Task, train

Name = Literal["noise", "mix", "schedule", "steps", "ensemble"]


@dataclass(frozen=True)
class Variant:
    """One change of the recipe, or one spacing of the timesteps in inference."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)  # of fields of the recipe
    spacing: Spacing | None = None


@dataclass(frozen=True)
class Published:
    """Published figures of one row, in the order of the ablation's ``columns``; None stands for any number."""

    label: str
    figures: tuple[str, ...]
    steps: int | None = None
    members: int | None = None


@dataclass(frozen=True)
class Ablation:
    """One table: its rows are variants x denoising steps x members."""

    title: str
    source: str
    columns: tuple[str, ...]
    published: Sequence[Published]
    variants: Sequence[Variant]
    steps: tuple[int, ...] = (4,)
    members: tuple[int, ...] = (1,)

    @property
    def trains(self) -> bool:
        """Return whether every variant is a training run of its own."""
        return any(variant.changes for variant in self.variants)

    def figures(self, label: str, steps: int, members: int) -> tuple[str, ...]:
        """Return the published figures of a row, a column each, dashes where there is none."""
        for row in self.published:
            if row.label == label and row.steps in (None, steps) and row.members in (None, members):
                return row.figures
        return ("-",) * len(self.columns)


PAPER = "Ke et al. 2024 (CVPR)"
BOTH = ("NYUv2", "KITTI")
SHARES = (100, 95, 90, 50, 0)  # percent of the first data set
BUNDLE = "checkpoint"  # label of a checkpoint that is not trained

ABLATIONS: dict[Name, Ablation] = {
    "noise": Ablation(
        title="Training noise",
        source=f"{PAPER}, ablation of training noise; std and max-min of AbsRel over 10 runs: its supplement",
        columns=(*BOTH, "NYUv2 std / max-min", "KITTI std / max-min"),
        published=(
            Published("Gaussian", ("7.7 / 93.4", "14.2 / 82.1", ".086 / .260", ".050 / .152")),
            Published("multi-resolution", ("5.8 / 96.1", "12.1 / 87.1", ".037 / .117", ".030 / .094")),
            Published("annealed multi-resolution", ("5.6 / 96.5", "11.3 / 88.7", ".033 / .106", ".025 / .079")),
        ),
        variants=(
            Variant("Gaussian", {"noise_strength": 0.0, "noise_annealed": False}),
            Variant("multi-resolution", {"noise_strength": 0.9, "noise_annealed": False}),
            Variant("annealed multi-resolution", {"noise_strength": 0.9, "noise_annealed": True}),
        ),
    ),
    "mix": Ablation(
        title="Shares of two data sets",
        source=f"{PAPER}, ablation of training data, Hypersim : Virtual KITTI",
        columns=BOTH,
        published=(
            Published("100 : 0", ("5.7 / 96.3", "13.7 / 82.5")),
            Published("95 : 5", ("5.8 / 96.2", "11.1 / 88.8")),
            Published("90 : 10", ("5.6 / 96.5", "11.3 / 88.7")),
            Published("50 : 50", ("6.0 / 96.0", "12.8 / 85.5")),
            Published("0 : 100", ("13.9 / 83.4", "15.4 / 79.3")),
        ),
        variants=tuple(
            Variant(f"{first} : {100 - first}", {"shares": (float(first), float(100 - first))}) for first in SHARES
        ),
    ),
    "schedule": Ablation(
        title="Noise schedule",
        source="one step on the test sets: v1-0 with trailing timesteps, Martin Garcia et al. 2025; v1-1, as reported "
        "for the release (TPAMI 2025)",
        columns=BOTH,
        published=(
            Published("v1-0", ("5.7 / 96.2", "10.8 / 89.6"), steps=1, members=1),
            Published("v1-1", ("5.9 / 96.1", "-"), steps=1, members=1),
            Published("v1-1", ("5.5 / 96.4", "-"), steps=4, members=10),
        ),
        variants=(Variant("v1-0", {"noise_schedule": "v1-0"}), Variant("v1-1", {"noise_schedule": "v1-1"})),
        steps=(1, 4),
    ),
    "steps": Ablation(
        title="Denoising steps, and where they lie",
        source=f"marigold-depth-v1-0. Leading: {PAPER}, figure of the ablation of denoising steps, read off its axes; "
        "50 steps: its main table. Trailing: Martin Garcia et al. 2025, who found that the failure at one step is "
        "leading's",
        columns=BOTH,
        published=(
            Published("leading", ("about 35 / 46", "about 62"), steps=1),
            Published("leading", ("6.0 / 95.9", "10.5 / 90.4"), steps=50),
            Published("trailing", ("5.7 / 96.2", "10.8 / 89.6"), steps=1),
            Published("trailing", ("6.0", "-"), steps=50),
        ),
        variants=(Variant("leading", spacing="leading"), Variant("trailing", spacing="trailing")),
        steps=(1, 2, 4, 10, 25, 50),
    ),
    "ensemble": Ablation(
        title="Members of an ensemble",
        source=f"{PAPER}, figure of the ablation of ensemble size, read off its axes; 10 members: 8 % less than one",
        columns=BOTH,
        published=(
            Published(BUNDLE, ("6.13", "11.89"), members=1),
            Published(BUNDLE, ("5.49", "11.22"), members=20),
        ),
        variants=(Variant(BUNDLE),),
        members=(1, 2, 5, 10, 20),
    ),
}


KEPT = ("pixels", "abs_rel", "delta1")  # of the metrics of a picture


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
) -> dict[tuple[int, int], Score]:
    """Score a pipeline on the pictures ``numbers`` of a set -> a score for every number of steps and members.

    Each picture's scores are kept in the JSON ``path`` and not computed again. Where that holds the scores of another
    checkpoint, set or options, these are kept in a file beside it.
    """
    folder = str(a_set.folder.absolute())
    made_with = {"checkpoint": pipeline.checkpoint.sha256, "kind": a_set.kind, "folder": folder, **asdict(options)}
    text = json.dumps(made_with)
    made_with = json.loads(text)  # as it comes back from a file: lists instead of tuples
    if path.exists() and _kept(path).get("made_with") != made_with:
        path = path.with_stem(f"{path.stem}_{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    rows: dict[str, dict[str, Row]] = _kept(path).get("rows", {})
    pipeline = place_timesteps(pipeline, options.spacing)
    for number in follow(numbers, len(numbers), path.parent.name):
        if a_set.name(number) not in rows:
            rows[a_set.name(number)] = _score_picture(pipeline, a_set, number, options)
            write_json(path, {"made_with": made_with, "rows": rows})
    used = [rows[a_set.name(number)] for number in numbers]
    return {
        (steps, members): _sum_up(used, steps, members, options.seeds)
        for steps in options.steps
        for members in options.members
    }


def _kept(path: Path) -> dict[str, Any]:
    """Read the scores of an earlier run; empty where there are none, or something else."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _score_picture(pipeline: MarigoldPipeline, a_set: DepthSet, number: int, options: SweepOptions) -> dict[str, Row]:
    """Predict one picture in every combination -> its metrics and spread by the combination's name."""
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
    """Name a combination, as a key in JSON."""
    return f"{steps} steps, {members} members, seed {seed}"


def _sum_up(rows: Sequence[dict[str, Row]], steps: int, members: int, seeds: Sequence[int]) -> Score:
    """Average one combination over pictures, then over seeds."""
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


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    label: str
    steps: int
    members: int
    scores: dict[str, Score]  # by data set
    published: tuple[str, ...]


def main(
    name: tyro.conf.Positional[Name],
    task: Task,
    recipe: Recipe,
    seeds: int = 5,
    num_inference_steps: tuple[int, ...] = (),
    ensemble_sizes: tuple[int, ...] = (),
) -> None:
    """Make one table of the paper: train its variants, score them on --validation, print it and write it to --out.

    Args:
        name: noise, mix (shares of two data sets) and schedule train; steps and ensemble take --start-from as it is.
        task: as for training.train.
        recipe: what all variants have in common.
        seeds: how often each picture is predicted, from different noise.
        num_inference_steps: denoising steps to compare, instead of the ablation's own.
        ensemble_sizes: numbers of members to compare, instead of the ablation's own.
    """
    ablation = ABLATIONS[name]
    sets = _check(name, ablation, task, seeds)
    steps, members = (tuple(sorted(set(numbers))) for numbers in (num_inference_steps, ensemble_sizes))
    ablation = replace(ablation, steps=steps or ablation.steps, members=members or ablation.members)
    lines: list[Line] = []
    for variant in ablation.variants:
        folder = task.out / re.sub(r"\W+", "_", variant.label)
        source = _train(variant, task, recipe, folder) if ablation.trains else find_start(task.start_from)
        options = SweepOptions(
            ablation.steps, ablation.members, tuple(range(seeds)), variant.spacing, recipe.validate_px
        )
        lines += _score(ablation, variant, source, sets, task, options, folder)
    table = markdown(ablation, lines, seeds)
    print(table)
    storage.write_bytes(task.out / f"{name}.md", table.encode())
    rows = [asdict(line) for line in lines]
    write_json(task.out / f"{name}.json", {"title": ablation.title, "source": ablation.source, "rows": rows})


def markdown(ablation: Ablation, lines: Sequence[Line], seeds: int) -> str:
    """Format the table as Markdown: our figures beside the published ones, all in percent."""
    sets = list(lines[0].scores)
    spreads = any(score.spread is not None for line in lines for score in line.scores.values())
    head = ["", "steps", "members"]
    for label in sets:
        head += [f"{label}: AbsRel / delta1", f"std / max-min of {seeds} seeds"] + ["spread"] * spreads
    head += [f"published: {column}" for column in ablation.columns]
    table = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line.label, str(line.steps), str(line.members)]
        for label in sets:
            score = line.scores[label]
            cells.append(f"{100 * score.abs_rel:.2f} / {100 * score.delta1:.1f}")
            cells.append(f"{100 * score.std:.3f} / {100 * score.range:.3f}" if seeds > 1 else "-")
            cells += ["-" if score.spread is None else f"{100 * score.spread:.2f}"] * spreads
        table.append([*cells, *line.published])
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"# {ablation.title}\n\n{rows}\n\nAll figures in percent. Published: {ablation.source}.\n"


def _check(name: Name, ablation: Ablation, task: Task, seeds: int) -> list[DepthSet]:
    """Check the input before anything is trained -> the validation sets. Raises: MarigoldError."""
    if seeds < 1:
        raise MarigoldError(f"seeds must be at least 1, but got {seeds}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MarigoldError("Ablations are trained and scored by one process; start them without a launcher.")
    if not task.validation:
        raise MarigoldError("An ablation is scored on pictures with known depth: give --validation KIND:FOLDER.")
    if name == "mix" and len(task.data) + len(task.latents) != 2:
        raise MarigoldError("mix compares shares of two data sets: give two, with --data or with --latents.")
    check_json_out(task.out / f"{name}.json", ("title", "source", "rows"))
    table = task.out / f"{name}.md"
    if table.exists() and not table.read_bytes().startswith(f"# {ablation.title}\n".encode()):
        raise MarigoldError(f"{table} is there already and is no table of this command: give another --out.")
    return [open_set(spec, "val") for spec in task.validation]


def _train(variant: Variant, task: Task, recipe: Recipe, folder: Path) -> Path:
    """Train a variant, unless it is trained already -> its checkpoint.

    Raises: MarigoldError when the run was stopped before its end.
    """
    changed = recipe.changed(**variant.changes)
    newest = train(replace(task, out=folder), changed)
    if step_of(newest) < changed.steps:
        raise MarigoldError(
            f"{folder.name} was stopped at step {step_of(newest)} of {changed.steps}; the same command goes on."
        )
    return newest


def _score(
    ablation: Ablation,
    variant: Variant,
    source: Path,
    sets: Sequence[DepthSet],
    task: Task,
    options: SweepOptions,
    folder: Path,
) -> list[Line]:
    """Score a variant on every set -> its rows."""
    pipeline = load(source, device=task.device, dtype="float32")  # scores must not depend on the machine
    grids = {}
    for label, a_set in zip(labels(sets), sets, strict=True):
        numbers = spread(a_set, task.validation_pictures)
        path = folder / f"scores_{a_set.kind}_{a_set.folder.name}.json"
        grids[label] = score_grid(pipeline, a_set, numbers, options, path)
    return [
        Line(
            variant.label,
            steps,
            members,
            {label: grid[steps, members] for label, grid in grids.items()},
            ablation.figures(variant.label, steps, members),
        )
        for steps in options.steps
        for members in options.members
    ]


if __name__ == "__main__":
    run(main, "python -m training.ablate", presets=PRESETS)
