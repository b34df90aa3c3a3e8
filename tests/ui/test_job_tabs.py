"""Comparisons, batches and clips without a browser: which job a Stop means, and what it leaves."""

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from marigold_core.serving import jobs
from marigold_core.serving.jobs import Service
from marigold_core.ui import run_controller
from marigold_core.ui.events import NO_CHANGE
from marigold_core.ui.photo_input import draw_photo
from marigold_core.ui.run_controller import CurrentJob, JobTab, Update
from marigold_core.ui.screens.batch import BatchScreen
from marigold_core.ui.screens.compare import CompareScreen
from marigold_core.ui.screens.video import VideoScreen
from tests.helpers.clips import scene, write_clip
from tests.helpers.presses import press_stop

TABS = ("compare", "batch", "video")


@pytest.fixture
def service(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "work"))
    monkeypatch.setattr(run_controller, "STATE_S", 0.0)  # every step is told
    monkeypatch.setattr(run_controller, "STATE_SHARE", float("inf"))
    service = Service(tmp_path / "work" / "results")
    yield service
    service.close()


def tab_of(name: str, service: Service, tiny: Path, photos: list[Path], clip: Path) -> tuple[Any, Any, dict[Any, Any]]:
    """Draw a tab -> it, what is put into it, and what its widgets hold."""

    async def draw() -> Any:  # in a loop that is closed again
        with gr.Blocks() as page:
            if name == "compare":
                screen = CompareScreen(service)
                screen.connect(page, gr.Tab("Compare"), draw_photo(), gr.State(None))
            else:
                screen = (BatchScreen if name == "batch" else VideoScreen)(service)
                screen.connect(page)
        return screen

    tab: Any = asyncio.run(draw())
    held: dict[Any, Any] = {tab.current: CurrentJob(), tab.result: None}
    if name == "compare":
        axes = {tab.steps: [1], tab.sizes: [1, 2], tab.seeds: [0, 1], tab.checkpoints: [str(tiny)], tab.resolution: 64}
        held |= {**axes, tab.views: "photo", tab.shown: "maps", tab.colormap: "Spectral", tab.given: None}
        return tab, str(photos[0]), held
    held |= {tab.preset: "fast", tab.checkpoint: str(tiny)}
    return (tab, [str(clip)], held) if name == "video" else (tab, [*map(str, photos)], held | {tab.formats: ["npy"]})


@pytest.fixture(params=TABS)
def tab(
    request: pytest.FixtureRequest, service: Service, tiny_depth: Path, folder: Path, write
) -> tuple[JobTab, Any, dict[Any, Any]]:
    place = scene(0)
    clip = write_clip(folder / "clip.mp4", [place.window(place.picture, number) for number in range(3)])
    photos = [write(folder / f"{number}.png", seed=number) for number in range(3)]
    return tab_of(request.param, service, tiny_depth, photos, clip)


def test_a_comparison_comes_back_with_its_photo_and_a_bad_one_leaves_its_box(
    service: Service, tiny_depth: Path, folder: Path, write
) -> None:
    """What the browser does with these it does where the box still holds that photo."""
    photo, bad = write(folder / "0.png"), folder / "text.png"
    tab, source, held = tab_of("compare", service, tiny_depth, [photo], folder / "none.mp4")
    first, *_ = tab.on_run(source, held)
    result, unseen, (example, value) = tab.on_load(first[tab.result])
    assert (result, unseen, value["path"], Path(example).name) == (first[tab.result], True, source, "street.jpg")
    photo.unlink()
    assert tab.on_load(first[tab.result])[2] == [example, None]
    bad.write_text("no photo")
    assert next(tab.on_run(str(bad), held))[tab.instead] == [str(bad), None]


def begun(tab: Any, source: Any, held: dict[Any, Any]) -> Generator[Update]:
    """Press Run, as the page does, and go on until the job has something to show of itself."""
    held[tab.current].ask(source)
    (wanted,) = held[tab.current].take()
    updates = tab.reported(tab.on_run(wanted, held), held, wanted)
    for update in updates:
        held |= real(update)
        if tab.actions.run in update:
            return updates
    raise AssertionError("it ended before it began")


def real(update: Update) -> Update:
    return {widget: value for widget, value in update.items() if value is not NO_CHANGE}


def is_at_rest(tab: JobTab, held: dict[Any, Any]) -> bool:
    return held[tab.actions.run].constructor_args["interactive"]


def test_stop_ends_the_job_that_goes_on_and_a_new_one_does_what_is_left(tab: Any) -> None:
    tab, source, held = tab
    updates = begun(tab, source, held)
    held |= real(next(updates))
    assert not is_at_rest(tab, held)
    held |= real(press_stop(tab, held))
    assert is_at_rest(tab, held) and "Stopped" in held[tab.status]
    for update in updates:  # it has ended at once, and says what it had still reached
        held |= real(update)
    assert is_at_rest(tab, held) and "Stopped" in held[tab.status]
    again = begun(tab, source, held)
    for update in again:
        held |= real(update)
    assert is_at_rest(tab, held) and "Stopped" not in held[tab.status]


def test_a_stop_as_a_job_ends_by_itself_ends_no_later_one(tab: Any) -> None:
    tab, source, held = tab
    for update in begun(tab, source, held):
        held |= real(update)
    assert press_stop(tab, held) == {tab.status: NO_CHANGE}
    later = begun(tab, source, held)
    assert real(next(later)) and not is_at_rest(tab, held)
    later.close()


def test_a_job_that_was_stopped_changes_nothing_once_the_next_one_has_begun(tab: Any) -> None:
    tab, source, held = tab
    earlier = begun(tab, source, held)
    held |= real(press_stop(tab, held))
    held[tab.current].ask(source)  # which is heard before the job has ended
    assert list(earlier) == [{tab.status: NO_CHANGE}]
    assert held[tab.current].take() == (source,)


def test_a_stop_that_is_answered_late_ends_nothing_that_was_asked_for_since(tab: Any) -> None:
    tab, source, held = tab
    earlier = begun(tab, source, held)
    held[tab.current].halt()
    held[tab.current].ask(source)  # the same once more, which a job under way would have taken for its own
    assert tab.end(held) == {tab.status: NO_CHANGE}
    assert list(earlier) == [{tab.status: NO_CHANGE}]
    assert held[tab.current].take() == (source,)


def test_a_large_photo_waits_for_room(tab: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch each photo does, and what holds no photo does not."""
    tab, source, held = tab
    monkeypatch.setattr(jobs, "LARGE_PIXELS", 1)
    photo = Path(source if isinstance(source, str) else source[0])
    others = [service.admit([photo], iter([1, 2])) for _ in range(2)]
    assert isinstance(tab, VideoScreen) or [next(one) for one in others] == [1, 1]
    held[tab.current].ask(source)
    (wanted,) = held[tab.current].take()
    updates = tab.reported(tab.on_run(wanted, held), held, wanted)
    told = ""
    for update in updates:
        held |= real(update)
        told += str(update.get(tab.status, ""))
        if "aiting: 2 jobs are before this one" in told or tab.actions.run in real(update) and is_at_rest(tab, held):
            break
    assert ("aiting: 2 jobs are before this one" in told) is not isinstance(tab, VideoScreen)


@pytest.mark.parametrize("tab", ["compare"], indirect=True)
def test_a_second_page_at_a_comparison_says_so_and_leaves_it_running(tab: Any) -> None:
    tab, source, held = tab
    updates = begun(tab, source, held)
    sweep = tab.service.comparison(held[tab.result])
    while not sweep.done:
        held |= real(next(updates))
    second = {**held, tab.unseen: True, tab.shown: "differences"}
    told = tab.on_open(second)[tab.status]
    assert "1 of 4 cells done, and another page of yours is at it" in told
    assert sweep.is_running and sweep.shows == "maps"
    updates.close()  # as the first page is left
    assert "Stopped after 1 of 4 cells" in tab.on_open(second)[tab.status] and not sweep.is_running
