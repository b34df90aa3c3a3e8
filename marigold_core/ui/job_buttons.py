"""Run and Stop: a job is begun by one and ended by the other."""

from typing import Any

import gradio as gr
from gradio.components import Component

from marigold_core.ui import text


class JobButtons:
    """The two buttons of a job, side by side."""

    def __init__(self, label: str, begin: str = "") -> None:
        """Draw them into the current layout; ``begin`` is what their ids in the page begin with."""
        with gr.Row(elem_classes="actions"):
            self.run = gr.Button(label, variant="primary", scale=3, elem_id=f"{begin}run")
            self.stop = gr.Button(text.STOP, scale=1, min_width=80, interactive=False, elem_id=f"{begin}stop")

    @property
    def outputs(self) -> list[Component]:
        """List what the two updates change."""
        return [self.run, self.stop]

    def begun(self) -> dict[Component, Any]:
        """Offer to stop the job that begins."""
        return {self.run: gr.Button(interactive=False), self.stop: gr.Button(interactive=True)}

    def ended(self) -> dict[Component, Any]:
        """Offer to begin another one."""
        return {self.run: gr.Button(interactive=True), self.stop: gr.Button(interactive=False)}
