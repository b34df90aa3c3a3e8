"""The runs of this visit as a strip of small pictures; each brings its result back on show."""

import html
from base64 import b64encode
from dataclasses import dataclass, replace
from io import BytesIO

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency
from PIL import Image

from marigold_core.images.colormaps import to_rgb
from marigold_core.images.differences import shrink
from marigold_core.prediction import Prediction
from marigold_core.settings import Colormap
from marigold_core.ui import text
from marigold_core.ui.error_messages import telling
from marigold_core.ui.events import LIGHT, QUIET
from marigold_core.ui.run_controller import Stage, Update, Values, said

MOST_RUNS = 12  # on the strip; the oldest leaves it
THUMBNAIL_PX = 128  # longest edge

# The strip is drawn anew with every run; a button that had the focus has it again.
PICK_JS = """
let picked = null;
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-run]');
  if (!button) return;
  picked = button.dataset.run;
  trigger('click', {run: picked});
});
watch('value', () => {
  if (picked && document.activeElement === document.body) element.querySelector(`[data-run="${picked}"]`)?.focus();
});
"""


@dataclass(frozen=True)
class Past:
    """A run of this visit."""

    key: str  # of its kept result
    picture: str  # a data address
    made: tuple[str, ...]  # what it was made with, in words


class History:
    """The strip under the results."""

    def __init__(self, stage: Stage, colormap: gr.Dropdown) -> None:
        """Draw the strip; its pictures have the colours that ``colormap``, a widget of another screen, shows."""
        self.stage, self.colormap = stage, colormap
        self.runs = gr.State([])
        self.strip = gr.HTML(self.draw([], None), js_on_load=PICK_JS, elem_id="history")

    @property
    def inputs(self) -> list[Component]:
        """List the runs so far and the colours."""
        return [self.runs, self.colormap]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.runs, self.strip]

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Change nothing: a run is remembered when it is finished."""
        return {}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Put a new run first; a result that was stored with the program is none, and says so by having no device."""
        runs: list[Past] = values[self.runs]
        if prediction.device is None:
            return {self.strip: self.draw(runs, None)}
        key = self.stage.service.keep(prediction)
        if key not in [run.key for run in runs]:
            picture = _thumbnail(prediction, values[self.colormap])
            runs = [Past(key, picture, _made_with(prediction)), *runs][:MOST_RUNS]
        return {self.runs: runs, self.strip: self.draw(runs, key)}

    def listen(self) -> None:
        """Bring a run back when it is picked."""
        self.stage.after(self.strip.click(self.on_pick, {*self.stage.inputs}, self.stage.outputs, **LIGHT, **QUIET))

    def after(self, event: Dependency) -> None:
        """Do nothing: the strip is quickly drawn."""

    def on_pick(self, values: Values, event: gr.EventData) -> Update:
        """Put the picked run back on show, or say that its result had to make room."""
        runs: list[Past] = values[self.runs]
        picked = next((run for run in runs if run.key == event.run), None)
        if picked is None or not self.stage.service.keeps(picked.key):
            return {self.stage.status: said(text.RUN_GONE), self.strip: self.draw(runs, None)}
        with telling():
            prediction = self.stage.service.prediction(picked.key)
            return self.stage.present(
                prediction, text.RUN_BACK.format(made=html.escape(", ".join(picked.made))), values
            )

    def draw(self, runs: list[Past], current: str | None) -> str:
        """Draw the strip, the run on show marked."""
        if not runs:
            return f"<p class='empty-strip'>{text.NO_RUNS}</p>"
        items = "".join(f"<li>{self._draw_run(run, run.key == current)}</li>" for run in runs)
        return f"<p>{text.RUNS}</p><ol>{items}</ol>"

    def _draw_run(self, run: Past, is_current: bool) -> str:
        kept = self.stage.service.keeps(run.key)
        made = html.escape(", ".join(run.made), quote=True)
        label = made if kept else f"{made}. {text.RUN_GONE_SHORT}"
        first, second = html.escape(run.made[0]), html.escape(run.made[1]) if kept else text.RUN_GONE_SHORT
        return (
            f"<button type='button' data-run='{run.key}' aria-pressed='{str(is_current).lower()}' aria-label='{label}'"
            f" title='{label}' class='{'' if kept else 'gone'}'><img src='{run.picture}' alt=''>"
            f"<span>{first}<br>{second}</span></button>"
        )


def _made_with(prediction: Prediction) -> tuple[str, ...]:
    """Say what a result was made with, what tells runs apart first."""
    used = prediction.settings
    steps = text.count(used.num_inference_steps, "step")
    words = [f"{steps}, {text.count(used.ensemble_size, 'member')}", text.RUN_SEED.format(seed=used.seed)]
    if used.processing_resolution:
        words.append(f"{used.processing_resolution} px")
    if prediction.kind == "metric":
        words.append(text.RUN_METRES)
    return (*words, prediction.checkpoint)


def _thumbnail(prediction: Prediction, colormap: Colormap) -> str:
    small = replace(prediction, values=shrink(prediction.values, THUMBNAIL_PX))
    file = BytesIO()
    Image.fromarray(to_rgb(small, colormap)).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
