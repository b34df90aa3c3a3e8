"""The paper's ablations in miniature, ``python -m training.ablate NAME --start-from ... --validation ... --out ...``.

A cell of a training ablation is a variant trained with one seed: a run of ``training.train`` in a folder of its own.
The scores of every picture are kept, so the same command resumes cell by cell where it was stopped. Seeds of training
and seeds of inference are two things: what is said of a variant rests on the spread between its training seeds, or,
where nothing is trained, between seeds of inference. Trained variants are scored without the start's draft, which no
variant changes and which would hide a part of what they differ by. What is compared is in ``scoring.ablations``.
"""

import copy
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from diffusers import DDIMScheduler

from marigold_core import load, storage
from marigold_core.checkpoints.registry import find
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.pipeline.convergence import mean_spread
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import write_json
from training import label as label_command
from training.data.sets import open_set
from training.data.sets.sample import DepthSet, Sample, labels, spread
from training.data.targets import name_of
from training.engine.checkpoints import step_of
from training.engine.command import check_json_out, run
from training.engine.memory import step_operations
from training.engine.progress import follow
from training.models.networks import Spacing
from training.recipe import PRESETS, Recipe
from training.scoring.ablations import ABLATIONS, BOTH, Ablation, Name, Variant
from training.scoring.plots import PDF, PNG, Curve, draw_table
from training.scoring.protocols import Protocol, choose_protocol
from training.scoring.scores import Row
from training.scoring.targets import DEPTH, Metric, metric_of, photo_of
from training.start import find_start, prepare_start
from training.train import Task, train

SPREAD = "spread"  # key of rows: mean of the members' spread
CELL, LABELS = "cell.json", "labels"  # in the folder of a cell


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

    means: dict[str, float]  # over seeds, of the metric's two columns by name: AbsRel and delta1 of depth
    std: float  # of the first over seeds
    range: float  # highest minus lowest of the first over seeds
    seeds: tuple[tuple[float, float], ...]  # both figures of each training seed, or seed of inference
    inference_range: float | None  # of a trained variant: the same range over seeds of inference, mean over runs
    spread: float | None  # mean uncertainty, in units of the depth range; None below three members

    def beside(self, first: "Score", higher_is_better: bool = False) -> str:
        """Compare with the first row: a difference within the spread of the seeds is undecided."""
        own, others = ([seed[0] for seed in score.seeds] for score in (self, first))
        if self is first or len(own) < 2:
            return "-"
        lower, higher = max(own) < min(others), min(own) > max(others)
        return "undecided" if not (lower or higher) else "better" if higher == higher_is_better else "worse"


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
) -> dict[tuple[int, int], list[Row]]:
    """Score a pipeline on the pictures ``numbers`` of a set -> by steps and members the means of every seed.

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
    pipeline, metric = place_timesteps(pipeline, options.spacing), metric_of(pipeline.modality)
    protocol = choose_protocol(a_set.kind)
    for number in follow(numbers, len(numbers), path.parent.name):
        if a_set.name(number) not in rows:
            rows[a_set.name(number)] = _score_picture(pipeline, metric, a_set[number], protocol, options)
            write_json(path, {"made_with": made_with, "rows": rows})
    used = [rows[a_set.name(number)] for number in numbers]
    return {
        (steps, members): [
            _mean(metric, protocol, [row[_name(steps, members, seed)] for row in used]) for seed in options.seeds
        ]
        for steps in options.steps
        for members in options.members
    }


def _mean(metric: Metric, protocol: Protocol, rows: Sequence[Row]) -> Row:
    spreads = [row[SPREAD] for row in rows if SPREAD in row]
    return metric.mean(rows, protocol.averaging) | ({SPREAD: float(np.mean(spreads))} if spreads else {})


def _kept(path: Path) -> dict[str, Any]:
    """Read the scores of an earlier run; empty where there are none, or something else."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _score_picture(
    pipeline: MarigoldPipeline, metric: Metric, sample: Sample, protocol: Protocol, options: SweepOptions
) -> dict[str, Row]:
    """Predict one picture in every combination -> its metrics and spread by the combination's name."""
    rows = {}
    for cell in pipeline.grid(
        photo_of(sample),
        steps=options.steps,
        sizes=options.members,
        seeds=options.seeds,
        processing_resolution=options.processing_resolution,
    ):
        alone = replace(cell.prediction, uncertainty=None)  # rank correlations would cost more than the prediction
        row = {name: value for name, value in metric.row(alone, sample, protocol).items() if not math.isnan(value)}
        spread = mean_spread(cell.prediction)
        if spread is not None:
            row[SPREAD] = spread
        used = cell.settings
        rows[_name(used.num_inference_steps, used.ensemble_size, used.seed)] = row
    return rows


def _name(steps: int | None, members: int, seed: int) -> str:
    """Name a combination, as a key in JSON."""
    return f"{steps} steps, {members} members, seed {seed}"


def _sum_up(metric: Metric, runs: Sequence[Sequence[Row]], trained: bool) -> Score:
    """Sum up the means of each run and seed of inference -> a score: over runs that are ``trained``, else seeds."""
    every = [row for rows in runs for row in rows]
    names = [column.name for column in metric.columns]
    pairs = np.array([[[row[name] for name in names] for row in rows] for rows in runs])  # [runs, seeds, 2]
    seeds = pairs.mean(axis=1) if trained else pairs[0]
    spreads = [row[SPREAD] for row in every if SPREAD in row]
    return Score(
        dict(zip(names, seeds.mean(axis=0).tolist(), strict=True)),
        std=float(seeds[:, 0].std()),
        range=float(np.ptp(seeds[:, 0])),
        seeds=tuple((float(first), float(second)) for first, second in seeds),
        inference_range=float(np.ptp(pairs[..., 0], axis=1).mean()) if trained else None,
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
    seconds: float | None = None  # of a processor, to train one cell; None where nothing is trained


def main(
    name: tyro.conf.Positional[Name],
    task: Task,
    recipe: Recipe,
    train_seeds: int = 3,
    seeds: int = 1,
    num_inference_steps: tuple[int, ...] = (),
    ensemble_sizes: tuple[int, ...] = (),
) -> None:
    """Make one table and figure: train its variants, score them on --validation, print and write them to --out.

    Args:
        name: noise, mix (shares of two data sets), schedule, real (what a second data set, of another domain, adds to
            the first) and objective train; steps and ensemble take --start-from as it is.
        task: as for training.train.
        recipe: what all variants have in common; its seed is that of the first run.
        train_seeds: how often each variant is trained, with another seed each time.
        seeds: how often each picture is predicted, from different noise.
        num_inference_steps: denoising steps to compare, instead of the ablation's own.
        ensemble_sizes: numbers of members to compare, instead of the ablation's own.
    """
    ablation = ABLATIONS[name]
    sets = _check(name, ablation, task, seeds, train_seeds)
    steps, members = (tuple(sorted(set(numbers))) for numbers in (num_inference_steps, ensemble_sizes))
    ablation = replace(ablation, steps=steps or ablation.steps, members=members or ablation.members)
    runs = train_seeds if ablation.trains else 1
    _say_budget(ablation, task, recipe, sets, runs, seeds)
    lines: list[Line] = []
    metric = DEPTH
    for variant in ablation.variants:
        options = SweepOptions(
            ablation.steps, ablation.members, tuple(range(seeds)), variant.spacing, recipe.validate_px
        )
        grids, seconds = [], []
        for number in range(runs):
            place = _cell(task, variant, number) if ablation.trains else _folder(task, variant)
            source = _train(variant, task, recipe, number) if ablation.trains else find_start(task.start_from)
            pipeline = load(source, device=task.device, dtype="float32")  # scores must not depend on the machine
            metric = metric_of(pipeline.modality)
            if name_of(pipeline.modality) != "depth":
                ablation = replace(ablation, columns=(), published=())
            if ablation.trains:
                pipeline.draft = None
            grids.append(_score(pipeline, sets, task, options, place))
            if ablation.trains:
                seconds.append(_seconds(variant, task, number))
                print(f"Cell {variant.label}, seed {number}: {seconds[-1]:.0f} s of a processor", flush=True)
        mean = float(np.mean(seconds)) if seconds else None
        for key in product(ablation.steps, ablation.members):
            scores = {
                label: _sum_up(metric, [grid[label][key] for grid in grids], ablation.trains) for label in grids[0]
            }
            lines.append(Line(variant.label, key[0], key[1], scores, ablation.figures(variant.label, *key), mean))
    start = _name_start(task.start_from)
    table = markdown(ablation, start, metric, lines, runs, seeds)
    print(table)
    storage.write_bytes(task.out / f"{name}.md", table.encode())
    rows = [asdict(line) for line in lines]
    report = {"title": ablation.title, "start": start, "source": ablation.source, "rows": rows}
    write_json(task.out / f"{name}.json", report)
    measures = [f"{column.title}, {column.unit}" for column in metric.columns]
    draw_table(ablation.title, start, measures, panels(ablation, metric, lines), task.out / f"{name}{PNG}")


def markdown(ablation: Ablation, start: str, metric: Metric, lines: Sequence[Line], runs: int, seeds: int) -> str:
    """Format the table as Markdown: our figures beside the published ones, which are in percent."""
    sets, (first, second) = list(lines[0].scores), metric.columns
    spreads = any(score.spread is not None for line in lines for score in line.scores.values())
    of = f"{runs} training seeds" if ablation.trains else f"{seeds} seeds"
    head = ["", "steps", "members"]
    for label in sets:
        head += [f"{label}: {first.title} / {second.title}", f"std / max-min of {of}", "beside the first"]
        head += ["spread"] * spreads
    head += [f"published: {column}" for column in ablation.columns] + ["s to train a cell"] * ablation.trains
    table = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line.label, str(line.steps), str(line.members)]
        for label in sets:
            score = line.scores[label]
            shown = score.means[first.name] * first.factor, score.means[second.name] * second.factor
            cells.append(f"{shown[0]:.2f} / {shown[1]:.1f}")
            spans = score.std * first.factor, score.range * first.factor
            cells.append(f"{spans[0]:.3f} / {spans[1]:.3f}" if len(score.seeds) > 1 else "-")
            cells.append(score.beside(lines[0].scores[label], metric.higher_is_better))
            cells += ["-" if score.spread is None else f"{100 * score.spread:.2f}"] * spreads
        table.append([*cells, *line.published, *([] if line.seconds is None else [f"{line.seconds:.0f}"])])
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    units = f"{first.title} in {first.unit}, {second.title} in {second.unit}"
    source = f" Published: {ablation.source}." if ablation.columns else ""
    return (
        f"# {ablation.title}\n\n{rows}\n\nOf {start}. {units}; undecided: within the spread of the {of}, which "
        f"overlaps with that of the first row.{source}\n"
    )


def panels(ablation: Ablation, metric: Metric, lines: Sequence[Line]) -> dict[str, list[Curve]]:
    """Arrange a table for its figure: a panel for each data set of ours and each published one, curves by label."""
    varied = "steps" if len(ablation.steps) > 1 else "members" if len(ablation.members) > 1 else None
    first, second = metric.columns
    found: dict[str, list[Curve]] = {}
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.label if varied else "", []).append(line)
    places = {label: [getattr(line, varied or "label") for line in group] for label, group in groups.items()}
    for name in lines[0].scores:
        values = {
            label: [[(a * first.factor, b * second.factor) for a, b in line.scores[name].seeds] for line in group]
            for label, group in groups.items()
        }
        found[name] = [Curve(label, varied, places[label], values[label]) for label in groups]
    for number, column in enumerate(ablation.columns[: len(BOTH)]):
        values = {label: [[_percent(line.published[number])] for line in group] for label, group in groups.items()}
        found[f"published: {column}"] = [Curve(label, varied, places[label], values[label]) for label in groups]
    return found


def _name_start(start_from: str) -> str:
    """Name what an ablation begins with, by its sha256 too where that is a checkpoint."""
    with suppress(CheckpointError):  # Stable Diffusion, or random weights
        found = find(find_start(start_from))
        return f"{found.name}, sha256 {found.sha256[:8]}"
    return start_from


def _percent(figures: str) -> tuple[float, float]:
    """Read published figures, "about 35 / 46" or "-" -> AbsRel and delta1 in percent, NaN where there is none."""
    one, _, other = figures.partition("/")
    numbers = [re.search(r"[\d.]+", part) for part in (one, other)]
    abs_rel, delta1 = (float(number[0]) if number else math.nan for number in numbers)
    return abs_rel, delta1


def _folder(task: Task, variant: Variant) -> Path:
    return task.out / re.sub(r"\W+", "_", variant.label)


def _cell(task: Task, variant: Variant, number: int) -> Path:
    return _folder(task, variant) / f"seed_{number}"


def _say_budget(
    ablation: Ablation, task: Task, recipe: Recipe, sets: Sequence[DepthSet], runs: int, seeds: int
) -> None:
    """Print what a cell takes, before anything is done."""
    pictures = sum(min(len(a_set), task.validation_pictures) for a_set in sets)
    scored = f"{pictures} pictures x {seeds} seeds x {sum(ablation.steps) * max(ablation.members)} denoising steps"
    if not ablation.trains:
        print(f"{len(ablation.variants)} cells, each scored on {scored}", flush=True)
        return
    print(
        f"{len(ablation.variants) * runs} cells, {len(ablation.variants)} variants x {runs} training seeds; each is as "
        f"much training as {recipe.steps} steps of {recipe.batch_size} pictures, and scored on {scored}",
        flush=True,
    )


def _check(name: Name, ablation: Ablation, task: Task, seeds: int, train_seeds: int) -> list[DepthSet]:
    """Check the input before anything is trained -> the validation sets. Raises: MarigoldError."""
    for word, number in (("seeds", seeds), ("train_seeds", train_seeds)):
        if number < 1:
            raise MarigoldError(f"{word} must be at least 1, but got {number}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MarigoldError("Ablations are trained and scored by one process; start them without a launcher.")
    if not task.validation:
        raise MarigoldError("An ablation is scored on pictures with known depth: give --validation KIND:FOLDER.")
    if name == "mix" and len(task.data) + len(task.latents) != 2:
        raise MarigoldError("mix compares shares of two data sets: give two, with --data or with --latents.")
    if name == "real" and (len(task.data) != 2 or task.latents):
        raise MarigoldError("real compares what a second data set adds: give two, rendered and real, with --data.")
    check_json_out(task.out / f"{name}.json", ("title", "source", "rows"))
    table = task.out / f"{name}.md"
    ours = table.exists() and table.read_bytes().startswith(f"# {ablation.title}\n".encode())
    for path in (table, *(task.out / f"{name}{ending}" for ending in (PNG, PDF))):
        if path.exists() and not ours:
            raise MarigoldError(f"{path} is there already and is no result of this command: give another --out.")
    return [open_set(spec, "val") for spec in task.validation]


def _train(variant: Variant, task: Task, recipe: Recipe, number: int) -> Path:
    """Train a variant with one seed, and what it begins with, unless that is done -> its checkpoint.

    Raises: MarigoldError when the run was stopped before its end.
    """
    folder = _cell(task, variant, number)
    source = str(_train(variant.begin, task, recipe, number)) if variant.begin else task.start_from
    began = time.process_time()
    data = tuple(task.data[k] for k in variant.data) or task.data
    if variant.labelled:
        label_command.label([source], data[-1], folder / LABELS, label_command.Labelling(kept=1.0, steps=1))
        data = (*data[:-1], f"pairs:{folder / LABELS}")
    cost = variant.cost or _relative_cost(variant, task, recipe)
    lengths = {name: round(getattr(recipe, name) / cost) for name in ("warmup_steps", "cooldown_steps")}
    steps, seed = max(1, round(recipe.steps / cost)), (recipe.seed + number) % 2**32
    changed = recipe.changed(**{**lengths, "steps": steps, "seed": seed, **variant.changes})
    unlabelled = task.unlabelled if variant.unlabelled is None else task.data[variant.unlabelled]
    own = replace(task, out=folder, start_from=source, data=data, unlabelled=unlabelled, validation=())  # scored after
    newest = train(own, changed)
    spent = _kept(folder / CELL).get("seconds", 0.0)
    if step_of(newest) < steps:
        write_json(folder / CELL, {"seconds": spent + time.process_time() - began})
        raise MarigoldError(
            f"{folder.parent.name}, {folder.name} was stopped at step {step_of(newest)} of {steps}; the same command "
            "goes on."
        )
    if not _kept(folder / CELL).get("finished"):
        write_json(folder / CELL, {"seconds": spent + time.process_time() - began, "finished": True})
    return newest


def _relative_cost(variant: Variant, task: Task, recipe: Recipe) -> float:
    """Compare the operations of a step of a variant with those of one of the recipe."""
    source = prepare_start(task.start_from, task.out / "start", target=task.target, objective="end_to_end")
    recipes = recipe.changed(**variant.changes), recipe
    ours, others = (step_operations(load(source, device=task.device, dtype="float32"), each) for each in recipes)
    print(f"A step, {variant.label}, takes {ours / others:.2f} times the operations of one of the recipe", flush=True)
    return ours / others


def _seconds(variant: Variant, task: Task, number: int) -> float:
    """Return the processor's time that a cell was trained for, what it begins with included."""
    before = _seconds(variant.begin, task, number) if variant.begin else 0.0
    return before + _kept(_cell(task, variant, number) / CELL)["seconds"]


def _score(
    pipeline: MarigoldPipeline, sets: Sequence[DepthSet], task: Task, options: SweepOptions, folder: Path
) -> dict[str, dict[tuple[int, int], list[Row]]]:
    """Score a checkpoint on every set -> by set, steps and members the means of every seed of inference."""
    return {
        label: score_grid(
            pipeline,
            a_set,
            spread(a_set, task.validation_pictures),
            options,
            folder / f"scores_{a_set.kind}_{a_set.folder.name}.json",
        )
        for label, a_set in zip(labels(sets), sets, strict=True)
    }


if __name__ == "__main__":
    run(main, "python -m training.ablate", presets=PRESETS)
