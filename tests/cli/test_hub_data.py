"""Photos of a data set on the hub, hf://, as a server of this machine speaks for it, by the real client."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from marigold_core import cli
from tests.helpers.command_line import fingerprints, fresh, predicting

API, FILES = "/api/datasets/owner/name", "/datasets/owner/name/resolve/main/"
pytestmark = pytest.mark.slow


class _Hub(BaseHTTPRequestHandler):
    """Serves the folder of its ``server`` as the data set owner/name."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        file, (tree, _, below) = self.server.folder / path.removeprefix(FILES), path.partition("/tree/main")
        if path.startswith(FILES) and file.is_file():
            content = file.read_bytes()
            self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": "0" * 40})
        elif tree == API and path != API and (top := self.server.folder / below.strip("/")).is_dir():
            found = top.rglob("*") if "recursive=true" in query.lower() else top.iterdir()
            self._send(200, json.dumps([self._entry(one) for one in sorted(found)]).encode())
        elif path == API or path == f"{API}/revision/main":
            self._send(200, json.dumps({"id": "owner/name", "sha": "0" * 40, "siblings": []}).encode())
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound" if path.startswith(API) else "RepoNotFound"})

    def _entry(self, path: Path) -> dict[str, Any]:
        content = path.read_bytes() if path.is_file() else b""
        kind, name = "file" if path.is_file() else "directory", path.relative_to(self.server.folder).as_posix()
        return {"type": kind, "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(folder: Path) -> Iterator[str]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.folder = folder
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_photos_of_a_data_set_are_those_of_a_folder(
    hub: str, folder: Path, out: Path, tmp_path: Path, tiny_depth: Path, write: Any
) -> None:
    for seed, name in enumerate(("photos/a.png", "photos/deep/b.png")):
        write(folder / name, seed=seed)
    (folder / "photos" / "notes.txt").write_text("no photo")

    def predict(source: object, target: Path) -> str:
        words = predicting(target, tiny_depth, source, "--formats", "npy")
        ended = fresh("-m", "marigold_core", *words, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
        assert ended.returncode == cli.ALL_DONE, ended.stderr
        return ended.stdout.splitlines()[-1]

    assert predict(folder / "photos", out) == "2 done"
    assert predict("hf://datasets/owner/name/photos", tmp_path / "there") == "2 done"
    assert fingerprints(tmp_path / "there") == fingerprints(out)
    assert predict("hf://datasets/owner/name/photos/*.png", tmp_path / "there") == "1 kept"
