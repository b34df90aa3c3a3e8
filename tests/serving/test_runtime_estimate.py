"""Predicted seconds: what runs took is kept, scaled to other sizes, and never stands in the way of a run."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marigold_core.checkpoints.registry import NAMED
from marigold_core.errors import CheckpointError
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving import runtime_estimate
from marigold_core.serving.jobs import Service
from marigold_core.serving.runtime_estimate import PHOTO_S, Runner, estimate, guess, remembered, timed, timed_load
from marigold_core.settings import Settings
from marigold_core.storage import cache_folder
from tests.helpers.predictions import prediction_of

ENCODE_S, STEP_S, DECODE_S = 2.0, 3.0, 5.0
PHOTO_SIZE, NETWORK_SIZE = (600, 800), (144, 192)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder() / runtime_estimate.FILE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [50.0]
    monkeypatch.setattr(runtime_estimate, "perf_counter", lambda: now[0])
    return now


def prediction(
    members: int, photo: tuple[int, int] = PHOTO_SIZE, network: tuple[int, int] = NETWORK_SIZE
) -> Prediction:
    stack = np.zeros((members, *network), np.float16)
    return prediction_of(np.zeros(photo), members=stack, checkpoint="nano", device="cpu", dtype="float32")


def run(
    clock: list[float], steps: int = 4, members: int = 2, batch: int = 1, slower: float = 1.0, **sizes: tuple[int, int]
) -> Iterator[Progress | Prediction]:
    """Play a run whose parts take the seconds stated above."""
    yield Progress(0, 1, "reading the photo")
    clock[0] += ENCODE_S * slower
    for first in range(0, members, batch):
        for step in range(steps):
            clock[0] += STEP_S * batch * slower
            yield Progress(first * steps + (step + 1) * batch, members * steps, "a step")
        for member in range(first, first + batch):
            clock[0] += DECODE_S * slower
            yield prediction(member + 1, **sizes)


def loaded(weight_bytes: int = 16_000_000) -> Any:
    """What an estimate asks of a loaded checkpoint."""
    checkpoint = SimpleNamespace(size_bytes=weight_bytes, default_steps=4, default_resolution=192)
    return SimpleNamespace(checkpoint=checkpoint, device=SimpleNamespace(type="cpu"), dtype="torch.float32")


def predict_s(steps: int, members: int, photo: tuple[int, int] = PHOTO_SIZE, resolution: int = 192) -> float:
    settings = Settings(num_inference_steps=steps, ensemble_size=members, processing_resolution=resolution)
    found = estimate("nano", settings, photo, loaded())
    assert found.measured
    return found.seconds


@pytest.mark.parametrize("batch", [1, 2])
def test_the_parts_of_a_run_predict_other_runs_of_that_size(clock, batch):
    list(timed(run(clock, batch=batch), "nano"))
    assert predict_s(4, 2) == pytest.approx(ENCODE_S + 2 * (4 * STEP_S + DECODE_S))
    assert predict_s(10, 7) == pytest.approx(ENCODE_S + 7 * (10 * STEP_S + DECODE_S))


def test_tiles_are_counted(clock):
    list(timed(run(clock), "nano"))
    settings = Settings(num_inference_steps=4, ensemble_size=2, processing_resolution=192)
    plain, tiled = (estimate("nano", settings.changed(tiles_per_side=n), PHOTO_SIZE, loaded()).seconds for n in (1, 2))
    assert 4 * plain < tiled < 5.1 * plain  # a tile has fewer pixels to read and to show


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("steps", "views"), [(4, "photo"), (2, "mirrored"), (1, "photo")])
def test_a_run_in_tiles_predicts_runs_in_tiles(clock, batch, steps, views):
    """The whole and each of four tiles are encoded, once a view, denoised and decoded one after the other."""
    settings = Settings(num_inference_steps=steps, ensemble_size=2, processing_resolution=192, tiles_per_side=2)
    settings = settings.resolved(4, 192).changed(views=views)

    def run_in_tiles() -> Iterator[Progress | Prediction]:
        done, seen = 0, set()
        for first in range(0, 2, batch):
            for part in range(5):
                mirrored = [views == "mirrored" and k % 2 for k in range(first, first + batch)]
                clock[0] += ENCODE_S * len({(part, one) for one in mirrored} - seen)
                seen |= {(part, one) for one in mirrored}
                for _ in range(steps):
                    clock[0] += STEP_S * batch
                    done += batch
                    yield Progress(done, 2 * 5 * steps, "a step")
                clock[0] += DECODE_S * batch
            for k in range(first, first + batch):
                yield replace(prediction(k + 1, network=(252, 336)), settings=settings.changed(ensemble_size=k + 1))

    began = clock[0]
    list(timed(run_in_tiles(), "nano"))
    took = clock[0] - began
    found = estimate("nano", settings, PHOTO_SIZE, loaded())
    assert found.measured and found.seconds == pytest.approx(took, rel=0.03)  # the whole has more pixels to show
    if steps > 1:
        twice = estimate("nano", settings.changed(num_inference_steps=2 * steps), PHOTO_SIZE, loaded())
        assert twice.seconds - found.seconds == pytest.approx(2 * 5 * steps * STEP_S, rel=0.03)


def test_what_the_receiver_does_with_a_picture_counts(clock):
    for event in timed(run(clock), "nano"):
        clock[0] += 1.5 * isinstance(event, Prediction)
    assert predict_s(4, 10) == pytest.approx(ENCODE_S + 10 * (4 * STEP_S + DECODE_S + 1.5))


def test_a_single_step_still_tells_something(clock):
    list(timed(run(clock, steps=1, members=1), "nano"))
    assert predict_s(1, 1) == pytest.approx(ENCODE_S + STEP_S + DECODE_S)


def test_other_sizes_are_scaled_from_the_nearest_one(clock):
    list(timed(run(clock), "nano"))
    known = predict_s(4, 2)
    assert predict_s(4, 2, resolution=384) > 1.5 * known
    large_s = predict_s(4, 2, photo=(3000, 4000)) - known
    assert large_s == pytest.approx(3 * PHOTO_S * (12 - 0.48))  # read once, and enlarged for each of two members
    list(timed(run(clock, slower=10, network=(288, 384)), "nano"))
    assert predict_s(4, 2, resolution=384) == pytest.approx(10 * known)
    assert predict_s(4, 2) == pytest.approx(known)


def test_times_of_one_size_are_averaged_and_sizes_are_bounded(clock, cache):
    list(timed(run(clock), "nano"))
    list(timed(run(clock, slower=3), "nano"))
    assert predict_s(4, 2) == pytest.approx(2 * (ENCODE_S + 2 * (4 * STEP_S + DECODE_S)))
    for width in range(16, 16 + 2 * runtime_estimate.MAX_SIZES):
        list(timed(run(clock, network=(16, width)), "nano"))
    (times,) = json.loads(cache.read_text())["nano"]["runs"].values()
    assert len(times) == runtime_estimate.MAX_SIZES
    assert times[-1][0] == pytest.approx(16 * (15 + 2 * runtime_estimate.MAX_SIZES) / 1e6)


def test_a_stopped_run_is_closed_and_leaves_no_times(clock, cache):
    closed = []

    def endless() -> Iterator[Progress]:
        try:
            for done in range(1, 100):
                yield Progress(done, 100, "a step")
        finally:
            closed.append(True)

    events = timed(endless(), "nano")
    next(events)
    events.close()
    assert closed == [True]
    assert not cache.exists()


@pytest.mark.parametrize("changed", [{"members": None}, {"device": None}])
def test_results_that_do_not_say_where_they_come_from_are_not_noted(clock, cache, changed):
    events = list(run(clock))
    list(timed(iter([*events[:-1], replace(events[-1], **changed)]), "nano"))
    assert not cache.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"nano": 3}',
        '{"nano": {"load_s": "x", "runs": {}}}',
        '{"nano": {"load_s": -1, "runs": {}}}',
        '{"nano": {"load_s": null, "runs": {"cpu float32": [[1, 2, 3]]}}}',
        '{"nano": {"load_s": null, "runs": {"cpu float32": [[1, 1, 1, NaN, 1]]}}}',
    ],
)
def test_a_garbled_file_is_as_if_nothing_had_been_timed(cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert remembered("nano", "cpu", "float32") == (None, [])
    with timed_load("nano"):
        time.sleep(0.001)
    assert json.loads(cache.read_text())["nano"]["load_s"] > 0


def test_a_cache_that_cannot_be_written_costs_nothing_else(clock, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    assert len(list(timed(run(clock), "nano"))) == 11


def test_folders_that_are_gone_are_forgotten_and_failed_loads_not_noted(cache, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    with timed_load(str(folder)):
        pass
    folder.rmdir()
    with pytest.raises(CheckpointError), timed_load("nano"):
        raise CheckpointError("damaged")
    assert list(json.loads(cache.read_text())) == [str(folder)]
    with timed_load("nano"):
        pass
    assert list(json.loads(cache.read_text())) == ["nano"]


def test_the_first_guess_says_so_and_knows_loading_and_downloads():
    settings = Settings(num_inference_steps=4, ensemble_size=1)
    first = estimate("nano", settings, PHOTO_SIZE, None)
    assert not first.measured and first.download_bytes == 0
    assert first.seconds > 5  # nothing is loaded yet
    published = estimate("prs-eth/marigold-depth-never-fetched", settings, PHOTO_SIZE, None)
    assert published.download_bytes > 1e9
    assert published.seconds > 5 * first.seconds
    one_step = estimate("e2e-ft", Settings(), PHOTO_SIZE, None)
    assert one_step.download_bytes == NAMED["e2e-ft"].size_bytes
    assert one_step.seconds < estimate("v1-1", Settings(), PHOTO_SIZE, None).seconds
    with pytest.raises(CheckpointError):
        estimate(str(Path(__file__).parent), settings, PHOTO_SIZE, None)


def test_a_service_predicts_its_own_runs_within_a_factor_of_two(tiny_depth, tmp_path, photo, monkeypatch):
    """On the real pipeline: after the first run, a run of another length, in this process' own time."""
    monkeypatch.setattr(runtime_estimate, "perf_counter", time.process_time)
    service = Service(tmp_path / "results")
    checkpoint, picture = str(tiny_depth), photo(90, 120)

    def seconds(settings: Settings) -> float:
        began = time.process_time()
        list(service.run(picture, settings, checkpoint))
        return time.process_time() - began

    longer = Settings(num_inference_steps=8, ensemble_size=6)
    assert not service.estimate(longer, picture.shape[:2], checkpoint).measured
    seconds(Settings(num_inference_steps=4, ensemble_size=2))
    ratios = list[float]()
    for _ in range(4):  # threads that wait for a core that other tests hold count as work, so one moment says little
        found = service.estimate(longer, picture.shape[:2], checkpoint)
        assert found.measured
        ratios.append(found.seconds / seconds(longer))
    assert any(0.5 < ratio < 2 for ratio in ratios), ratios


def test_the_guess_grows_with_the_work():
    small = Runner("cpu", "float32", 16_000_000, 4, 192)
    large = replace(small, weight_bytes=2_600_000_000)
    assert guess(large, 0.4, 12).step_s > 50 * guess(small, 0.4, 12).step_s
    assert guess(small, 0.4, 12).decode_s > guess(small, 0.4, 1).decode_s
    assert guess(replace(large, device="cuda"), 0.4, 12).step_s < 0.1 * guess(large, 0.4, 12).step_s
