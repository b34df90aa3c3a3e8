"""What the screens of a visit share: the result on show, and the one way in which a job's results reach them.

A screen draws its own part of the page and returns what changes in it with a new result. The controller brings the
result, be it from the model, an example, an earlier run or a manifest. Nothing but ``run_job`` waits for the model.
"""

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import Service
from marigold_core.ui import text

Update = dict[Component, object]
Values = Mapping[Component, Any]  # what the widgets hold that an event was given


class Screen(Protocol):
    """One part of the page; it draws itself into the current layout when it is made."""

    @property
    def inputs(self) -> list[Component]:
        """List the widgets whose values ``show`` and ``finish`` want to know."""
        ...

    @property
    def outputs(self) -> list[Component]:
        """List what ``show`` and ``finish`` may change."""
        ...

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Change what is quick with a prediction that may still gain members."""
        ...

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Change what waits for the last member."""
        ...

    def listen(self) -> None:
        """Wire the screen's own events; called once the whole page is drawn."""
        ...

    def after(self, event: Dependency) -> None:
        """Chain slow work, such as a mesh, to an event that has brought a new result."""
        ...


class RunController:
    """Keeps the result on show and hands new ones to every screen."""

    def __init__(self, service: Service) -> None:
        """Begin without a result; the studio draws the status line and the buttons and adds the screens."""
        self.service = service
        self.result = gr.State(None)  # id of the kept result on show
        self.screens: list[Screen] = []
        self.jobs: list[Dependency] = []  # events that hold the model, which Stop ends

    def draw_buttons(self) -> None:
        """Draw Run and Stop."""
        with gr.Row(elem_id="actions"):
            self.run = gr.Button(text.RUN, variant="primary", scale=3, elem_id="run")
            self.stop = gr.Button(text.STOP, scale=1, min_width=80, interactive=False, elem_id="stop")

    def draw_status(self) -> None:
        """Draw the line that says what is on show or under way."""
        self.status = gr.HTML(status_line(text.READY), elem_id="status")

    @property
    def inputs(self) -> list[Component]:
        """Gather the widgets that an event which ends in ``follow`` or ``present`` is given, beside its own.

        Given as a set, they make Gradio call the handler with one mapping from widget to value.
        """
        return [widget for screen in self.screens for widget in screen.inputs]

    @property
    def outputs(self) -> list[Component]:
        """List what ``follow`` and ``present`` may change."""
        screens = [component for screen in self.screens for component in screen.outputs]
        return [self.status, self.run, self.stop, self.result, *dict.fromkeys(screens)]

    def show_result(self, prediction: Prediction, sentence: str, values: Values) -> Update:
        """Put a finished prediction on show, with a sentence about it."""
        update: Update = {**self.idle(sentence), self.result: self.service.keep(prediction)}
        for screen in self.screens:
            update |= screen.show(prediction, values) | screen.finish(prediction, values)
        return update

    def run_job(self, events: Iterator[Progress | Prediction], values: Values) -> Iterator[Update]:
        """Show a job while it runs, every member as it comes; closing this closes ``events``."""
        yield {
            self.status: status_line(text.STARTING, 0, stale=True),
            self.run: gr.Button(interactive=False),
            self.stop: gr.Button(interactive=True),
        }
        began, result, key = perf_counter(), None, None
        for event in events:
            if isinstance(event, Progress):
                yield {self.status: progress_line(event, stale=result is None)}
                continue
            result, key = event, self.service.keep(event, outdated=key)
            shown: Update = {self.result: key}  # what is on show is what a stopped job leaves
            for screen in self.screens:
                shown |= screen.show(event, values)
            yield shown
        assert result is not None  # a run ends with its prediction or raises
        update: Update = {self.result: key}
        for screen in self.screens:
            update |= screen.finish(result, values)
        yield {**update, **self.idle(summary(result, perf_counter() - began))}

    def stopped(self, values: Values) -> Update:
        """Make what a stopped or failed job had reached the result; without a member that is the one before it."""
        result = values[self.result]
        if result is None or not self.service.keeps(result):
            return self.idle(text.STOPPED)
        prediction = self.service.prediction(result)
        made = text.count(prediction.settings.ensemble_size, "member")
        return self.show_result(prediction, text.STOPPED_WITH.format(members=made), values)

    def idle(self, sentence: str) -> Update:
        """Say how a job ended and make the buttons ready for the next."""
        return {
            self.status: status_line(sentence),
            self.run: gr.Button(interactive=True),
            self.stop: gr.Button(interactive=False),
        }

    def after(self, event: Dependency) -> None:
        """Let every screen do its slow work after an event that has brought a new result."""
        for screen in self.screens:
            screen.after(event)


def status_line(sentence: str, share: float | None = None, *, stale: bool = False) -> str:
    """Draw the status line: a sentence, and while something runs a bar (``share`` in [0, 1], below 0 unknown).

    ``stale`` dims the pictures: they are still those of an earlier photo.
    """
    bar = ""
    if share is not None:
        bar = "<i class='endless'></i>" if share < 0 else f"<i style='width: {max(share, 0.02):.0%}'></i>"
    mark = " stale" if stale else ""
    return f"<div class='status{mark}'><span>{sentence}</span><b>{bar}</b></div>"


def progress_line(event: Progress, *, stale: bool) -> str:
    """Draw the status line for a progress event."""
    return status_line(text.capital(event.stage), event.done / event.total if event.total else -1, stale=stale)


def summary(prediction: Prediction, seconds: float) -> str:
    """Say what was made, from what, and how long it took."""
    height, width = prediction.photo.shape[:2]
    used = prediction.settings
    return text.DONE.format(
        members=text.count(used.ensemble_size, "member"),
        steps=text.count(used.num_inference_steps, "step"),
        seconds=seconds,
        width=width,
        height=height,
        seed=used.seed,
        name=prediction.checkpoint,
    )


def button_note(sentence: str, remark: str = "") -> str:
    """Draw what stands beside a button of this screen."""
    return f"<p>{sentence} <small>{remark}</small></p>"
