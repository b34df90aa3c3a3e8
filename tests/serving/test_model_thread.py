"""The model computes in one thread, whoever asks, and ends there too."""

import os
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from marigold_core import __main__, cli
from marigold_core.serving.model_thread import ModelThread

VISITOR = ContextVar("visitor", default="nobody")


@pytest.fixture
def model() -> Iterator[ModelThread]:
    thread = ModelThread()
    yield thread
    thread.close()


def ask(model: ModelThread, events: Iterator[object]) -> list[object]:
    """Take all events in a thread of their own."""
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.extend(model.iterate(events)))
    asking.start()
    asking.join(20)
    return found


def test_events_asked_for_by_several_threads_are_made_in_one(model: ModelThread) -> None:
    made = [ask(model, (threading.get_ident() for _ in range(3))) for _ in range(3)]
    assert len(made[0]) == 3 and len({thread for one in made for thread in one}) == 1
    assert threading.get_ident() not in made[0]


def test_an_error_reaches_who_asked_and_the_thread_goes_on(model: ModelThread) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    events = model.iterate(breaks())
    assert next(events) == 1
    with pytest.raises(ZeroDivisionError):
        next(events)
    assert ask(model, iter((2, 3))) == [2, 3]


def test_closing_ends_the_events_where_they_were_made(model: ModelThread) -> None:
    ended = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield threading.get_ident()
        finally:
            ended.append(threading.get_ident())

    events = model.iterate(endless())
    made_in = next(events)
    events.close()
    assert ended == [made_in]


def test_events_know_who_asked(model: ModelThread) -> None:
    """A host that lends its GPU finds the visitor whose quota it is in a context variable."""
    VISITOR.set("somebody")
    assert list(model.iterate(VISITOR.get() for _ in range(2))) == ["somebody"] * 2


def test_a_closed_thread_starts_again_when_it_is_needed(model: ModelThread) -> None:
    assert list(model.iterate(iter((1,)))) == [1]
    model.close()
    model.close()
    assert list(model.iterate(iter((2,)))) == [2]


def test_a_command_whose_model_may_still_compute_ends_at_once(
    model: ModelThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the interpreter's own end a thread inside torch would abort the process, with a core dump."""
    ended = list[int]()
    monkeypatch.setattr(cli, "main", lambda words: 3)
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGINT)
    ask(model, iter("a"))
    with pytest.raises(SystemExit):  # which the real exit does not come to
        __main__.run()
    assert ended == [3] and signal.getsignal(signal.SIGINT) == before
