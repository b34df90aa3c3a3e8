"""The lens screen in a real Chromium: a click blurs the rest, and a clip plays."""

from tests.helpers.app_server import in_chromium

pytestmark = in_chromium
SHOWN = "document.querySelector('#lens-picture img').src"


def test_a_click_says_what_is_sharp_and_a_clip_plays(page) -> None:
    page.get_by_role("tab", name="Lens").click()
    page.locator("#lens-picture img").wait_for()
    sharp = page.evaluate(SHOWN)
    page.locator("#lens-picture img").click(position={"x": 60, "y": 60})
    page.wait_for_function(f"before => {SHOWN} !== before", arg=sharp)
    blurred = page.evaluate(SHOWN)
    page.get_by_label("Mark invented pixels").check()
    page.wait_for_function(f"before => {SHOWN} !== before", arg=blurred)
    page.locator("#lens-make").click()
    page.locator("#lens-clip video").nth(1).wait_for()
    page.wait_for_function("[...document.querySelectorAll('#lens-clip video')].every((one) => one.duration === 3)")
