"""The command ``demo``: the web app."""

import os
from importlib.util import find_spec

from pydantic import Field

from marigold_core.cli.console import ALL_DONE
from marigold_core.errors import MarigoldError
from marigold_core.settings import Frozen


class ServerOptions(Frozen):
    """What the app offers beside its page and its endpoints."""

    host: str | None = Field(
        None, description="address to listen at, 0.0.0.0 for others too; auto: $GRADIO_SERVER_NAME, else this machine"
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="port to listen at; auto: $GRADIO_SERVER_PORT, or the first that is free from 7860 on",
    )
    mcp: bool = Field(False, description="offer the endpoints as tools to MCP clients too, at /gradio_api/mcp")


def demo(server: ServerOptions) -> int:
    """Open the app in the browser: a page that predicts, measures and compares, and its HTTP endpoints.

    It needs the extra "app": pip install 'marigold-depth-studio[app]'.
    """
    if find_spec("gradio") is None:
        raise MarigoldError("The app needs Gradio, which is not installed: pip install 'marigold-depth-studio[app]'.")
    from marigold_core.ui import launch

    if server.mcp:
        os.environ["GRADIO_MCP_SERVER"] = "true"
    launch.main(server.host, server.port)
    return ALL_DONE
