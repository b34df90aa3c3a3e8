"""What uploads that broke off leave behind is cleared, and nothing else."""

import os
import socket
import time
from pathlib import Path

import httpx
import pytest

from marigold_core.serving import work_folder
from marigold_core.serving.work_folder import BROKEN_OFF_S, clear
from tests.helpers.app_server import serve


def aged(path: Path, seconds: float) -> Path:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def test_old_remains_go_and_the_rest_stays(tmp_path: Path) -> None:
    old, young = BROKEN_OFF_S + 5, BROKEN_OFF_S - 60
    for name in ("tmpold", "tmpyoung", "manifest.json"):
        (tmp_path / name).write_bytes(b"0" * 10)
    for name in ("empty", "emptied just now", "full", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "tmpphoto.jpg").write_bytes(b"0")
    for name in ("tmpold", "empty", "full", "manifest.json"):
        aged(tmp_path / name, old)
    for name in ("tmpyoung", "emptied just now"):
        aged(tmp_path / name, young)
    clear(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["emptied just now", "full", "full/tmpphoto.jpg", "manifest.json", "results", "tmpyoung"]
    clear(tmp_path)  # a second time finds nothing


def test_a_file_that_goes_while_it_is_looked_at_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmplink").symlink_to(tmp_path / "nowhere")
    (tmp_path / "tmpfile").write_bytes(b"")
    aged(tmp_path / "tmpfile", 2 * BROKEN_OFF_S)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(FileNotFoundError(self)))
    clear(tmp_path)


@pytest.mark.slow
def test_an_upload_that_breaks_off_leaves_what_is_cleared(tiny_depth: Path, tmp_path: Path) -> None:
    """If a later Gradio names its files otherwise, this tells."""
    with serve(str(tiny_depth), tmp_path) as address:
        host, port = address.removeprefix("http://").split(":")
        folder = tmp_path / "work"
        httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"0" * 100)})
        before = set(folder.rglob("*"))
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
        remains = set(folder.rglob("*")) - before
        assert remains
        for path in remains:
            aged(path, 2 * BROKEN_OFF_S)
        clear(folder)
        assert set(folder.rglob("*")) == before


def test_a_full_disk_takes_no_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert work_folder.has_room(tmp_path)
    free = work_folder.shutil.disk_usage(tmp_path)._replace(free=work_folder.LEAST_FREE_BYTES - 1)
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda folder: free)
    assert not work_folder.has_room(tmp_path)
