"""The screen for videos: frames are jobs of the service, and what is stopped goes on where it was.

What is known of a clip lies in a folder under an id that cannot be guessed, which the browser keeps: there any process
finds it after a reload.
"""

import json
import os
import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter

import gradio as gr
from gradio.utils import get_upload_folder

from marigold_core.comparison.sweep import format_seconds
from marigold_core.errors import VideoError
from marigold_core.prediction import Progress
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import Service
from marigold_core.serving.video import MOST_FRAMES, SharedPredictor, check_clip, run_clip, shared_predictor
from marigold_core.ui import text
from marigold_core.ui.controls.settings import draw_checkpoint, draw_presets, preset_settings
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LIGHT, MODEL, NO_CHANGE, QUIET, on
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.photo_input import PhotosInput
from marigold_core.ui.pictures import file_address
from marigold_core.ui.run_controller import Pace, Update, Values, progress_line, status_line
from marigold_core.ui.templates import render
from marigold_core.ui.text import video as video_text
from marigold_core.video.settings import CLIPS, RECORD, UNFINISHED, VideoSettings

VIDEO = VideoSettings(video_formats=("side_by_side", "color", "grey"))
EMPTY = f"<div class='lab-empty'><p>{video_text.EMPTY.format(most=MOST_FRAMES)}</p></div>"


class VideoScreen:
    """The clip and the choices, and the clips that are made."""

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        self.service = service
        self.running = set[str]()  # ids of clips that are being made
        self.work = gr.State(None)  # id of the clip on show
        self.failed = gr.State(False)  # whether it ended with an error, whose reason is in the status line
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
        given = {self.clip, self.preset, self.checkpoint, self.work}
        changed = [self.work, self.browser, self.failed, self.made, *at_rest]
        on(page.load, self.on_load, self.browser, [self.work, self.made, *at_rest])
        job = on(self.actions.run.click, self.on_run, given, changed, MODEL, trigger_mode="once")
        on([self.actions.stop.click, self.clip.clear], None, None, None, cancels=[job])
        # A job that is cancelled goes on for a moment, so it is told to have stopped when it has.
        job.failure(self.on_stop, self.failed, at_rest, **LIGHT, **QUIET)

    def on_run(self, values: Values) -> Iterator[Update]:
        """Predict frame after frame; Gradio closes this to stop it, and what is done is kept."""
        work: str | None = values[self.work]
        if work is None or work in self.running or not (_folder(work) / UNFINISHED).exists():
            work = secrets.token_hex(16)
        self.running.add(work)
        try:
            with translate_errors(), closing(self._run(values, work)) as updates:
                yield from updates
        except gr.Error as error:
            yield {**self._rest(error.message), self.failed: True}
            raise
        finally:
            self.running.discard(work)

    def _run(self, values: Values, work: str) -> Generator[Update]:
        if not values[self.clip]:
            raise VideoError(video_text.NO_CLIP)
        source, preset = values[self.clip][0], values[self.preset]
        checkpoint = check_checkpoint(values[self.checkpoint])
        check_clip(source)
        yield {
            self.work: work,
            self.browser: work,
            self.failed: False,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            self.made: EMPTY,
        }
        settings, pace = preset_settings(preset, checkpoint), Pace()
        predictor = yield from self._loaded(checkpoint, pace)
        began = since = perf_counter()
        first, last = None, 0
        with closing(run_clip(predictor, source, _folder(work), settings, VIDEO)) as events:
            for event in events:
                if isinstance(event, Progress):
                    if first is None or event.done < last:  # the frames of the next file are counted anew
                        first, since = event.done, perf_counter()
                    last = event.done
                    if pace.is_due:
                        yield {self.status: _progress(event, first, perf_counter() - since)}
                        pace.wait(0)
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

    def _done(self, folder: Path, seconds: float | None = None) -> Update:
        """Show what was made, by the record in its folder, and the seconds that it took where they are known."""
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        clips = [(video_text.CLIPS[name], file_address(folder / CLIPS[name])) for name in VIDEO.video_formats]
        made = text.count(record["frames"], "frame"), text.count(record["scenes"], "scene")
        time = () if seconds is None else (video_text.TIME.format(time=format_seconds(seconds)),)
        sentence = " ".join([f"{', '.join(made + time)}.", *record["notes"]])
        return {**self._rest(sentence), self.made: render("clip", clips=clips)}

    def on_load(self, work: object) -> Update:
        """Bring back the clip of this browser, also one that another process has begun, as long as it is kept."""
        if isinstance(work, str) and re.fullmatch("[0-9a-f]{32}", work):
            folder = _folder(work)
            with suppress(OSError, ValueError):  # it is gone
                os.utime(folder)  # a use: what is not used is cleared
                is_unfinished = (folder / UNFINISHED).exists()
                return {self.work: work, **(self._rest(video_text.STOPPED) if is_unfinished else self._done(folder))}
        return {self.work: None}

    def on_stop(self, failed: bool) -> Update:
        """Write that it was stopped; one that failed has already said why."""
        return {self.status: NO_CHANGE} if failed else self._rest(video_text.STOPPED)

    def _rest(self, sentence: str) -> Update:
        return {
            self.status: status_line(sentence),
            **self.actions.ended(),
        }


def _folder(work: str) -> Path:
    return Path(get_upload_folder()) / work


def _progress(event: Progress, first: int, seconds: float) -> str:
    """Draw the status line: the frame, and how long those that are left take."""
    sentence, through = text.capital(event.stage), event.done - first
    if through > 0 and event.total:
        left = format_seconds(seconds / through * (event.total - event.done))
        sentence = video_text.LEFT.format(stage=sentence, time=left)
    return status_line(sentence, event.done / event.total if event.total else -1)
