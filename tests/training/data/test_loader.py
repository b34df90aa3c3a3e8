"""The data loader: the same with any workers; damaged pictures, dead and stuck workers."""

import multiprocessing
import signal
import time
from collections.abc import Sequence

import pytest
from torch.utils.data._utils import signal_handling

from marigold_core.errors import MarigoldError
from tests.helpers.drawn_sets import DrawnSet
from training.data import loader
from training.data.loader import Loader, OnBadSample
from training.data.sampling import Pictures, Plan
from training.recipe import Framing

FRAMING = Framing(flip=0.5, long_edge_px=32)


def make_loader(
    count: int = 24, damaged: Sequence[int] = (), on_bad_sample: OnBadSample = "raise", workers: int = 0, **faults
) -> Loader:
    a_set = DrawnSet(count, damaged=damaged, **faults)
    return Loader(Plan([Pictures(a_set, FRAMING, 8)], 4, None, seed=7), workers, on_bad_sample, slowest_s=2.0)


def seen(reader: Loader, numbers: range) -> list[tuple[tuple[str, ...], float]]:
    return [(loaded.names, loaded.batch.image.double().sum().item()) for loaded in reader(numbers)]


def test_any_number_of_workers_delivers_the_same() -> None:
    expected = seen(make_loader(), range(14))
    assert len({names for names, _ in expected}) == 14
    for workers in (1, 2):
        assert seen(make_loader(workers=workers), range(14)) == expected


def test_processes_share_the_numbers_out() -> None:
    whole = seen(make_loader(), range(12))
    assert seen(make_loader(), range(0, 12, 2)) == whole[::2]
    assert seen(make_loader(), range(5, 12, 2)) == whole[5::2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_and_ends_the_run(workers: int) -> None:
    with pytest.raises(MarigoldError, match=r"^picture009 of drawn is cut off\. .*training\.doctor"):
        seen(make_loader(damaged=[9], workers=workers), range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_passed_over_the_same_way_each_time(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = seen(make_loader(400, [9, 200, 399], "skip"), range(100))
    assert capsys.readouterr().err.count("Damaged, another picture is used: picture") == 3
    names = [name for group, _ in whole for name in group]
    assert not {"picture009", "picture200", "picture399"} & set(names)
    assert {len(group) for group, _ in whole} == {4}
    assert seen(make_loader(400, [9, 200, 399], "skip", workers), range(40, 100)) == whole[40:]  # as on resume
    sound = seen(make_loader(400), range(100))
    assert sum(with_damage != without for with_damage, without in zip(whole, sound, strict=True)) == 3


def test_more_than_one_in_a_hundred_is_a_broken_set() -> None:
    passed = make_loader(400, range(0, 400, 100), "skip")
    seen(passed, range(300))  # three times through: pictures are counted, not meetings
    assert len(passed.damaged) == 4
    with pytest.raises(MarigoldError, match=r"5 of 400 pictures are damaged so far, more than 1%.*training\.doctor"):
        seen(make_loader(400, range(0, 400, 80), "skip"), range(100))


def test_replacements_that_are_damaged_too_end_the_run() -> None:
    with pytest.raises(MarigoldError, match="Too many damaged pictures in a row in drawn; the last: picture"):
        seen(make_loader(24, range(24), "skip"), range(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_the_program_stays_one(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: DrawnSet, index: int) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(DrawnSet, "__getitem__", broken)
    with pytest.raises(KeyError, match="a fault"):
        seen(make_loader(workers=workers), range(2))


def test_a_picture_that_never_comes_is_named_in_time() -> None:
    reader = make_loader(stuck=range(24), workers=1)
    awaited = reader.plan.names(0)
    with pytest.raises(MarigoldError, match="timed out after 2") as raised:
        seen(reader, range(2))
    assert awaited[0] in str(raised.value)


def test_the_death_of_a_worker_interrupts_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's own handler would raise amid a step or a save."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # torch sets its handler once a process
    before = signal.getsignal(signal.SIGCHLD)
    batches = make_loader(workers=1)(range(6))
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_worker_that_dies_amid_handing_over_is_named() -> None:
    alive, killed = (multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(2))
    alive.start()
    killed.start()
    try:
        broken = ConnectionResetError("Connection reset by peer")
        assert (
            loader._explain_worker_error([alive], broken) is None
        )  # a file that cannot be read, say: not the worker's fault
        killed.kill()
        assert loader._explain_worker_error([alive, killed], broken) == f"worker (pid(s) {killed.pid}) exited"
    finally:
        alive.kill()
