"""Runs the command line: ``python -m marigold_core predict photo.jpg -o results``."""

import sys

from .cli import main

sys.exit(main(sys.argv[1:]))
