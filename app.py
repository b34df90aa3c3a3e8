"""Opens the web app from a checkout: ``python app.py``; a hosted Space runs the same file."""

from marigold_core.ui.launch import main

if __name__ == "__main__":
    main()
