"""The paper's ablations in miniature, ``python -m training.ablate NAME --start-from ... --validation ... --out ...``.

Each variant of a training ablation is a run of ``training.train`` in a folder of its own, and the scores of every
picture are kept, so the same command goes on where it was stopped.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro

from marigold_core import load, storage
from marigold_core.checkpoints.weights import write_json
from marigold_core.errors import MarigoldError
from training.data.sets import open_set
from training.data.sets.sample import DepthSet, spread
from training.engine.checkpoints import step_of
from training.engine.command import run
from training.recipe import PRESETS, Recipe
from training.scoring.ablations import ABLATIONS, Ablation, Name, Variant
from training.scoring.grids import Score, SweepOptions, score_grid
from training.start import find_start
from training.train import Task, train


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
    """Make one table of the paper: train what it compares, score that on --validation, print it and write it to --out.

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
    """Write the table, ours beside what was published, all in percent."""
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
    """Refuse what cannot work before anything is trained -> the validation sets."""
    if seeds < 1:
        raise MarigoldError(f"seeds must be at least 1, but got {seeds}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MarigoldError("Ablations are trained and scored by one process; start them without a launcher.")
    if not task.validation:
        raise MarigoldError("An ablation is scored on pictures with known depth: give --validation KIND:FOLDER.")
    if name == "mix" and len(task.data) + len(task.latents) != 2:
        raise MarigoldError("mix compares shares of two data sets: give two, with --data or with --latents.")
    return [open_set(spec, "val") for spec in task.validation]


def _train(variant: Variant, task: Task, recipe: Recipe, folder: Path) -> Path:
    """Train a variant, or find it trained -> its checkpoint.

    Raises: MarigoldError when it was stopped before its end.
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
    pipeline = load(source, device=task.device)
    grids = {}
    for a_set in sets:
        numbers = spread(a_set, task.validation_pictures)
        path = folder / f"scores_{a_set.kind}_{a_set.folder.name}.json"
        grids[f"{a_set.kind} {a_set.folder.name}"] = score_grid(pipeline, a_set, numbers, options, path)
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
