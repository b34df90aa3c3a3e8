"""What a run was begun with, kept in ``run.json``; going on with anything else is refused or, if allowed, named."""

import json
import sys
from pathlib import Path
from typing import cast

import diffusers
import torch

from marigold_core.checkpoints.weights import write_json
from marigold_core.errors import MarigoldError
from training.recipe import Schedule

MAY_CHANGE = {
    "steps",
    "cooldown_steps",
    "save_minutes",
    "validate_steps",
    "validate_px",
    "figure_steps",
}  # no step made depends on it

Facts = dict[str, object]


def facts(recipe: Schedule, start_sha256: str, data: list[str], device: str) -> Facts:
    """Collect what the weights of a run are a function of."""
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "device": device}
    return {"recipe": recipe.model_dump(mode="json"), "start": start_sha256, "data": data, "versions": versions}


def settle(run: Path, now: Facts, allow_change: bool) -> None:
    """Write ``run.json`` when the run is new; compare with it when the run goes on.

    Raises: MarigoldError naming the differences, unless they are allowed or cannot change the steps made so far.
    """
    path = run / "run.json"
    if path.exists():
        differences = _differences(json.loads(path.read_text(encoding="utf-8")), now)
        if differences and not allow_change:
            raise MarigoldError(
                f"The run {run.name} was begun with {'; '.join(differences)}. "
                "Use the same, another folder, or --allow-change."
            )
        for difference in differences:
            print(f"Changed in mid-run: {difference}", file=sys.stderr)
    write_json(path, now)


def _differences(begun: Facts, now: Facts) -> list[str]:
    """Name what differs, as ``lr 0.001, now 0.0001``."""
    found = []
    for part in now:
        before, after = begun.get(part), now[part]
        if isinstance(before, dict) and isinstance(after, dict):
            old, new = cast(Facts, before), cast(Facts, after)
            changed = [name for name in {**old, **new} if name not in MAY_CHANGE and old.get(name) != new.get(name)]
            found += [f"{name} {old.get(name)}, now {new.get(name)}" for name in changed]
        elif before != after:
            found.append(f"another {part}" if part == "start" else f"{part} {before}, now {after}")
    return found
