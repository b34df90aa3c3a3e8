"""The command ``models``."""

from marigold_core.checkpoints.registry import NAMED, default_checkpoint, named_checkpoints
from marigold_core.cli.console import ALL_DONE, shown, table


def models() -> int:
    """List the checkpoints that have a short name; a folder or a hub id works as well."""
    rows = [("name", "what it is", "runs in", "size", "on this machine", "hub id")]
    for entry in named_checkpoints():
        size = f"{entry.size_bytes / 1e9:.1f} GB" if entry.size_bytes else "bundled"
        name = f"{entry.name} (default)" if entry.name == default_checkpoint() else entry.name
        here = "yes" if entry.available else "no"
        rows.append((name, entry.description, entry.family.remark or "any steps", size, here, entry.hub_id or ""))
    print(table(rows))
    if (default := default_checkpoint()) not in NAMED:
        print(f"\nThe default is {shown(default)}, which MARIGOLD_MODEL names.")
    print(
        "\nIn one step: more steps are refused. No noise: all members would be the same, so that an ensemble, and the"
        "\nuncertainty that comes from one, needs other views of the photo (--views mirrored-rescaled)."
    )
    return ALL_DONE
