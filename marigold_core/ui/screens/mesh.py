"""The 3D screen: the result as a mesh, points, a relief to print or surface normals, built while its tab is open.

Every control is a field of ``MeshSettings``, from which the files are made too, so that they are what is seen.
"""

import math
from collections.abc import Sequence
from time import sleep
from typing import Any, Literal

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.events import Dependency
from gradio.processing_utils import save_bytes_to_cache

from marigold_core.calibration.calibrate import Measured
from marigold_core.geometry.camera import (
    DEFAULT_FOV_DEG,
    DEFAULT_NEAR_RATIO,
    bands_of_normals,
    default_fov_x_deg,
    field_of_view,
    near_ratio,
)
from marigold_core.geometry.points import point_cloud
from marigold_core.geometry.preview import centred, points_glb, read_vertices, relief_glb
from marigold_core.geometry.relief import Solid, measure, relief
from marigold_core.images.colormaps import normals_to_rgb
from marigold_core.prediction import Prediction
from marigold_core.settings import Format, MeshSettings, bounds, default, help_text
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LAST, NO_CHANGE, REPEATED, SHAPING, SHOWN, follow, on
from marigold_core.ui.pictures import PICTURE_HEIGHT_PX, draw_comparison, photo_file, preview
from marigold_core.ui.run_controller import RunController, Screen, Update, Values

Shape = Literal["mesh", "relief", "points", "normals"]
FILES: dict[Shape, Format] = {"mesh": "glb", "relief": "stl", "points": "ply"}
FIELDS: dict[str, tuple[float, set[Shape]]] = {  # of MeshSettings: step of its slider, and the shapes it changes
    "fov_x_deg": (0.1, {"mesh", "points", "normals"}),
    "near_ratio": (0.01, {"mesh", "points", "normals"}),
    "relief_mm": (5, {"relief"}),
    "relief_height_mm": (1, {"relief"}),
    "edge_cut": (0.01, {"mesh", "points"}),
    "uncertainty_cut": (0.005, {"mesh", "points"}),
    "near_clip": (0.01, {"mesh", "points", "relief"}),
    "far_clip": (0.01, {"mesh", "points", "relief"}),
    "smoothing": (0.005, {"mesh", "points", "relief", "normals"}),
    "relief_base_mm": (0.5, {"relief"}),
    "max_triangles": (1000, {"mesh", "points", "relief"}),
}
ASSUMED = {"fov_x_deg": DEFAULT_FOV_DEG, "near_ratio": DEFAULT_NEAR_RATIO}  # of a photo that is not known yet
SEEN_DEG = 0.06  # a field of view is shown with one digit after the point
MAIN = ("fov_x_deg", "near_ratio", "relief_mm", "relief_height_mm")  # the others lie in the fold
MOST_TRIANGLES = 500_000  # what a browser still rotates smoothly; the command line makes more
VIEW_ASPECT = 4 / 3  # the 3D viewer is at least this much wider than high
VIEW_TANGENT = 0.41  # of half the 3D viewer's own field of view, less a margin
IN_VIEW = (
    0.98  # share of the vertices that the first view holds; a few near the photo's edge would push all others away
)
RELIEF_FROM = np.array([0.35, 0.37, 0.86])  # where a relief is seen from: a little from the right and above

MOUNT_S = 0.6  # the tab is drawn first: Gradio's viewer may not draw a file that arrives while it is mounted
UNNOTICED = 1e-4  # degrees that the camera is turned by: the viewer follows a new position alone
HIDDEN = "hidden"  # in the place of a file, while the viewer is hidden by the picture of the normals


class MeshScreen(Screen):
    """The 3D viewer, the choice of a shape, and its controls."""

    def __init__(self, controller: RunController, tab: gr.Tab) -> None:
        """Draw it into ``tab``, the current one."""
        super().__init__(controller, tab)
        self.file = gr.State(None)  # of the viewer: set twice while it loads, the same one leaves it empty
        self.seen = gr.State(None)  # result and shape that the viewer's camera was placed for
        self.shape = gr.Radio(
            [(label, name) for name, label in text.SHAPES.items()],
            value="mesh",
            label=text.SHAPE,
            show_label=False,
            elem_id="shape",
        )
        self.scene = gr.Model3D(
            label=text.SCENE_TAB,
            show_label=False,
            interactive=False,
            display_mode="solid",
            height=PICTURE_HEIGHT_PX,
            clear_color=(0.07, 0.08, 0.1, 1.0),
            elem_id="scene",
        )
        self.normals = draw_comparison(text.SHAPES["normals"], visible=False)
        self.note = gr.HTML(text.SCENE_HINT, elem_classes="note", elem_id="shape-note")
        with gr.Row(elem_id="shape-main"):
            main = {name: _slider(name) for name in MAIN}
        with gr.Accordion(text.SHAPE_MORE, open=False, elem_id="shape-more"), gr.Row():
            self.mesh = {name: main[name] if name in main else _slider(name) for name in FIELDS}
        controller.mesh.widgets.update(self.mesh)

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes at once."""
        return [*self._changed, *(self.mesh[name] for name in ("fov_x_deg", "near_ratio", "uncertainty_cut"))]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Take the shape away."""
        front = {self.normals: gr.ImageSlider(None, visible=False), self.note: text.SCENE_HINT}
        return {self.scene: gr.Model3D(None, visible=True), self.file: None, **front}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Set the camera to what is known or assumed of it, and offer the controls that suit the result.

        Where the result before says the same of the same photo, the camera stays as the visitor has set it.
        """
        before = self.controller.shown_of(prediction.photo, values)
        fov_x_deg = round(field_of_view(prediction, MeshSettings()), 2)
        nearest = round(near_ratio(prediction, MeshSettings()), 2)
        cut = gr.Slider(interactive=True)
        if prediction.uncertainty is None:
            cut = gr.Slider(value=default(MeshSettings, "uncertainty_cut"), interactive=False)
        update: Update = {self.mesh["uncertainty_cut"]: cut}
        is_other = before is None or before.fov_x_deg != prediction.fov_x_deg
        if is_other:
            update[self.mesh["fov_x_deg"]] = gr.Slider(value=fov_x_deg, info=fov_source(prediction, fov_x_deg))
        if is_other or (before and before.kind != prediction.kind):
            update[self.mesh["near_ratio"]] = gr.Slider(value=nearest, interactive=prediction.kind == "affine")
        return update

    def listen(self) -> None:
        """Build when the tab is opened or a control is moved; nothing is built while it is closed."""
        assert self.tab is not None
        moved, fov = [slider.release for slider in self.mesh.values()], self.mesh["fov_x_deg"]
        # A control that is moved while the shape of another is built counts as well.
        given = [self.scene, *self._given]
        follow(moved, self.rebuild, given, self._changed, SHAPING, shown=True)
        follow(fov.release, self.explain, [self.controller.result, fov], fov)
        self.after(follow(self.shape.input, self.choose, self.shape, list(self.mesh.values())))
        on(self.tab.select, self.open, {*self._given}, self._changed, SHAPING, shown=True, **REPEATED)

    def after(self, event: Dependency) -> None:
        """Build the shape of a new result."""
        event.success(self.build, {*self._given}, self._changed, **LAST, **SHAPING, **SHOWN)

    def rebuild(self, scene: gr.Model3D, *held: object) -> Update:
        """Build the shape anew; the camera stays where the person has turned it."""
        camera = scene.camera_position  # as it is now; without numbers where nothing was shown yet
        return self.build(dict(zip(self._given, held, strict=True)), () if None in camera else camera)

    def choose(self, shape: Shape) -> Update:
        """Show the controls that change a shape, and no others."""
        return {
            self.mesh[name]: gr.Slider(visible=True if shape in shapes else "hidden")
            for name, (_, shapes) in FIELDS.items()
        }

    def open(self, values: Values) -> Update:
        """Build the shape once its viewer is there, which cannot start while hidden."""
        if not values[self.file]:
            sleep(MOUNT_S)
        return self.build(values)

    def build(self, values: Values, camera: Sequence[Any] = ()) -> Update:
        """Build the chosen shape of the result on show, if the tab is open; ``camera`` is where the viewer's stands."""
        result, shape = values[self.controller.result], values[self.shape]
        if result is None or not self.is_seen(values):
            hidden = values[self.file] == HIDDEN
            return {
                self.scene: None if values[self.file] and not hidden else NO_CHANGE,
                self.file: HIDDEN if hidden else None,
            }
        with translate_errors():
            prediction, mesh = self.controller.service.prediction(result), self.controller.mesh.read(values)
            if shape == "normals" and not prediction.layers:
                return self._show_normals(prediction, mesh)
            front: Update = {self.normals: gr.ImageSlider(None, visible=False)}
            if prediction.modality != "depth":
                empty: Update = {self.scene: gr.Model3D(None, visible=True), self.file: None}
                return {**front, **empty, self.note: text.SCENE_ONLY_DEPTH[prediction.modality]}
            file = self.controller.service.export(result, [FILES[shape]], mesh)[FILES[shape]]
            glb, solid = file.read_bytes() if shape == "mesh" else b"", None
            if shape == "relief":
                body = relief(prediction, mesh)
                glb, solid = relief_glb(body), measure(body)
            elif shape == "points":
                glb = points_glb(point_cloud(prediction, mesh))
            vertices, triangles = read_vertices(glb)
            in_front = shape != "relief"
            shown = save_bytes_to_cache(centred(glb) if in_front else glb, f"{shape}.glb", self.scene.GRADIO_CACHE)
            scene = NO_CHANGE  # Gradio's viewer may stay empty when it is updated while its own code still loads
            if shown != values[self.file]:
                place = camera_position(vertices, None if in_front else RELIEF_FROM)
                if camera and values[self.seen] == (result, shape):
                    place = camera[0] + UNNOTICED, camera[1], camera[2]
                again: dict[str, Any] = {"visible": True} if values[self.file] == HIDDEN else {}
                scene = gr.Model3D(shown, camera_position=place, **again)
            about = describe(shape, len(vertices), triangles, solid, file.stat().st_size)
            note = f"<p>{about}</p><p>{text.SCENE_HINT}</p>"
            return {**front, self.scene: scene, self.file: shown, self.seen: (result, shape), self.note: note}

    def explain(self, result: str | None, fov_x_deg: float) -> Update:
        """Write where the field of view comes from, after it was moved."""
        if result is None:
            return {self.mesh["fov_x_deg"]: NO_CHANGE}
        with translate_errors():
            source = fov_source(self.controller.service.prediction(result), fov_x_deg)
            return {self.mesh["fov_x_deg"]: gr.Slider(info=source)}

    def _show_normals(self, prediction: Prediction, mesh: MeshSettings) -> Update:
        """Paint which way every surface faces."""
        picture = preview(np.concatenate([normals_to_rgb(band) for band in bands_of_normals(prediction, mesh)]))
        return {
            self.scene: gr.Model3D(visible="hidden"),  # a viewer that was taken away is slow to come back
            self.file: HIDDEN,
            self.normals: gr.ImageSlider((photo_file(prediction.photo), picture), visible=True),
            self.note: f"<p>{text.NORMALS_ABOUT}</p>",
        }

    @property
    def _given(self) -> list[Component]:
        return [self.controller.open_tab, self.file, self.seen, self.controller.result, self.shape, *self.mesh.values()]

    @property
    def _changed(self) -> list[Component]:
        return [self.scene, self.file, self.seen, self.normals, self.note]


def _slider(name: str) -> gr.Slider:
    step, shapes = FIELDS[name]
    low, high = bounds(MeshSettings, name)
    return gr.Slider(
        low,
        min(high, MOST_TRIANGLES),
        value=ASSUMED.get(name, default(MeshSettings, name)),
        step=step,
        precision=0 if step >= 1000 else None,
        label=text.MESH_LABELS[name],
        info=text.FOV_ASSUMED if name == "fov_x_deg" else text.capital(help_text(MeshSettings, name)),
        min_width=300,
        visible=True if "mesh" in shapes else "hidden",
    )


def fov_source(prediction: Prediction, fov_x_deg: float) -> str:
    """Write where a field of view in degrees comes from."""
    known = prediction.fov_x_deg
    if known is None:
        assumed = abs(fov_x_deg - default_fov_x_deg(prediction)) < SEEN_DEG
        return text.FOV_ASSUMED if assumed else text.FOV_GIVEN
    measured = isinstance(prediction, Measured) and prediction.hints.fov_x_deg is not None
    origin = text.FOV_MEASURED if measured else text.FOV_EXIF
    if abs(fov_x_deg - known) < SEEN_DEG:
        return text.FOV_KNOWN.format(origin=origin)
    return text.FOV_CHANGED.format(known=known, origin=origin)


def describe(shape: Shape, vertices: int, triangles: int, solid: Solid | None, size_bytes: int) -> str:
    """Write what a shape consists of, and how large its file is."""
    file = f"{FILES[shape].upper()}, {text.size(size_bytes)}"
    if shape == "points":
        return text.POINTS_FACTS.format(points=vertices, file=file)
    if solid is None:
        return text.MESH_FACTS.format(triangles=triangles, file=file)
    width, height, thickness = solid.size_mm
    return text.RELIEF_FACTS.format(
        closed=text.WATERTIGHT if solid.watertight else text.NOT_WATERTIGHT,
        width=width,
        height=height,
        thickness=thickness,
        volume=solid.volume_cm3,
        weight=solid.weight_g,
        triangles=triangles,
        file=file,
    )


def camera_position(vertices: np.ndarray, away: np.ndarray | None = None) -> tuple[float, float, float]:
    """Vertices [N, 3], y up -> the viewer's camera: azimuth and angle from the zenith in degrees, and distance.

    It looks at the middle of the vertices' box from the direction ``away``; by default along the photo's own axis, at
    the middle of the box that ``centred`` makes. The distance is the smallest at which nearly all vertices are in view.
    """
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    if away is None:
        middle, away = np.array([0, 0, middle[2]]), np.array([0, 0, 1])
    back = away / np.linalg.norm(away)
    right = np.cross((0, 1, 0), back) / np.hypot(back[0], back[2])
    seen = vertices - middle
    aside = np.maximum(abs(seen @ right) / VIEW_ASPECT, abs(seen @ np.cross(back, right)))
    distance = float(np.quantile(aside / VIEW_TANGENT + seen @ back, IN_VIEW))
    return math.degrees(math.atan2(back[2], back[0])), math.degrees(math.acos(back[1])), distance
