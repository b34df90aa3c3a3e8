"""What runs took on this machine: timed while they go on, and kept in the user's cache.

There is one list for each checkpoint, device and dtype, an entry for each size of photo and network input. A second
run of the same size is averaged with the first, so that one slow moment does not count for long.
"""

import json
import math
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import NamedTuple, TypedDict

import numpy as np

from marigold_core.checkpoints import hub
from marigold_core.checkpoints.registry import KNOWN
from marigold_core.checkpoints.weights import cache_folder, write_json
from marigold_core.errors import ExportError
from marigold_core.prediction import Prediction, Progress

FILE = "pace.json"
MOST_SIZES = 12  # entries of one checkpoint; the oldest makes room


class Timed(NamedTuple):
    """A run that was timed: what went through the network, the photo, both in megapixels, and the parts' seconds."""

    network_mp: float
    photo_mp: float
    encode_s: float
    step_s: float
    decode_s: float


class Entry(TypedDict):
    """What is known of one checkpoint."""

    load_s: float | None
    runs: dict[str, list[list[float]]]  # by device and dtype, the numbers of ``Timed``


def timed(events: Iterator[Progress | Prediction], checkpoint: str) -> Iterator[Progress | Prediction]:
    """Pass on the events of a run and, once it is finished, remember its times; closing this closes ``events``.

    What the receiver does with an event counts too: a person waits for the picture, not for the numbers.
    """
    steps, decodes, done, result = list[tuple[float, int]](), list[float](), 0, None
    began = perf_counter()
    try:
        for event in events:
            yield event
            now = perf_counter()
            if isinstance(event, Prediction):
                result = event
                decodes.append(now - began)
            elif event.done > done:  # one step of one member or of several; other events announce or warn
                steps.append((now - began, event.done - done))
                done = event.done
            began = now
    finally:
        if isinstance(events, Generator):  # a stopped run frees the model now, not when it is collected
            events.close()
    if result is not None and steps:
        _note(checkpoint, result, steps, decodes)


def _note(checkpoint: str, result: Prediction, steps: list[tuple[float, int]], decodes: list[float]) -> None:
    """Remember the parts of a finished run; the first step holds the encoding and warms up, so others are better."""
    if result.members is None or result.device is None or result.dtype is None:
        return
    first_s, count = steps[0]
    later = [seconds / members for seconds, members in steps[1:]]
    step_s = float(np.median(later)) if later else first_s / (count + 1)
    encode_s = max(first_s - count * step_s, step_s / 10)
    sizes = [math.prod(shape) / 1e6 for shape in (result.members.shape[1:3], result.photo.shape[:2])]
    book = _read()
    times = _entry(book, checkpoint)["runs"].setdefault(f"{result.device} {result.dtype}", [])
    run = [*sizes, encode_s, step_s, float(np.median(decodes))]
    for known in [known for known in times if known[:2] == sizes]:
        run = [(old + new) / 2 for old, new in zip(known, run, strict=True)]
        times.remove(known)
    times[:] = [*times, run][-MOST_SIZES:]
    _write(book)


@contextmanager
def timed_load(checkpoint: str) -> Iterator[None]:
    """Remember how long loading takes, unless it includes a download or fails."""
    here, began = is_here(checkpoint), perf_counter()
    yield
    if here:
        book = _read()
        _entry(book, checkpoint)["load_s"] = perf_counter() - began
        _write(book)


def remembered(checkpoint: str, device: str, dtype: str) -> tuple[float | None, list[Timed]]:
    """Return the seconds to load a checkpoint, None when that was not timed, and its timed runs."""
    entry = _entry(_read(), checkpoint)
    return entry["load_s"], [Timed(*run) for run in entry["runs"].get(f"{device} {dtype}", [])]


def is_here(checkpoint: str) -> bool:
    """Tell whether a checkpoint can be loaded without a download."""
    entry = KNOWN.get(checkpoint)
    if entry is None:
        return os.path.isdir(os.path.expanduser(checkpoint)) or hub.is_complete(checkpoint)
    return entry.hub_id is None or hub.is_complete(entry.hub_id)


def _entry(book: dict[str, Entry], checkpoint: str) -> Entry:
    return book.setdefault(checkpoint, Entry(load_s=None, runs={}))


def _read() -> dict[str, Entry]:
    """Read the file -> entries by checkpoint; what is absent or garbled is as if nothing had been timed."""
    try:
        content = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
        book = {
            name: Entry(
                load_s=None if entry["load_s"] is None else _positive(entry["load_s"]),
                runs={
                    machine: [[_positive(number) for number in Timed(*run)] for run in runs]
                    for machine, runs in entry["runs"].items()
                },
            )
            for name, entry in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        book = {}
    return book


def _positive(number: float) -> float:
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _write(book: dict[str, Entry]) -> None:
    """Write the file, without the folders that are gone."""
    kept = {name: entry for name, entry in book.items() if not os.path.isabs(name) or os.path.isdir(name)}
    with suppress(ExportError):  # a read-only home costs a better forecast, nothing else
        write_json(cache_folder() / FILE, kept)
