"""What a job leaves on show, however it ends: the last member that came is the result, for every screen."""

import asyncio
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from marigold_core.errors import ExportError, SettingsError
from marigold_core.images.photo import Photo
from marigold_core.pipeline.convergence import MIN_MEMBERS
from marigold_core.pipeline.views import MOST_MEMBERS
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import Service
from marigold_core.settings import Settings
from marigold_core.ui import run_controller, text
from marigold_core.ui.events import NO_CHANGE
from marigold_core.ui.run_controller import CurrentJob, Job, RunController, Update, summary
from tests.helpers.presses import press_stop

PHOTO = Photo(np.zeros((20, 30, 3), np.uint8), None, None)


def prediction(members: int) -> Prediction:
    return Prediction(
        modality="depth",
        kind="affine",
        space="depth",
        values=np.full((6, 8), members / 10, np.float32),
        uncertainty=None,
        members=np.zeros((members, 6, 8), np.float16),
        photo=PHOTO.pixels,
        fov_x_deg=None,
        settings=Settings(num_inference_steps=1, ensemble_size=members).resolved(1, 64),
        checkpoint="nano",
        checkpoint_sha256="0" * 64,
        device="cpu",
        dtype="float32",
    )


def events(
    photo: Photo, settings: Settings, checkpoint: str, start: Prediction | None, record: None, hints: None
) -> Iterator[Progress | Prediction]:
    first = 1 if start is None else start.fused + 1
    for number in range(first, settings.ensemble_size + 1):
        yield Progress(number, settings.ensemble_size, f"batches of {settings.batch_size}")
        yield prediction(number)


def job(members: int) -> Job:
    return Job(PHOTO, Settings(num_inference_steps=1, ensemble_size=members), "nano")


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunController]:
    service = Service(tmp_path)
    monkeypatch.setattr(service, "run", events)
    monkeypatch.setattr(run_controller, "STATE_S", 0.0)
    monkeypatch.setattr(run_controller, "STATE_SHARE", float("inf"))

    async def draw() -> RunController:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks():
            controller = RunController(service)
            controller.draw_photo()
            controller.draw_buttons()
            controller.draw_status()
            controller.draw_early_stopping()
            return controller

    yield asyncio.run(draw())
    service.close()


def shown_members(controller: RunController, update: Update) -> int:
    return controller.service.prediction(str(update[controller.result])).fused


def test_every_member_is_the_result_until_the_next_one(controller: RunController) -> None:
    updates = list(controller.run_job(job(3), {}))
    keys = [str(update[controller.result]) for update in updates if controller.result in update]
    assert shown_members(controller, updates[-1]) == 3
    assert len(keys) == 3 and len(set(keys)) == 1


@pytest.mark.parametrize(("per_side", "begin"), [(1, "2 members, 1 step, 1.5 s"), (2, "2 members, 1 step, 2×2 tiles,")])
def test_a_result_of_tiles_says_so(per_side: int, begin: str) -> None:
    settings = Settings(num_inference_steps=1, ensemble_size=2, tiles_per_side=per_side).resolved(1, 64)
    assert summary(replace(prediction(2), settings=settings), 1.5).startswith(begin)


def test_states_come_at_most_so_often_and_begin_with_the_first_member(
    controller: RunController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_controller, "STATE_S", 60.0)
    updates = [update for update in controller.run_job(job(10), {}) if update]
    assert [controller.result in update for update in updates] == [
        False,
        False,
        True,
        True,
    ]  # begun, a step, two results
    assert shown_members(controller, updates[-1]) == 10


def test_states_that_take_long_come_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(run_controller, "perf_counter", lambda: clock[0])
    pace = run_controller.Pace()
    for spent_s, after_s in ((0.01, 0.5), (0.2, 2.0)):
        assert pace.is_due
        pace.wait(spent_s)
        clock[0] += after_s - 0.01
        assert not pace.is_due
        clock[0] += 0.02


def test_members_that_were_not_shown_yet_are_the_result_of_a_job_that_ends_early(
    controller: RunController, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> Iterator[Prediction]:
        yield from map(prediction, (1, 2, 3))
        raise SettingsError("Too much for one run.")

    monkeypatch.setattr(run_controller, "STATE_S", 60.0)
    monkeypatch.setattr(controller.service, "run", breaks)
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    shown = []
    with pytest.raises(gr.Error, match="Too much"):
        for update in controller.reported(controller.run_job(job(5), values), values):
            values |= update
            shown += [shown_members(controller, update)] if controller.result in update else []
    assert shown == [1, 3]


def test_a_stopped_job_leaves_the_members_it_had(controller: RunController) -> None:
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    following = controller.reported(controller.run_job(job(5), values), values)
    for update in following:
        values |= update
        if controller.result in update and shown_members(controller, update) == 2:
            following.close()
    key = values[controller.result]
    noted = replace(controller.service.prediction(key), note="The file holds several pictures.")
    ended = press_stop(controller, {**values, controller.result: controller.service.keep(noted, key)})
    assert shown_members(controller, ended) == 2
    assert "2 members. The file holds several pictures." in str(ended[controller.status])
    assert text.STOPPED_WITH.format(members="2 members") in str(ended[controller.status])


def test_a_job_stopped_before_its_first_member_leaves_the_result_before_it(controller: RunController) -> None:
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    following = controller.reported(controller.run_job(job(5), values), values)
    next(following)
    following.close()
    assert press_stop(controller, values)[controller.result] is None
    values |= controller.show_result(prediction(4), "", values)
    following = controller.reported(controller.run_job(job(5), values), values)
    values |= next(following)
    following.close()
    assert shown_members(controller, press_stop(controller, values)) == 4


def test_what_is_picked_during_a_job_stays_and_ends_it(controller: RunController) -> None:
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    picked = partial(controller.show_result, prediction(7), "Picked.", values)
    following = controller.reported(controller.run_job(job(5), values), values)
    for update in following:
        values |= {widget: value for widget, value in update.items() if value is not NO_CHANGE}
        if controller.result in update:
            values |= controller.pick(picked, values)
    assert update == {controller.status: NO_CHANGE}  # which Gradio shows once more at the end
    assert shown_members(controller, values) == 7 and "Picked." in str(values[controller.status])
    assert press_stop(controller, values) == {controller.status: NO_CHANGE}  # which Gradio calls when it ends it first


def test_a_job_ends_when_another_one_begins_whether_or_not_it_fails_then(controller: RunController) -> None:
    def failing() -> Generator[Update]:
        yield controller.idle("")
        raise SettingsError("Too much for one run.")

    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    for before in (controller.run_job(job(5), values), failing()):
        earlier = controller.reported(before, values)
        next(earlier)
        later = controller.reported(controller.run_job(job(2), values), values)
        next(later)
        assert list(earlier) == [{controller.status: NO_CHANGE}]
        assert shown_members(controller, list(later)[-1]) == 2


@pytest.mark.parametrize("photo", ["same.png", "other.png", None])
def test_another_photo_ends_the_job_of_the_one_before_it(controller: RunController, photo: str | None) -> None:
    current = CurrentJob()
    values: dict[Any, Any] = {controller.result: None, controller.current: current}
    following = controller.reported(controller.run_job(job(5), values), values, "same.png")
    next(following)
    current.ask(photo)
    is_other = photo != "same.png"
    assert (list(following) == [{controller.status: NO_CHANGE}]) == is_other
    assert current.take() == ((photo,) if is_other else None)
    assert current.take() is None  # two clicks are one run


def test_a_photo_that_is_taken_out_ends_its_job_and_may_come_again_at_once(controller: RunController) -> None:
    current = CurrentJob(shown="same.png")
    values: dict[Any, Any] = {controller.result: None, controller.current: current}
    following = controller.reported(controller.run_job(job(5), values), values, "same.png")
    for update in following:
        values |= {widget: value for widget, value in update.items() if value is not NO_CHANGE}
        if update.get(controller.result) and shown_members(controller, update) == 2:
            values |= press_stop(controller, values)
    assert shown_members(controller, values) == 2
    assert text.STOPPED_WITH.format(members="2 members") in str(values[controller.status])
    assert values[controller.actions.run].constructor_args["interactive"]
    assert press_stop(controller, values) == {controller.status: NO_CHANGE}  # a finished result stays
    current.ask("same.png")
    assert current.take() == ("same.png",)


def test_only_the_photo_that_was_asked_for_last_is_run() -> None:
    current = CurrentJob()
    current.ask("first.png")
    current.ask("second.png")
    assert current.take() == ("second.png",) and current.take() is None


@pytest.mark.parametrize("later", ["pick", "end", "job"])
def test_a_run_that_was_asked_for_before_something_else_does_not_begin(controller: RunController, later: str) -> None:
    """The browser sends a run only once the server has heard that it is asked for, so that both may come between."""
    current = CurrentJob()
    values: dict[Any, Any] = {controller.result: None, controller.current: current}
    current.ask("photo.png")
    if later == "pick":
        controller.pick(lambda: {}, values)
    elif later == "end":
        press_stop(controller, values)
    else:
        list(controller.reported(controller.run_job(job(1), values), values))
    assert current.take() is None
    current.ask("photo.png")
    assert current.take() == ("photo.png",)


def test_a_photo_taken_out_before_its_run_has_begun_leaves_no_stop(controller: RunController) -> None:
    """It has ended the job before it, which leaves the page to it."""
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    following = controller.reported(controller.run_job(job(5), values), values, "before.png")
    next(following)
    values[controller.current].ask("photo.png")
    assert list(following) == [{controller.status: NO_CHANGE}]
    ended = press_stop(controller, values)
    assert text.STOPPED in str(ended[controller.status])
    assert not ended[controller.actions.stop].constructor_args["interactive"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_pick_that_takes_long_leaves_what_was_asked_for_meanwhile(
    controller: RunController, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    current = CurrentJob()
    values: dict[Any, Any] = {controller.result: None, controller.current: current}
    following = controller.reported(controller.run_job(job(2), values), values)
    next(following)

    def slow() -> Update:
        current.ask("photo.png")
        return controller.show_result(prediction(7), "Picked.", values)

    monkeypatch.setattr(controller, "stopped", lambda *_: slow())  # which shows what the job had reached
    assert (press_stop(controller, values) if ended else controller.pick(slow, values)) == {
        controller.status: NO_CHANGE
    }
    assert list(following) == [{controller.status: NO_CHANGE}]
    assert current.take() == ("photo.png",)


def test_the_photo_of_a_run_is_the_one_in_the_input_also_after_a_pick(controller: RunController) -> None:
    """The browser may hear of the example that was picked before only once a photo was added."""
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    values |= controller.fill_photo("example.jpg", values)
    for expected in ("photo.png", "example.jpg"):  # once
        begun = next(controller.take("photo.png", values))
        assert {**values, **begun}[controller.photo] == expected


def test_a_pick_that_fails_leaves_no_job(controller: RunController) -> None:
    def fails() -> Update:
        raise gr.Error("It is gone.")

    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    with pytest.raises(gr.Error, match="gone"):
        controller.pick(fails, values)
    assert values[controller.current].identity is None


@pytest.mark.parametrize(("photo", "kept"), [("same.png", True), ("other.png", False), ("", True)])
def test_a_job_stopped_while_its_photo_is_read_leaves_no_map_of_another_one(
    controller: RunController, photo: str, kept: bool
) -> None:
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    values |= controller.show_result(prediction(4), "", values)
    values[controller.current].shown = "same.png"

    def begun() -> Generator[Update]:
        yield from controller.take(PHOTO, values)

    next(controller.reported(begun(), values, photo))
    assert (press_stop(controller, values)[controller.result] is not None) == kept


# ------------------------------------------------------------------------------- beside which photo


def taken(controller: RunController, source: str | Photo, values: dict[Any, Any]) -> None:
    """Begin a job with a photo, as the page does, and let the page hold what that changes."""

    def job() -> Generator[Update]:
        yield from controller.take(source, values)

    for update in controller.reported(job(), values):
        values |= update


def test_a_result_leaves_with_its_photo_and_stays_with_it(controller: RunController) -> None:
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob(), controller.photo: "same.png"}
    values |= controller.show_result(prediction(4), "", values)
    taken(controller, PHOTO, values)
    assert shown_members(controller, values) == 4
    taken(controller, Photo(PHOTO.pixels + np.uint8(1), None, None), values)
    assert values[controller.result] is None


def test_a_photo_that_cannot_be_read_says_why_and_leaves_nothing_old(controller: RunController, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob(), controller.photo: "text.jpg"}
    values |= controller.show_result(prediction(4), "", values)
    with pytest.raises(gr.Error, match="not a photo that can be read"):
        taken(controller, str(tmp_path / "text.jpg"), values)
    assert values[controller.result] is None and values[controller.photo] is None
    assert "not a photo that can be read" in str(values[controller.status])
    assert values[controller.actions.run].constructor_args["interactive"]


def test_any_other_failure_keeps_the_result_and_says_why(controller: RunController) -> None:
    def failing() -> Generator[Update]:
        yield {controller.result: controller.service.keep(prediction(2))}
        raise SettingsError("Too much for one run.")

    values: dict[Any, Any] = {controller.result: None, controller.current: CurrentJob()}
    with pytest.raises(gr.Error, match="Too much"):
        for update in controller.reported(failing(), values):
            values |= update
    assert shown_members(controller, values) == 2
    assert "Too much for one run." in str(values[controller.status])
    assert press_stop(controller, values) == {controller.status: NO_CHANGE}  # after a failure


@pytest.mark.parametrize("chosen", [False, True])
def test_early_stopping_is_the_controllers_and_holds_for_a_photo_where_it_is_chosen(
    controller: RunController, chosen: bool
) -> None:
    values = {controller.early_stopping: chosen, controller.threshold: 1.0}
    *_, ended = controller.run_photo(PHOTO, job(10).settings, "nano", values)  # its members are all the same
    assert shown_members(controller, ended) == (MIN_MEMBERS if chosen else 10)
    assert (f"Stopped after {MIN_MEMBERS} of 10 members" in str(ended[controller.status])) == chosen


def test_members_are_added_to_the_result_on_show_up_to_the_most_there_may_be(controller: RunController) -> None:
    values = {controller.result: None, controller.early_stopping: True, controller.threshold: 1.0}
    with pytest.raises(ExportError, match=text.NO_RESULT):
        next(controller.add_members(5, values))
    for members, expected in ((4, 9), (MOST_MEMBERS - 2, MOST_MEMBERS)):
        values |= controller.show_result(prediction(members), "", values)
        updates = controller.add_members(5, values)
        seen = [shown_members(controller, update) for update in updates if controller.result in update]
        assert seen == [*range(members + 1, expected + 1)]
