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
_PERSISTED = "result.npz"
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


class ResultStore(Generic[Item]):
    """Keeps items, and a folder of files for each; drops the least recently used when full. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int, gone: str, form: Form[Item] | None = None) -> None:
        """Begin empty.

        Args:
            folder: receives the items' folders.
            max_bytes: of all items in memory.
            gone: the message for a dropped item.
            form: of those that are persisted.
        """
        self._folder, self._max_bytes, self._gone, self._form = folder, max_bytes, gone, form
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._persisted = set[str]()  # keys of items in memory that are on the disk as they are
        self._lock = threading.Lock()

    def put(self, item: Item, key: str | None = None) -> str:
        """Keep an item in memory, however large -> its id: ``key``, or a new one.

        The files of another item that was kept as ``key`` stay, as somebody may be reading them, and go with the key.
        """
        return self._put(item, key or secrets.token_hex(16), persisted=False)

    def _put(self, item: Item, key: str, persisted: bool) -> str:
        with self._lock:
            dropped = list[str]()
            self._items[key] = item
            self._items.move_to_end(key)
            (self._persisted.add if persisted else self._persisted.discard)(key)
            held = sum(kept.size_bytes for kept in self._items.values())
            while held > self._max_bytes and len(self._items) > 1:
                oldest, gone = self._items.popitem(last=False)
                held -= gone.size_bytes
                if oldest in self._persisted:
                    self._persisted.discard(oldest)
                else:
                    dropped.append(oldest)
        for oldest in dropped:
            shutil.rmtree(self.folder(oldest), ignore_errors=True)
        return key

    def persist(self, key: str) -> None:
        """Write an item to the disk, unless it is there as it is.

        Raises: ExportError when it is gone, or the disk refuses.
        """
        item = self.get(key)
        if self._form is None or key in self._persisted:
            return
        self._form.write(item, self.folder(key) / _PERSISTED)
        with self._lock:
            if self._items.get(key) is item:
                self._persisted.add(key)

    def get(self, key: str | None) -> Item:
        """Return an item; asking counts as a use. Raises: ExportError when it is no longer kept."""
        with self._lock:
            item = self._items.get(key) if key else None
            if key and item is not None:
                self._items.move_to_end(key)
        if item is None and key is not None and self._form and self._on_disk(key):
            with suppress(ExportError):  # it was removed just now, or is damaged
                item = self._form.read(self.folder(key) / _PERSISTED)
                self._put(item, key, persisted=True)
        if key is None or item is None:
            raise ExportError(self._gone)
        if self._form:
            with suppress(OSError):  # it is on no disk
                os.utime(self.folder(key) / _PERSISTED)
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
        return self._form is not None and self._on_disk(key)

    def folder(self, key: str) -> Path:
        """Return the folder for an item's files, which is removed with it; it need not exist."""
        return self._folder / key

    def _on_disk(self, key: str) -> bool:
        """Return whether an item is persisted."""
        return _KEY.fullmatch(key) is not None and is_persisted(self.folder(key))


def is_persisted(folder: Path) -> bool:
    """Return whether an item's folder holds the item itself."""
    return (folder / _PERSISTED).exists()


def make_room(folder: Path, max_bytes: int = KEPT_ON_DISK) -> None:
    """Remove the least recently used of the persisted items in the folder of stores, as far as they have more bytes."""
    found = list[tuple[float, int, Path]]()
    for one in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # it was removed just now
            used = (one / _PERSISTED).stat().st_mtime
            found.append((used, sum(path.stat().st_size for path in one.rglob("*") if path.is_file()), one))
    held = sum(size for _, size, _ in found)
    for _, size, one in sorted(found):
        if held > max_bytes:
            held -= size
            shutil.rmtree(one, ignore_errors=True)
