"""The grid and the table of a comparison as HTML. Zoom is the browser's own affair: assets/lab.js."""

from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote
from weakref import WeakKeyDictionary

from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from marigold_core.comparison.contact_sheet import Bar, Paint, caption, choose_paint, describe_reference
from marigold_core.comparison.sweep import PLACES, Record, Row, Sweep
from marigold_core.ui import text
from marigold_core.ui.text import lab as lab_text

Place = tuple[str, int, int, int]  # checkpoint, seed, steps, members
Key = tuple[int, Paint, int | None]  # the cell, its colours, and for differences the cell it is measured against


class Grid:
    """Draws comparisons; a picture is coloured once for as long as its comparison is kept."""

    def __init__(self) -> None:
        self._files: WeakKeyDictionary[Sweep, dict[Key, str]] = WeakKeyDictionary()

    def draw(self, sweep: Sweep) -> str:
        """Draw every cell in its place: a picture, or an empty frame where it is still to come."""
        rows = sweep.rows()
        paint = choose_paint(sweep) if rows else None
        blocks = []
        places = enumerate(sweep.places())
        for (checkpoint, seed), block in groupby(places, lambda place: place[1][:2]):
            heading = lab_text.BLOCK.format(checkpoint=escape(_short(checkpoint)), seed=seed)
            blocks.append(f"<h3>{heading}</h3>{self._block(sweep, list(block), rows, paint)}")
        bar = draw_bar(paint.bar) if paint else ""
        state = "running" if sweep.is_running else "still"
        return (
            f"<div class='lab-board {state}'><div class='under'>{bar}{_TOOLS}</div>"
            f"<div class='lab-scroll' tabindex='0' role='region' aria-label='{lab_text.GRID}'>{''.join(blocks)}</div>"
            f"<p class='note'>{lab_text.HINT}</p></div>"
        )

    def _block(self, sweep: Sweep, places: list[tuple[int, Place]], rows: list[Row], paint: Paint | None) -> str:
        """Draw the cells of one checkpoint and seed: a line for each number of steps."""
        head = "".join(f"<th scope='col'>{text.count(size, 'member')}</th>" for size in sweep.asked.sizes)
        lines = []
        for steps, line in groupby(places, lambda place: place[1][2]):
            cells = "".join(self._cell(sweep, number, rows, paint) for number, _ in line)
            lines.append(f"<tr><th scope='row'>{text.count(steps, 'step')}</th>{cells}</tr>")
        style = f"--columns: {len(sweep.asked.sizes)}"
        head = f"<thead><tr><td></td>{head}</tr></thead>"
        return f"<table class='lab-grid' style='{style}'>{head}<tbody>{''.join(lines)}</tbody></table>"

    def _cell(self, sweep: Sweep, number: int, rows: list[Row], paint: Paint | None) -> str:
        height, width = sweep.photo.pixels.shape[:2]
        window = f"class='window' style='aspect-ratio: {width} / {height}'"
        if number >= len(rows) or paint is None:
            return f"<td><span class='cell'><span {window}></span><span class='caption'></span></span></td>"
        row = rows[number]
        lines = caption(row)
        label = lab_text.CELL.format(
            checkpoint=row.tile.checkpoint,
            seed=row.tile.settings.seed,
            steps=text.count(row.tile.steps, "step"),
            members=text.count(row.tile.members, "member"),
            figures=", ".join(lines),
        )
        address = f"gradio_api/file={quote(self._file(sweep, number, rows, paint))}"
        return (
            f"<td><button type='button' class='cell' data-cell='{number}' aria-label='{escape(label)}'"
            f" aria-pressed='{str(row.is_reference).lower()}'>"
            f"<span {window}><img src='{escape(address)}' alt='' draggable='false'></span>"
            f"<span class='caption'>{''.join(f'<span>{line}</span>' for line in lines)}</span></button></td>"
        )

    def _file(self, sweep: Sweep, number: int, rows: list[Row], paint: Paint) -> str:
        """Write the picture of a cell, unless it lies there already -> its path."""
        against = next(index for index, row in enumerate(rows) if row.is_reference)
        known = self._files.setdefault(sweep, {})
        key = number, paint, against if sweep.shows == "differences" else None
        if key not in known or not Path(known[key]).exists():
            picture = Image.fromarray(paint.picture(rows[number]))
            known[key] = save_pil_to_cache(picture, get_upload_folder(), name="cell", format="png")
        return known[key]


def draw_bar(bar: Bar | None) -> str:
    """Draw what the colours mean."""
    if bar is None:
        return f"<div class='legend'><small>{lab_text.NORMALS}</small></div>"
    colours = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in bar.colours[::11])
    return (
        f"<div class='legend'><span>{bar.left}</span>"
        f"<i style='background: linear-gradient(90deg, {colours})'></i><span>{bar.right}</span></div>"
    )


def draw_table(rows: list[Row]) -> str:
    """Draw the figures of every cell; nothing where there is none."""
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{name}</th>" for name in lab_text.COLUMNS.values())
    lines = []
    for row in rows:
        mark = " class='reference'" if row.is_reference else ""
        cells = (f"<td>{_figure(name, row.record)}</td>" for name in lab_text.COLUMNS)
        lines.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return (
        f"<div class='lab-scroll' tabindex='0' role='region' aria-label='{lab_text.TABLE}'>"
        f"<table class='lab-table'><caption>{escape(text.capital(describe_reference(rows)))}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _figure(name: str, record: Record) -> str:
    value = record[name]
    if value is None:
        return f"<span aria-label='{lab_text.UNKNOWN}'>&ndash;</span>"
    if name == "difference" and record["reference"]:
        return lab_text.REFERENCE
    return f"{value:.{PLACES[name]}f}" if name in PLACES else escape(str(value))


def _short(checkpoint: str) -> str:
    """Name a checkpoint as its results will: a folder by its own name."""
    return checkpoint if checkpoint.count("/") == 1 else checkpoint.rstrip("/").rsplit("/", 1)[-1]


_BUTTONS = "".join(
    f"<button type='button' data-zoom='{action}' aria-label='{label}' title='{label}'>{sign}</button>"
    for action, (sign, label) in lab_text.ZOOMS.items()
)
_TOOLS = (
    f"<div class='lab-tools' role='group' aria-label='{lab_text.ZOOM}'>{_BUTTONS}<span class='lab-level'></span></div>"
)
