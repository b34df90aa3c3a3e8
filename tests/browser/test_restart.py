"""A server that is killed and begins again: what a visit made is there, as its browser knows the ids."""

import re
import signal
from contextlib import ExitStack
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from tests.helpers.app_server import BEGUN, PATIENCE_MS, free_port, in_chromium, serve
from tests.helpers.clips import scene, write_clip
from tests.helpers.nginx import needs_nginx, proxy

pytestmark = in_chromium

PLAYING = "[...document.querySelectorAll('#video-made video')].map(v => v.videoWidth) + '' === '192,96,96'"


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_a_batch_a_clip_and_a_comparison_outlive_their_process(
    browser, tiny_depth: Path, picture: Path, tmp_path: Path
) -> None:
    clip, port = write_clip(tmp_path / "clip.mp4", scene(0).frames(5)), free_port()
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    with serve(str(tiny_depth), tmp_path, port=port, last=signal.SIGKILL) as url:
        page.goto(url)
        page.locator("#status").get_by_text(BEGUN).wait_for()
        for tab, begin, place_of_files, file, done in (
            ("Many photos", "batch", "photos", picture, "1 of 1 done in "),
            ("Video", "video", "clip", clip, "5 frames, 1 scene, in "),
        ):
            open_tab(page, tab)
            page.locator(f"#{begin}-{place_of_files} input[type=file]").set_input_files(file)
            page.locator(f"#{begin}-{place_of_files} a").first.wait_for()
            page.locator(f"#{begin}-run").click()
            page.locator(f"#{begin}-status").get_by_text(done).wait_for()
        open_tab(page, "Compare")
        page.locator("#lab-cost").get_by_text("6 cells").wait_for()
        page.locator("#lab-run").click()
        page.locator("#lab-status").get_by_text("6 cells in ").wait_for()
    with serve(str(tiny_depth), tmp_path, port=port) as url:
        page.goto(url)
        page.locator("#status").get_by_text(BEGUN).wait_for()
        open_tab(page, "Many photos")
        page.locator("#batch-status").get_by_text("1 of 1 done.").wait_for()
        with page.expect_download() as download:
            page.locator("#batch-zip").click()
        download.value.save_as(tmp_path / "all.zip")
        assert "photo_depth_color.png" in ZipFile(tmp_path / "all.zip").namelist()
        open_tab(page, "Video")
        page.locator("#video-status").get_by_text("5 frames, 1 scene.").wait_for()
        page.wait_for_function(PLAYING)
        open_tab(page, "Compare")
        page.locator("#lab-grid button.cell").nth(5).wait_for()
        context.close()


@needs_nginx
def test_a_batch_whose_process_is_killed_goes_on_in_another_one(browser, tiny_depth: Path, tmp_path: Path) -> None:
    """The page finds the other one by itself: Gradio loads it anew."""
    photos, pages = [tmp_path / f"{number}.png" for number in range(30)], dict[str, ExitStack]()
    for number, path in enumerate(photos):
        Image.fromarray(np.full((48, 64, 3), 8 * number, np.uint8)).save(path)
    with ExitStack() as end:
        for _ in range(2):
            running = end.enter_context(ExitStack())
            url = running.enter_context(serve(str(tiny_depth), tmp_path, port=free_port(), last=signal.SIGKILL))
            pages[url] = running
        address = end.enter_context(proxy(tmp_path / "nginx", [*pages]))
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        first = page.goto(address).headers["x-page"]
        page.locator("#status").get_by_text(BEGUN).wait_for()
        open_tab(page, "Many photos")
        page.locator("#batch-photos input[type=file]").set_input_files(photos)
        page.locator("#batch-photos a").first.wait_for()
        page.locator("#batch-run").click()
        page.locator("#batch-status").get_by_text(re.compile("[1-9][0-9]? of 30 done; ")).wait_for()
        with page.expect_navigation():
            pages[first].close()
        page.locator("#status").get_by_text(BEGUN).wait_for()
        open_tab(page, "Many photos")
        page.locator("#batch-status").get_by_text("Stopped after").wait_for()
        page.locator("#batch-run").click()
        page.locator("#batch-status").get_by_text("30 of 30 done in ").wait_for()
        kept = [*(tmp_path / "work" / "results").glob("*/batch.npz")]
        assert len(kept) == 1  # it went on with the one that it found
        context.close()
