"""How the events of the page are wired: the last of many quick presses and changes is answered, and once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.utils import diff

from marigold_core.serving.jobs import Service
from marigold_core.ui.events import NO_CHANGE, one_of_many
from marigold_core.ui.page import build

WIDGETS = {"change", "input", "select", "release", "blur", "stream"}  # events that come again before they are answered


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Describe every event of the page, as the browser is told."""

    async def draw() -> Any:  # in a loop that is closed again
        return build(service).config

    service = Service(tmp_path)
    yield asyncio.run(draw())["dependencies"]
    service.close()


def names(event: dict[str, Any]) -> set[str]:
    """Name what sets an event off: events of widgets, or "then" and the like of another event."""
    return {name for _, name in event["targets"]}


def test_no_event_of_the_page_is_cancelled_by_the_browser(wired: list[dict[str, Any]]) -> None:
    assert not [event for event in wired if event["cancels"]]


def test_what_a_widget_sets_off_is_never_put_off(wired: list[dict[str, Any]]) -> None:
    """Gradio's page then repeats everything that the widget sets off; two such handlers never come to rest."""
    late = [event for event in wired if event["backend_fn"] and event["trigger_mode"] == "always_last"]
    assert len(late) > 10 and [event for event in late if names(event) - {"then", "success"}] == []


def test_a_change_is_never_skipped_because_the_one_before_is_pending(wired: list[dict[str, Any]]) -> None:
    changes = [event for event in wired if event["backend_fn"] and names(event) & WIDGETS]
    assert changes and [event for event in changes if event["trigger_mode"] != "multiple"] == []


def test_every_download_has_a_place_of_its_own(wired: list[dict[str, Any]]) -> None:
    taken = [tuple(event["inputs"]) for event in wired if "download" in str(event["js"])]
    assert len(taken) > 20 and len(taken) == len({*taken})


def test_the_browser_keeps_a_file_that_the_update_after_it_leaves_as_it_is() -> None:
    """Gradio's client edits the objects of the update before; it lets a widget hold the value of an update alone."""
    photo, line, button = gr.Image(), gr.HTML(), gr.Button()
    given = {photo: "photo.png", line: "Begun.", button: gr.Button(interactive=False)}
    prepared = one_of_many(given)
    assert prepared[photo] == {"__type__": "update", "value": "photo.png"}
    assert (prepared[line], prepared[button]) == ("Begun.", given[button])
    assert one_of_many({photo: None}) == {photo: None}
    assert one_of_many({photo: NO_CHANGE}) == {photo: NO_CHANGE}
    held = {"path": "photo.png"}
    sent = {**prepared[photo], "value": held}
    for action, path, _ in diff(sent, NO_CHANGE):  # as the client does
        assert (action, path) == ("delete", ["value"])
    assert held == {"path": "photo.png"}
