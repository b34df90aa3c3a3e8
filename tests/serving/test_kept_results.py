"""Results on the disk: known to every process by their id alone, for an hour, and read back as they were."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from marigold_core.calibration.anchors import Anchor, Length
from marigold_core.calibration.calibrate import Completed, Hints, calibrate
from marigold_core.calibration.plane_fit import Patch
from marigold_core.errors import ExportError
from marigold_core.prediction import Prediction
from marigold_core.serving import kept, results
from marigold_core.serving.api.endpoints import ENDPOINT_OF
from marigold_core.serving.jobs import Service
from marigold_core.serving.work_folder import KEPT_S, LEFT_S, RESULTS, Janitor
from marigold_core.settings import DepthReading, Settings
from tests.helpers.predictions import layers_of, prediction_of
from tests.helpers.sweeps import sweep_of

DEPTH = np.linspace(0, 1, 24 * 32).reshape(24, 32)
HINTS = Hints(anchors=(Anchor(3, 3, 2.0), Anchor(20, 20, 5.0)), lengths=(Length(1, 1, 9, 9, 1.0),), fov_x_deg=60.0)


def depth() -> Prediction:
    members = np.stack([DEPTH] * 3).astype(np.float16)
    return prediction_of(DEPTH, uncertainty=(DEPTH / 9).astype(np.float32), members=members, fov_x_deg=55.5)


def completed() -> Prediction:
    made: dict[str, Any] = vars(depth()) | {"kind": "metric"}
    hints = Hints(patches=(Patch(((1.0, 2.0), (3.0, 4.0), (5.0, 1.0))),), near_m=2.0, method="completion")
    return Completed(**made, hints=hints, residuals=(), relative=depth())


@pytest.mark.parametrize(
    "made",
    [
        depth(),
        layers_of(8, 8),
        calibrate(depth(), HINTS),
        completed(),
        prediction_of(DEPTH, settings=DepthReading(unit_m=0.001), missing=DEPTH > 0.5, given_size=(48, 64), note="é"),
    ],
    ids=["depth", "layers", "calibrated", "completed", "given"],
)
def test_a_prediction_is_read_back_as_it_was(made: Prediction, tmp_path: Path) -> None:
    kept.write(made, tmp_path / "a" / "result.npz")
    assert kept.read(tmp_path / "a" / "result.npz", Prediction) == made
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result.npz"]


def test_nothing_is_unpickled_and_no_other_type_is_made(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    for told in ({"type": "Popen", "args": "true"}, {"type": "Hints", "no": 1}, {"array": 7}, "{", [1]):
        text = told if isinstance(told, str) else json.dumps(told)
        np.savez(path, text=np.frombuffer(text.encode(), np.uint8))
        with pytest.raises(ExportError, match="missing or damaged"):
            kept.read(path, Prediction)
    np.savez(path, text=np.array([print], dtype=object))  # is pickled
    with pytest.raises(ExportError, match="missing or damaged"):
        kept.read(path, Prediction)
    path.write_bytes(b"PK no archive")
    with pytest.raises(ExportError, match="missing or damaged"):
        kept.read(path, Prediction)


def test_another_process_and_a_later_one_know_a_result_by_its_id(tmp_path: Path) -> None:
    one, other = Service(tmp_path), Service(tmp_path)
    key = one.keep(depth())
    assert not other.keeps(key)
    one.persist(key)
    assert other.keeps(key) and other.prediction(key) == depth()
    assert np.array_equal(np.load(other.export(key, ["npy"])["npy"]), depth().values)
    later = Service(tmp_path)
    assert later.keep(later.prediction(key)) == key  # the same result, not another one
    one.keep(calibrate(depth(), HINTS), key)  # is not persisted yet
    one.persist(key)
    assert Service(tmp_path).prediction(key).kind == "metric"


def test_what_another_process_has_written_since_is_what_counts(tmp_path: Path) -> None:
    """A visitor goes to another process and comes back."""
    one, other = Service(tmp_path), Service(tmp_path)
    key = one.keep(depth())
    one.persist(key)
    known = one.prediction(key)
    assert other.prediction(key) == known and one.prediction(key) is known  # a use changes nothing
    other.keep(calibrate(depth(), HINTS), key)
    other.persist(key)
    assert one.prediction(key).kind == "metric"
    one.keep(depth(), key)  # is on no disk yet, and counts here
    assert one.prediction(key).kind == "affine" and other.prediction(key).kind == "metric"


def test_another_process_goes_on_with_a_batch_where_the_first_one_was_killed(
    tmp_path: Path, folder: Path, write: Callable[..., Path], tiny_depth: Path
) -> None:
    files = [write(folder / name, seed=seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))]
    settings = Settings(num_inference_steps=1, processing_resolution=32)
    one, other = Service(tmp_path), Service(tmp_path)
    key, batch = one.begin_batch(files, settings, str(tiny_depth), ["npy"], None)
    events = one.run_batch(batch)
    while batch.photos[1].state != "running":  # in which the process is killed
        next(events)
    states = {photo.name: photo.state for photo in other.batch(key).photos}
    assert states == {"a": "done", "b": "waiting", "c": "waiting"}
    again, taken = other.begin_batch(files, settings, str(tiny_depth), ["npy"], key)
    assert again == key and taken == other.batch(key)
    made = batch.photos[0].files[0].stat().st_mtime_ns
    assert not [event for event in other.run_batch(taken) if event.stage.startswith("a:")]
    assert taken.photos[0].files[0].stat().st_mtime_ns == made
    assert one.batch(key) is batch  # as long as it is at it itself
    events.close()
    assert one.batch(key).count("done") == 3
    with ZipFile(Service(tmp_path).batch(key).archive()) as bundle:
        assert {name for name in bundle.namelist() if name.endswith(".npy")} == {f"{x}_depth.npy" for x in "abc"}
    with Image.open(taken.photos[2].picture or "") as picture:
        assert picture.size == (64, 24)


def test_a_comparison_is_known_to_another_process_with_its_figures_and_files(tmp_path: Path) -> None:
    one, other = Service(tmp_path), Service(tmp_path)
    sweep = sweep_of(4, seeds=(0, 5))
    key = one._comparisons.put(sweep)
    sweep.pin(1)
    one.persist_comparison(key)
    found = other.comparison(key)
    assert [row.record for row in found.rows()] == [row.record for row in sweep.rows()]
    assert (found.requested, found.done, found.pinned) == (sweep.requested, 4, 1)
    sheets = [[path.read_bytes() for path in service.export_comparison(key)] for service in (one, other)]
    assert sheets[0] == sheets[1]
    with pytest.raises(ExportError, match="no longer kept"):
        other.prediction(key)  # it is none


def test_the_disk_holds_a_batch_for_a_day_and_makes_room_for_others(tmp_path: Path) -> None:
    service = Service(tmp_path / RESULTS)
    _, batch = service.begin_batch([], Settings(), "nano", ["npy"], None)
    assert not list(service.run_batch(batch)) and (batch.folder / "batch.npz").exists()
    janitor = Janitor(tmp_path)
    for moment in (0.0, LEFT_S - 1):
        janitor.clear(moment)
    assert Service(tmp_path / RESULTS).batch(batch.folder.name).photos == []
    results.make_room(tmp_path / RESULTS, max_bytes=1)
    assert not batch.folder.exists()


@pytest.mark.parametrize("key", ["../secret", "", "0" * 31, "0" * 33, "G" * 32, "/etc/passwd", None, 7, ["a"]])
def test_what_is_no_id_is_no_result(key: object, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    kept.write(depth(), tmp_path / "secret" / "result.npz")
    assert not Service(tmp_path / "results").keeps(key)


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "\0", "\ud800", "a" * 300])
def test_asking_for_what_is_no_id_changes_nothing(key: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    os.utime(secret, (5, 5))
    with pytest.raises(ExportError, match="no longer kept"):
        Service(tmp_path / "results").prediction(key)
    assert secret.stat().st_mtime == 5


def test_ids_cannot_be_guessed(tmp_path: Path) -> None:
    service = Service(tmp_path)
    keys = {service.keep(prediction_of(DEPTH)) for _ in range(50)}
    assert len(keys) == 50 and all(len(bytes.fromhex(key)) == 16 for key in keys)


def test_a_result_that_memory_has_no_room_for_is_read_from_the_disk(tmp_path: Path) -> None:
    service = Service(tmp_path, kept_bytes=1)
    first, second = service.keep(depth()), service.keep(layers_of(8, 8))
    assert not service.keeps(first)  # it was not persisted
    service.persist(second)
    service.keep(depth())
    assert service.prediction(second) == layers_of(8, 8)


def test_after_an_hour_without_use_a_result_is_removed(tmp_path: Path) -> None:
    service = Service(tmp_path / RESULTS)
    keys = [service.keep(prediction_of(DEPTH)) for _ in range(4)]
    for key in keys[:3]:
        service.persist(key)
    service.export(keys[3], ["npy"])  # of a result in memory alone
    janitor, later = Janitor(tmp_path), Service(tmp_path / RESULTS)
    janitor.clear(0)
    os.utime(tmp_path / RESULTS / keys[0] / "result.npz", (5, 5))
    service.prediction(keys[0])  # is a use
    janitor.clear(KEPT_S - 60)
    assert all(later.keeps(key) for key in keys[:3])
    janitor.clear(KEPT_S)
    assert [later.keeps(key) for key in keys] == [True, False, False, False]
    assert service.export(keys[3], ["npy"])["npy"].exists()
    janitor.clear(LEFT_S + KEPT_S)
    janitor.clear(2 * LEFT_S + KEPT_S)
    assert not list((tmp_path / RESULTS).iterdir())


def test_the_longest_unused_result_makes_room_on_the_disk(tmp_path: Path) -> None:
    service = Service(tmp_path)
    keys = [service.keep(prediction_of(DEPTH)) for _ in range(2)]
    for second, key in enumerate(keys):
        service.persist(key)
        os.utime(tmp_path / key, (second, second))
    results.make_room(tmp_path, max_bytes=os.path.getsize(tmp_path / keys[0] / "result.npz"))
    assert [path.name for path in tmp_path.iterdir()] == [keys[1]]
    results.make_room(tmp_path / "not there")


def test_files_of_a_call_stay_whatever_others_call_for(tiny_depth: Path, picture: Path, tmp_path: Path, monkeypatch):
    """They are not those of results in memory, which make room for each other."""
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    service, endpoint = Service(tmp_path, kept_bytes=1), ENDPOINT_OF["predict_depth"]
    given = endpoint.read({"photo": str(picture), "num_inference_steps": 1})
    answers: list[Any] = [list(endpoint.answers(service, given))[-1] for _ in range(3)]
    assert all(Path(answer["npy"]["path"]).exists() for answer in answers)
    service.close()


def test_files_of_calls_make_room_too_the_oldest_first(tmp_path: Path) -> None:
    service, moment = Service(tmp_path), 100
    folders = [service.new_folder() for _ in range(3)]
    for folder in folders:
        for name in ("frames/0.png", "table.csv"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"0" * 10)
        os.utime(folder / "table.csv", (moment, moment := moment + 1))
        for place in (folder / "frames", folder):
            os.utime(place, (5, 5))
    os.utime(folders[0] / "frames" / "0.png", (10**9, 10**9))  # it is written still
    for folder in folders[1:]:
        os.utime(folder / "frames" / "0.png", (5, 5))
    results.make_room(tmp_path, max_bytes=45)
    assert sorted(tmp_path.iterdir()) == sorted([folders[0], folders[2]])


def test_files_that_were_removed_are_written_again(tmp_path: Path) -> None:
    service = Service(tmp_path)
    key = service.keep(depth())
    service.export(key, ["npy"])["npy"].unlink()
    assert service.export(key, ["npy"])["npy"].exists()


def test_a_full_disk_is_one_sentence_and_the_result_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    service = Service(tmp_path)
    key = service.keep(depth())
    monkeypatch.setattr(kept, "np", SimpleNamespace(**vars(np) | {"savez": full}))
    with pytest.raises(ExportError, match="^The disk is full [^/]*$"):
        service.persist(key)
    monkeypatch.undo()
    assert service.prediction(key) == depth() and not list(tmp_path.rglob("*.*"))
