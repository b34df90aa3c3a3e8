"""The depth screen: two layers of a result side by side, their legends, and the map's values under the pointer."""

from base64 import b64encode
from typing import Any, cast, get_args

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.images.differences import shrink
from marigold_core.images.photo import network_size
from marigold_core.prediction import Prediction
from marigold_core.settings import (
    DEFAULT_COLORMAP,
    Colormap,
    ColourSettings,
    MeshSettings,
    ResolvedSettings,
    bounds,
    default,
    help_text,
)
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LAST, LIGHT, NO_CHANGE, QUIET, follow
from marigold_core.ui.pictures import draw_comparison, photo_file
from marigold_core.ui.run_controller import RunController, Screen, Update, Values
from marigold_core.ui.screens.layers import DEPTH, PHOTO, draw_legends, main_layer, offered, paint
from marigold_core.ui.screens.mesh import FIELDS
from marigold_core.ui.templates import render
from marigold_core.ui.theme import script

HANDLE = 50  # per cent of the picture's width
READOUT_PX = 160  # longest edge of the map whose values the page holds
LEVELS = 65535
ENDS = ("range_from", "range_to")  # of the colours
STEP = 0.01  # of their sliders
PUSH_JS = f"""(from, to) => {{
  if (from === null || to === null || from < to) return [];
  const low = MOVED === "range_from" ? Math.min(from, 1 - {STEP}) : Math.max(to, {STEP}) - {STEP};
  return [low, low + {STEP}].map((end) => Math.round(100 * end) / 100);
}}"""  # the end that was not MOVED is pushed ahead of the one that was


def draw_colormaps(min_width: int, *, container: bool = True, scale: int | None = None) -> gr.Dropdown:
    """Draw the choice of colours for depth."""
    names: tuple[Colormap, ...] = get_args(Colormap)
    return gr.Dropdown(
        [(text.COLORMAPS.get(name, name.capitalize()), name) for name in names],
        value=DEFAULT_COLORMAP,
        label=text.COLORMAP,
        container=container,
        scale=scale,
        min_width=min_width,
    )


class DepthScreen(Screen):
    """The screen that the page opens with."""

    def __init__(self, controller: RunController, tab: gr.Tab) -> None:
        """Draw the comparison, its legends and values, and one row of controls; the others are in an accordion."""
        super().__init__(controller, tab)
        with gr.Column(elem_id="look"):
            self.pictures = draw_comparison(text.DEPTH)
        self.legends = gr.HTML(elem_id="keys")
        self.readout = gr.HTML(
            html_template=render("readout"), js_on_load=script("box.js", "readout.js"), elem_id="readout"
        )
        with gr.Row(elem_classes="under"):
            self.left = self._draw_side(text.LEFT, PHOTO)
            self.right = self._draw_side(text.RIGHT, DEPTH)
            self.colours: dict[str, gr.Dropdown | gr.Slider | gr.Checkbox] = {"colormap": draw_colormaps(150)}
        with gr.Accordion(text.ADJUST, open=False, elem_id="adjust"):
            with gr.Row():
                for name, label in zip(ENDS, (text.NEAR_END, text.FAR_END), strict=True):
                    value, about = default(ColourSettings, name), text.capital(help_text(ColourSettings, name))
                    low, high = bounds(ColourSettings, name)
                    self.colours[name] = gr.Slider(low, high, value=value, step=STEP, label=label, info=about)
            with gr.Row():
                about = text.capital(help_text(ColourSettings, "invert"))
                self.colours["invert"] = gr.Checkbox(False, label=text.INVERT, info=about)
                self.handle = gr.Slider(0, 100, value=HANDLE, step=1, label=text.HANDLE, info=text.HANDLE_INFO)
        self.sizes = gr.HTML(elem_classes="note", elem_id="sizes")
        controller.colours.widgets.update(self.colours)

    @property
    def inputs(self) -> list[Component]:
        """List the widgets of the two sides, of the colours and of the normals."""
        return [self.left, self.right, *self.colours.values(), *self._shaping.values()]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.pictures, self.legends, self.readout, self.left, self.right, self.sizes]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Show the photo that is worked on, or nothing."""
        file = None if photo is None else photo_file(photo)
        return {self.pictures: file and (file, file), self.legends: "", self.readout: {}, self.sizes: ""}

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Paint a prediction, finished or on its way, while the tab is open."""
        return self.draw(prediction, values) if self.is_seen(values) else {}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer the layers of the result, and write the sizes at which it was made."""
        height, width = prediction.photo.shape[:2]
        line = text.SIZES_GIVEN.format(width=width, height=height, name=prediction.checkpoint)
        if isinstance(prediction.settings, ResolvedSettings):
            seen = network_size(height, width, prediction.settings.processing_resolution)
            per_side = prediction.settings.tiles_per_side
            line = text.SIZES.format(
                width=width,
                height=height,
                network_width=seen[1],
                network_height=seen[0],
                tiles=text.SIZES_TILES.format(per_side=per_side) if per_side > 1 else "",
            )
        return {**self.offer(prediction, values), self.sizes: line}

    def listen(self) -> None:
        """Paint when the tab is opened and a side, a colour or what normals depend on changes; move the handle."""
        assert self.tab is not None
        painting = [self.left, self.right, self.colours["colormap"], self.colours["invert"]]
        changes = [self.tab.select, *(widget.input for widget in painting)]
        changes += [cast(gr.Slider, slider).release for slider in self._shaping.values()]
        follow(changes, self.repaint, *self._repainted, LIGHT)
        ends = [self.colours[name] for name in ENDS]
        for name, end in zip(ENDS, ends, strict=True):
            push = PUSH_JS.replace("MOVED", f'"{name}"')
            follow(cast(gr.Slider, end).input, self.repaint, *self._repainted, LIGHT, edited=ends, js=push)
        follow(self.handle.input, self.on_handle, self.handle, self.pictures)

    def after(self, event: Dependency) -> None:
        """Paint once more: a side or a colour may have been changed while the job went on."""
        event.success(self.repaint, *self._repainted, **LAST, **LIGHT, **QUIET)

    def on_handle(self, position: float) -> gr.ImageSlider:
        """Move the handle between the two sides."""
        return gr.ImageSlider(slider_position=position)

    def repaint(self, values: Values) -> Update:
        """Paint the result on show with the values of the widgets."""
        result = values[self.controller.result]
        if result is None:
            return {self.pictures: NO_CHANGE}  # an empty update would be an error to Gradio
        with translate_errors():
            prediction = self.controller.service.prediction(result)
            return {**self.draw(prediction, values), **self.offer(prediction, values)}

    def draw(self, prediction: Prediction, values: Values) -> Update:
        """Paint both sides and their legends; a layer that the prediction lacks is replaced by its main one."""
        colours = self.controller.colours.read(values)
        mesh = MeshSettings(**{name: values[slider] for name, slider in self._shaping.items()})
        layers = self._chosen(prediction, values).values()
        left, right = (paint(prediction, layer, colours, mesh) for layer in layers)
        legends = draw_legends(prediction, layers, colours)
        return {self.pictures: (left, right), self.legends: legends, self.readout: readout_values(prediction)}

    def offer(self, prediction: Prediction, values: Values) -> Update:
        """List what can stand on either side; a choice that is none any more is replaced."""
        choices = offered(prediction)
        return {
            side: gr.Dropdown(choices=choices) if layer == values[side] else gr.Dropdown(choices=choices, value=layer)
            for side, layer in self._chosen(prediction, values).items()
        }

    @property
    def _shaping(self) -> dict[str, Component]:
        """The sliders of the 3D screen that normals depend on; any values of these go together."""
        return {name: slider for name, slider in self.controller.mesh.widgets.items() if "normals" in FIELDS[name][1]}

    @property
    def _repainted(self) -> tuple[set[Component], list[Component]]:
        changed: list[Component] = [self.pictures, self.legends, self.readout, self.left, self.right]
        return {self.controller.result, *self.inputs}, changed

    def _chosen(self, prediction: Prediction, values: Values) -> dict[Component, str]:
        names = [name for _, name in offered(prediction)]
        instead = {self.left: PHOTO, self.right: main_layer(prediction)}
        return {side: values[side] if values[side] in names else layer for side, layer in instead.items()}

    @staticmethod
    def _draw_side(label: str, layer: str) -> gr.Dropdown:
        choices = [(text.LAYERS[name], name) for name in (PHOTO, DEPTH)]  # more of them with the first result
        return gr.Dropdown(choices, value=layer, label=label, min_width=150)


# ------------------------------------------------------------------------------- values under the pointer


def readout_values(prediction: Prediction) -> dict[str, Any]:
    """Reduce a prediction to the values that the page shows under the pointer, 16 bits each."""
    height, width = prediction.photo_size
    channels: list[dict[str, object]] = []
    if prediction.modality == "depth":
        unit = " m" if prediction.kind == "metric" else ""
        channels.append(_channel(text.READ_DEPTH, prediction.values, 1, unit, 2 if unit else 3))
    elif prediction.layers:
        for layer in prediction.layers:
            values = prediction.layer(layer.name)
            channels.append(_channel(text.LAYERS[layer.name], np.atleast_3d(values).mean(axis=-1), 1, "", 2))
    else:
        away = np.degrees(np.arccos(np.clip(prediction.values[..., 2], -1, 1))).astype(np.float32)
        channels.append(_channel(text.READ_NORMAL, away, 1, "°", 0))
    if prediction.uncertainty is not None:
        factor, unit = {"metric": (1, " m"), "unit-vector": (180, "°")}.get(prediction.kind, (100, " %"))
        channels.append(_channel(text.READ_UNCERTAINTY, prediction.uncertainty, factor, unit, 2))
    return {"width": width, "height": height, "at": text.READ_AT, "channels": channels}


def _channel(label: str, values: np.ndarray, factor: float, unit: str, digits: int) -> dict[str, object]:
    small = shrink(values.astype(np.float32), READOUT_PX) * factor
    low, high = float(small.min()), float(small.max())
    codes = np.rint((small - low) / ((high - low) or 1.0) * LEVELS).astype("<u2")
    return {
        "label": label,
        "unit": unit,
        "digits": digits,
        "low": low,
        "step": (high - low) / LEVELS,
        "columns": codes.shape[1],
        "rows": codes.shape[0],
        "codes": b64encode(codes.tobytes()).decode(),
    }
