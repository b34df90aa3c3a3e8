"""Starts the web app: ``marigold-depth demo`` and ``app.py`` of a checkout or a hosted Space call ``main``.

Gradio and the hub's client read the environment when they are imported, so this module imports neither at its top.
"""

import importlib
import importlib.util
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from marigold_core.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from marigold_core.serving.jobs import Service
    from marigold_core.ui.mcp_tools import McpTools

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_ETAG_TIMEOUT": "10",
    "HF_HUB_DOWNLOAD_TIMEOUT": "30",
}
PHOTO_LIMIT = "40mb"
TOLD_S = 3.0
MOST_FILES = 65_536  # that are asked for, connections among them


def main(host: str | None = None, port: int | None = None) -> None:
    """Load the default checkpoint, draw the page and serve it until interrupted.

    Without a host or port it is served where Gradio's own variables say.
    On a machine of its own loading begins on a thread while the page is drawn; a host that lends its GPU wants the
    checkpoints loaded on the main thread before.

    Raises: CheckpointError when the default checkpoint cannot be used, or on such a host when one cannot be loaded;
    SettingsError when a part is asked for that is not installed, the address is not to be had, or a variable of the
    environment holds what it cannot mean.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop from outside cleans up as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="marigold-") as work_folder:  # uploads and exports
        for name, value in {**ENVIRONMENT, "GRADIO_TEMP_DIR": work_folder}.items():
            os.environ.setdefault(name, value)
        _serve(Path(os.environ["GRADIO_TEMP_DIR"]), host, port)


def _serve(folder: Path, host: str | None, port: int | None) -> None:
    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.serving import hosting, work_folder

    if hosting.is_zero_gpu():
        importlib.import_module("spaces")  # before torch, whose device it emulates
        from marigold_core.serving.zero_gpu import place

        loader = place(hosting.hosted_checkpoints())
    else:
        from marigold_core import load as loader
    # All of it before the thread that loads the checkpoint: two that import at once may meet half a module.
    importlib.import_module("marigold_core.pipeline.pipeline")
    from starlette.middleware import Middleware

    from marigold_core.serving.jobs import Service
    from marigold_core.ui.api.requests import CallReader, waiting_files
    from marigold_core.ui.events import MODEL_QUEUES
    from marigold_core.ui.middleware import RequestFilter
    from marigold_core.ui.page import build
    from marigold_core.ui.photo_previews import PhotoPreviews
    from marigold_core.ui.sessions import keep_little
    from marigold_core.ui.theme import CSS, FAVICON, HEAD, theme

    if not hosting.is_zero_gpu():
        _check_variables()
    keep_little()
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder / work_folder.RESULTS, loader=loader, device_lost=_end_soon)
    service.warm(default_checkpoint())
    tools = _tools(service, folder)
    _allow_connections()
    began = time.time()
    page = build(service)
    drawn = [file for file in folder.glob("*/*") if file.stat().st_ctime >= began - 1]  # made or taken again by Gradio
    work_folder.Janitor(folder, drawn, lambda: waiting_files(page)).work_for_ever()
    try:
        page.launch(
            server_name=host,
            server_port=port,
            theme=theme(),
            css_paths=CSS,
            head=HEAD,
            favicon_path=FAVICON,
            footer_links=["api", "settings"],
            inbrowser=_at_a_desktop(),
            share=False,
            show_error=False,  # our own sentences still reach the page; anything else could carry paths
            strict_cors=True,
            max_file_size=PHOTO_LIMIT,
            blocked_paths=["/proc", "/root", "/etc"],
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,  # ours is another one
            ssr_mode=False,
            _frontend=False,  # Gradio would end on a busy machine: it asks its own page for an answer within 3 s
            max_threads=sum(MODEL_QUEUES.values()) + 16,  # a job that waits for the model holds one
            state_session_capacity=1000,
            app_kwargs={
                "middleware": [
                    Middleware(RequestFilter, folder=folder, tools=tools),
                    Middleware(CallReader),
                    Middleware(PhotoPreviews),
                ],
                **({"lifespan": tools.lifespan} if tools else {}),
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
        )
    except OSError as error:
        raise SettingsError(
            "The app cannot listen there: the port is in use, or the address is none of this machine's. "
            "Choose others with --port and --host, or $GRADIO_SERVER_PORT and $GRADIO_SERVER_NAME."
        ) from error


def _allow_connections() -> None:
    """Let as many pages be open as the system allows; many systems begin with 1,024 files of a process.

    A page holds a connection for as long as it is open, and another one while it waits.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _check_variables() -> None:
    """Refuse variables of the environment that would let no run begin; what is to be downloaded is taken as right."""
    from marigold_core.checkpoints.registry import HUB_ID, default_checkpoint, find_here, find_tiny_autoencoder
    from marigold_core.pipeline.loading import compiles_by_default, pick_device, pick_dtype

    try:
        find_here(default_checkpoint())
    except CheckpointError as error:
        raise CheckpointError(f"MARIGOLD_MODEL names what cannot be used: {error}") from None
    tiny = os.environ.get("MARIGOLD_TINY_AUTOENCODER")
    if tiny and (os.path.exists(tiny) or not HUB_ID.fullmatch(tiny)):
        find_tiny_autoencoder(tiny)
    pick_dtype("auto", pick_device("auto"))
    compiles_by_default()


def _end_soon() -> None:
    """End the program once the visitor was told: the host starts it again, and only then the GPU works again."""
    threading.Timer(TOLD_S, os._exit, (1,)).start()


def _tools(service: "Service", folder: Path) -> "McpTools | None":
    """Make the MCP server where $GRADIO_MCP_SERVER, Gradio's own switch, asks for it.

    Raises: SettingsError when the extra it needs is not installed.
    """
    if os.environ.get("GRADIO_MCP_SERVER", "").lower() not in ("1", "true"):
        return None
    if importlib.util.find_spec("mcp") is None:
        raise SettingsError("The MCP server needs an extra: pip install 'marigold-depth-studio[app,mcp]'.")
    from marigold_core.ui.mcp_tools import McpTools

    return McpTools(service, folder)


def _at_a_desktop() -> bool:
    """Return whether a person started this in a terminal of the machine whose browser would open."""
    remote = "SPACE_ID" in os.environ or "SSH_CONNECTION" in os.environ
    display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return sys.stdout.isatty() and display and not remote
