"""The result on the right: photo against depth or uncertainty, the 3D scene, downloads.

Nothing here runs the model. The page holds only the id of a result; colours, mesh and files are made from the kept
prediction, so a change of colour costs milliseconds and works while somebody else's job is in the model.
"""

import math
from functools import partial
from importlib.util import find_spec
from typing import get_args

import gradio as gr
import numpy as np
from gradio.events import Dependency
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from ..colorize import depth_to_rgb, to_rgb, uncertainty_to_rgb
from ..errors import ExportError
from ..export import formats_for
from ..geometry import DEFAULT_FOV_X_DEG, field_of_view, metric_z
from ..prediction import Prediction
from ..service import Service
from ..settings import DEFAULT_COLORMAP, Colormap, Format, MeshSettings, bounds, default, help_text
from . import text
from .events import LIGHT, QUIET, SHOWN
from .faults import telling

PICTURE_HEIGHT_PX = 560
SCENE_TRIANGLES = 100_000  # half of a download's: built in half a second, turned smoothly on a phone
PREVIEW_PX = 1280  # longest edge of what the page shows; downloads have the photo's size
FORMATS: tuple[Format, ...] = get_args(Format)
COLORMAPS: tuple[Colormap, ...] = get_args(Colormap)
VIEW_ASPECT = 1.3  # the 3D viewer is at least this much wider than high, but for phones
VIEW_TANGENT = 0.37  # of half the 3D viewer's own field of view, less a margin
DOWNLOAD_JS = "() => setTimeout(() => document.querySelector('#file-link a, a#file-link, #file-link')?.click(), 60)"

Update = dict[gr.components.Component, object]


class Viewer:
    """Draws the result column inside the current layout and makes the updates for it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.result = gr.State(None)  # id of the result on show
        self.scene_open = gr.State(False)  # the mesh is built when somebody looks at it
        with gr.Tabs(elem_id="views"):
            with gr.Tab(text.DEPTH_TAB) as depth_tab:
                self.depth = _comparison(text.DEPTH)
                with gr.Row(elem_classes="under"):
                    self.legend = gr.HTML(legend(DEFAULT_COLORMAP), elem_id="legend")
                    self.colormap = gr.Dropdown(
                        [(text.COLORMAPS.get(name, name.capitalize()), name) for name in COLORMAPS],
                        value=DEFAULT_COLORMAP,
                        label=text.COLORMAP,
                        container=False,
                        scale=0,
                        min_width=220,
                    )
            with gr.Tab(text.UNCERTAINTY_TAB) as doubt_tab:
                self.doubt = _comparison(text.UNCERTAINTY)
                self.doubt_note = gr.HTML(elem_classes="note")
            with gr.Tab(text.SCENE_TAB) as scene_tab:
                self.scene = gr.Model3D(
                    label=text.SCENE,
                    show_label=False,
                    interactive=False,
                    display_mode="solid",
                    height=PICTURE_HEIGHT_PX,
                    clear_color=(0.07, 0.08, 0.1, 1.0),
                    elem_id="scene",
                )
                self.scene_note = gr.HTML(text.SCENE_HINT, elem_classes="note")
                with gr.Row(elem_classes="under"):
                    self.mesh = [
                        _mesh_slider("fov_x_deg", text.FIELD_OF_VIEW, 1, DEFAULT_FOV_X_DEG),
                        _mesh_slider("near_ratio", text.NEAR_RATIO, 0.01),
                        _mesh_slider("edge_cut", text.EDGE_CUT, 0.01),
                    ]
        with gr.Row(elem_id="downloads"):
            gr.HTML(text.DOWNLOADS, elem_classes="label")
            self.buttons: dict[Format, gr.Button] = {
                name: gr.Button(text.FORMATS[name], size="sm", min_width=60, interactive=False)
                for name in FORMATS
                if name != "exr" or find_spec("OpenEXR")
            }
        self.file = gr.DownloadButton(visible="hidden", elem_id="file-link")
        self._listen()
        for tab in (depth_tab, doubt_tab):
            tab.select(lambda: False, None, self.scene_open, **LIGHT, **QUIET)
        scene_tab.select(self.open_scene, *self._scene_ends, **LIGHT, **SHOWN)

    # ------------------------------------------------------------------------------- what the page shows

    def pictures(self, prediction: Prediction, colormap: Colormap) -> Update:
        """Make the two comparisons for a prediction, finished or on its way."""
        photo = self._photo(prediction)
        update: Update = {self.depth: (photo, preview(to_rgb(prediction, colormap)))}
        if prediction.uncertainty is None:
            update[self.doubt] = gr.ImageSlider(value=None, visible=False)
            update[self.doubt_note] = f"<div class='empty'><p>{text.UNCERTAINTY_NEEDS_MORE}</p></div>"
        else:
            picture = preview(uncertainty_to_rgb(prediction.uncertainty))
            update[self.doubt] = gr.ImageSlider(value=(photo, picture), visible=True)
            update[self.doubt_note] = text.UNCERTAINTY_ABOUT.format(
                members=prediction.settings.ensemble_size, mean=float(prediction.uncertainty.mean())
            )
        return update

    def finished(self, prediction: Prediction) -> Update:
        """Set the field of view to what the photo says about its camera, and offer the files that suit."""
        suitable = formats_for(prediction)
        update: Update = {button: gr.Button(interactive=name in suitable) for name, button in self.buttons.items()}
        return {**update, self.mesh[0]: round(field_of_view(prediction, MeshSettings()))}

    @property
    def result_outputs(self) -> list[gr.components.Component]:
        """The components that ``pictures`` and ``finished`` update."""
        return [self.depth, self.doubt, self.doubt_note, self.mesh[0], *self.buttons.values()]

    def build_scene(
        self, is_open: bool, result: str | None, fov_x_deg: float, near_ratio: float, edge_cut: float
    ) -> Update:
        """Make the textured mesh of the result on show, if its tab is open; the viewer cannot start while hidden."""
        if result is None or not is_open:
            return {self.scene: None}
        with telling():
            prediction = self.service.prediction(result)
            if prediction.modality != "depth":
                return {self.scene: None, self.scene_note: text.SCENE_ONLY_DEPTH}
            mesh = MeshSettings(
                fov_x_deg=fov_x_deg, near_ratio=near_ratio, edge_cut=edge_cut, max_triangles=SCENE_TRIANGLES
            )
            file = self.service.export(result, ["glb"], mesh)["glb"]
            return {
                self.scene: gr.Model3D(str(file), camera_position=camera_position(prediction, mesh)),
                self.scene_note: text.SCENE_HINT,
            }

    def open_scene(
        self, is_open: bool, result: str | None, fov_x_deg: float, near_ratio: float, edge_cut: float
    ) -> Update:
        """Remember that the tab is open and make what it shows."""
        return {self.scene_open: True, **self.build_scene(True, result, fov_x_deg, near_ratio, edge_cut)}

    def recolour(self, result: str | None, colormap: Colormap) -> Update:
        """Paint the result on show in other colours."""
        update: Update = {self.legend: legend(colormap)}
        if result is not None:
            with telling():
                prediction = self.service.prediction(result)
                update[self.depth] = (self._photo(prediction), preview(to_rgb(prediction, colormap)))
        return update

    def write(
        self, name: Format, result: str | None, colormap: Colormap, fov_x_deg: float, near_ratio: float, edge_cut: float
    ) -> str:
        """Write one format of the result on show -> its path, which the hidden link then downloads."""
        with telling():
            if result is None:
                raise ExportError(text.NO_RESULT)
            mesh = MeshSettings(fov_x_deg=fov_x_deg, near_ratio=near_ratio, edge_cut=edge_cut)
            return str(self.service.export(result, [name], mesh, colormap)[name])

    # ------------------------------------------------------------------------------- events

    def scene_after(self, event: Dependency) -> None:
        """Build the mesh whenever ``event`` has brought a new result or opened the tab."""
        event.success(self.build_scene, *self._scene_ends, **LIGHT, **SHOWN)

    @property
    def _scene_ends(self) -> tuple[list[gr.components.Component], list[gr.components.Component]]:
        return [self.scene_open, self.result, *self.mesh], [self.scene, self.scene_note, self.scene_open]

    def _listen(self) -> None:
        self.colormap.input(self.recolour, [self.result, self.colormap], [self.depth, self.legend], **LIGHT, **SHOWN)
        for slider in self.mesh:
            slider.release(self.build_scene, *self._scene_ends, **LIGHT, **SHOWN)
        for name, button in self.buttons.items():
            inputs = [self.result, self.colormap, *self.mesh]
            button.click(partial(self.write, name), inputs, self.file, **LIGHT, **SHOWN).success(None, js=DOWNLOAD_JS)

    def _photo(self, prediction: Prediction) -> str:
        """Write the photo as the page shows it; the same photo gives the same file."""
        return save_pil_to_cache(preview(prediction.photo), self.depth.GRADIO_CACHE, name="photo", format="jpeg")


def preview(picture: np.ndarray) -> Image.Image:
    """[H, W, 3] uint8 -> a picture for the page, its longest edge at most ``PREVIEW_PX``."""
    image = Image.fromarray(picture)
    image.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.LANCZOS)
    return image


def legend(colormap: Colormap) -> str:
    """Draw the colours from near to far, with what they mean in words."""
    stops = depth_to_rgb(np.linspace(0, 1, 24, dtype=np.float32)[None], colormap)[0]
    colours = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)
    return (
        f"<div class='legend'><span>{text.NEAR}</span>"
        f"<i style='background: linear-gradient(90deg, {colours})'></i><span>{text.FAR}</span>"
        f"<small>{text.RELATIVE}</small></div>"
    )


def camera_position(prediction: Prediction, mesh: MeshSettings) -> tuple[float, float, float]:
    """Place the viewer's camera behind the photo's, so far that the whole scene fits -> degrees around, from the
    zenith, and the distance to the middle of the scene in the mesh's unit."""
    z = metric_z(prediction, mesh)
    near, far = float(z.min()), float(z.max())
    height, width = z.shape
    tangent = math.tan(math.radians(field_of_view(prediction, mesh)) / 2) * max(1 / VIEW_ASPECT, height / width)
    behind = far * max(0.35, tangent / VIEW_TANGENT - 1)
    return 90, 86, (near + far) / 2 + behind


def _comparison(label: str) -> gr.ImageSlider:
    return gr.ImageSlider(
        label=label,
        show_label=False,
        format="png",
        interactive=False,
        max_height=PICTURE_HEIGHT_PX,
        buttons=["fullscreen"],
        elem_classes="comparison",
    )


def _mesh_slider(name: str, label: str, step: float, value: float | None = None) -> gr.Slider:
    low, high = bounds(MeshSettings, name)
    value = default(MeshSettings, name) if value is None else value
    return gr.Slider(
        low, high, value=value, step=step, label=label, info=text.capital(help_text(MeshSettings, name)), min_width=180
    )
