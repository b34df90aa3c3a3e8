"""Draws the page around a ``Service``: both screens, their HTTP endpoints and the script."""

import json

import gradio as gr

from marigold_core.files import examples
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.api import add_endpoints
from marigold_core.ui.screens.compare import CompareScreen
from marigold_core.ui.studio import Studio
from marigold_core.ui.theme import SCRIPT

KEPT_S = 3600  # files of a visit are deleted after an hour, looked for every ten minutes


def build(service: Service) -> gr.Blocks:
    """Draw the page and declare the HTTP endpoints; nothing is loaded or started."""
    with gr.Blocks(title=text.TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, KEPT_S)) as page:
        gr.HTML(f"<h1>{text.TITLE}</h1><p>{text.TAGLINE}</p>", elem_id="masthead")
        with gr.Tabs(elem_id="pages"):
            with gr.Tab(text.STUDIO_TAB):
                studio = Studio(service)
            with gr.Tab(text.LAB_TAB):
                lab = CompareScreen(service)
        studio.connect(page)
        lab.connect(page, studio.photo)
        add_endpoints(page, service)
        page.load(None, js=_script())
    page.queue(max_size=20, default_concurrency_limit=1, api_open=False)
    return page


def _script() -> str:
    """Give the page's script the words it puts in."""
    photos = [text.EXAMPLE_PHOTOS[name] for name in examples.NAMES]
    return f"() => ({SCRIPT.read_text(encoding='utf-8')})({json.dumps(photos)})"
