"""The screen for videos without a browser: what is stopped goes on, and a clip is there after a reload."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from marigold_core.serving.jobs import Service
from marigold_core.ui import run_controller
from marigold_core.ui.screens.video import VideoScreen
from marigold_core.ui.text import video as video_text
from tests.helpers.clips import scene, write_clip

FRAMES = 4


class Counting(Service):
    """A service that counts the frames that it has predicted."""

    frames = 0

    def run(self, *photo: Any, **how: Any) -> Iterator[Any]:
        self.frames += 1
        return super().run(*photo, **how)


@pytest.fixture
def service(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    monkeypatch.setattr(run_controller, "STATE_S", 0.0)  # every step is told
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "work"))
    service = Counting(tmp_path / "work" / "results")
    yield service
    service.close()


def screen_of(service: Service) -> VideoScreen:
    async def draw() -> VideoScreen:  # in a loop that is closed again
        with gr.Blocks() as page:
            screen = VideoScreen(service)
            screen.connect(page)
        return screen

    return asyncio.run(draw())


def run(screen: VideoScreen, clip: Path, checkpoint: Path, work: str | None, preset: str = "fast") -> Any:
    return screen.on_run([str(clip)], {screen.preset: preset, screen.checkpoint: str(checkpoint), screen.result: work})


def test_a_stopped_clip_goes_on_in_another_process_and_is_there_after_a_reload(
    service: Counting, tiny_depth: Path, tmp_path: Path
) -> None:
    place = scene(0)
    frames = [place.window(place.picture, number) for number in range(FRAMES)]
    clip = write_clip(tmp_path / "clip.mp4", frames)
    screen = screen_of(service)
    updates = run(screen, clip, tiny_depth, None)
    work = next(updates)[screen.browser]
    while service.frames < 3:
        next(updates)
    second = run(screen, clip, tiny_depth, work)  # in another page: it waits
    assert next(second)[screen.result] == work
    assert (
        video_text.GOES_ON in next(second)[screen.status] and video_text.GOES_ON in screen.on_load(work)[screen.status]
    )
    second.close()
    assert next(run(screen, clip, tiny_depth, work, "careful"))[screen.result] != work  # this one's is not touched
    updates.close()

    service.frames = 0
    other = screen_of(service)
    back = other.on_load(work)
    assert back[other.result] == work and video_text.STOPPED in back[other.status]
    os.utime(clip, (5, 5))  # as an upload is touched that is in use, and one that is uploaded again
    *_, last = run(other, clip, tiny_depth, work)
    assert service.frames == FRAMES - 2
    assert f"{FRAMES} frames, 1 scene, in " in last[other.status] and last[other.made].count("<video") == 3
    again = screen_of(service)
    back = again.on_load(work)
    assert f"{FRAMES} frames, 1 scene." in back[again.status] and back[again.made] == last[other.made]
    *_, anew = run(again, clip, tiny_depth, work)
    assert anew[again.made] != last[other.made]  # what is done is not made in its place


@pytest.mark.parametrize("work", [None, "", "../results", "0" * 32, 7, ["a"]])
def test_what_is_no_clip_of_this_server_brings_nothing_back(work: object, service: Service) -> None:
    screen = screen_of(service)
    assert screen.on_load(work) == {screen.result: None}


def test_a_second_page_shows_the_clip_that_the_first_one_makes(
    service: Counting, tiny_depth: Path, tmp_path: Path
) -> None:
    place = scene(0)
    clip = write_clip(tmp_path / "clip.mp4", [place.window(place.picture, number) for number in range(2)])
    screen = screen_of(service)
    first = run(screen, clip, tiny_depth, None)
    work = next(first)[screen.result]
    assert next(first) is not None  # it is at it, and nothing is on the disk yet
    second = run(screen, clip, tiny_depth, work)
    next(second)
    assert video_text.GOES_ON in next(second)[screen.status]
    *_, made = first
    (shown,) = second
    assert shown[screen.made] == made[screen.made] and service.frames == 2
