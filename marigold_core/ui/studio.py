"""The first page: a photo and one button on the left, the result and what can be done with it on the right."""

from collections.abc import Iterator

import gradio as gr

from marigold_core.errors import ImageError
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.controls.examples import Gallery
from marigold_core.ui.controls.replay import Replaying
from marigold_core.ui.controls.runtime import Cost
from marigold_core.ui.controls.settings import check_checkpoint, draw_photo, draw_presets, draw_settings, settings
from marigold_core.ui.controls.share_link import Link
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LIGHT, MODEL, QUIET
from marigold_core.ui.run_controller import RunController, Update, Values
from marigold_core.ui.screens.depth import DepthScreen
from marigold_core.ui.screens.files import FilesScreen
from marigold_core.ui.screens.history import History
from marigold_core.ui.screens.mesh import MeshScreen
from marigold_core.ui.screens.metres import MetresScreen
from marigold_core.ui.screens.uncertainty import UncertaintyScreen


class Studio:
    """Draws the page into the current ``gr.Blocks`` and connects it to the service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.controller = controller = RunController(service)
        with gr.Row(elem_id="studio", equal_height=False):
            with gr.Column(scale=0, min_width=340, elem_id="controls"):
                self.photo = draw_photo()
                presets = draw_presets()
                self.cost = Cost(controller)
                controller.draw_buttons()
                self.inputs = draw_settings(presets)
                self.gallery = Gallery(controller, self.photo)
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                controller.draw_status()
                with gr.Tabs(elem_id="views"):
                    with gr.Tab(text.DEPTH_TAB) as depth_tab:
                        viewer = DepthScreen(controller)
                    with gr.Tab(text.UNCERTAINTY_TAB) as doubt_tab:
                        self.doubt = doubt = UncertaintyScreen(controller)
                    with gr.Tab(text.SCENE_TAB) as scene_tab:
                        scene = MeshScreen(controller, scene_tab)
                    with gr.Tab(text.METRES_TAB) as metres_tab:
                        measure = MetresScreen(controller)
                    with gr.Tab(text.FILES_TAB, render_children=True) as files_tab:  # for manifests that are dropped
                        files = FilesScreen(controller, viewer.colormap, scene.mesh)
                        self.link = Link(controller, self.inputs, self.gallery)
                        self.replaying = Replaying(controller, self.photo, self.inputs)
                history = History(controller, viewer.colormap)
        controller.screens += [viewer, doubt, scene, measure, files, history]
        for tab in (depth_tab, doubt_tab, metres_tab, files_tab):
            scene.closed_by(tab)

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; called once everything is drawn."""
        controller = self.controller
        job = gr.on(
            [controller.run.click, self.photo.upload],
            self.on_run,
            {self.photo, *self.inputs.values, *controller.inputs},
            controller.outputs,
            trigger_mode="once",
            **MODEL,
            **QUIET,
        )
        controller.jobs.append(job)
        for part in (*controller.screens, self.gallery, self.link, self.replaying):
            part.listen()
        ending = {controller.result, *controller.inputs}, controller.outputs
        controller.after(
            controller.stop.click(controller.stopped, *ending, cancels=[*controller.jobs], **LIGHT, **QUIET)
        )
        for held in controller.jobs:
            controller.after(held)
            held.failure(controller.stopped, *ending, **LIGHT, **QUIET)  # a message has said why
        self.cost.follow(page, self.photo, self.inputs)
        changed = [self.photo, *self.inputs.outputs, *controller.outputs]
        controller.after(page.load(self.link.follow, {*controller.inputs}, changed, **LIGHT, **QUIET))

    def on_run(self, values: Values) -> Iterator[Update]:
        """Run the model on the photo, showing every member as it comes; Gradio closes this to stop it."""
        with translate_errors():
            photo = values[self.photo]
            if photo is None:
                raise ImageError(text.NO_PHOTO)
            *chosen, checkpoint = (values[widget] for widget in self.inputs.values)
            asked = settings(*chosen)
            check_checkpoint(checkpoint)
            yield from self.doubt.follow(photo, asked, checkpoint, values)
