"""The endpoints as tools for programs that speak the Model Context Protocol (MCP), over streamable HTTP.

Names, arguments, ranges and descriptions are those of the table of endpoints. Gradio's own MCP server is not used:
there a call that its client cancels runs on, and photos would be fetched from any address.
"""

import base64
import binascii
import json
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import gradio as gr
from anyio import CancelScope, CapacityLimiter, ClosedResourceError, to_thread
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from PIL import Image
from starlette.types import Receive, Scope, Send

from marigold_core import __version__
from marigold_core.errors import ImageError, SettingsError
from marigold_core.serving.api.answers import Answer
from marigold_core.serving.api.arguments import Arguments
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINTS, Endpoint
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import MODEL
from marigold_core.ui.middleware import MCP_LIMIT

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
UPLOADED = "the address of a file that was uploaded to this server"
ADDRESS = f"a data: URL with base64, or {UPLOADED}"


def _is_fault(record: logging.LogRecord) -> bool:
    """Tell whether a record of the protocol's library says more than that a client has gone."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClosedResourceError))


logging.getLogger("mcp.server.streamable_http").addFilter(_is_fault)  # it prints a trace whenever one goes


class McpTools:
    """An ASGI application that answers MCP clients; ``lifespan`` must be entered before its first request."""

    def __init__(self, service: Service, folder: Path) -> None:
        """Serve the endpoints with a service; ``folder`` is where the server keeps uploads."""
        self._service, self._folder = service, folder.resolve()
        self._threads: CapacityLimiter | None = None
        self._server = Server[object]("marigold-depth", version=__version__, instructions=INSTRUCTIONS)
        self._server.list_tools()(self._list)  # pyright: ignore[reportUnknownMemberType]
        self._server.call_tool(validate_input=False)(self._call)  # our own sentences are easier to follow
        self._sessions = StreamableHTTPSessionManager(self._server, max_request_body_size=MCP_LIMIT)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Hold the sessions of clients while the server runs."""
        self._threads = CapacityLimiter(MODEL["concurrency_limit"])
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._sessions.handle_request(scope, receive, send)

    async def _list(self) -> list[types.Tool]:
        return [
            types.Tool(name=endpoint.name, description=endpoint.description, inputSchema=_schema(endpoint))
            for endpoint in ENDPOINTS
        ]

    async def _call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Run an endpoint and tell its progress; a client that cancels stops the job before its next step."""
        try:
            with translate_errors():
                endpoint = _find(name)
                answers = endpoint.answers(self._service, self._read(endpoint, arguments))
                answer = await self._last(answers)
                return _result(answer, _root(self._request))
        except gr.Error as error:
            return types.CallToolResult(content=[types.TextContent(type="text", text=error.message)], isError=True)

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

    def _file(self, name: str, address: str) -> bytes | str:
        """Find the file that an address names -> its bytes, or its path. Raises: ImageError."""
        kind, _, content = address.partition(",")
        if kind.startswith("data:") and kind.endswith(";base64") and name != "video":  # which is read from a file
            try:
                return base64.b64decode(content, validate=True)
            except binascii.Error:
                raise ImageError(f"The data: URL of the argument {name} is not valid base64.") from None
        with suppress(ValueError):  # no address, or a path with a character that none has
            _, found, path = unquote(urlsplit(address).path).partition(FILE_ROUTE)
            file = Path(path).resolve()
            if found and file.is_relative_to(self._folder) and os.path.isfile(file):  # also where it is too long
                return str(file)
        raise ImageError(text.FILE_ADDRESS.format(name=name, address=_address(name)))

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
    files = {
        name: {"type": "string", "description": f"{about}: {_address(name)}"} for name, about in endpoint.files.items()
    }
    return {"type": "object", "properties": {**files, **endpoint.schemas()}, "required": [next(iter(files))]}


def _address(name: str) -> str:
    return UPLOADED if name == "video" else ADDRESS


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
