"""The screen for videos: frames are jobs of the service, and what is stopped goes on where it was.

What is known of a clip lies in a folder under an id that cannot be guessed, which the browser keeps: there any process
finds it after a reload.
"""

import json
import os
import re
import secrets
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import cast

import gradio as gr
from gradio.utils import get_upload_folder

from marigold_core.comparison.sweep import format_seconds
from marigold_core.errors import VideoError
from marigold_core.prediction import Progress
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import WAIT_S, Service
from marigold_core.serving.video import MOST_FRAMES, SharedPredictor, check_clip, run_clip, shared_predictor
from marigold_core.ui import text
from marigold_core.ui.controls.settings import draw_checkpoint, draw_presets, preset_settings
from marigold_core.ui.events import LONG, on
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.photo_input import PhotosInput
from marigold_core.ui.pictures import file_address
from marigold_core.ui.run_controller import JobTab, Pace, Update, Values, progress_line, status_line
from marigold_core.ui.templates import render
from marigold_core.ui.text import video as video_text
from marigold_core.video.settings import CLIPS, RECORD, UNFINISHED, VideoSettings

VIDEO = VideoSettings(video_formats=("side_by_side", "color", "grey"))
EMPTY = f"<div class='lab-empty'><p>{video_text.EMPTY.format(most=MOST_FRAMES)}</p></div>"


class VideoScreen(JobTab):
    """The clip and the choices, and the clips that are made."""

    queue = LONG

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        super().__init__(service)
        self.running = dict[str, tuple[object, ...]]()  # ids of clips that are being made, and of what
        with gr.Row(elem_id="video", equal_height=False, elem_classes="lab"):
            with gr.Column(scale=0, min_width=340, elem_id="video-controls"):
                self.clip = PhotosInput(label=video_text.CLIP, height=160, elem_id="video-clip")
                self.preset = draw_presets("fast")
                self.actions = JobButtons(video_text.RUN, "video-")
                self.checkpoint = draw_checkpoint("choices")
            with gr.Column(scale=1, min_width=320, elem_id="video-results"):
                self.status = gr.HTML(status_line(video_text.READY), elem_id="video-status")
                self.made = gr.HTML(EMPTY, apply_default_css=False, elem_id="video-made")

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; outside the tabs, as what is in a closed one is not there when the page is loaded."""
        self.browser = gr.BrowserState(None, storage_key="marigold-video", secret="marigold")  # id, after a reload
        at_rest = [self.status, *self.actions.outputs]
        given = {self.preset, self.checkpoint}
        changed = [self.result, self.browser, self.made, *at_rest]
        on(page.load, self.on_load, self.browser, [self.result, self.made, *at_rest])
        self.connect_job(self.on_run, [self.actions.run.click], self.clip, given, changed)

    def on_run(self, clip: list[str] | None, values: Values) -> Generator[Update]:
        """Predict frame after frame; what is done is kept when it is stopped."""
        if not clip:
            raise VideoError(video_text.NO_CLIP)
        source, preset = clip[0], values[self.preset]
        checkpoint = check_checkpoint(values[self.checkpoint])
        check_clip(source)
        made_of, work = (source, preset, checkpoint), values[self.result]
        at_it = self.running.get(work)
        if not (at_it == made_of if at_it else work and _is_unfinished(_folder(work))):
            work = secrets.token_hex(16)
        yield {
            self.result: work,
            self.browser: work,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            self.made: EMPTY,
        }
        while self.running.setdefault(work, made_of) is not made_of:  # another page is at it, or a stopped job ends
            yield {self.status: status_line(video_text.GOES_ON, -1)}
            sleep(WAIT_S)
        try:
            folder = _folder(work)
            yield from [self._done(folder)] if (folder / RECORD).exists() else self._frames(folder, *made_of)
        finally:
            del self.running[work]

    def _frames(self, folder: Path, source: str, preset: str, checkpoint: str) -> Generator[Update]:
        settings, pace = preset_settings(preset, checkpoint), Pace()
        predictor = yield from self._loaded(checkpoint, pace)
        began = since = perf_counter()
        first, last = None, 0
        with closing(run_clip(predictor, source, folder, settings, VIDEO)) as events:
            for event in events:
                if isinstance(event, Progress):
                    if first is None or event.done < last:  # the frames of the next file are counted anew
                        first, since = event.done, perf_counter()
                    last = event.done
                    if pace.is_due:
                        yield {self.status: _progress(event, first, perf_counter() - since)}
                        pace.wait(0)
                    else:
                        yield {}
                else:
                    yield self._done(event.folder, perf_counter() - began)

    def _loaded(self, checkpoint: str, pace: Pace) -> Generator[Update, None, SharedPredictor]:
        """Load the checkpoint unless it is loaded, telling how far that is."""
        loading = shared_predictor(self.service, checkpoint)
        while True:
            try:
                event = next(loading)
            except StopIteration as end:
                return end.value
            if pace.is_due:
                yield {self.status: progress_line(event, stale=False)}
                pace.wait(0)
            else:
                yield {}

    def _done(self, folder: Path, seconds: float | None = None) -> Update:
        """Show what was made, by the record in its folder, and the seconds that it took where they are known."""
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        clips = [(video_text.CLIPS[name], file_address(folder / CLIPS[name])) for name in VIDEO.video_formats]
        made = text.count(record["frames"], "frame"), text.count(record["scenes"], "scene")
        time = () if seconds is None else (video_text.TIME.format(time=format_seconds(seconds)),)
        sentence = " ".join([f"{', '.join(made + time)}.", *record["notes"]])
        return {**self.idle(sentence), self.made: render("clip", clips=clips)}

    def on_load(self, work: object) -> Update:
        """Bring back the clip of this browser, also one that another process has begun, as long as it is kept."""
        if isinstance(work, str) and re.fullmatch("[0-9a-f]{32}", work):
            folder = _folder(work)
            with suppress(OSError, ValueError):  # it is gone
                os.utime(folder)  # a use: what is not used is cleared
                if work in self.running or _is_unfinished(folder):
                    sentence = video_text.GOES_ON if work in self.running else video_text.STOPPED
                    return {self.result: work, **self.idle(sentence)}
                return {self.result: work, **self._done(folder)}
        return {self.result: None}

    def read_at_once(self, source: object) -> list[str]:
        """List the clip, of which a large frame takes as much as a large photo."""
        return cast(list[str], source) if isinstance(source, list) else []

    def stopped(self, result: str | None, values: Values) -> Update:
        """Write that it was stopped."""
        return self.idle(video_text.STOPPED)

    def rest(self, result: str | None, sentence: str, values: Values) -> Update:
        """Write how it ended."""
        return self.idle(sentence)


def _is_unfinished(folder: Path) -> bool:
    """Tell what goes on from what is finished, beside which a kill may leave its maps."""
    return (folder / UNFINISHED).exists() and not (folder / RECORD).exists()


def _folder(work: str) -> Path:
    return Path(get_upload_folder()) / work


def _progress(event: Progress, first: int, seconds: float) -> str:
    """Draw the status line: the frame, and how long those that are left take."""
    sentence, through = text.capital(event.stage), event.done - first
    if through > 0 and event.total:
        left = format_seconds(seconds / through * (event.total - event.done))
        sentence = video_text.LEFT.format(stage=sentence, time=left)
    return status_line(sentence, event.done / event.total if event.total else -1)
