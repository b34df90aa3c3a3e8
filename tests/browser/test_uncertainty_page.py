"""The uncertainty tab in a real Chromium: a map that settles, members that are added, and their values at a pixel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marigold_core.files import examples
from tests.helpers.app_server import in_chromium, serve, unfold, upload

pytestmark = in_chromium

PHOTO = examples.FOLDER / "lounge.jpg"  # 683 x 1024


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled checkpoint: the map of a random one hardly settles."""
    with serve("nano", tmp_path_factory.mktemp("app")) as address:
        yield address


def settle(page, photo: Path, steps: int, members: int) -> None:
    """Run a photo and wait for its last member, with the uncertainty tab open."""
    page.get_by_role("tab", name="Uncertainty").click()
    unfold(page, page.locator("#settings button").first)
    page.get_by_label("number input for Denoising steps").fill(str(steps))
    page.get_by_label("number input for Ensemble size").fill(str(members))
    page.get_by_label("number input for Ensemble size").press("Tab")
    upload(page, photo)
    page.locator("#status").get_by_text(f"{members} members, ").wait_for()


def photo_box(page) -> tuple[float, float, float, float]:
    """Where the photo is on the page: left, top, width, height; it fills its element in height alone."""
    box = page.locator("#doubt .comparison img").first.bounding_box()
    width = box["height"] * 683 / 1024
    return box["x"] + (box["width"] - width) / 2, box["y"], width, box["height"]


def test_a_curve_grows_a_click_asks_the_members_and_more_are_added(page):
    settle(page, PHOTO, 1, 5)
    curve, member_values = page.locator("#evidence .curve"), page.locator("#votes")
    curve.get_by_text("Member 5 moved the map by").wait_for()
    assert curve.locator(".plot i.moved").count() == 4
    assert curve.locator(".plot i.doubt").count() == 3
    assert curve.locator(".plot").get_attribute("aria-label") == curve.locator("p").inner_text()

    left, top, width, height = photo_box(page)
    page.mouse.click(left + 0.3 * width, top + 0.75 * height)
    member_values.get_by_text("the map takes").wait_for()
    assert member_values.locator(".strip i").count() == 5
    across, down = map(int, page.get_by_label("Pixel: from the left").input_value().split(", "))
    assert abs(across - 0.3 * 683) < 6 and abs(down - 0.75 * 1024) < 6
    mark = page.locator("#doubt .pick").bounding_box()
    assert abs(mark["x"] + mark["width"] / 2 - (left + 0.3 * width)) < 3
    assert abs(mark["y"] + mark["height"] / 2 - (top + 0.75 * height)) < 3

    page.get_by_role("button", name="Add 5 more members").click()
    page.locator("#status").get_by_text("10 members, 1 step").wait_for()
    curve.get_by_text("Member 10 moved the map by").wait_for()
    assert member_values.locator(".strip i").count() == 10


def test_a_run_that_has_settled_ends_and_says_what_it_saved(page):
    page.get_by_role("tab", name="Uncertainty").click()
    page.get_by_label("Stop when the map has settled").check()
    threshold = page.get_by_label("number input for Settled")
    threshold.fill("2")
    threshold.press("Tab")
    unfold(page, page.locator("#settings button").first)
    page.get_by_label("number input for Ensemble size").fill("20")
    page.get_by_label("number input for Ensemble size").press("Tab")
    upload(page, PHOTO)
    page.locator("#status").get_by_text("of 20 members: the map had settled").wait_for()
    page.locator("#evidence").get_by_text("The map settled at").wait_for()
    page.locator("#run:not([disabled])").wait_for()


def test_a_stopped_run_keeps_the_members_it_had(page):
    page.get_by_role("tab", name="Uncertainty").click()
    unfold(page, page.locator("#settings button").first)
    page.get_by_label("number input for Denoising steps").fill("20")
    page.get_by_label("number input for Ensemble size").fill("20")
    page.get_by_label("number input for Ensemble size").press("Tab")
    upload(page, PHOTO)
    page.locator("#evidence .curve").get_by_text("Member 2 moved the map by").wait_for()
    page.locator("#stop").click()
    page.locator("#status").get_by_text("Stopped. On show is a result of ").wait_for()
    page.locator("#history button[aria-pressed=true]").get_by_text("20 steps, ").wait_for()
    page.get_by_role("button", name="Add 5 more members").wait_for()


def test_what_is_not_there_says_why(page):
    """An example keeps no members; a pixel outside, typed by hand, is refused in a sentence."""
    page.get_by_role("tab", name="Uncertainty").click()
    page.get_by_text("Run the photo to watch its map settle").wait_for()
    assert page.locator("#more").is_disabled()
    page.get_by_text("kept no members to add to").wait_for()
    settle(page, PHOTO, 1, 3)
    assert page.locator("#more").is_enabled()
    page.get_by_label("Pixel: from the left").fill("683, 5")
    page.get_by_text("There is no such pixel: the photo has 683 × 1024").wait_for()
    page.get_by_label("Pixel: from the left").fill("682, 5")
    page.locator("#votes").get_by_text("the map takes").wait_for()
