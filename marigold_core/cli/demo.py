"""The command ``demo``: the web app."""

from importlib.util import find_spec

from marigold_core.cli.console import ALL_DONE
from marigold_core.errors import MarigoldError


def demo() -> int:
    """Open the app in the browser: a page that predicts, measures and compares, and its HTTP endpoints.

    It needs the extra "app": pip install 'marigold-depth-studio[app]'.
    """
    if find_spec("gradio") is None:
        raise MarigoldError("The app needs Gradio, which is not installed: pip install 'marigold-depth-studio[app]'.")
    from marigold_core.ui import launch

    launch.main()
    return ALL_DONE
