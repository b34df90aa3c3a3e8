"""An ASGI layer before Gradio: requests to unlisted routes are refused, and nothing is read without a limit.

Gradio's own limits leave gaps: its size cap does not see pictures written into the JSON, its hidden routes answer,
and its file route fetches web addresses for anybody. So the routes that the page and the clients need are listed
here, and every other path is a 404, also those that a later Gradio may add.
"""

import asyncio
import json
import logging
import math
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marigold_core.serving.request_body import (
    JSON_LIMIT,
    UPLOAD_LIMIT,
    BodyRefusedError,
    LimitedBody,
    RefusedError,
    declared_length,
)
from marigold_core.serving.work_folder import has_room
from marigold_core.ui import text

log = logging.getLogger(__name__)

MCP_LIMIT = UPLOAD_LIMIT * 4 // 3  # bytes; the same photo written as base64
BURST, REFILL_PER_S, MAX_CLIENTS = 120, 8.0, 10_000  # submissions of one address; a slider sends some every second
WAIT_S = 60.0  # a class behind one router is one address: what is more than that is held back, refused only after this

FULL_RETRY_S = 30  # after which a client may ask again whom the full queue refused

UPLOAD = "/gradio_api/upload"
MCP = "/gradio_api/mcp"
LIMITS = {UPLOAD: UPLOAD_LIMIT, MCP: MCP_LIMIT}
JOIN, CALL, QUEUE = "/gradio_api/queue/join", "/gradio_api/call/", "/gradio_api/queue/data"
SUBMISSIONS = (JOIN, CALL, UPLOAD, MCP)
TOLD = (*SUBMISSIONS, QUEUE, "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/upload_progress")
ALLOWED_EXACT = frozenset(
    ["/", "/config", "/config/", "/favicon.ico", "/robots.txt", "/theme.css", "/manifest.json", "/gradio_api/theme.css"]
    + [f"/gradio_api/{name}" for name in ("app_id", "cancel", "info", "reset", "startup-events")]
    + [f"/gradio_api/{name}" for name in ("queue/data", "queue/join", "upload", "upload_progress")]
)
ALLOWED_BELOW = ("/static/", "/assets/", "/svelte/", "/gradio_api/call/", "/gradio_api/file=", "/gradio_api/heartbeat/")

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self';"
        b" frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    ),
]


class RequestFilter:
    """Wraps an ASGI application: allow-list of routes, body limits, submissions of a client at a pace, headers."""

    def __init__(self, app: ASGIApp, folder: Path | None = None, tools: ASGIApp | None = None) -> None:
        """Wrap ``app``, which keeps uploads in ``folder``; ``tools`` answers at the address of the MCP server."""
        self.app, self.folder, self.tools = app, folder, tools
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (tokens, when counted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here with 400, 403, 404, 413, 429 or 507."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        for_tools = path.rstrip("/") == MCP and self.tools is not None
        if not allowed(path) and not for_tools:
            await refuse(send, 404, "Not found.")
            return
        if for_tools and foreign(scope):
            await refuse(send, 403, text.FOREIGN_PAGE)
            return
        limit = LIMITS.get(path.rstrip("/"), JSON_LIMIT)
        if declared_length(scope) > limit:
            await refuse(send, 413, text.TOO_LARGE)
            return
        if path.startswith(SUBMISSIONS) and scope["method"] == "POST":
            wait_s = self.admit(client(scope))
            if wait_s > WAIT_S:
                await refuse(send, 429, text.BUSY_CLIENT, **{"retry-after": str(math.ceil(wait_s))})
                return
            await asyncio.sleep(wait_s)
        if path == UPLOAD and self.folder and not has_room(self.folder):
            await refuse(send, 507, text.DISK_FULL)
            return
        body = LimitedBody(receive, limit)
        response = ResponseWithHeaders(send, told=path if path.startswith(TOLD) and not for_tools else None)
        try:
            await (self.tools if for_tools and self.tools else self.app)(scope, body, response)
        except BodyRefusedError:
            if not response.started:
                await refuse(send, 413, text.TOO_LARGE)
        except RefusedError as error:
            await refuse(send, error.status, str(error), **error.headers)
        except Exception:  # Gradio raises on requests of another form, where its jobs report their faults otherwise
            if response.started:
                raise
            log.warning("A request to %s could not be read", path, exc_info=True)
            await refuse(send, 400, unreadable(path))

    def admit(self, client: str) -> float:
        """Take one token of this client, unless it would come after ``WAIT_S`` -> the seconds until it comes."""
        now = time.monotonic()
        tokens, counted = self.buckets.pop(client, (float(BURST), now))
        tokens = min(BURST, tokens + (now - counted) * REFILL_PER_S) - 1
        wait_s = max(0.0, -tokens / REFILL_PER_S)
        self.buckets[client] = (tokens if wait_s <= WAIT_S else tokens + 1, now)
        if len(self.buckets) > MAX_CLIENTS:
            self.buckets.popitem(last=False)
        return wait_s


class ResponseWithHeaders:
    """A ``send`` that adds our headers and knows whether the response has begun.

    ``told``: the path of a request whose refusal by Gradio itself, which shows the inside of the server, becomes a
    sentence of ours.
    """

    def __init__(self, send: Send, *, told: str | None = None) -> None:
        self.send, self.told, self.started = send, told, False
        self.refusal: Message | None = None  # the start of one that is held back
        self.received = b""  # its body so far

    async def __call__(self, message: Message) -> None:
        """Send one message on."""
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            if self.told and message["status"] in (400, 422, 503):
                self.refusal = message
                return
        elif self.refusal is not None:
            self.received += message.get("body", b"")
            if message.get("more_body", False):
                return
            detail = told(self.told or "", self.refusal["status"], self.received)
            if detail:
                later = {"retry-after": str(FULL_RETRY_S)} if self.refusal["status"] == 503 else {}
                await refuse(self.send, self.refusal["status"], detail, **later)
                return
            await self.send(self.refusal)
            message = {"type": "http.response.body", "body": self.received}
        await self.send(message)


def told(path: str, status: int, body: bytes) -> str | list[Any] | None:
    """Put a refusal by Gradio into a sentence; of what our validators say of each argument, keep what is wrong."""
    if status == 400:
        return text.INLINE_PHOTO if text.INLINE_PHOTO.encode() in body else unreadable(path)
    if status == 503:
        return text.QUEUE_FULL
    found: Any = json.loads(body)["detail"]
    faults = cast(list[Any], found) if isinstance(found, list) else []
    if wrong := [one for one in faults if one.get("is_valid") is False]:
        return wrong
    places: list[list[Any]] = [one["loc"] for one in faults if "loc" in one]
    names = [place[-1] for place in places if len(place) > 1 and isinstance(place[-1], str)]
    if names:
        return text.UNREADABLE_FIELDS.format(names=", ".join(names))
    return text.NOT_JSON if places else None


def unreadable(path: str) -> str:
    """Say what a request to a path should have been."""
    if path.startswith(UPLOAD):
        return text.UNREADABLE_UPLOAD
    return text.UNREADABLE if path.startswith(SUBMISSIONS) else text.NOT_JSON


def allowed(path: str) -> bool:
    """Check whether the page or a client needs this path; web addresses behind the file route do not count."""
    if path.lower().startswith("/gradio_api/file=http"):
        return False
    return path in ALLOWED_EXACT or path.startswith(ALLOWED_BELOW)


def foreign(scope: Scope) -> bool:
    """Check whether a page of another server sent a request, as browsers say; the specification of MCP asks for it."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    return origin != "" and urlsplit(origin).netloc != headers.get(b"host", b"").decode("latin-1")


def client(scope: Scope) -> str:
    """Name the client of a request; behind a hosting proxy only its own (last) forwarding entry is trusted."""
    if os.environ.get("SPACE_ID"):
        forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1")
        if forwarded:
            return forwarded.split(",")[-1].strip()
    return scope["client"][0] if scope.get("client") else ""


async def refuse(send: Send, status: int, detail: str | list[Any], **headers: str) -> None:
    """Answer with a status, one sentence or faults of arguments as JSON, and headers such as "retry-after"."""
    body = json.dumps({"detail": detail}).encode()
    ours = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    sent = [*((name.encode(), value.encode()) for name, value in ours.items()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
