"""Draws the page around a ``Service``: its four tabs, the HTTP endpoints and the script."""

import json
from collections.abc import Generator
from functools import partial

import gradio as gr
from gradio.components import Component

from marigold_core.errors import ImageError
from marigold_core.files import examples
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.api.declare import add_endpoints
from marigold_core.ui.controls.examples import ExampleGallery
from marigold_core.ui.controls.given_depth import GivenDepth
from marigold_core.ui.controls.replay import ReplayButton
from marigold_core.ui.controls.runtime import RuntimeLine
from marigold_core.ui.controls.settings import draw_effort, draw_settings
from marigold_core.ui.controls.share_link import ShareLink
from marigold_core.ui.events import FOLLOWING, LIGHT, MAX_EVENTS, QUIET, REPEATED, on
from marigold_core.ui.run_controller import OpenTab, RunController, Update, Values
from marigold_core.ui.screens.batch import BatchScreen
from marigold_core.ui.screens.compare import CompareScreen
from marigold_core.ui.screens.depth import DepthScreen
from marigold_core.ui.screens.files import FilesScreen
from marigold_core.ui.screens.history import History
from marigold_core.ui.screens.lens import LensScreen
from marigold_core.ui.screens.mesh import MeshScreen
from marigold_core.ui.screens.metres import MetresScreen
from marigold_core.ui.screens.panorama import PanoramaScreen
from marigold_core.ui.screens.uncertainty import UncertaintyScreen
from marigold_core.ui.screens.video import VideoScreen
from marigold_core.ui.templates import render
from marigold_core.ui.text import lens as lens_text
from marigold_core.ui.text import panorama as panorama_text
from marigold_core.ui.text import video as video_text
from marigold_core.ui.theme import script
from marigold_core.video import IS_INSTALLED


def build(service: Service) -> gr.Blocks:
    """Draw the page and declare the HTTP endpoints; nothing is loaded or started."""
    with gr.Blocks(title=text.TITLE, analytics_enabled=False, fill_width=True) as page:
        with gr.Column(elem_id="masthead-place"):  # whose height, as that of the photo's, is kept until it is drawn
            gr.HTML(render("masthead"), elem_id="masthead")
        with gr.Tabs(elem_id="pages"):
            with gr.Tab(text.STUDIO_TAB):
                photo_tab = PhotoTab(service)
            with gr.Tab(text.LAB_TAB) as lab:
                compare_tab = CompareScreen(service)
            with gr.Tab(text.BATCH_TAB):
                batch_tab = BatchScreen(service)
            with gr.Tab(video_text.TAB, visible=IS_INSTALLED):
                video_tab = VideoScreen(service)
        photo_tab.connect(page)
        compare_tab.connect(page, lab, photo_tab.controller.photo, photo_tab.controller.result)
        batch_tab.connect(page)
        video_tab.connect(page)
        add_endpoints(page, service)
        page.load(None, js=_script())
    page.queue(max_size=MAX_EVENTS, default_concurrency_limit=1, api_open=False)
    return page


def _script() -> str:
    """Give the page's script the names of the example photos."""
    photos = [text.EXAMPLE_PHOTOS[name] for name in examples.NAMES]
    return f"() => ({script('page.js')})({json.dumps(photos)})"


class PhotoTab:
    """The first tab: a photo and one button on the left, the result and what can be done with it on the right."""

    def __init__(self, service: Service) -> None:
        """Draw it into the current ``gr.Blocks``."""
        self.controller = controller = RunController(service)
        with gr.Row(elem_id="studio", equal_height=False):
            with gr.Column(scale=0, min_width=340, elem_id="controls"):
                with gr.Column(elem_id="photo-place"):  # whose height is kept until the input is there
                    controller.draw_photo()
                effort = draw_effort()
                self.runtime = RuntimeLine(controller)
                controller.draw_buttons()
                self.inputs = draw_settings(effort)
                self.given = GivenDepth(controller)
                self.gallery = ExampleGallery(controller)
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                controller.draw_status()
                with gr.Tabs(elem_id="views"):
                    with gr.Tab(text.DEPTH_TAB) as depth_tab:
                        depth = DepthScreen(controller, depth_tab)
                    with gr.Tab(text.UNCERTAINTY_TAB) as uncertainty_tab:
                        uncertainty = UncertaintyScreen(controller, uncertainty_tab)
                    with gr.Tab(text.SCENE_TAB) as mesh_tab:
                        mesh = MeshScreen(controller, mesh_tab)
                    with gr.Tab(text.METRES_TAB) as metres_tab:
                        metres = MetresScreen(controller)
                    with gr.Tab(lens_text.TAB, visible=IS_INSTALLED) as lens_tab:
                        lens = LensScreen(controller)
                    with gr.Tab(panorama_text.TAB, visible=False) as panorama_tab:
                        panorama = PanoramaScreen(controller, panorama_tab)
                    with gr.Tab(text.FILES_TAB, render_children=True) as files_tab:  # for manifests that are dropped
                        files = FilesScreen(controller)
                        self.link = ShareLink(controller, self.inputs, self.gallery)
                        self.replay = ReplayButton(controller, self.inputs)
                self.history = History(controller)
        controller.screens += [depth, uncertainty, mesh, metres, lens, panorama, files, self.history]
        for tab in (depth_tab, uncertainty_tab, mesh_tab, metres_tab, lens_tab, panorama_tab, files_tab):
            opened = partial(OpenTab.set, name=str(tab.label))
            on(tab.select, opened, controller.open_tab, None, FOLLOWING, **REPEATED)

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; called once everything is drawn."""
        controller = self.controller
        triggers = [controller.actions.run.click, controller.photo.upload]
        given: set[Component] = {*self.inputs.values, *controller.inputs}
        job, ended = controller.connect_job(self.on_run, triggers, controller.photo, given, controller.outputs)
        controller.jobs.append(job)
        controller.after(ended)
        for part in (*controller.screens, self.given, self.gallery, self.link, self.replay):
            part.listen()
        for job in controller.jobs:
            controller.after(job)
            controller.after(job.failure(lambda: None, None, None, **LIGHT, **QUIET))  # it may have had members
        self.inputs.follow_checkpoint(page)
        self.runtime.connect(page, self.inputs)
        loaded = on(page.load, self.history.on_load, self.history.browser, [self.history.runs, self.history.strip])
        changed = [*self.inputs.values, *controller.outputs]
        # One after the other: what is put on show draws the strip of the runs that are known by then.
        controller.after(loaded.then(self.link.on_load, {*controller.inputs}, changed, **LIGHT, **QUIET))

    def on_run(self, file: str | None, values: Values) -> Generator[Update]:
        """Run the model on the photo, showing every member as it comes."""
        if file is None:
            raise ImageError(text.NO_PHOTO)
        photo = yield from self.controller.take(file, values)
        settings = self.inputs.read(values)
        checkpoint = check_checkpoint(values[self.inputs.checkpoint])
        yield from self.controller.run_photo(photo, settings, checkpoint, values)
