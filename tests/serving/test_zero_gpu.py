"""The page on a host that lends its GPU: the real program, with a stand-in for the host's package that forks."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError, ValidationError
from PIL import Image

from marigold_core import Settings, SettingsError, load
from marigold_core.serving import hosting
from tests.helpers import app_server

pytestmark = pytest.mark.slow
STAND_IN = Path(app_server.__file__).parent / "zero_gpu_host"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder through which the stand-in is told what to do and tells what it did."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def lent(
    host: Path, tiny_depth: Path, tiny_normals: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SPACES_ZERO_GPU", "true")
        environment.setenv("MARIGOLD_GPU_SECONDS", "600")
        environment.setenv("ZERO_GPU_FOLDER", str(host))
        environment.setenv("MARIGOLD_EXTRA_MODEL", str(tiny_normals))
        environment.setenv("PYTHONPATH", os.pathsep.join([str(STAND_IN), str(app_server.ROOT)]))
        with app_server.serve(str(tiny_depth), tmp_path_factory.mktemp("app")) as url:
            yield Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="module")
def picture(photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(photo(48, 64)).save(path)
    return path


def calls(host: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (host / "calls.jsonl").read_text().splitlines()]


def test_a_run_goes_through_the_worker_and_is_the_run_of_python(
    lent: Client, host: Path, picture: Path, tiny_depth: Path
) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 2, "ensemble_size": 3, "processing_resolution": 64, "seed": 7}
    answer = lent.predict(handle_file(picture), **settings, formats=["npy", "uncertainty"], api_name="/predict_depth")
    expected = load(tiny_depth)(picture, Settings(**settings))
    np.testing.assert_allclose(np.load(answer["npy"]), expected.values, atol=1e-4)
    (call,) = calls(host)
    assert call["task"] == "on_gpu" and call["exit"] == 0
    assert call["events"] >= 3 + 2 * 3  # a prediction a member, an event a step
    assert hosting.WORKER_START_S <= call["seconds"] <= 600


def test_a_comparison_is_one_call(lent: Client, host: Path, picture: Path) -> None:
    before = len(calls(host))
    options: dict[str, Any] = {"steps": [1, 2], "sizes": [1, 2], "processing_resolution": 64}
    lent.predict(handle_file(picture), **options, api_name="/compare")
    tasks = calls(host)[before:]
    assert 1 <= len(tasks) <= 2 and all(call["exit"] == 0 for call in tasks)  # one more where nothing was timed yet


def test_the_second_checkpoint_runs_and_no_third_is_offered(lent: Client, picture: Path, tiny_normals: Path) -> None:
    options: dict[str, Any] = {"processing_resolution": 64, "num_inference_steps": 1}
    answer = lent.predict(
        handle_file(picture), **options, checkpoint=str(tiny_normals), formats=["normals"], api_name="/predict_depth"
    )
    assert answer["manifest"]["modality"] == "normals"
    with pytest.raises(ValidationError, match="no checkpoint .nano. here"):
        lent.predict(handle_file(picture), **options, checkpoint="nano", api_name="/predict_depth")


def test_an_error_of_ours_comes_out_of_the_worker_whole(lent: Client, host: Path, picture: Path) -> None:
    before = len(calls(host))
    far = [[3, 4, 1.0], [60, 40, 1e30]]  # whose square is no float32, which shows when gradients are computed
    options: dict[str, Any] = {"anchors": far, "method": "completion", "num_inference_steps": 2}
    with pytest.raises(AppError, match="numbers that are not finite"):
        lent.predict(handle_file(picture), **options, processing_resolution=64, api_name="/calibrate")
    assert len(calls(host)) == before + 1


def test_a_completion_goes_through_the_worker(lent: Client, picture: Path) -> None:
    options: dict[str, Any] = {"anchors": [[3, 4, 1.0], [60, 40, 5.0]], "method": "completion", "formats": ["npy"]}
    answer = lent.predict(
        handle_file(picture), **options, num_inference_steps=2, processing_resolution=64, api_name="/calibrate"
    )
    depth_m = np.load(answer["npy"])
    np.testing.assert_allclose([depth_m[4, 3], depth_m[40, 60]], [1.0, 5.0], rtol=0.05)


@pytest.mark.parametrize(
    ("title", "message", "sentence"),
    [
        ("ZeroGPU queue timeout", "No GPU was available after 60s", "No GPU was free within a minute"),
        ("ZeroGPU quota exceeded", "(9s requested vs. 2s left). Try again in 0:10:00. ", "renewed in 0:10:00"),
        ("ZeroGPU illegal duration", "larger than the maximum allowed", "longer than you may"),
        ("ZeroGPU worker error", "GPU task aborted", "The host ended this run"),
    ],
)
def test_a_refusal_is_a_sentence_and_the_next_run_works(
    title: str, message: str, sentence: str, lent: Client, host: Path, picture: Path
) -> None:
    (host / "refusal.json").write_text(json.dumps({"title": title, "message": message}))
    options: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 64}
    with pytest.raises(AppError, match=sentence):
        lent.predict(handle_file(picture), **options, api_name="/predict_depth")
    lent.predict(handle_file(picture), **options, api_name="/predict_depth")


def test_a_stopped_run_ends_the_worker_before_it_is_through(lent: Client, host: Path, picture: Path) -> None:
    before = len(calls(host))
    options: dict[str, Any] = {"num_inference_steps": 50, "ensemble_size": 10, "processing_resolution": 64}
    job = lent.submit(handle_file(picture), **options, api_name="/predict_depth")
    for _ in job:  # the first sign of progress
        break
    job.cancel()
    lent.predict(handle_file(picture), num_inference_steps=1, processing_resolution=64, api_name="/predict_depth")
    stopped = calls(host)[before]
    assert stopped.get("stopped") and stopped["events"] < 500


def test_what_is_too_long_for_one_call_is_refused_before_it(
    tiny_depth: Path, photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=lambda duration: lambda task: task))
    monkeypatch.delitem(sys.modules, "marigold_core.serving.zero_gpu", raising=False)
    zero_gpu = importlib.import_module("marigold_core.serving.zero_gpu")
    pipe = zero_gpu.place([str(tiny_depth)], device="cpu")(str(tiny_depth))
    options = Settings(num_inference_steps=1, processing_resolution=64)
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", "600")
    *_, result = pipe.stream(photo(48, 64), options)
    assert result.values.shape == (48, 64)
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", "2")
    with pytest.raises(SettingsError, match="one run may have it for 2"):
        next(pipe.stream(photo(48, 64), options))
    with pytest.raises(SettingsError, match="one run may have it for 2"):
        next(pipe.stream_grid(photo(48, 64), [1, 2], [1, 2], [0], Settings(processing_resolution=64)))
