"""The command line, one file a command."""

from marigold_core.cli.console import ALL_DONE, CHECKPOINT, INTERRUPTED, SOME_FAILED, USAGE
from marigold_core.cli.entry import main

__all__ = ["ALL_DONE", "CHECKPOINT", "INTERRUPTED", "SOME_FAILED", "USAGE", "main"]
