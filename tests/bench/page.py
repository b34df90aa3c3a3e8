"""The same work in the page and over HTTP, with Chromium on the machine of the server: what the page costs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.bench.stages import photo
from tests.bench.timing import Row, seconds
from tests.helpers.app_server import CHROMIUM, FLAGS, choose, looking, serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = (640, 480)
CAREFUL: dict[str, Any] = {"num_inference_steps": 4, "ensemble_size": 10}
GRID: dict[str, Any] = {"steps": [1, 4, 10], "sizes": [1, 5], "seeds": [0]}  # what the page offers at first
RUN = """async ([button, line, ended]) => {
    const status = document.querySelector(line), began = performance.now();
    let begun = false;
    const end = new Promise((done) => {
        new MutationObserver((_, watching) => {
            const isOver = new RegExp(ended).test(status.innerText);
            begun ||= !isOver;
            if (begun && isOver) done(watching.disconnect());
        }).observe(status, { childList: true, subtree: true, characterData: true });
    });
    document.querySelector(button).click();
    await end;
    await new Promise(requestAnimationFrame);
    await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
    return (performance.now() - began) / 1000;
}"""  # the seconds from a click until the status line says that it is done and all pictures are drawn


def measure_in_page(checkpoint: str, repeats: int) -> list[Row]:
    """Time a careful run of a photo and a grid in the page and, as theirs, over HTTP, by turns."""
    rows = [
        Row("-", f"careful run of {SIZE[0]}x{SIZE[1]} in the page, against HTTP", "s", [], []),
        Row("-", f"grid of {len(GRID['steps'])} x {len(GRID['sizes'])} in the page, against HTTP", "s", [], []),
    ]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        picture = Path(name) / "photo.png"
        Image.fromarray(photo()).resize(SIZE).save(picture)
        with serve(checkpoint, Path(name)) as url:
            client = Client(url, verbose=False, download_files=False)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            with looking(browser.new_context(viewport={"width": 1280, "height": 860}), url) as page:
                choose(page, "careful")
                page.locator("#photo input[type=file]").set_input_files(picture)
                page.locator("#status").get_by_text("10 members, ").wait_for()
                for number in range(repeats + 1):  # the first round is not counted
                    found = _careful(page, client, picture), _grid(page, client, picture)
                    for row, (ours, theirs) in zip(rows, found, strict=True):
                        if number:
                            row.ours.append(ours)
                            row.theirs.append(theirs)
            browser.close()
    return rows


def _careful(page: "Page", client: Client, picture: Path) -> tuple[float, float]:
    page.get_by_role("tab", name="Depth", exact=True).click()
    page.locator("#run:not([disabled])").wait_for()
    ours = page.evaluate(RUN, ["#run", "#status", "10 members, "])
    return ours, seconds(lambda: client.predict(handle_file(picture), **CAREFUL, api_name="/predict_depth"))


def _grid(page: "Page", client: Client, picture: Path) -> tuple[float, float]:
    page.get_by_role("tab", name="Compare").click()
    page.locator("#lab-run:not([disabled])").wait_for()
    ours = page.evaluate(RUN, ["#lab-run", "#lab-status", "cells in "])
    page.get_by_role("tab", name="Studio").click()
    return ours, seconds(lambda: client.predict(handle_file(picture), **GRID, api_name="/compare"))
