"""The real app in a process of its own, as a person starts it, and a real Chromium to look at it: fixtures for all."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from marigold_core import PRESETS

if TYPE_CHECKING:
    from gradio_client import Client
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

ROOT = Path(__file__).resolve().parents[2]
START_S = 240  # on a busy machine; a quiet one needs five
STOP_S = 60  # likewise

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PATIENCE_MS = 120_000  # software rendering on a busy machine
BEGUN = "An example, computed beforehand"  # what the status line says of a page that is ready
# How Gradio logs streams that end because their page is loaded anew.
OF_LEAVING = ("AbortError: BodyStreamBuffer was aborted", "Unexpected error Connection errored out")
# How the viewer of shapes logs that it was given a newer one while it was still loading.
OF_HURRY = "AbortError: New model is being loaded before previous model finished loading"

in_chromium = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium"),
]


@contextmanager
def serve(
    checkpoint: str,
    folder: Path,
    command: Sequence[str | Path] = (sys.executable, "app.py"),
    cwd: Path = ROOT,
    port: int | None = None,
    last: signal.Signals = signal.SIGTERM,
) -> Iterator[str]:
    """Run the app with ``checkpoint`` as its default, by default on a free port -> its address.

    Its files lie in ``folder``; the signal ``last`` ends it.
    """
    port = port or free_port()
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "work"),
        "MARIGOLD_MODEL": checkpoint,
    }
    log = folder / f"server-{port}.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(server, url, log)
        yield url
    finally:
        server.send_signal(last)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()  # no test leaves a process behind
            raise


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the page did not come up:\n{log.read_text()}")


# ------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def url(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all who do not start their own, as one serves many visitors."""
    with serve(str(tiny_depth), tmp_path_factory.mktemp("app")) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> "Client":
    """A program that calls the endpoints."""
    from gradio_client import Client

    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: "Browser", url: str) -> "Iterator[Page]":
    """An open page that fails the test when anything leaves this machine or is logged as an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    with looking(context, url) as opened:
        yield opened


@pytest.fixture(scope="module")
def picture(photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo, 120 x 90 pixels."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(photo(90, 120)).save(path)
    return path


@contextmanager
def looking(context: "BrowserContext", url: str) -> "Iterator[Page]":
    """Open ``url`` and wait until it is ready; afterwards nothing may have left this machine or been an error."""
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    outside, errors, visited = [], [], []
    own = (url.partition("?")[0], "data:", "blob:")
    opened.on("request", lambda request: outside.append(request.url) if not request.url.startswith(own) else None)
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("framenavigated", lambda frame: visited.append(frame.url))
    opened.goto(url)
    opened.locator("#status").get_by_text(BEGUN).wait_for()
    yield opened
    context.close()
    assert outside == []
    usual = (OF_HURRY, *OF_LEAVING) if len(visited) > 1 else OF_HURRY
    assert [error for error in errors if not error.startswith(usual)] == []


@contextmanager
def unanswered(page: "Page", address: str = "**/queue/join?*") -> Iterator[None]:
    """Hold back what the page sends there until the end: what happens meanwhile is the browser's own work."""
    held: list[Route] = []
    is_over = False

    def hold(route: "Route") -> None:
        if is_over:
            route.continue_()
        else:
            held.append(route)

    page.route(address, hold)
    yield
    is_over = True
    for route in held:
        route.continue_()
    page.unroute(address)


def choose(page: "Page", preset: str) -> None:
    """Choose a preset and wait until the page has taken it over; a test is faster than the browser draws."""
    values = PRESETS[preset]
    page.get_by_label(preset.capitalize()).check()
    taken = f"{values['num_inference_steps']} step.*, {values['ensemble_size']} member"
    page.locator("#cost").get_by_text(re.compile(taken)).wait_for()


def unfold(page: "Page", fold: "Locator") -> None:
    """Open a fold and let the page draw what is in it: what is typed while its widgets appear is lost."""
    fold.click()
    # The time is counted in the page, behind what it has to draw, so that a busy machine waits longer.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 500)))")


def upload(page: "Page", picture: Path) -> None:
    """Give the page a photo, which starts a run."""
    page.locator("#photo input[type=file]").set_input_files(picture)
