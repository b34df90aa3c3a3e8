"""The screen for videos: frames are jobs of the service, and what is stopped goes on where it was."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

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
from marigold_core.video.settings import VideoSettings

if TYPE_CHECKING:
    from marigold_core.video.convert import VideoResult

VIDEO = VideoSettings(video_formats=("side_by_side", "color", "grey"))
EMPTY = f"<div class='lab-empty'><p>{video_text.EMPTY.format(most=MOST_FRAMES)}</p></div>"


@dataclass(frozen=True)
class Work:
    """A clip and its choices, and the folder of its files."""

    clip: str
    preset: str | None
    checkpoint: str
    folder: Path

    def same(self, clip: str, preset: str | None, checkpoint: str) -> bool:
        """Whether it is of this clip and these choices, and can go on."""
        return (self.clip, self.preset, self.checkpoint) == (clip, preset, checkpoint) and self.is_unfinished

    @property
    def is_unfinished(self) -> bool:
        """Whether it was stopped on its way."""
        return (self.folder / "unfinished").exists()


class VideoScreen:
    """The clip and the choices, and the clips that are made."""

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        self.service = service
        self.work = gr.State(None)
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

    def connect(self) -> None:
        """Wire the events."""
        at_rest = [self.status, *self.actions.outputs]
        given = {self.clip, self.preset, self.checkpoint, self.work}
        changed = [self.work, self.failed, self.made, *at_rest]
        job = on(self.actions.run.click, self.on_run, given, changed, MODEL, trigger_mode="once")
        on([self.actions.stop.click, self.clip.clear], None, None, None, cancels=[job])
        # A job that is cancelled goes on for a moment, so it is told to have stopped when it has.
        job.failure(self.on_stop, self.failed, at_rest, **LIGHT, **QUIET)

    def on_run(self, values: Values) -> Iterator[Update]:
        """Predict frame after frame; Gradio closes this to stop it, and what is done is kept."""
        try:
            with translate_errors(), closing(self._run(values)) as updates:
                yield from updates
        except gr.Error as error:
            yield {**self._rest(error.message), self.failed: True}
            raise

    def _run(self, values: Values) -> Generator[Update]:
        if not values[self.clip]:
            raise VideoError(video_text.NO_CLIP)
        source, preset = values[self.clip][0], values[self.preset]
        checkpoint = check_checkpoint(values[self.checkpoint])
        check_clip(source)
        work: Work | None = values[self.work]
        if work is None or not work.same(source, preset, checkpoint):
            work = Work(source, preset, checkpoint, Path(get_upload_folder()) / secrets.token_hex(16))
        yield {
            self.work: work,
            self.failed: False,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            self.made: EMPTY,
        }
        settings, pace = preset_settings(preset, checkpoint), Pace()
        predictor = yield from self._loaded(checkpoint, pace)
        began = since = perf_counter()
        first, last = None, 0
        with closing(run_clip(predictor, source, work.folder, settings, VIDEO)) as events:
            for event in events:
                if isinstance(event, Progress):
                    if first is None or event.done < last:  # the frames of the next file are counted anew
                        first, since = event.done, perf_counter()
                    last = event.done
                    if pace.is_due:
                        yield {self.status: _progress(event, first, perf_counter() - since)}
                        pace.wait(0)
                else:
                    yield self._done(event, perf_counter() - began)

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

    def _done(self, made: "VideoResult", seconds: float) -> Update:
        """Show what was made."""
        clips = [
            (label, file_address(made.files[name])) for name, label in video_text.CLIPS.items() if name in made.files
        ]
        sentence = video_text.DONE.format(
            frames=text.count(made.frames, "frame"),
            scenes=text.count(made.scenes, "scene"),
            time=format_seconds(seconds),
            notes=" ".join(made.notes),
        )
        return {**self._rest(sentence.strip()), self.made: render("clip", clips=clips), self.work: None}

    def on_stop(self, failed: bool) -> Update:
        """Write that it was stopped; one that failed has already said why."""
        return {self.status: NO_CHANGE} if failed else self._rest(video_text.STOPPED)

    def _rest(self, sentence: str) -> Update:
        return {
            self.status: status_line(sentence),
            **self.actions.ended(),
        }


def _progress(event: Progress, first: int, seconds: float) -> str:
    """Draw the status line: the frame, and how long those that are left take."""
    sentence, through = text.capital(event.stage), event.done - first
    if through > 0 and event.total:
        left = format_seconds(seconds / through * (event.total - event.done))
        sentence = video_text.LEFT.format(stage=sentence, time=left)
    return status_line(sentence, event.done / event.total if event.total else -1)
