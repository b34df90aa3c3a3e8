"""Things that are kept for a while, in a bounded amount of memory."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Heavy(Protocol):
    """What knows its weight, which may grow."""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""
        ...


Item = TypeVar("Item", bound=Heavy)


class Shelf(Generic[Item]):
    """Keeps items under ids that cannot be guessed; the longest unused ones make room for new ones. Thread-safe."""

    def __init__(self, most_bytes: int, drop: Callable[[Item], None]) -> None:
        """Begin empty; ``drop`` tidies up after an item that had to go."""
        self._most_bytes, self._drop = most_bytes, drop
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, item: Item) -> str:
        """Keep an item, whatever it weighs -> its id."""
        key = secrets.token_hex(16)
        dropped = []
        with self._lock:
            self._items[key] = item
            held = sum(kept.size_bytes for kept in self._items.values())
            while held > self._most_bytes and len(self._items) > 1:
                _, oldest = self._items.popitem(last=False)
                held -= oldest.size_bytes
                dropped.append(oldest)
        for oldest in dropped:
            self._drop(oldest)
        return key

    def get(self, key: str | None) -> Item | None:
        """Return an item that is still kept, None for any other; asking counts as a use."""
        with self._lock:
            if key is None or key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key]
