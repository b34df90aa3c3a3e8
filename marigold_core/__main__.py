"""Runs the command line: ``python -m marigold_core predict photo.jpg -o results``."""

import sys

from marigold_core.cli import main
from marigold_core.options import for_a_reader


def run() -> None:
    """Run the command line that the process was started with, and exit with its status."""
    sys.exit(for_a_reader(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    run()
