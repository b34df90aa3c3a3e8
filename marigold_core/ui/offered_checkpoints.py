"""The checkpoints that are offered, as the page calls them."""

from pathlib import Path

from marigold_core.checkpoints.families import MARIGOLD, Family
from marigold_core.checkpoints.registry import NamedCheckpoint, family_of, named_checkpoints
from marigold_core.errors import CheckpointError
from marigold_core.serving.hosting import check_checkpoint, is_zero_gpu, offered_checkpoints
from marigold_core.ui import text


def checkpoint_choices() -> list[tuple[str, str]]:
    """List what can run here for the picker, as (label, name): the default first, downloads with their size.

    A host that lends its GPU offers what it loaded at its start.
    """
    where = {} if is_zero_gpu() else {one.name: f"{one.name} ({_where(one)})" for one in named_checkpoints()}
    return [(where.get(name) or name.rstrip("/").rsplit("/", 1)[-1], name) for name in offered_checkpoints()]


def offered_checkpoint(made_with: str) -> str:
    """Find what the picker calls the checkpoint that a result records. Raises: CheckpointError when it has it not."""
    for name in offered_checkpoints():
        if made_with in (name, Path(name).expanduser().resolve().name):
            return name
    return check_checkpoint(made_with)


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
