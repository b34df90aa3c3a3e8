"""What Gradio keeps of a visit: the values of its state, which are ids, and nothing that the page itself is."""

from collections import ChainMap
from types import SimpleNamespace
from typing import Any

from gradio import state_holder
from gradio.blocks import Blocks


class Dropped(dict[int, Any]):
    """Takes descriptions of components and keeps none."""

    def __setitem__(self, key: int, value: Any) -> None:
        """Keep nothing."""

    def __missing__(self, key: int) -> dict[str, Any]:
        """Describe nothing."""
        return {}


class Session(state_holder.SessionState):
    """A visit without the description of every component, .6 MiB, from which deep links are made, which are shut.

    The components of the page are those of all visits, but for those that a visit has changed.
    """

    def __init__(self, blocks: Blocks) -> None:
        """Begin a visit."""
        only_these: Any = SimpleNamespace(default_config=blocks.default_config, blocks=())
        super().__init__(only_these)
        self.config_values = Dropped()
        # Copies of what a visit changes little or nothing of, 27 KiB, give way to what it changes.
        config: Any = self.blocks_config
        page: Any = blocks.default_config
        config.blocks, config.fns = ChainMap({}, page.blocks), ChainMap({}, page.fns)


def keep_little() -> None:
    """Let Gradio keep visits as ``Session``."""
    state_holder.SessionState = Session
