"""The folder in which the server keeps uploads: what broke off is cleared while it runs.

Gradio deletes the files of a visit after a while, but knows of those alone whose upload was finished.
"""

import contextlib
import shutil
import threading
import time
from pathlib import Path

EVERY_S = 60.0
BROKEN_OFF_S = 15 * 60.0  # an upload that nothing was added to for so long; one may take a minute
LEAST_FREE_BYTES = 10**9  # of the disk, below which no upload is taken


def clear_for_ever(folder: Path) -> None:
    """Clear the folder once a minute, in a thread that ends with the program."""

    def work() -> None:
        while True:
            time.sleep(EVERY_S)
            clear(folder)

    threading.Thread(target=work, name="work folder", daemon=True).start()


def clear(folder: Path) -> None:
    """Delete what uploads that broke off have left directly in ``folder``, and sub-folders that stand empty."""
    now = time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # it was finished, moved or filled just now
            if now - path.stat().st_mtime < BROKEN_OFF_S:
                continue
            if path.is_dir():
                path.rmdir()  # refuses what holds a file
            elif path.name.startswith("tmp"):  # as ``tempfile`` names them
                path.unlink()


def has_room(folder: Path) -> bool:
    """Return whether the disk has room for uploads."""
    return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES
