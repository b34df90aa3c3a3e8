"""Commands that fill a folder: one at a time, clean after a kill, with workers that end when their command does."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path

from filelock import FileLock, Timeout

from marigold_core.errors import ExportError, MarigoldError
from marigold_core.storage import LOCK, clear_unfinished, made


@contextmanager
def locked(folder: Path, does: str = "works", within: Sequence[str] = ()) -> Iterator[None]:
    """Make ``folder``, lock it against other commands of training and clear what a killed one left half-written.

    A lock that a crash left behind does not count. ``does`` is the verb of the refusal;
    ``within`` are patterns of the folders below that the command writes to as well.

    Raises: MarigoldError when another process works in the folder; ExportError when it cannot be made.
    """
    with made(folder):
        try:
            lock = FileLock(folder / f".{LOCK}", timeout=0)
            lock.acquire()
        except Timeout:
            raise MarigoldError(
                f"Another process {does} in {folder.name}; wait for it, or use another folder."
            ) from None
        except OSError as error:
            raise ExportError(f"{folder} cannot be written: {error.strerror or error}.") from error
        try:
            for place in (folder, *(path for pattern in within for path in folder.glob(pattern))):
                clear_unfinished(place)
            yield
        finally:
            with suppress(OSError):  # where open files cannot be removed it stays, and does no harm
                (folder / f".{LOCK}").unlink()
            lock.release()


def say_disk_need(folder: Path, size_bytes: float, what: str, must: bool = False) -> None:
    """Print how much disk space something will take in ``folder``, which need not exist yet, and how much is free.

    Raises: MarigoldError when it ``must`` fit and does not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    sentence = f"{what}: {_size(size_bytes)} in {folder}, {_size(free)} are free"
    if must and size_bytes > free:
        raise MarigoldError(f"The disk is too small. {sentence}: free some, or give another folder.")
    print(sentence, flush=True)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def end_with_parent() -> None:
    """Make a worker leave Ctrl-C to the process that started it, and end when that one is killed."""
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end, daemon=True).start()
