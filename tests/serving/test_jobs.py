"""One job in the model at a time, jobs that can be closed anywhere, results that make room for each other."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from marigold_core.errors import CheckpointError, ExportError, ImageError, SettingsError
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving import jobs
from marigold_core.serving.api.endpoints import ENDPOINTS
from marigold_core.serving.jobs import MAX_PIPELINES, Service, check_cost
from marigold_core.settings import ColourSettings, MeshSettings, ResolvedSettings, Settings
from tests.helpers.clips import write_clip
from tests.helpers.damage import failing
from tests.helpers.predictions import prediction_of

PHOTO = np.full((32, 40, 3), 120, np.uint8)
LONG = Settings(num_inference_steps=50)


class SlowPipeline:
    """Counts the jobs inside; a step takes ``step_s``."""

    device, dtype = torch.device("cpu"), torch.float32
    checkpoint = SimpleNamespace(size_bytes=10**6, default_steps=4, default_resolution=64)

    def __init__(self, step_s: float = 0.01) -> None:
        self.step_s, self.inside, self.most, self.steps = step_s, 0, 0, 0
        self.lock = threading.Lock()

    def resolve(self, settings: Settings | None, hints: None = None) -> ResolvedSettings:
        return (settings or Settings()).resolved(4, 64)

    def stream(
        self, photo: Any, settings: ResolvedSettings, start: object, hints: None = None
    ) -> Iterator[Progress | Prediction]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            for done in range(settings.num_inference_steps):
                time.sleep(self.step_s)
                self.steps += 1
                yield Progress(done + 1, settings.num_inference_steps, "denoising")
            yield prediction(float(photo.pixels[0, 0, 0]) / 255)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def white(tmp_path: Path) -> Path:
    """A photo in a file."""
    Image.new("RGB", (40, 32), "white").save(path := tmp_path / "white.png")
    return path


def prediction(value: float = 0.5, size: int = 32) -> Prediction:
    return prediction_of(np.linspace(0, value, size * size).reshape(size, size))


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """``serve(load)`` makes a service with fake pipelines; ``load`` is one of them or makes one of a name."""

    def serve(load: Any = None, **options: Any) -> Any:
        made = load or SlowPipeline()
        loader: Any = made if callable(made) else lambda name: made
        return Service(tmp_path, loader=loader, **options)

    return serve


def finishes(service: Any, checkpoint: str = "fake") -> bool:
    return isinstance(list(service.run(PHOTO, Settings(), checkpoint))[-1], Prediction)


def test_yields_progress_then_the_prediction(serve):
    events = list(serve().run(PHOTO, Settings(num_inference_steps=3), "fake"))
    assert [event.done for event in events if isinstance(event, Progress) and event.total] == [1, 2, 3]
    assert isinstance(events[-1], Prediction)


def test_one_job_at_a_time_and_every_job_gets_its_own_result(serve):
    service, results = serve(pipeline := SlowPipeline()), dict[int, float]()

    def job(number: int) -> None:
        photo = np.full((32, 32, 3), number * 20, np.uint8)
        results[number] = list(service.run(photo, Settings(), "fake"))[-1].values.max()

    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipeline.most == 1
    assert results == pytest.approx({number: number * 20 / 255 for number in range(8)})


def test_closing_stops_before_the_next_step_and_frees_the_model(serve):
    service = serve(pipeline := SlowPipeline())
    for after in range(1, 6):
        job = service.run(PHOTO, LONG, "fake")
        seen = 0
        while seen < after:
            seen += next(job).total > 0
        before = pipeline.steps
        job.close()
        assert pipeline.steps == before
        assert pipeline.inside == 0
    assert finishes(service)


def test_a_waiting_job_can_be_closed(serve):
    service = serve()
    first = service.run(PHOTO, LONG, "fake")
    while next(first).total == 0:
        pass
    second = service.run(PHOTO, Settings(), "fake")
    assert "waiting" in next(second).stage
    second.close()
    first.close()
    assert finishes(service)


def test_a_failed_job_frees_the_model(serve):
    class Broken(SlowPipeline):
        def stream(self, photo, settings, start=None, hints=None):
            yield Progress(1, 2, "denoising")
            raise ZeroDivisionError

    service = serve({"broken": Broken(), "fake": SlowPipeline()}.__getitem__)
    with pytest.raises(ZeroDivisionError):
        list(service.run(PHOTO, Settings(), "broken"))
    assert finishes(service)


def test_a_device_that_is_lost_ends_the_server(tmp_path: Path) -> None:
    class Failing(SlowPipeline):
        faults = [RuntimeError("another fault"), torch.AcceleratorError("CUDA error: device-side assert triggered")]

        def stream(self, photo, settings, start=None, hints=None):
            yield Progress(1, 2, "denoising")
            raise self.faults.pop(0)

    failing, ended = Failing(), list[bool]()
    loader: Any = {"fake": failing}.__getitem__
    service = Service(tmp_path, loader=loader, device_lost=lambda: ended.append(True))
    for ends in ([], [True]):
        with pytest.raises(RuntimeError):
            list(service.run(PHOTO, Settings(), "fake"))
        assert ended == ends


def test_a_bad_photo_is_refused_before_anything_is_loaded(serve):
    loaded = []
    with pytest.raises(ImageError):
        next(serve(lambda name: loaded.append(name) or SlowPipeline()).run(b"not a photo", Settings(), "fake"))
    assert loaded == []


def test_a_failed_load_is_told_and_tried_again(serve):
    attempts = []

    def load(name: str) -> SlowPipeline:
        attempts.append(name)
        if len(attempts) == 1:
            raise CheckpointError("The hub cannot be reached.")
        return SlowPipeline()

    service = serve(load)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        finishes(service)
    assert finishes(service)


def test_a_job_that_waits_for_a_load_can_be_closed(serve):
    gate = threading.Event()
    job = serve(lambda name: gate.wait(20) and SlowPipeline()).run(PHOTO, Settings(), "fake")
    assert "loading" in next(job).stage
    job.close()
    gate.set()


def test_few_pipelines_are_kept_and_each_is_loaded_once(serve):
    loaded = []
    service = serve(lambda name: loaded.append(name) or SlowPipeline())
    names = [str(number) for number in range(MAX_PIPELINES + 1)]
    for name in [*names, names[-1], names[0]]:
        service.warm(name).result(10)
    assert loaded == [*names, names[0]]


@pytest.mark.parametrize(
    ("steps", "members", "resolution", "size", "fits"),
    [
        (50, 20, 1024, (768, 1024), True),
        (50, 20, 2048, (768, 1024), False),
        (50, 2, 0, (6000, 9000), False),
        (1, 1, 0, (6000, 9000), True),
    ],
)
def test_a_job_too_large_for_everybody_else_is_refused(steps, members, resolution, size, fits):
    settings = Settings(ensemble_size=members).resolved(steps, resolution)
    if fits:
        check_cost(settings, size)
    else:
        with pytest.raises(SettingsError, match="too much"):
            check_cost(settings, size)


def test_results_are_kept_apart_and_make_room(serve, tmp_path):
    each = prediction(size=32).values.nbytes + prediction(size=32).photo.nbytes
    service = serve(kept_bytes=3 * each)
    keys = [service.keep(prediction(0.1 * number)) for number in range(1, 4)]
    service.export(keys[1], ["npy"])
    assert (tmp_path / keys[1]).exists()
    for number in (2, 0):  # what is used stays
        assert service.prediction(keys[number]).values.max() == pytest.approx(0.1 * (number + 1))
    service.keep(prediction(0.9))
    with pytest.raises(ExportError, match="no longer kept"):
        service.prediction(keys[1])
    assert not (tmp_path / keys[1]).exists()
    assert service.prediction(keys[0]).values.max() == pytest.approx(0.1)
    assert len(set(keys)) == 3 and all(len(key) == 32 for key in keys)


def test_a_result_takes_the_place_of_one_before_it_under_the_same_id(serve, tmp_path):
    service = serve()
    other, first = service.keep(prediction(0.1)), service.keep(prediction(0.2))
    before = service.export(first, ["npy"])["npy"]
    assert service.keep(same := prediction(0.3), first) == first
    assert service.keeps(other) and service.prediction(first) is same
    after = service.export(first, ["npy"])["npy"]
    assert np.load(before).max() == np.float32(0.2)  # somebody may be reading it
    assert np.load(after).max() == np.float32(0.3) and after.parent != before.parent
    assert service.keep(same) == first  # the very same object
    service = serve(kept_bytes=1)  # one result is always kept
    gone, _ = service.keep(prediction(0.1)), service.keep(prediction(0.2))
    assert service.keep(prediction(0.4), gone) == gone and service.keeps(gone)


def test_exports_are_made_once_for_each_choice(serve):
    service = serve()
    key = service.keep(prediction())
    first = service.export(key, ["color"])["color"]
    stamp = first.stat().st_mtime_ns
    assert service.export(key, ["color"])["color"] == first
    assert first.stat().st_mtime_ns == stamp
    other = service.export(key, ["color"], colours=ColourSettings(colormap="gray"))["color"]
    assert other.read_bytes() != first.read_bytes()
    wide = service.export(key, ["glb"], MeshSettings(fov_x_deg=100))["glb"]
    assert wide.read_bytes() != service.export(key, ["glb"])["glb"].read_bytes()


def test_an_unsuitable_format_is_refused_in_a_sentence(serve, tmp_path):
    service = serve()
    with pytest.raises(ExportError, match="3 or more members"):
        service.export(service.keep(prediction()), ["uncertainty"])
    service.close()
    assert not tmp_path.exists()


def test_a_run_made_again_has_the_recorded_type_where_the_device_is_of_its_kind(serve):
    class Typed(SlowPipeline):
        def __init__(self, dtype: str) -> None:
            super().__init__()
            self.dtype, self.device = getattr(torch, dtype), torch.device("cpu")

    loaded: list[Typed] = []

    def loader(name: str, dtype: str = "bfloat16") -> Typed:
        loaded.append(Typed(dtype))
        return loaded[-1]

    service = serve(loader)
    for device, recorded, used in (("cpu", "bfloat16", 0), ("cuda", "float16", 0), ("cpu", "float32", 1)):
        record = SimpleNamespace(device=device, dtype=recorded, torch_threads=None, hints=None)
        before = [pipe.steps for pipe in loaded]
        list(service.run(PHOTO, Settings(), "fake", record=record))
        assert loaded[used].steps == (before[used] if used < len(before) else 0) + 4
    assert [str(pipe.dtype) for pipe in loaded] == ["torch.bfloat16", "torch.float32"]


def test_large_photos_are_worked_on_two_at_a_time_and_small_ones_pass_them(
    serve: Serve, white: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So those that wait do not hold their decoded photos."""
    service, begun = serve(), list[int]()

    def job(number: int) -> Iterator[str]:
        begun.append(number)
        yield "begun"
        yield "over"

    monkeypatch.setattr(jobs, "LARGE_PIXELS", 40 * 32 - 1)
    waiting = [service.admit([white], job(number)) for number in range(4)]
    assert [next(waiting[0]), next(waiting[1])] == ["begun", "begun"]
    assert [next(waiting[number]).stage for number in (2, 3)] == [
        f"waiting: {count} jobs are before this one" for count in (2, 3)
    ]
    (no_photo := white.with_name("no photo")).write_bytes(b"no photo")
    assert list(service.admit([no_photo], job(9))) == ["begun", "over"]
    waiting[2].close()
    assert list(waiting[0])[-1] == "over" and begun == [0, 1, 9]
    assert list(waiting[3])[-1] == "over" and begun == [0, 1, 9, 3]


def test_every_way_to_a_photo_waits_for_its_room(
    serve: Serve, white: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    monkeypatch.setattr(jobs, "LARGE_PIXELS", 40 * 32 - 1)
    held = [service.admit([white], iter([1, 2])) for _ in range(2)]
    assert [next(one) for one in held] == [1, 1]
    monkeypatch.setattr(jobs, "load_photo", failing(AssertionError("it is decoded")))
    for endpoint in ENDPOINTS:
        answers: Any = endpoint.answers(service, endpoint.read({next(iter(endpoint.files)): white}))
        if endpoint.name != "video":
            assert next(answers) == {"progress": "waiting: 2 jobs are before this one"}, endpoint.name
        answers.close()
    _, batch = service.begin_batch([white], Settings(), "nano", ["npy"], None)
    events = service.run_batch(batch)
    assert next(events).stage == "white: waiting: 2 jobs are before this one"
    events.close()
    kept = service.keep(prediction(0.5))
    monkeypatch.setattr(jobs, "LARGE_PIXELS", service.prediction(kept).photo[..., 0].size - 1)
    later: Any = service.admit([], iter([1]), kept)
    assert next(later).stage == "waiting: 2 jobs are before this one"


@pytest.mark.parametrize("kind", ["npy", "png", "tiff", "exr", "two parts", "window", "channels", "clip"])
def test_what_holds_as_much_as_a_large_photo_waits_as_well(
    kind: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A depth map may be large beside a small photo, and so may the frames of a clip."""
    monkeypatch.setattr(jobs, "LARGE_PIXELS", 40 * 32 - 1)
    values, small = np.arange(40 * 32, dtype=np.float32).reshape(40, 32), np.eye(4)
    file = tmp_path / ("clip.mp4" if kind == "clip" else "file")
    part: Any = OpenEXR.Part
    header = {"type": OpenEXR.scanlineimage}
    window = {"displayWindow": (np.zeros(2, np.int32), np.array([31, 39], np.int32))}
    if kind == "npy":
        with file.open("wb") as open_file:
            np.save(open_file, values)
    elif kind in ("png", "tiff"):
        Image.fromarray(values.astype(np.uint16)).save(file, kind)
    elif kind == "clip":
        write_clip(file, [np.zeros((32, 40, 3), np.uint8)] * 3)
    elif kind == "two parts":
        few, many = ({"Z": one.astype(np.float32)} for one in (small, values))
        OpenEXR.File([part(header | window, few, "a"), part(header | window, many, "b")]).write(str(file))
    elif kind == "window":
        OpenEXR.File({**header, **window}, {"Z": small.astype(np.float32)}).write(str(file))
    elif kind == "channels":
        channels = {f"c{number}": np.zeros((8, 8), np.float32) for number in range(160)}  # 8 count as a pixel
        OpenEXR.File(header, channels).write(str(file))
    else:
        OpenEXR.File(header, {"Z": values}).write(str(file))
    service = serve()
    held = [service.admit([file], iter([1, 2])) for _ in range(2)]
    assert [next(one) for one in held] == [1, 1]
    waiting: Any = service.admit([file], iter([1]))
    assert next(waiting).stage == "waiting: 2 jobs are before this one"
    monkeypatch.setattr(jobs, "LARGE_PIXELS", 40 * 32)
    assert list(service.admit([file], iter([1]))) == [1]


def test_files_of_large_results_are_written_one_result_at_a_time(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, inside, most = serve(), list[int](), list[int]()

    def slow(made: Prediction, folder: Path, *_: object, **__: object) -> dict[str, Path]:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return {}

    monkeypatch.setattr("marigold_core.files.writers.save", slow)
    for limit, expected in ((0, 1), (jobs.LARGE_PIXELS, 2)):
        most.clear()
        monkeypatch.setattr(jobs, "LARGE_PIXELS", limit)
        keys = [service.keep(prediction(level)) for level in (0.1, 0.2)]
        threads = [threading.Thread(target=service.export, args=(key, ["npy"])) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == expected


def test_a_photo_of_a_batch_gives_its_place_up_when_its_files_are_written(
    serve: Serve, white: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LARGE_PIXELS", 40 * 32 - 1)
    service, held = serve(), list[int]()
    monkeypatch.setattr(jobs.Batch, "finish", lambda *_: held.append(len(service._large._turns)))
    _, batch = service.begin_batch([white], Settings(num_inference_steps=1), "nano", ["npy"], None)
    list(service.run_batch(batch))
    assert held == [1] and not service._large._turns
