"""The pictures of a comparison: the colours of its cells, and the sheet that shows them all, drawn with Pillow.

A sheet has one block for each checkpoint and seed with rows of steps and columns of members, the photo in the corner,
and one colour bar for all pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from marigold_core import storage
from marigold_core.comparison.sweep import Row, Sweep, format_seconds, to_csv
from marigold_core.images.colormaps import depth_to_rgb, normals_to_rgb, to_rgb, uncertainty_to_rgb
from marigold_core.settings import DEFAULT_COLORMAP, Colormap

SHEET, DIFFERENCES, TABLE = FILES = ("compare.png", "compare_difference.png", "compare.csv")
WIDEST_PX = 2400  # of all columns together; more columns get smaller pictures
TILE_PX = 120, 320  # longest edge of a picture, least and most
MARGIN, GAP, LABEL_W = 28, 14, 92
REFERENCE = "reference"
BAR_W, BAR_H = 260, 14
THUMB_PX = 170, 102  # the photo at most
INK, QUIET, MARK = "#1d1d1f", "#5c5c61", "#0a66c2"
_UNITS = {
    "affine": "mean after fitting scale and shift",
    "scale": "mean after fitting scale",
    "metric": "mean, metres",
    "unit-vector": "mean angle over pi",
    "unit-range": "mean over all layers",
    "class": "share of pixels of another class",
}
TITLE, HEADING, LABEL, CAPTION = 26, 19, 16, 14  # font sizes
CAPTION_LINE = CAPTION + 4


# ------------------------------------------------------------------------------- colours


@dataclass(frozen=True)
class Bar:
    """What the colours mean."""

    colours: np.ndarray  # [256, 3] uint8, from the left end to the right
    left: str
    right: str


@dataclass(frozen=True)
class Paint:
    """The colours of all cells of a comparison, on one scale."""

    shows: str  # the title: "Depth", "Surface normals", the layer of intrinsics, or "Difference to the reference"
    low: float = 0.0  # the values of the first and the last colour
    high: float = 1.0
    colormap: Colormap = DEFAULT_COLORMAP  # of depth; normals and differences have fixed colours

    @property
    def bar(self) -> Bar | None:
        """Describe what the colours mean; None for normals and intrinsics."""
        if self.shows not in ("Depth", "Difference to the reference"):
            return None
        colours = self._colour(self.low + np.linspace(0, 1, 256) * ((self.high - self.low) or 1.0))
        if self.shows == "Depth":
            return Bar(colours, f"near {self.low:.3g}", f"{self.high:.3g} far")
        return Bar(colours, "0", f"{self.high:.2g} or more")

    def picture(self, row: Row) -> np.ndarray:
        """Colour one cell -> [h, w, 3] uint8."""
        if self.shows == "Difference to the reference":
            return self._colour(row.difference)
        return to_rgb(row.tile) if row.tile.layers else self._colour(row.tile.values)

    def _colour(self, values: np.ndarray) -> np.ndarray:
        if self.shows == "Surface normals":
            return normals_to_rgb(values)
        if self.shows == "Depth":
            return depth_to_rgb((values - self.low) / ((self.high - self.low) or 1.0), self.colormap)
        return uncertainty_to_rgb(values, self.high)


def paint_maps(rows: Sequence[Row], colormap: Colormap = DEFAULT_COLORMAP) -> Paint:
    """Choose the colours of the cells' maps; depth of a kind other than "affine" has the common range of all cells."""
    maps, kind = [row.tile.values for row in rows], rows[0].tile.kind
    if kind == "unit-vector":
        return Paint("Surface normals")
    if layers := rows[0].tile.layers:
        return Paint(layers[0].name.capitalize())
    low, high = (0.0, 1.0) if kind == "affine" else (float(min(map(np.min, maps))), float(max(map(np.max, maps))))
    return Paint("Depth", low, high, colormap)


def paint_differences(rows: Sequence[Row]) -> Paint:
    """Choose the colours of the cells' differences; they end at the 99th percentile over all cells."""
    top = float(np.percentile(np.concatenate([row.difference.ravel() for row in rows]), 99)) or 1.0
    return Paint("Difference to the reference", high=top)


def choose_paint(sweep: Sweep) -> Paint:
    """Choose the colours of the cells so far, as they are to be shown; there must be one."""
    rows = sweep.rows()
    return paint_maps(rows, sweep.colormap) if sweep.shows == "maps" else paint_differences(rows)


# ------------------------------------------------------------------------------- the sheet


@dataclass(frozen=True)
class _Plan:
    """Where things go; all in pixels."""

    steps: list[int]
    sizes: list[int]
    blocks: list[tuple[str, int | None]]  # checkpoint and seed; of a map from elsewhere, which has one line, None
    tile: tuple[int, int]  # width, height of a picture
    column: int  # width of a column, its gap included
    head: tuple[str, str]  # title, and the line below it
    top: int  # where the blocks begin

    @property
    def line(self) -> int:
        """Height of a row of cells: picture, three lines of caption, gap."""
        return self.tile[1] + 3 * CAPTION_LINE + GAP + 4

    def block(self, number: int) -> int:
        """Top of a block: heading, the columns' names, cells, gap; of the number after the last, the end of all."""
        lines = (1 if seed is None else len(self.steps) for _, seed in self.blocks[:number])
        return self.top + sum(HEADING + LABEL + 2 * GAP + count * self.line + GAP for count in lines)

    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        columns = LABEL_W + len(self.sizes) * self.column - GAP
        texts = _font(TITLE).getlength(self.head[0]), _font(CAPTION).getlength(self.head[1]), BAR_W
        width = 2 * MARGIN + max(columns, THUMB_PX[0] + 2 * GAP + int(max(texts)) + 1)
        return width, self.block(len(self.blocks)) + MARGIN - GAP

    def corner(self, row: Row) -> tuple[int, int]:
        """Left and top of a row's picture."""
        tile = row.tile
        column = 0 if tile.members is None else self.sizes.index(tile.members)
        line = 0 if tile.steps is None else self.steps.index(tile.steps)
        top = self.block(self.blocks.index((tile.checkpoint, tile.seed))) + HEADING + LABEL + 2 * GAP
        return MARGIN + LABEL_W + column * self.column, top + line * self.line


def write(rows: Sequence[Row], photo: np.ndarray, colormap: Colormap, folder: Path) -> list[Path]:
    """Write the sheet of maps, the sheet of differences and, last, the table -> the files in this order."""
    sheets = [draw(rows, photo, paint) for paint in (paint_maps(rows, colormap), paint_differences(rows))]
    paths = [folder / name for name in FILES]
    for path, content in zip(paths, [*sheets, to_csv(rows)], strict=True):
        storage.write_bytes(path, content)
    return paths


def draw(rows: Sequence[Row], photo: np.ndarray, paint: Paint) -> bytes:
    """Rows and the photo [H, W, 3] uint8 -> PNG file with a picture of every cell."""
    plan = _plan(paint.shows, rows)
    sheet = Image.new("RGB", plan.size(), "white")
    pen = ImageDraw.Draw(sheet)
    _draw_head(sheet, pen, plan.head, photo, paint.bar)
    for number, (checkpoint, seed) in enumerate(plan.blocks):
        y = plan.block(number)
        pen.text((MARGIN, y), checkpoint if seed is None else f"{checkpoint}, seed {seed}", INK, _font(HEADING))
        if seed is None:
            continue
        for column, members in enumerate(plan.sizes):
            x = MARGIN + LABEL_W + column * plan.column
            pen.text((x, y + HEADING + GAP), _count(members, "member"), INK, _font(LABEL))
        for line, steps in enumerate(plan.steps):
            middle = y + HEADING + LABEL + 2 * GAP + line * plan.line + plan.tile[1] // 2
            pen.text((MARGIN, middle), _count(steps, "step"), INK, _font(LABEL), anchor="lm")
    for row in rows:
        _draw_cell(sheet, pen, plan, row, paint.picture(row))
    file = BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_head(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, head: tuple[str, str], photo: np.ndarray, bar: Bar | None
) -> None:
    """Draw the photo in the corner, and beside it the title, the reference and what the colours mean."""
    thumb = Image.fromarray(photo)
    thumb.thumbnail(THUMB_PX, Image.Resampling.LANCZOS)
    sheet.paste(thumb, (MARGIN, MARGIN))
    x = MARGIN + thumb.width + 2 * GAP
    pen.text((x, MARGIN - 4), head[0], INK, _font(TITLE))
    pen.text((x, MARGIN + TITLE + 8), head[1], QUIET, _font(CAPTION))
    if bar is None:
        pen.text((x, MARGIN + 62), "red: right, green: up, blue: toward the viewer", QUIET, _font(CAPTION))
        return
    y = MARGIN + 64
    strip = Image.fromarray(bar.colours[None]).resize((BAR_W, BAR_H), Image.Resampling.NEAREST)
    sheet.paste(strip, (x, y))
    pen.text((x, y + BAR_H + 4), bar.left, QUIET, _font(CAPTION))
    pen.text((x + BAR_W, y + BAR_H + 4), bar.right, QUIET, _font(CAPTION), anchor="ra")


def _draw_cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, plan: _Plan, row: Row, picture: np.ndarray) -> None:
    """Draw one picture with its caption; the reference gets a frame."""
    x, y = plan.corner(row)
    width, height = plan.tile
    sheet.paste(Image.fromarray(picture).resize(plan.tile, Image.Resampling.BILINEAR), (x, y))
    if row.is_reference:
        pen.rectangle((x - 4, y - 4, x + width + 3, y + height + 3), outline=MARK, width=3)
    for line, text in enumerate(caption(row)):
        ink = MARK if text == REFERENCE else QUIET
        pen.text((x, y + height + 6 + line * CAPTION_LINE), text, ink, _font(CAPTION))


def caption(row: Row) -> tuple[str, ...]:
    """Return the lines under a cell: time, difference, uncertainty by what it is, as far as it has them."""
    apart = REFERENCE if row.is_reference else f"difference {row.record['difference']:.3f}"
    seconds, mean = row.tile.seconds, row.tile.uncertainty
    time = () if seconds is None else (format_seconds(seconds),)
    return *time, apart, *(() if mean is None else (f"{row.tile.uncertainty_measure} {mean:.3f}",))


def describe_reference(rows: Sequence[Row]) -> str:
    """Describe which cell the others are measured against, and how."""
    reference = next(row.tile for row in rows if row.is_reference)
    made = ""
    if reference.steps and reference.members:  # not a map from elsewhere
        made = f", seed {reference.seed}, {_count(reference.steps, 'step')}, {_count(reference.members, 'member')}"
    return f"reference: {reference.checkpoint}{made}; difference: {_UNITS[reference.kind]}"


def _plan(title: str, rows: Sequence[Row]) -> _Plan:
    steps = sorted({row.tile.steps for row in rows if row.tile.steps})
    sizes = sorted({row.tile.members for row in rows if row.tile.members}) or [1]
    height, width = rows[0].tile.values.shape[:2]
    edge = min(max(WIDEST_PX // len(sizes), TILE_PX[0]), TILE_PX[1])
    scale = edge / max(height, width)
    tile = max(1, round(width * scale)), max(1, round(height * scale))
    texts = [*(text for row in rows for text in caption(row)), _count(sizes[-1], "member")]
    widest = max(_font(CAPTION).getlength(text) for text in texts)
    column = max(tile[0], int(widest) + 1) + GAP
    blocks = list(dict.fromkeys((row.tile.checkpoint, row.tile.seed) for row in rows))
    return _Plan(steps, sizes, blocks, tile, column, (title, describe_reference(rows)), MARGIN + THUMB_PX[1] + 2 * GAP)


def _count(number: int, what: str) -> str:
    return f"{number}  {what}" + "s" * (number != 1)  # two spaces: one of the default font is hardly seen after a 1


@lru_cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
