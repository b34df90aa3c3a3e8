"""The folder in which the server keeps uploads and what visits made: what is left behind is cleared while it runs.

Gradio deletes by the clock of the wall, also the photo of a job that waits when that clock jumps, and knows neither of
uploads that broke off nor of files whose address the page was given in its markup. At the end it would delete what it
knows of, which another process that shares the folder, or the next one, may serve. So it deletes nothing.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from marigold_core.serving import results

EVERY_S = 60.0
BROKEN_OFF_S = 15 * 60.0  # an upload that nothing was added to for so long; one may take a minute
KEPT_S = 3600.0  # files of a visit to which nothing was added for so long, and results that were not used
LEFT_S = 24 * KEPT_S  # likewise what a process keeps itself as long as it runs: it was left by one that has ended
LEAST_FREE_BYTES = 10**9  # of the disk, below which no upload is taken
RESULTS = "results"  # the sub-folder of the service
_OURS = re.compile("[0-9a-f]{64}|[0-9a-f]{32}")  # sub-folders: of Gradio, one for each content of a file, and of clips


class Janitor:
    """Deletes what has lain unchanged for long enough since it was first seen, by a clock that does not jump."""

    def __init__(
        self, folder: Path, drawn: Collection[Path] = (), waiting: Callable[[], Iterable[str]] = lambda: ()
    ) -> None:
        """Look after uploads, results and what else is put into ``folder`` from now on.

        Other things that are there already are somebody else's. The files in it that the page was ``drawn`` with stay
        for as long as this process runs, as do the files that jobs are ``waiting`` with.
        """
        self._folder, self._drawn, self._waiting = folder, {path.parent for path in drawn}, waiting
        self._others = {path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)}
        self._seen: dict[Path, tuple[float, float]] = {}  # its newest change, and when that was first seen

    def work_for_ever(self) -> None:
        """Clear once a minute, in a thread that ends with the program."""

        def work() -> None:
            while True:
                time.sleep(EVERY_S)
                with contextlib.suppress(OSError):  # another process clears the folder as well
                    self.clear(time.monotonic())

        threading.Thread(target=work, name="janitor", daemon=True).start()

    def clear(self, now: float) -> None:
        """Delete what is old at ``now``, in seconds of any clock that only goes forward."""
        seen: dict[Path, tuple[float, float]] = {}
        inside = self._folder.resolve()
        waiting = {place for file in self._waiting() if (place := Path(file).resolve().parent).parent == inside}
        for place in self._drawn | waiting:
            with contextlib.suppress(OSError):
                os.utime(place)  # other processes see that it is in use; the files, which browsers ask for, stay as old
        for path, most_s in self._looked_after():
            with contextlib.suppress(OSError):  # it was finished, moved or deleted just now
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                newest = max(file.lstat().st_mtime for file in files)
                before = self._seen.get(path, (None, now))
                since = before[1] if before[0] == newest else now
                seen[path] = newest, since
                # Of an upload that broke off, a file named as ``tempfile`` does or an empty folder is left.
                broken_off = len(files) == 1 and (path.is_dir() or path.name.startswith("tmp"))
                if now - since >= (BROKEN_OFF_S if broken_off else most_s):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    del seen[path]
        self._seen = seen
        results.make_room(self._folder / RESULTS)

    def _looked_after(self) -> Iterator[tuple[Path, float]]:
        """Yield what is looked after, each with the seconds that it may lie unchanged."""
        for path in self._folder.iterdir():
            if path.name != RESULTS and path.name not in self._others:
                yield path, KEPT_S
        kept = self._folder / RESULTS
        for path in kept.iterdir() if kept.is_dir() else ():
            is_left = not results.is_persisted(path) and not path.name.startswith(results.OF_CALL)
            yield path, LEFT_S if is_left else KEPT_S


def has_room(folder: Path) -> bool:
    """Return whether the disk has room for uploads."""
    return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES
