"""The fingerprint of a run: recipe, start, data and versions, kept in ``run.json`` and compared when it is resumed."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from marigold_core.errors import MarigoldError
from marigold_core.storage import write_json
from training.engine import checkpoints
from training.recipe import Schedule

RECORD = "run.json"
# fields of a recipe that no step made so far depends on
MAY_CHANGE = {"steps", "cooldown_steps", "save_minutes", "validate_steps", "validate_px", "figure_steps"}

# fields of a recipe that runs of older versions lack, and what these did
OLD_DEFAULTS = {
    "objective": "latent",
    "lora_rank": None,
    "gradient_checkpointing": False,
    "labels_share": 0.0,
    "optimizer": "adamw",
}

Fingerprint = dict[str, Any]


def run_fingerprint(recipe: Schedule, start_sha256: str, data: list[str], device: str) -> Fingerprint:
    """Collect everything that the weights of a run are a function of."""
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "device": device}
    return {"recipe": recipe.model_dump(mode="json"), "start": start_sha256, "data": data, "versions": versions}


def read_run(path: Path) -> dict[str, Any]:
    """Read the record of a run, ``run.json``; empty where there is none.

    Raises: MarigoldError when it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # editors add the mark
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise MarigoldError(f"{path} cannot be read: it is damaged.")
    return found


def check_folder(run: Path) -> None:
    """Check that what a run would replace in its folder is of a run. Raises: MarigoldError."""
    if checkpoints.latest(run) or read_run(run / RECORD).keys() >= {"recipe", "start", "data", "versions"}:
        return
    replaced = (run / RECORD, run / checkpoints.METRICS, *checkpoints.saved(run / "samples", ".png").values())
    if other := next((path for path in replaced if path.exists()), None):
        raise MarigoldError(f"{other} is there already and was not written by training: give another --out.")


def check_fingerprint(
    run: Path,
    now: Fingerprint,
    allow_change: bool,
    record: Mapping[str, object] | None = None,
    resumed: bool = True,
) -> None:
    """Write ``run.json``; where the run is ``resumed``, compare the fingerprint with the one it was begun with.

    ``record`` is written beside the fingerprint and compared with nothing.

    Raises: MarigoldError naming the differences, unless they are allowed or cannot change the steps made so far.
    """
    begun = read_run(run / RECORD)
    if begun and resumed:
        differences = _differences(begun, now)
        if differences and not allow_change:
            raise MarigoldError(
                f"The run {run.name} was begun with {'; '.join(differences)}. "
                "Use the same, another folder, or --allow-change."
            )
        for difference in differences:
            print(f"Changed in mid-run: {difference}", file=sys.stderr)
    write_json(run / RECORD, {**now, **(record or {})})


def _differences(begun: Fingerprint, now: Fingerprint) -> list[str]:
    """List what differs, as ``lr 0.001, now 0.0001``."""
    found = []
    for part in now:
        before, after = begun.get(part), now[part]
        if isinstance(before, dict) and isinstance(after, dict):
            before = {name: value for name, value in OLD_DEFAULTS.items() if name in after} | before
            names = [name for name in {**before, **after} if name not in MAY_CHANGE]
            changed = [name for name in names if before.get(name) != after.get(name)]
            found += [f"{name} {before.get(name)}, now {after.get(name)}" for name in changed]
        elif before != after:
            found.append(f"another {part}" if part == "start" else f"{part} {before}, now {after}")
    return found
