"""The checkpoints that the page and the HTTP endpoints offer; the web reaches no other folder or repository."""

from pathlib import Path

from marigold_core.checkpoints.families import MARIGOLD, Family
from marigold_core.checkpoints.registry import NamedCheckpoint, default_checkpoint, family_of, named_checkpoints
from marigold_core.errors import CheckpointError
from marigold_core.serving.hosting import hosted_checkpoints, is_zero_gpu
from marigold_core.ui import text


def checkpoint_choices() -> list[tuple[str, str]]:
    """List what can run here for the picker, as (label, name): the default first, downloads with their size.

    A host that lends its GPU offers what it loaded at its start.
    """
    entries = [entry for entry in named_checkpoints() if entry.available or entry.hub_id]
    choices = {entry.name: f"{entry.name} ({_where(entry)})" for entry in entries}
    first = [default_checkpoint()]
    if is_zero_gpu():
        first = hosted_checkpoints()
        choices = {name: name for name in choices if name in first}
    own = {name: name.rstrip("/").rsplit("/", 1)[-1] for name in first if name not in choices}
    return [(label, name) for name, label in {**own, **choices}.items()]


def check_checkpoint(name: str) -> str:
    """Return a name that the picker offers; the web reaches no other folder or repository. Raises: CheckpointError."""
    names = [choice for _, choice in checkpoint_choices()]
    if name not in names:
        raise CheckpointError(text.UNKNOWN_CHECKPOINT.format(name=name, names=", ".join(names)))
    return name


def offered_checkpoint(made_with: str) -> str:
    """Find what the picker calls the checkpoint that a result records. Raises: CheckpointError when it has it not."""
    names = [name for _, name in checkpoint_choices()]
    for name in names:
        if made_with in (name, Path(name).expanduser().resolve().name):
            return name
    raise CheckpointError(text.UNKNOWN_CHECKPOINT.format(name=made_with, names=", ".join(names)))


def family_of_result(made_with: str) -> Family:
    """Tell the family of the checkpoint that a result records; of one not offered here nothing is known."""
    try:
        return family_of(offered_checkpoint(made_with))
    except CheckpointError:
        return MARIGOLD


def _where(entry: NamedCheckpoint) -> str:
    if entry.hub_id is None:
        return text.BUNDLED
    where = text.ON_DISK if entry.available else text.DOWNLOAD.format(size=entry.size_bytes / 1e9)
    return ", ".join(part for part in (entry.family.remark, where) if part)
