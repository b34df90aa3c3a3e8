"""Opens the web app from a checkout: ``python app.py``; a hosted Space runs the same file."""

import contextlib
import importlib

with contextlib.suppress(ImportError):
    importlib.import_module("spaces")  # ZeroGPU hosts want it before torch

from marigold_core.ui.launch import main

if __name__ == "__main__":
    main()
