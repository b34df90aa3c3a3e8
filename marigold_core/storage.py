"""Files that are either complete or absent: written aside in the same folder, flushed, then renamed."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marigold_core.errors import ExportError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it takes the place of ``path``, else it is removed.

    Folders are made as needed. A process that is killed leaves at most a hidden ``.tmp`` file.

    Raises:
        ExportError: disk full, folder read-only, or any other refusal of the operating system.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    with _refusals(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
            sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        ExportError: as ``replacing``.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        ExportError: the operating system refuses.
    """
    with _refusals(path.name):
        path.unlink(missing_ok=True)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence about the file ``name``, without its folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            text = f"The disk is full (or a size limit is reached): {name} was not written."
        elif error.errno in _REFUSED:
            text = f"The folder does not allow writing: {name} was not written."
        else:
            text = f"{name} was not written: {error.strerror or error}."
        raise ExportError(text) from error


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
