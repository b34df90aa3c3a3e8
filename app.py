"""The web app: ``python app.py`` opens the studio on this machine; a hosted Space runs the same file.

The page is up before the model: loading begins on a thread of its own while the page is being drawn.
"""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path

with contextlib.suppress(ImportError):
    importlib.import_module("spaces")  # ZeroGPU hosts want it before torch

# Read by the libraries when they are imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")

WORK_FOLDER = tempfile.TemporaryDirectory(prefix="marigold-")  # uploads and exports; gone when the process ends
os.environ.setdefault("GRADIO_TEMP_DIR", WORK_FOLDER.name)

PHOTO_LIMIT = "40mb"


def main() -> None:
    """Start loading the default checkpoint, draw the page and serve it until interrupted."""
    from marigold_core.checkpoints.registry import default_checkpoint
    from marigold_core.serving.jobs import Service

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop from outside cleans up as Ctrl-C does
    service = Service(Path(os.environ["GRADIO_TEMP_DIR"]) / "results")
    service.warm(default_checkpoint())

    from starlette.middleware import Middleware

    from marigold_core.ui import build
    from marigold_core.ui.middleware import Guard
    from marigold_core.ui.theme import CSS, FAVICON, HEAD, theme

    build(service).launch(
        theme=theme(),
        css_paths=CSS,
        head=HEAD,
        favicon_path=FAVICON,
        footer_links=["api", "settings"],
        inbrowser=at_a_desktop(),
        share=False,
        show_error=False,  # our own sentences still reach the page; anything else could carry paths
        strict_cors=True,
        max_file_size=PHOTO_LIMIT,
        blocked_paths=["/proc", "/root", "/etc"],
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        max_threads=16,
        state_session_capacity=1000,
        app_kwargs={"middleware": [Middleware(Guard)], "docs_url": None, "redoc_url": None, "openapi_url": None},
    )


def at_a_desktop() -> bool:
    """Tell whether a person started this in a terminal of the machine whose browser would open."""
    remote = "SPACE_ID" in os.environ or "SSH_CONNECTION" in os.environ
    display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return sys.stdout.isatty() and display and not remote


if __name__ == "__main__":
    main()
