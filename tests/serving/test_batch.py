"""Many photos in one go: each done once, those that fail named, nothing of it in memory."""

import shutil
import threading
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from marigold_core import ExportError, ImageError, Settings, SettingsError, storage
from marigold_core.serving import batch as batches
from marigold_core.serving.batch import Batch
from marigold_core.serving.jobs import Service
from marigold_core.storage import write_bytes

QUICK = Settings(num_inference_steps=1, processing_resolution=32)


@pytest.fixture
def files(folder: Path, write) -> list[Path]:
    """Three photos, two of one name, and a file that is none."""
    (folder / "bad.jpg").write_bytes(b"no photo")
    photos = [write(folder / name, seed=number) for number, name in enumerate(("a.png", "b/A.png", "c.png"))]
    return [photos[0], folder / "bad.jpg", *photos[1:]]


def states(batch: Batch) -> dict[str, str]:
    return {photo.name: photo.state for photo in batch.photos}


def test_a_stopped_batch_goes_on_with_what_is_not_done(service: Service, files: list[Path], tiny_depth: Path) -> None:
    key, batch = service.begin_batch(files, QUICK, str(tiny_depth), ["npy"], None)
    events = service.run_batch(batch)
    next(event for event in events if event.stage.startswith("A-2:"))
    assert states(batch) == {"a": "done", "bad": "failed", "A-2": "running", "c": "waiting"}
    events.close()
    assert states(batch) == {"a": "done", "bad": "failed", "A-2": "waiting", "c": "waiting"}
    assert batch.seconds_left is not None and batch.seconds_left > 0
    first = batch.photos[0].files[0]
    made = first.stat().st_mtime_ns

    again, same = service.begin_batch(files[:3], QUICK, str(tiny_depth), ["npy"], key)
    assert (again, same) == (key, batch) and len(batch.photos) == 4
    stages = [event.stage for event in service.run_batch(batch)]
    assert not any(stage.startswith("a:") for stage in stages) and first.stat().st_mtime_ns == made
    assert states(batch) == {"a": "done", "bad": "failed", "A-2": "done", "c": "done"}
    assert batch.photos[1].reason.startswith("This is not a photo that can be read")
    with ZipFile(batch.archive()) as bundle:
        assert {name for name in bundle.namelist() if name.endswith("npy")} == {
            f"{x}_depth.npy" for x in ("a", "A-2", "c")
        }
    expected = service.warm(str(tiny_depth)).result()(files[0], QUICK)
    np.testing.assert_array_equal(np.load(first), expected.values)
    with Image.open(batch.photos[0].picture or "") as picture:
        assert picture.size == (64, 24)


def test_two_pages_at_one_batch_do_each_photo_once(service: Service, files: list[Path], tiny_depth: Path) -> None:
    key, batch = service.begin_batch(files, QUICK, str(tiny_depth), ["npy"], None)
    first = service.run_batch(batch)
    next(event for event in first if event.stage.startswith("A-2:"))
    second = service.run_batch(service.begin_batch(files, QUICK, str(tiny_depth), ["npy"], key)[1])
    assert "another page" in next(second).stage and "another page" in next(second).stage
    assert states(batch) == {"a": "done", "bad": "failed", "A-2": "running", "c": "waiting"}
    first.close()  # it is stopped there, so that this one does what is left, and not again what could not be done
    assert {event.stage.partition(":")[0] for event in second} == {"A-2", "c"}
    assert states(batch) == {"a": "done", "bad": "failed", "A-2": "done", "c": "done"}

    third = list(service.run_batch(batch))  # asked for anew
    assert [event.stage.partition(":")[0] for event in third] == ["bad"]


def test_other_settings_are_another_batch(service: Service, files: list[Path], tiny_depth: Path) -> None:
    key, batch = service.begin_batch(files[:1], QUICK, str(tiny_depth), ["npy"], None)
    other, begun = service.begin_batch(files[:1], QUICK.changed(seed=1), str(tiny_depth), ["npy"], key)
    assert other != key and begun is not batch and service.batch(key) is batch


def test_a_batch_keeps_its_photos_though_the_uploads_go(service: Service, files: list[Path], tiny_depth: Path) -> None:
    _, batch = service.begin_batch(files[:1], QUICK, str(tiny_depth), ["color"], None)
    files[0].unlink()
    for _ in service.run_batch(batch):
        pass
    assert states(batch) == {"a": "done"} and batch.size_bytes > sum(
        path.stat().st_size for path in batch.photos[0].files
    )


def test_what_a_batch_refuses(service: Service, files: list[Path], tiny_depth: Path, monkeypatch) -> None:
    monkeypatch.setattr(batches, "MAX_PHOTOS", 2)
    with pytest.raises(SettingsError, match="up to 2 photos"):
        service.begin_batch(files, QUICK, str(tiny_depth), ["npy"], None)
    _, batch = service.begin_batch(files[:1], QUICK, str(tiny_depth), ["npy"], None)
    with pytest.raises(ImageError, match="No photo is done yet"):
        batch.archive()
    with pytest.raises(ExportError, match="no longer kept"):
        service.batch("unknown")


def test_what_is_renamed_while_a_folder_is_counted_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(b"0" * 100)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            write_bytes(tmp_path / "deep" / "other", b"0" * 10)
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)
            (tmp_path / "gone" / "deep").mkdir(parents=True)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        sizes = {Batch(tmp_path, Settings(), "", ()).size_bytes for _ in range(2000)}
    finally:
        done.set()
        writing.join()
    assert sizes <= {100, 110, 120}
    assert storage.size_of(tmp_path / "nowhere") == 0
