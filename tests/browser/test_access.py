"""The page for everybody: axe finds nothing, the keyboard reaches all of it, nothing jumps, sentences are read out."""

import pytest

from tests.helpers.app_server import choose, in_chromium, looking, unfold, upload

pytestmark = in_chromium

TABS = ("Depth", "Uncertainty", "3D", "Metres", "Lens", "Files")
MOST_SHIFT = 0.1  # cumulative layout shift that the web vitals call good
FOCUSED = "document.activeElement"
SHIFT_JS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(params=[(1360, 900, "light"), (390, 844, "dark")], ids=str)
def screen(browser, request):
    width, height, scheme = request.param
    is_phone = width < height
    return browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=is_phone, is_mobile=is_phone
    )


def faults(page) -> list[str]:
    """What axe finds, a line each, and whether the page is wider than its screen."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    too_wide = page.evaluate("document.documentElement.scrollWidth") > page.viewport_size["width"]
    return ["too wide"] * too_wide + [
        f"{fault['id']}: {node['target']} {node['html'][:120]}" for fault in found for node in fault["nodes"]
    ]


def test_axe_finds_nothing_and_nothing_is_wider_than_its_screen(screen, url):
    with looking(screen, url) as page:
        unfold(page, page.locator("#settings button").first)
        for tab in TABS:
            page.locator("#views").get_by_role("tab", name=tab, exact=True).click()
            if tab == "3D":
                page.locator("#scene canvas").wait_for()
            page.wait_for_timeout(1000)  # fading ends
            assert faults(page) == [], tab
        for tab in ("Compare", "Many photos", "Video"):
            page.get_by_role("tab", name=tab, exact=True).click()
            page.wait_for_timeout(1000)
            assert faults(page) == [], tab


def test_nothing_jumps_while_the_page_comes(screen, url):
    screen.add_init_script(SHIFT_JS)
    with looking(screen, url) as page:
        page.wait_for_function("document.querySelector('#views .comparison img')?.complete")
        page.wait_for_timeout(1000)
        assert page.evaluate("shift") < MOST_SHIFT


def test_the_keyboard_alone_runs_a_photo_and_takes_a_file(page, picture):
    upload(page, picture)
    page.get_by_text("1 member, 4 steps").wait_for()
    page.locator("body").press("Home")
    order = [forward(page, part) for part in ("#photo", "#preset", "#run", "#settings", "#examples", "#views")]
    assert order == sorted(order)
    back_to(page, "#preset")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('#preset label.selected').innerText === 'Fast'")
    page.locator("#cost").get_by_text("1 step, 1 member").wait_for()
    forward(page, "#run")
    page.keyboard.press("Enter")
    page.get_by_text("1 member, 1 step").wait_for()
    page.locator("#views").get_by_role("tab", name="Depth", exact=True).focus()
    for _ in range(len(TABS) - 1):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#downloads").wait_for()
    forward(page, "#downloads")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "everything.zip"


def forward(page, part: str) -> int:
    """Press Tab until the focus is inside ``part`` and can be seen -> how often."""
    return _walk(page, part, "Tab")


def back_to(page, part: str) -> int:
    return _walk(page, part, "Shift+Tab")


def _walk(page, part: str, key: str) -> int:
    inside = f"{FOCUSED}.closest({part!r}) !== null"
    pressed = page.evaluate("window.pressed ?? 0")
    for _ in range(120):
        page.keyboard.press(key)
        pressed += 1
        visible = f"getComputedStyle({FOCUSED}).outlineStyle !== 'none' || {FOCUSED}.matches('input[type=radio]')"
        assert page.evaluate(visible), page.evaluate(f"{FOCUSED}.outerHTML")
        if page.evaluate(inside):
            page.evaluate(f"window.pressed = {pressed}")
            return pressed
    raise AssertionError(f"the keyboard does not reach {part}")


SHADOWS_JS = """
window.shadows = [];
const attach = Element.prototype.attachShadow;
Element.prototype.attachShadow = function (options) {
  const shadow = attach.call(this, options);
  shadows.push(shadow);
  return shadow;
};
"""
LISTEN_JS = """() => {
  window.said = [];
  const spoken = shadows.map((shadow) => shadow.querySelector("[role=status]")).find(Boolean);
  new MutationObserver(() => said.push(spoken.textContent)).observe(spoken, { childList: true });
}"""


def test_each_sentence_is_read_out_once(browser, url, picture):
    context = browser.new_context()
    context.add_init_script(SHADOWS_JS)
    with looking(context, url) as page:
        page.evaluate(LISTEN_JS)
        choose(page, "careful")
        upload(page, picture)
        page.get_by_text("10 members, 4 steps").wait_for()
        page.wait_for_function("said.at(-1).startsWith('10 members, 4 steps')")
        said = page.evaluate("said")
        assert said[0] == "Starting" and len(said) < 30
        assert all(one != following for one, following in zip(said, said[1:], strict=False))
        tree = context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        assert [node for node in tree if node.get("role", {}).get("value") == "status" and not node["ignored"]]


def test_pictures_have_words(page):
    assert page.get_by_role("button", name="A cup of coffee on a wooden table").count() == 1
    assert page.locator("#examples img:not([alt]), #examples img[alt='']").count() == 0
