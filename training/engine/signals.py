"""Who may train in a folder, and how training is asked to stop."""

import signal
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

from marigold_core.errors import MarigoldError

ECHO_S = 1.0  # seconds


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
def stop_signals() -> Iterator[Set[int]]:
    """Collect SIGINT and SIGTERM for the loop to look at after each step; a second Ctrl-C ends the program at once.

    What comes soon after the first is its echo: ``torchrun`` passes on a signal that its processes got as well.
    """
    asked: dict[int, float] = {}  # when each came first
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: object) -> None:
        first = asked.setdefault(signum, monotonic())
        if signum == signal.SIGINT and monotonic() - first > ECHO_S:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.keys()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
