"""Visitors who leave, read slowly, send rubbish or look for others' results; the model only waits (helpers/slow_app).

``tests.bench.soak`` does the same in large numbers.
"""

import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.soak import Figures as Soak
from tests.bench.soak import Server, leave_early, many_jobs, running
from tests.helpers.slow_app import inside

pytestmark = pytest.mark.slow

NAMES = [
    "../../etc/passwd",
    "..",
    "%2e%2e%2fapp.py",
    "a\x00.png",
    "a" * 300 + ".png",
    "<img src=x onerror=alert(1)>.png",
    "\u202egnp.exe",
    "CON.png",
    "nul",
    "-rf",
    "a\nb.png",
    "photo.html",
    ".hidden",
    "C:\\boot.ini",
    "ä\u0308🌼.png",
    "",
    " ",
    "'; drop table photos; --.png",
]
ORIGINS = [  # pages on other ports of this machine are let in
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example",
    "file://",
]  # other ports of this machine are let in


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("visitors")) as server:
        yield server


@pytest.mark.parametrize("hang_up", [False, True], ids=["cancelled", "hung up"])
def test_who_leaves_frees_the_model_and_no_two_are_in_it(server: Server, hang_up: bool) -> None:
    assert len(leave_early(server, 3, hang_up)) == 3  # each waits until the model is free
    assert max(count for _, count in inside(server.notes)) == 1


def test_no_job_is_lost_or_mixed_up_beside_those_who_read_slowly(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in slow:
        one.sendall(b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n")  # hundreds of kilobytes that nobody reads
    soak = Soak()
    many_jobs(server, 21, soak)
    for one in slow:
        one.close()
    assert (soak.jobs, soak.lost_or_mixed_up) == (21, 0)
    assert max(count for _, count in inside(server.notes)) == 1


def test_any_name_of_an_upload_is_taken_or_refused(server: Server) -> None:
    for name in NAMES:
        answer = server.web.post("/gradio_api/upload", files={"files": (name, b"0" * 20)})
        assert answer.status_code < 500, name
        if answer.status_code == 200:
            path = Path(answer.json()[0])
            assert path.resolve().is_relative_to(server.work.resolve()) and path.stat().st_size == 20, name
    assert server.result(server.submit(server.upload(48, "<b>&ä🌼.png")))["manifest"]["photo"]["width"] == 48


def test_pages_of_others_are_not_let_in(server: Server) -> None:
    ask = {"access-control-request-method": "POST"}
    for origin in ORIGINS:
        for method, more in (("GET", {}), ("OPTIONS", ask)):
            answer = server.web.request(method, "/config", headers={"origin": origin, **more})
            assert answer.headers.get("access-control-allow-origin") not in (origin, "*"), (origin, method)


def rubbish(rng: random.Random, deep: int = 0) -> Any:
    kinds: list[Any] = [None, True, -1, 1e308, "", "x" * 5000, "\u0000", "predict_depth", [], {}, 2**70]
    if deep < 3 and rng.random() < 0.5:
        parts = [rubbish(rng, deep + 1) for _ in range(rng.randrange(5))]
        keys = ["data", "fn_index", "session_hash", "event_id", "path", "meta", "trigger_id", "_type"]
        return parts if rng.random() < 0.5 else {rng.choice(keys): part for part in parts}
    return rng.choice(kinds)


def test_requests_of_any_shape_are_no_fault_of_the_server(server: Server) -> None:
    rng = random.Random(0)
    for _ in range(80):
        path = rng.choice(
            ["call/predict_depth", "call/nothing", "queue/join", "cancel", "reset", "call/v2/predict_depth"]
        )
        answer = server.web.post(f"/gradio_api/{path}", json=rubbish(rng))
        assert answer.status_code < 500, (path, answer.text)
        assert "Traceback" not in answer.text
    for query in ("", "?session_hash=", "?session_hash=%00", "?session_hash=nobody's"):
        with server.web.stream("GET", f"/gradio_api/queue/data{query}") as answer:
            assert answer.status_code < 500
    assert server.result(server.submit(server.upload(56)))["manifest"]["photo"]["width"] == 56


def test_a_result_is_found_by_those_alone_who_were_given_its_address(server: Server) -> None:
    address = server.result(server.submit(server.upload(64)))["npy"]["url"]
    assert server.web.get(address).status_code == 200
    folder = address.rpartition("/")[0]
    unguessable = [part for part in folder.split("/") if len(part) == 32 and set(part) <= set("0123456789abcdef")]
    assert unguessable
    for other in (folder, folder.rpartition("/")[0], address.replace(unguessable[-1], "0" * 32)):
        assert server.web.get(other).status_code in (403, 404), other
    assert "session_hash=" not in (server.notes.with_name("server.log")).read_text()


def test_killed_or_told_to_end_amid_a_job_it_leaves_nothing_half_done(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with running(tmp_path) as server:
        server.submit(server.upload(64), 50)
        server.wait_until_busy(0)
        server.process.kill()
        server.process.wait(60)
    with running(tmp_path) as server:  # the same folder
        done = server.result(server.submit(server.upload(72)))
        server.submit(server.upload(64), 50)
        server.wait_until_busy(2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) in (0, 130, -signal.SIGINT, -signal.SIGTERM)
    assert done["manifest"]["photo"]["width"] == 72
    assert [path for path in work.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"] == []
