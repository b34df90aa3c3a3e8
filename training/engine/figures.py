"""Figures during a run: the curves of its metrics, and when they and sheets of pictures are drawn."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import ModelMixin
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marigold_core.errors import ExportError
from training.engine.metrics_log import DECIDES, MetricsLog, Record
from training.recipe import Schedule
from training.scoring.plots import PNG, plain, save_figure
from training.scoring.targets import TITLES

CURVES = "curves.png"
SMOOTH = 50  # steps that a point of the loss curve is the mean of, at most
NO_PARTS = {"step", "samples", "loss", "usable", "gradient", "lr", "skipped", "time"}  # of the loss, in a record


@dataclass(frozen=True)
class FigureCallback:
    """Draws curves and a sheet of pictures every so many steps, as the recipe says, and at the end."""

    recipe: Schedule
    folder: Path
    sheet: Callable[[ModelMixin, int, Path], None] | None = None  # network, step, where to

    def __call__(self, network: ModelMixin, step: int, log: MetricsLog, stopping: Callable[[], bool]) -> None:
        """Draw what is due at ``step``, unless the run is ``stopping``; a sheet that is there is not drawn again."""
        if stopping() or not due(step, self.recipe.figure_steps, self.recipe):
            return
        path = sheet_path(self.folder, step)
        with drawing(step):
            if self.sheet is not None and not path.exists():
                self.sheet(network, step, path)
            draw_curves(log.read(), self.folder / CURVES)


def due(step: int, every: int, recipe: Schedule) -> bool:
    """Tell whether something is done at a step, which is done every so many steps and at the end."""
    return step > 0 and (step % every == 0 or step == recipe.steps)


def sheet_path(run: Path, step: int) -> Path:
    """Return where the pictures of a step are drawn."""
    return run / "samples" / f"step_{step:08d}.png"


@contextmanager
def drawing(step: int) -> Generator[None]:
    """Let training go on without pictures where they cannot be written."""
    try:
        yield
    except ExportError as error:
        print(f"Not drawn at step {step}: {error}", file=sys.stderr)


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Draw loss, gradient, learning rate and validation scores, beside baselines, over steps as a PNG.

    Where nothing was validated, the parts of the loss take the place of the scores.
    """
    steps = [record for record in records if "loss" in record]
    scores = [record for record in records if "score" in record]
    figure = Figure((10, 6), dpi=110, layout="constrained")
    panes = figure.subplots(2, 2)
    for pane, name in zip(panes.flat, ("loss", "gradient", "lr"), strict=False):
        x, y = _smooth([record["step"] for record in steps], [record[name] for record in steps], name != "lr")
        pane.plot(x, y, linewidth=1)
        pane.set(title={"lr": "learning rate", "gradient": "gradient norm"}.get(name, name), xlabel="step")
    for label in dict.fromkeys(label for record in scores for label in _validation(record)):
        known = [(record["step"], _validation(record)[label]) for record in scores if label in _validation(record)]
        (line,) = panes[1, 1].plot(*zip(*known, strict=True), marker="o", markersize=3, label=plain(label))
        baselines = scores[-1].get("baselines", {})
        for (name, score), dash in zip(baselines.get(label, {}).items(), ("--", ":"), strict=False):
            look = {"color": line.get_color(), "linestyle": dash, "linewidth": 1}
            panes[1, 1].axhline(score, **look, label=plain(f"{name}, {label}"))
    parts = [] if scores or not steps else [name for name in steps[-1] if name not in NO_PARTS]
    for name in parts:
        known = [record for record in steps if name in record]
        panes[1, 1].semilogy(*_smooth([one["step"] for one in known], [one[name] for one in known], True), label=name)
    decides = TITLES[scores[-1].get("decides", DECIDES)] if scores else ""
    title = "parts of the loss" if parts else f"validation {decides}"
    panes[1, 1].set(title=title, xlabel="step")
    for pane in panes.flat:
        pane.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panes[1, 1].legend(fontsize=8) if scores or parts else panes[1, 1].remove()
    save_figure(figure, path, PNG)


def _validation(record: Record) -> dict[str, float]:
    """Return the figure that decides by data set."""
    decides = record.get("decides", DECIDES)
    return {label: row[decides] for label, row in record["validation"].items()}


def _smooth(x: Sequence[object], y: Sequence[object], smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring points, without those that are not finite (skipped steps)."""
    steps, values = np.array(x, dtype=float), np.array(y, dtype=float)
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    width = min(SMOOTH, len(values) // 10)
    if not smooth or width < 2:
        return steps, values
    kernel = np.ones(width) / width
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")
