"""Taking away and coming back: every file and the archive, a link, and a manifest that runs again."""

import json
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.helpers.app_server import choose, in_chromium, looking, unfold, upload

pytestmark = in_chromium

DROP_JS = """([name, content]) => {
  const carrier = new DataTransfer();
  carrier.items.add(new File([content], name, { type: "application/json" }));
  const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carrier });
  document.querySelector("#photo").dispatchEvent(drop);
}"""


def take(page, name: str, folder: Path) -> Path:
    """Press a button of the files -> what the browser saved."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    saved = folder / download.value.suggested_filename
    download.value.save_as(saved)
    return saved


def careful(page, picture: Path) -> None:
    """Make a result with uncertainty and open its files."""
    choose(page, "careful")
    upload(page, picture)
    page.get_by_text("10 members, 4 steps").wait_for()
    page.get_by_role("tab", name="Files").click()


def test_everything_is_the_files_and_its_manifest_runs_again(page, picture, tmp_path):
    careful(page, picture)
    everything = take(page, "Everything ZIP", tmp_path)
    with ZipFile(everything) as bundle:
        contents = {name: bundle.read(name) for name in bundle.namelist()}
    recorded = json.loads(contents["manifest.json"])["files"]
    assert {name: sha256(content).hexdigest() for name, content in contents.items() if name in recorded} == recorded
    assert contents.keys() - recorded.keys() == {"manifest.json"} and len(recorded) >= 10
    row = page.locator(".take", has=page.get_by_role("button", name="Everything ZIP"))
    assert f"{everything.stat().st_size / 1e3:.0f} kB" in row.inner_text() or "MB" in row.inner_text()

    assert take(page, "NumPy", tmp_path).read_bytes() == contents["depth.npy"]
    manifest = take(page, "Manifest", tmp_path)
    assert manifest.read_bytes() == contents["manifest.json"]

    choose(page, "fast")
    page.evaluate(DROP_JS, [manifest.name, manifest.read_text()])  # onto the photo, which takes no such file
    page.locator("#status").get_by_text(f"Same bytes: {len(recorded)} files.").wait_for()
    assert page.get_by_label("Careful").is_checked()
    page.locator("#run:not([disabled])").click()
    page.locator("#status").get_by_text("10 members, 4 steps").wait_for()


def test_each_of_two_files_that_are_pressed_at_once_is_downloaded(page, picture):
    careful(page, picture)
    page.locator("#downloads button:not([disabled])", has_text="Manifest").wait_for()
    saved = []
    page.on("download", lambda download: saved.append(download.suggested_filename))
    with page.expect_event("download", lambda _: len(saved) == 3):
        page.evaluate("""() => { for (const button of document.querySelectorAll("#downloads button"))
          if (["NumPy", "Manifest", "16-bit PNG"].includes(button.innerText.trim())) button.click(); }""")
    assert sorted(saved) == ["depth.npy", "depth_16bit.png", "manifest.json"]


def test_a_manifest_comes_with_its_photo_or_says_what_is_missing(page, browser, url, picture, tmp_path):
    careful(page, picture)
    manifest = take(page, "Manifest", tmp_path)
    with looking(browser.new_context(), url) as other:
        other.get_by_role("tab", name="Files").click()
        chooser = other.locator("#replay").locator("xpath=preceding-sibling::input")
        chooser.set_input_files(manifest)
        other.get_by_text("120 x 90 pixels, is not here").first.wait_for()
        chooser.set_input_files([manifest, picture])
        other.locator("#status").get_by_text("Same bytes").wait_for()
        other.wait_for_function("document.querySelector('#photo img')?.src.endsWith('photo.png')")

        changed = json.loads(manifest.read_text())
        changed["files"]["depth.npy"] = "0" * 64
        other.evaluate(DROP_JS, ["manifest.json", json.dumps(changed)])
        other.locator("#status").get_by_text("other bytes in depth.npy").wait_for()
        other.evaluate(DROP_JS, ["other.json", "{}"])
        other.get_by_text("The file is not a manifest").first.wait_for()


def test_a_link_brings_settings_and_example_and_no_photo(page, browser, url, picture):
    page.get_by_role("button", name="coffee").click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
    choose(page, "careful")
    page.get_by_role("tab", name="Files").click()
    page.get_by_role("button", name="Copy link").click()
    address = page.get_by_label("Address")
    address.wait_for()
    page.wait_for_function("document.querySelector('#link-address textarea, #link-address input').value[0] === 'h'")
    link = address.input_value()
    settings = "num_inference_steps=4&ensemble_size=10&seed=0&views=photo"
    settings += "&tiles_per_side=1&follow_outlines=False&decoder=own"
    assert link == f"{url}/?{settings}&example=coffee"

    upload_after_clearing(page, picture)
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function(
        "wanted => document.querySelector('#link-address textarea, #link-address input').value === wanted",
        arg=f"{url}/?{settings}",
    )

    with looking(browser.new_context(), link.replace("seed=0", "seed=41")) as other:
        other.get_by_text("The settings are those of the link.").wait_for()
        other.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
        assert other.get_by_label("Careful").is_checked()
        unfold(other, other.locator("#settings button").first)
        assert other.get_by_label("Seed").input_value() == "41"


def test_a_link_is_that_of_the_page_also_where_its_press_was_early(page, url, picture):
    held = []
    page.get_by_role("button", name="coffee").click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
    page.get_by_role("tab", name="Files").click()
    page.route("**/queue/join*", lambda route: held.append(route), times=1)
    with page.expect_request("**/queue/join*"):
        page.get_by_role("button", name="Copy link").click()
    upload_after_clearing(page, picture, "1 member, 4 steps")
    held[0].continue_()
    shown = "document.querySelector('#link-address textarea, #link-address input')?.value"
    page.wait_for_function(f"url => {shown}?.startsWith(url) && !{shown}.includes('coffee')", arg=url)
    page.get_by_text("this is the new one").wait_for()


def test_the_photo_stays_a_file_while_and_after_it_runs(page):
    page.get_by_role("button", name="coffee").click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('coffee')")
    page.get_by_role("button", name="Estimate depth").click()
    page.get_by_text("1 member, 4 steps").wait_for()
    page.get_by_role("tab", name="Files").click()
    with page.expect_request("**/queue/join*") as asked:
        page.get_by_role("button", name="Copy link").click()
    photo = next(value for value in asked.value.post_data_json["data"] if isinstance(value, dict))
    assert photo["path"].endswith("coffee.jpg") and "__type__" not in photo


def upload_after_clearing(page, picture: Path, made: str = "10 members, 4 steps") -> None:
    page.locator("#photo").get_by_label("Remove Image").click()
    upload(page, picture)
    page.get_by_text(made).wait_for()


@pytest.mark.parametrize("query", ["?seed=<img src=x onerror=alert(1)>", "?example=../../etc", "?checkpoint=%2Fetc"])
def test_a_bad_link_says_so_and_the_page_works(browser, url, query):
    with looking(browser.new_context(), url + "/" + query) as page:
        page.get_by_text("The link could not be used:").wait_for()
        assert page.locator("#status img").count() == 0
        assert page.get_by_label("Balanced").is_checked()
