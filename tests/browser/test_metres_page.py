"""Metres at the page: points clicked and typed, a result in metres and its files, distances, and the way back."""

import json
from pathlib import Path

import numpy as np
from playwright.sync_api import expect

from marigold_core.files import examples
from tests.helpers.app_server import PATIENCE_MS, in_chromium, looking, unanswered

pytestmark = in_chromium

KNOWN_M = (2.0, 9.0)  # of a near and a far pixel


def ends() -> list[tuple[int, int]]:
    """The nearest and the farthest pixel (x, y) of the first example's stored map, its margins aside."""
    values = examples.load_result(examples.photos()[0]).values[30:-30, 30:-30]
    return [
        (int(at) % values.shape[1] + 30, int(at) // values.shape[1] + 30) for at in (values.argmin(), values.argmax())
    ]


def click(page, x: float, y: float, width_px: int) -> None:
    """Click a pixel of the photo, which is so wide."""
    picture = page.locator("#marks img")
    page.wait_for_function("document.querySelector('#marks img')?.naturalWidth > 0")
    picture.click(trial=True)  # waits until it keeps its place
    box = picture.bounding_box()
    natural = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    shown = min(box["width"] / natural[0], box["height"] / natural[1])  # it is fitted into its box
    left = box["x"] + (box["width"] - natural[0] * shown) / 2
    top = box["y"] + (box["height"] - natural[1] * shown) / 2
    scale = natural[0] * shown / width_px
    page.mouse.click(left + (x + 0.5) * scale, top + (y + 0.5) * scale)


def wait_for_value(page, label: str, least: float, most: float) -> None:
    """Wait until a number field holds a number in this range."""
    field = page.get_by_label(label, exact=True)
    for _ in range(100):
        held = field.input_value()
        if held and least <= float(held) <= most:
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"{label} holds {field.input_value()!r}, not {least} to {most}")


def test_two_known_points_give_metres_files_say_so_and_clearing_undoes_it(page, tmp_path: Path):
    (near_x, near_y), (far_x, far_y) = ends()
    width_px = examples.load_result(examples.photos()[0]).photo.shape[1]
    page.get_by_role("tab", name="Metres").click()
    found = page.locator("#found")
    found.get_by_text("Relative.").wait_for()
    click(page, near_x, near_y, width_px)
    wait_for_value(page, "x, pixels", near_x - 2, near_x + 2)
    wait_for_value(page, "y, pixels", near_y - 2, near_y + 2)
    page.get_by_label("Metres", exact=True).fill(str(KNOWN_M[0]))
    page.get_by_role("button", name="Add", exact=True).click()
    found.get_by_text("alone cannot fix both the scale and the shift").wait_for()
    for label in ("x, pixels", "y, pixels", "Metres"):
        expect(page.get_by_label(label, exact=True)).to_have_value("", timeout=PATIENCE_MS)

    page.get_by_label("x, pixels", exact=True).fill(str(far_x))  # the second one by keyboard alone
    page.get_by_label("y, pixels", exact=True).fill(str(far_y))
    page.get_by_label("Metres", exact=True).fill(str(KNOWN_M[1]))
    with unanswered(page):
        with page.expect_request("**/queue/join?*"):
            page.get_by_label("Metres", exact=True).press("Enter")
        page.get_by_label("Metres", exact=True).fill("7")  # for the next one
    page.locator("#status").get_by_text("In metres, from 2 hints").wait_for()
    expect(page.get_by_label("x, pixels", exact=True)).to_have_value("", timeout=PATIENCE_MS)
    assert page.get_by_label("Metres", exact=True).input_value() == "7"
    assert found.locator("tbody tr").count() == 2

    page.get_by_label("Field of view, degrees across").fill("60")
    page.get_by_label("Field of view, degrees across").press("Enter")
    page.get_by_label("Measure", exact=True).check()
    page.get_by_text("Click two points").wait_for()
    for x in (0.3, 0.7):
        before = page.evaluate("document.querySelector('#marks img').src")
        click(page, x * width_px, near_y, width_px)
        page.wait_for_function("before => document.querySelector('#marks img').src !== before", arg=before)
    found.locator("tbody tr").nth(2).get_by_text("±").wait_for()

    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="NumPy", exact=True).click()
    download.value.save_as(tmp_path / "depth.npy")
    depth_m = np.load(tmp_path / "depth.npy")
    np.testing.assert_allclose([depth_m[near_y, near_x], depth_m[far_y, far_x]], KNOWN_M, rtol=0.02)
    with page.expect_download() as download:
        page.get_by_role("button", name="Manifest", exact=True).click()
    download.value.save_as(tmp_path / "manifest.json")
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["kind"] == "metric" and "depth in metres, from depth at" in record["how"]
    assert [one["metres"] for one in record["hints"]["anchors"]] == list(KNOWN_M)

    page.get_by_role("tab", name="Metres").click()
    page.get_by_role("button", name="Remove row 1").click()
    found.get_by_text("Not yet in metres.").wait_for()
    page.get_by_role("button", name="Clear all, back to relative").click()
    page.locator("#status").get_by_text("Relative depth again").wait_for()
    found.get_by_text("Relative.").wait_for()
    assert found.locator("table").count() == 0


def test_what_is_lacking_is_said_also_on_a_phone(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    with looking(context, url) as page:
        page.get_by_role("tab", name="Metres").click()
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("Mark the point first").first.wait_for()
        page.get_by_label("Measure", exact=True).check()
        page.get_by_label("x, pixels", exact=True).fill("10")
        page.get_by_label("y, pixels", exact=True).fill("10")
        page.get_by_role("button", name="Mark this point").click()
        page.get_by_text("Distances need a map in metres").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.locator("#marks").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_a_completion_goes_through_every_distance_and_one_less_takes_it_back(page):
    page.get_by_role("tab", name="Metres").click()
    page.locator("#found").get_by_text("Relative.").wait_for()
    button = page.get_by_role("button", name="Follow every distance")
    expect(button).to_be_disabled()
    for (x, y), metres in zip(ends(), KNOWN_M, strict=True):
        expect(button).to_be_disabled()
        page.get_by_label("x, pixels", exact=True).fill(str(x))
        page.get_by_label("y, pixels", exact=True).fill(str(y))
        page.get_by_label("Metres", exact=True).fill(str(metres))
        page.get_by_role("button", name="Add", exact=True).click()
        page.locator("#found").get_by_text(f"{metres:g} m").first.wait_for()
    page.locator("#found").get_by_text("In metres.").wait_for()
    button.click()
    page.locator("#found").get_by_text("In metres, following every distance.").wait_for(timeout=4 * PATIENCE_MS)
    expect(button).to_be_enabled()
    page.get_by_role("button", name="Remove row 2").click()
    page.locator("#found").get_by_text("Not yet in metres.").wait_for()
    expect(button).to_be_disabled()
