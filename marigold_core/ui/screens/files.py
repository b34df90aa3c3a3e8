"""The files screen: every file of a result as a download, written when it is asked for."""

from functools import partial
from typing import Literal, cast, get_args

import gradio as gr
import numpy as np
from gradio.components import Component

from marigold_core.files.presets import PRESETS, SaveFor
from marigold_core.files.writers import files_of, formats_for, preset_refusal
from marigold_core.prediction import Prediction
from marigold_core.settings import Format, MeshSettings, StereoLayout, bounds, default, help_text
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import download, draw_file, on
from marigold_core.ui.run_controller import RunController, Screen, Update, Values, button_note

Item = Format | SaveFor | Literal["everything", "manifest"]
ITEMS: dict[Item, tuple[str, str]] = {  # name, what it is good for; in the page's order
    "everything": (text.EVERYTHING, text.EVERYTHING_USE),
    **{name: text.FORMATS[name] for name in get_args(Format)},
    "manifest": (text.MANIFEST, text.MANIFEST_USE),
    **{name: (preset.label, preset.tick) for name, preset in PRESETS.items()},
}


class FilesScreen(Screen):
    """A button and a line of text for each file; the line gives the size once the file is written."""

    def __init__(self, controller: RunController) -> None:
        """Draw them into the current tab."""
        super().__init__(controller)
        self.buttons: dict[Item, gr.Button] = {}
        self.notes: dict[Item, gr.HTML] = {}
        with gr.Column(elem_id="downloads"):
            for item, (name, _) in ITEMS.items():
                if item == next(iter(PRESETS)):
                    gr.Markdown(text.SAVE_FOR, elem_id="save-for")
                with gr.Row(elem_classes="take"):
                    self.buttons[item] = gr.Button(name, size="sm", scale=0, interactive=False)
                    self.notes[item] = gr.HTML(note(item))
        with gr.Row():
            self.stereo: dict[str, Component] = {name: _stereo_widget(name) for name in text.STEREO}
        self.files = {item: draw_file() for item in ITEMS}

    @property
    def outputs(self) -> list[Component]:
        """List the buttons and the lines."""
        return [*self.buttons.values(), *self.notes.values()]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Offer nothing."""
        notes = {self.notes[item]: note(item) for item in self.notes}
        return {**{button: gr.Button(interactive=False) for button in self.buttons.values()}, **notes}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer the files that the result can have, and write why it has no others."""
        offered = ("everything", *formats_for(prediction), "manifest")
        update: Update = {}
        for item, button in self.buttons.items():
            if item in PRESETS:
                refusal = preset_refusal(item, prediction.modality, prediction.kind)
            elif item in offered:
                refusal = None
            else:
                refusal = text.NEEDS_MEMBERS if item == "uncertainty" else text.NEEDS_DEPTH
            update[button] = gr.Button(interactive=refusal is None)
            update[self.notes[item]] = note(item, refusal or "", prediction)
        return update

    def listen(self) -> None:
        """Write a file when its button is pressed, then let the browser download it."""
        controller = self.controller
        settings = {*controller.colours.widgets.values(), *controller.mesh.widgets.values()}
        given = {controller.result, *settings, *self.stereo.values()}
        for item, button in self.buttons.items():
            file = self.files[item]
            written = on(button.click, partial(self.write, item), given, [file, self.notes[item]], shown=True)
            download(written, file)

    def write(self, item: Item, values: Values) -> Update:
        """Write a file of the result on show, for the browser to download, and its size beside the button."""
        with translate_errors():
            controller, result = self.controller, values[self.controller.result]
            prediction = controller.shown(result)
            mesh, colours = controller.mesh.read(values), controller.colours.read(values)
            if item == "stereo":
                mesh = mesh.changed(**{name: values[widget] for name, widget in self.stereo.items()})
            if item == "everything":
                path = controller.service.archive(result, None, mesh, colours)  # what cannot be made is left out
            elif item in PRESETS:
                programs: tuple[SaveFor, ...] = (item,)
                file, *more = PRESETS[item].files
                if more:
                    path = controller.service.archive(result, (), mesh, colours, programs)
                else:
                    path = controller.service.export(result, (), mesh, colours, programs)[file]
            else:
                formats = None if item == "manifest" else (cast(Format, item),)
                files = controller.service.export(result, formats, mesh, colours)
                names = [item] if item in files else files_of(cast(Format, item), prediction)
                if len(names) == 1:
                    path = files[names[0]]
                else:  # a file a layer
                    path = controller.service.archive(result, formats, mesh, colours)
            written = text.WRITTEN.format(size=text.size(path.stat().st_size))
            return {self.files[item]: str(path), self.notes[item]: note(item, written, prediction)}


def _stereo_widget(name: str) -> Component:
    about, value = text.capital(help_text(MeshSettings, name)), default(MeshSettings, name)
    if name == "stereo_layout":
        choices = [(text.STEREO_LAYOUTS[layout], layout) for layout in get_args(StereoLayout)]
        return gr.Dropdown(choices, value=value, label=text.STEREO[name], info=about)
    low, high = bounds(MeshSettings, name)
    return gr.Slider(low, high, value=value, step=0.001, label=text.STEREO[name], info=about)


def note(item: Item, remark: str = "", prediction: Prediction | None = None) -> str:
    """Draw the line of an item: what it is good for, and a remark."""
    use = text.FORMATS_OF_LAYERS.get(item) if prediction and prediction.layers else None
    return button_note(use or ITEMS[item][1], remark)
