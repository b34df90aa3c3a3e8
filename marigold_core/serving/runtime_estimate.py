"""How long a run will take, told before it starts.

Seconds = load + encode + members x (steps x step + decode), each part as it was timed here before (``pace``). For
another size it is scaled from the nearest one that was timed; a first guess serves until something was timed, and says
that it is one.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marigold_core.checkpoints.layout import describe
from marigold_core.checkpoints.registry import BUNDLED, KNOWN, PUBLIC_BYTES
from marigold_core.comparison.sweep import Pace, in_words
from marigold_core.images.photo import network_size
from marigold_core.serving.run_times import Timed, is_here, remembered
from marigold_core.settings import ResolvedSettings, Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline

# The first guess. Work of Stable Diffusion 2's parts, counted; smaller networks are taken to work less in proportion
# to their weights, and every part costs the machine something however small it is.
WORK_TFLOP = Pace(4.1, 2.6, 9.5)  # a megapixel through the network
SPEED_TFLOP_S = {"cpu": 0.05 * (os.cpu_count() or 1), "cuda": 30.0, "mps": 3.0}
LEAST_S = 0.015
PHOTO_S = 0.15  # a megapixel of the photo, to read it, and to bring a member to its size and onto a page
IMPORT_S, READ_BYTES_S = 5.0, 500e6
PUBLIC_RESOLUTION_PX = 768


@dataclass(frozen=True)
class Runner:
    """A checkpoint on the device it runs on, loaded or not."""

    device: str
    dtype: str
    weight_bytes: int
    default_steps: int
    default_resolution: int


@dataclass(frozen=True)
class Forecast:
    """The seconds that a run will take, and how far to believe them."""

    seconds: float
    measured: bool  # False: a first guess, nothing was timed here yet
    download_bytes: int  # to fetch first, whose time nobody knows
    pace: Pace  # of the parts of the run

    @property
    def time(self) -> str:
        """Say the seconds as a person reads them."""
        return in_words(self.seconds)


def forecast(
    checkpoint: str, settings: Settings, photo_size: tuple[int, int], pipe: "MarigoldPipeline | None"
) -> Forecast:
    """Predict the time of a run on a photo [H, W]; ``pipe`` is the checkpoint when it is loaded.

    Raises: CheckpointError for a folder that is none.
    """
    runner = _loaded(pipe) if pipe else _on_disk(checkpoint)
    load_s, times = remembered(checkpoint, runner.device, runner.dtype)
    resolved = settings.resolved(runner.default_steps, runner.default_resolution)
    photo_mp, network_mp = _megapixels(resolved, photo_size)
    pace = guess(runner, network_mp, photo_mp)
    if times:
        near = min(times, key=lambda run: _apart(run.network_mp, network_mp) + _apart(run.photo_mp, photo_mp))
        pace = scaled(near, runner, network_mp, photo_mp)
    steps, members = resolved.num_inference_steps, resolved.ensemble_size
    seconds = pace.encode_s + members * (steps * pace.step_s + pace.decode_s)
    if pipe is None:
        seconds += IMPORT_S + runner.weight_bytes / READ_BYTES_S if load_s is None else load_s
    return Forecast(seconds, bool(times), 0 if is_here(checkpoint) else runner.weight_bytes, pace)


def scaled(near: Timed, runner: Runner, network_mp: float, photo_mp: float) -> Pace:
    """Bring a timed run to another size: the network's share grows as the guess does, the photo's with its pixels."""
    now, before = guess(runner, network_mp, 0), guess(runner, near.network_mp, 0)

    def with_photo(seconds: float, growth: float) -> float:
        photo_s = min(PHOTO_S * near.photo_mp, seconds / 2)
        return (seconds - photo_s) * growth + photo_s * photo_mp / near.photo_mp

    return Pace(
        with_photo(near.encode_s, now.encode_s / before.encode_s),
        near.step_s * now.step_s / before.step_s,
        with_photo(near.decode_s, now.decode_s / before.decode_s),
    )


def guess(runner: Runner, network_mp: float, photo_mp: float) -> Pace:
    """Guess the seconds of the parts of a run from the size of the weights alone; megapixels."""
    share = runner.weight_bytes / PUBLIC_BYTES
    a_tflop_s = network_mp * share / SPEED_TFLOP_S.get(runner.device, SPEED_TFLOP_S["cpu"])
    return Pace(
        LEAST_S + WORK_TFLOP.encode_s * a_tflop_s + PHOTO_S * photo_mp,
        LEAST_S + WORK_TFLOP.step_s * a_tflop_s,
        LEAST_S + WORK_TFLOP.decode_s * a_tflop_s + PHOTO_S * photo_mp,
    )


def _megapixels(settings: ResolvedSettings, photo_size: tuple[int, int]) -> tuple[float, float]:
    """Megapixels of the photo, and of what goes through the network."""
    seen = network_size(*photo_size, settings.processing_resolution)
    return math.prod(photo_size) / 1e6, math.prod(seen) / 1e6


def _apart(one: float, other: float) -> float:
    return abs(math.log(one / other))


def _loaded(pipe: "MarigoldPipeline") -> Runner:
    record, dtype = pipe.checkpoint, str(pipe.dtype).removeprefix("torch.")
    return Runner(pipe.device.type, dtype, record.size_bytes, record.default_steps, record.default_resolution)


def _on_disk(checkpoint: str) -> Runner:
    """Say what a checkpoint will run on, from its small files; of one that is not here, from what is published."""
    from marigold_core.pipeline.loading import pick_device, pick_dtype

    device = pick_device("auto")
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    entry = KNOWN.get(checkpoint)
    folder = BUNDLED if entry and entry.hub_id is None else Path(checkpoint).expanduser()
    if not folder.is_dir():
        return Runner(device.type, dtype, PUBLIC_BYTES, 4, PUBLIC_RESOLUTION_PX)
    weight_bytes = sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
    found = describe(folder)
    return Runner(device.type, dtype, weight_bytes, found.default_steps, found.default_resolution)
