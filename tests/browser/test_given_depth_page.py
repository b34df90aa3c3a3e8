"""A depth map from elsewhere at the page: chosen, said what it means, shown, measured, and taken away as files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from marigold_core.files import examples
from tests.browser.test_files_page import take
from tests.helpers.app_server import in_chromium, unanswered, upload

pytestmark = in_chromium


def test_millimetres_are_shown_measured_and_taken_away(page, picture: Path, tmp_path: Path) -> None:
    height, width = examples.load_result(examples.photos()[0]).values.shape
    z = 2 + np.add.outer(np.arange(height) / height, 3 * np.arange(width) / width)
    z[:40] = 0
    Image.fromarray(np.rint(z * 1000).astype(np.uint16)).save(tmp_path / "sensor.png")
    page.get_by_text("Use a depth map from elsewhere").click()
    page.get_by_role("button", name="Use this depth").click()
    page.get_by_text("this photo is no file").first.wait_for()
    page.locator("#given-file input[type=file]").set_input_files(tmp_path / "sensor.png")
    page.locator("#given-file").get_by_text("sensor").first.wait_for()
    page.locator("#given-unit_m input").click()
    page.get_by_role("option", name="Millimetres").click()
    page.get_by_role("button", name="Use this depth").click()
    status = page.locator("#status")
    status.get_by_text("given: sensor.png, depth in metres.").wait_for()
    expect(status).to_contain_text("of its pixels have no value")
    page.locator("#keys").get_by_text("Depth in metres").wait_for()
    page.locator("#history").get_by_text("given: sensor.png").wait_for()
    page.get_by_role("tab", name="Metres").click()
    page.locator("#found").get_by_text("In metres.").wait_for()
    page.get_by_role("tab", name="3D").click()
    page.locator("#shape-note").get_by_text("triangles").wait_for()
    page.get_by_role("tab", name="Files").click()
    values = np.load(take(page, "NumPy", tmp_path))
    assert np.array_equal(np.isnan(values), z == 0)
    np.testing.assert_allclose(values[40:], z[40:], atol=6e-4)
    record = json.loads(take(page, "Manifest", tmp_path).read_text())
    assert (record["checkpoint"], record["kind"]) == ("given: sensor.png", "metric")

    upload(page, picture)
    page.locator("#photo img").wait_for()
    box = page.locator("#given-file")
    assert box.get_by_text("sensor").count()  # it was there before any photo
    with unanswered(page):  # a late answer would take out the next map
        page.locator("#photo").get_by_label("Remove Image").click()
        box.locator("input[type=file]").wait_for(state="attached")
