"""Starting the app: where it cannot listen, and what it cannot serve."""

import signal

import pytest

from marigold_core.cli import console, main
from marigold_core.serving import work_folder
from marigold_core.ui import launch, page


class Taken:
    """A page whose port is in use: Gradio then raises OSError."""

    def launch(self, server_name, server_port, **_):
        assert (server_name, server_port) == (None, 7861)
        raise OSError("Cannot find empty port in range: 7861-7861.")


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("MODEL", "nano", console.USAGE, "The app cannot listen there: the port is in use"),
        ("MODEL", "/nope", console.CHECKPOINT, "MARIGOLD_MODEL names what cannot be used: There is no checkpoint"),
        ("MODEL", "tests", console.CHECKPOINT, "MARIGOLD_MODEL names what cannot be used: The folder 'tests'"),
        ("TINY_AUTOENCODER", "/nope", console.CHECKPOINT, "There is no tiny autoencoder '/nope'"),
        ("DTYPE", "float8", console.USAGE, "The dtype 'float8' is unknown"),
        ("COMPILE", "yes", console.USAGE, "MARIGOLD_COMPILE must be"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is(monkeypatch, capsys, name, value, status, said):
    monkeypatch.setattr(page, "build", lambda service: Taken())
    monkeypatch.setattr(work_folder.Janitor, "work_for_ever", lambda _: None)  # it would outlive this page
    monkeypatch.setenv(f"MARIGOLD_{name}", value)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["demo", "--port", "7861"]) == status
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith(said)


def test_more_pages_may_be_open_than_many_systems_begin_with():
    """Each holds a connection, which is a file of the process."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        launch._allow_connections()
        most = launch.MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, launch.MOST_FILES)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
