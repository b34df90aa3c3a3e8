"""The screen for many photos: a table that fills while they are predicted, and all files in one ZIP.

Photos are jobs of the service, one after another; a photo that is done is on the disk alone, so that stopping, adding
photos and starting again go on with the rest.
"""

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
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
from marigold_core.ui.events import LIGHT, MODEL, NO_CHANGE, QUIET, download, on
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.photo_input import PhotosInput
from marigold_core.ui.pictures import file_address
from marigold_core.ui.run_controller import Pace, Update, Values, status_line
from marigold_core.ui.templates import render
from marigold_core.ui.text import batch as batch_text

FORMATS_AT_FIRST: list[Format] = ["png16", "color"]
EMPTY = f"<div class='lab-empty'><p>{batch_text.EMPTY}</p></div>"  # in the place of the table


class BatchScreen:
    """The photos and the choices, and the table of what became of each."""

    def __init__(self, service: Service) -> None:
        """Draw it into the current tab."""
        self.service = service
        self.batch = gr.State(None)  # id of the one on show
        self.failed = gr.State(False)  # whether it ended with an error, whose reason is in the status line
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
                self.file = gr.DownloadButton(visible="hidden", elem_id="batch-file")

    def connect(self, page: gr.Blocks) -> None:
        """Wire the events; outside the tabs, as what is in a closed one is not there when the page is loaded."""
        self.browser = gr.BrowserState(None, storage_key="marigold-batch", secret="marigold")  # id, after a reload
        at_rest = [self.status, *self.actions.outputs, self.zip, self.table]
        given = {self.photos, self.preset, self.formats, self.checkpoint, self.batch}
        changed = [self.batch, self.browser, self.failed, *at_rest]
        on(page.load, self.on_load, self.browser, [self.batch, *at_rest])
        job = on(self.actions.run.click, self.on_run, given, changed, MODEL, trigger_mode="once")
        on([self.actions.stop.click, self.photos.clear], None, None, None, cancels=[job])
        # A job that is cancelled goes on for a moment, so what it had reached is shown when it has ended.
        job.failure(self.on_stop, [self.batch, self.failed], at_rest, **LIGHT, **QUIET)
        download(on(self.zip.click, self.on_zip, self.batch, self.file, shown=True), "batch-file")

    def on_run(self, values: Values) -> Iterator[Update]:
        """Predict photo after photo; Gradio closes this to stop it, and what is done is kept."""
        key = values[self.batch]
        try:
            with translate_errors(), closing(self._run(values)) as updates:
                for update in updates:
                    key = update.get(self.batch, key)
                    yield update
        except gr.Error as error:
            yield {**self._rest(key, error.message), self.failed: True}
            raise

    def _run(self, values: Values) -> Generator[Update]:
        if not values[self.formats]:
            raise SettingsError(batch_text.NO_FORMATS)
        checkpoint = check_checkpoint(values[self.checkpoint])
        settings = preset_settings(values[self.preset], checkpoint)
        files = [Path(path) for path in values[self.photos] or ()]
        key, batch = self.service.begin_batch(files, settings, checkpoint, values[self.formats], values[self.batch])
        if not batch.photos:
            raise ImageError(batch_text.NO_PHOTOS)
        yield {
            self.batch: key,
            self.browser: key,
            self.status: status_line(text.STARTING, 0),
            **self.actions.begun(),
            self.failed: False,
            self.table: draw(batch),
        }
        began, pace, shown = perf_counter(), Pace(), -1
        for event in self.service.run_batch(batch):
            if not pace.is_due:
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
        yield self._rest(key, _ended(batch, batch_text.DONE, time=time))

    def on_stop(self, key: str | None, failed: bool) -> Update:
        """Show what a batch had reached when it was stopped; one that failed has already said why."""
        if failed:
            return {self.status: NO_CHANGE}
        with translate_errors():
            if key is None:
                return self._rest(None, batch_text.READY)
            return self._stopped(key)

    def _stopped(self, key: str) -> Update:
        batch = self.service.batch(key)
        is_over = batch.count("done") + batch.count("failed") == len(batch.photos)
        return self._rest(key, _ended(batch, batch_text.BACK if is_over else batch_text.STOPPED))

    def on_load(self, key: object) -> Update:
        """Bring back the batch of this browser, also one that another process has begun, as long as it is kept."""
        with suppress(ExportError):
            if isinstance(key, str):
                return {self.batch: key, **self._stopped(key)}
        return {self.batch: None}

    def on_zip(self, key: str | None) -> str:
        """Write the ZIP -> its path."""
        with translate_errors():
            return str(self.service.batch(key).archive())

    def _rest(self, key: str | None, sentence: str) -> Update:
        """Write how a batch ended, and offer its files."""
        batch = self.service.batch(key) if key else None
        drawn = {self.table: draw(batch)} if batch else {}
        return {
            self.status: status_line(sentence),
            **self.actions.ended(),
            self.zip: gr.Button(interactive=bool(batch and batch.count("done"))),
            **drawn,
        }


def draw(batch: Batch) -> str:
    """Draw the table of a batch -> HTML."""
    rows = [(photo, photo.picture and file_address(photo.picture)) for photo in batch.photos]
    return render("batch_table", rows=rows)


def _ended(batch: Batch, sentence: str, **words: str) -> str:
    """Write how a batch ended, and how many photos could not be done."""
    failed = batch.count("failed")
    sentence = sentence.format(done=batch.count("done"), count=len(batch.photos), **words)
    return sentence + (batch_text.FAILED.format(failed=failed) if failed else "")
