"""Where the members of an ensemble disagree, whether more of them would change anything, and what each of them says.

Everything is drawn from the prediction on show; only "add more" runs the model, and only for the members to add.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.errors import CheckpointError, ExportError
from marigold_core.images.colormaps import uncertainty_to_rgb
from marigold_core.images.photo import Photo
from marigold_core.pipeline.convergence import Settling, curve
from marigold_core.prediction import Prediction
from marigold_core.settings import Settings, bounds
from marigold_core.ui import text
from marigold_core.ui.controls.settings import checkpoint_choices
from marigold_core.ui.error_messages import telling
from marigold_core.ui.events import LIGHT, MODEL, QUIET
from marigold_core.ui.pictures import BOX_JS, draw_comparison, photo_file, preview
from marigold_core.ui.run_controller import Stage, Update, Values
from marigold_core.ui.screens.convergence import amount, draw_curve, draw_hint, draw_votes
from marigold_core.ui.screens.layers import DOUBT, Look
from marigold_core.ui.screens.legend import draw_keys
from marigold_core.ui.theme import ASSETS

MORE = 5  # members that the button adds
MOST = int(bounds(Settings, "ensemble_size")[1])
BELOW = 1.0  # per cent of the depth range: as near to the map of 20 members as 10 are (tests/bench/stopping.py)
PICK_JS = BOX_JS + (ASSETS / "votes.js").read_text(encoding="utf-8")


class Uncertainty:
    """The screen of doubt."""

    def __init__(self, stage: Stage) -> None:
        """Draw the comparison of photo and spread, the curve, the votes, and the two ways to change their number."""
        self.stage = stage
        with gr.Column(elem_id="doubt"):
            self.doubt = draw_comparison(text.UNCERTAINTY)
        self.note = gr.HTML(elem_classes="note")
        with gr.Row(elem_id="evidence"):
            with gr.Column(min_width=300):
                self.curve = gr.HTML()
            with gr.Column(min_width=300):
                self.votes = gr.HTML(draw_hint(text.VOTES_NONE), js_on_load=PICK_JS, elem_id="votes")
                self.pixel = gr.Textbox(label=text.PIXEL, placeholder=text.PIXEL_FORM, max_length=20, elem_id="pixel")
        with gr.Row(elem_id="members"):
            with gr.Column(min_width=300):
                self.stops = gr.Checkbox(False, label=text.STOPS, info=text.STOPS_INFO, container=False)
                self.below = gr.Slider(0.1, 2, value=BELOW, step=0.05, label=text.BELOW)
            with gr.Column(min_width=300):
                self.more = gr.Button(text.MORE.format(number=MORE), interactive=False, elem_id="more")
                self.why = gr.HTML(elem_classes="note")

    @property
    def inputs(self) -> list[Component]:
        """List the rule and the pixel."""
        return [self.stops, self.below, self.pixel]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.doubt, self.note, self.curve, self.votes, self.more, self.why]

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Paint the spread, or say why there is none, and draw the curve as far as it goes."""
        return {
            **_paint(prediction, self.doubt, self.note),
            self.curve: draw_curve(curve(prediction), values[self.below] / 100, prediction.modality),
            self.votes: draw_votes(prediction, _pixel(values[self.pixel])),
        }

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer more members, or say why there can be none."""
        used = prediction.settings.ensemble_size
        number = min(MORE, MOST - used)
        why = text.MORE_NONE if prediction.members is None else text.MORE_FULL.format(most=MOST) if not number else ""
        label = text.MORE.format(number=number or MORE)
        return {self.more: gr.Button(label, interactive=not why), self.why: why}

    def listen(self) -> None:
        """Wire the rule's line, the picked pixel, and the button."""
        result = self.stage.result
        self.below.input(self.on_rule, [result, self.below], self.curve, trigger_mode="always_last", **LIGHT, **QUIET)
        self.votes.click(self.on_click, result, self.pixel, **LIGHT, **QUIET)
        self.pixel.change(self.on_pixel, [result, self.pixel], self.votes, trigger_mode="always_last", **LIGHT, **QUIET)
        job = self.more.click(
            self.on_more,
            {self.stage.result, *self.stage.inputs},
            self.stage.outputs,
            trigger_mode="once",
            **MODEL,
            **QUIET,
        )
        self.stage.jobs.append(job)

    def after(self, event: Dependency) -> None:
        """Do nothing: drawing is quick."""

    def follow(self, photo: str, asked: Settings, checkpoint: str, values: Values) -> Iterator[Update]:
        """Run the model and show every member, until the map has settled where that is wanted."""
        service = self.stage.service
        if not values[self.stops]:
            yield from self.stage.follow(service.run(photo, asked, checkpoint), values)
            return
        one_by_one = asked.changed(batch_size=1)  # a member not needed is one not begun
        below = values[self.below] / 100
        run = Settling(service.run(photo, one_by_one, checkpoint), asked.ensemble_size, below)
        yield from self.stage.follow(iter(run), values)
        if run.settled:
            yield self.stage.rest(text.SETTLED.format(used=run.used, asked=run.asked, seconds=run.saved_s))

    def on_more(self, values: Values) -> Iterator[Update]:
        """Add members to the result on show; those that it has are not computed again."""
        with telling():
            held = self._held(values[self.stage.result])
            used = held.settings.ensemble_size
            asked = held.settings.changed(ensemble_size=min(used + MORE, MOST))
            photo = Photo(held.photo, held.fov_x_deg, None)
            run = self.stage.service.run(photo, asked, _checkpoint_of(held), start=held)
            yield from self.stage.follow(run, values)

    def on_rule(self, result: str | None, below: float) -> str:
        """Draw the curve again for another threshold."""
        with telling():
            held = self._held(result)
            return draw_curve(curve(held), below / 100, held.modality)

    def on_click(self, result: str | None, event: gr.EventData) -> str:
        """Name the pixel that was clicked, which comes in shares of the photo's width and height."""
        with telling():
            height, width = self._held(result).photo.shape[:2]
            x, y = (min(max(int(share * side), 0), side - 1) for share, side in ((event.u, width), (event.v, height)))
            return f"{x}, {y}"

    def on_pixel(self, result: str | None, pixel: str | None) -> str:
        """Draw the votes of another pixel."""
        with telling():
            return draw_votes(self._held(result), _pixel(pixel))

    def _held(self, result: str | None) -> Prediction:
        """Return the result on show. Raises: ExportError when there is none any more."""
        if result is None:
            raise ExportError(text.NO_RESULT)
        return self.stage.service.prediction(result)


def _paint(prediction: Prediction, picture: gr.ImageSlider, note: gr.HTML) -> Update:
    """Paint the spread with its legend, or say why there is none."""
    spread = prediction.uncertainty
    if spread is None:
        empty = f"<div class='empty'><p>{text.UNCERTAINTY_NEEDS_MORE}</p></div>"
        return {picture: gr.ImageSlider(value=None, visible=False), note: empty}
    mean = float(spread.mean())
    said = f"{mean:.2f} m" if prediction.kind == "metric" else amount(mean, prediction.modality)
    if prediction.kind in ("affine", "scale"):
        said += text.OF_RANGE
    about = text.UNCERTAINTY_ABOUT.format(members=prediction.settings.ensemble_size, mean=said)
    return {
        picture: gr.ImageSlider(value=(photo_file(prediction), preview(uncertainty_to_rgb(spread))), visible=True),
        note: f"{draw_keys(prediction, [DOUBT], Look())}<p>{about}</p>",
    }


def _pixel(words: str | None) -> tuple[int, int] | None:
    """Read "312, 200" -> (x, y); None for anything else."""
    numbers = re.fullmatch(r"\s*(\d{1,5})\s*[,;\s]\s*(\d{1,5})\s*", words or "")
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _checkpoint_of(prediction: Prediction) -> str:
    """Name the checkpoint of a result as the picker does. Raises: CheckpointError when it has it no longer."""
    names = [name for _, name in checkpoint_choices()]
    made_with = prediction.checkpoint
    for name in names:
        if made_with in (name, Path(name).expanduser().resolve().name):
            return name
    raise CheckpointError(text.UNKNOWN_CHECKPOINT.format(name=made_with, names=", ".join(names)))
