"""Runs the model on ZeroGPU; imported on such hosts only, before the page is launched.

The weights go to "cuda" on the main thread: before the launch the package ``spaces`` emulates the device there, and
only there. All work of the model goes through ``on_gpu``, which the package runs in a forked process that has a GPU.
What goes in and out is pickled, so it is plain data in main memory. Ending the iterator stops the process before its
next step.
"""

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch

from marigold_core.calibration.calibrate import Hints
from marigold_core.comparison.sweep import Comparison
from marigold_core.errors import CheckpointError, MarigoldError, SettingsError
from marigold_core.images.photo import load_photo
from marigold_core.pipeline.pipeline import MarigoldPipeline, PhotoSource
from marigold_core.pipeline.sampling import LatentCarry
from marigold_core.prediction import Cell, Prediction, Progress
from marigold_core.serving import hosting
from marigold_core.serving.runtime_estimate import estimate
from marigold_core.settings import Settings

spaces: Any = importlib.import_module("spaces")
gradio: Any = importlib.import_module("gradio")  # whose exception carries the refusals

PLACED: dict[str, "LentPipeline"] = {}  # a forked process inherits it


def place(names: Sequence[str], device: str = "cuda") -> Callable[[str], MarigoldPipeline]:
    """Load checkpoints onto the emulated device, on the main thread -> the loader for ``Service``.

    Raises: CheckpointError for a checkpoint that is missing, damaged or unreachable.
    """
    for name in names:
        pipe = LentPipeline.from_pretrained(name, device=device, compile=False)  # no GPU is there yet
        assert isinstance(pipe, LentPipeline)
        pipe.name, pipe.emulated = name, pipe.device  # the emulation shows it on this thread only
        PLACED[name] = pipe
    return _placed


def _placed(name: str, dtype: str = "auto") -> MarigoldPipeline:
    """Return a checkpoint that was loaded at the start, in the dtype that it has."""
    if name not in PLACED:
        raise CheckpointError(f"This host offers {' and '.join(PLACED)} only; {name!r} was not loaded at its start.")
    return PLACED[name]


class LentPipeline(MarigoldPipeline):
    """A pipeline whose streams run in the process that the host gives a GPU."""

    name: str  # what the host loaded it as
    emulated: torch.device | None = None  # where the weights seem to be before a process has the GPU

    @property
    def device(self) -> torch.device:
        """The device that holds the weights and runs the model, in the process that has the GPU."""
        return self.emulated or self.unet.device

    def stream(
        self,
        photo: PhotoSource,
        settings: Settings | None = None,
        start: Prediction | None = None,
        hints: Hints | None = None,
        *,
        carry: LatentCarry | None = None,
    ) -> Iterator[Progress | Prediction]:
        """Predict step by step, as ``MarigoldPipeline.stream``.

        Raises: HostError when the host refuses or loses the run, SettingsError when it is too long for one call, or
        something is to be carried over from the process that had the GPU before.
        """
        if carry is not None:
            raise SettingsError("A GPU that is lent for each frame keeps nothing of the one before; set carry to 0.")
        opened, settings = load_photo(photo), self.resolve(settings, hints)
        needed = estimate(self.name, settings, opened.pixels.shape[:2], self, hints).seconds
        return self._lend(needed, "stream", opened, settings, start, hints)

    def stream_grid(
        self,
        photo: PhotoSource,
        steps: Sequence[int],
        sizes: Sequence[int],
        seeds: Sequence[int],
        shared: Settings,
    ) -> Iterator[Progress | Cell]:
        """Predict a grid of cells in one call, as ``MarigoldPipeline.stream_grid``; raises as ``stream``."""
        opened = load_photo(photo)
        requested = Comparison(
            steps=tuple(steps),
            sizes=tuple(sizes),
            seeds=tuple(seeds),
            processing_resolution=shared.processing_resolution,
            views=shared.views,
        )
        parts = estimate(self.name, requested.sample, opened.pixels.shape[:2], self).parts
        return self._lend(parts.predict_s(requested), "stream_grid", opened, steps, sizes, seeds, shared)

    def _lend(self, needed_s: float, method: str, *arguments: Any) -> Generator[Any]:
        events: Generator[Any] = on_gpu(hosting.duration_s(needed_s), self.name, method, arguments)
        try:
            for event in events:
                if isinstance(event, MarigoldError):
                    raise event
                yield event
        except gradio.Error as refusal:
            raise hosting.explain_refusal(str(getattr(refusal, "title", "")), str(refusal.message)) from None
        finally:
            events.close()


def _duration(seconds: int, *_: object) -> int:
    return seconds


@spaces.GPU(duration=_duration)
def on_gpu(seconds: int, name: str, method: str, arguments: tuple[Any, ...]) -> Generator[Any]:
    """Run a stream of a placed pipeline in the process that has the GPU.

    Args:
        seconds: how long the GPU is wanted.
        name: of the checkpoint, as ``place`` loaded it.
        method: of ``MarigoldPipeline``: "stream" or "stream_grid".
        arguments: of the method.

    Yields:
        Its events; an error of ours is the last one, because the host hands on only the name of an exception.
    """
    pipe = PLACED[name]
    pipe.emulated = None
    torch.set_num_threads(1)  # the threads of the process it was forked from do not exist here, and would be waited for
    yield Progress(0, 0, "the GPU is ready")  # what was waited until now is not the model's time
    try:
        yield from getattr(MarigoldPipeline, method)(pipe, *arguments)
    except MarigoldError as error:
        yield error
