"""The first screen: a photo and one button on the left, the result on the right."""

from collections.abc import Iterator
from functools import partial
from time import perf_counter

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from .. import examples
from ..errors import ImageError
from ..prediction import Prediction, Progress
from ..service import Service
from ..settings import Colormap
from . import text
from .events import LIGHT, MODEL, QUIET
from .faults import telling
from .inputs import check_checkpoint, draw_photo, draw_presets, draw_settings, settings
from .viewer import Update, Viewer

# Gradio draws example pictures without a name; screen readers and tests find them by these.
NAME_EXAMPLES_JS = f"""() => document.querySelectorAll('#examples button').forEach(
    (button, index) => button.setAttribute('aria-label', {list(examples.NAMES)}[index]))"""


class Studio:
    """Draws the screen into the current ``gr.Blocks`` and connects it to the service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        gr.HTML(f"<h1>{text.TITLE}</h1><p>{text.TAGLINE}</p>", elem_id="masthead")
        with gr.Row(elem_id="studio", equal_height=False):
            with gr.Column(scale=0, min_width=340, elem_id="controls"):
                self.photo = draw_photo()
                presets = draw_presets()
                with gr.Row(elem_id="actions"):
                    self.run = gr.Button(text.RUN, variant="primary", scale=3, elem_id="run")
                    self.stop = gr.Button(text.STOP, scale=1, min_width=80, interactive=False, elem_id="stop")
                self.inputs = draw_settings(presets)
                self.gallery = gr.Dataset(
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in examples.photos()],
                    label=text.EXAMPLES,
                    type="index",
                    samples_per_page=12,
                    elem_id="examples",
                )
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                self.status = gr.HTML(said(text.READY), elem_id="status")
                self.viewer = Viewer(service)

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; called once everything is drawn."""
        viewer = self.viewer
        outputs = [self.status, self.run, self.stop, viewer.result, *viewer.result_outputs]
        job = gr.on(
            [self.run.click, self.photo.upload],
            self.on_run,
            [self.photo, viewer.colormap, *self.inputs.values],
            outputs,
            trigger_mode="once",
            **MODEL,
            **QUIET,
        )
        viewer.scene_after(job)
        at_rest = [self.status, self.run, self.stop]
        self.stop.click(partial(self.rest, text.STOPPED), None, at_rest, cancels=[job], **LIGHT, **QUIET)
        job.failure(partial(self.rest, text.STOPPED), None, at_rest, **LIGHT, **QUIET)  # a message has said why
        shown = [self.status, viewer.result, *viewer.result_outputs]
        picked = self.gallery.click(
            self.on_example, [self.gallery, viewer.colormap], [self.photo, *shown], **LIGHT, **QUIET
        )
        viewer.scene_after(picked)
        opened = page.load(partial(self.show_example, 0), viewer.colormap, shown, **LIGHT, **QUIET)
        viewer.scene_after(opened)
        page.load(None, js=NAME_EXAMPLES_JS)

    def on_run(
        self,
        photo: str | None,
        colormap: Colormap,
        steps: int,
        members: int,
        resolution: int | str,
        seed: int,
        checkpoint: str,
    ) -> Iterator[Update]:
        """Run the model on the photo, showing every member as it comes; Gradio closes this to stop it."""
        with telling():
            if photo is None:
                raise ImageError(text.NO_PHOTO)
            asked = settings(steps, members, resolution, seed)
            check_checkpoint(checkpoint)
            yield {
                self.status: said(text.STARTING, 0, stale=True),
                self.run: gr.Button(interactive=False),
                self.stop: gr.Button(interactive=True),
            }
            began, result = perf_counter(), None
            for event in self.service.run(photo, asked, checkpoint):
                if isinstance(event, Progress):
                    yield {self.status: said_progress(event, stale=result is None)}
                else:
                    result = event
                    yield self.viewer.pictures(event, colormap)
            assert result is not None  # a run ends with its prediction or raises
            yield {
                **self.rest(summary(result, perf_counter() - began)),
                **self.viewer.finished(result),
                self.viewer.result: self.service.keep(result),
            }

    def on_example(self, index: int, colormap: Colormap) -> Update:
        """Put an example photo into the input and its stored result on show."""
        photo = save_file_to_cache(examples.photos()[index], self.photo.GRADIO_CACHE)  # where inputs may come from
        return {self.photo: photo, **self.show_example(index, colormap)}

    def show_example(self, index: int, colormap: Colormap) -> Update:
        """Show the stored result of an example photo."""
        with telling():
            prediction = examples.load_result(examples.photos()[index])
            return {
                self.status: said(text.EXAMPLE.format(name=prediction.checkpoint)),
                self.viewer.result: self.service.keep(prediction),
                **self.viewer.pictures(prediction, colormap),
                **self.viewer.finished(prediction),
            }

    def rest(self, sentence: str) -> Update:
        """Say how a job ended and make the buttons ready for the next."""
        return {
            self.status: said(sentence),
            self.run: gr.Button(interactive=True),
            self.stop: gr.Button(interactive=False),
        }


def said(sentence: str, share: float | None = None, *, stale: bool = False) -> str:
    """Draw the status line: a sentence, and while something runs a bar (``share`` in [0, 1], below 0 unknown).

    ``stale`` dims the pictures: they are still those of an earlier photo.
    """
    bar = ""
    if share is not None:
        bar = "<i class='endless'></i>" if share < 0 else f"<i style='width: {max(share, 0.02):.0%}'></i>"
    mark = " stale" if stale else ""
    return f"<div class='status{mark}' role='status'><span>{sentence}</span><b>{bar}</b></div>"


def said_progress(event: Progress, *, stale: bool) -> str:
    """Draw the status line for a progress event."""
    return said(text.capital(event.stage), event.done / event.total if event.total else -1, stale=stale)


def summary(prediction: Prediction, seconds: float) -> str:
    """Say what was made, from what, and how long it took."""
    height, width = prediction.photo.shape[:2]
    used = prediction.settings
    return text.DONE.format(
        members=text.count(used.ensemble_size, "member"),
        steps=text.count(used.num_inference_steps or 0, "step"),
        seconds=seconds,
        width=width,
        height=height,
        seed=used.seed,
        name=prediction.checkpoint,
    )
