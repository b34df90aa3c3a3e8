"""The fold beside the photo that takes a depth map from elsewhere and puts it on show as a result."""

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.components import Component

from marigold_core.errors import ImageError
from marigold_core.files.reader import from_depth
from marigold_core.settings import DepthReading, help_text
from marigold_core.ui import text
from marigold_core.ui.events import LIGHT, REPEATED, on
from marigold_core.ui.photo_input import FileInput
from marigold_core.ui.run_controller import RunController, Update, Values, photo_of

AS_STATED = "file"  # a drop-down has no choice for None


class GivenDepth:
    """A file, what its values mean, and the button; without a file it is the depth that the photo carries."""

    def __init__(self, controller: RunController) -> None:
        """Draw the fold, closed."""
        self.controller = controller
        self.photo = gr.Textbox(visible=False)  # the path of the one that the map was added to
        with gr.Accordion(text.GIVEN, open=False, elem_id="given"):
            gr.Markdown(text.GIVEN_ABOUT)
            self.file = FileInput(label=text.GIVEN_FILE, height=110, elem_id="given-file")
            self.reading: dict[str, Component] = {name: _choice(name) for name in text.READING}
            self.use = gr.Button(text.GIVEN_USE, elem_id="given-use")

    def listen(self) -> None:
        """Put the map on show when the button is pressed."""
        controller = self.controller
        own = {self.file, self.photo, *self.reading.values(), controller.mesh.widgets["fov_x_deg"]}
        given = {controller.photo, controller.result, *own, *controller.inputs}
        controller.after(on(self.use.click, self.on_use, given, controller.outputs, LIGHT, **REPEATED))
        # The browser takes the map of another photo out of its box: a late answer would take out the next one as well.
        # One that was there before any photo stays.
        on(self.file.upload, None, controller.photo, self.photo, js="(photo) => photo?.path ?? null")
        leave = "(photo, of) => [of && of !== photo?.path ? null : undefined, photo?.path ?? null]"
        on(controller.photo.change, None, [controller.photo, self.photo], [self.file, self.photo], js=leave)

    def on_use(self, values: Values) -> Iterator[Update]:
        """Read the map, and show it or say why it cannot be used."""
        files = [file for file in (values[self.controller.photo], values[self.file]) if file]
        yield from self.controller.reported(self._use(values), values, files=files)

    def _use(self, values: Values) -> Generator[Update]:
        source, result = values[self.controller.photo], values[self.controller.result]
        # The button may be heard of before a change of the photo, which takes the map of another one out.
        depth = values[self.file] if values[self.photo] in (None, source) else None
        if source is None and result is not None:  # an example whose photo was not put into the input
            source = photo_of(self.controller.shown(result))
        if source is None:
            raise ImageError(text.NO_PHOTO)
        chosen = {name: values[widget] for name, widget in self.reading.items()}
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value != AS_STATED}
        with suppress(ValueError):  # what is no number is left for the model to refuse
            given |= {name: float(value) for name, value in given.items() if name == "unit_m"}
        reading = DepthReading(**given)
        fov_x_deg = values[self.controller.mesh.widgets["fov_x_deg"]] if reading.measured == "ray" else None
        yield from self.controller.take(source, values)
        yield self.controller.show_depth(from_depth(source, depth, reading, fov_x_deg=fov_x_deg), values)


def _choice(name: str) -> Component:
    label, words = text.READING[name]
    about = text.capital(help_text(DepthReading, name))
    choices = [(text.AS_STATED, AS_STATED), *((words[value], value) for value in words)]
    return gr.Dropdown(
        choices,
        value=AS_STATED,
        label=label,
        info=about,
        allow_custom_value=name == "unit_m",  # there are more units than stand there
        elem_id=f"given-{name}",
    )
