"""The viewer in a real Chromium: two sides, numbers under pointer and keys, the runs of a visit, the predicted time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.app_server import choose, in_chromium, looking, serve, unanswered, unfold, upload

RIGHT = "document.querySelector('#look .comparison img.fixed').src"
PAINTED = "document.querySelector('#look .comparison img.fixed')?.naturalWidth > 0"
ENDS_ARE_JS = """becomes => ["from", "to"].every((end, place) =>
  document.querySelector(`[aria-label="number input for Range ${end}"]`).value === becomes[place])"""

pytestmark = in_chromium


@pytest.fixture(scope="module")
def url(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on a machine where nothing was timed yet."""
    folder = tmp_path_factory.mktemp("app")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with serve(str(tiny_depth), folder) as address:
            yield address


@pytest.fixture
def viewer(page):
    """The page with its first picture painted."""
    page.wait_for_function(PAINTED)
    return page


def pick(page, field: str, option: str) -> None:
    page.get_by_label(field, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def changes(page, expression: str, before: object) -> None:
    page.wait_for_function(f"before => {expression} !== before", arg=before)


def test_sides_colours_and_range_are_painted_again(viewer):
    seen = [viewer.evaluate(RIGHT)]
    for field, option in (("Right", "Surface normals"), ("Right", "Uncertainty"), ("Right", "Depth in grey")):
        pick(viewer, field, option)
        changes(viewer, RIGHT, seen[-1])
        seen.append(viewer.evaluate(RIGHT))
    unfold(viewer, viewer.get_by_role("button", name="Adjust"))
    viewer.get_by_label("number input for Range from").fill("0.5")
    viewer.get_by_label("number input for Range from").press("Tab")
    changes(viewer, RIGHT, seen[-1])
    viewer.locator("#keys").get_by_text("near 0.50").wait_for()
    seen.append(viewer.evaluate(RIGHT))
    # The end that was not moved is pushed ahead of the other one at once: a late answer would take the next one back.
    with unanswered(viewer):
        for end, typed, becomes in (
            ("to", "0.3", ["0.29", "0.3"]),
            ("from", "0.1", ["0.1", "0.3"]),
            ("from", "0.3", ["0.3", "0.31"]),
            ("from", "1", ["0.99", "1"]),
            ("to", "0", ["0", "0.01"]),
            ("to", "0.5", ["0", "0.5"]),
        ):
            viewer.get_by_label(f"number input for Range {end}").fill(typed)
            viewer.get_by_label(f"number input for Range {end}").press("Tab")
            viewer.wait_for_function(ENDS_ARE_JS, arg=becomes)
    viewer.locator("#keys").get_by_text("0.50 far").wait_for()
    seen.append(viewer.evaluate(RIGHT))
    viewer.get_by_label("Swap near and far").check()
    changes(viewer, RIGHT, seen[-1])
    assert len(set(seen)) == len(seen)


def test_the_handle_moves_by_keyboard(viewer):
    place = "document.querySelector('#look .outer').style.transform"
    before = viewer.evaluate(place)
    unfold(viewer, viewer.get_by_role("button", name="Adjust"))
    viewer.get_by_label("range slider for Handle").focus()
    viewer.keyboard.press("Home")
    changes(viewer, place, before)


def test_numbers_under_the_pointer_and_under_the_keys(viewer):
    readout = viewer.locator("#readout .readout span")
    assert (
        readout.inner_text() == "Point at the picture to read its values, or come here with Tab and use the arrow keys."
    )
    box = viewer.locator("#look .comparison").bounding_box()
    viewer.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    viewer.locator("#readout").get_by_text("Depth 0.").wait_for()
    pointed = readout.inner_text()
    assert "uncertainty" in pointed and "at pixel" in pointed
    viewer.mouse.move(5, 5)
    viewer.locator("#readout").get_by_text("Point at the picture").wait_for()
    viewer.locator("#readout .readout").focus()
    viewer.locator("#look .pick").wait_for()
    middle = readout.inner_text()
    viewer.keyboard.press("Shift+ArrowDown")
    viewer.keyboard.press("ArrowRight")
    assert readout.inner_text() != middle
    across, down = (int(word.strip(",")) for word in middle.split("at pixel ")[1].split())
    now_across, now_down = (int(word.strip(",")) for word in readout.inner_text().split("at pixel ")[1].split())
    assert now_across > across and now_down > down


def test_runs_are_predicted_remembered_and_brought_back(viewer, picture):
    viewer.locator("#cost").get_by_text("a first guess").wait_for()
    viewer.locator("#history").get_by_text("line up here").wait_for()
    upload(viewer, picture)
    viewer.locator("#status").get_by_text("1 member, 4 steps").wait_for()
    viewer.locator("#cost").get_by_text("about").wait_for()
    choose(viewer, "fast")
    viewer.locator("#run:not([disabled])").click()
    viewer.locator("#status").get_by_text("1 member, 1 step,").wait_for()
    runs = viewer.locator("#history button")
    assert runs.count() == 2
    shown = viewer.evaluate(RIGHT)
    runs.nth(1).click()
    viewer.locator("#status").get_by_text("An earlier run: 4 steps, 1 member, seed 0").wait_for()
    changes(viewer, RIGHT, shown)
    assert runs.nth(1).get_attribute("aria-pressed") == "true"
    viewer.locator("#sizes").get_by_text("Photo 120×90").wait_for()


def test_a_side_that_a_result_lacks_falls_back_and_the_field_says_so(viewer, picture):
    pick(viewer, "Right", "Uncertainty")
    viewer.locator("#keys").get_by_text("Uncertainty").wait_for()
    upload(viewer, picture)
    viewer.locator("#status").get_by_text("1 member, 4 steps").wait_for()
    viewer.locator("#keys").get_by_text("not metres").wait_for()
    viewer.wait_for_function("document.querySelector('[aria-label=\"Right\"]').value === 'Depth in colour'")


def test_a_phone_in_the_dark_sees_the_viewer_in_its_width(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    with looking(context, url) as page:
        page.wait_for_function(PAINTED)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in ("#look", "#keys", "#readout", "#history", "#cost"):
            box = page.locator(selector).first.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, selector
        shown = page.locator("#look .comparison")
        middle = shown.bounding_box()
        assert middle is not None
        shown.tap(position={"x": middle["width"] / 3, "y": middle["height"] / 2})
        page.locator("#readout").get_by_text("Depth 0.").wait_for()
