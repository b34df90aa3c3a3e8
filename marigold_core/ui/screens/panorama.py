"""The screen that is offered with photos twice as wide as high: distances and a mesh all around the camera."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.utils import get_upload_folder
from PIL import Image

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.files.manifest import left_out_of
from marigold_core.files.panorama import save_panorama
from marigold_core.geometry.preview import centred
from marigold_core.pipeline.panorama import Panorama, is_full, stream_panorama
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.video import shared_predictor
from marigold_core.settings import ResolvedSettings, Settings
from marigold_core.ui import text
from marigold_core.ui.events import LAST, MODEL, NO_CHANGE, REPEATED, SHAPING, SHOWN, follow, on
from marigold_core.ui.offered_checkpoints import offered_checkpoint
from marigold_core.ui.pictures import PICTURE_HEIGHT_PX, file_address, preview
from marigold_core.ui.run_controller import Pace, RunController, Screen, Update, Values, photo_of, progress_line
from marigold_core.ui.screens.mesh import MOUNT_S
from marigold_core.ui.templates import render
from marigold_core.ui.text import panorama as panorama_text

INSIDE = (90.0, 90.0, 0.01)  # the viewer's camera: in the middle, looking to the front


class PanoramaScreen(Screen):
    """The button, the mesh and the files."""

    def __init__(self, controller: RunController, tab: gr.Tab) -> None:
        """Draw it into ``tab``, the current one."""
        super().__init__(controller, tab)
        self._tab: Any = tab
        self.unseen = gr.State(None)  # the mesh that the viewer was not given yet: one that is hidden draws none
        gr.HTML(panorama_text.ABOUT, elem_classes="note")
        with gr.Row(elem_classes="take"):
            self.make = gr.Button(panorama_text.MAKE, size="sm", scale=0, elem_id="panorama-make")
        self.scene = gr.Model3D(
            label=panorama_text.TAB,
            show_label=False,
            interactive=False,
            display_mode="solid",
            height=PICTURE_HEIGHT_PX,
            clear_color=(0.07, 0.08, 0.1, 1.0),
            elem_id="panorama-scene",
        )
        self.files = gr.HTML("", apply_default_css=False, elem_id="panorama-files")

    @property
    def given(self) -> set[Component]:
        """Gather the widgets whose values a panorama is made with."""
        controller = self.controller
        settings = [*controller.mesh.widgets.values(), *controller.colours.widgets.values()]
        return {controller.result, *controller.inputs, *settings}

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self._tab, self.make, self.scene, self.unseen, self.files]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Show nothing."""
        return {self.scene: None, self.unseen: None, self.files: "", self._tab: gr.Tab(visible=False)}

    def begin(self, values: Values) -> Update:
        """Begin no second job while one runs."""
        return {self.make: gr.Button(interactive=False)}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Show the tab for what may be a panorama."""
        offered = prediction.modality == "depth" and is_full(*prediction.photo.shape[:2])
        button = {self.make: gr.Button(interactive=True)}
        return {**self.clear_result(values, None), **button, self._tab: gr.Tab(visible=offered)}

    def listen(self) -> None:
        """Make the panorama as a job of the page, which Stop ends."""
        job = on(self.make.click, self.on_make, self.given, self.controller.outputs, MODEL, **REPEATED)
        self.controller.jobs.append(job)
        # An event of its own, whose progress is shown: that draws the viewer anew once its code is there.
        job.success(self.on_made, {self.unseen, self.controller.open_tab}, self._viewer, **LAST, **SHAPING, **SHOWN)
        follow(self._tab.select, self.on_open, self.unseen, self._viewer, SHAPING, shown=True)

    @property
    def _viewer(self) -> list[Component]:
        return [self.scene, self.unseen]

    def on_made(self, values: Values) -> Update:
        """Show the mesh if its tab is open."""
        return self.on_open(values[self.unseen] if self.is_seen(values) else None)

    def on_open(self, unseen: str | None) -> Update:
        """Show the mesh that the viewer was not given yet."""
        if unseen is None:
            return {self.scene: NO_CHANGE}
        sleep(MOUNT_S)
        return {self.scene: gr.Model3D(unseen, camera_position=INSIDE), self.unseen: None}

    def on_make(self, values: Values) -> Iterator[Update]:
        """Predict view by view, with the settings of the result on show."""
        yield from self.controller.reported(self._make(values), values)

    def _make(self, values: Values) -> Generator[Update]:
        shown = self.controller.shown(values[self.controller.result])
        if not isinstance(shown.settings, ResolvedSettings):
            raise ExportError(text.COMPLETE_GIVEN)
        yield self.controller.begun(values)
        pace = Pace()
        with closing(self._events(shown, shown.settings, values)) as events:
            for event in events:
                if isinstance(event, Panorama):
                    yield self._done(shown, event, values)
                elif pace.is_due:
                    yield {self.controller.status: progress_line(event, stale=False)}
                    pace.wait(0)
                else:
                    yield {}

    def _events(self, shown: Prediction, settings: Settings, values: Values) -> Generator[Progress | Panorama]:
        checkpoint = offered_checkpoint(shown.checkpoint)
        predictor = yield from shared_predictor(self.controller.service, checkpoint)
        yield from stream_panorama(predictor, photo_of(shown), settings, self.controller.mesh.read(values))

    def _done(self, shown: Prediction, made: Panorama, values: Values) -> Update:
        """Write the files and show the mesh from within."""
        folder = Path(get_upload_folder()) / secrets.token_hex(16)
        mesh, colours = self.controller.mesh.read(values), self.controller.colours.read(values)
        files = save_panorama(made, folder, mesh=mesh, colours=colours)
        lacks, scene = left_out_of(files["record"]), None
        if not lacks:
            storage.write_bytes(scene := folder / "shown.glb", centred(files["glb"].read_bytes(), about_origin=True))
        told = panorama_text.MADE_EMPTY if lacks else panorama_text.MADE
        links = [(panorama_text.FILES[name], file_address(path)) for name, path in files.items()]
        with Image.open(files["color"]) as coloured:
            picture = file_address(preview(np.asarray(coloured)))
        return {
            **self.controller.show_result(shown, told.format(seam=made.seam, lacks=lacks), values),
            self.unseen: scene and str(scene),
            self.files: render("panorama", picture=picture, label=panorama_text.PICTURE, files=links),
        }
