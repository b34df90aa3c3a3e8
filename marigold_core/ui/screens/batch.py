"""The screen for many photos: a table that fills while they are predicted, and all files in one ZIP.

Photos are jobs of the service, one after another; a photo that is done is on the disk alone, so that stopping, adding
photos and starting again go on with the rest.
"""

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import get_args

import gradio as gr

from marigold_core.comparison.sweep import format_seconds
from marigold_core.errors import ExportError, ImageError, SettingsError
from marigold_core.serving.batch import Batch
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import Service
from marigold_core.settings import Format
from marigold_core.ui import text
from marigold_core.ui.controls.settings import draw_checkpoint, draw_presets, preset_settings
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import LONG, download, draw_file, on
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.photo_input import PhotosInput
from marigold_core.ui.pictures import file_address
from marigold_core.ui.run_controller import JobTab, Pace, Update, Values, status_line
from marigold_core.ui.templates import render
from marigold_core.ui.text import batch as batch_text

FORMATS_AT_FIRST: list[Format] = ["png16", "color"]
EMPTY = f"<div class='lab-empty'><p>{batch_text.EMPTY}</p></div>"  # in the place of the table


class BatchScreen(JobTab):
    """The photos and the choices, and the table of what became of each."""

    queue = LONG

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        super().__init__(service)
        with gr.Row(elem_id="batch", equal_height=False, elem_classes="lab"):
            with gr.Column(scale=0, min_width=340, elem_id="batch-controls"):
                self.photos = PhotosInput(
                    label=batch_text.PHOTOS, file_count="multiple", height=210, elem_id="batch-photos"
                )
                self.preset = draw_presets()
                self.actions = JobButtons(batch_text.RUN, "batch-")
                self.formats = gr.CheckboxGroup(
                    [(text.FORMATS[name][0], name) for name in get_args(Format) if name != "uncertainty"],
                    value=FORMATS_AT_FIRST,
                    label=batch_text.FORMATS,
                    elem_classes="choices",
                )
                self.checkpoint = draw_checkpoint("choices")
            with gr.Column(scale=1, min_width=320, elem_id="batch-results"):
                self.status = gr.HTML(status_line(batch_text.READY), elem_id="batch-status")
                self.table = gr.HTML(EMPTY, apply_default_css=False, elem_id="batch-table")
                with gr.Row():
                    self.zip = gr.Button(batch_text.ZIP, size="sm", interactive=False, elem_id="batch-zip")
                self.file = draw_file()

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; outside the tabs, as what is in a closed one is not there when the page is loaded."""
        self.browser = gr.BrowserState(None, storage_key="marigold-batch", secret="marigold")  # id, after a reload
        at_rest = [self.status, *self.actions.outputs, self.zip, self.table]
        given = {self.preset, self.formats, self.checkpoint}
        on(page.load, self.on_load, self.browser, [self.result, *at_rest])
        changed = [self.result, self.browser, *at_rest]
        self.connect_job(self.on_run, [self.actions.run.click], self.photos, given, changed)
        download(on(self.zip.click, self.on_zip, self.result, self.file, shown=True), self.file)

    def on_run(self, photos: list[str] | None, values: Values) -> Generator[Update]:
        """Predict photo after photo; what is done is kept when it is stopped."""
        if not values[self.formats]:
            raise SettingsError(batch_text.NO_FORMATS)
        checkpoint = check_checkpoint(values[self.checkpoint])
        settings = preset_settings(values[self.preset], checkpoint)
        files = [Path(path) for path in photos or ()]
        key, batch = self.service.begin_batch(files, settings, checkpoint, values[self.formats], values[self.result])
        if not batch.photos:
            raise ImageError(batch_text.NO_PHOTOS)
        yield {
            self.result: key,
            self.browser: key,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            self.table: draw(batch),
        }
        began, pace, shown = perf_counter(), Pace(), -1
        for event in self.service.run_batch(batch):
            if not pace.is_due:
                yield {}
                continue
            begun, count = perf_counter(), len(batch.photos)
            through = count - batch.count("waiting") - batch.count("running")
            left = batch.seconds_left
            place = batch_text.PLACE.format(done=through, count=count, stage=event.stage)
            place += batch_text.LEFT.format(time=format_seconds(left)) if left is not None else ""
            share = (through + (event.done / event.total if event.total else 0)) / count
            table = {self.table: draw(batch)} if shown != through else {}
            yield {self.status: status_line(place, share), **table}
            shown = through
            pace.wait(perf_counter() - begun)
        time = format_seconds(perf_counter() - began)
        yield self.rest(key, _ended(batch, batch_text.DONE, time=time), values)

    def stopped(self, result: str | None, values: Values) -> Update:
        """Show what a batch had reached."""
        batch = self._kept(result)
        if batch is None:
            return self.idle(batch_text.READY)
        is_over = batch.count("done") + batch.count("failed") == len(batch.photos)
        return self.rest(result, _ended(batch, batch_text.BACK if is_over else batch_text.STOPPED), values)

    def settled(self, result: str) -> Update:
        """Show what became of the photo that was under way."""
        return self.stopped(result, {})

    def on_load(self, key: object) -> Update:
        """Bring back the batch of this browser, also one that another process has begun, as long as it is kept."""
        batch = self._kept(key) if isinstance(key, str) else None
        if batch is None:
            return {self.result: None}
        going_on = self.idle(_ended(batch, batch_text.GOES_ON)) if batch.turn.locked() else {}
        return {self.result: key, **self.stopped(batch.folder.name, {}), **going_on}

    def on_zip(self, key: str | None) -> str:
        """Write the ZIP -> its path."""
        with translate_errors():
            return str(self.service.batch(key).archive())

    def rest(self, result: str | None, sentence: str, values: Values) -> Update:
        """Write how a batch ended, and offer its files."""
        batch = self._kept(result)
        drawn = {self.table: draw(batch)} if batch else {}
        return {**self.idle(sentence), self.zip: gr.Button(interactive=bool(batch and batch.count("done"))), **drawn}

    def _kept(self, result: str | None) -> Batch | None:
        with suppress(ExportError):
            return self.service.batch(result)
        return None


def draw(batch: Batch) -> str:
    """Draw the table of a batch -> HTML."""
    rows = [(photo, photo.picture and file_address(photo.picture)) for photo in batch.photos]
    return render("batch_table", rows=rows)


def _ended(batch: Batch, sentence: str, **words: str) -> str:
    """Write how a batch ended, and how many photos could not be done."""
    failed = batch.count("failed")
    sentence = sentence.format(done=batch.count("done"), count=len(batch.photos), **words)
    return sentence + (batch_text.FAILED.format(failed=failed) if failed else "")
