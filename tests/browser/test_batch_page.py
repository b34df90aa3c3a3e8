"""The screen for many photos in a real Chromium: a table fills, is there after a reload, and all come in one ZIP."""

from pathlib import Path
from zipfile import ZipFile

from tests.helpers.app_server import in_chromium

pytestmark = in_chromium


def test_many_photos_become_one_zip(page, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    page.get_by_role("tab", name="Many photos").click()
    page.locator("#batch-run").click()
    page.locator("#batch-status").get_by_text("Add some photos first.").wait_for()
    page.locator("#batch-photos input[type=file]").set_input_files([picture, tmp_path / "bad.jpg"])
    page.locator("#batch-photos a").nth(1).wait_for()
    page.locator("#batch-run").click()
    page.locator("#batch-status").get_by_text("1 of 2 done in ").wait_for()
    assert page.locator("#batch-table tr.failed").get_by_text("This is not a photo").count() == 1
    page.reload()
    page.get_by_role("tab", name="Many photos").click()
    page.locator("#batch-status").get_by_text("1 of 2 done. 1 could not be done").wait_for()
    page.wait_for_function("document.querySelector('#batch-table tr.done img').naturalWidth === 192")
    with page.expect_download() as download:
        page.locator("#batch-zip").click()
    download.value.save_as(tmp_path / "all.zip")
    with ZipFile(tmp_path / "all.zip") as bundle:
        assert set(bundle.namelist()) == {
            f"photo_{name}" for name in ("depth_16bit.png", "depth_color.png", "manifest.json")
        }
