"""The metres screen: hints marked on the photo, solved at every change, the results table, and measured distances.

The result on show is in metres where the hints determine them, and as the model gave it where they do not.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

import gradio as gr
import numpy as np
from gradio.components import Component

from marigold_core.calibration.anchors import Anchor, Length, Residual
from marigold_core.calibration.calibrate import (
    Calibrated,
    Completed,
    Hints,
    Measured,
    calibrate,
    check_claim,
    check_guiding,
    check_hints,
    check_metric,
    distance_m,
)
from marigold_core.calibration.plane_fit import Patch
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Prediction
from marigold_core.settings import MeshSettings, ResolvedSettings, bounds
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import MARKING, MODEL, NO_CHANGE, QUIET, REPEATED, follow, on
from marigold_core.ui.run_controller import RunController, Screen, Update, Values
from marigold_core.ui.screens.annotations import (
    MODES,
    Annotations,
    Hint,
    Mode,
    Point,
    draw_annotations,
    drawn_scale,
    points_of,
)
from marigold_core.ui.templates import render
from marigold_core.ui.text import metres as metres_text
from marigold_core.ui.theme import script

CLEAR_JS = "(sent, ...now) => now.map((value, place) => (value === sent[place] ? null : undefined))"
NONE = "–"
FINEST = 3  # decimals of a metre


class MetresScreen(Screen):
    """The photo to mark, the fields of the next hint, and what the hints have led to."""

    def __init__(self, controller: RunController) -> None:
        """Draw it into the current tab."""
        super().__init__(controller)
        self.annotations = gr.State(Annotations())
        with gr.Row(elem_id="metres", equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self.picture = gr.Image(
                    label=metres_text.PICTURE,
                    show_label=False,
                    interactive=False,
                    format="jpeg",
                    buttons=[],
                    alt_text=metres_text.PICTURE_ALT,
                    elem_id="marks",
                )
                self.results = gr.HTML(metres_text.METRES_WAITS, js_on_load=script("metres.js"), elem_id="found")
                with gr.Row(elem_classes="numbers"):
                    self.complete = gr.Button(metres_text.COMPLETE, size="sm", interactive=False, elem_id="complete")
                    self.clear = gr.Button(metres_text.CLEAR_HINTS, size="sm", elem_id="clear")
                gr.HTML(metres_text.COMPLETE_HELP, elem_classes="note")
            with gr.Column(scale=2, min_width=290, elem_id="hints"):
                self._draw_fields()
        with gr.Accordion(metres_text.METRES_KNOWN, open=False):
            gr.HTML(metres_text.METRES_KNOWN_LIST, elem_classes="note")

    def _draw_fields(self) -> None:
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
        self.sent = gr.JSON(visible=False)  # what they held as the last hint was made of them
        self.tape = gr.Checkbox(label=metres_text.BY_TAPE, info=metres_text.BY_TAPE_INFO)
        low, high = bounds(MeshSettings, "fov_x_deg")
        self.fov = gr.Number(
            label=metres_text.CAMERA_VIEW, info=metres_text.CAMERA_VIEW_INFO, minimum=low, maximum=high
        )

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.picture, self.results, self.annotations, self.fov, self.complete, *self.typed]

    def begin(self, values: Values) -> Update:
        """Offer no completion while a job runs."""
        return {self.complete: gr.Button(interactive=False)}

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Start anew, without a photo."""
        none = {self.picture: None, self.results: metres_text.METRES_WAITS, self.annotations: Annotations()}
        return {**none, **dict.fromkeys([self.fov, *self.typed])}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Start without annotations, or with the hints that the result came from."""
        hints = replace(prediction.hints, method="affine") if isinstance(prediction, Measured) else Hints()
        is_other = self.controller.shown_of(prediction.photo, values) is None
        return {
            **self._draw(prediction, Annotations(hints), MODES[0]),
            **(dict.fromkeys(self.typed) if is_other else {}),
        }

    def listen(self) -> None:
        """Mark, add, remove and measure; every change of a hint solves them all again."""
        controller = self.controller
        asked = [self.mode, self.x, self.y, self.metres, self.tape, self.fov]
        given = {self.annotations, controller.result, *asked, *controller.inputs}
        drawn = [self.picture, self.results, self.annotations]
        on(self.picture.select, self.on_click, given, [*drawn, self.x, self.y], MARKING, **REPEATED)
        on([self.point.click, self.y.submit], self.on_point, given, drawn, MARKING)
        follow(self.mode.input, self.on_mode, given, [*drawn, self.help, self.metres, self.add, self.tape], MARKING)
        controller.after(follow([self.fov.submit, self.fov.blur], self.on_view, given, controller.outputs, MARKING))
        added = on([self.add.click, self.metres.submit], self.on_add, given, [*controller.outputs, self.sent], MARKING)
        added.success(None, [self.sent, *self.typed], self.typed, js=CLEAR_JS, **QUIET)  # what was typed since stays
        controller.after(added)
        for trigger, handler in ((self.results.click, self.on_remove), (self.clear.click, self.on_clear)):
            controller.after(on(trigger, handler, given, controller.outputs, MARKING))
        controller.jobs.append(on(self.complete.click, self.on_complete, given, controller.outputs, MODEL, **REPEATED))

    # ------------------------------------------------------------------------------- marking

    def on_click(self, values: Values, event: gr.SelectData) -> Update:
        """Mark where the photo was clicked."""
        with translate_errors():
            scale = drawn_scale(self._shown(values))
            x, y = (int(side / scale) for side in event.index)
            return {self.x: x, self.y: y, **self._add_point(values, (x, y))}

    def on_point(self, values: Values) -> Update:
        """Mark the point whose numbers were typed."""
        with translate_errors():
            x, y = values[self.x], values[self.y]
            if x is None or y is None:
                raise CalibrationError(metres_text.POINT_LACKING)
            return self._add_point(values, (x, y))

    def on_mode(self, values: Values) -> Update:
        """Explain how the chosen kind of hint is given, and offer its fields."""
        mode: Mode = values[self.mode]
        update: Update = {
            self.help: metres_text.MODE_HELP[mode],
            self.metres: gr.Number(interactive=mode in ("depth", "length")),
            self.add: gr.Button(interactive=mode != "distance"),
            self.tape: gr.Checkbox(interactive=mode == "depth"),
        }
        if values[self.controller.result] is None:
            return update
        with translate_errors():
            annotations = replace(values[self.annotations], points=())
            picture = draw_annotations(self._shown(values), annotations, mode)
            return {**update, self.annotations: annotations, self.picture: picture}

    def _add_point(self, values: Values, point: Point) -> Update:
        prediction, mode = self._shown(values), values[self.mode]
        height, width = prediction.photo_size
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise CalibrationError(metres_text.POINT_OUTSIDE.format(width=width, height=height))
        before: Annotations = values[self.annotations]
        after = before.with_point(point, mode)
        update: Update = {self.annotations: after, self.picture: draw_annotations(prediction, after, mode)}
        if mode == "distance":
            check_metric(prediction)
        if after.measured != before.measured:
            distance_m(prediction, *after.measured[-1], after.hints.fov_x_deg)  # which may be refused
            update[self.results] = draw_results(prediction, after)
        return update

    # ------------------------------------------------------------------------------- hints

    def on_add(self, values: Values) -> Update:
        """Take the marked points and the number as a hint."""
        with translate_errors():
            annotations: Annotations = values[self.annotations]
            typed = values[self.x], values[self.y]
            if values[self.mode] == "depth" and not annotations.points and None not in typed:
                annotations = annotations.with_point(typed, "depth")  # a typed point need not be marked first
            one = annotations.next_hint(values[self.mode], values[self.metres], values[self.tape])
            prediction = self._shown(values)
            check_hints(one, prediction.values.shape[:2], prediction.fov_x_deg, prediction.photo_size)
            sent = [values[field] for field in self.typed]
            return {**self._solve(values, annotations.with_hint(one)), self.sent: sent}

    def on_view(self, values: Values) -> Update:
        """Use the field of view that was typed."""
        with translate_errors():
            annotations: Annotations = values[self.annotations]
            typed = values[self.fov]
            if values[self.controller.result] is None or typed == _fov_x_deg(self._shown(values), annotations):
                return {self.annotations: NO_CHANGE}  # the field was left as it was
            return self._solve(values, replace(annotations, hints=replace(annotations.hints, fov_x_deg=typed)))

    def on_remove(self, values: Values, event: gr.EventData) -> Update:
        """Remove one row of the table."""
        with translate_errors():
            annotations: Annotations = values[self.annotations]
            return self._solve(values, annotations.without(event.row))

    def on_clear(self, values: Values) -> Update:
        """Remove every hint and measured distance; the result is relative again."""
        with translate_errors():
            return self._solve(values, Annotations(Hints(fov_x_deg=values[self.annotations].hints.fov_x_deg)))

    def on_complete(self, values: Values) -> Iterator[Update]:
        """Run the photo again, guided by the distances that were given."""
        hints = replace(values[self.annotations].hints, method="completion")
        yield from self.controller.reported(self.controller.complete(hints, values), values)

    def _solve(self, values: Values, annotations: Annotations) -> Update:
        """Solve the hints and put the calibrated result on show, or the model's own where they do not suffice.

        A job under way ends: its result would come without them.
        """
        shown = self._shown(values)
        made = relative = (shown.relative if isinstance(shown, Measured) else None) or shown
        reason = ""
        if isinstance(shown, Measured) and replace(shown.hints, method="affine") == annotations.hints:
            made = shown  # only a distance has changed
        elif annotations.hint_list:
            try:
                made = calibrate(relative, annotations.hints)
            except CalibrationError as refusal:
                reason = str(refusal)
        update = self._draw(made, annotations, values[self.mode], reason)
        if made is not shown or values[self.controller.current].identity is not None:
            drawn, sentence = update, _status(made, annotations)
            update = self.controller.pick(lambda: self.controller.show_result(made, sentence, values) | drawn, values)
        if update.get(self.fov) == values[self.fov]:
            update.pop(self.fov, None)  # it may hold another number by now
        return update

    def _draw(self, prediction: Prediction, annotations: Annotations, mode: Mode, reason: str = "") -> Update:
        return {
            self.annotations: annotations,
            self.fov: _fov_x_deg(prediction, annotations),
            self.picture: draw_annotations(prediction, annotations, mode),
            self.results: draw_results(prediction, annotations, reason),
            self.complete: gr.Button(interactive=_can_guide(prediction, annotations.hints)),
        }

    def _shown(self, values: Values) -> Prediction:
        return self.controller.shown(values[self.controller.result])


def _fov_x_deg(prediction: Prediction, annotations: Annotations) -> float | None:
    """The horizontal field of view, degrees, that the field shows: as typed, else the photo's own."""
    fov_x_deg = annotations.hints.fov_x_deg or prediction.fov_x_deg
    return None if fov_x_deg is None else round(fov_x_deg, 1)


def _can_guide(prediction: Prediction, hints: Hints) -> bool:
    """Return whether hints can guide another run of the photo; whether the checkpoint can be guided, the run tells."""
    try:
        check_guiding(hints)
    except CalibrationError:
        return False
    return prediction.modality == "depth" and isinstance(prediction.settings, ResolvedSettings)


def _status(prediction: Prediction, annotations: Annotations) -> str:
    by_kind = {"metric": metres_text.METRES_STATUS, "scale": metres_text.STRAIGHT_STATUS}
    sentence = by_kind.get(prediction.kind, metres_text.RELATIVE_STATUS)
    return sentence.format(hints=text.count(len(annotations.hint_list), "hint"))


# ------------------------------------------------------------------------------- the results table


def draw_results(prediction: Prediction, annotations: Annotations, reason: str = "") -> str:
    """Draw what is known about metres, and each hint and distance as a row -> HTML.

    ``reason`` is given where the hints do not determine metres.
    """
    residuals = prediction.residuals if isinstance(prediction, Measured) else ()
    rows = [_hint_row(hint, residual) for hint, residual in zip_longest(annotations.hint_list, residuals)]
    rows += [_measured_row(prediction, pair, annotations.hints.fov_x_deg) for pair in annotations.measured]
    return render("metres_results", sentence=_sentence(prediction, reason), rows=rows)


def format_with_error(value: float, error: float) -> str:
    """Write "2.31 ± 0.08" or "2.30 ± 0.13": a number to where its error begins, never below millimetres."""
    error = max(error, 10.0**-FINEST)
    digit = math.floor(math.log10(error))
    decimals = min(FINEST, max(0, -digit + (error < 2 * 10.0**digit)))  # one more after a leading 1
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _sentence(prediction: Prediction, reason: str) -> str:
    """Write whether the map is in metres, and how sure that is; the sentence is markup."""
    if reason:
        return metres_text.METRES_NOT_YET.format(reason=reason)
    if isinstance(prediction, Completed):
        ends = {"nearest": prediction.values.min(), "farthest": prediction.values.max()}
        return metres_text.METRES_COMPLETED.format(**{name: f"{z:.2f}" for name, z in ends.items()})
    if not isinstance(prediction, Calibrated):
        if prediction.kind == "metric":
            return metres_text.METRES_OWN
        try:
            check_claim(prediction.modality, prediction.kind)
        except CalibrationError as refusal:
            return str(refusal)
        return metres_text.METRES_NONE
    values = prediction.values
    depths = {"nearest": values.min(), "middle": np.median(values), "farthest": values.max()}
    written = {name: format_with_error(float(z), prediction.depth_error(float(z))) for name, z in depths.items()}
    if prediction.kind == "scale":
        return metres_text.METRES_STRAIGHT.format(nearest=written["nearest"])
    sentence = metres_text.METRES_FOUND.format(**written)
    unknowns = 1 if prediction.relative.kind == "scale" else 2
    if len(prediction.residuals) <= unknowns:
        return sentence + metres_text.METRES_EXACT
    worst = max(map(_relative_error, prediction.residuals))
    return sentence + metres_text.METRES_FIT.format(worst=f"{worst:.1%}")


def _hint_row(hint: Hint, residual: Residual | None) -> tuple[str, ...]:
    """Name, points, given value, value in the map, and relative error; dashes while the hints are not solved."""
    off = NONE if residual is None else f"{_relative_error(residual):.1%}"
    if isinstance(hint, Patch):
        return metres_text.HINT_NAMES["patch"], _written(points_of(hint)[:2]), metres_text.HINT_FLAT, "", off
    name = "depth" if isinstance(hint, Anchor) else "length" if isinstance(hint, Length) else "near"
    given = hint.metres if isinstance(hint, Anchor | Length) else hint
    found = NONE if residual is None else f"{residual.found:.3g} m"
    return metres_text.HINT_NAMES[name], _written(points_of(hint)), f"{given:g} m", found, off


def _measured_row(prediction: Prediction, pair: tuple[Point, Point], fov_x_deg: float | None) -> tuple[str, ...]:
    try:
        distance = distance_m(prediction, *pair, fov_x_deg)
        found = f"{format_with_error(distance.metres, distance.error_m)} m"
    except CalibrationError:  # its hints were removed since
        found = NONE
    return metres_text.MEASURED_NAME, _written(pair), "", found, ""


def _written(points: tuple[Point, ...]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _relative_error(residual: Residual) -> float:
    return abs(residual.found / residual.given - 1)
