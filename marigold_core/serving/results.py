"""The store of finished results: kept under ids that cannot be guessed, in a bounded amount of memory."""

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from marigold_core.errors import ExportError


class Sized(Protocol):
    """A result that knows its size, which may grow."""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""
        ...


Item = TypeVar("Item", bound=Sized)


class ResultStore(Generic[Item]):
    """Keeps items, and a folder of files for each; drops the least recently used when full. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int, gone: str) -> None:
        """Begin empty; ``folder`` receives the items' folders, ``gone`` is the message for a dropped item."""
        self._folder, self._max_bytes, self._gone = folder, max_bytes, gone
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, item: Item, key: str | None = None) -> str:
        """Keep an item, however large -> its id: ``key``, or a new one.

        The files of another item that was kept as ``key`` stay, as somebody may be reading them, and go with the key.
        """
        with self._lock:
            dropped = list[str]()
            key = key or secrets.token_hex(16)
            self._items[key] = item
            self._items.move_to_end(key)
            held = sum(kept.size_bytes for kept in self._items.values())
            while held > self._max_bytes and len(self._items) > 1:
                oldest, gone = self._items.popitem(last=False)
                held -= gone.size_bytes
                dropped.append(oldest)
        for oldest in dropped:
            shutil.rmtree(self.folder(oldest), ignore_errors=True)
        return key

    def get(self, key: str | None) -> Item:
        """Return an item; asking counts as a use. Raises: ExportError when it is no longer kept."""
        with self._lock:
            if key is None or key not in self._items:
                raise ExportError(self._gone)
            self._items.move_to_end(key)
            return self._items[key]

    def find(self, matches: Callable[[Item], bool]) -> str | None:
        """Return the id of an item that matches, which counts as a use, or None."""
        with self._lock:
            key = next((key for key, item in self._items.items() if matches(item)), None)
            if key is not None:
                self._items.move_to_end(key)
            return key

    def __contains__(self, key: str | None) -> bool:
        with self._lock:
            return key in self._items

    def folder(self, key: str) -> Path:
        """Return the folder for an item's files, which is removed with it; it need not exist."""
        return self._folder / key
