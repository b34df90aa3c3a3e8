"""The runs of this visit as a strip of small pictures; a click on one brings its result back."""

from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from typing import cast

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from marigold_core.errors import ExportError
from marigold_core.images.colormaps import to_rgb
from marigold_core.images.differences import shrink
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings, ResolvedSettings
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import REPEATED, on
from marigold_core.ui.run_controller import RunController, Screen, Update, Values, status_line
from marigold_core.ui.templates import render
from marigold_core.ui.theme import script

MOST_RUNS = 12  # on the strip; the oldest is dropped
THUMBNAIL_PX = 128  # longest edge


@dataclass(frozen=True)
class PastRun:
    """A run of this visit."""

    key: str  # of its kept result
    picture: str  # a data address
    made: tuple[str, ...]  # settings and checkpoint, in words
    identity: tuple[object, ...]  # equal for runs whose results are the same


class History(Screen):
    """The strip under the results."""

    def __init__(self, controller: RunController) -> None:
        """Draw the strip."""
        super().__init__(controller)
        self.runs = gr.State([])
        self.browser = gr.BrowserState([], storage_key="marigold-runs", secret="marigold")  # ids, for the next visit
        self.strip = gr.HTML(self.draw([], None), js_on_load=script("history.js"), elem_id="history")

    @property
    def inputs(self) -> list[Component]:
        """List the runs so far and the colours."""
        return [self.runs, *self.controller.colours.widgets.values()]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.runs, self.browser, self.strip]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Mark no run."""
        return {self.strip: self.draw(values[self.runs], None)}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Put a new run first, in place of the same one made before; a stored example is no run."""
        runs: list[PastRun] = values[self.runs]
        if prediction.device is None and isinstance(prediction.settings, ResolvedSettings):
            return {self.strip: self.draw(runs, None)}
        key = self.controller.service.keep(prediction)
        if key not in [run.key for run in runs]:
            new = _past_run(key, prediction, self.controller.colours.read(values))
            runs = [new, *(run for run in runs if run.identity != new.identity)][:MOST_RUNS]
        return {self.runs: runs, self.browser: [run.key for run in runs], self.strip: self.draw(runs, key)}

    def listen(self) -> None:
        """Bring a picked run back."""
        controller = self.controller
        controller.after(on(self.strip.click, self.on_pick, {*controller.inputs}, controller.outputs, **REPEATED))

    def on_load(self, keys: object) -> tuple[list[PastRun], str]:
        """Bring back the runs of this browser that are still kept, also those that another process has made."""
        runs = list[PastRun]()
        for key in cast(list[object], keys)[:MOST_RUNS] if isinstance(keys, list) else ():
            with suppress(ExportError):
                if isinstance(key, str):
                    runs.append(_past_run(key, self.controller.service.prediction(key), ColourSettings()))
        return runs, self.draw(runs, None)

    def on_pick(self, values: Values, event: gr.EventData) -> Update:
        """Put the picked run back on show, or report that its result is no longer kept."""
        if not self.controller.service.keeps(event.run):
            return {self.controller.status: status_line(text.RUN_GONE), self.strip: self.draw(values[self.runs], None)}
        with translate_errors():
            prediction = self.controller.service.prediction(event.run)
            made = ", ".join(_made_with(prediction))
            sentence = text.RUN_BACK.format(made=made)
            return self.controller.pick(lambda: self.controller.show_result(prediction, sentence, values), values)

    def draw(self, runs: list[PastRun], current: str | None) -> str:
        """Draw the strip, the run on show marked -> HTML."""
        kept = {run.key for run in runs if self.controller.service.keeps(run.key)}
        return render("history", runs=runs, kept=kept, current=current)


def _past_run(key: str, prediction: Prediction, colours: ColourSettings) -> PastRun:
    return PastRun(key, _thumbnail(prediction, colours), _made_with(prediction), _identity(prediction))


def _made_with(prediction: Prediction) -> tuple[str, ...]:
    """List what a result was made with, beginning with what most often differs between runs."""
    used = prediction.settings
    if not isinstance(used, ResolvedSettings):
        return prediction.checkpoint, text.GIVEN_KINDS[prediction.kind]
    steps = text.count(used.num_inference_steps, "step")
    words = [f"{steps}, {text.count(used.ensemble_size, 'member')}", text.RUN_SEED.format(seed=used.seed)]
    if used.processing_resolution:
        words.append(f"{used.processing_resolution} px")
    if used.tiles_per_side > 1:
        words.append(text.RUN_TILES.format(per_side=used.tiles_per_side))
    if prediction.kind == "metric":
        words.append(text.RUN_METRES)
    return (*words, prediction.checkpoint)


def _identity(prediction: Prediction) -> tuple[object, ...]:
    """Gather what decides a result; of several calibrations of a run, the last one takes the place of the others."""
    used = prediction.settings
    if isinstance(used, ResolvedSettings):
        used = used.changed(batch_size=None)
    return sha256(prediction.photo.tobytes()).digest(), prediction.checkpoint_sha256, used, prediction.kind


def _thumbnail(prediction: Prediction, colours: ColourSettings) -> str:
    small = replace(prediction, values=shrink(prediction.values, THUMBNAIL_PX, kind=prediction.kind))
    file = BytesIO()
    Image.fromarray(to_rgb(small, colours)).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
