"""What runs behind each endpoint: a generator of its progress and, last, its answer."""

import json
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from marigold_core.calibration.calibrate import Hints, calibrate, check_hints, measured
from marigold_core.checkpoints.registry import Checkpoint
from marigold_core.comparison.sweep import Sweep
from marigold_core.files.manifest import left_out_of
from marigold_core.files.panorama import save_panorama
from marigold_core.files.writers import save
from marigold_core.images.photo import Photo, load_photo
from marigold_core.pipeline.panorama import stream_panorama
from marigold_core.prediction import Prediction, Progress, ProgressEvents
from marigold_core.serving.api.answers import Answer, solution
from marigold_core.serving.api.arguments import (
    Arguments,
    read_checkpoint,
    read_comparison,
    read_given,
    read_hints,
    take,
)
from marigold_core.serving.api.files import USUAL, check_made, describe_file, describe_files, wanted_files
from marigold_core.serving.jobs import Service
from marigold_core.serving.video import run_clip, shared_predictor
from marigold_core.settings import (
    CameraSettings,
    ClippedSettings,
    ColourSettings,
    Format,
    FrameSettings,
    Frozen,
    MeshSettings,
    Settings,
)
from marigold_core.video.settings import VideoSettings

Run = Callable[[Service, Arguments], Iterator[Progress | Answer]]


def run_depth(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Predict a photo."""
    prediction = yield from _run(service, given["photo"], given, USUAL)
    yield _files(service, prediction, given, USUAL)


def run_mesh(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Predict a photo and build its mesh."""
    prediction = yield from _run(service, given["photo"], given, ("glb",))
    yield _files(service, prediction, given, ("glb",))


def run_metres(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Predict a photo in metres. Raises: CalibrationError before the model is waited for."""
    hints, photo = read_hints(given), load_photo(given["photo"])
    check_hints(hints, photo.pixels.shape[:2], photo.fov_x_deg, photo.size)  # before the model is waited for
    found = measured((yield from _run(service, photo, given, USUAL, hints)), hints)
    yield {**_files(service, found, given, USUAL), "calibration": solution(found)}


def run_given(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Make files, and metres where there are hints, of a depth map from elsewhere."""
    found, hints = read_given(given), read_hints(given)
    if not hints.is_given:
        yield _files(service, found, given, USUAL)
        return
    metres = calibrate(found, hints)
    yield {**_files(service, metres, given, USUAL), "calibration": solution(metres)}


def run_compare(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Run every combination on one photo."""
    requested, checkpoints = read_comparison(given)
    sweep = Sweep(load_photo(given["photo"]), requested, tuple(checkpoints))
    sweep.colormap, sweep.given = given["colormap"], read_given(given) if given["depth"] else None
    cells = len(sweep.places())
    for event in service.run_comparison(sweep):
        yield event if isinstance(event, Progress) else Progress(sweep.done, cells, f"{sweep.done} of {cells} cells")
    from marigold_core.comparison import contact_sheet

    written = contact_sheet.write(sweep.rows(), sweep.photo.pixels, sweep.colormap, service.new_folder())
    files = zip(("sheet", "differences", "table"), written, strict=True)
    note = sweep.given.note if sweep.given else sweep.photo.note
    answer = {name: describe_file(path) for name, path in files}
    yield {**answer, "rows": [row.record for row in sweep.rows()], **({"note": note} if note else {})}


def run_panorama(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Predict a panorama."""
    mesh = take(ClippedSettings, given)
    predictor = yield from shared_predictor(service, read_checkpoint(given))
    for event in stream_panorama(predictor, given["photo"], take(Settings, given), mesh):
        if isinstance(event, Progress):
            yield event
        else:
            files = save_panorama(event, service.new_folder(), mesh=mesh, colours=take(ColourSettings, given))
            lacks = left_out_of(files["record"])
            yield describe_files(files) | ({"note": lacks} if lacks else {})


def run_video(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
    """Predict a clip; one that is stopped leaves nothing."""
    folder, settings, video = service.new_folder(), take(Settings, given), take(VideoSettings, given)
    how: dict[str, Any] = {"mesh": take(FrameSettings, given), "colours": take(ColourSettings, given)}
    predictor, is_done = (yield from shared_predictor(service, read_checkpoint(given))), False
    try:
        with closing(run_clip(predictor, given["video"], folder, settings, video, **how)) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield event
                else:
                    yield describe_files(event.files) | ({"note": " ".join(event.notes)} if event.notes else {})
                    is_done = True
    finally:
        if not is_done:  # a call that is stopped does not go on
            shutil.rmtree(folder, ignore_errors=True)


def effect(draw: Callable[..., Iterator[Progress | dict[str, Path]]], model: type[Frozen]) -> Run:
    """Make what runs an effect of a photo, which ``draw`` draws from its depth with the settings of a ``model``."""

    def run(service: Service, given: Arguments) -> Iterator[Progress | Answer]:
        prediction = yield from _run(service, given["photo"], given)
        for event in draw(service, prediction, service.new_folder(), take(model, given), take(CameraSettings, given)):
            if isinstance(event, Progress):
                yield event
            else:
                yield describe_files(event) | ({"note": prediction.note} if prediction.note else {})

    return run


def _run(
    service: Service, photo: str | Photo, given: Arguments, usual: tuple[Format, ...] = (), hints: Hints | None = None
) -> Generator[Progress, None, Prediction]:
    """Run a job, yielding its progress -> its prediction; closing this stops the job.

    Files that the result will not have are refused before the model runs.
    """

    def check(record: Checkpoint) -> None:
        for _ in check_made(given, usual, record, hints):
            pass

    checkpoint = read_checkpoint(given)
    events = ProgressEvents(service.run(photo, take(Settings, given), checkpoint, check=check, hints=hints))
    yield from events
    return events.result


def _files(service: Service, prediction: Prediction, given: Arguments, usual: tuple[Format, ...]) -> Answer:
    """Write the files of a prediction, ``usual`` where no formats are given -> the answer that names them."""
    formats, programs = wanted_files(given, usual, prediction.modality, prediction.uncertainty is not None)
    how: dict[str, Any] = {"mesh": take(MeshSettings, given), "colours": take(ColourSettings, given)}
    files = save(prediction, service.new_folder(), formats, save_for=programs, **how)
    manifest = json.loads(files["manifest"].read_text(encoding="utf-8"))
    return {"manifest": manifest, **{name: describe_file(path) for name, path in files.items() if name != "manifest"}}
