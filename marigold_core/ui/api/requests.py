"""An ASGI layer before Gradio that reads raw calls, because Gradio answers those of another form with a trace.

A call may leave arguments out: null stands for their defaults.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

from gradio.utils import get_upload_folder
from starlette.types import ASGIApp, Receive, Scope, Send

from marigold_core.serving.api.endpoints import ENDPOINT_OF, Endpoint
from marigold_core.serving.request_body import RefusedError, read_body, with_body
from marigold_core.ui import text
from marigold_core.ui.events import MAX_WAITING, MODEL_QUEUES
from marigold_core.ui.middleware import CALL, FULL_RETRY_S, JOIN, QUEUE
from marigold_core.ui.photo_input import EXAMPLES

META = {"_type": "gradio.FileData"}


class CallReader:
    """Wraps Gradio: completes calls, and refuses with a sentence what cannot be one or asks for no event."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Raises: RefusedError."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if path == JOIN or path.startswith(CALL):
            if scope["method"] == "POST":
                page = scope["app"].get_blocks()
                events: dict[int, Any] = page.fns if path == JOIN else {}
                body = b"".join([piece async for piece in read_body(receive)])
                body = complete(path, body, {number: one.api_name for number, one in events.items()})
                if path != JOIN or events[json.loads(body)["fn_index"]].concurrency_id in MODEL_QUEUES:
                    _check_line(page._queue)
                others = [one for one in scope["headers"] if one[0] != b"content-type"]
                scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
                scope, receive = with_body(scope, receive, body)
            elif scope["method"] == "GET":
                _check_event(scope["app"].get_blocks()._queue, path.rsplit("/", 1)[1], None)
        elif path == QUEUE:
            sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash")
            if sessions:
                _check_event(scope["app"].get_blocks()._queue, None, sessions[-1])
        await self.app(scope, receive, send)


def complete(path: str, body: bytes, events: dict[int, Any]) -> bytes:
    """Read the body of a call and give all arguments of an endpoint values, null for those left out.

    Args:
        path: ``/gradio_api/call/NAME`` takes a list of values, ``/gradio_api/call/v2/NAME`` values by name, and the
            queue a list and the number of an event.
        body: JSON.
        events: names by number.

    Returns: JSON.

    Raises: RefusedError.
    """
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    name = path.removeprefix(CALL).removeprefix("v2/")
    by_name = path.startswith(f"{CALL}v2/")
    if not isinstance(asked, dict) or not (by_name or isinstance(cast(Any, asked).get("data"), list)):
        raise RefusedError(400, text.UNREADABLE)
    call = cast(dict[str, Any], asked)
    if path == JOIN:
        number = call.get("fn_index")
        if type(number) is not int or number not in events:
            raise RefusedError(400, text.NO_EVENT_NUMBER.format(number=number))
        if not isinstance(call.get("session_hash"), str):
            raise RefusedError(400, text.NO_SESSION)
        name = events[number]
    endpoint = ENDPOINT_OF.get(name)
    if endpoint is None:
        if path == JOIN:  # of the page itself
            return body
        raise RefusedError(404, text.NO_ENDPOINT.format(name=name, known=", ".join(ENDPOINT_OF)))
    if by_name:
        return json.dumps(_named(endpoint, call)).encode()
    names = [*endpoint.files, *(one.name for one in endpoint.arguments)]
    values: list[Any] = call["data"]
    if len(values) > len(names):
        raise RefusedError(400, text.TOO_MANY.format(name=name, most=len(names), given=len(values)))
    given = _named(endpoint, dict(zip(names, values, strict=False)))
    return json.dumps({**call, "data": list(given.values())}).encode()


def _named(endpoint: Endpoint, given: dict[str, Any]) -> dict[str, Any]:
    """Check names and files -> a value for every argument, in their order."""
    every: dict[str, Any] = dict.fromkeys([*endpoint.files, *(one.name for one in endpoint.arguments)])
    if unknown := sorted(given.keys() - every.keys()):
        raise RefusedError(400, text.NO_ARGUMENT.format(endpoint=endpoint.name, name=unknown[0]))
    every |= given
    for name in endpoint.files:
        if every[name] is not None:
            every[name] = _uploaded(name, every[name])
    return every


def _uploaded(name: str, value: object) -> dict[str, Any]:
    """Check that a value names a file that was uploaded, or an example -> as Gradio wants it."""
    file = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    path, url = file.get("path"), file.get("url")
    folder = Path(get_upload_folder()).resolve()
    written_in = isinstance(url, str) and url.startswith("data:")
    if isinstance(path, str) and not written_in:
        is_here = os.path.isfile(path) and Path(path).resolve().is_relative_to(folder)
        if is_here or path in EXAMPLES.values():
            return {**file, "meta": META}
    raise RefusedError(400, text.NOT_UPLOADED.format(name=name))


def _check_event(queue: Any, event_id: str | None, session: str | None) -> None:
    """Check that the queue knows an event, or a session: Gradio would break its answer off."""
    if event_id is not None:
        event = queue.event_ids_to_events.get(event_id)
        pending: dict[str, set[str]] = queue.pending_event_ids_session
        session = event.session_hash if event else next((one for one, ids in pending.items() if event_id in ids), None)
    if session not in queue.pending_messages_per_session:
        raise RefusedError(404, text.NO_EVENT)


def waiting_files(page: Any) -> Iterator[str]:
    """Yield the paths of the files with which calls wait or run."""
    for event in list(page._queue.event_ids_to_events.values()):
        if event.data and event.fn.api_name in ENDPOINT_OF:  # whose paths were checked
            yield from (one["path"] for one in event.data.data if isinstance(one, dict))


def _check_line(queue: Any) -> None:
    """Check that one more job may wait. Raises: RefusedError.

    Gradio's own limit counts all events, so that a full line would refuse Stop, and a page that is opened, as well.
    """
    lines = map(queue.event_queue_per_concurrency_id.get, MODEL_QUEUES)
    if sum(len(line.queue) for line in lines if line) >= MAX_WAITING:
        raise RefusedError(503, text.QUEUE_FULL, **{"retry-after": str(FULL_RETRY_S)})
