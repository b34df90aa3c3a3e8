"""Jobs of page and HTTP endpoints: loaded checkpoints, one job at a time in the model, and the results that are kept.

Invariant: one job at a time is inside the model, whatever queues and cancellations happen above, because the line
before it is ours, and all of them run in one thread, the model's.
"""

import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from marigold_core import load
from marigold_core.calibration.calibrate import COMPLETION_WORK, Hints
from marigold_core.checkpoints.registry import default_checkpoint, downloading, family_of
from marigold_core.comparison import sweep as sweeps
from marigold_core.comparison.sweep import Comparison, Cost, PartTimes, Sweep
from marigold_core.errors import CheckpointError, ExportError, ImageError, MarigoldError, SettingsError, VideoError
from marigold_core.files import archive, replay
from marigold_core.files.manifest import Manifest
from marigold_core.files.presets import SaveFor
from marigold_core.images import depth_map
from marigold_core.images.photo import load_photo, read_file, stated_pixels
from marigold_core.pipeline.views import check_meaning, relative_pixels
from marigold_core.prediction import Cell, Prediction, Progress, ProgressEvents
from marigold_core.serving import kept
from marigold_core.serving.batch import Batch, BatchPhoto
from marigold_core.serving.model_thread import WORKER, ModelThread
from marigold_core.serving.results import BATCH, KEPT_ON_DISK, OF_CALL, Form, ResultStore
from marigold_core.serving.runtime_estimate import RuntimeEstimate, estimate, timed, timed_load
from marigold_core.serving.waiting_line import WaitingLine
from marigold_core.settings import ColourSettings, Format, MeshSettings, ResolvedSettings, Settings, tile_size

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint
    from marigold_core.pipeline.pipeline import MarigoldPipeline, PhotoSource

Event = TypeVar("Event")
WAIT_S = 0.25  # a job whose checkpoint is loaded wakes this often, so that it can be closed
MAX_PIPELINES = 2
MAX_WORK = 1000.0  # megapixels through the network in one job: 50 steps x 20 members at 1024 px fit, at 2048 do not
MAX_CELLS, MAX_MINUTES = 64, 10.0  # of a comparison, all checkpoints together; other jobs wait meanwhile
# Of a photo, a depth map or a frame. One of 64 megapixels takes 1.6 GB of memory until the usual files are written,
# 2.0 with all and 2.7 with a depth map from elsewhere.
LARGE_PIXELS = 16_000_000
LARGE_AT_ONCE = 2  # that are worked on: one in the model, and another that is decoded or written
KEPT_BYTES = 512 * 2**20  # of predictions, and as much of comparisons


@dataclass
class StoredPrediction:
    """A finished prediction and the files made from it so far."""

    prediction: Prediction
    files: dict[
        tuple[tuple[Format, ...] | None, MeshSettings, ColourSettings, tuple[SaveFor, ...]], dict[str, Path]
    ] = field(default_factory=dict[Any, Any])
    lock: threading.Lock = field(default_factory=threading.Lock)  # two downloads of one result build one after another

    @property
    def size_bytes(self) -> int:
        """Memory held by the arrays."""
        arrays = (self.prediction.values, self.prediction.uncertainty, self.prediction.members, self.prediction.photo)
        return sum(array.nbytes for array in arrays if array is not None)


class Service:
    """Runs jobs one at a time and keeps their results under ids that cannot be guessed. Thread-safe."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        loader: "Callable[..., MarigoldPipeline]" = load,
        kept_bytes: int = KEPT_BYTES,
        device_lost: Callable[[], object] = lambda: None,
        together: int = 1,
    ) -> None:
        """Prepare; nothing is loaded yet. ``folder`` receives exported files, by default a temporary one.

        ``loader`` is given a checkpoint and, where a run states one, a dtype. ``device_lost`` is called when the GPU
        fails in a way after which this process can no longer use it. So many jobs run ``together`` as the pipelines
        that ``loader`` returns can run at once, each in a thread of its own.
        """
        self._device_lost = device_lost
        self._folder = folder or Path(tempfile.mkdtemp(prefix="marigold-"))
        self._loader = loader
        self._line = WaitingLine(together)  # before the model
        self._large = WaitingLine(LARGE_AT_ONCE)  # before a large photo is decoded
        self._large_files = threading.Lock()  # files of one large result at a time are written in ``export``
        self._thread = ModelThread() if together == 1 else None
        self._loads = threading.Lock()  # guards the checkpoints
        self._pipelines: OrderedDict[tuple[str, str | None], Future[MarigoldPipeline]] = OrderedDict()
        self._results = ResultStore[StoredPrediction](
            self._folder,
            kept_bytes,
            gone="This result is no longer kept; run the photo again.",
            form=Form(
                lambda stored, path: kept.write(stored.prediction, path),
                lambda path: StoredPrediction(kept.read(path, Prediction)),
            ),
        )
        self._comparisons = ResultStore[Sweep](
            self._folder,
            kept_bytes,
            gone="This comparison is no longer kept; run it again.",
            form=Form(kept.write, lambda path: kept.read(path, Sweep)),
        )
        self._batches = ResultStore[Batch](
            self._folder,
            KEPT_ON_DISK,
            gone="This batch is no longer kept; start it again.",
            form=Form(kept.write, lambda path: kept.read(path, Batch), BATCH),
        )

    def new_folder(self) -> Path:
        """Name a folder, which does not exist, for what a call writes and nobody keeps for later."""
        return self._folder / f"{OF_CALL}{secrets.token_hex(16)}"

    def close(self) -> None:
        """End the model's thread and remove every exported file."""
        if self._thread:
            self._thread.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------------------------- loading and running

    def warm(self, checkpoint: str, dtype: str | None = None) -> "Future[MarigoldPipeline]":
        """Begin loading a checkpoint on a thread of its own, unless it is loaded; a failed load is tried again.

        ``dtype`` is by default the fastest on this machine.
        """
        key = checkpoint, dtype
        with self._loads:
            future = self._pipelines.get(key)
            if future is None or (future.done() and future.exception()):
                future = self._pipelines[key] = Future()
                load = threading.Thread(target=self._load, args=(*key, future), name=f"{WORKER}loading", daemon=True)
                load.start()
            self._pipelines.move_to_end(key)
            while len(self._pipelines) > MAX_PIPELINES:
                self._pipelines.popitem(last=False)
        return future

    def run(
        self,
        photo: "PhotoSource",
        settings: Settings | None = None,
        checkpoint: str | None = None,
        start: Prediction | None = None,
        check: "Callable[[Checkpoint], object] | None" = None,
        record: Manifest | None = None,
        hints: Hints | None = None,
    ) -> Generator[Progress | Prediction]:
        """Run one job, yielding progress and a ``Prediction`` after each member; the last one is the result.

        Closing the iterator stops the job before its next step and frees the model for the next job.

        Args:
            photo: path, bytes, PIL image or [H, W, 3] uint8.
            settings: what to predict with; by default the checkpoint's own.
            checkpoint: short name, folder or hub id; by default ``default_checkpoint``.
            start: an earlier prediction whose members are continued, as by ``MarigoldPipeline.stream``.
            check: raises what is wrong with the job for a checkpoint, before the model is waited for.
            record: of the run that is made again, with its threads, its hints and, on a device of its kind, its dtype.
            hints: as ``MarigoldPipeline.stream``; those of a record by default.

        Raises:
            ImageError, SettingsError, CheckpointError: the job cannot run.
            CalibrationError: the recorded hints do not fit the map.
        """
        photo = load_photo(photo)
        checkpoint = checkpoint or default_checkpoint()
        _check_early(settings or Settings(), checkpoint)
        pipe = yield from self.loaded(checkpoint)
        if record and record.dtype and record.device == pipe.device.type and str(pipe.dtype) != f"torch.{record.dtype}":
            pipe = yield from self.loaded(checkpoint, record.dtype)
        if check:
            check(pipe.checkpoint)
        hints = hints or (record.hints if record else None)
        settings = pipe.resolve(settings, hints)
        check_cost(settings, photo.pixels.shape[:2], hints)
        known = estimate(checkpoint, settings, photo.pixels.shape[:2], pipe, hints)
        events = timed(pipe.stream(photo, settings, start, hints), checkpoint)
        yield from self.in_turn(
            replay.stream(events, record) if record else events, known.seconds if known.measured else None
        )

    def estimate(self, settings: Settings, photo_size: tuple[int, int], checkpoint: str) -> RuntimeEstimate:
        """Estimate how long ``run`` will take on a photo [H, W] once no other job runs; loads nothing.

        Raises: CheckpointError.
        """
        with self._loads:
            loading = self._pipelines.get((checkpoint, None))
        loaded = loading is not None and loading.done() and loading.exception() is None
        return estimate(checkpoint, settings, photo_size, loading.result() if loading and loaded else None)

    def loaded(self, checkpoint: str, dtype: str | None = None) -> "Generator[Progress, None, MarigoldPipeline]":
        """Load a checkpoint as ``warm`` unless it is loaded, yielding while that takes time -> its pipeline."""
        loading = self.warm(checkpoint, dtype)
        while True:
            try:
                loading.exception(timeout=WAIT_S)
            except TimeoutError:
                yield _loading(checkpoint)
            else:
                return loading.result()

    def admit(
        self, files: Sequence[str | Path], events: Iterator[Event], result: str | None = None
    ) -> Iterator[Progress | Event]:
        """Pass on the events of a job; one that holds much begins when few others of that kind are worked on.

        So those that wait for the model, which may be many, do not hold their decoded photos.

        Args:
            files: photos, depth maps and videos that are read.
            events: of the job.
            result: id of what is kept that it goes on from.
        """
        is_large = any(map(is_large_file, files)) or self._is_large(result)
        return self._large.pass_in_turn(events, None) if is_large else events

    def _is_large(self, result: str | None) -> bool:
        with suppress(ExportError):  # it is gone, which the job will tell
            return result is not None and self.prediction(result).photo[..., 0].size > LARGE_PIXELS
        return False

    def in_turn(self, events: Iterator[Event], seconds: float | None = None) -> Generator[Progress | Event]:
        """Wait for the turn of a job, which takes that long if it is known, and run it in the model's thread."""
        try:
            with nullcontext(self._thread) if self._thread else closing(ModelThread()) as thread:
                yield from self._line.pass_in_turn(thread.iterate(events), seconds)
        except Exception as error:
            from marigold_core.pipeline.sampling import is_device_lost

            if is_device_lost(error):
                self._device_lost()
            raise

    def _load(self, checkpoint: str, dtype: str | None, future: "Future[MarigoldPipeline]") -> None:
        try:
            with timed_load(checkpoint):
                pipeline = self._loader(checkpoint, **({} if dtype is None else {"dtype": dtype}))
            future.set_result(pipeline)
        except BaseException as error:  # whoever waits for the checkpoint receives it
            future.set_exception(error)

    # ------------------------------------------------------------------------------- predictions

    def keep(self, prediction: Prediction, key: str | None = None) -> str:
        """Keep a prediction for later exports -> its id; the least recently used ones are dropped when memory is full.

        One that is kept already, the very same object, keeps its id. ``key`` is the id of one whose place it takes.
        """
        known = self._results.find(lambda stored: stored.prediction is prediction)
        return known or self._results.put(StoredPrediction(prediction), key)

    def persist(self, key: str) -> None:
        """Write a kept prediction to the disk, for other processes and later ones. Raises: ExportError."""
        self._results.persist(key)

    def keeps(self, key: object) -> bool:
        """Return whether a result is still kept; asking does not count as a use."""
        return key in self._results

    def prediction(self, key: str) -> Prediction:
        """Return a kept prediction. Raises: ExportError when it was dropped."""
        return self._results.get(key).prediction

    def export(
        self,
        key: str,
        formats: Sequence[Format] | None,
        mesh: MeshSettings | None = None,
        colours: ColourSettings | None = None,
        save_for: Sequence[SaveFor] = (),
    ) -> dict[str, Path]:
        """Write formats of a kept prediction, unless they were written before -> files by name, as ``writers.save``.

        Raises: ExportError when the result is gone, a format does not suit it, or the disk refuses.
        """
        from marigold_core.files.writers import save

        stored = self._results.get(key)
        mesh, colours = mesh or MeshSettings(), colours or ColourSettings()
        choice = (None if formats is None else tuple(formats), mesh, colours, tuple(save_for))
        with stored.lock, self._large_files if self._is_large(key) else nullcontext():
            known = stored.files.get(choice)
            if known is None or not all(path.exists() for path in known.values()):  # another process may clear them
                folder = self._results.folder(key) / secrets.token_hex(4)  # never that of a state before of this run
                how: dict[str, Any] = {"save_for": save_for, "mesh": mesh, "colours": colours}
                files = save(stored.prediction, folder, formats, **how, overwrite=True)
                stored.files[choice] = files
            return stored.files[choice]

    def archive(
        self,
        key: str,
        formats: Sequence[Format] | None,
        mesh: MeshSettings | None = None,
        colours: ColourSettings | None = None,
        save_for: Sequence[SaveFor] = (),
    ) -> Path:
        """Write the files of ``export`` into one ZIP, named after what they are for, unless it is there -> its path.

        Raises: ExportError as ``export``, and when they are too large for it.
        """
        files = self.export(key, formats, mesh, colours, save_for)
        name = "_".join(save_for) or (formats[0] if formats and len(formats) == 1 else "everything")
        bundle = files["manifest"].with_name(f"{name}.zip")
        with self._results.get(key).lock:
            if not bundle.exists():
                archive.write(files.values(), bundle)
        return bundle

    # ------------------------------------------------------------------------------- comparisons

    def comparison_cost(self, requested: Comparison, checkpoints: Sequence[str], photo_size: tuple[int, int]) -> Cost:
        """Estimate what a comparison on a photo [H, W] will cost; loads nothing.

        Raises: SettingsError when it is more than one comparison may; CheckpointError.
        """
        cells = sweeps.count_cells(requested, checkpoints, MAX_CELLS)
        for checkpoint in checkpoints:
            _check_early(requested.largest, checkpoint)
        estimates = [self.estimate(requested.sample, photo_size, checkpoint) for checkpoint in checkpoints]
        cost = Cost(
            cells,
            sum(one.parts.predict_s(requested) for one in estimates),
            sum(one.parts.separate_s(requested) for one in estimates),
            all(one.measured for one in estimates),
            sum(one.download_bytes for one in estimates),
        )
        if cost.measured:
            sweeps.check_minutes(cost.seconds, requested)
        return cost

    def begin_comparison(
        self, photo: "PhotoSource", asked: Comparison, checkpoints: Sequence[str], given: str | None = None
    ) -> tuple[str, Sweep]:
        """Keep an empty comparison -> its id and itself. Raises: ImageError, SettingsError.

        A kept result of the id ``given`` takes part if it is a depth map from elsewhere, of the same photo.
        """
        sweeps.count_cells(asked, checkpoints, MAX_CELLS)
        sweep = Sweep(load_photo(photo), asked, tuple(checkpoints))
        if given is not None and self.keeps(given):
            beside = self.prediction(given)
            if not beside.fused and (beside.photo.tobytes() == sweep.photo.pixels.tobytes()):
                sweep.given = beside
        return self._comparisons.put(sweep), sweep

    def persist_comparison(self, key: str) -> None:
        """Write a comparison to the disk, for other processes and later ones. Raises: ExportError."""
        self._comparisons.persist(key)

    def run_comparison(self, sweep: Sweep) -> Generator[Progress | Cell]:
        """Fill a comparison, yielding progress and every cell; closing stops before the next step.

        Checkpoints are loaded and the time is bounded before the first cell; where nothing was timed yet, a member of
        two steps is.

        Raises: SettingsError, CheckpointError.
        """
        requested, size = sweep.requested, sweep.photo.pixels.shape[:2]
        for checkpoint in sweep.checkpoints:
            _check_early(requested.largest, checkpoint)
        records = list["Checkpoint"]()
        for checkpoint in sweep.checkpoints:
            pipe = yield from self.loaded(checkpoint)
            check_cost(pipe.resolve(requested.largest), size)
            records.append(pipe.checkpoint)
        sweeps.check_alike(records)
        if sweep.given:
            sweeps.reduce_given(sweep.given, records[0])

        def part_times(checkpoint: str) -> Generator[Progress, None, PartTimes]:
            known = self.estimate(requested.sample, size, checkpoint)
            if known.measured:
                return known.parts
            pipe = yield from self.loaded(checkpoint)
            return (yield from sweeps.measure(timed(pipe.stream(sweep.photo, requested.sample), checkpoint)))

        cost = self.comparison_cost(requested, sweep.checkpoints, size)
        seconds = cost.seconds if cost.measured else None
        yield from self.in_turn(sweeps.run(sweep, self.loaded, part_times), seconds)

    def comparison(self, key: str | None) -> Sweep:
        """Return a kept comparison. Raises: ExportError when there is none, or it was dropped."""
        return self._comparisons.get(key)

    def export_comparison(self, key: str | None) -> list[Path]:
        """Write the cells so far as ``marigold-depth compare`` does -> sheet, differences, table.

        Raises: ExportError when there is no cell yet or the disk refuses.
        """
        from marigold_core.comparison.contact_sheet import write

        sweep = self.comparison(key)
        assert key is not None  # there is none without an id
        if not sweep.tiles:
            raise ExportError("There is no cell yet to write; run the comparison first.")
        return write(sweep.rows(), sweep.photo.pixels, sweep.colormap, self._comparisons.folder(key))

    # ------------------------------------------------------------------------------- batches

    def begin_batch(
        self, files: Sequence[Path], settings: Settings, checkpoint: str, formats: Sequence[Format], key: str | None
    ) -> tuple[str, Batch]:
        """Keep a batch of photos -> its id and itself: the one of ``key`` where that has the same settings.

        Raises: SettingsError for too many photos; ExportError when the disk refuses.
        """
        _check_early(settings, checkpoint)
        batch = self._batches.get(key) if key in self._batches else None
        if batch is None or (batch.settings, batch.checkpoint, batch.formats) != (settings, checkpoint, tuple(formats)):
            key = secrets.token_hex(16)
            batch = Batch(self._batches.folder(key), settings, checkpoint, tuple(formats))
        batch.add(files)
        return self._batches.put(batch, key), batch

    def run_batch(self, batch: Batch) -> Generator[Progress]:
        """Predict the photos of a batch that are not done, each as a job of its own; closing this stops it.

        Other visitors' jobs come between two photos. A photo that fails does not end the batch. After each photo the
        batch is written to the disk, for other processes and later ones. While another job of this process is at it,
        this one waits, and then predicts what that has left.

        Raises: CheckpointError, which would fail every photo; ExportError when the disk refuses.
        """

        def finished(photo: BatchPhoto, job: Generator[Progress | Prediction]) -> Iterator[Progress]:
            """Write the files of a photo as well before the next large one is decoded."""
            with closing(job):
                progress = ProgressEvents(job)
                yield from progress
                batch.finish(photo, progress.result)

        key, over = batch.folder.name, {"done"}
        while not batch.turn.acquire(timeout=WAIT_S):
            over.add("failed")  # just now
            yield Progress(0, 0, "another page of yours is at it")
        try:
            self._batches.persist(key, changing=True)
            for photo in [photo for photo in batch.photos if photo.state not in over]:
                batch.begin(photo)
                try:
                    job = self.run(photo.source, batch.settings, batch.checkpoint)
                    with closing(cast(Any, self.admit([photo.source], finished(photo, job)))) as events:
                        for event in events:
                            yield Progress(event.done, event.total, f"{photo.name}: {event.stage}")
                except CheckpointError:
                    raise
                except MarigoldError as error:
                    batch.fail(photo, error)
                self._batches.persist(key, changing=True)
                yield Progress(1, 1, f"{photo.name}: {photo.state}")
        finally:
            batch.rest()
            self._batches.settle(key)
            batch.turn.release()

    def batch(self, key: str | None) -> Batch:
        """Return a kept batch. Raises: ExportError when there is none, or it was dropped."""
        return self._batches.get(key)


def _loading(checkpoint: str) -> Progress:
    """Say how far the download of a checkpoint is, or that it is loaded."""
    counted = downloading(checkpoint)
    if counted is None:
        return Progress(0, 0, "loading the checkpoint")
    here, total = counted
    return Progress(here, total, f"downloading the checkpoint, {here / 1e6:,.0f} of {total / 1e6:,.0f} MB")


def shared_comparison(**values: Any) -> Comparison:
    """Make a comparison with the time that one of several users may take. Raises: SettingsError."""
    return Comparison(**values, most_minutes=MAX_MINUTES)


def is_large_file(file: str | Path) -> bool:
    """Tell whether a file states more than ``LARGE_PIXELS``: of a photo, a depth map in it, or a frame of a video."""
    with suppress(ImageError):
        data = read_file(Path(file))
        pixels = max(stated_pixels(data), depth_map.stated_pixels(data))
        if pixels:
            return pixels > LARGE_PIXELS
    with suppress(ImportError, VideoError):
        from marigold_core.video.clips import Clip

        return Clip(file).frame_pixels > LARGE_PIXELS
    return False


def _check_early(settings: Settings, checkpoint: str) -> None:
    """Refuse steps or members that would change nothing with a checkpoint, before gigabytes of it are fetched."""
    check_meaning(settings, family_of(checkpoint), Path(checkpoint).name)


def seen_megapixels(size: tuple[int, int], resolution: int) -> float:
    """Return what a network sees of a picture [H, W], without rounding."""
    height, width = size
    return height * width * ((resolution or max(size)) / max(size)) ** 2 / 1e6


def check_cost(
    settings: ResolvedSettings, photo_size: tuple[int, int], hints: Hints | None = None, most: float = MAX_WORK
) -> None:
    """Refuse a job, its settings resolved, that would hold the model for everybody else; ``hints`` may guide it.

    ``most`` megapixels may go through the network.

    Raises: SettingsError.
    """
    resolution, tiles = settings.processing_resolution, settings.tiles_per_side
    megapixels = seen_megapixels(photo_size, resolution)
    if tiles > 1:
        megapixels += tiles**2 * seen_megapixels(tile_size(photo_size, tiles), resolution)
    steps, members = settings.num_inference_steps, settings.ensemble_size
    megapixels *= relative_pixels(settings.views, members)
    if megapixels * steps * members * (COMPLETION_WORK if hints and hints.guides else 1) > most:
        raise SettingsError(
            f"{steps} steps x {members} members on {megapixels:.1f} megapixels is too much for one run;"
            " choose fewer steps, fewer members or a lower resolution."
        )
