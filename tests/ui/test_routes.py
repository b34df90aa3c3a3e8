"""Every route of Gradio is known here, and is open or shut on purpose; one that a later Gradio adds fails the test."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.routes import App

from marigold_core.ui.middleware import allowed

OPEN = """
/ /assets/{path:path} /config /favicon.ico /manifest.json /robots.txt /static/{path:path} /svelte/{path:path}
/theme.css /gradio_api/app_id /gradio_api/call/v2/{api_name} /gradio_api/call/v2/{api_name}/{event_id}
/gradio_api/call/{api_name} /gradio_api/call/{api_name}/{event_id} /gradio_api/cancel
/gradio_api/file={path_or_url:path} /gradio_api/heartbeat/{session_hash} /gradio_api/info /gradio_api/queue/data
/gradio_api/queue/join /gradio_api/reset /gradio_api/startup-events /gradio_api/theme.css /gradio_api/upload
/gradio_api/upload_progress
""".split()  # noqa: SIM905
SHUT = """
/login /logout /monitoring /monitoring/summary /monitoring/{key} /openapi.json /pwa_icon /pwa_icon/{size}
/gradio_api/api/{api_name} /gradio_api/component_server /gradio_api/deep_link /gradio_api/dev/reload
/gradio_api/custom_component/{id}/{environment}/{type}/{file_name} /gradio_api/file/{path:path}
/gradio_api/login_check /gradio_api/openapi.json /gradio_api/process_recording /gradio_api/proxy={url_path:path}
/gradio_api/queue/status /gradio_api/run-history/buckets /gradio_api/run-history/connect
/gradio_api/run-history/records /gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}
/gradio_api/run/{api_name} /gradio_api/runs /gradio_api/stream/{event_id} /gradio_api/stream/{event_id}/close
/gradio_api/token /gradio_api/undo-vibe-edit /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file
/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8
/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext} /gradio_api/user /gradio_api/vibe-code
/gradio_api/vibe-edit /gradio_api/vibe-starter-queries
""".split()  # noqa: SIM905


def paths(routes: Sequence[Any]) -> Iterator[str]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from paths(included.routes)
        else:
            yield route.path.rstrip("/") or "/"


def test_every_route_is_known_and_open_or_shut_on_purpose() -> None:
    async def make() -> App:
        with gr.Blocks() as page:
            gr.Button()
        return App.create_app(page)

    app = asyncio.run(make())
    assert set(paths(app.routes)) == {*OPEN, *SHUT}
    assert [path for path in OPEN if not allowed(path)] == []
    assert [path for path in SHUT if allowed(path)] == []
