"""The files screen: every file of a result as a download, written when it is asked for."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.errors import ExportError
from marigold_core.files.writers import formats_for
from marigold_core.prediction import Prediction
from marigold_core.settings import Colormap, Format, MeshSettings
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LIGHT, SHOWN
from marigold_core.ui.run_controller import RunController, Update, Values, button_note

Item = Format | Literal["everything", "manifest"]
FORMATS: tuple[Format, ...] = get_args(Format)
ITEMS: dict[Item, tuple[str, str]] = {  # name, what it is good for; in the page's order
    "everything": (text.EVERYTHING, text.EVERYTHING_USE),
    **{name: text.FORMATS[name] for name in FORMATS},
    "manifest": (text.MANIFEST, text.MANIFEST_USE),
}
# The file's address has been set when this runs, but is drawn a moment later.
DOWNLOAD_JS = "() => setTimeout(() => document.querySelector('#file-link a, a#file-link, #file-link')?.click(), 60)"


class FilesScreen:
    """A button and a line of text for each file; the line gives the size once the file is written."""

    def __init__(self, controller: RunController, colormap: gr.Dropdown, mesh: Mapping[str, Component]) -> None:
        """Draw them; ``colormap`` and ``mesh``, by field of ``MeshSettings``, are widgets of other screens."""
        self.controller, self.colormap, self.mesh = controller, colormap, mesh
        self.buttons: dict[Item, gr.Button] = {}
        self.notes: dict[Item, gr.HTML] = {}
        with gr.Column(elem_id="downloads"):
            for item, (name, _) in ITEMS.items():
                with gr.Row(elem_classes="take"):
                    self.buttons[item] = gr.Button(name, size="sm", scale=0, interactive=False)
                    self.notes[item] = gr.HTML(note(item))
        self.file = gr.DownloadButton(visible="hidden", elem_id="file-link")

    @property
    def inputs(self) -> list[Component]:
        """List nothing: files are written when they are asked for."""
        return []

    @property
    def outputs(self) -> list[Component]:
        """List buttons and lines."""
        return [*self.buttons.values(), *self.notes.values()]

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Change nothing: files are offered after the last member."""
        return {}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer the files that the result can have, and write why it has no others."""
        refused = {name: _refusal(name) for name in FORMATS if name not in formats_for(prediction)}
        update: Update = {}
        for item, button in self.buttons.items():
            update[button] = gr.Button(interactive=item not in refused)
            update[self.notes[item]] = note(item, refused.get(item, ""))
        return update

    def listen(self) -> None:
        """Write a file when its button is pressed, then let the browser download it."""
        given = {self.controller.result, self.colormap, *self.mesh.values()}
        for item, button in self.buttons.items():
            written = button.click(partial(self.write, item), given, [self.file, self.notes[item]], **LIGHT, **SHOWN)
            written.success(None, js=DOWNLOAD_JS)

    def after(self, event: Dependency) -> None:
        """Do nothing: files are written when they are asked for."""

    def write(self, item: Item, values: Values) -> Update:
        """Write a file of the result on show, for the hidden link to download, and its size beside the button."""
        with translate_errors():
            result = values[self.controller.result]
            if result is None:
                raise ExportError(text.NO_RESULT)
            mesh = MeshSettings(**{name: values[widget] for name, widget in self.mesh.items()})
            path = self._path(item, result, mesh, values[self.colormap])
            written = text.WRITTEN.format(size=text.size(path.stat().st_size))
            return {self.file: str(path), self.notes[item]: note(item, written)}

    def _path(self, item: Item, result: str, mesh: MeshSettings, colormap: Colormap) -> Path:
        """Write the file of an item; archive and manifest are of all files that the page offers."""
        service = self.controller.service
        if item not in ("everything", "manifest"):
            return service.export(result, [item], mesh, colormap)[item]
        suitable: list[Format] = [name for name in FORMATS if name in formats_for(service.prediction(result))]
        if item == "manifest":
            return service.export(result, suitable, mesh, colormap)[item]
        return service.archive(result, suitable, mesh, colormap)


def note(item: Item, remark: str = "") -> str:
    """Draw the line of an item: what it is good for, and a remark."""
    return button_note(ITEMS[item][1], remark)


def _refusal(name: Format) -> str:
    """Explain why a prediction has no such file."""
    return text.NEEDS_MEMBERS if name == "uncertainty" else text.NEEDS_DEPTH
