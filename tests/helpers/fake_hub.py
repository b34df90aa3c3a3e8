"""A hub on this machine that serves folders and fails on demand, spoken to by the real client."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves ``folders[hub_id]``; ``fault`` is None, a status, "hang", or the share of a file that is sent."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.revision = REVISION
        self.fault: int | float | str | None = None
        self.only = ""  # the fault strikes requests whose path contains this
        self.requests: list[str] = []
        self.pushed: dict[str, dict[str, bytes]] = {}  # files of each repository that was written to, by name
        self.private: dict[str, bool] = {}
        self.card_errors: list[str] = []  # what the hub finds wrong with the next model cards
        self.pause_at: int | None = None  # the request with this number is answered by half a body, then silence
        self.paused = threading.Event()
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, fault: int | float | str | None, only: str = "") -> None:
        """Fail from now on, or work again with None."""
        self.fault, self.only = fault, only

    def close(self) -> None:
        """Let hanging requests go and stop."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append(path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if hub.fault is not None and hub.only in path:
            self._send(int(hub.fault), b'{"error": "no"}', {})
            return
        if path == "/api/validate-yaml":
            found = {"errors": [{"message": message} for message in hub.card_errors], "warnings": []}
            self._send(400 if hub.card_errors else 200, json.dumps(found).encode(), {})
            return
        if path == "/api/repos/create":
            wanted = json.loads(body)
            hub_id = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            hub.private[hub_id] = bool(wanted.get("private") or wanted.get("visibility") == "private")
            self._send(200, json.dumps({"url": f"{hub.url}/{hub_id}"}).encode(), {})
            return
        hub_id, _, action = path.removeprefix("/api/models/").partition("/preupload/main")
        if action == "" and path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            self._send(200, json.dumps({"files": files}).encode(), {})
            return
        hub_id = path.removeprefix("/api/models/").removesuffix("/commit/main")
        stored = hub.pushed.setdefault(hub_id, {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                stored[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        made = {"success": True, "commitOid": hub.revision, "commitUrl": f"{hub.url}/{hub_id}/commit/{hub.revision}"}
        self._send(200, json.dumps(made).encode(), {})

    def _answer(self) -> None:
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.requests.append(path)
        pausing = hub.pause_at == len(hub.requests)
        struck = hub.fault is not None and hub.only in path
        if (struck and hub.fault == "hang") or (pausing and self.command == "HEAD"):
            self._fall_silent()
            return
        if struck and isinstance(hub.fault, int):
            self._send(hub.fault, b"{}", {"Retry-After": "0"} if hub.fault == 429 else {})
            return
        cut = hub.fault if struck and isinstance(hub.fault, float) else 1.0
        if path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/").partition("/revision/")[0], pausing)
            return
        hub_id, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        file = hub.folders.get(hub_id, Path("/nowhere")) / name
        if revision != hub.revision or not file.is_file():
            code = "EntryNotFound" if revision == hub.revision else "RevisionNotFound"
            self._send(404, b"", {"X-Error-Code": code})
            return
        body = file.read_bytes()
        sha256 = hashlib.sha256(body).hexdigest()
        headers = {"ETag": f'"{sha256}"', "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(body))}
        self._send(200, body, {**headers, "X-Repo-Commit": revision}, cut, pausing)

    def _fall_silent(self) -> None:
        self.hub.paused.set()
        self.hub.released.wait(20)
        self.close_connection = True

    def _listing(self, hub_id: str, pausing: bool) -> None:
        folder = self.hub.folders.get(hub_id)
        if folder is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                body = path.read_bytes()
                entry = {"rfilename": path.relative_to(folder).as_posix(), "size": len(body), "blobId": "0" * 40}
                if path.suffix == ".safetensors":
                    sha256 = hashlib.sha256(body).hexdigest()
                    entry["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
                siblings.append(entry)
        listing = {"id": hub_id, "sha": self.hub.revision, "siblings": siblings}
        self._send(200, json.dumps(listing).encode(), {}, 1.0, pausing)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], share: float = 1.0, pausing: bool = False
    ) -> None:
        start = 0
        wanted = self.headers.get("Range", "")
        if status == 200 and wanted.startswith("bytes="):
            start, status = int(wanted[6:].partition("-")[0]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if pausing:
            self.wfile.write(body[start : len(body) // 2])
            self._fall_silent()
            return
        end = int(len(body) * share)
        self.wfile.write(body[start:end])
        self.close_connection = self.close_connection or share < 1


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[FakeHub]:
    """Start a hub, and point the client and our cache at it and at ``home``; waits between retries take no time."""
    import huggingface_hub.file_download
    import huggingface_hub.utils._http
    from huggingface_hub import constants

    hub = FakeHub()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    point_client_at(monkeypatch, hub.url)
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(home / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for module in (huggingface_hub.file_download, huggingface_hub.utils._http):
        monkeypatch.setattr(module, "time", _NoWait())
    huggingface_hub.utils._http.close_session()
    try:
        yield hub
    finally:
        huggingface_hub.utils._http.close_session()
        hub.close()


def point_client_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make ``url`` the hub that the client talks to."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def set_patience(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the client wait this long for an answer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", seconds)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", seconds)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", seconds)


class _NoWait:
    """Stands for the module ``time`` in the client: real clocks, no sleep."""

    def __getattr__(self, name: str) -> object:
        import time

        return (lambda seconds: None) if name == "sleep" else getattr(time, name)
