"""The endpoints as tools for programs that speak the Model Context Protocol (MCP), over streamable HTTP.

Names, arguments, ranges and descriptions are those of the table of endpoints. Gradio's own MCP server is not used:
there a call that its client cancels runs on, and photos would be fetched from any address.

A file that is written into a request, as a data: URL, is put with the uploads while it is received, so that calls which
wait hold none.
"""

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast
from urllib.parse import quote, unquote, urlsplit

import gradio as gr
from anyio import CancelScope, CapacityLimiter, ClosedResourceError, Semaphore, to_thread
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from PIL import Image
from starlette.types import Receive, Scope, Send

from marigold_core import __version__, storage
from marigold_core.errors import ExportError, ImageError, SettingsError
from marigold_core.serving.api.answers import Answer
from marigold_core.serving.api.arguments import Arguments
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINTS, Endpoint
from marigold_core.serving.jobs import Service
from marigold_core.serving.request_body import JSON_LIMIT, RefusedError, read_body, with_body
from marigold_core.serving.work_folder import has_room
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import MAX_WAITING, MODEL

FILE_ROUTE = "/gradio_api/file="
PICTURES = ("color", "sheet", "picture")  # what a model with eyes is shown of an answer
PICTURE_PX = 512  # longest edge of it
INSTRUCTIONS = (
    "Depth from a photo, a panorama or a video. Depth is relative, 0 = near and 1 = far, with unknown scale and shift,"
    " unless the tool calibrate was given what is known of the photo; its metres are then as right as these hints."
    " Uncertainty, which each manifest explains, ranks places and is no bound of the error. Upload a photo by POST to"
    " /gradio_api/upload and give its address, or write it as a data: URL. Answers name files by address, which are"
    " kept for an hour."
)
ADDRESS = "a data: URL with base64, or the address of a file that was uploaded to this server"
DATA_URL = re.compile(rb'(?<!\\)"data:[^",]*;base64,([^"]*)"')  # a string of JSON
NO_BASE64 = "data:;base64,*"  # stands for one that is none
MOST_FILES = max(len(endpoint.files) for endpoint in ENDPOINTS)
READERS = 4  # calls whose files are looked at at once


def _is_fault(record: logging.LogRecord) -> bool:
    """Tell whether a record of the protocol's library says more than that a client has gone."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClosedResourceError))


logging.getLogger("mcp.server.streamable_http").addFilter(_is_fault)  # it prints a trace whenever one goes


class McpTools:
    """An ASGI application that answers MCP clients; ``lifespan`` must be entered before its first request."""

    def __init__(self, service: Service, folder: Path) -> None:
        """Serve the endpoints with a service; ``folder`` is where the server keeps uploads."""
        self._service, self._folder = service, folder.resolve()
        most = MODEL["concurrency_limit"]
        self._places = Semaphore(most)  # of calls that run or stand in the line before the model, as events of the page
        self._threads = CapacityLimiter(most)  # of these calls, one each, so that the one in the model waits for none
        self._readers = CapacityLimiter(READERS)
        self._one = CapacityLimiter(1)  # for what takes much memory: one at a time
        self._calls = 0  # under way
        self._server = Server[object]("marigold-depth", version=__version__, instructions=INSTRUCTIONS)
        self._server.list_tools()(self._list)  # pyright: ignore[reportUnknownMemberType]
        self._server.call_tool(validate_input=False)(self._call)  # our own sentences are easier to follow
        self._sessions = StreamableHTTPSessionManager(self._server, max_request_body_size=JSON_LIMIT)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Hold the sessions of clients while the server runs."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, of up to ``JSON_LIMIT`` without the files in it. Raises: RefusedError."""
        if scope["method"] == "POST":
            with SpooledTemporaryFile(JSON_LIMIT, dir=str(self._folder)) as body:
                async for piece in read_body(receive):
                    body.write(piece)
                content = await to_thread.run_sync(self._without_files, body, limiter=self._one)
            scope, receive = with_body(scope, receive, content)
        await self._sessions.handle_request(scope, receive, send)

    def _without_files(self, body: IO[bytes]) -> bytes:
        """Put the files in a request with the uploads -> the request with their addresses. Raises: RefusedError."""
        body.seek(0)
        content = DATA_URL.sub(self._put, body.read(), MOST_FILES)
        if len(content) > JSON_LIMIT:
            raise RefusedError(413, text.TOO_LARGE)
        return content

    def _put(self, found: re.Match[bytes]) -> bytes:
        try:
            file = base64.b64decode(json.loads(b'"%b"' % found[1]), validate=True)
        except ValueError:
            return f'"{NO_BASE64}"'.encode()
        path = self._folder / hashlib.sha256(file).hexdigest() / "file"
        if not has_room(self._folder):
            raise RefusedError(507, text.DISK_FULL)
        try:
            storage.write_bytes(path, file)
        except ExportError as error:
            raise RefusedError(507, text.DISK_FULL) from error
        return json.dumps(f"{FILE_ROUTE}{quote(str(path))}").encode()

    async def _list(self) -> list[types.Tool]:
        return [
            types.Tool(name=endpoint.name, description=endpoint.description, inputSchema=_schema(endpoint))
            for endpoint in ENDPOINTS
        ]

    async def _call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Run an endpoint and tell its progress; a client that cancels stops the job before its next step."""
        self._calls += 1
        try:
            with translate_errors():
                if self._calls > MODEL["concurrency_limit"] + MAX_WAITING:
                    raise SettingsError(text.CALLS_FULL)
                endpoint, root = _find(name), _root(self._request)
                given = await to_thread.run_sync(self._read, endpoint, arguments, limiter=self._readers)
                if not self._places.value:
                    await self._report(text.CALL_WAITS)
                async with self._places:
                    answer = await self._last(endpoint.answers(self._service, given))
                return await to_thread.run_sync(_result, answer, root, limiter=self._one)
        except gr.Error as error:
            return types.CallToolResult(content=[types.TextContent(type="text", text=error.message)], isError=True)
        finally:
            self._calls -= 1

    async def _last(self, answers: Iterator[Answer]) -> Answer:
        """Advance an endpoint in threads of their own -> its last answer."""
        last: Answer = {}
        try:
            while (answer := await to_thread.run_sync(next, answers, None, limiter=self._threads)) is not None:
                last = answer
                if "progress" in answer:
                    await self._report(str(answer["progress"]))
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(cast(Any, answers).close)
        return last

    async def _report(self, stage: str) -> None:
        context = self._server.request_context
        token = context.meta.progressToken if context.meta else None
        if token is not None:
            tell = context.session.send_progress_notification
            await tell(token, 0, message=stage, related_request_id=str(context.request_id))

    def _read(self, endpoint: Endpoint, arguments: dict[str, Any]) -> Arguments:
        """Give the arguments of a call their defaults. Raises: MarigoldError for the first that is wrong."""
        given = endpoint.read(arguments)
        files = {name: self._file(name, str(given[name])) for name in endpoint.files if given[name] is not None}
        if found := fault(endpoint, {**given, **files}):
            raise SettingsError(found[1])
        return {**given, **files}

    def _file(self, name: str, address: str) -> str:
        """Find the file that an address names -> its path. Raises: ImageError."""
        if address == NO_BASE64:
            raise ImageError(f"The data: URL of the argument {name} is not valid base64.")
        with suppress(ValueError):  # no address, or a path with a character that none has
            _, found, path = unquote(urlsplit(address).path).partition(FILE_ROUTE)
            file = Path(path).resolve()
            if found and file.is_relative_to(self._folder) and os.path.isfile(file):  # also where it is too long
                os.utime(file)  # a use: what is not used is cleared
                return str(file)
        raise ImageError(text.FILE_ADDRESS.format(name=name, address=ADDRESS))

    @property
    def _request(self) -> Any:
        return self._server.request_context.request


def _find(name: str) -> Endpoint:
    for endpoint in ENDPOINTS:
        if endpoint.name == name:
            return endpoint
    raise SettingsError(f"There is no tool {name!r}; there are {', '.join(one.name for one in ENDPOINTS)}.")


def _schema(endpoint: Endpoint) -> dict[str, Any]:
    """Write what a tool takes as a JSON schema."""
    files = {name: {"type": "string", "description": f"{about}: {ADDRESS}"} for name, about in endpoint.files.items()}
    return {"type": "object", "properties": {**files, **endpoint.schemas()}, "required": [next(iter(files))]}


def _root(request: Any) -> str:
    """Return the address of this server as the client knows it."""
    return str(request.base_url).rstrip("/")


def _result(answer: Answer, root: str) -> types.CallToolResult:
    """Write an answer for a client: its values with files by address, and a small picture."""
    files: dict[str, dict[str, Any]] = {name: value for name, value in answer.items() if "orig_name" in value}
    values = {**answer, **{name: f"{root}{file['url']}" for name, file in files.items()}}
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=json.dumps(values, indent=1))]
    for name in PICTURES:
        if name in files:
            content.append(_picture(Path(files[name]["path"])))
    return types.CallToolResult(content=content, structuredContent=values)


def _picture(path: Path) -> types.ImageContent:
    picture, file = Image.open(path).convert("RGB"), BytesIO()
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    picture.save(file, "PNG")
    return types.ImageContent(type="image", data=base64.b64encode(file.getvalue()).decode(), mimeType="image/png")
