"""Visitors in numbers, who leave, read slowly, send rubbish or look for others' results; servers that end.

The model only waits (helpers/slow_app).

``tests.bench.soak`` does the same in large numbers.
"""

import random
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from marigold_core.ui import text
from marigold_core.ui.events import LONG, MODEL
from tests.bench.soak import Figures as Soak
from tests.bench.soak import Server, leave_early, many_jobs, running
from tests.helpers.nginx import needs_nginx, proxy
from tests.helpers.slow_app import MAX_WAITING, hold, inside

pytestmark = pytest.mark.slow

CLIENTS = 32  # of a class behind one router
ENDED = (0, 130, -signal.SIGINT, -signal.SIGTERM)

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a server was killed amid a job."""
    folder = tmp_path_factory.mktemp("visitors")
    with running(folder) as killed:
        killed.submit(killed.upload(64), 50)
        killed.wait_until_busy(0)
        killed.process.kill()
        killed.process.wait(60)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running(folder) as server:
        yield server


def nothing_is_half_done(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


@pytest.mark.parametrize("hang_up", [False, True], ids=["cancelled", "hung up"])
def test_who_leaves_frees_the_model_and_no_two_are_in_it(server: Server, hang_up: bool) -> None:
    assert len(leave_early(server, 3, hang_up)) == 3  # each waits until the model is free
    assert max(count for _, count in inside(server.notes)) == 1


def test_a_class_behind_one_address_loses_no_job_and_mixes_up_none_beside_slow_readers(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in slow:
        one.sendall(b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n")  # hundreds of kilobytes that nobody reads
    many_jobs(server, CLIENTS + 10, soak := Soak(), CLIENTS)
    for one in slow:
        one.close()
    assert (soak.jobs, soak.lost_or_mixed_up) == (CLIENTS + 10, 0)
    assert max(count for _, count in inside(server.notes)) == 1
    assert server.waited > 0  # and they were told for how long


def press(server: Server, button: str, visitor: str, given: dict[str, Any]) -> list[httpx.Response]:
    """Press a button of the page -> how that is taken.

    Widgets hold what they begin with; those whose id or label is among the keys of ``given`` hold its values.
    """
    config = server.web.get("/config").json()
    widgets = {one["id"]: one["props"] for one in config["components"]}
    (pressed,) = (number for number, props in widgets.items() if props.get("elem_id") == button)
    answers = list[httpx.Response]()
    for event in config["dependencies"]:
        if [pressed, "click"] in event["targets"] and event["backend_fn"]:
            if answers:  # the browser begins with the second event of a click when the first has ended
                with server.web.stream("GET", "/gradio_api/queue/data", params={"session_hash": visitor}) as told:
                    next(line for line in told.iter_lines() if "process_completed" in line)
            held = [widgets[number] for number in event["inputs"]]
            data = [given.get(one.get("elem_id"), given.get(one.get("label"), one.get("value"))) for one in held]
            asked = {"data": data, "fn_index": event["id"], "session_hash": visitor}
            answers.append(server.web.post("/gradio_api/queue/join", json=asked))
    return answers


def test_a_full_queue_refuses_with_a_sentence_and_loses_none_of_those_who_wait(server: Server) -> None:
    path, held = server.upload(80), hold(server.notes)
    held.touch()
    try:
        answers = [server.ask(path) for _ in range(MODEL["concurrency_limit"] + MAX_WAITING + 5)]
        stopped = press(server, "stop", "visitor", {})
    finally:
        held.unlink()
    assert [one.status_code for one in stopped] == [200, 200]  # a visitor of the page is still heard
    accepted = [answer.json()["event_id"] for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(accepted) == MODEL["concurrency_limit"] + MAX_WAITING
    assert {(one.status_code, one.headers["retry-after"], one.json()["detail"]) for one in refused} == {
        (503, "30", text.QUEUE_FULL)
    }
    assert {server.result(job)["manifest"]["photo"]["width"] for job in accepted} == {80}
    assert server.result(server.submit(path))["manifest"]["photo"]["width"] == 80


def test_batches_of_many_leave_places_for_photos(server: Server) -> None:
    """So do clips and comparisons: a photo is told its place at once, and is not behind all of them."""
    path, held = server.upload(72), hold(server.notes)
    photos = {"batch-photos": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    held.touch()
    try:
        for number in range(LONG["concurrency_limit"] + 4):
            assert {one.status_code for one in press(server, "batch-run", f"visitor {number}", photos)} == {200}
        with server.web.stream("GET", f"/gradio_api/call/predict_depth/{server.submit(path)}") as told:
            line = next(line for line in told.iter_lines() if "waiting: " in line)
    finally:
        held.unlink()
    assert f"waiting: {LONG['concurrency_limit']} jobs are before this one" in line
    server.wait_until_idle()


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
    unguessable = re.search("/call-([0-9a-f]{32})$", folder)
    assert unguessable
    for other in (folder, folder.rpartition("/")[0], address.replace(unguessable[1], "0" * 32)):
        assert server.web.get(other).status_code in (403, 404), other
    logs = [path.read_text() for path in server.notes.parent.glob("server-*.log")]
    assert logs and "session_hash=" not in "".join(logs)


def without_cookies(request: httpx.Request) -> None:
    """Send a request as a program does that keeps none, such as curl."""
    request.headers.pop("cookie", None)


@needs_nginx
def test_a_visitor_is_served_by_two_processes_and_loses_no_result(server: Server, folder: Path) -> None:
    """One of them ends; its visitor goes on with the other one, which has the results as well."""
    with (
        running(folder, "other") as other,
        proxy(folder / "nginx", [server.url, other.url]) as address,
        httpx.Client(base_url=address, timeout=300) as web,
        httpx.Client(base_url=address, timeout=300, event_hooks={"request": [without_cookies]}) as bare,
    ):
        visitor = Server(web, folder / "none", folder, other.process)
        while not inside(other.notes):  # until it is one of the process that will end
            web.cookies.clear()
            web.get("/")
            cookie = web.cookies["visitor"]
            path = visitor.result(visitor.submit(visitor.upload(88)))["npy"]["path"]
        assert re.fullmatch("[0-9a-f]{32}", cookie)
        assert re.search("/results/call-[0-9a-f]{32}/depth.npy$", path)
        file = Path(path)
        got = [httpx.get(f"{page}/gradio_api/file={file}") for page in (server.url, other.url, address)]
        assert {one.status_code for one in got} == {200} and {one.content for one in got} == {file.read_bytes()}
        assert httpx.get(f"{address}/gradio_api/file={file.parents[1]}").status_code >= 400  # no list of results
        program = Server(bare, folder / "none", folder, other.process)
        for width in range(104, 104 + 6 * 8, 8):  # else each request would go to any of the two
            answer = program.result(program.submit(program.upload(width)))
            assert answer["manifest"]["photo"]["width"] == width
        other.process.send_signal(signal.SIGTERM)
        assert other.process.wait(60) in ENDED
        assert web.get(f"/gradio_api/file={file}").content == got[0].content
        assert visitor.result(visitor.submit(visitor.upload(96)))["manifest"]["photo"]["width"] == 96
        assert web.cookies["visitor"] == cookie


def test_killed_or_told_to_end_amid_a_job_it_leaves_nothing_half_done(server: Server, folder: Path) -> None:
    """The last test of this server, which began in the folder of one that was killed."""
    assert server.result(server.submit(server.upload(72)))["manifest"]["photo"]["width"] == 72
    entered = len(inside(server.notes))
    server.submit(server.upload(64), 50)
    server.wait_until_busy(entered)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) in ENDED
    assert nothing_is_half_done(folder / "work" / "results")
