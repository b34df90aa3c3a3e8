"""Figures of scores: a photo beside its truth, prediction, error and uncertainty; sparsification curves."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from marigold_core.settings import DEFAULT_COLORMAP
from marigold_core.storage import replacing
from training.data.sets.sample import Sample
from training.scoring.metrics import REMOVED
from training.scoring.scores import Comparison, Row

AREA_IN2 = 7.5  # square inches of one panel, whatever its shape
DPI = 110
TITLE_IN, BAR_IN, FOOT_IN = 0.3, 0.1, 0.3
COLUMN_IN = 2.4  # width of a picture of a sheet
WIDE = 1.9  # from this width over height on, panels stand two in a row instead of all
LARGEST_ERROR = 0.3  # of the truth; takes the last colour in every figure, so that figures compare
UNKNOWN = "#d9d9d9"
GRID_PX = 900  # no panel shows more pixels a side
PNG, PDF = ".png", ".pdf"
CAPTION = {
    "abs_rel": "AbsRel",
    "delta1": "delta1",
    "rmse": "RMSE [m]",
    "boundary_f1": "boundary F1",
    "spearman": "Spearman",
    "ause": "AUSE",
}

SheetRows = Sequence[tuple[str, Sequence[np.ndarray]]]  # name of a row, its pictures [H, W, 3] uint8


@dataclass(frozen=True)
class _Panel:
    """A map [H, W], its title, and how it is coloured; unknown pixels are NaN."""

    title: str
    values: np.ndarray
    colormap: str
    low: float
    high: float
    beyond: str  # ends of the colour bar that go on: "both", "max"


def draw_comparison(sample: Sample, comparison: Comparison, predictor: str, path: Path) -> None:
    """Draw photo, truth, prediction, relative error and, where there is one, uncertainty -> PNG and PDF at ``path``.

    Truth and prediction share their colours; ``predictor`` names what predicted. Raises: ExportError when a file cannot
    be written.
    """
    height, width = sample.depth_m.shape
    panels = _panels(sample, comparison)
    columns = 2 if width / height > WIDE else len(panels) + 1
    rows = -(-(len(panels) + 1) // columns)
    map_in = math.sqrt(AREA_IN2 * width / height), math.sqrt(AREA_IN2 * height / width)
    size_in = columns * map_in[0] + 0.2, rows * (map_in[1] + TITLE_IN + BAR_IN + FOOT_IN) + TITLE_IN
    figure = Figure(size_in, dpi=DPI, layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[map_in[1], BAR_IN] * rows)
    photo, *places = axes[::2].flat
    text, *bars = axes[1::2].flat
    for place in (photo, *places, text, *bars[len(panels) :]):
        place.set_axis_off()
    step = -(-max(height, width) // GRID_PX)
    photo.imshow(sample.rgb[::step, ::step])
    photo.set_title("photo", fontsize=10)
    found = [f"{label} {comparison.row[name]:.3f}" for name, label in CAPTION.items() if name in comparison.row]
    caption = "   ".join(found[:3]) + "\n" + "   ".join(found[3:])
    text.text(0, 1, caption, fontsize=9, va="top").set_in_layout(False)
    for place, bar, panel in zip(places, bars, panels, strict=False):
        colours = colormaps[panel.colormap].with_extremes(bad=UNKNOWN)
        values = panel.values[::step, ::step]
        picture = place.imshow(values, colours, vmin=panel.low, vmax=panel.high, interpolation="nearest")
        place.set_title(panel.title, fontsize=10)
        figure.colorbar(picture, cax=bar, orientation="horizontal", extend=panel.beyond)
        bar.tick_params(labelsize=8, length=2)
        bar.locator_params(nbins=5)
    _title(figure, f"{sample.name}, by {predictor}")
    save_figure(figure, path, PNG, PDF)


def plain(name: str) -> str:
    """Write the name of a file or folder as text of a figure, where two dollars would enclose a formula."""
    return os.fsencode(name).decode(errors="replace").replace("$", r"\$")


def draw_sparsification(curves: np.ndarray, predictor: str, path: Path) -> None:
    """Draw mean curves [2, N], by uncertainty and by the oracle -> PNG and PDF at ``path``.

    Raises: ExportError when a file cannot be written.
    """
    figure = Figure(figsize=(4.8, 3.6), dpi=DPI, layout="constrained")
    place = figure.subplots()
    by_uncertainty, oracle = curves
    place.axhline(1, color="0.6", linestyle=":", label="at random")
    place.plot(REMOVED[:-1], by_uncertainty[:-1], color="#b2182b", label="most uncertain first")
    place.plot(REMOVED[:-1], oracle[:-1], color="#2166ac", label="largest error first (oracle)")
    place.fill_between(REMOVED[:-1], oracle[:-1], by_uncertainty[:-1], color="#b2182b", alpha=0.12, linewidth=0)
    place.set(xlabel="share of pixels removed", ylabel="mean error of the rest (all = 1)", xlim=(0, 1), ylim=(0, None))
    place.spines[["top", "right"]].set_visible(False)
    place.legend(frameon=False, fontsize=9)
    _sign(figure, predictor)
    save_figure(figure, path, PNG, PDF)


def draw_sheet(title: str, columns: Sequence[str], rows: SheetRows, path: Path) -> None:
    """Draw pictures in rows and columns -> PNG at ``path``.

    Args:
        title: of the whole sheet.
        columns: title of each column.
        rows: name of each row, and its pictures [H, W, 3] uint8.
        path: file to write.

    Raises:
        ExportError: the file cannot be written.
    """
    shapes = [max(picture.shape[0] / picture.shape[1] for picture in pictures) for _, pictures in rows]
    size_in = COLUMN_IN * len(columns), sum(COLUMN_IN * shape + TITLE_IN for shape in shapes) + 2 * TITLE_IN
    figure = Figure(size_in, dpi=DPI, layout="constrained")
    places = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=shapes)
    for line, (name, pictures) in zip(places, rows, strict=True):
        for place, column, picture in zip(line, columns, pictures, strict=True):
            place.set_axis_off()
            place.imshow(picture)
            if name == rows[0][0]:
                place.set_title(column, fontsize=10)
        line[0].text(0, -0.02, plain(name), fontsize=8, va="top", transform=line[0].transAxes)
    _title(figure, title)
    save_figure(figure, path, PNG)


def draw_fields_of_view(groups: Sequence[Sequence[Row]], predictor: str, path: Path) -> None:
    """Draw AbsRel and delta1 of pictures by their field of view, "fov_x_deg" -> PNG and PDF at ``path``.

    Each group has its mean and its median. Raises: ExportError when a file cannot be written.
    """
    figure = Figure((6.8, 3.2), dpi=DPI, layout="constrained")
    places = figure.subplots(1, 2)
    for place, (name, label) in zip(places, [*CAPTION.items()][:2], strict=True):
        for number, group in enumerate(groups):
            degrees, values = ([row[key] for row in group] for key in ("fov_x_deg", name))
            named = number == 0  # a legend has each once
            place.plot(degrees, values, ".", color="0.7", label="a picture" if named else None)
            for word, middle, line in (("mean", np.mean, "-"), ("median", np.median, "--")):
                of_all = f"{word} of a third of them" if named else None
                place.hlines(middle(values), degrees[0], degrees[-1], "#b2182b", line, label=of_all)
        place.set(xlabel="field of view, degrees", ylabel=f"{label}, without a fit")
        place.set_yscale("log" if name == "abs_rel" else "linear")  # a few pictures have errors many times the rest's
        place.spines[["top", "right"]].set_visible(False)
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    _sign(figure, predictor)
    save_figure(figure, path, PNG, PDF)


@dataclass(frozen=True)
class Curve:
    """One curve of a table's figure, or its rows as points side by side."""

    label: str
    varied: str | None  # what the places are numbers of; None: they are names
    places: Sequence[float | str]
    seeds: Sequence[Sequence[tuple[float, float]]]  # both measures of every seed, by place; NaN: not known


def draw_table(
    title: str, start: str, measures: Sequence[str], panels: Mapping[str, Sequence[Curve]], path: Path
) -> None:
    """Draw two measures, one above the other, a column for each panel -> PNG and PDF at ``path``.

    Rows that have names stand below each other, so that the names can be read; ``start`` names the checkpoint. Source:
    the figures of the ablations of Ke et al. 2024. Raises: ExportError when a file cannot be written.
    """
    first = next(iter(panels.values()))[0]
    named = 0 if first.varied else max(len(str(place)) for place in first.places)  # letters
    height_in = 5.0 if first.varied else 1.7 + 0.44 * len(first.places)
    width_in = max(2.7 * len(panels) + 0.07 * named, 0.09 * len(title))
    figure = Figure((width_in, height_in), dpi=DPI, layout="constrained")
    places = figure.subplots(2, len(panels), squeeze=False)
    for column, (name, curves) in enumerate(panels.items()):
        for row, measure in enumerate(measures):
            place = places[row, column]
            for number, curve in enumerate(curves):
                _draw_curve(place, curve, row, f"C{number}")
            if first.varied:
                place.set_xscale("log")
                place.set_xticks(first.places, [f"{number:g}" for number in first.places])  # pyright: ignore
                place.set_xlim(0.8 * float(first.places[0]), 1.25 * float(first.places[-1]))
                place.minorticks_off()
                place.set_xlabel(first.varied if row else "")
                place.set_ylabel("" if column else measure)
                place.margins(y=0.12)
            else:
                place.set_ylim(len(first.places) - 0.5, -0.5)
                place.set_yticks(range(len(first.places)), ["" if column else str(one) for one in first.places])
                place.set_xlabel(measure)
                place.margins(x=0.12)
            if np.isnan([seed[row] for curve in curves for seeds in curve.seeds for seed in seeds]).all():
                (place.set_yticks if first.varied else place.set_xticks)([])
                place.text(0.5, 0.5, "not published", color="0.5", ha="center", transform=place.transAxes)
            place.set_title("" if row else plain(name), fontsize=10)
            place.grid(alpha=0.25)
            place.spines[["top", "right"]].set_visible(False)
    if len(next(iter(panels.values()))) > 1:
        places[0, 0].legend(frameon=False, fontsize=8)
    _title(figure, title)
    _sign(figure, start)
    save_figure(figure, path, PNG, PDF)


def _draw_curve(place: Axes, curve: Curve, measure: int, colour: str) -> None:
    """Draw one of the two measures of a curve: means, with bars from the lowest to the highest seed.

    Figures of a single seed, as published ones are, are hollow and have no bars.
    """
    values = [np.array(seeds)[:, measure] for seeds in curve.seeds]
    mean = np.array([each.mean() for each in values])
    single = all(len(each) == 1 for each in values)
    bars = None if single else [mean - [each.min() for each in values], [each.max() for each in values] - mean]
    look = {"color": colour, "marker": "o", "markersize": 4, "capsize": 2, "label": curve.label}
    look |= {"markerfacecolor": "white"} if single else {}
    if curve.varied:
        place.errorbar(curve.places, mean, bars, linestyle="-", **look)
    else:
        place.errorbar(mean, range(len(mean)), xerr=bars, linestyle="none", **look)


def _panels(sample: Sample, comparison: Comparison) -> list[_Panel]:
    counted, aligned = comparison.counted, comparison.aligned_m
    truth = np.where(counted, sample.depth_m, np.nan)
    low, high = np.percentile(truth[counted], [1, 99]) if counted.any() else (0.0, 1.0)
    with np.errstate(invalid="ignore"):  # sky is infinite and does not count
        error = np.where(counted, np.abs(aligned - truth) / truth, np.nan)
    panels = [
        _Panel("truth [m]", truth, DEFAULT_COLORMAP, low, high, "both"),
        _Panel("prediction, aligned [m]", aligned, DEFAULT_COLORMAP, low, high, "both"),
        _Panel("error / truth", error, "magma", 0, LARGEST_ERROR, "max"),
    ]
    if comparison.uncertainty is not None:
        top = float(np.percentile(comparison.uncertainty, 98)) or 1.0
        panels.append(_Panel("uncertainty", comparison.uncertainty, "inferno", 0, top, "max"))
    return panels


def _title(figure: Figure, title: str) -> None:
    """Write what a figure shows above it."""
    figure.suptitle(plain(title), x=0.01, ha="left", fontsize=10, weight="bold")


def _sign(figure: Figure, checkpoint: str) -> None:
    """Write below a figure which checkpoint it is of."""
    figure.supxlabel(plain(checkpoint), x=0.99, ha="right", fontsize=8, color="0.4")


def save_figure(figure: Figure, path: Path, *endings: str) -> None:
    """Write a figure with each of the endings in the place of the path's, ``PNG`` or ``PDF``, whole or not at all.

    Raises: ExportError when a file cannot be written.
    """
    FigureCanvasAgg(figure)
    for ending in endings:
        with replacing(path.with_suffix(ending)) as aside:
            figure.savefig(aside, format=ending[1:], facecolor="white")
