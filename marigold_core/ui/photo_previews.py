"""Shows photos that no browser draws, such as HEIC and TIFF: its requests for them as pictures get a JPEG instead.

The uploaded file stays what it is, for the model and for its EXIF data.
"""

import asyncio
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marigold_core.errors import ImageError
from marigold_core.images.photo import load_photo
from marigold_core.ui.pictures import shrunk

FILES = "/gradio_api/file="
DRAWN = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")  # how files begin that every browser draws


class PhotoPreviews:
    """Wraps an ASGI application, whose answers it changes where a browser asks for a picture that it cannot draw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.turn = asyncio.Semaphore(1)  # one photo is decoded at a time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; only what the application allows to be read is shown."""
        if not _asks_for_picture(scope):
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        replaced = False

        async def answer(message: Message) -> None:
            nonlocal start, replaced
            if message["type"] == "http.response.start" and message["status"] == 200:
                start = message
                return
            if start is not None:
                if not message.get("body", b"").startswith(DRAWN):
                    async with self.turn:
                        jpeg = await asyncio.to_thread(preview_jpeg, scope["path"].removeprefix(FILES))
                    if jpeg is not None:
                        replaced = True
                        await send({**start, "headers": _headers(start, jpeg)})
                        await send({"type": "http.response.body", "body": jpeg})
                if not replaced:
                    await send(start)
                start = None
            if not replaced:
                await send(message)

        await self.app(scope, receive, answer)


@lru_cache(maxsize=32)
def preview_jpeg(path: str) -> bytes | None:
    """Make a JPEG of a photo file, of the size that the page shows; None where it is not a photo."""
    try:
        photo = load_photo(Path(path))
    except ImageError:
        return None
    content = BytesIO()
    shrunk(photo.pixels).save(content, "JPEG", quality=90)
    return content.getvalue()


def _asks_for_picture(scope: Scope) -> bool:
    """Whether this is the request of an ``<img>`` for a file: browsers accept pictures first for those alone."""
    if scope["type"] != "http" or not scope["path"].startswith(FILES):
        return False
    return dict(scope["headers"]).get(b"accept", b"").startswith(b"image/")


def _headers(start: Message, jpeg: bytes) -> list[tuple[bytes, bytes]]:
    changed = {b"content-type": b"image/jpeg", b"content-length": str(len(jpeg)).encode(), b"accept-ranges": b"none"}
    kept = [(name, value) for name, value in start["headers"] if name not in (*changed, b"content-disposition")]
    return [*kept, *changed.items()]
