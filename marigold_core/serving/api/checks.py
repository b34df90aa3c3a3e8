"""What is wrong with the arguments of a call, found before it takes a place in the queue."""

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from marigold_core.calibration.calibrate import Hints, Method, calibrate, check_claim, check_guided, check_hints
from marigold_core.checkpoints.registry import check_decoder, claim_of, default_checkpoint, family_of
from marigold_core.comparison.sweep import check_alike, check_reading, count_cells, reduce_given
from marigold_core.errors import ImageError, MarigoldError
from marigold_core.images.photo import MAX_PIXELS, read_header
from marigold_core.pipeline.panorama import check_full
from marigold_core.pipeline.views import check_meaning
from marigold_core.serving.api.answers import DefocusResult, PanoramaResult, ParallaxResult, VideoResult
from marigold_core.serving.api.arguments import Arguments, read_axes, read_checkpoints, read_given, read_hints, take
from marigold_core.serving.api.endpoints import Endpoint
from marigold_core.serving.api.files import check_files, check_made
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.jobs import MAX_CELLS, is_large_file
from marigold_core.serving.video import check_clip, check_parallax
from marigold_core.settings import ColourSettings, DepthReading, MeshSettings, Settings
from marigold_core.video import check_installed
from marigold_core.video.settings import DefocusSettings, ParallaxSettings, VideoSettings, check_focus

MODELS = (Settings, DepthReading, MeshSettings, ColourSettings, VideoSettings, ParallaxSettings, DefocusSettings)
_HEADERS = threading.Lock()  # one photo at a time is looked at before the queue: HEIC is decoded for it


def fault(endpoint: Endpoint, given: Arguments) -> tuple[str, str] | None:
    """Find what is wrong with the arguments of a call -> (argument, sentence), None when nothing is."""
    at = ""
    try:
        for argument in _checks(endpoint, given):
            at = argument
    except MarigoldError as error:
        sentence = str(error)
        named = (one.name for one in endpoint.arguments)  # files are no words that sentences begin with
        return next((name for name in named if sentence.startswith(f"{name} ")), at), sentence
    return None


def _checks(endpoint: Endpoint, given: Arguments) -> Iterator[str]:
    """Check the arguments of a call; yields the one that is wrong if what follows raises a MarigoldError."""
    first = next(iter(endpoint.files))
    yield first
    if not given[first]:
        raise ImageError(f"Give a {first}: a file of yours, which is uploaded first.")
    for model in (*MODELS, endpoint.output):
        yield next((name for name in model.model_fields if name in given), endpoint.arguments[0].name)
        take(model, given)
    yield "anchors"
    hints = read_hints(given) if "anchors" in given else None
    if "sizes" in given:
        yield from _check_comparison(given)
    elif "depth" not in given:
        yield from _check_run(endpoint, given, hints)
    yield first
    if endpoint.result in (VideoResult, ParallaxResult, DefocusResult):
        check_installed()
    if first == "video":
        check_clip(given[first])
        return
    with _HEADERS:
        size, fov_x_deg = read_header(Path(given["photo"]))
        reduction = max(1, math.ceil(math.sqrt(size[0] * size[1] / MAX_PIXELS)))  # as large ones are read
        shape = size[0] // reduction, size[1] // reduction
        yield from _check_effect(endpoint, given, size)
        if hints and (hints.is_given or "depth" not in given):
            for name in ("anchors", "lengths", "patch", "near_m"):
                yield name
                others = {"anchors": None, "lengths": None, "patch": None, "near_m": None, name: given[name]}
                if (one := read_hints({**given, **others, "method": get_args(Method)[0]})).is_given:
                    check_hints(one, shape, fov_x_deg, size)
            yield "anchors"
            claim = None if "depth" in given else claim_of(given["checkpoint"] or default_checkpoint())
            check_hints(hints, shape, fov_x_deg, size, claim and claim.kind)
        if given.get("depth") or "depth" in endpoint.needs:
            if any(is_large_file(file) for file in (given["photo"], given["depth"]) if file):
                return  # the job itself reads it, in its turn, and refuses it in the same words
            yield "depth"
            found = read_given(given)
            if "sizes" in given:
                for claim in filter(None, map(claim_of, read_checkpoints(given))):
                    reduce_given(found, claim)
                return
            yield "anchors"
            made = calibrate(found, hints) if hints and hints.is_given else found
            yield from check_files(given, endpoint.usual, made)


def _check_run(endpoint: Endpoint, given: Arguments, hints: Hints | None) -> Iterator[str]:
    settings, name = take(Settings, given), given["checkpoint"] or default_checkpoint()
    yield "checkpoint"
    check_checkpoint(name)
    claim = claim_of(name)
    if claim and hints:
        check_claim(claim.modality, claim.kind)
    yield from _check_meaning(settings, name, "num_inference_steps", "ensemble_size")
    if not os.environ.get("MARIGOLD_TINY_AUTOENCODER"):  # whether one fits is known once both are loaded
        check_decoder(settings.decoder, Path(name).name, has_tiny=False)
    if hints and hints.guides:
        check_guided(settings)
    if claim:  # else the job itself will tell
        yield "checkpoint"
        yield from check_made(given, endpoint.usual, claim, hints)


def _check_effect(endpoint: Endpoint, given: Arguments, size: tuple[int, int]) -> Iterator[str]:
    """Check what is made of the depth of a photo (height, width)."""
    if endpoint.result is PanoramaResult:
        check_full(size)
    elif endpoint.result is ParallaxResult:
        yield "seconds"
        check_parallax(take(ParallaxSettings, given), size)
    elif endpoint.result is DefocusResult:
        yield "focus"
        check_focus(take(DefocusSettings, given), size)


def _check_comparison(given: Arguments) -> Iterator[str]:
    yield "quantity"
    check_reading(take(DepthReading, given), bool(given["depth"]), given["fov_x_deg"])
    yield "steps"
    requested = read_axes(given)
    yield "checkpoints"
    names = read_checkpoints(given)
    yield max(("steps", "sizes", "seeds"), key=lambda axis: len(getattr(requested, axis))) if names else "checkpoints"
    count_cells(requested, names, MAX_CELLS)
    for name in names:
        yield from _check_meaning(requested.largest, name, "steps", "sizes")
    yield "checkpoints"
    check_alike([claim for name in names if (claim := claim_of(name))])


def _check_meaning(settings: Settings, checkpoint: str, steps: str, members: str) -> Iterator[str]:
    family, name = family_of(checkpoint), Path(checkpoint).name
    yield steps
    check_meaning(settings.changed(ensemble_size=1), family, name)
    yield members
    check_meaning(settings, family, name)
