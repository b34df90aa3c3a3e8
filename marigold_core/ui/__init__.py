"""The browser's room, and the only one that imports Gradio: ``build`` draws the page around a ``Service``."""

import gradio as gr

from ..service import Service
from . import text
from .api import add_endpoints
from .studio import Studio

KEPT_S = 3600  # files of a visit are deleted after an hour, looked for every ten minutes


def build(service: Service) -> gr.Blocks:
    """Draw the page and declare the HTTP endpoints; nothing is loaded or started."""
    with gr.Blocks(title=text.TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, KEPT_S)) as page:
        Studio(service).connect(page)
        add_endpoints(page, service)
    page.queue(max_size=20, default_concurrency_limit=1, api_open=False)
    return page
