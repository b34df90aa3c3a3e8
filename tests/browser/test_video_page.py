"""The screen for videos in a real Chromium: a clip becomes clips that play and stay, and what is none is a sentence."""

from pathlib import Path

from tests.helpers.app_server import in_chromium
from tests.helpers.clips import scene, write_clip

pytestmark = in_chromium


def test_a_video_becomes_clips_of_its_depth(page, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "clip.mp4", scene(0).frames(5))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-clip input[type=file]").set_input_files(tmp_path / "bad.mp4")
    page.locator("#video-clip a").first.wait_for()
    page.locator("#video-run").click()
    page.locator("#video-status").get_by_text("cannot be read as a video").wait_for()
    page.locator("#video-clip").get_by_label("Clear").click()
    page.locator("#video-clip input[type=file]").set_input_files(source)
    page.locator("#video-clip a").first.wait_for()
    page.locator("#video-run").click()
    page.locator("#video-status").get_by_text("5 frames, 1 scene, in ").wait_for()
    widths = "[...document.querySelectorAll('#video-made video')].map(v => v.videoWidth) + '' === '192,96,96'"
    page.wait_for_function(widths)
    page.reload()
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-status").get_by_text("5 frames, 1 scene.").wait_for()
    page.wait_for_function(widths)
