"""What uploads that broke off and visits that ended leave behind is cleared, and nothing else."""

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from marigold_core.serving import work_folder
from marigold_core.serving.work_folder import BROKEN_OFF_S, KEPT_S, RESULTS, Janitor
from marigold_core.ui.api.requests import waiting_files
from tests.helpers.app_server import serve

HASH = "ab" * 32


def left_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_lies_unchanged_goes_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "somebody else's").write_bytes(b"0")
    janitor = Janitor(tmp_path)
    for name in (f"{RESULTS}/batch/a.png", f"{HASH}/photo.jpg", "video/unfinished/maps", "tmpupload", "manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "empty").mkdir()
    everything = left_in(tmp_path)
    janitor.clear(0)
    janitor.clear(BROKEN_OFF_S - 1)
    assert left_in(tmp_path) == everything and (tmp_path / "empty").exists()
    janitor.clear(BROKEN_OFF_S)
    assert left_in(tmp_path) == [name for name in everything if name != "tmpupload"]
    assert not (tmp_path / "empty").exists()

    os.utime(tmp_path / "video" / "unfinished" / "maps", (5, 5))  # a frame was added
    janitor.clear(KEPT_S - 1)
    janitor.clear(KEPT_S)
    assert left_in(tmp_path) == [f"{RESULTS}/batch/a.png", "somebody else's", "video/unfinished/maps"]
    janitor.clear(2 * KEPT_S - 1)
    janitor.clear(3 * KEPT_S)  # a second time finds nothing
    assert left_in(tmp_path) == [f"{RESULTS}/batch/a.png", "somebody else's"]


def test_what_another_process_put_there_goes_too_unless_that_says_that_it_is_in_use(tmp_path: Path) -> None:
    for name in (HASH, "cd" * 32):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").write_bytes(b"0")
        os.utime(tmp_path / name, (5, 5))
    ours, other = Janitor(tmp_path), Janitor(tmp_path, [tmp_path / HASH / "photo.jpg"])
    ours.clear(0)
    other.clear(KEPT_S - 1)
    ours.clear(KEPT_S)
    assert left_in(tmp_path) == [f"{HASH}/photo.jpg"]


def test_a_clip_of_a_process_that_has_ended_goes_too(tmp_path: Path) -> None:
    (tmp_path / HASH[:32] / "unfinished").mkdir(parents=True)
    (tmp_path / HASH[:32] / "unfinished" / "maps").write_bytes(b"0")
    janitor = Janitor(tmp_path)
    janitor.clear(0)
    janitor.clear(KEPT_S - 1)
    assert left_in(tmp_path)
    janitor.clear(KEPT_S)
    assert not [*tmp_path.iterdir()]


def test_the_photo_of_a_call_that_waits_for_hours_stays(tmp_path: Path) -> None:
    for name in (HASH, "cd" * 32):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").write_bytes(b"0")
        os.utime(tmp_path / name, (5, 5))
    waiting = [{"path": str(tmp_path / HASH / "photo.jpg")}, 4, None]
    event = SimpleNamespace(data=SimpleNamespace(data=waiting), fn=SimpleNamespace(api_name="predict_depth"))
    others = (
        SimpleNamespace(data=None, fn=event.fn),
        SimpleNamespace(data=SimpleNamespace(data=[{"path": "a\0"}]), fn=SimpleNamespace(api_name="on_run")),
        SimpleNamespace(data=SimpleNamespace(data=[{"path": "https://example.org/temple.jpg"}]), fn=event.fn),
    )
    queue = SimpleNamespace(event_ids_to_events=dict(enumerate((event, *others))))
    janitor = Janitor(tmp_path, (), lambda: waiting_files(SimpleNamespace(_queue=queue)))
    janitor.clear(0)
    janitor.clear(KEPT_S)
    assert left_in(tmp_path) == [f"{HASH}/photo.jpg"]
    queue.event_ids_to_events.clear()  # it is done
    janitor.clear(KEPT_S + 1)
    janitor.clear(3 * KEPT_S)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("jump_s", [-3600, 3 * 3600, 10 * 365 * 86400])
def test_a_clock_that_jumps_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """The photo of a job that waits stays there."""
    janitor = Janitor(tmp_path)
    (tmp_path / HASH).mkdir()
    (tmp_path / HASH / "photo.jpg").write_bytes(b"0")
    janitor.clear(0)
    moment = time.time() + jump_s
    monkeypatch.setattr(time, "time", lambda: moment)
    janitor.clear(60)
    assert left_in(tmp_path) == [f"{HASH}/photo.jpg"]


def test_a_file_that_goes_while_it_is_looked_at_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    janitor = Janitor(tmp_path)
    (tmp_path / "tmplink").symlink_to(tmp_path / "nowhere")
    (tmp_path / "tmpfile").write_bytes(b"")
    janitor.clear(0)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(FileNotFoundError(self)))
    janitor.clear(2 * KEPT_S)


@pytest.mark.slow
def test_an_upload_that_breaks_off_leaves_what_is_cleared(tiny_depth: Path, tmp_path: Path) -> None:
    """If a later Gradio names its files otherwise, this tells."""
    with serve(str(tiny_depth), tmp_path) as address:
        host, port = address.removeprefix("http://").split(":")
        folder = tmp_path / "work"
        httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"0" * 100)})
        janitor, before = Janitor(folder), set(folder.rglob("*"))
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="b.png"\r\n\r\n'
        for size in (1, 100_000, 2_000_000):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(
                    b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + b"0" * size
                )
                deadline = time.monotonic() + 30
                while len(set(folder.rglob("*")) - before) == 0 and time.monotonic() < deadline:
                    time.sleep(0.05)
            httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"0" * 100)})
        assert set(folder.rglob("*")) - before
        janitor.clear(0)
        janitor.clear(BROKEN_OFF_S)
        assert set(folder.rglob("*")) == before


def test_a_full_disk_takes_no_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert work_folder.has_room(tmp_path)
    free = work_folder.shutil.disk_usage(tmp_path)._replace(free=work_folder.LEAST_FREE_BYTES - 1)
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda folder: free)
    assert not work_folder.has_room(tmp_path)
