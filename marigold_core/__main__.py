"""Runs the command line: ``python -m marigold_core predict photo.jpg -o results``."""

import sys

from marigold_core.cli import main
from marigold_core.options import for_a_reader

sys.exit(for_a_reader(lambda: main(sys.argv[1:])))
