"""The compare screen: steps x members x seeds x checkpoints on one photo, in one grid that fills while it runs.

Another reference, other colours and the files are made from the kept comparison: only Run uses the model. The pictures
are zoomed in the browser, by assets/compare.js.
"""

import json
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

import gradio as gr

from marigold_core.checkpoints.registry import default_checkpoint
from marigold_core.comparison.contact_sheet import Paint, caption, choose_paint, describe_reference
from marigold_core.comparison.sweep import COLUMNS, Comparison, Row, Sweep, format_seconds
from marigold_core.errors import ExportError, ImageError, MarigoldError
from marigold_core.files import examples
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Progress
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import Service, shared_comparison
from marigold_core.settings import Settings, default
from marigold_core.ui import text
from marigold_core.ui.controls.examples import draw_examples, example_files
from marigold_core.ui.controls.runtime import USUAL_SIZE, size_of
from marigold_core.ui.controls.settings import chosen_px, draw_resolution, draw_views
from marigold_core.ui.error_messages import plain, translate_errors
from marigold_core.ui.events import (
    FOLLOWING,
    LAST,
    LIGHT,
    LONG,
    NO_CHANGE,
    QUIET,
    REPEATED,
    download,
    draw_file,
    follow,
    on,
)
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.offered_checkpoints import checkpoint_choices
from marigold_core.ui.photo_input import PhotoInput, draw_photo
from marigold_core.ui.pictures import file_value, preview
from marigold_core.ui.run_controller import JobTab, Pace, Update, Values, followed, progress_line, status_line
from marigold_core.ui.screens.depth import draw_colormaps
from marigold_core.ui.templates import render
from marigold_core.ui.text import compare as compare_text
from marigold_core.ui.theme import script

STEPS, STEPS_AT_FIRST = (1, 2, 4, 10, 20, 50), [1, 4, 10]
SIZES, SIZES_AT_FIRST = (1, 2, 3, 5, 10, 20), [1, 5]
SEEDS, SEEDS_AT_FIRST = (0, 1, 2, 3), [0]
EMPTY = f"<div class='lab-empty'><p>{compare_text.EMPTY}</p></div>"  # in the place of the grid

INSTEAD_JS = "(instead, own) => [instead && own?.path === instead[0] ? instead[1] : undefined, null]"
PictureKey = tuple[int, Paint, int | None]  # a cell, its colours, and for differences its reference


class CompareScreen(JobTab):
    """The photo and the choices, and the grid of compared pictures."""

    queue = LONG

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        super().__init__(service)
        self.files = WeakKeyDictionary[Sweep, dict[PictureKey, str]]()  # every picture is painted once
        self.unseen = gr.State(False)  # whether it was brought back and not drawn yet
        self.instead = gr.JSON(visible=False)  # a photo, and what the server puts in its place if it is still there
        with gr.Row(elem_id="lab", equal_height=False):
            with gr.Column(scale=0, min_width=340, elem_id="lab-controls"):
                self._draw_controls()
            with gr.Column(scale=1, min_width=320, elem_id="lab-results"):
                self.status = gr.HTML(status_line(compare_text.READY), elem_id="lab-status")
                self._draw_view()

    def _draw_controls(self) -> None:
        self.photo = draw_photo("lab-photo")
        self.steps = _choices(STEPS, STEPS_AT_FIRST, compare_text.STEPS)
        self.sizes = _choices(SIZES, SIZES_AT_FIRST, compare_text.SIZES)
        self.seeds = _choices(SEEDS, SEEDS_AT_FIRST, compare_text.SEEDS)
        self.cost = gr.HTML(elem_classes="note", elem_id="lab-cost")
        self.actions = JobButtons(compare_text.RUN, "lab-")
        self.checkpoints = gr.Dropdown(
            checkpoint_choices(),
            value=[default_checkpoint()],
            multiselect=True,
            label=compare_text.CHECKPOINTS,
            elem_id="lab-checkpoints",
        )
        self.resolution = draw_resolution("lab-resolution")
        self.views = draw_views("lab-views", default(Settings, "views"))
        self.gallery = draw_examples("lab-examples")

    def _draw_view(self) -> None:
        with gr.Row(elem_classes="under", elem_id="lab-view"):
            self.shown = gr.Radio(
                [(label, name) for name, label in compare_text.SHOWS.items()],
                value="maps",
                label=compare_text.SHOWN,
                show_label=False,
                container=False,
            )
            self.colormap = draw_colormaps(220, container=False, scale=0)
        photos = [text.EXAMPLE_PHOTOS[name] for name in examples.NAMES]
        self.grid = gr.HTML(
            EMPTY, js_on_load=script("compare.js"), apply_default_css=False, elem_id="lab-grid", photos=photos
        )
        self.table = gr.HTML(apply_default_css=False, elem_id="lab-table")
        with gr.Row(elem_id="lab-files"):
            self.buttons = [gr.Button(label, size="sm", interactive=False) for label in compare_text.FILES.values()]
        self.written = [draw_file() for _ in self.buttons]

    # ------------------------------------------------------------------------------- events

    def connect(self, page: gr.Blocks, tab: gr.Tab, photo: PhotoInput, result: gr.State) -> None:
        """Wire the events; photo and result are the studio's: the photo is taken over whenever it changes."""
        self.given = result
        choices = {self.photo, self.steps, self.sizes, self.seeds, self.checkpoints, self.resolution, self.views}
        view = {self.result, self.shown, self.colormap}
        drawn = [self.grid, self.table]
        at_rest = [self.status, *self.actions.outputs, *self.buttons, *drawn]
        # By the browser, as a late answer would take the place of a photo that was added since.
        files = json.dumps(example_files(self.gallery))
        on(self.gallery.click, None, self.gallery, self.photo, js=f"(index) => ({files})[index]")
        on(page.load, None, None, self.photo, js=f"() => ({files})[0]")
        self.browser = gr.BrowserState(None, storage_key="marigold-comparison", secret="marigold")  # id, after a reload
        loaded = on(page.load, self.on_load, self.browser, [self.result, self.unseen, self.instead])
        # What is put into a closed tab takes the words of its script away, so it is drawn when that is opened.
        follow(tab.select, self.on_open, view | {self.unseen}, [self.unseen, *at_rest], LIGHT)
        changed = [self.result, self.browser, self.instead, *at_rest]
        given = choices | view | {result}
        job, _ = self.connect_job(self.on_run, [self.actions.run.click], self.photo, given, changed)
        follow([self.shown.input, self.colormap.input], self.on_view, view, drawn, LIGHT)
        on(self.grid.select, self.on_pin, self.result, drawn, FOLLOWING, **REPEATED)
        for number, (button, file) in enumerate(zip(self.buttons, self.written, strict=True)):
            download(on(button.click, partial(self.on_write, number), self.result, file, shown=True), file)
        changes = [page.load, *(widget.change for widget in choices)]
        follow(changes, self.show_cost, choices, self.cost)
        job.success(self.show_cost, choices, self.cost, **LAST, **FOLLOWING, **QUIET)  # its times are known now
        on(photo.change, None, photo, self.photo, js="(path) => path")
        for answered in (loaded, job):
            answered.then(None, [self.instead, self.photo], [self.photo, self.instead], js=INSTEAD_JS, **QUIET)

    def on_run(self, file: str | None, values: Values) -> Generator[Update]:
        """Fill the grid cell by cell; the cells so far are kept when it is stopped."""
        if file is None:
            raise ImageError(text.NO_PHOTO)
        try:
            photo = load_photo(file)
        except ImageError:
            nothing: Update = {self.instead: [file, None], self.result: None, self.grid: EMPTY, self.table: ""}
            yield {**nothing, **{button: gr.Button(interactive=False) for button in self.buttons}}
            raise
        checkpoints = [check_checkpoint(name) for name in values[self.checkpoints]]
        key, sweep = self.service.begin_comparison(photo, self._requested(values), checkpoints, values[self.given])
        sweep.shows, sweep.colormap, sweep.is_running = values[self.shown], values[self.colormap], True
        sweep.file = Path(file)
        yield {
            self.result: key,
            self.browser: key,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            **self._drawn(sweep),
        }
        began, pace, drawn = perf_counter(), Pace(), 0
        try:
            for event in self.service.run_comparison(sweep):
                if isinstance(event, Progress) and pace.is_due:
                    begun = perf_counter()
                    cells, drawn = self._drawn(sweep) if len(sweep.tiles) > drawn else {}, len(sweep.tiles)
                    yield {self.status: progress_line(event, stale=False), **cells}
                    pace.wait(perf_counter() - begun)
                else:
                    yield {}
        finally:
            sweep.is_running = False
        cells = text.count(sweep.done, "cell")
        done = compare_text.DONE.format(cells=cells, time=format_seconds(perf_counter() - began))
        yield self.rest(key, f"{done} {photo.note}" if photo.note else done, values)

    def stopped(self, result: str | None, values: Values) -> Update:
        """Offer the cells so far."""
        sweep = self._kept(result)
        if sweep is None:
            return self.rest(result, compare_text.READY, values)
        places = len(sweep.places())
        sentence = compare_text.BACK if sweep.done == places else compare_text.STOPPED  # an earlier one, or this one
        return self.rest(result, sentence.format(done=sweep.done, cells=text.count(places, "cell")), values)

    def settled(self, result: str) -> Update:
        """Offer the cell that was under way if it is done."""
        return self.stopped(result, {})

    def on_load(self, key: object) -> tuple[str | None, bool, list[Any] | None]:
        """Bring back the comparison of this browser, also one that another process has made, as long as it is kept."""
        sweep = self._kept(key) if isinstance(key, str) else None
        if sweep is None:
            return None, False, None
        first = example_files(self.gallery)[0]["path"]
        return cast(str, key), True, [first, file_value(sweep.file) if sweep.file and sweep.file.exists() else None]

    def on_open(self, values: Values) -> Update:
        """Draw a comparison that was brought back, as the page shows them."""
        key = values[self.result]
        if not values[self.unseen] or key is None:
            return {self.unseen: False}
        with translate_errors():
            sweep = self.service.comparison(key)
            if sweep.is_running:
                cells = text.count(len(sweep.places()), "cell")
                going_on = self.idle(compare_text.GOES_ON.format(done=sweep.done, cells=cells))
                return {self.unseen: False, **going_on, **self._drawn(sweep)}
            sweep.shows, sweep.colormap = values[self.shown], values[self.colormap]
            return {self.unseen: False, **self.stopped(key, values)}

    def on_view(self, values: Values) -> Update:
        """Show the cells so far in another way; a comparison under way goes on in it."""
        if values[self.result] is None:
            return {self.grid: NO_CHANGE, self.table: NO_CHANGE}
        with translate_errors():
            sweep = self.service.comparison(values[self.result])
            sweep.shows, sweep.colormap = values[self.shown], values[self.colormap]
            return self._drawn(sweep)

    def on_pin(self, key: str | None, event: gr.SelectData) -> Update:
        """Make the picked cell the reference of all others."""
        with translate_errors():
            sweep = self.service.comparison(key)
            if isinstance(event.index, int):  # it comes from the browser
                sweep.pin(event.index)
            return self._drawn(sweep)

    def on_write(self, number: int, key: str | None) -> str:
        """Write the sheets and the table -> the path of the one that was asked for."""
        with translate_errors():
            return str(self.service.export_comparison(key)[number])

    def show_cost(self, values: Values) -> str:
        """Write what the choices will cost, or why they cannot be compared."""
        photo = values[self.photo]
        try:
            checkpoints = [check_checkpoint(name) for name in values[self.checkpoints]]
            size = size_of(photo) if photo else USUAL_SIZE
            cost = self.service.comparison_cost(self._requested(values), checkpoints, size)
        except MarigoldError as error:
            return plain(str(error))
        sentence = compare_text.COST if cost.measured else compare_text.COST_GUESS
        cells, time = text.count(cost.cells, "cell"), format_seconds(cost.seconds)
        fetching = text.COST_DOWNLOAD.format(size=cost.download_bytes / 1e9) if cost.download_bytes else ""
        return sentence.format(cells=cells, time=time, share=cost.seconds / cost.separate_s) + fetching

    # ------------------------------------------------------------------------------- inside

    def _kept(self, result: str | None) -> Sweep | None:
        with suppress(ExportError):
            return self.service.comparison(result)
        return None

    def _requested(self, values: Values) -> Comparison:
        size = chosen_px(values[self.resolution])
        axes = {"steps": values[self.steps], "sizes": values[self.sizes], "seeds": values[self.seeds]}
        return shared_comparison(**axes, processing_resolution=size, views=values[self.views])

    def _drawn(self, sweep: Sweep) -> Update:
        return {self.grid: draw_grid(sweep, self.files.setdefault(sweep, {})), self.table: draw_table(sweep.rows())}

    def rest(self, result: str | None, sentence: str, values: Values) -> Update:
        """Write how a comparison ended and offer its files; it is on the disk from then on."""
        sweep = self._kept(result)
        if sweep is None or result is None:
            return self.idle(sentence)
        sweep.is_running = False
        try:
            self.service.persist_comparison(result)
        except ExportError as error:  # it is in memory still
            sentence = followed(sentence, text.NOT_PERSISTED.format(reason=error))
        files = {button: gr.Button(interactive=bool(sweep.tiles)) for button in self.buttons}
        return {**self.idle(sentence), **files, **self._drawn(sweep)}


def _choices(values: tuple[int, ...], at_first: list[int], label: str) -> gr.CheckboxGroup:
    return gr.CheckboxGroup(
        [(str(value), value) for value in values], value=at_first, label=label, elem_classes="choices"
    )


# ------------------------------------------------------------------------------- the grid and the table


def draw_grid(sweep: Sweep, files: dict[PictureKey, str]) -> str:
    """Draw every cell in its place, an empty frame where it is to come -> HTML; adds painted pictures to ``files``."""
    rows = sweep.rows()
    paint = choose_paint(sweep) if rows else None
    reference = next((number for number, row in enumerate(rows) if row.is_reference), None)
    against = reference if sweep.shows == "differences" else None
    cells = (_cell((number, paint, against), row, files) for number, row in enumerate(rows) if paint)
    height, width = sweep.photo.pixels.shape[:2]
    requested, blocks = sweep.requested, list[tuple[str, list[str], list[tuple[str, list[Any]]]]]()
    if sweep.given:
        beside = [""] * (len(requested.sizes) - 1)  # it is as wide as a column
        blocks.append((sweep.given.checkpoint, [], [("", [next(cells, None), *beside])]))
    for checkpoint, seed in product(sweep.checkpoints, requested.seeds):
        heading = compare_text.BLOCK.format(checkpoint=_short(checkpoint), seed=seed)
        columns = [text.count(size, "member") for size in requested.sizes]
        lines = [(text.count(steps, "step"), [next(cells, None) for _ in columns]) for steps in requested.steps]
        blocks.append((heading, columns, lines))
    return render(
        "compare_grid",
        is_running=sweep.is_running,
        paint=paint,
        aspect=f"{width} / {height}",
        count=len(requested.sizes),
        blocks=blocks,
    )


def _cell(key: PictureKey, row: Row, files: dict[PictureKey, str]) -> dict[str, object]:
    """Describe a cell for the template; its picture is painted unless that was done before."""
    if key not in files or not Path(files[key]).exists():
        files[key] = preview(key[1].picture(row))
    lines, tile = caption(row), row.tile
    made = tile.checkpoint
    if tile.steps and tile.members:  # not a map from elsewhere
        steps, members = text.count(tile.steps, "step"), text.count(tile.members, "member")
        made = compare_text.CELL_MADE.format(checkpoint=made, seed=tile.seed, steps=steps, members=members)
    label = compare_text.CELL.format(made=made, figures=", ".join(lines))
    address = f"gradio_api/file={quote(files[key])}"
    return {"number": key[0], "label": label, "address": address, "lines": lines, "is_reference": row.is_reference}


def draw_table(rows: list[Row]) -> str:
    """Draw the figures of every cell -> HTML; nothing where there is none."""
    if not rows:
        return ""
    caption = text.capital(describe_reference(rows))
    return render("compare_table", caption=caption, rows=[(row.is_reference, _figures(row)) for row in rows])


def _figures(row: Row) -> list[str]:
    """Write the figures of a cell for the columns of the table; unknown ones are empty."""
    known: dict[str, str] = dict(zip(COLUMNS, row.figures(), strict=True))
    if measure := row.tile.uncertainty_measure:  # one column may hold both
        known["uncertainty"] += f" ({measure})"
    if row.is_reference:
        known["difference"] = compare_text.REFERENCE
    return [known[name] for name in compare_text.COLUMNS]


def _short(checkpoint: str) -> str:
    """Name a checkpoint as its results will: a folder by its own name."""
    return checkpoint if checkpoint.count("/") == 1 else checkpoint.rstrip("/").rsplit("/", 1)[-1]
