"""The line before the model: in order, one at a time, places and times said, and whoever leaves holds up nobody."""

import threading
import time
from collections.abc import Generator, Iterator

import pytest

from marigold_core.prediction import Progress
from marigold_core.serving import waiting_line
from marigold_core.serving.waiting_line import WaitingLine


@pytest.fixture(autouse=True)
def _no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_line, "WAKE_S", 0.01)


def stages(events: Iterator[Progress | str], count: int) -> list[str]:
    told = [next(events) for _ in range(count)]
    return [event.stage for event in told if isinstance(event, Progress)]


def test_a_job_alone_begins_at_once() -> None:
    assert list(WaitingLine().pass_in_turn(iter("abc"), None)) == ["a", "b", "c"]


def test_those_who_wait_are_told_their_place_and_the_time_until_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(waiting_line.time, "monotonic", lambda: now)
    line = WaitingLine()
    first, second, third = (line.pass_in_turn(iter("ab"), seconds) for seconds in (20.0, 10.0, None))
    assert next(first) == "a"
    assert stages(second, 1) == ["waiting: 1 job is before this one, about 20 s"]
    now += 5
    assert stages(third, 1) == ["waiting: 2 jobs are before this one, about 25 s"]
    now += 60  # longer than foreseen
    assert stages(third, 1) == ["waiting: 2 jobs are before this one, about 10 s"]
    fourth = line.pass_in_turn(iter("ab"), 1.0)
    assert stages(fourth, 1) == ["waiting: 3 jobs are before this one"]  # the third one's time is not known


def test_the_next_one_begins_when_the_one_inside_ends_fails_or_is_closed() -> None:
    def failing() -> Generator[str]:
        yield "a"
        raise ValueError

    line = WaitingLine()
    ending, breaking, closing, last = (
        line.pass_in_turn(job, 1.0) for job in (iter("a"), failing(), iter("ab"), iter("z"))
    )
    assert next(ending) == "a"
    for waiting in (breaking, closing, last):
        next(waiting)
    assert list(ending) == []
    assert stages(last, 1) == ["waiting: 2 jobs are before this one, about 2.0 s"]
    assert stages(breaking, 1) == ["beginning"] and next(breaking) == "a"
    with pytest.raises(ValueError):
        next(breaking)
    assert stages(closing, 1) == ["beginning"] and next(closing) == "a"
    closing.close()
    assert stages(last, 1) == ["beginning"] and list(last) == ["z"]


def test_who_leaves_the_line_moves_the_others_up_and_never_enters_the_model() -> None:
    entered = []

    def job(name: str) -> Generator[str]:
        entered.append(name)
        yield name

    line = WaitingLine()
    inside, leaving, waiting = (line.pass_in_turn(job(name), 1.0) for name in "abc")
    assert next(inside) == "a"
    assert len([next(leaving), next(waiting)]) == 2
    list(inside)
    assert stages(leaving, 1) == ["beginning"]
    leaving.close()
    assert stages(waiting, 1) == ["beginning"] and next(waiting) == "c"
    assert entered == ["a", "c"]


def test_many_threads_are_served_in_order_one_at_a_time() -> None:
    line, order, inside, worst = WaitingLine(), [], [0], [0]

    def job(number: int) -> Generator[str]:
        inside[0] += 1
        worst[0] = max(worst[0], inside[0])
        time.sleep(0.002)
        yield "step"
        inside[0] -= 1
        order.append(number)

    streams = [line.pass_in_turn(job(number), None) for number in range(24)]
    heads = [next(stream) for stream in streams]  # in line, in this order
    threads = [threading.Thread(target=lambda stream=stream: list(stream)) for stream in streams]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(heads) == 24 and order == list(range(24)) and worst == [1]
