"""The fingerprint of a run: recipe, start, data and versions, kept in ``run.json`` and compared when it is resumed."""

import json
import sys
from pathlib import Path
from typing import cast

import diffusers
import torch

from marigold_core.errors import MarigoldError
from marigold_core.storage import write_json
from training.recipe import Schedule

# fields of a recipe that no step made so far depends on
MAY_CHANGE = {"steps", "cooldown_steps", "save_minutes", "validate_steps", "validate_px", "figure_steps"}

Fingerprint = dict[str, object]


def run_fingerprint(recipe: Schedule, start_sha256: str, data: list[str], device: str) -> Fingerprint:
    """Collect everything that the weights of a run are a function of."""
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "device": device}
    return {"recipe": recipe.model_dump(mode="json"), "start": start_sha256, "data": data, "versions": versions}


def check_fingerprint(run: Path, now: Fingerprint, allow_change: bool) -> None:
    """Write ``run.json`` when the run is new; compare with it when the run is resumed.

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


def _differences(begun: Fingerprint, now: Fingerprint) -> list[str]:
    """List what differs, as ``lr 0.001, now 0.0001``."""
    found = []
    for part in now:
        before, after = begun.get(part), now[part]
        if isinstance(before, dict) and isinstance(after, dict):
            old, new = cast(Fingerprint, before), cast(Fingerprint, after)
            changed = [name for name in {**old, **new} if name not in MAY_CHANGE and old.get(name) != new.get(name)]
            found += [f"{name} {old.get(name)}, now {new.get(name)}" for name in changed]
        elif before != after:
            found.append(f"another {part}" if part == "start" else f"{part} {before}, now {after}")
    return found
