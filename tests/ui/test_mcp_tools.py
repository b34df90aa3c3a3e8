"""The tools as a real MCP client finds them: listed, called, refused, followed and cancelled."""

import base64
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx
import numpy as np
import pytest
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError
from PIL import Image

from marigold_core import Settings, load
from marigold_core.serving.api.endpoints import ENDPOINTS
from marigold_core.serving.request_body import JSON_LIMIT, RefusedError
from marigold_core.ui import mcp_tools
from tests.helpers.app_server import serve

pytestmark = pytest.mark.slow

QUICK = {"num_inference_steps": 1, "processing_resolution": 64}


@pytest.fixture(scope="module")
def server(url: str, tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:  # after ``url``, which has no such switch
        patch.setenv("GRADIO_MCP_SERVER", "true")
        with serve(str(tiny_depth), tmp_path_factory.mktemp("mcp")) as address:
            yield address


@pytest.fixture(scope="module")
def picture(photo: Callable[..., np.ndarray]) -> bytes:
    file = BytesIO()
    Image.fromarray(photo(48, 64)).save(file, "PNG")
    return file.getvalue()


def upload(server: str, picture: bytes) -> str:
    """Upload a photo -> its address."""
    path = httpx.post(f"{server}/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    return f"{server}/gradio_api/file={path}"


def inline(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def talk(server: str, work: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    """Do something in a session of its own."""

    async def run() -> Any:
        async with (
            streamable_http_client(f"{server}/gradio_api/mcp") as (read, write, _),
            ClientSession(read, write, read_timeout_seconds=timedelta(seconds=120)) as session,
        ):
            await session.initialize()
            return await work(session)

    return anyio.run(run)


def call(server: str, name: str, **arguments: Any) -> types.CallToolResult:
    return talk(server, lambda session: session.call_tool(name, arguments))


def test_every_endpoint_is_a_tool_with_its_arguments(server: str) -> None:
    tools = talk(server, lambda session: session.list_tools()).tools
    assert [tool.name for tool in tools] == [endpoint.name for endpoint in ENDPOINTS]
    for tool, endpoint in zip(tools, ENDPOINTS, strict=True):
        properties = tool.inputSchema["properties"]
        assert list(properties) == [*endpoint.files, *(argument.name for argument in endpoint.arguments)]
        assert tool.inputSchema["required"] == [next(iter(endpoint.files))] and tool.description == endpoint.description
    members = tools[0].inputSchema["properties"]["ensemble_size"]
    assert (members["minimum"], members["maximum"], members["default"]) == (1, 20, 1) and members["description"]


@pytest.mark.parametrize("how", ["uploaded", "inline"])
def test_a_call_returns_numbers_files_and_a_picture(server: str, picture: bytes, tiny_depth: Path, how: str) -> None:
    address = upload(server, picture) if how == "uploaded" else inline(picture)
    answer = call(server, "predict_depth", photo=address, seed=3, **QUICK)
    assert not answer.isError and answer.structuredContent is not None
    words, shown = answer.content
    assert isinstance(words, types.TextContent) and json.loads(words.text) == answer.structuredContent
    assert answer.structuredContent["manifest"]["settings"]["seed"] == 3
    found = np.load(BytesIO(httpx.get(answer.structuredContent["npy"]).content))
    expected = load(tiny_depth)(picture, Settings(seed=3, num_inference_steps=1, processing_resolution=64)).values
    np.testing.assert_allclose(found, expected, atol=1e-4)  # the server's threads may add in another order
    assert isinstance(shown, types.ImageContent)
    assert Image.open(BytesIO(base64.b64decode(shown.data))).size == (64, 48)


def test_a_depth_map_comes_as_a_second_file(server: str, picture: bytes) -> None:
    file = BytesIO()
    Image.fromarray(np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8)).save(file, "PNG")
    depth = upload(server, file.getvalue())
    answer = call(server, "import_depth", photo=inline(picture), depth=depth, unit_m=0.1, formats=["npy"])
    assert answer.structuredContent is not None and answer.structuredContent["manifest"]["kind"] == "metric"
    found = np.load(BytesIO(httpx.get(answer.structuredContent["npy"]).content))
    assert float(np.nanmax(found)) == pytest.approx(5.4, abs=0.1)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("predict_depth", {"ensemble_size": 21}, "ensemble_size must be less than or equal to 20, but got 21."),
        ("predict_depth", {"steps": 4}, "predict_depth has no argument 'steps'; it takes photo, num_inference_steps"),
        ("predict_depth", {"photo": None}, "Give a photo"),
        ("predict_depth", {"photo": "https://example.org/a.png"}, "photo must be a data: URL with base64, or the"),
        ("predict_depth", {"photo": "/etc/passwd"}, "photo must be a data: URL with base64, or the address"),
        ("predict_depth", {"photo": "http://a/gradio_api/file=/etc/passwd"}, "photo must be a data: URL with base64"),
        ("predict_depth", {"photo": "/gradio_api/file=%00"}, "photo must be a data: URL with base64, or the address"),
        ("predict_depth", {"photo": f"/gradio_api/file=/{'a' * 300}"}, "photo must be a data: URL with base64, or the"),
        ("predict_depth", {"photo": "http://[/gradio_api/file=a"}, "photo must be a data: URL with base64, or the"),
        ("predict_depth", {"photo": "data:image/png;base64,%%%"}, "is not valid base64"),
        ("predict_depth", {"photo": inline(b"no picture")}, "photo"),
        ("calibrate", {"anchors": [[1, 2]]}, "anchors"),
        ("defocus", {"focus": [64, 2]}, "The focus 64, 2 lies outside the photo of 64 x 48 pixels."),
        ("import_depth", {}, "This photo carries no depth map"),
        ("import_depth", {"depth": "/etc/passwd"}, "depth must be a data: URL with base64, or the address"),
        (
            "measure",
            {},
            f"There is no tool 'measure'; there are {', '.join(endpoint.name for endpoint in ENDPOINTS)}.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    server: str, picture: bytes, name: str, arguments: dict[str, Any], sentence: str
) -> None:
    answer = call(server, name, **{"photo": inline(picture), **arguments})
    (words,) = answer.content
    assert answer.isError and isinstance(words, types.TextContent)
    assert (
        sentence in words.text and words.text.endswith(".") and "\n" not in words.text and "Traceback" not in words.text
    )


# ------------------------------------------------------------------------------- what requests hold


def passed_on(body: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch, pieces: int = 7) -> bytes:
    """Send a request to the tools -> its body as the protocol's library gets it."""
    tools, found = mcp_tools.McpTools(cast(Any, None), folder), list[bytes]()
    size = -(-len(body) // pieces)
    parts = [body[start : start + size] for start in range(0, len(body), size)]

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        found.append((await receive())["body"])
        assert dict(scope["headers"])[b"content-length"] == str(len(found[0])).encode()

    monkeypatch.setattr(tools._sessions, "handle_request", handle)
    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", str(len(body)).encode())]}
    anyio.run(tools, scope, receive, cast(Any, None))
    return found[0]


@pytest.mark.parametrize("escape", [lambda text: text, lambda text: text.replace("/", "\\/").replace("+", "\\u002B")])
def test_a_file_in_a_request_is_put_with_the_uploads_and_not_held(
    escape: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    asked = {"params": {"arguments": {"photo": inline(content), "text": 'of "data:image/png;base64,AAAA"'}}}
    for _ in range(2):  # the same file is kept once
        told = json.loads(passed_on(escape(json.dumps(asked)).encode(), tmp_path, monkeypatch))
        address = told["params"]["arguments"]["photo"]
        assert told["params"]["arguments"]["text"] == asked["params"]["arguments"]["text"]
        (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
        assert address == f"/gradio_api/file={file}" and file.read_bytes() == content
    assert mcp_tools.McpTools(cast(Any, None), tmp_path)._file("photo", address) == str(file)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"photo": "x" * JSON_LIMIT}, 413),
        ({name: f"data:;base64,{'AAAA' * 50_000}" for name in ("photo", "depth", "more", "and more")}, 413),
        ({"photo": f"data:image/png,{'A' * JSON_LIMIT}"}, 413),
        ({"photo": "data:;base64,AAAA", "full": True}, 507),
    ],
)
def test_what_else_is_large_is_refused(
    arguments: dict[str, Any], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments.get("full"):
        monkeypatch.setattr(mcp_tools, "has_room", lambda folder: False)
    with pytest.raises(RefusedError) as refused:
        passed_on(json.dumps({"params": {"arguments": arguments}}).encode(), tmp_path, monkeypatch)
    assert refused.value.status == status and len([*tmp_path.rglob("file")]) <= 2


def test_calls_are_read_beside_the_server_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo or depth map that takes long to read would hold up every other visitor."""
    tools, threads = mcp_tools.McpTools(cast(Any, None), tmp_path), list[int]()
    monkeypatch.setattr(mcp_tools.McpTools, "_request", SimpleNamespace(base_url="http://a"))
    monkeypatch.setattr(tools, "_read", lambda *_: threads.append(threading.get_ident()))
    answers = SimpleNamespace(answers=lambda *_: (one for one in [{"done": "yes"}]))
    monkeypatch.setattr(mcp_tools, "_find", lambda _: answers)
    assert anyio.run(tools._call, "predict_depth", {}).structuredContent == {"done": "yes"}
    assert threads and threads[0] != threading.get_ident()
    monkeypatch.setattr(mcp_tools, "MAX_WAITING", -mcp_tools.MODEL["concurrency_limit"])
    refused = anyio.run(tools._call, "predict_depth", {})
    (words,) = refused.content
    assert refused.isError and isinstance(words, types.TextContent)
    assert words.text == "Too many jobs are waiting already; try again in half a minute."


def test_a_call_in_the_model_waits_for_no_thread_of_those_in_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of a hundred had its turn only when all others had waited for a moment, step by step."""
    most, begun, held = 2, list[int](), list[int]()
    monkeypatch.setitem(mcp_tools.MODEL, "concurrency_limit", most)
    tools = mcp_tools.McpTools(cast(Any, None), tmp_path)
    monkeypatch.setattr(mcp_tools.McpTools, "_request", SimpleNamespace(base_url="http://a"))
    monkeypatch.setattr(tools, "_read", lambda *_: {})

    async def told(stage: str) -> None:
        pass

    monkeypatch.setattr(tools, "_report", told)

    def answers(*_: object) -> Iterator[dict[str, str]]:
        begun.append(1)
        for step in range(5):
            time.sleep(0.01)
            held.append(len(begun))
            yield {"progress": str(step)}
        begun.pop()
        yield {"done": "yes"}

    monkeypatch.setattr(mcp_tools, "_find", lambda _: SimpleNamespace(answers=answers))

    async def call() -> None:
        answer = await tools._call("predict_depth", {})
        assert answer.structuredContent == {"done": "yes"}

    async def ask() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(call)

    anyio.run(ask)
    assert len(held) == 5 * 8 and max(held) == most


def test_a_long_call_tells_its_progress_and_ends_when_it_is_cancelled(server: str, picture: bytes) -> None:
    stages: list[str | None] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        stages.append(message)

    async def run_long(session: ClientSession) -> None:
        long = {"photo": inline(picture), "num_inference_steps": 50, "ensemble_size": 20, "processing_resolution": 512}
        with pytest.raises(McpError, match="cancelled"):
            await session.call_tool("predict_depth", long, progress_callback=told)

    async def work(session: ClientSession) -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(run_long, session)
            with anyio.fail_after(60):
                while len(stages) < 3:
                    await anyio.sleep(0.05)
            # The first request of a session is its initialisation, the second the call.
            notice = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=1))
            await session.send_notification(types.ClientNotification(notice))
            began = time.monotonic()
            await session.call_tool("predict_depth", {"photo": inline(picture), **QUICK})
            seconds = time.monotonic() - began
        return seconds

    assert talk(server, work) < 30  # the long call alone would take minutes
    assert any("step" in str(stage) for stage in stages)


def test_pages_of_other_servers_are_refused_and_without_the_switch_there_is_nothing(server: str, url: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    foreign = httpx.post(f"{server}/gradio_api/mcp", json=body, headers={**headers, "Origin": "https://example.org"})
    assert foreign.status_code == 403 and "another server" in foreign.json()["detail"]
    own = httpx.post(f"{server}/gradio_api/mcp", json=body, headers={**headers, "Origin": server})
    assert own.status_code != 403
    assert httpx.post(f"{url}/gradio_api/mcp", json=body, headers=headers).status_code == 404


@pytest.mark.parametrize(("error", "printed"), [(anyio.ClosedResourceError(), 0), (OSError(), 1)])
def test_a_client_that_goes_leaves_no_trace_in_the_log(
    error: Exception, printed: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert mcp_tools  # its import sets the filter
    logging.getLogger("mcp.server.streamable_http").error("Error in standalone SSE writer", exc_info=error)
    assert len(caplog.records) == printed
