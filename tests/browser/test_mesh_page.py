"""The 3D screen in a real Chromium: shapes are chosen, changed and downloaded as they are shown."""

from pathlib import Path

import trimesh
from playwright.sync_api import Page, Route

from tests.helpers.app_server import in_chromium, unfold

pytestmark = in_chromium


def open_scene(page: Page) -> None:
    page.get_by_role("tab", name="3D").click()
    wait_for_note(page, "triangles · GLB")


def wait_for_note(page: Page, words: str) -> None:
    """Wait until the line under the shape has these words."""
    page.locator("#shape-note").get_by_text(words).wait_for()


def choose(page: Page, shape: str) -> None:
    page.locator("#shape").get_by_text(shape, exact=True).click()


def enter(page: Page, control: str, value: str) -> None:
    field = page.get_by_label(f"number input for {control}")
    field.fill(value)
    field.press("Tab")


def test_a_relief_is_sized_said_and_downloaded_as_it_was_seen(page: Page, tmp_path: Path) -> None:
    open_scene(page)
    choose(page, "Relief to print")
    wait_for_note(page, "Watertight · 100 ×")
    page.get_by_label("number input for Field of view").wait_for(state="hidden")
    enter(page, "Longest edge", "60")
    enter(page, "Height of the relief", "9")
    wait_for_note(page, "Watertight · 60 ×")
    wait_for_note(page, "× 12.0 mm")
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Relief STL").click()
    saved = tmp_path / "relief.stl"
    download.value.save_as(saved)
    solid = trimesh.load_mesh(saved)
    assert solid.is_watertight and abs(solid.extents.max() - 60) < 0.01 and abs(solid.extents[2] - 12) < 0.01


def test_points_normals_and_the_mesh_follow_one_another(page: Page) -> None:
    open_scene(page)
    choose(page, "Points")
    wait_for_note(page, "points · PLY")
    choose(page, "Surface normals")
    wait_for_note(page, "Which way each surface faces")
    page.locator("#views .comparison:visible img.fixed").wait_for()
    choose(page, "Textured mesh")
    wait_for_note(page, "triangles · GLB")
    page.locator("#scene canvas").wait_for()


def test_a_value_that_is_refused_is_explained_and_can_be_put_right(page: Page) -> None:
    open_scene(page)
    unfold(page, page.locator("#shape-more button").first)
    enter(page, "Leave out nearer than", "0.8")
    wait_for_note(page, "triangles · GLB")
    enter(page, "Leave out farther than", "0.5")
    page.get_by_text("near_clip must be below far_clip, but got 0.8 and 0.5").first.wait_for()
    enter(page, "Leave out nearer than", "0.1")
    enter(page, "Field of view", "70")
    page.get_by_text("as you set it, the photo does not say").wait_for()
    wait_for_note(page, "triangles · GLB")


def test_a_visitor_who_comes_back_before_the_viewer_is_loaded_still_sees_the_shape(page: Page) -> None:
    def late(route: Route) -> None:
        page.wait_for_timeout(3000)
        route.continue_()

    page.route("**/Canvas3D-*.js", late)  # as over a slow line
    open_scene(page)
    page.get_by_role("tab", name="Depth").click()
    open_scene(page)
    page.locator("#scene canvas").wait_for(timeout=30_000)
