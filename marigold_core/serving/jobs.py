"""The job path of every surface: loaded checkpoints, one turn at the model, and the results that are kept.

Invariant: one job at a time is inside the model, whatever queues and cancellations happen above, because the lock is
ours: it is taken in slices, so that a job which still waits can be closed, and it is freed when a job ends, fails or
is closed.
"""

import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from marigold_core import load
from marigold_core.errors import ExportError, SettingsError
from marigold_core.files import archive
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.run_times import timed, timed_load
from marigold_core.serving.runtime_estimate import Forecast, forecast
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, Format, MeshSettings, ResolvedSettings, Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline, PhotoSource

WAIT_S = 0.25  # a waiting job wakes this often, to be told to stop
MAX_PIPELINES = 2
MAX_WORK = 1000.0  # megapixels through the network in one job: 50 steps x 20 members at 1024 px fit, at 2048 do not
KEPT_BYTES = 512 * 2**20


@dataclass
class Kept:
    """A finished prediction and the files made from it so far."""

    prediction: Prediction
    folder: Path
    files: dict[tuple[tuple[Format, ...], MeshSettings, Colormap], dict[str, Path]] = field(default_factory=dict)
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
        loader: "Callable[[str], MarigoldPipeline]" = load,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Prepare; nothing is loaded yet. ``folder`` receives exported files, by default a temporary one."""
        self._folder = folder or Path(tempfile.mkdtemp(prefix="marigold-"))
        self._loader = loader
        self._kept_bytes = kept_bytes
        self._turn = threading.Lock()  # held by the one job that is inside the model
        self._books = threading.Lock()  # guards the two tables below
        self._pipelines: OrderedDict[str, Future[MarigoldPipeline]] = OrderedDict()
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    # ------------------------------------------------------------------------------- running

    def warm(self, checkpoint: str) -> "Future[MarigoldPipeline]":
        """Begin loading a checkpoint on a thread of its own, unless it is loaded; a failed load is tried again."""
        with self._books:
            future = self._pipelines.get(checkpoint)
            if future is None or (future.done() and future.exception()):
                future = Future()
                self._pipelines[checkpoint] = future
                threading.Thread(target=self._load, args=(checkpoint, future), daemon=True).start()
            self._pipelines.move_to_end(checkpoint)
            while len(self._pipelines) > MAX_PIPELINES:
                self._pipelines.popitem(last=False)
        return future

    def run(
        self,
        photo: "PhotoSource",
        settings: Settings | None = None,
        checkpoint: str = "nano",
        start: Prediction | None = None,
    ) -> Iterator[Progress | Prediction]:
        """Run one job, yielding progress and a ``Prediction`` after each member; the last one is the result.

        Closing the iterator stops the job before its next step and gives the turn to the next. ``start`` continues the
        members of an earlier prediction, as ``MarigoldPipeline.stream``.
        Raises: ImageError, SettingsError, CheckpointError.
        """
        photo = load_photo(photo)
        pipe = yield from self.loaded(checkpoint)
        settings = pipe.resolve(settings)
        check_cost(settings, photo.pixels.shape[:2])
        yield from self.take_turn()
        try:
            yield from timed(pipe.stream(photo, settings, start), checkpoint)
        finally:
            self.end_turn()

    def loaded(self, checkpoint: str) -> "Generator[Progress, None, MarigoldPipeline]":
        """Load a checkpoint unless it is loaded, yielding while that takes time -> its pipeline."""
        loading = self.warm(checkpoint)
        while not _finished(loading):
            yield Progress(0, 0, "loading the checkpoint")
        return loading.result()

    def take_turn(self) -> Iterator[Progress]:
        """Wait for the turn at the model; whoever has taken it ends it with ``end_turn``."""
        while not self._turn.acquire(timeout=WAIT_S):
            yield Progress(0, 0, "waiting for another job to finish")

    def end_turn(self) -> None:
        """Let the next job in."""
        self._turn.release()

    def forecast(self, settings: Settings, photo_size: tuple[int, int], checkpoint: str) -> Forecast:
        """Predict how long ``run`` will take on a photo [H, W], once it is its turn; loads nothing.

        Raises: CheckpointError.
        """
        with self._books:
            loading = self._pipelines.get(checkpoint)
        loaded = loading is not None and loading.done() and loading.exception() is None
        return forecast(checkpoint, settings, photo_size, loading.result() if loading and loaded else None)

    # ------------------------------------------------------------------------------- results

    def keep(self, prediction: Prediction, outdated: str | None = None) -> str:
        """Keep a prediction for later exports -> its id; the longest unused ones make room.

        One that is kept already, the very same object, keeps its id. ``outdated`` is the id of one that it replaces.
        """
        key = secrets.token_hex(16)
        with self._books:
            known = next((known for known, kept in self._kept.items() if kept.prediction is prediction), None)
            if known is not None:
                self._kept.move_to_end(known)
                return known
            gone = [self._kept.pop(outdated)] if outdated in self._kept else []
            self._kept[key] = Kept(prediction, self._folder / key)
            held = sum(kept.size_bytes for kept in self._kept.values())
            while held > self._kept_bytes and len(self._kept) > 1:
                gone.append(self._kept.popitem(last=False)[1])
                held -= gone[-1].size_bytes
        for kept in gone:
            shutil.rmtree(kept.folder, ignore_errors=True)
        return key

    def keeps(self, key: str) -> bool:
        """Tell whether a result is still kept; asking does not count as a use."""
        with self._books:
            return key in self._kept

    def prediction(self, key: str) -> Prediction:
        """Return a kept prediction. Raises: ExportError when it had to make room."""
        return self._find(key).prediction

    def export(
        self,
        key: str,
        formats: Sequence[Format],
        mesh: MeshSettings | None = None,
        colormap: Colormap = DEFAULT_COLORMAP,
    ) -> dict[str, Path]:
        """Write formats of a kept prediction, unless they were written before -> files by name, as ``export.save``.

        Raises: ExportError when the result is gone, a format does not suit it, or the disk refuses.
        """
        from marigold_core.files.writers import save

        kept = self._find(key)
        mesh = mesh or MeshSettings()
        choice = (tuple(formats), mesh, colormap)
        with kept.lock:
            if choice not in kept.files:
                folder = kept.folder / str(len(kept.files))
                kept.files[choice] = save(
                    kept.prediction, folder, formats, mesh=mesh, colormap=colormap, overwrite=True
                )
            return kept.files[choice]

    def archive(
        self,
        key: str,
        formats: Sequence[Format],
        mesh: MeshSettings | None = None,
        colormap: Colormap = DEFAULT_COLORMAP,
    ) -> Path:
        """Write the files of ``export`` into one ZIP, unless it was written before -> its path.

        Raises: ExportError as ``export``, and when they are too large for it.
        """
        files = self.export(key, formats, mesh, colormap)
        bundle = files["manifest"].with_name(archive.EVERYTHING)
        with self._find(key).lock:
            if not bundle.exists():
                archive.write(files.values(), bundle)
        return bundle

    def new_folder(self) -> Path:
        """Name a folder for files that are removed with the service, if not before."""
        return self._folder / secrets.token_hex(16)

    def close(self) -> None:
        """Remove every exported file."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------------------------- inside

    def _find(self, key: str) -> Kept:
        with self._books:
            if key not in self._kept:
                raise ExportError("This result is no longer kept; run the photo again.")
            self._kept.move_to_end(key)
            return self._kept[key]

    def _load(self, checkpoint: str, future: "Future[MarigoldPipeline]") -> None:
        try:
            with timed_load(checkpoint):
                pipeline = self._loader(checkpoint)
            future.set_result(pipeline)
        except BaseException as error:  # whoever waits for the checkpoint receives it
            future.set_exception(error)


def check_cost(settings: ResolvedSettings, photo_size: tuple[int, int]) -> None:
    """Refuse a job, its settings resolved, that would hold the model for everybody else. Raises: SettingsError."""
    height, width = photo_size
    longest = settings.processing_resolution or max(height, width)
    megapixels = height * width * (longest / max(height, width)) ** 2 / 1e6
    steps, members = settings.num_inference_steps, settings.ensemble_size
    if megapixels * steps * members > MAX_WORK:
        raise SettingsError(
            f"{steps} steps x {members} members on {megapixels:.1f} megapixels is too much for one run;"
            " choose fewer steps, fewer members or a lower resolution."
        )


def _finished(future: "Future[MarigoldPipeline]") -> bool:
    """Wait a slice of time for a load, so that the job that waits for it can be closed."""
    try:
        future.exception(timeout=WAIT_S)
    except TimeoutError:
        return False
    return True
