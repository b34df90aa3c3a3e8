"""Raw calls, read before Gradio does: what is left out is null, and what is wrong is named."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marigold_core.serving.api.endpoints import ENDPOINTS
from marigold_core.serving.request_body import RefusedError
from marigold_core.ui import text
from marigold_core.ui.api import requests
from marigold_core.ui.api.requests import META, CallReader, complete
from marigold_core.ui.middleware import CALL, JOIN, QUEUE, told

DEPTH = ENDPOINTS[0]
MOST = 1 + len(DEPTH.arguments)
EVENTS = {3: "predict_depth", 4: "on_run"}


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "photo.png").write_bytes(b"")
    return str(tmp_path / "photo.png")


def read(where: str, call: object) -> dict[str, Any]:
    return json.loads(complete(where, json.dumps(call).encode(), EVENTS))


def test_what_is_left_out_is_null_and_a_path_is_enough(photo: str) -> None:
    rest = [2, *[None] * (MOST - 2)]
    file = {"path": photo, "meta": META}
    assert read(f"{CALL}predict_depth", {"data": [{"path": photo}, 2]}) == {"data": [file, *rest]}
    joined = {"fn_index": 3, "session_hash": "a"}
    assert read(JOIN, {"data": [{"path": photo}, 2], **joined}) == {"data": [file, *rest], **joined}
    assert read(JOIN, {"data": [1], "fn_index": 4, "session_hash": "a"})["data"] == [1]  # the page's own
    named = read(f"{CALL}v2/predict_depth", {"photo": {"path": photo}, "seed": 7})
    assert len(named) == MOST and (named["photo"], named["seed"], named["formats"]) == (file, 7, None)


@pytest.mark.parametrize(
    ("where", "call", "status", "sentence"),
    [
        (f"{CALL}predict_depth", {}, 400, text.UNREADABLE),
        (f"{CALL}predict_depth", {"data": None}, 400, text.UNREADABLE),
        (f"{CALL}predict_depth", [], 400, text.UNREADABLE),
        (f"{CALL}predict_depth", {"data": [None] * (MOST + 1)}, 400, f"takes at most {MOST};"),
        (f"{CALL}nothing", {"data": []}, 404, "There is no endpoint 'nothing'; choose one of predict_depth, "),
        (f"{CALL}v2/predict_depth", {"sneed": 1}, 400, "predict_depth has no argument 'sneed'"),
        (JOIN, {"data": [], "fn_index": 99, "session_hash": "a"}, 400, "fn_index must be the number of an event"),
        (JOIN, {"data": [], "session_hash": "a"}, 400, "but got None"),
        (JOIN, {"data": [], "fn_index": 3}, 400, "session_hash must be"),
        *(
            (f"{CALL}predict_depth", {"data": [one, *[None] * (MOST - 1)]}, 400, "photo must be {")
            for one in ("a.png", ["a.png"], 7, True, {}, {"path": "/etc/hostname"}, {"path": "a\0"}, {"path": 7})
        ),
        (f"{CALL}v2/import_depth", {"depth": "a.png"}, 400, "depth must be {"),
    ],
)
def test_what_is_wrong_is_named(photo: str, where: str, call: object, status: int, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(where, call)
    assert refused.value.status == status and sentence in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"no JSON", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(RefusedError, match="could not be read"):
        complete(f"{CALL}predict_depth", body, {})


@pytest.mark.parametrize(
    ("path", "query"), [(f"{CALL}predict_depth/b", ""), (QUEUE, "session_hash=b"), (f"{CALL}x/a", "")]
)
def test_only_what_waits_or_runs_is_listened_to(path: str, query: str) -> None:
    queue = SimpleNamespace(
        event_ids_to_events={"a": SimpleNamespace(session_hash="s")},
        pending_event_ids_session={"s": {"a", "done"}},
        pending_messages_per_session={"s": None},
    )
    app = SimpleNamespace(get_blocks=lambda: SimpleNamespace(_queue=queue))
    passed: list[object] = []

    async def gradio(*given: object) -> None:
        passed.append(given)

    def ask(path: str, query: str) -> None:
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "app": app}
        asyncio.run(CallReader(gradio)(scope, None, None))  # type: ignore[arg-type]

    for known in ((f"{CALL}x/a", ""), (f"{CALL}x/done", ""), (QUEUE, "session_hash=s")):
        ask(*known)
    assert len(passed) == 3
    queue.pending_messages_per_session.clear()  # of a visitor who left
    with pytest.raises(RefusedError) as refused:
        ask(path, query)
    assert refused.value.status == 404 and len(passed) == 3


@pytest.mark.parametrize(
    ("path", "call", "is_refused"),
    [
        (f"{CALL}predict_depth", {"data": [None]}, True),
        (f"{CALL}v2/predict_depth", {}, True),
        (JOIN, {"data": [], "fn_index": 3, "session_hash": "s"}, True),
        (JOIN, {"data": [], "fn_index": 4, "session_hash": "s"}, False),
        (JOIN, {"data": [], "fn_index": 5, "session_hash": "s"}, True),
    ],
)
def test_where_the_line_is_full_what_does_not_need_the_model_is_heard(
    path: str, call: dict[str, Any], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_WAITING", 2)
    line = SimpleNamespace(queue=["a job"])
    events = {
        3: SimpleNamespace(api_name="", concurrency_id="model"),
        4: SimpleNamespace(api_name="", concurrency_id="light"),
        5: SimpleNamespace(api_name="", concurrency_id="long"),
    }
    lines = {"model": line, "long": SimpleNamespace(queue=[]), "light": SimpleNamespace(queue=["one"] * 9)}
    queue = SimpleNamespace(event_queue_per_concurrency_id=lines)
    app = SimpleNamespace(get_blocks=lambda: SimpleNamespace(_queue=queue, fns=events))
    passed: list[object] = []

    async def gradio(*given: object) -> None:
        passed.append(given)

    def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(call).encode()}

        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "app": app}
        asyncio.run(CallReader(gradio)(scope, receive, None))  # type: ignore[arg-type]

    ask()
    assert len(passed) == 1
    line.queue.append("another")
    if is_refused:
        with pytest.raises(RefusedError, match="Too many jobs are waiting already") as refused:
            ask()
        assert refused.value.status == 503 and refused.value.headers == {"retry-after": "30"}
    else:
        ask()
        assert len(passed) == 2


def test_refusals_by_gradio_become_sentences_and_of_validators_what_is_wrong_stays() -> None:
    missing = {"detail": [{"loc": ["body", "event_id"], "type": "missing"}]}
    broken = {"detail": [{"loc": ["body", 0], "type": "json_invalid"}]}
    wrong = {"is_valid": False, "message": "seed must be"}
    ours = {"detail": [{"is_valid": True, "message": "seed must be"}, wrong]}
    answers = [told("/gradio_api/cancel", 422, json.dumps(one).encode()) for one in (missing, broken, ours)]
    assert answers == [text.UNREADABLE_FIELDS.format(names="event_id"), text.NOT_JSON, [wrong]]
    assert told("/gradio_api/upload", 400, b"{}") == text.UNREADABLE_UPLOAD
