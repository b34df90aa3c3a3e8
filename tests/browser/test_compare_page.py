"""The compare screen in a real Chromium: a grid fills, zooms, gets another reference, is downloaded and stays."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.app_server import in_chromium, unanswered

CELLS = "#lab-grid button.cell"

pytestmark = in_chromium


@pytest.fixture
def page(page):
    """The compare screen, open and with its photo."""
    page.get_by_role("tab", name="Compare").click()
    page.locator("#lab-photo img").wait_for()
    page.locator("#lab-cost").get_by_text("6 cells").wait_for()
    return page


def compare(page, picture: Path) -> None:
    """Compare on a small photo with the choices as they are, to the end."""
    page.locator("#lab-photo").get_by_label("Remove Image").click()
    page.locator("#lab-photo input[type=file]").set_input_files(picture)
    page.locator("#lab-photo img").wait_for()
    page.locator("#lab-run").click()
    page.locator("#lab-status").get_by_text("6 cells in ").wait_for()


def transforms(page) -> set[str]:
    return set(page.locator(f"{CELLS} img").evaluate_all("all => all.map(one => getComputedStyle(one).transform)"))


def sources(page) -> list[str]:
    return page.locator(f"{CELLS} img").evaluate_all("all => all.map(one => one.src)")


def test_a_grid_fills_is_measured_anew_and_is_taken_home(page, picture, tmp_path):
    compare(page, picture)
    assert page.locator(CELLS).count() == 6
    assert page.locator(f"{CELLS}[aria-pressed='true']").get_attribute("data-cell") == "5"
    page.wait_for_function("[...document.querySelectorAll('#lab-grid img')].every(one => one.naturalWidth === 120)")
    maps = sources(page)

    page.locator(CELLS).nth(1).press("Enter")
    page.locator(f"{CELLS}[aria-pressed='true'][data-cell='1']").wait_for()
    page.get_by_text("seed 0, 1 step, 5 members; difference").wait_for()
    assert sources(page) == maps
    page.get_by_label("Differences to the reference").check()
    page.wait_for_function("old => document.querySelector('#lab-grid img').src !== old", arg=maps[0])
    page.get_by_label("Maps").check()
    page.wait_for_function("old => document.querySelector('#lab-grid img').src === old", arg=maps[0])

    for button, name in (("Sheet PNG", "compare.png"), ("Table CSV", "compare.csv")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    with Image.open(tmp_path / "compare.png") as sheet:
        assert sheet.width > 700
    table = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [row["reference"] for row in table] == ["", "yes", "", "", "", ""]
    page.reload()
    page.get_by_role("tab", name="Compare").click()
    page.locator(f"{CELLS}[aria-pressed='true'][data-cell='1']").wait_for()
    assert page.locator(CELLS).count() == 6 and page.get_by_role("button", name="Table CSV").is_enabled()
    page.wait_for_function("document.querySelector('#lab-photo img')?.src.includes('photo.png')")  # that of the grid
    page.locator("#lab-status").get_by_text("6 cells. Click one").wait_for()


def test_every_picture_follows_wheel_drag_and_keys(page, picture):
    compare(page, picture)
    assert transforms(page) == {"matrix(1, 0, 0, 1, 0, 0)"}
    first = page.locator(f"{CELLS} .window").first
    first.hover()
    page.wait_for_timeout(500)  # the page has come to rest under the wheel
    page.mouse.wheel(0, -300)
    page.locator("#lab-grid .zoomed").wait_for()
    (zoomed,) = transforms(page)
    box = first.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 20, steps=4)
    page.mouse.up()
    (dragged,) = transforms(page)
    assert dragged != zoomed
    assert page.locator(f"{CELLS}[aria-pressed='true']").get_attribute("data-cell") == "5"  # a drag picks nothing
    page.locator(CELLS).nth(3).focus()
    page.keyboard.press("ArrowRight")
    (panned,) = transforms(page)
    assert panned != dragged
    page.keyboard.press("0")
    assert transforms(page) == {"matrix(1, 0, 0, 1, 0, 0)"}
    page.get_by_role("button", name="Zoom in").click()
    assert transforms(page) != {"matrix(1, 0, 0, 1, 0, 0)"}


def test_too_much_is_said_before_and_refused(page):
    for group, values in (("Denoising steps", "2 20 50"), ("Ensemble sizes", "2 3 10 20"), ("Seeds", "1")):
        for value in values.split():
            page.get_by_role("group", name=group).get_by_label(value, exact=True).check()
    page.locator("#lab-cost").get_by_text("72 cells are too many").wait_for()
    page.locator("#lab-run").click()
    page.get_by_test_id("toast-body").get_by_text("72 cells are too many").wait_for()
    page.locator("#lab-run:not([disabled])").wait_for()


def test_the_size_that_the_network_sees_changes_the_cost_and_the_maps(page, picture):
    compare(page, picture)
    usual, cost = sources(page)[0], page.locator("#lab-cost").inner_text().strip()
    page.locator("#lab").get_by_label("Resolution").click()
    page.get_by_role("option", name="1024 px").click()
    page.wait_for_function("usual => document.querySelector('#lab-cost').innerText.trim() !== usual", arg=cost)
    page.locator("#lab-run").click()
    # The address is made from what the picture shows.
    page.wait_for_function("old => !['', old].includes(document.querySelector('#lab-grid img')?.src ?? '')", arg=usual)


def test_what_is_there_stays_when_it_is_stopped(page):
    choices = page.locator(".choices")
    choices.filter(has_text="Denoising steps").get_by_label("50", exact=True).check()
    choices.filter(has_text="Ensemble sizes").get_by_label("20", exact=True).check()
    for seed in ("1", "2", "3"):  # long enough that it is not through before Stop arrives
        choices.filter(has_text="Seeds").get_by_label(seed, exact=True).check()
    page.locator("#lab-cost").get_by_text("48 cells").wait_for()
    page.locator("#lab-run").click()
    page.locator(CELLS).first.wait_for()
    page.locator("#lab-stop").click()
    page.locator("#lab-status").get_by_text("Stopped after ").wait_for()
    assert page.locator(CELLS).count() >= 1
    page.locator("#lab-files button:not([disabled])").first.wait_for()


def test_a_phone_scrolls_the_grid_and_not_the_page(page, picture):
    compare(page, picture)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("innerWidth === 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    scroll = page.locator("#lab-grid .lab-scroll")
    assert scroll.evaluate("one => one.scrollWidth > one.clientWidth && one.clientWidth <= 390")


def test_the_photo_of_the_studio_comes_along(page):
    page.get_by_role("tab", name="Studio").click()
    page.locator("#examples .gallery-item").nth(5).click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelector('#lab-photo img')?.src.includes('coffee')")
    with unanswered(page):  # a late answer would take the place of a photo that is added next
        page.locator("#lab-examples .gallery-item").nth(1).click()
        page.wait_for_function("document.querySelector('#lab-photo img')?.src.includes('stream')")
    page.wait_for_timeout(1000)  # in which what was held back is answered
    assert "stream" in page.locator("#lab-photo img").get_attribute("src")
