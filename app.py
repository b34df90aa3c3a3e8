"""Opens the web app from a checkout: ``python app.py``; a hosted Space runs the same file."""

from marigold_core.__main__ import run

if __name__ == "__main__":
    run(["demo"])
