"""How a map settles: the curve, the rule that ends a run, what it saves, and members that are added later."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marigold_core import Prediction, Progress, Settings, SettingsError, load
from marigold_core.pipeline.convergence import (
    MIN_MEMBERS,
    ConvergencePoint,
    EarlyStopping,
    converged_at,
    convergence_curve,
    has_converged,
)
from marigold_core.prediction import Kind
from marigold_core.serving.jobs import Service

pytestmark = pytest.mark.numeric

SIZE = (60, 80)
QUICK = Settings(num_inference_steps=1, processing_resolution=32)


def planted(members: np.ndarray, kind: Kind = "affine") -> Prediction:
    """A prediction of these members [E, h, w] or [E, h, w, 3]; what the curve does not read is empty."""
    modality = "normals" if kind == "unit-vector" else "depth"
    photo = np.zeros((*members.shape[1:3], 3), np.uint8)
    used = Settings(ensemble_size=len(members)).resolved(1, 64)
    return Prediction(modality, kind, "depth", members[0], None, members, photo, None, used, "planted", "0" * 64)


def ramp() -> np.ndarray:
    """[h, w] depth from 0 at the top to 1 at the bottom."""
    return np.linspace(0, 1, SIZE[0])[:, None].repeat(SIZE[1], axis=1)


def noisy(count: int, level: float = 0.1) -> np.ndarray:
    """[E, h, w] ramps with a noise of their own each."""
    return np.stack([ramp() + level * np.random.default_rng(k).normal(size=SIZE) for k in range(count)])


def shares(points: list[ConvergencePoint]) -> list[float]:
    return [point.change for point in points if point.change is not None]


# ------------------------------------------------------------------------------- the curve


def test_one_point_a_member_and_uncertainty_from_the_third() -> None:
    points = convergence_curve(planted(noisy(5)))
    assert [point.members for point in points] == [1, 2, 3, 4, 5]
    assert [point.change is None for point in points] == [True, False, False, False, False]
    assert [point.uncertainty is None for point in points] == [True, True, False, False, False]


def test_every_member_counts_for_less_than_those_before_it() -> None:
    moved = shares(convergence_curve(planted(noisy(12))))
    assert moved[0] > 2 * moved[3] > 2 * moved[-1] > 0


def test_scale_and_shift_of_a_member_move_nothing() -> None:
    members = np.stack([ramp() * scale + shift for scale, shift in ((1, 0), (0.5, 0.2), (2, -1), (0.1, 0.9))])
    assert max(shares(convergence_curve(planted(members)))) < 1e-5


def test_half_of_the_members_shifted_in_half_of_the_picture_move_it_by_what_can_be_computed() -> None:
    """The second member disagrees about the right half; the median of two is the mean."""
    other = ramp()
    other[:, 40:] = 1 - other[:, 40:]
    flat = 0.5 * (ramp() + other)  # a ramp on the left, constant on the right
    members = np.stack([ramp(), ramp(), ramp(), other])
    assert shares(convergence_curve(planted(members)))[:2] == pytest.approx([0, 0], abs=1e-6)
    assert shares(convergence_curve(planted(members)))[2] < 1e-6  # the median of four ignores one
    assert shares(convergence_curve(planted(members[[0, 3]])))[0] == pytest.approx(
        np.abs(np.polyval(np.polyfit(ramp().ravel(), flat.ravel(), 1), ramp()) - flat).mean() / np.ptp(flat), abs=0.02
    )


def test_metres_are_told_as_shares_of_the_depth_range() -> None:
    near, far = convergence_curve(planted(noisy(4), "metric")), convergence_curve(planted(10 * noisy(4), "metric"))
    assert shares(near) == pytest.approx(shares(far), rel=1e-4)
    assert near[-1].uncertainty == pytest.approx(far[-1].uncertainty, rel=1e-4)


def test_normals_move_by_the_angle() -> None:
    """The fused normal is the member nearest to the mean: of two at 60 degrees either, of three the middle one."""
    angles = np.radians([0, 60, 30])
    directions = np.stack([np.sin(angles), np.zeros(3), np.cos(angles)], axis=-1)
    members = np.broadcast_to(directions[:, None, None], (3, *SIZE, 3))
    points = convergence_curve(planted(members, "unit-vector"))
    assert points[2].change == pytest.approx(30 / 180, abs=1e-4)
    assert points[2].uncertainty == pytest.approx(20 / 180, abs=1e-4)


def test_a_large_map_is_thinned_and_gives_nearly_the_same() -> None:
    fine = planted(noisy(6).repeat(8, axis=1).repeat(8, axis=2))
    assert shares(convergence_curve(fine)) == pytest.approx(shares(convergence_curve(planted(noisy(6)))), rel=0.1)


def test_no_members_no_curve() -> None:
    assert convergence_curve(replace(planted(noisy(2)), members=None)) == []


# ------------------------------------------------------------------------------- the rule


def points_of(*moved: float) -> list[ConvergencePoint]:
    return [
        ConvergencePoint(1, None, None),
        *(ConvergencePoint(number, share, None) for number, share in enumerate(moved, start=2)),
    ]


@pytest.mark.parametrize(
    ("moved", "ends_at"),
    [
        ((0.001, 0.001), None),  # three members are too few
        ((0.001, 0.001, 0.001), 4),
        ((0.1, 0.1, 0.001, 0.1, 0.001), None),  # never two in a row
        ((0.1, 0.1, 0.001, 0.001, 0.1), 5),
        ((0.1, 0.1, 0.005, 0.005), None),  # less than, not as little as
    ],
)
def test_two_in_a_row_from_the_fourth_member_on(moved: tuple[float, ...], ends_at: int | None) -> None:
    points = points_of(*moved)
    assert converged_at(points, 0.005) == ends_at
    assert has_converged(points[: ends_at or len(points)], 0.005) == (ends_at is not None)


def test_nothing_is_never_enough() -> None:
    assert not has_converged([], 1.0)


def events(members: np.ndarray, log: list[str]) -> Generator[Progress | Prediction, None, None]:
    """A run that yields a step and a prediction for each member, and notes that it was closed."""
    try:
        for count in range(1, len(members) + 1):
            yield Progress(count, len(members), "denoising")
            log.append(f"member {count}")
            yield planted(members[:count])
    finally:
        log.append("closed")


def test_a_settled_run_ends_is_closed_and_knows_what_it_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0, 14.0, 16.0])
    monkeypatch.setattr("marigold_core.pipeline.convergence.perf_counter", lambda: next(times))
    log: list[str] = []
    run = EarlyStopping(events(noisy(10, level=0), log), 10, 0.01)
    *_, last = run
    assert isinstance(last, Prediction)
    assert last.fused == run.finished == MIN_MEMBERS
    assert log == ["member 1", "member 2", "member 3", "member 4", "closed"]
    assert run.converged
    assert run.saved_s == 6 * 2.0


def test_a_restless_run_goes_to_its_end() -> None:
    log: list[str] = []
    run = EarlyStopping(events(noisy(6, level=1.0), log), 6, 0.01)
    assert len(list(run)) == 12
    assert (run.finished, run.converged, run.saved_s) == (6, False, 0.0)
    assert log[-1] == "closed"


def test_a_run_that_settles_with_its_last_member_was_not_ended() -> None:
    run = EarlyStopping(events(noisy(MIN_MEMBERS, level=0), []), MIN_MEMBERS, 0.01)
    list(run)
    assert not run.converged


def test_closing_closes_the_run() -> None:
    log: list[str] = []
    going = iter(EarlyStopping(events(noisy(6), log), 6, 0.01))
    next(going)
    assert isinstance(going, Generator)
    going.close()
    assert log == ["closed"]


def test_what_an_ended_run_gives_is_what_as_many_members_give(tiny_depth: Path, photo) -> None:
    """And its settings say so: a manifest made from them replays the same."""
    pipe, picture = load(tiny_depth, device="cpu"), photo(32, 32)
    *_, ended = EarlyStopping(pipe.stream(picture, sized(8)), 8, 1.0)
    assert isinstance(ended, Prediction)
    assert ended.fused == MIN_MEMBERS and isinstance(ended.settings, Settings)
    again = pipe(picture, ended.settings)
    np.testing.assert_array_equal(ended.values, again.values)
    np.testing.assert_array_equal(ended.uncertainty, again.uncertainty)


# ------------------------------------------------------------------------------- members that are added


@pytest.fixture
def service(tiny_depth: Path, tmp_path: Path) -> Iterator[Service]:
    rooms = Service(tmp_path / "results", loader=lambda name: load(tiny_depth, device="cpu"))
    yield rooms
    rooms.close()


def last(events: Iterable[Progress | Prediction]) -> Prediction:
    *_, result = events
    assert isinstance(result, Prediction)
    return result


def sized(count: int, **changed: int) -> Settings:
    return QUICK.changed(ensemble_size=count, **changed)


def test_added_members_are_those_of_a_longer_run_and_no_other_is_computed(service: Service, photo) -> None:
    picture = photo(32, 32)
    short = last(service.run(picture, sized(3), "tiny"))
    whole = last(service.run(picture, sized(5), "tiny"))
    happened = list(service.run(picture, sized(5), "tiny", start=short))
    steps = [event for event in happened if isinstance(event, Progress) and "step" in event.stage]
    assert [(event.done, event.total) for event in steps] == [(1, 2), (2, 2)]
    longer = last(happened)
    assert longer.fused == 5
    assert longer.members is not None and whole.members is not None
    np.testing.assert_array_equal(longer.members, whole.members)
    np.testing.assert_allclose(longer.values, whole.values, atol=2e-3)  # earlier members were kept in half precision


def test_members_of_another_seed_cannot_be_added(service: Service, photo) -> None:
    short = last(service.run(photo(32, 32), sized(3), "tiny"))
    with pytest.raises(SettingsError, match="seed can be continued"):
        list(service.run(photo(32, 32), sized(5, seed=7), "tiny", start=short))
    assert isinstance(list(service.run(photo(32, 32), sized(1), "tiny"))[-1], Prediction)  # the model is free
