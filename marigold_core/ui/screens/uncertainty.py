"""The uncertainty screen: where the map may be wrong, how it settles as members join, and their values at one pixel.

Everything is drawn from the prediction on show. Lines of a drawing are stretched with the page and all else is placed
in per cent, so that type keeps its size on a phone. Every drawing has a sentence: it stands below it, and a screen
reader reads it in place of the drawing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import floor, log10

import gradio as gr
import numpy as np
from gradio.components import Component

from marigold_core.checkpoints.families import MARIGOLD
from marigold_core.images.colormaps import uncertainty_to_rgb
from marigold_core.pipeline.convergence import ConvergencePoint, converged_at, convergence_curve
from marigold_core.pipeline.member_values import MemberValues, member_values_at
from marigold_core.pipeline.views import most_members
from marigold_core.prediction import SPREAD_FROM, Prediction
from marigold_core.settings import ColourSettings, ResolvedSettings
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import FOLLOWING, LIGHT, MODEL, NO_CHANGE, REPEATED, follow, on
from marigold_core.ui.offered_checkpoints import family_of_result
from marigold_core.ui.pictures import draw_comparison, photo_file, preview
from marigold_core.ui.run_controller import RunController, Screen, Update, Values
from marigold_core.ui.screens.layers import UNCERTAINTY, draw_legends, format_share, format_uncertainty
from marigold_core.ui.templates import render
from marigold_core.ui.theme import script

MORE = 5  # members that the button adds

SHORT, LONG = 10, 20  # members on the curve's axis; it changes once at most while a run goes on
TICKS = {SHORT: range(1, 11), LONG: (1, 5, 10, 15, 20)}
ROUND = (1, 2, 4, 6, 10)  # ends of an axis, times a power of ten: half of each is a round number too
COLUMN = 2.5  # per cent of the strip's width; dots closer than that are stacked


class UncertaintyScreen(Screen):
    """The spread of the members, the curve, the values of a pixel, and the controls of the number of members."""

    def __init__(self, controller: RunController, tab: gr.Tab) -> None:
        """Draw it into ``tab``, the current one."""
        super().__init__(controller, tab)
        with gr.Column(elem_id="doubt"):
            self.pictures = draw_comparison(text.UNCERTAINTY)
        self.note = gr.HTML(elem_classes="note")
        with gr.Row(elem_id="evidence"):
            with gr.Column(min_width=300):
                self.curve = gr.HTML()
            with gr.Column(min_width=300):
                hint = _draw_strip(text.MEMBER_VALUES_NONE)
                self.member_values = gr.HTML(hint, js_on_load=script("box.js", "member_values.js"), elem_id="votes")
                self.pixel = gr.Textbox(label=text.PIXEL, placeholder=text.PIXEL_FORM, max_length=20, elem_id="pixel")
        with gr.Row(elem_id="members"):
            with gr.Column(min_width=300):
                controller.draw_early_stopping()
            with gr.Column(min_width=300):
                self.more = gr.Button(text.MORE.format(number=MORE), interactive=False, elem_id="more")
                self.why = gr.HTML(elem_classes="note")

    @property
    def inputs(self) -> list[Component]:
        """List the early-stopping controls and the pixel."""
        return [self.controller.early_stopping, self.controller.threshold, self.pixel]

    @property
    def outputs(self) -> list[Component]:
        """List what a new result changes."""
        return [self.pictures, self.note, self.curve, self.member_values, self.more, self.why]

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Explain what will be here."""
        return {**self.begin(values), **self._empty(text.UNCERTAINTY_WAITS)}

    def begin(self, values: Values) -> Update:
        """Explain what there will be, in place of what the result before lacked."""
        service, result = self.controller.service, values[self.controller.result]
        lacked = not service.keeps(result) or service.prediction(result).uncertainty is None
        return {
            **(self._empty(text.UNCERTAINTY_WAITS) if lacked else {}),
            self.curve: draw_curve((), values[self.controller.threshold] / 100, "depth", text.CURVE_ONE),
            self.member_values: _draw_strip(text.MEMBER_VALUES_FEW),
            self.more: gr.Button(interactive=False),
            self.why: "",
        }

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Paint the uncertainty once there is one, and draw the curve as far as it goes, while the tab is open."""
        return self._draw(prediction, values, text.UNCERTAINTY_WAITS) if self.is_seen(values) else {}

    def _draw(self, prediction: Prediction, values: Values, waits: str) -> Update:
        return {
            **self._draw_picture(prediction, waits),
            self.curve: draw_curve(
                convergence_curve(prediction), values[self.controller.threshold] / 100, prediction.modality
            ),
            self.member_values: draw_member_values(prediction, _pixel(values[self.pixel])),
        }

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Offer more members, or write why there can be none; the same of uncertainty."""
        made = prediction.settings
        family = family_of_result(prediction.checkpoint) if isinstance(made, ResolvedSettings) else MARIGOLD
        most = most_members(family, made.views if isinstance(made, ResolvedSettings) else "photo")
        number = max(0, min(MORE, most - prediction.fused))
        why = "" if number else text.MORE_SAME if family.deterministic else text.MORE_FULL.format(most=most)
        if prediction.members is None:
            why = text.MORE_NONE if prediction.fused else text.MORE_GIVEN
        label = text.MORE.format(number=number or MORE)
        spread = {} if prediction.uncertainty is not None else self._empty(self._lacks(prediction))
        return {**spread, self.more: gr.Button(label, interactive=not why), self.why: why}

    @staticmethod
    def _lacks(prediction: Prediction) -> str:
        """Explain why a finished result has no uncertainty."""
        if not prediction.fused:
            return text.MORE_GIVEN
        deterministic = family_of_result(prediction.checkpoint).deterministic
        few = text.UNCERTAINTY_NEEDS_MORE.format(members=prediction.fused)
        return text.UNCERTAINTY_NEEDS_VIEWS if deterministic else few

    def listen(self) -> None:
        """Draw when the tab is opened; wire the threshold, the picked pixel and the button."""
        assert self.tab is not None
        result = self.controller.result
        drawn = [self.pictures, self.note, self.curve, self.member_values]
        follow(self.tab.select, self.on_open, {result, self.controller.current, *self.inputs}, drawn, LIGHT)
        threshold = self.controller.threshold
        follow(threshold.input, self.on_threshold, [result, threshold], self.curve, LIGHT)
        on(self.member_values.click, self.on_click, result, self.pixel, FOLLOWING, **REPEATED)
        follow(self.pixel.change, self.on_pixel, [result, self.pixel], self.member_values, LIGHT)
        given = {result, *self.controller.inputs}
        self.controller.jobs.append(
            on(self.more.click, self.on_more, given, self.controller.outputs, MODEL, **REPEATED)
        )

    def on_open(self, values: Values) -> Update:
        """Draw the result on show."""
        if values[self.controller.result] is None:
            return {self.pictures: NO_CHANGE}
        with translate_errors():
            prediction = self.controller.shown(values[self.controller.result])
            is_running = values[self.controller.current].identity is not None
            return self._draw(prediction, values, text.UNCERTAINTY_WAITS if is_running else self._lacks(prediction))

    def on_more(self, values: Values) -> Iterator[Update]:
        """Add members to the result on show; those that it has are not computed again."""
        yield from self.controller.reported(self.controller.add_members(MORE, values), values)

    def on_threshold(self, result: str | None, below: float) -> str:
        """Draw the curve again for another threshold."""
        with translate_errors():
            held = self.controller.shown(result)
            return draw_curve(convergence_curve(held), below / 100, held.modality)

    def on_click(self, result: str | None, event: gr.EventData) -> str:
        """Write the pixel that was clicked, which comes in shares of the photo's width and height."""
        with translate_errors():
            height, width = self.controller.shown(result).photo_size
            x, y = (min(max(int(share * side), 0), side - 1) for share, side in ((event.u, width), (event.v, height)))
            return f"{x}, {y}"

    def on_pixel(self, result: str | None, pixel: str | None) -> str:
        """Draw the member values of another pixel."""
        with translate_errors():
            return draw_member_values(self.controller.shown(result), _pixel(pixel))

    def _empty(self, sentence: str) -> Update:
        """Write a sentence in the place of the picture."""
        empty = f"<div class='empty'><p>{sentence}</p></div>"
        return {self.pictures: gr.ImageSlider(value=None, visible=False), self.note: empty}

    def _draw_picture(self, prediction: Prediction, waits: str) -> Update:
        """Paint the uncertainty with its legend; a sentence takes its place until there is one."""
        uncertainty = prediction.uncertainty
        if uncertainty is None:
            return self._empty(waits)
        mean = format_uncertainty(float(uncertainty.mean()), prediction)
        if prediction.kind in ("affine", "scale"):
            mean += text.OF_RANGE
        about = text.UNCERTAINTY_ABOUT[prediction.uncertainty_measure].format(members=prediction.fused, mean=mean)
        pictures = photo_file(prediction.photo), preview(uncertainty_to_rgb(uncertainty))
        return {
            self.pictures: gr.ImageSlider(value=pictures, visible=True),
            self.note: f"{draw_legends(prediction, [UNCERTAINTY], ColourSettings())}<p>{about}</p>",
        }


def _pixel(typed: str | None) -> tuple[int, int] | None:
    """Read "312, 200" -> (x, y); None for anything else."""
    numbers = re.fullmatch(r"\s*(\d{1,5})\s*[,;\s]\s*(\d{1,5})\s*", typed or "")
    return (int(numbers[1]), int(numbers[2])) if numbers else None


# ------------------------------------------------------------------------------- convergence


def draw_curve(points: Sequence[ConvergencePoint], below: float, modality: str, sentence: str | None = None) -> str:
    """Draw change and uncertainty over members, and the threshold ``below`` as a dotted line -> HTML.

    ``sentence`` is by default that of ``curve_sentence``.
    """
    span = SHORT if len(points) <= SHORT else LONG
    moved = [(point.members, point.change) for point in points if point.change is not None]
    spread = [(point.members, point.uncertainty) for point in points if point.uncertainty is not None]
    top = _round_up(max([2 * below, *(share for _, share in moved + spread)]))
    across = {members: 100 * (members - 1) / (span - 1) for members in range(1, LONG + 1)}
    return render(
        "curve",
        sentence=sentence or curve_sentence(points, below, modality),
        series={
            name: [(across[members], 100 * share / top) for members, share in shares]
            for name, shares in (("doubt", spread), ("moved", moved))
        },
        threshold=100 - 100 * below / top,
        heights=["0", *(format_share(share, modality) for share in (top / 2, top))],
        ticks=[(across[members], members) for members in TICKS[span]],
    )


def curve_sentence(points: Sequence[ConvergencePoint], below: float, modality: str) -> str:
    """Describe the curve: the last change, the mean spread, and where early stopping would have ended the run."""
    if not points:
        return text.CURVE_NONE
    last = points[-1]
    if last.change is None:
        return text.CURVE_ONE
    of_range = text.OF_RANGE if modality == "depth" else ""
    sentence = text.CURVE_LAST.format(number=last.members, moved=format_share(last.change, modality) + of_range)
    if last.uncertainty is not None:
        sentence += text.CURVE_SPREAD.format(uncertainty=format_share(last.uncertainty, modality))
    settled = converged_at(points, below)
    if settled is None:
        return f"{sentence}."
    return f"{sentence}. " + text.CURVE_SETTLED.format(number=settled, below=format_share(below, modality))


def _round_up(top: float) -> float:
    """Find the next end of an axis that is easy to read."""
    power = 10.0 ** floor(log10(top))
    return next(end * power for end in ROUND if end * power >= top * (1 - 1e-9))


# ------------------------------------------------------------------------------- one pixel


def draw_member_values(prediction: Prediction, pixel: tuple[int, int] | None) -> str:
    """Draw the depth of a photo's pixel (x, y) in every member, from near to far, or write what is lacking -> HTML."""
    height, width = prediction.photo_size
    if prediction.modality != "depth":
        return _draw_strip(text.MEMBER_VALUES_ONLY_DEPTH[prediction.modality])
    if prediction.members is None:
        return _draw_strip(text.MEMBER_VALUES_NOT_KEPT)
    if prediction.fused < SPREAD_FROM:
        return _draw_strip(text.MEMBER_VALUES_FEW)
    if pixel is None:
        return _draw_strip(text.MEMBER_VALUES_NONE)
    x, y = pixel
    if not (0 <= x < width and 0 <= y < height):
        return _draw_strip(text.MEMBER_VALUES_OUTSIDE.format(width=width, height=height))
    found, unit = member_values_at(prediction, x, y), " m" if prediction.kind == "metric" else ""
    extent = (found.high - found.low) or 1.0
    places = 100 * (np.sort(found.depths[~np.isnan(found.depths)]) - found.low) / extent
    dots, stacked = list[tuple[float, int]](), Counter[int]()
    for place in places.clip(0, 100):
        column = round(place / COLUMN)
        dots.append((place, stacked[column]))
        stacked[column] += 1
    return _draw_strip(
        member_values_sentence(found, unit),
        at=((x + 0.5) / width, (y + 0.5) / height),
        shown=min(100, max(0, 100 * (found.shown - found.low) / extent)),
        dots=dots,
        ends=[_depth(found.low, unit), _depth(found.high, unit)],
    )


def member_values_sentence(found: MemberValues, unit: str) -> str:
    """Describe how many members give which depth, and which one the map has."""
    nearer, *farther = found.modes()
    members, used = len(found.depths), nearer.size + sum(mode.size for mode in farther)
    if not used:
        return text.MEMBER_VALUES_FLAT
    median, shown = _depth(found.median, unit), _depth(found.shown, unit)
    takes = text.MEMBER_VALUES_SHOWN.format(shown=shown)
    if median != shown:
        takes = text.MEMBER_VALUES_MOVED.format(median=median) + takes
    if farther:
        near, far = (_depth(float(np.median(mode)), unit) for mode in (nearer, farther[0]))
        sentence = text.MEMBER_VALUES_TWO_MODES.format(
            nearer=nearer.size, farther=farther[0].size, members=members, near=near, far=far
        )
    else:
        low, high = _depth(float(nearer[0]), unit), _depth(float(nearer[-1]), unit)
        sentence = text.MEMBER_VALUES_ONE_MODE.format(count=text.count(used, "member"), low=low, high=high)
    sentence += takes
    if used < members:
        sentence += text.MEMBER_VALUES_LEFT_OUT.format(count=text.count(members - used, "member"))
    return sentence


def _draw_strip(sentence: str, **drawn: object) -> str:
    """Draw the strip of a pixel's member values, empty where only a sentence is given -> HTML."""
    return render("member_values", sentence=sentence, **drawn)


def _depth(depth: float, unit: str) -> str:
    return f"{depth:.2f}{unit}"
