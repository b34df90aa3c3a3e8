"""The web app: page, HTTP endpoints and what serves them; the only package that imports Gradio."""
