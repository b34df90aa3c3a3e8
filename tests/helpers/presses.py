"""What a visitor presses, without a browser."""

from typing import Any

from marigold_core.ui.run_controller import JobTab, Update


def press_stop(tab: JobTab, values: dict[Any, Any]) -> Update:
    """Note the press and answer it, as the page does in two events."""
    values[tab.current].halt()
    return tab.end(values)
