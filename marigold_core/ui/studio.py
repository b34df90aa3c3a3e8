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
from marigold_core.ui.error_messages import telling
from marigold_core.ui.events import LIGHT, MODEL, QUIET
from marigold_core.ui.run_controller import Stage, Update, Values
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
        self.stage = stage = Stage(service)
        with gr.Row(elem_id="studio", equal_height=False):
            with gr.Column(scale=0, min_width=340, elem_id="controls"):
                self.photo = draw_photo()
                presets = draw_presets()
                self.cost = Cost(stage)
                stage.draw_buttons()
                self.inputs = draw_settings(presets)
                self.gallery = Gallery(stage, self.photo)
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                stage.draw_status()
                with gr.Tabs(elem_id="views"):
                    with gr.Tab(text.DEPTH_TAB) as depth_tab:
                        viewer = DepthScreen(stage)
                    with gr.Tab(text.UNCERTAINTY_TAB) as doubt_tab:
                        self.doubt = doubt = UncertaintyScreen(stage)
                    with gr.Tab(text.SCENE_TAB) as scene_tab:
                        scene = MeshScreen(stage, scene_tab)
                    with gr.Tab(text.METRES_TAB) as metres_tab:
                        measure = MetresScreen(stage)
                    with gr.Tab(text.FILES_TAB, render_children=True) as files_tab:  # for manifests that are dropped
                        files = FilesScreen(stage, viewer.colormap, scene.mesh)
                        self.link = Link(stage, self.inputs, self.gallery)
                        self.replaying = Replaying(stage, self.photo, self.inputs)
                history = History(stage, viewer.colormap)
        stage.screens += [viewer, doubt, scene, measure, files, history]
        for tab in (depth_tab, doubt_tab, metres_tab, files_tab):
            scene.closed_by(tab)

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; called once everything is drawn."""
        stage = self.stage
        job = gr.on(
            [stage.run.click, self.photo.upload],
            self.on_run,
            {self.photo, *self.inputs.values, *stage.inputs},
            stage.outputs,
            trigger_mode="once",
            **MODEL,
            **QUIET,
        )
        stage.jobs.append(job)
        for part in (*stage.screens, self.gallery, self.link, self.replaying):
            part.listen()
        ending = {stage.result, *stage.inputs}, stage.outputs
        stage.after(stage.stop.click(stage.end, *ending, cancels=[*stage.jobs], **LIGHT, **QUIET))
        for held in stage.jobs:
            stage.after(held)
            held.failure(stage.end, *ending, **LIGHT, **QUIET)  # a message has said why
        self.cost.follow(page, self.photo, self.inputs)
        changed = [self.photo, *self.inputs.outputs, *stage.outputs]
        stage.after(page.load(self.link.follow, {*stage.inputs}, changed, **LIGHT, **QUIET))

    def on_run(self, values: Values) -> Iterator[Update]:
        """Run the model on the photo, showing every member as it comes; Gradio closes this to stop it."""
        with telling():
            photo = values[self.photo]
            if photo is None:
                raise ImageError(text.NO_PHOTO)
            *chosen, checkpoint = (values[widget] for widget in self.inputs.values)
            asked = settings(*chosen)
            check_checkpoint(checkpoint)
            yield from self.doubt.follow(photo, asked, checkpoint, values)
