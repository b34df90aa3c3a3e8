"""A manifest that is dropped on the page runs again, and its files are compared byte by byte."""

from collections.abc import Generator, Iterator
from pathlib import Path

import gradio as gr
import numpy as np

from marigold_core.checkpoints.registry import default_checkpoint, named_checkpoints
from marigold_core.errors import CheckpointError, ImageError, SettingsError
from marigold_core.files import examples, replay
from marigold_core.files.manifest import Manifest
from marigold_core.files.reader import GIVEN, from_depth
from marigold_core.files.writers import formats_of
from marigold_core.images.photo import Photo, load_photo
from marigold_core.settings import DepthReading
from marigold_core.ui import text
from marigold_core.ui.controls.settings import SettingsInputs
from marigold_core.ui.events import MODEL, NO_CHANGE, REPEATED, on
from marigold_core.ui.photo_input import FilesButton
from marigold_core.ui.run_controller import Job, RunController, Update, Values, button_note

MANIFEST_BYTES = 10**6  # ours are 3 kB


class ReplayButton:
    """The button that takes a manifest, which the page also presses for one that is dropped anywhere on it."""

    def __init__(self, controller: RunController, inputs: SettingsInputs) -> None:
        """Draw the button; ``inputs`` show what a manifest was made with."""
        self.controller, self.inputs = controller, inputs
        with gr.Row(elem_classes="take"):
            self.manifest = FilesButton(
                text.REPLAY,
                file_count="multiple",
                size="sm",
                scale=0,
                elem_id="replay",
            )
            gr.HTML(button_note(text.REPLAY_USE))

    def listen(self) -> None:
        """Run a manifest when it comes."""
        given = {self.manifest, self.controller.photo, self.controller.result, *self.controller.inputs}
        changed = [*self.controller.outputs, *self.inputs.values]
        job = on(self.manifest.upload, self.on_upload, given, changed, MODEL, **REPEATED)
        self.controller.jobs.append(job)

    def on_upload(self, values: Values) -> Iterator[Update]:
        """Run the recorded settings on the recorded photo, put the result on show, and compare its files."""
        at_hand = [*values[self.manifest], values[self.controller.photo]]
        yield from self.controller.reported(self._run(values), values, files=[file for file in at_hand if file])

    def _run(self, values: Values) -> Generator[Update]:
        files = [Path(file) for file in values[self.manifest]]
        record = read(files)
        photo, file = self._find_photo(record, files, values)
        given = self.controller.fill_photo(str(file), values) if file else {}
        settings, result = record.settings, None
        if isinstance(settings, DepthReading):
            depth = find_depth(record, files)
            yield given or {self.controller.photo: NO_CHANGE}
            photo = yield from self.controller.take(photo, values)
            prediction = from_depth(photo, depth, settings, fov_x_deg=record.fov_x_deg)
            updates = iter([self.controller.show_depth(replay.calibrated(prediction, record), values)])
        else:
            checkpoint = find_checkpoint(record)
            yield {**self.inputs.restored(settings, checkpoint), **given}
            photo = yield from self.controller.take(photo, values)
            updates = self.controller.run_job(Job(photo, settings, checkpoint, record=record), values)
        for update in updates:
            result = update.get(self.controller.result)
            yield update
        assert isinstance(result, str)  # the last update of a job brings it
        made = self.controller.service.export(
            result, formats_of(record), record.mesh, record.colours, tuple(record.save_for)
        )
        outcome = replay.against(record, replay.read(made["manifest"]))
        yield self.controller.idle(text.REPLAYED.format(outcome=outcome.describe()))

    def _find_photo(self, record: Manifest, files: list[Path], values: Values) -> tuple[Photo, Path | None]:
        """Find the recorded photo among those at hand -> it, and its file if it came with the manifest.

        Raises: ImageError.
        """
        for pixels, file in self._photos(record, files, values):
            if replay.same_photo(record, pixels):
                return replay.recorded_photo(record, pixels), file
        raise ImageError(text.OTHER_PHOTO.format(width=record.photo.width, height=record.photo.height))

    def _photos(self, record: Manifest, files: list[Path], values: Values) -> Iterator[tuple[np.ndarray, Path | None]]:
        """Yield the pixels of what came with the manifest, of the input, of the result on show, of the examples."""
        for file in files:
            if _is_manifest(file):
                continue
            try:
                yield load_photo(file).pixels, file
            except ImageError:
                if not replay.same_depth(record, file):
                    raise
        if values[self.controller.photo] is not None:
            yield load_photo(values[self.controller.photo]).pixels, None
        if values[self.controller.result] is not None:
            yield self.controller.service.prediction(values[self.controller.result]).photo, None
        for path in examples.photos():
            yield load_photo(path).pixels, None


def read(files: list[Path]) -> Manifest:
    """Read the one manifest among uploaded files. Raises: SettingsError."""
    manifests = [file for file in files if _is_manifest(file)]
    if len(manifests) != 1:
        raise SettingsError(text.ONE_MANIFEST)
    if manifests[0].stat().st_size > MANIFEST_BYTES:
        raise SettingsError(text.NO_MANIFEST)
    return replay.parse(manifests[0].read_bytes(), text.THE_MANIFEST)


def find_checkpoint(record: Manifest) -> str:
    """Find the recorded checkpoint on this machine, fetching nothing -> the name that loads it.

    Raises: CheckpointError when it is not there, or has other weights.
    """
    here = [default_checkpoint(), *(entry.name for entry in named_checkpoints() if entry.available)]
    name = next((name for name in here if record.checkpoint in (name, Path(name).name)), None)
    if name is None:
        raise CheckpointError(text.CHECKPOINT_ELSEWHERE.format(name=record.checkpoint))
    replay.find_checkpoint(record, name)
    return name


def find_depth(record: Manifest, files: list[Path]) -> Path:
    """Find the recorded depth map among uploaded files. Raises: ImageError when it is not there."""
    found = next((file for file in files if not _is_manifest(file) and replay.same_depth(record, file)), None)
    if found is None:
        raise ImageError(text.OTHER_DEPTH.format(name=record.checkpoint.removeprefix(GIVEN)))
    return found


def _is_manifest(file: Path) -> bool:
    return file.suffix.lower() == ".json"
