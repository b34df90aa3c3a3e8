"""Starting the app: where it cannot listen."""

import signal

from marigold_core.cli import console, main
from marigold_core.ui import page


class Taken:
    """A page whose port is in use: Gradio then raises OSError."""

    def launch(self, server_name, server_port, **_):
        assert (server_name, server_port) == (None, 7861)
        raise OSError("Cannot find empty port in range: 7861-7861.")


def test_a_port_in_use_is_named_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(page, "build", lambda service: Taken())
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["demo", "--port", "7861"]) == console.USAGE
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "the port is in use" in capsys.readouterr().err
