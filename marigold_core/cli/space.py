"""The command behind ``make space``: the thumbnail of a hosted Space, and what the host fetches while it builds.

Source: hub documentation, Spaces configuration reference.
"""

import re
import sys
from pathlib import Path
from typing import Annotated

import tyro

from marigold_core.checkpoints import hub
from marigold_core.checkpoints.registry import HUB_ID, NAMED
from marigold_core.errors import MarigoldError, SettingsError
from marigold_core.storage import write_bytes

THUMBNAIL = "assets/screenshots/depth.jpg"  # of the folder that is written; social networks show it
BEFORE = "suggested_hardware:"  # a line of the README's front matter


def preloaded(checkpoint: str, revision: str | None = None) -> str:
    """Describe the files of a public checkpoint at one commit, as ``preload_from_hub`` takes them.

    Args:
        checkpoint: a short name or a hub id.
        revision: the commit, branch or tag; by default the newest commit. The hub is asked which commit that is.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such checkpoint or revision.
        SettingsError: the checkpoint is not on the hub.
    """
    entry = NAMED.get(checkpoint)
    hub_id = entry.hub_id if entry else checkpoint
    if not hub_id or not HUB_ID.fullmatch(hub_id):
        raise SettingsError(f"{checkpoint!r} is not on the hub; give a short name such as v1-1, or owner/name.")
    commit, files = hub.listing(hub_id, revision)
    return f"{hub_id} {','.join(files)} {commit}"


def main(
    readme: tyro.conf.Positional[Path],
    space: Annotated[str, tyro.conf.arg(help="USER/NAME of the Space, for the address of its thumbnail")] = "",
    preload: Annotated[str, tyro.conf.arg(help="checkpoint that the host fetches while it builds")] = "",
    revision: Annotated[str, tyro.conf.arg(help="its commit; by default the newest")] = "",
) -> None:
    """Add a thumbnail and a preloaded checkpoint to the front matter of a Space's README."""
    lines = list[str]()
    if space:
        if not re.fullmatch(HUB_ID, space):
            raise SettingsError(f"A Space is called USER/NAME; got {space!r}.")
        lines.append(f"thumbnail: https://huggingface.co/spaces/{space}/resolve/main/{THUMBNAIL}\n")
    if preload:
        lines.append(f"preload_from_hub:\n  - {preloaded(preload, revision or None)}\n")
    text = readme.read_text(encoding="utf-8")
    write_bytes(readme, text.replace(BEFORE, "".join(lines) + BEFORE, 1).encode())


if __name__ == "__main__":
    try:
        tyro.cli(main, prog="python -m marigold_core.cli.space")
    except MarigoldError as error:
        sys.exit(str(error))
