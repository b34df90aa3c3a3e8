"""How long a run will take, estimated before it starts from what earlier runs took on this machine.

Seconds = load + encode + members x (steps x step + decode). The parts are timed while runs go on and kept in the user's
cache: a list for each checkpoint, device and dtype, an entry for each size of photo and network input. A second run of
the same size is averaged with the first, so that one slow moment does not count for long. Other sizes are scaled from
the nearest one that was timed; a first guess serves until something was timed, and is marked as one.
"""

import math
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from marigold_core.calibration.calibrate import COMPLETION_WORK, Hints
from marigold_core.checkpoints.layout import describe
from marigold_core.checkpoints.registry import BUNDLED, NAMED, PUBLIC_BYTES, is_here
from marigold_core.comparison.sweep import PartTimes, format_seconds
from marigold_core.errors import ExportError
from marigold_core.images.photo import network_size
from marigold_core.pipeline.views import count_views, relative_pixels
from marigold_core.prediction import Prediction, Progress
from marigold_core.settings import DepthReading, Settings, tile_size
from marigold_core.storage import cache_folder, write_json

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline

FILE = "pace.json"
MAX_SIZES = 12  # entries of one checkpoint; the oldest makes room

# The first guess. Work of Stable Diffusion 2's parts, counted; smaller networks are taken to work less in proportion
# to their weights, and every part costs the machine something however small it is.
WORK_TFLOP = PartTimes(4.1, 2.6, 9.5)  # a megapixel through the network
SPEED_TFLOP_S = {"cpu": 0.05 * (os.cpu_count() or 1), "cuda": 30.0, "mps": 3.0}
LEAST_S = 0.015
PHOTO_S = 0.15  # a megapixel of the photo, to read it, and to bring a member to its size and onto a page
IMPORT_S, READ_BYTES_S = 5.0, 500e6
PUBLIC_RESOLUTION_PX = 768


# ------------------------------------------------------------------------------- timing runs

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TimedRun(NamedTuple):
    """A run that was timed: what went through the network, the photo, both in megapixels, and the parts' seconds."""

    network_mp: Positive
    photo_mp: Positive
    encode_s: Positive
    step_s: Positive
    decode_s: Positive


class Times(BaseModel):
    """What was timed of one checkpoint."""

    load_s: Positive | None = None
    runs: dict[str, list[TimedRun]] = {}  # by device and dtype


_FILE_CONTENT = TypeAdapter(dict[str, Times])


def timed(events: Iterator[Progress | Prediction], checkpoint: str) -> Generator[Progress | Prediction]:
    """Pass on the events of a run and, once it is finished, remember its times; closing this closes ``events``.

    What the receiver does with an event counts too: a person waits for the picture, not for the numbers.
    """
    steps, decodes, done, result = list[tuple[float, int]](), list[float](), 0, None
    began = perf_counter()
    try:
        for event in events:
            yield event
            now = perf_counter()
            if isinstance(event, Prediction) and event.preview:
                continue  # its time counts as that of the member that follows
            if isinstance(event, Prediction):
                result = event
                decodes.append(now - began)
            elif event.done > done:  # one step of one member or of several; other events announce or warn
                steps.append((now - began, event.done - done))
                done = event.done
            began = now
    finally:
        if isinstance(events, Generator):  # a stopped run frees the model now, not when it is collected
            events.close()
    if result is not None and steps:
        _remember(checkpoint, result, steps, decodes)


@contextmanager
def timed_load(checkpoint: str) -> Generator[None]:
    """Remember how long loading takes, unless it includes a download or fails."""
    here, began = is_here(checkpoint), perf_counter()
    yield
    if here:
        content = _read()
        _times(content, checkpoint).load_s = perf_counter() - began
        _write(content)


def remembered(checkpoint: str, device: str, dtype: str) -> tuple[float | None, list[TimedRun]]:
    """Return the seconds to load a checkpoint, None when that was not timed, and its timed runs."""
    times = _times(_read(), checkpoint)
    return times.load_s, times.runs.get(f"{device} {dtype}", [])


def _remember(checkpoint: str, result: Prediction, steps: list[tuple[float, int]], decodes: list[float]) -> None:
    """Remember the parts of a finished run; the first step holds the encoding and warms up, so others are better.

    Of a run in tiles the mean parts of a tile are remembered, the photo as a whole counting as one. From the last step
    of a tile to the first of the next one, one is decoded and the other encoded: what remains is the decoding.
    """
    settings = result.settings
    if isinstance(settings, DepthReading) or result.members is None or result.device is None or result.dtype is None:
        return
    photo, network, tiles = result.photo.shape[:2], result.members.shape[1:3], 1
    if settings.tiles_per_side > 1:
        photo = tile_size(photo, settings.tiles_per_side)
        network, tiles = network_size(*photo, settings.processing_resolution), 1 + settings.tiles_per_side**2
    per_map = settings.num_inference_steps
    first_s, count = steps[0]
    later = [one / members for n, (one, members) in enumerate(steps) if n and (tiles == 1 or n % per_map)]
    step_s = float(np.median(later)) if later else first_s / (count + 1)
    encode_s = max(first_s - count * step_s, step_s / 10)
    decode_s = float(np.median(decodes))
    if tiles > 1:
        members = len(decodes)
        map_s = (sum(one for one, _ in steps) + sum(decodes)) / tiles - count_views(settings.views, members) * encode_s
        decode_s = max(map_s / (members * relative_pixels(settings.views, members)) - per_map * step_s, step_s / 10)
    content = _read()
    runs = _times(content, checkpoint).runs.setdefault(f"{result.device} {result.dtype}", [])
    run = TimedRun(math.prod(network) / 1e6, math.prod(photo) / 1e6, encode_s, step_s, decode_s)
    for known in [known for known in runs if known[:2] == run[:2]]:
        run = TimedRun(*((old + new) / 2 for old, new in zip(known, run, strict=True)))
        runs.remove(known)
    runs[:] = [*runs, run][-MAX_SIZES:]
    _write(content)


def _times(content: dict[str, Times], checkpoint: str) -> Times:
    return content.setdefault(checkpoint, Times())


def _read() -> dict[str, Times]:
    """Read the file -> times by checkpoint; what is absent or garbled is as if nothing had been timed."""
    try:
        return _FILE_CONTENT.validate_json((cache_folder() / FILE).read_bytes())
    except (OSError, ValidationError):
        return {}


def _write(content: dict[str, Times]) -> None:
    """Write the file, without the folders that are gone."""
    kept = {name: times for name, times in content.items() if not os.path.isabs(name) or os.path.isdir(name)}
    with suppress(ExportError):  # a read-only home costs a better estimate, nothing else
        write_json(cache_folder() / FILE, _FILE_CONTENT.dump_python(kept, mode="json"))


# ------------------------------------------------------------------------------- estimating runs


@dataclass(frozen=True)
class Runner:
    """A checkpoint on the device it runs on, loaded or not."""

    device: str
    dtype: str
    weight_bytes: int
    default_steps: int
    default_resolution: int


@dataclass(frozen=True)
class RuntimeEstimate:
    """The seconds that a run will take, and how far to believe them."""

    seconds: float
    measured: bool  # False: a first guess, nothing was timed here yet
    download_bytes: int  # to fetch first, in a time that cannot be predicted
    parts: PartTimes

    @property
    def time(self) -> str:
        """Format the seconds for a person."""
        return format_seconds(self.seconds)


def estimate(
    checkpoint: str,
    settings: Settings,
    photo_size: tuple[int, int],
    pipe: "MarigoldPipeline | None",
    hints: Hints | None = None,
) -> RuntimeEstimate:
    """Estimate the time of a run on a photo [H, W], with hints that may guide it; ``pipe`` is the loaded checkpoint.

    Raises: CheckpointError for a folder that is none.
    """
    runner = _loaded(pipe) if pipe else _on_disk(checkpoint)
    load_s, runs = remembered(checkpoint, runner.device, runner.dtype)
    resolved = settings.resolved(runner.default_steps, runner.default_resolution)

    def parts_of(size: tuple[int, int]) -> PartTimes:
        photo_mp = math.prod(size) / 1e6
        network_mp = math.prod(network_size(*size, resolved.processing_resolution)) / 1e6
        if not runs:
            return guess(runner, network_mp, photo_mp)
        near = min(runs, key=lambda run: _ratio(run.network_mp, network_mp) + _ratio(run.photo_mp, photo_mp))
        return scaled(near, runner, network_mp, photo_mp)

    parts, tiles = parts_of(photo_size), resolved.tiles_per_side
    steps, members = resolved.num_inference_steps, resolved.ensemble_size
    guided = COMPLETION_WORK * steps if hints is not None and hints.guides else 0
    seconds = parts.run_s(members, guided or steps, guided or 1, resolved.views)
    if tiles > 1:
        seconds += tiles**2 * parts_of(tile_size(photo_size, tiles)).run_s(members, steps, 1, resolved.views)
    if pipe is None:
        seconds += IMPORT_S + runner.weight_bytes / READ_BYTES_S if load_s is None else load_s
    entry = NAMED.get(checkpoint)
    download_bytes = 0 if is_here(checkpoint) else entry.size_bytes if entry else runner.weight_bytes
    return RuntimeEstimate(seconds, bool(runs), download_bytes, parts)


def scaled(near: TimedRun, runner: Runner, network_mp: float, photo_mp: float) -> PartTimes:
    """Bring a timed run to another size: the network's share grows as the guess does, the photo's with its pixels."""
    now, before = guess(runner, network_mp, 0), guess(runner, near.network_mp, 0)

    def with_photo(seconds: float, growth: float) -> float:
        photo_s = min(PHOTO_S * near.photo_mp, seconds / 2)
        return (seconds - photo_s) * growth + photo_s * photo_mp / near.photo_mp

    return PartTimes(
        with_photo(near.encode_s, now.encode_s / before.encode_s),
        near.step_s * now.step_s / before.step_s,
        with_photo(near.decode_s, now.decode_s / before.decode_s),
    )


def guess(runner: Runner, network_mp: float, photo_mp: float) -> PartTimes:
    """Guess the seconds of the parts of a run from the size of the weights alone; megapixels."""
    share = runner.weight_bytes / PUBLIC_BYTES
    a_tflop_s = network_mp * share / SPEED_TFLOP_S.get(runner.device, SPEED_TFLOP_S["cpu"])
    return PartTimes(
        LEAST_S + WORK_TFLOP.encode_s * a_tflop_s + PHOTO_S * photo_mp,
        LEAST_S + WORK_TFLOP.step_s * a_tflop_s,
        LEAST_S + WORK_TFLOP.decode_s * a_tflop_s + PHOTO_S * photo_mp,
    )


def _ratio(one: float, other: float) -> float:
    return abs(math.log(one / other))


def _loaded(pipe: "MarigoldPipeline") -> Runner:
    record, dtype = pipe.checkpoint, str(pipe.dtype).removeprefix("torch.")
    return Runner(pipe.device.type, dtype, record.size_bytes, record.default_steps, record.default_resolution)


def _on_disk(checkpoint: str) -> Runner:
    """Read what a checkpoint will run on from its small files; for one that is not here, take what is published."""
    from marigold_core.pipeline.loading import pick_device, pick_dtype

    device = pick_device("auto")
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    entry = NAMED.get(checkpoint)
    folder = BUNDLED if entry and entry.hub_id is None else Path(checkpoint).expanduser()
    if not folder.is_dir():
        steps = 1 if entry and entry.family.one_step else 4
        return Runner(device.type, dtype, PUBLIC_BYTES, steps, PUBLIC_RESOLUTION_PX)
    weight_bytes = sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
    found = describe(folder)
    return Runner(device.type, dtype, weight_bytes, found.default_steps, found.default_resolution)
