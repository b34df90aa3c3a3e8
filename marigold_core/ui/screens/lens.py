"""The lens screen: a click says what is sharp, all else is blurred; a clip of the photo in which the camera moves."""

import secrets
from collections.abc import Generator
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.utils import get_upload_folder

from marigold_core.errors import ExportError
from marigold_core.prediction import Prediction, Progress
from marigold_core.settings import default
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import REPEATED, SHAPING, follow, on
from marigold_core.ui.pictures import file_address, preview, preview_size
from marigold_core.ui.run_controller import Pace, RunController, Screen, Update, Values, button_note
from marigold_core.ui.templates import render
from marigold_core.ui.text import lens as lens_text
from marigold_core.video.settings import DefocusSettings, ParallaxSettings

INVENTED = np.array([255, 0, 200])  # the colour that marks pixels that the photo does not show
CLIP = ParallaxSettings(seconds=3.0, rate=20, longest_px=720)


class LensScreen(Screen):
    """The picture to click, the aperture, and the clip."""

    def __init__(self, controller: RunController) -> None:
        """Draw it into the current tab."""
        super().__init__(controller)
        self.focus = gr.State(None)  # the pixel of the photo that is sharp
        self.about = gr.HTML(button_note(lens_text.ABOUT), elem_classes="note")
        self.picture = gr.Image(
            label=lens_text.PICTURE,
            show_label=False,
            interactive=False,
            format="png",
            buttons=["download", "fullscreen"],
            alt_text=lens_text.PICTURE_ALT,
            elem_id="lens-picture",
        )
        with gr.Row():
            self.aperture = gr.Slider(
                0, 0.1, value=default(DefocusSettings, "aperture"), step=0.005, label=lens_text.APERTURE
            )
            self.marked = gr.Checkbox(False, label=lens_text.MARKED, info=lens_text.MARKED_INFO)
        with gr.Row(elem_classes="take"):
            self.make = gr.Button(lens_text.MAKE, size="sm", scale=0, interactive=False, elem_id="lens-make")
            self.note = gr.HTML(button_note(lens_text.MAKE_ABOUT))
        self.clip = gr.HTML("", apply_default_css=False, elem_id="lens-clip")

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.picture, self.focus, self.make, self.note, self.clip]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Show nothing."""
        off = {self.make: gr.Button(interactive=False), self.note: button_note(lens_text.MAKE_ABOUT)}
        return {self.picture: None, self.focus: None, self.clip: "", **off}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Show the photo, all sharp, or why it cannot be blurred."""
        is_depth = prediction.modality == "depth"
        about = lens_text.MAKE_ABOUT if is_depth else text.SCENE_ONLY_DEPTH[prediction.modality]
        return {
            self.picture: preview(prediction.photo),
            self.focus: None,
            self.make: gr.Button(interactive=is_depth),
            self.note: button_note(about),
            self.clip: "",
        }

    def listen(self) -> None:
        """Blur at a click and with another aperture, and make the clip."""
        mesh = {*self.controller.mesh.widgets.values()}
        given = {self.controller.result, self.focus, self.aperture, self.marked, *mesh}
        on(self.picture.select, self.on_click, given, [self.picture, self.focus], SHAPING, shown=True, **REPEATED)
        follow([self.aperture.release, self.marked.input], self.on_change, given, self.picture, SHAPING, shown=True)
        on(self.make.click, self.on_make, {self.controller.result, *mesh}, [self.clip, self.note], SHAPING)

    def on_click(self, values: Values, event: gr.SelectData) -> Update:
        """Make the clicked pixel sharp."""
        with translate_errors():
            height, width = self.controller.shown(values[self.controller.result]).photo_size
            scale = preview_size((height, width))[0] / width
            x, y = (float(side) / scale for side in event.index)
            focus = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            return {self.picture: self._picture(values, focus), self.focus: focus}

    def on_change(self, values: Values) -> str | None:
        """Blur more or less, once there is a focus, or mark what is invented."""
        with translate_errors():
            if values[self.controller.result] is None:
                return None
            if values[self.focus] is None:
                return preview(self.controller.shown(values[self.controller.result]).photo)
            return self._picture(values, values[self.focus])

    def _picture(self, values: Values, focus: tuple[float, float]) -> str:
        from marigold_core.video.defocus import defocus

        prediction = self.controller.shown(values[self.controller.result])
        if prediction.modality != "depth":
            raise ExportError(text.SCENE_ONLY_DEPTH[prediction.modality])
        lens = DefocusSettings(focus=(float(focus[0]), float(focus[1])), aperture=float(values[self.aperture]))
        picture, invented = defocus(prediction, lens, self.controller.mesh.read(values))
        if values[self.marked]:
            picture = np.where(invented[..., None], INVENTED.astype(np.uint8), picture)
        return preview(picture)

    def on_make(self, values: Values) -> Generator[Update]:
        """Make the clip, telling how far it is."""
        from marigold_core.video.parallax import stream_parallax

        with translate_errors():
            prediction = self.controller.shown(values[self.controller.result])
            folder, pace = Path(get_upload_folder()) / secrets.token_hex(16), Pace()
            for event in stream_parallax(prediction, folder, CLIP, self.controller.mesh.read(values)):
                if isinstance(event, Progress):
                    if pace.is_due:
                        yield {self.note: button_note(text.capital(event.stage))}
                        pace.wait(0)
                    continue
                clips = [(lens_text.CLIPS[name], file_address(path)) for name, path in event.items()]
                yield {self.clip: render("clip", clips=clips), self.note: button_note(lens_text.MADE)}
