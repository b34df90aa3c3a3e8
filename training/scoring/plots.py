"""Pictures of scores: a photo beside its truth, its prediction, where that is wrong and how sure it was."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from marigold_core.settings import DEFAULT_COLORMAP
from marigold_core.storage import replacing
from training.data.sets.sample import Sample
from training.scoring.scores import Comparison
from training.scoring.uncertainty import REMOVED

AREA_IN2 = 7.5  # square inches of one panel, whatever its shape
DPI = 110
GAP_IN, TITLE_IN, FOOT_IN, BAR_IN = 0.2, 0.3, 0.5, 0.1
WIDE = 1.9  # from this width over height on, panels stand two in a row instead of all
LARGEST_ERROR = 0.3  # of the truth; takes the last colour in every figure, so that figures compare
UNKNOWN = "#d9d9d9"
GRID_PX = 900  # no panel shows more pixels a side
CAPTION = {
    "abs_rel": "AbsRel",
    "delta1": "delta1",
    "rmse": "RMSE [m]",
    "boundary_f1": "boundary F1",
    "spearman": "Spearman",
    "ause": "AUSE",
}


@dataclass(frozen=True)
class _Panel:
    """A map [H, W], what it says, and how it is coloured; unknown pixels are NaN."""

    title: str
    values: np.ndarray
    colormap: str
    low: float
    high: float
    beyond: str  # ends of the colour bar that go on: "both", "max"


class _Grid:
    """A figure of maps of one shape, each with its title above and room for a colour bar below."""

    def __init__(self, count: int, height: int, width: int):
        self.columns = 2 if width / height > WIDE else count
        self.map_in = math.sqrt(AREA_IN2 * width / height), math.sqrt(AREA_IN2 * height / width)
        self.cell_in = self.map_in[0] + GAP_IN, TITLE_IN + self.map_in[1] + FOOT_IN
        rows = -(-count // self.columns)
        self.size_in = self.columns * self.cell_in[0] + GAP_IN, rows * self.cell_in[1] + TITLE_IN
        self.figure = Figure(figsize=self.size_in, dpi=DPI)

    def map_axes(self, number: int) -> Axes:
        """Make the axes of map ``number``, which they fill."""
        return self._axes(number, 0, TITLE_IN, *self.map_in)

    def bar_axes(self, number: int) -> Axes:
        """Make the axes of the colour bar of map ``number``."""
        wide, high = self.map_in
        return self._axes(number, 0.1 * wide, TITLE_IN + high + BAR_IN / 2, 0.8 * wide, BAR_IN)

    def _axes(self, number: int, right_in: float, down_in: float, wide_in: float, high_in: float) -> Axes:
        """Make axes so far to the right of a cell's left edge and below its top."""
        row, column = divmod(number, self.columns)
        total_x, total_y = self.size_in
        left = GAP_IN + column * self.cell_in[0] + right_in
        top = TITLE_IN + row * self.cell_in[1] + down_in
        return self.figure.add_axes(
            (left / total_x, 1 - (top + high_in) / total_y, wide_in / total_x, high_in / total_y)
        )


def draw_comparison(sample: Sample, comparison: Comparison, path: Path) -> None:
    """Draw photo, truth, prediction, relative error and, where there is one, uncertainty -> a PNG at ``path``.

    Truth and prediction share their colours. Raises: ExportError when the file cannot be written.
    """
    height, width = sample.depth_m.shape
    panels = _panels(sample, comparison)
    grid = _Grid(len(panels) + 1, height, width)
    step = -(-max(height, width) // GRID_PX)
    photo = grid.map_axes(0)
    photo.imshow(sample.rgb[::step, ::step], aspect="auto")
    _label(photo, "photo")
    row = comparison.row
    found = [f"{label} {row[name]:.3f}" for name, label in CAPTION.items() if name in row]
    lines = "   ".join(found[:3]) + "\n" + "   ".join(found[3:])
    photo.annotate(lines, (0, 0), (0, -5), xycoords="axes fraction", textcoords="offset points", fontsize=9, va="top")
    for number, panel in enumerate(panels, start=1):
        picture = _paint(grid.map_axes(number), panel, step)
        bar = grid.bar_axes(number)
        grid.figure.colorbar(picture, cax=bar, orientation="horizontal", extend=panel.beyond)
        bar.tick_params(labelsize=8, length=2)
        bar.locator_params(nbins=5)
    photo.annotate(sample.name, (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points", weight="bold")
    _save(grid.figure, path)


def draw_sparsification(curves: np.ndarray, path: Path) -> None:
    """Draw mean curves [2, N], by uncertainty and by the oracle -> a PNG at ``path``.

    Raises: ExportError when the file cannot be written.
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
    _save(figure, path)


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
        doubt = comparison.uncertainty
        top = float(np.percentile(doubt, 98)) or 1.0
        panels.append(_Panel("uncertainty", doubt, "inferno", 0, top, "max"))
    return panels


def _paint(place: Axes, panel: _Panel, step: int) -> AxesImage:
    colours = colormaps[panel.colormap].with_extremes(bad=UNKNOWN)
    _label(place, panel.title)
    return place.imshow(
        panel.values[::step, ::step],
        cmap=colours,
        vmin=panel.low,
        vmax=panel.high,
        interpolation="nearest",
        aspect="auto",
    )


def _label(place: Axes, title: str) -> None:
    place.set_title(title, fontsize=10, pad=4)
    place.set_axis_off()


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as aside:
        figure.savefig(aside, format="png", facecolor="white")
