"""Who may train in a folder, and how training is asked to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from marigold_core.errors import MarigoldError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other trainers out of a folder; a lock that a crash left behind holds nobody up.

    Raises: MarigoldError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise MarigoldError(f"Another process trains in {folder.name}; wait for it, or use another folder.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def stop_signals() -> Iterator[set[int]]:
    """Collect SIGINT and SIGTERM for the loop to look at after each step; a second one ends the program at once."""
    asked: set[int] = set()
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: object) -> None:
        asked.add(signum)
        signal.signal(signum, before[signum])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
