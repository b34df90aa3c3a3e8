"""A person at the page, in a real Chromium: what they see, turn, stop and take home."""

import numpy as np
import trimesh
from PIL import Image

from marigold_core.settings import PRESETS
from tests.helpers.app_server import choose, in_chromium, looking, unanswered, unfold, upload

pytestmark = in_chromium


def pixels(page, selector: str) -> np.ndarray:
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(page.locator(selector).first.screenshot())).convert("RGB")).astype(float)


def test_a_dropped_folder_is_told_to_be_one(page, tmp_path):
    (tmp_path / "holiday").mkdir()
    box = page.locator("#photo").bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(tmp_path / "holiday")], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    page.locator("#status").get_by_text("This is an empty file or a folder").wait_for()
    page.locator("#readout").get_by_text("Point at the picture").wait_for(state="hidden")  # there is none


def test_a_dropped_photo_becomes_depth_a_mesh_and_a_file(page, picture, tmp_path):
    before = page.locator("#views .comparison img.fixed").first.get_attribute("src")
    upload(page, picture)
    page.get_by_text("120 × 90").wait_for()  # the summary of a finished run
    page.wait_for_function(
        "before => document.querySelector('#views .comparison img.fixed')?.src !== before", arg=before
    )
    page.wait_for_function("document.querySelector('#views .comparison img.fixed').naturalWidth === 120")

    page.get_by_role("tab", name="3D").click()
    page.locator("#scene canvas").wait_for()
    page.wait_for_function(
        """() => { const canvas = document.querySelector('#scene canvas'); return canvas && canvas.width > 300 }"""
    )
    for _ in range(60):
        if pixels(page, "#scene canvas").std() > 3:  # the background alone is one colour
            break
        page.wait_for_timeout(500)
    facing = pixels(page, "#scene canvas")
    assert facing.std() > 3
    box = page.locator("#scene canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 160, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_timeout(1500)
    assert np.abs(pixels(page, "#scene canvas") - facing).mean() > 0.5  # it was turned

    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="3D mesh GLB").click()
    saved = tmp_path / "mesh.glb"
    download.value.save_as(saved)
    assert len(trimesh.load_mesh(saved).faces) > 100


def test_a_long_run_stops_and_the_next_one_works(page, picture):
    page.get_by_label("number input for Denoising steps").fill("50")
    page.get_by_label("number input for Ensemble size").fill("20")
    page.get_by_label("number input for Ensemble size").press("Tab")
    upload(page, picture)
    page.locator("#stop:not([disabled])").wait_for()
    page.locator(".status b i").first.wait_for(state="attached")
    page.locator("#stop").click()
    page.get_by_text("Stopped.").wait_for()
    choose(page, "fast")
    page.locator("#run:not([disabled])").click()
    page.get_by_text("1 member, 1 step").wait_for()


def test_what_is_asked_for_last_is_what_stays(page, picture, tmp_path):
    """A photo, a text and an example that come during a run of many members, which ends for them."""
    Image.fromarray(np.asarray(Image.open(picture).convert("RGB"))[:80, :100]).save(tmp_path / "other.png")
    (tmp_path / "text.jpg").write_text("no photo")
    page.get_by_label("number input for Denoising steps").fill("50")
    page.get_by_label("number input for Ensemble size").fill("20")
    page.get_by_label("number input for Ensemble size").press("Tab")
    status = page.locator("#status")

    def begin():
        upload(page, picture)
        page.locator("#stop:not([disabled])").wait_for()
        page.locator(".status b i").first.wait_for(state="attached")

    begin()
    upload(page, tmp_path / "text.jpg")
    status.get_by_text("This is not a photo that can be read").wait_for()
    begin()
    page.get_by_role("button", name="coffee").click()
    status.get_by_text("An example").wait_for()
    page.wait_for_timeout(2000)  # in which the job would have come back
    assert "An example" in status.inner_text()
    page.wait_for_function("document.querySelector('#views .comparison img.fixed').naturalWidth === 600")
    begin()
    upload(page, tmp_path / "other.png")
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('other')")  # it was sent to the server
    page.get_by_role("button", name="coffee").click()  # before its run has begun
    status.get_by_text("An example").wait_for()
    page.wait_for_timeout(2000)
    assert "An example" in status.inner_text()
    page.locator("#run:not([disabled])").wait_for()
    done = {"content_type": "text/event-stream", "body": 'data: {"msg": "done"}\n\n'}
    page.route("**/upload_progress?*", lambda route: route.fulfill(**done))  # of what the server never hears of
    with unanswered(page, "**/upload?*"):
        upload(page, tmp_path / "other.png")
        page.wait_for_function("!document.querySelector('#photo img')")
        page.locator("#examples .gallery-item").nth(6).click()  # while it is still being sent
        page.wait_for_function("document.querySelector('#photo img')?.src.includes('cat')")
    page.wait_for_timeout(2000)
    assert "An example" in status.inner_text()
    assert "cat" in page.locator("#photo img").get_attribute("src")
    begin()
    page.locator("#stop").click()
    upload(page, picture)
    page.wait_for_timeout(2000)
    page.locator("#stop:not([disabled])").wait_for()
    page.locator(".status b i").first.wait_for(state="attached")
    choose(page, "fast")
    upload(page, tmp_path / "other.png")
    status.get_by_text("1 member, 1 step").wait_for()
    status.get_by_text("100 × 80").wait_for()


SLOW_JS = """() => {
  const send = window.fetch;
  window.asked = 0;
  window.fetch = async (address, request) => {
    if (!String(address).includes("queue/join")) return send(address, request);
    window.asked += 1;
    await new Promise((done) => setTimeout(done, 300));
    return send(address, request);
  };
}"""  # as on a busy machine, whose answers come late
VALUE_IS_JS = """([label, value]) =>
  document.querySelector(`[aria-label="number input for ${label}"]`).value === String(value)"""


def test_a_page_asks_until_it_knows_and_then_no_more(page, picture):
    page.evaluate(SLOW_JS)
    steps = page.get_by_label("range slider for Denoising steps")
    for _ in range(4):
        steps.press("ArrowRight")
        page.wait_for_timeout(100)
    page.get_by_label("Careful").check()
    page.get_by_label("Fast").check()
    upload(page, picture)
    page.get_by_label("Careful").check()
    page.locator("#cost").get_by_text("4 steps, 10 members").wait_for()
    page.locator("#status").get_by_text("120 × 90").wait_for()
    page.wait_for_timeout(4000)  # what is still under way ends
    asked = page.evaluate("window.asked")
    page.wait_for_timeout(3000)
    assert page.evaluate("window.asked") == asked
    page.locator("#cost").get_by_text("4 steps, 10 members").wait_for()
    assert page.get_by_label("Careful").is_checked()


def test_the_preset_on_show_is_the_one_whose_values_apply(page):
    page.evaluate(SLOW_JS)  # no late answer takes a choice back
    steps, chosen = page.get_by_label("range slider for Denoising steps"), page.locator("#preset label.selected")
    for name, values in PRESETS.items():
        page.get_by_label(name.capitalize()).check()
        page.wait_for_function(VALUE_IS_JS, arg=["Denoising steps", values["num_inference_steps"]])
        page.wait_for_function(VALUE_IS_JS, arg=["Ensemble size", values["ensemble_size"]])
        assert chosen.inner_text() == name.capitalize()
        steps.press("ArrowRight")
        chosen.wait_for(state="detached")
        steps.press("ArrowLeft")
        chosen.get_by_text(name.capitalize()).wait_for()
    steps.press("ArrowRight")
    page.get_by_label("Fast").check()
    page.wait_for_timeout(1000)  # in which the answers to the slider would have come
    assert chosen.inner_text() == "Fast"

    def see(views: str) -> None:
        page.locator("#members-see input").click()
        page.get_by_role("option", name=views).click()

    page.get_by_label("number input for Ensemble size").fill("10")
    unfold(page, page.get_by_role("button", name="More settings"))
    see("three sizes")
    with unanswered(page):
        page.locator("#settings").get_by_label("Checkpoint").click()
        page.get_by_role("option", name="e2e-ft (").click()  # of one step; its members differ by their view alone
        page.wait_for_function(VALUE_IS_JS, arg=["Denoising steps", 1])
        page.wait_for_function(VALUE_IS_JS, arg=["Ensemble size", 6])
        see("The photo")
        page.wait_for_function(VALUE_IS_JS, arg=["Ensemble size", 1])


def test_uncertainty_needs_members_and_shows_them(page, picture):
    upload(page, picture)
    page.get_by_text("1 member, 4 steps").wait_for()
    page.get_by_role("tab", name="Uncertainty").click()
    page.get_by_text("at least 3 of them").wait_for()
    choose(page, "careful")
    page.locator("#run:not([disabled])").click()
    page.get_by_text("Bright is where the 10 members disagree").wait_for()
    assert page.locator("#views .comparison:visible img.fixed").count() == 1


def test_an_example_shows_its_result_at_once_and_colours_change_it(page):
    page.get_by_role("button", name="coffee").click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
    picture = "document.querySelector('#views .comparison img.fixed').src"
    page.wait_for_function("document.querySelector('#views .comparison img.fixed').naturalWidth === 600")
    before = page.evaluate(picture)
    page.get_by_label("Colours").click()
    page.get_by_role("option", name="Viridis").click()
    page.wait_for_function(f"before => {picture} !== before", arg=before)


def test_a_run_without_a_photo_says_what_to_do(page):
    page.locator("#run").click()
    page.get_by_text("Add a photo first").first.wait_for()


def test_a_phone_sees_everything_in_its_width(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    with looking(context, url) as page:
        seen = ["#photo", "#run", "#views .comparison"]
        for selector, tab in [*((selector, "Depth") for selector in seen), ("#downloads", "Files"), ("#link", "Files")]:
            page.get_by_role("tab", name=tab).click()
            box = page.locator(selector).first.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
