"""Folders that are whole or absent: written aside, flushed, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from marigold_core.errors import ExportError
from marigold_core.storage import sync


@contextmanager
def appearing(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to write to; on success it becomes ``folder``, else nothing is left of it.

    What a killed process left half-written is cleared by the next one. With ``replace`` an older ``folder`` makes way.

    Raises: ExportError when the disk refuses, or ``folder`` holds something that is not to be replaced.
    """
    aside = folder.with_name(f".{folder.name}.unfinished")
    try:
        if not replace and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder} holds something else already: move it away, or give another folder.")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for path in (*aside.rglob("*"), aside):
            sync(path)
        if replace and folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Hard-link a file that is never written to again, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)  # the file itself: caches hold symbolic links
    except OSError:
        shutil.copyfile(path, target)
