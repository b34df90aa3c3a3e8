"""The store of finished results: kept under ids that cannot be guessed, in a bounded amount of memory and disk.

Several processes may share its folder: what one has persisted the others know by its id, also after it has ended.
"""

import os
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from marigold_core.errors import ExportError

KEPT_ON_DISK = 8 * 2**30  # bytes of all persisted results
_KEY = re.compile("[0-9a-f]{32}")
RESULT, BATCH = "result.npz", "batch.npz"  # files of persisted items, those of batches apart as they stay for longer
OF_CALL = "call-"  # begins the names of folders that nobody keeps for later


class Sized(Protocol):
    """A result that knows its size, which may grow."""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""
        ...


Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True)
class Form(Generic[Item]):
    """How items are written to a file and read from it; both raise ExportError."""

    write: Callable[[Item, Path], None]
    read: Callable[[Path], Item]
    file: str = RESULT


class ResultStore(Generic[Item]):
    """Keeps items, and a folder of files for each; drops the least recently used when full. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int, gone: str, form: Form[Item]) -> None:
        """Begin empty.

        Args:
            folder: receives the items' folders.
            max_bytes: of all items in memory.
            gone: the message for a dropped item.
            form: of those that are persisted.
        """
        self._folder, self._max_bytes, self._gone, self._form = folder, max_bytes, gone, form
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._persisted = dict[str, tuple[int, int]]()  # of items in memory that are on the disk: the state of the file
        self._changing = set[str]()  # keys of those that a job of this process changes
        self._lock = threading.Lock()

    def put(self, item: Item, key: str | None = None) -> str:
        """Keep an item in memory, however large -> its id: ``key``, or a new one.

        The files of another item that was kept as ``key`` stay, as somebody may be reading them, and go with the key.
        """
        return self._put(item, key or secrets.token_hex(16))

    def _put(self, item: Item, key: str, persisted: tuple[int, int] | None = None) -> str:
        with self._lock:
            dropped = list[str]()
            self._items[key] = item
            self._items.move_to_end(key)
            self._persisted.pop(key, None)
            if persisted:
                self._persisted[key] = persisted
            held = sum(kept.size_bytes for kept in self._items.values())
            while held > self._max_bytes and len(self._items) > 1:
                oldest, gone = self._items.popitem(last=False)
                held -= gone.size_bytes
                if self._persisted.pop(oldest, None) is None:
                    dropped.append(oldest)
        for oldest in dropped:
            shutil.rmtree(self.folder(oldest), ignore_errors=True)
        return key

    def persist(self, key: str, *, changing: bool = False) -> None:
        """Write an item to the disk, unless it is there as it is.

        One that is ``changing`` is written by each call, and counts in this process whatever others write, until
        ``settle``.

        Raises: ExportError when it is gone, or the disk refuses.
        """
        item = self.get(key)
        if changing:
            self._changing.add(key)
        elif key in self._persisted:
            return
        self._form.write(item, self._file(key))
        with self._lock:
            if self._items.get(key) is item and (version := self._version(key)):
                self._persisted[key] = version

    def settle(self, key: str) -> None:
        """Note that an item is on the disk and no longer changes."""
        self._changing.discard(key)

    def get(self, key: str | None) -> Item:
        """Return an item, as the process left it that last wrote it; asking counts as a use.

        Raises: ExportError when it is no longer kept.
        """
        item = None
        if key is not None:
            with self._lock:
                item, version = self._items.get(key), self._version(key)
                if item is not None:
                    self._items.move_to_end(key)
                known = version if key in self._changing else self._persisted.get(key, version)
                is_newer = version and (item is None or known != version)
            if is_newer:
                with suppress(ExportError):  # it was removed just now, or is damaged
                    item = self._form.read(self._file(key))
                    self._put(item, key, version)
        if key is None or item is None:  # any visitor may send any key
            raise ExportError(self._gone)
        with suppress(OSError):  # it is on no disk
            os.utime(self.folder(key))
        return item

    def find(self, matches: Callable[[Item], bool]) -> str | None:
        """Return the id of an item in memory that matches, which counts as a use, or None."""
        with self._lock:
            key = next((key for key, item in self._items.items() if matches(item)), None)
            if key is not None:
                self._items.move_to_end(key)
            return key

    def __contains__(self, key: object) -> bool:
        """Return whether an item is kept; any visitor may send any ``key``."""
        if not isinstance(key, str):
            return False
        with self._lock:
            if key in self._items:
                return True
        return self._version(key) is not None

    def folder(self, key: str) -> Path:
        """Return the folder for an item's files, which is removed with it; it need not exist."""
        return self._folder / key

    def _file(self, key: str) -> Path:
        return self.folder(key) / self._form.file

    def _version(self, key: str) -> tuple[int, int] | None:
        """Return what tells the states of a persisted item apart, None where it is on no disk."""
        with suppress(OSError):
            if _KEY.fullmatch(key):
                status = self._file(key).stat()
                return status.st_ino, status.st_mtime_ns
        return None


def is_persisted(folder: Path) -> bool:
    """Return whether an item's folder holds a prediction or a comparison itself."""
    return (folder / RESULT).exists()


def make_room(folder: Path, max_bytes: int = KEPT_ON_DISK) -> None:
    """Remove the least recently used of what is in the folder of stores for others to read, down to so many bytes."""
    found = list[tuple[float, int, Path]]()
    for one in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # it was removed just now
            of_call = one.name.startswith(OF_CALL)
            if of_call or (one / RESULT).exists() or (one / BATCH).exists():
                states = [path.stat() for path in one.rglob("*") if path.is_file()]
                used = [one.stat().st_mtime, *(state.st_mtime for state in states if of_call)]  # some are written still
                found.append((max(used), sum(state.st_size for state in states), one))
    held = sum(size for _, size, _ in found)
    for _, size, one in sorted(found):
        if held > max_bytes:
            held -= size
            shutil.rmtree(one, ignore_errors=True)
