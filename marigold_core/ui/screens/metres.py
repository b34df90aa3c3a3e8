"""Metres from what a visitor knows: points marked on the photo, solved at every change, and distances measured.

The result on show is what the hints say: in metres where they determine them, as the model gave it where they do not.
"""

from dataclasses import replace

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.calibration.calibrate import Calibrated, Hints, calibrate, check_hints, check_metric, distance_m
from marigold_core.errors import CalibrationError, ExportError
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings, bounds
from marigold_core.ui import text
from marigold_core.ui.error_messages import telling
from marigold_core.ui.events import MARKING, QUIET
from marigold_core.ui.run_controller import Stage, Update, Values
from marigold_core.ui.screens.annotations import MODES, Marks, Mode, Point
from marigold_core.ui.screens.measure_overlay import draw_marks, drawn_scale
from marigold_core.ui.screens.results_table import findings
from marigold_core.ui.text import metres as metres_text

REMOVE_JS = """element.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-row]');
    if (button) trigger('click', { row: Number(button.dataset.row) });
});"""


class Measure:
    """The screen of metres."""

    def __init__(self, stage: Stage) -> None:
        """Draw the photo to mark and, beside it, what is known and what it has led to."""
        self.stage = stage
        self.marks = gr.State(Marks())
        with gr.Row(elem_id="metres", equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self.picture = gr.Image(
                    label=metres_text.MARKS,
                    show_label=False,
                    interactive=False,
                    format="jpeg",
                    buttons=[],
                    alt_text=metres_text.MARKS_ALT,
                    elem_id="marks",
                )
                self.found = gr.HTML(metres_text.METRES_NONE, js_on_load=REMOVE_JS, elem_id="found")
                self.clear = gr.Button(metres_text.CLEAR_HINTS, size="sm", elem_id="clear")
            with gr.Column(scale=2, min_width=290, elem_id="hints"):
                self._draw_hints()
        with gr.Accordion(metres_text.METRES_KNOWN, open=False):
            gr.HTML(metres_text.METRES_KNOWN_LIST, elem_classes="note")

    def _draw_hints(self) -> None:
        self.mode = gr.Radio(
            [(metres_text.MODES[name], name) for name in MODES], value=MODES[0], label=metres_text.KNOW
        )
        self.help = gr.HTML(metres_text.MODE_HELP[MODES[0]], elem_classes="note", elem_id="mode-help")
        with gr.Row(elem_classes="numbers"):
            self.x = gr.Number(label=metres_text.POINT_X, min_width=60)
            self.y = gr.Number(label=metres_text.POINT_Y, min_width=60)
            self.point = gr.Button(metres_text.MARK_POINT, size="sm", min_width=90)
        with gr.Row(elem_classes="numbers"):
            self.metres = gr.Number(label=metres_text.METRES_VALUE, min_width=80)
            self.add = gr.Button(metres_text.ADD_HINT, variant="primary", size="sm", min_width=90)
        self.typed = [self.x, self.y, self.metres]
        self.tape = gr.Checkbox(label=metres_text.BY_TAPE, info=metres_text.BY_TAPE_INFO)
        low, high = bounds(MeshSettings, "fov_x_deg")
        self.fov = gr.Number(
            label=metres_text.CAMERA_VIEW, info=metres_text.CAMERA_VIEW_INFO, minimum=low, maximum=high
        )

    @property
    def inputs(self) -> list[Component]:
        """List nothing: a new result begins without marks."""
        return []

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.picture, self.found, self.marks, self.fov, *self.typed]

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Change nothing: marks belong to a finished result."""
        return {}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Begin anew, or with the hints that the result came from."""
        marks = Marks(prediction.hints if isinstance(prediction, Calibrated) else Hints())
        return {**self._draw(prediction, marks, MODES[0]), **dict.fromkeys(self.typed)}

    def listen(self) -> None:
        """Mark, add, remove and measure; every change of a hint solves them all again."""
        stage = self.stage
        asked = [self.mode, self.x, self.y, self.metres, self.tape, self.fov]
        given = {self.marks, stage.result, *asked, *stage.inputs}
        drawn = [self.picture, self.found, self.marks]
        self.picture.select(self.on_click, given, [*drawn, self.x, self.y], **MARKING, **QUIET)
        gr.on([self.point.click, self.y.submit], self.on_point, given, drawn, **MARKING, **QUIET)
        self.mode.input(self.on_mode, given, [*drawn, self.help, self.metres, self.add, self.tape], **MARKING, **QUIET)
        for event in (
            gr.on([self.add.click, self.metres.submit], self.on_add, given, stage.outputs, **MARKING, **QUIET),
            gr.on([self.fov.submit, self.fov.blur], self.on_view, given, stage.outputs, **MARKING, **QUIET),
            self.found.click(self.on_remove, given, stage.outputs, **MARKING, **QUIET),
            self.clear.click(self.on_clear, given, stage.outputs, **MARKING, **QUIET),
        ):
            stage.after(event)

    def after(self, event: Dependency) -> None:
        """Do nothing: solving is quick."""

    # ------------------------------------------------------------------------------- marking

    def on_click(self, values: Values, event: gr.SelectData) -> Update:
        """Mark where the photo was clicked."""
        with telling():
            scale = drawn_scale(self._on_show(values))
            x, y = (int(side / scale) for side in event.index)
            return {self.x: x, self.y: y, **self._mark(values, (x, y))}

    def on_point(self, values: Values) -> Update:
        """Mark the point whose numbers were typed."""
        with telling():
            x, y = values[self.x], values[self.y]
            if x is None or y is None:
                raise CalibrationError(metres_text.POINT_LACKING)
            return self._mark(values, (x, y))

    def on_mode(self, values: Values) -> Update:
        """Say how the chosen kind of hint is given, and offer its fields."""
        mode: Mode = values[self.mode]
        update: Update = {
            self.help: metres_text.MODE_HELP[mode],
            self.metres: gr.Number(interactive=mode in ("depth", "length")),
            self.add: gr.Button(interactive=mode != "distance"),
            self.tape: gr.Checkbox(interactive=mode == "depth"),
        }
        if values[self.stage.result] is None:
            return update
        with telling():
            marks = replace(values[self.marks], points=())
            return {**update, self.marks: marks, self.picture: draw_marks(self._on_show(values), marks, mode)}

    def _mark(self, values: Values, point: Point) -> Update:
        prediction, mode = self._on_show(values), values[self.mode]
        height, width = prediction.photo.shape[:2]
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise CalibrationError(metres_text.POINT_OUTSIDE.format(width=width, height=height))
        before: Marks = values[self.marks]
        marks = before.mark(point, mode)
        update: Update = {self.marks: marks, self.picture: draw_marks(prediction, marks, mode)}
        if mode == "distance":
            check_metric(prediction)
        if marks.measured != before.measured:
            distance_m(prediction, *marks.measured[-1], marks.hints.fov_x_deg)  # which may be refused
            update[self.found] = findings(prediction, marks)
        return update

    # ------------------------------------------------------------------------------- hints

    def on_add(self, values: Values) -> Update:
        """Take the marked points and the number as a hint."""
        with telling():
            marks, typed = values[self.marks], (values[self.x], values[self.y])
            if values[self.mode] == "depth" and not marks.points and None not in typed:
                marks = marks.mark(typed, "depth")  # by keyboard, one point needs no mark of its own
            one = marks.read(values[self.mode], values[self.metres], values[self.tape])
            prediction = self._on_show(values)
            check_hints(one, prediction.values.shape[:2], prediction.fov_x_deg)
            return {**self._settle(values, marks.add(one)), **dict.fromkeys(self.typed)}

    def on_view(self, values: Values) -> Update:
        """Use the field of view that was typed."""
        with telling():
            marks: Marks = values[self.marks]
            typed = values[self.fov]
            if values[self.stage.result] is None or typed == _view(self._on_show(values), marks):
                return {self.marks: gr.skip()}  # the field was left as it was
            return self._settle(values, replace(marks, hints=replace(marks.hints, fov_x_deg=typed)))

    def on_remove(self, values: Values, event: gr.EventData) -> Update:
        """Take one row out of the table."""
        with telling():
            marks: Marks = values[self.marks]
            return self._settle(values, marks.without(event.row))

    def on_clear(self, values: Values) -> Update:
        """Forget every hint and measured distance; the result is relative again."""
        with telling():
            return self._settle(values, Marks(Hints(fov_x_deg=values[self.marks].hints.fov_x_deg)))

    def _settle(self, values: Values, marks: Marks) -> Update:
        """Solve the hints and put on show what they make of the model's map, in metres or as it was."""
        shown = self._on_show(values)
        made = relative = shown.relative if isinstance(shown, Calibrated) else shown
        reason = ""
        if isinstance(shown, Calibrated) and shown.hints == marks.hints:
            made = shown  # only a distance has changed
        elif marks.known:
            try:
                made = calibrate(relative, marks.hints)
            except CalibrationError as refusal:
                reason = str(refusal)
        update: Update = {}
        if made is not shown:
            update = self.stage.present(made, _status(made, marks), values)
        kept = {field: values[field] for field in self.typed}
        return {**update, **kept, **self._draw(made, marks, values[self.mode], reason)}

    def _draw(self, prediction: Prediction, marks: Marks, mode: Mode, reason: str = "") -> Update:
        return {
            self.marks: marks,
            self.fov: _view(prediction, marks),
            self.picture: draw_marks(prediction, marks, mode),
            self.found: findings(prediction, marks, reason),
        }

    def _on_show(self, values: Values) -> Prediction:
        result = values[self.stage.result]
        if result is None:
            raise ExportError(text.NO_RESULT)
        return self.stage.service.prediction(result)


def _view(prediction: Prediction, marks: Marks) -> float | None:
    """The horizontal field of view, degrees, that the field shows: as typed, else the photo's own."""
    fov_x_deg = marks.hints.fov_x_deg or prediction.fov_x_deg
    return None if fov_x_deg is None else round(fov_x_deg, 1)


def _status(prediction: Prediction, marks: Marks) -> str:
    said = {"metric": metres_text.METRES_STATUS, "scale": metres_text.STRAIGHT_STATUS}.get(
        prediction.kind, metres_text.RELATIVE_STATUS
    )
    return said.format(hints=text.count(len(marks.known), "hint"))
