"""HTTP requests that are read without trust in what they declare, and refused in a sentence."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope

JSON_LIMIT = 256 * 1024  # bytes; a settings form is under 2 KB
FILE_LIMIT = 40 * 10**6  # bytes of a photo, depth map or video
UPLOAD_LIMIT = 41 * 1024 * 1024  # bytes; one file and its multipart frame
BODY_TIME_S = 60.0


class RefusedError(Exception):
    """A request is refused, with a status, a sentence and headers."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, headers


class BodyRefusedError(Exception):
    """The body is over its limit or came too slowly."""


class LimitedBody:
    """A ``receive`` that counts bytes while they come in and gives the whole body a minute."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.left = receive, limit
        self.deadline = time.monotonic() + BODY_TIME_S
        self.complete = False

    async def __call__(self) -> Message:
        """Return the next message or raise ``BodyRefusedError``; after the body, waiting for a disconnect is free."""
        if self.complete:
            return await self.receive()
        try:
            async with asyncio.timeout(max(0.0, self.deadline - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise BodyRefusedError from None
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise BodyRefusedError
        self.complete = not message.get("more_body", False)
        return message


async def read_body(receive: Receive) -> AsyncIterator[bytes]:
    """Read a body piece by piece."""
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)


def with_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """Put a body in the place of the one that was read, before what comes after it."""
    waiting, length = [body], (b"content-length", str(len(body)).encode())
    replaced = (b"content-length", b"transfer-encoding")

    async def replay() -> Message:
        return {"type": "http.request", "body": waiting.pop()} if waiting else await receive()

    return {**scope, "headers": [*(one for one in scope["headers"] if one[0] not in replaced), length]}, replay


def declared_length(scope: Scope) -> int:
    """Return the Content-Length of a request, 0 when absent or not a number."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
