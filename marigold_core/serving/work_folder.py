"""The folder in which the server keeps uploads and what visits made: what is left behind is cleared while it runs.

Gradio deletes by the clock of the wall, also the photo of a job that waits when that clock jumps, and knows neither of
uploads that broke off nor of files whose address the page was given in its markup. So it deletes at the end alone.
"""

import contextlib
import shutil
import threading
import time
from pathlib import Path

EVERY_S = 60.0
BROKEN_OFF_S = 15 * 60.0  # an upload that nothing was added to for so long; one may take a minute
KEPT_S = 3600.0  # files of a visit to which nothing was added for so long
LEAST_FREE_BYTES = 10**9  # of the disk, below which no upload is taken
RESULTS = "results"  # the sub-folder of the service, which bounds what it keeps itself


class Janitor:
    """Deletes what has lain unchanged for long enough since it was first seen, by a clock that does not jump."""

    def __init__(self, folder: Path) -> None:
        """Look after what is put into ``folder`` from now on; what is there already is somebody else's."""
        self._folder = folder
        self._others = {path.name for path in folder.iterdir()}
        self._seen: dict[Path, tuple[float, float]] = {}  # its newest change, and when that was first seen

    def work_for_ever(self) -> None:
        """Clear once a minute, in a thread that ends with the program."""

        def work() -> None:
            while True:
                time.sleep(EVERY_S)
                self.clear(time.monotonic())

        threading.Thread(target=work, name="janitor", daemon=True).start()

    def clear(self, now: float) -> None:
        """Delete what is old at ``now``, in seconds of any clock that only goes forward."""
        seen: dict[Path, tuple[float, float]] = {}
        for path in self._folder.iterdir():
            if path.name == RESULTS or path.name in self._others:
                continue
            with contextlib.suppress(OSError):  # it was finished, moved or deleted just now
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                newest = max(file.lstat().st_mtime for file in files)
                before = self._seen.get(path, (None, now))
                since = before[1] if before[0] == newest else now
                seen[path] = newest, since
                # Of an upload that broke off, a file named as ``tempfile`` does or an empty folder is left.
                broken_off = len(files) == 1 and (path.is_dir() or path.name.startswith("tmp"))
                if now - since >= (BROKEN_OFF_S if broken_off else KEPT_S):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    del seen[path]
        self._seen = seen


def has_room(folder: Path) -> bool:
    """Return whether the disk has room for uploads."""
    return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES
