"""What the hints have led to, in words and as a table: what was said, what the map says, and how sure that is."""

import math
from itertools import zip_longest

import numpy as np

from marigold_core.calibration.anchors import Anchor, Length, Residual
from marigold_core.calibration.calibrate import Calibrated, check_claim, distance_m
from marigold_core.calibration.plane_fit import Patch
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Prediction
from marigold_core.ui.screens.annotations import Known, Marks, Point, places
from marigold_core.ui.text import metres as metres_text

_NONE = "&ndash;"
_FINEST = 3  # decimals of a metre


def findings(prediction: Prediction, marks: Marks, reason: str = "") -> str:
    """Draw what is known about metres; ``reason`` says why the hints do not determine them."""
    return f"<p>{_sentence(prediction, marks, reason)}</p>{_table(prediction, marks)}"


def within(value: float, error: float) -> str:
    """Say "2.31 &plusmn; 0.08" or "2.30 &plusmn; 0.13": a number to where its error begins, never below millimetres."""
    error = max(error, 10.0**-_FINEST)
    digit = math.floor(math.log10(error))
    decimals = min(_FINEST, max(0, -digit + (error < 2 * 10.0**digit)))  # a leading 1 says little alone
    return f"{value:.{decimals}f} &plusmn; {error:.{decimals}f}"


def _sentence(prediction: Prediction, marks: Marks, reason: str) -> str:
    if reason:
        return metres_text.METRES_NOT_YET.format(reason=reason)
    if not isinstance(prediction, Calibrated):
        if prediction.kind == "metric":
            return metres_text.METRES_OWN
        try:
            check_claim(prediction.modality, prediction.kind)
        except CalibrationError as refusal:
            return str(refusal)
        return metres_text.METRES_NONE
    values = prediction.values
    nearest, middle, farthest = (float(end) for end in (values.min(), np.median(values), values.max()))
    if prediction.kind == "scale":
        return metres_text.METRES_STRAIGHT.format(nearest=within(nearest, prediction.depth_error(nearest)))
    spans = {"nearest": nearest, "middle": middle, "farthest": farthest}
    said = {name: within(depth, prediction.depth_error(depth)) for name, depth in spans.items()}
    unknowns = 1 if prediction.relative.kind == "scale" else 2
    if len(prediction.residuals) <= unknowns:
        return metres_text.METRES_FOUND.format(**said) + metres_text.METRES_EXACT
    worst = max(map(_off, prediction.residuals))
    return metres_text.METRES_FOUND.format(**said) + metres_text.METRES_FIT.format(worst=f"{worst:.1%}")


def _table(prediction: Prediction, marks: Marks) -> str:
    residuals = prediction.residuals if isinstance(prediction, Calibrated) else ()
    rows = [_hint_row(known, residual) for known, residual in zip_longest(marks.known, residuals)]
    rows += [_measured_row(prediction, pair, marks.hints.fov_x_deg) for pair in marks.measured]
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{name}</th>" for name in metres_text.HINT_COLUMNS)
    body = "".join(_row(number, cells) for number, cells in enumerate(rows))
    return f"<table><thead><tr>{head}<td></td></tr></thead><tbody>{body}</tbody></table>"


def _row(row: int, cells: tuple[str, ...]) -> str:
    """Draw a row, numbered as on the photo, with the button that takes it out."""
    remove = metres_text.REMOVE_ROW.format(number=row + 1)
    button = f"<button type='button' data-row='{row}' aria-label='{remove}' title='{remove}'>&times;</button>"
    return f"<tr><td>{row + 1}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}<td>{button}</td></tr>"


def _hint_row(known: Known, residual: Residual | None) -> tuple[str, ...]:
    """Name, what was said, what the map says, and by what share it is off; dashes before there is an answer."""
    off = _NONE if residual is None else f"{_off(residual):.1%}"
    if isinstance(known, Patch):
        return _named("patch", places(known)[:2]), metres_text.HINT_FLAT, "", off
    name = "depth" if isinstance(known, Anchor) else "length" if isinstance(known, Length) else "near"
    given = known.metres if isinstance(known, Anchor | Length) else known
    found = _NONE if residual is None else f"{residual.found:.3g} m"
    return _named(name, places(known)), f"{given:g} m", found, off


def _measured_row(prediction: Prediction, pair: tuple[Point, Point], fov_x_deg: float | None) -> tuple[str, ...]:
    try:
        distance = distance_m(prediction, *pair, fov_x_deg)
        found = f"{within(distance.metres, distance.error_m)} m"
    except CalibrationError:  # its hints were taken away since
        found = _NONE
    return f"{metres_text.MEASURED_NAME} <small>{_where(pair)}</small>", "", found, ""


def _named(name: str, points: tuple[Point, ...]) -> str:
    return f"{metres_text.HINT_NAMES[name]} <small>{_where(points)}</small>"


def _where(points: tuple[Point, ...]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _off(residual: Residual) -> float:
    return abs(residual.found / residual.given - 1)
