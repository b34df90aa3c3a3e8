"""What the pictures mean: their colours with ticks, and the numbers behind them under the pointer."""

from base64 import b64encode
from collections.abc import Iterable

import gradio as gr
import numpy as np

from marigold_core.images.colormaps import depth_to_rgb, uncertainty_to_rgb, uncertainty_top
from marigold_core.images.differences import shrink
from marigold_core.prediction import Prediction
from marigold_core.ui import text
from marigold_core.ui.pictures import BOX_JS
from marigold_core.ui.screens.convergence import amount
from marigold_core.ui.screens.layers import DOUBT, GREY, GREYS, MEMBER, NORMALS, PHOTO, Look
from marigold_core.ui.theme import ASSETS

STOPS = 24  # colours of a gradient
TICKS = 5
GRID_PX = 160  # longest edge of the map of numbers that the page holds
LEVELS = 65535
READOUT_JS = BOX_JS + (ASSETS / "readout.js").read_text()


def draw_keys(prediction: Prediction, layers: Iterable[str], look: Look) -> str:
    """Draw the legend of every layer on show, each once."""
    kinds = dict.fromkeys(_kind(layer, prediction) for layer in layers if layer != PHOTO)
    return f"<div class='keys'>{''.join(_draw_key(prediction, kind, look) for kind in kinds)}</div>"


def _kind(layer: str, prediction: Prediction) -> str:
    """Name the layer whose legend a layer has; members look like the map they are members of."""
    if not layer.startswith(MEMBER):
        return layer
    return NORMALS if prediction.modality == "normals" else MEMBER


def _draw_key(prediction: Prediction, kind: str, look: Look) -> str:
    if kind == NORMALS:
        return f"<figure class='key'><figcaption>{text.KEY_NORMALS}</figcaption></figure>"
    ramp = np.linspace(0, 1, STOPS, dtype=np.float32)[None]
    if kind == DOUBT:
        assert prediction.uncertainty is not None  # the layer is not offered otherwise
        top = uncertainty_top(prediction.uncertainty)
        ticks = ["0", _spread(top / 2, prediction), text.KEY_MORE.format(tick=_spread(top, prediction))]
        return _scale(text.KEY_DOUBT, uncertainty_to_rgb(ramp, 1.0)[0], ticks)
    low, high = look.ends(prediction)
    unit = " m" if prediction.kind == "metric" else ""
    numbers = [f"{number:.2f}{unit}" for number in np.linspace(low, high, TICKS)]
    ends = [f"{text.NEAR} {numbers[0]}", *numbers[1:-1], f"{numbers[-1]} {text.FAR}"]
    colours = depth_to_rgb(ramp, GREYS if kind == GREY else look.colormap, invert=look.invert)[0]
    return _scale(text.KEY_KINDS[prediction.kind], colours, ends)


def _spread(value: float, prediction: Prediction) -> str:
    return f"{value:.2f} m" if prediction.kind == "metric" else amount(value, prediction.modality)


def _scale(caption: str, colours: np.ndarray, ticks: list[str]) -> str:
    """Draw colours from left to right above their ticks, evenly spaced."""
    stops = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours)
    places = (100 * index / (len(ticks) - 1) for index in range(len(ticks)))
    marks = "".join(f"<span style='left:{place:g}%'>{tick}</span>" for place, tick in zip(places, ticks, strict=True))
    return (
        f"<figure class='key'><figcaption>{caption}</figcaption><div class='scale'>"
        f"<i style='background: linear-gradient(90deg, {stops})'></i><div class='ticks'>{marks}</div></div></figure>"
    )


# ------------------------------------------------------------------------------- under the pointer


def draw_readout() -> gr.HTML:
    """Draw the line that says what the map holds under the pointer; its value is what ``readings`` returns."""
    return gr.HTML(
        html_template=f"<div class='readout' tabindex='0' role='application' aria-label='{text.READOUT}'>"
        f"<span>{text.READOUT_HINT}</span></div>",
        js_on_load=READOUT_JS,
        elem_id="readout",
    )


def readings(prediction: Prediction) -> dict[str, object]:
    """Reduce a prediction to the numbers that the page shows under the pointer, 16 bits each."""
    height, width = prediction.photo.shape[:2]
    channels = []
    if prediction.modality == "depth":
        unit = " m" if prediction.kind == "metric" else ""
        channels.append(_channel(text.READ_DEPTH, prediction.values, 1, unit, 2 if unit else 3))
    else:
        away = np.degrees(np.arccos(np.clip(prediction.values[..., 2], -1, 1))).astype(np.float32)
        channels.append(_channel(text.READ_NORMAL, away, 1, "°", 0))
    if prediction.uncertainty is not None:
        factor, unit = {"metric": (1, " m"), "unit-vector": (180, "°")}.get(prediction.kind, (100, " %"))
        channels.append(_channel(text.READ_DOUBT, prediction.uncertainty, factor, unit, 2))
    return {"width": width, "height": height, "at": text.READ_AT, "channels": channels}


def _channel(label: str, values: np.ndarray, factor: float, unit: str, digits: int) -> dict[str, object]:
    small = shrink(values.astype(np.float32), GRID_PX) * factor
    low, high = float(small.min()), float(small.max())
    codes = np.rint((small - low) / ((high - low) or 1.0) * LEVELS).astype("<u2")
    return {
        "label": label,
        "unit": unit,
        "digits": digits,
        "low": low,
        "step": (high - low) / LEVELS,
        "columns": codes.shape[1],
        "rows": codes.shape[0],
        "codes": b64encode(codes.tobytes()).decode(),
    }
