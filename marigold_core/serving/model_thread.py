"""The thread of a server in which the model runs.

A server takes each event of a job in another of its threads, and OpenMP keeps a team of threads for every one that has
computed. Teams that share the cores slow each other down, so all jobs compute in one thread.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
WORKER = "marigold-"  # names of threads that may be inside torch begin so


def any_is_alive() -> bool:
    """Return whether a thread is there that the interpreter's end would catch inside torch, whose C++ then aborts."""
    return any(thread.name.startswith(WORKER) for thread in threading.enumerate())


class ModelThread:
    """Runs iterators in one thread of its own, which is started when it is first needed."""

    def __init__(self) -> None:
        self._calls = SimpleQueue[Callable[[], object] | None]()
        self._thread: threading.Thread | None = None

    def iterate(self, events: Iterator[T]) -> Generator[T]:
        """Yield what an iterator does, which is advanced, and closed at the end or before it, in the model's thread."""
        try:
            while (event := self._run(lambda: next(events, None))) is not None:
                yield event
        finally:
            if isinstance(events, Generator):
                self._run(events.close)

    def close(self) -> None:
        """End the thread after what was already asked of it."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread, with the caller's context variables -> its result, or its exception."""
        if self._thread is None:
            # At the end of the program nobody waits for it: a step may take minutes.
            self._thread = threading.Thread(target=self._work, name=f"{WORKER}model", daemon=True)
            self._thread.start()
        future, context = Future[T](), copy_context()

        def call() -> None:
            try:
                future.set_result(context.run(function))
            except BaseException as error:  # whoever waits receives it
                future.set_exception(error)

        self._calls.put(call)
        return future.result()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
