"""Two looks at a photo side by side. Nothing here runs the model: everything is painted from the kept prediction."""

from typing import get_args

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.images.photo import network_size
from marigold_core.prediction import Prediction
from marigold_core.settings import DEFAULT_COLORMAP, Colormap
from marigold_core.ui import text
from marigold_core.ui.error_messages import telling
from marigold_core.ui.events import LIGHT, QUIET
from marigold_core.ui.pictures import draw_comparison
from marigold_core.ui.run_controller import Stage, Update, Values
from marigold_core.ui.screens.layers import DEPTH, PHOTO, Look, main_layer, offered, paint
from marigold_core.ui.screens.legend import draw_keys, draw_readout, readings

COLORMAPS: tuple[Colormap, ...] = get_args(Colormap)
HANDLE = 50  # per cent of the picture's width


class Viewer:
    """The screen one sees first."""

    def __init__(self, stage: Stage) -> None:
        """Draw the comparison, what its colours and numbers mean, and one row of controls; the rest is in a fold."""
        self.stage = stage
        with gr.Column(elem_id="look"):
            self.pictures = draw_comparison(text.DEPTH)
        self.keys = gr.HTML(elem_id="keys")
        self.readout = draw_readout()
        with gr.Row(elem_classes="under"):
            self.left = self._draw_side(text.LEFT, PHOTO)
            self.right = self._draw_side(text.RIGHT, DEPTH)
            self.colormap = gr.Dropdown(
                [(text.COLORMAPS.get(name, name.capitalize()), name) for name in COLORMAPS],
                value=DEFAULT_COLORMAP,
                label=text.COLORMAP,
                min_width=150,
            )
        with gr.Accordion(text.ADJUST, open=False, elem_id="adjust"):
            with gr.Row():
                self.near = gr.Slider(0, 1, value=0, step=0.01, label=text.NEAR_END, info=text.NEAR_END_INFO)
                self.far = gr.Slider(0, 1, value=1, step=0.01, label=text.FAR_END, info=text.FAR_END_INFO)
            with gr.Row():
                self.invert = gr.Checkbox(False, label=text.INVERT, info=text.INVERT_INFO)
                self.handle = gr.Slider(0, 100, value=HANDLE, step=1, label=text.HANDLE, info=text.HANDLE_INFO)
        self.sizes = gr.HTML(elem_classes="note", elem_id="sizes")

    @property
    def inputs(self) -> list[Component]:
        """List the widgets of the two sides and of the colours."""
        return [self.left, self.right, self.colormap, self.near, self.far, self.invert]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.pictures, self.keys, self.readout, self.left, self.right, self.sizes]

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Paint a prediction, finished or on its way."""
        return {**self.draw(prediction, values), self.readout: readings(prediction)}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer what the result can show, and say at which sizes it was made."""
        height, width = prediction.photo.shape[:2]
        seen = network_size(height, width, prediction.settings.processing_resolution)
        line = text.SIZES.format(width=width, height=height, network_width=seen[1], network_height=seen[0])
        return {**self.offer(prediction, values), self.sizes: line}

    def listen(self) -> None:
        """Paint again when a side or a colour changes; move the handle as the slider says."""
        changes = [widget.input for widget in (self.left, self.right, self.colormap, self.near, self.far, self.invert)]
        gr.on(changes, self.repaint, *self._repainted, trigger_mode="always_last", **LIGHT, **QUIET)
        self.handle.input(
            lambda position: gr.ImageSlider(slider_position=position),
            self.handle,
            self.pictures,
            trigger_mode="always_last",
            **LIGHT,
            **QUIET,
        )

    def after(self, event: Dependency) -> None:
        """Paint once more: a side or a colour may have been changed while the job went on."""
        event.success(self.repaint, *self._repainted, **LIGHT, **QUIET)

    def repaint(self, values: Values) -> Update:
        """Paint the result on show as the widgets say."""
        result = values[self.stage.result]
        if result is None:
            return {self.pictures: gr.skip()}  # nothing at all would be an error to Gradio
        with telling():
            prediction = self.stage.service.prediction(result)
            return {**self.draw(prediction, values), **self.offer(prediction, values)}

    def draw(self, prediction: Prediction, values: Values) -> Update:
        """Paint both sides and their legend; a side that the prediction does not have shows what it is about."""
        look = Look(values[self.colormap], values[self.near], values[self.far], values[self.invert])
        layers = self._chosen(prediction, values).values()
        left, right = (paint(prediction, layer, look) for layer in layers)
        return {self.pictures: (left, right), self.keys: draw_keys(prediction, layers, look)}

    def offer(self, prediction: Prediction, values: Values) -> Update:
        """List what can stand on either side; a choice that is none any more is replaced."""
        choices = offered(prediction)
        return {
            side: gr.Dropdown(choices=choices) if layer == values[side] else gr.Dropdown(choices=choices, value=layer)
            for side, layer in self._chosen(prediction, values).items()
        }

    @property
    def _repainted(self) -> tuple[set[Component], list[Component]]:
        return {self.stage.result, *self.inputs}, [self.pictures, self.keys, self.left, self.right]

    def _chosen(self, prediction: Prediction, values: Values) -> dict[Component, str]:
        names = [name for _, name in offered(prediction)]
        instead = {self.left: PHOTO, self.right: main_layer(prediction)}
        return {side: values[side] if values[side] in names else layer for side, layer in instead.items()}

    @staticmethod
    def _draw_side(label: str, layer: str) -> gr.Dropdown:
        choices = [(text.LAYERS[name], name) for name in (PHOTO, DEPTH)]  # more of them with the first result
        return gr.Dropdown(choices, value=layer, label=label, min_width=150)
