"""The 3D screen in a real Chromium: shapes are chosen, changed and downloaded as they are shown."""

from io import BytesIO
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
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


def test_a_slider_that_is_moved_by_keys_changes_the_shape(page: Page) -> None:
    open_scene(page)
    page.get_by_label("range slider for Field of view").press("ArrowRight")
    page.get_by_text("as you set it, the photo does not say").wait_for()
    choose(page, "Relief to print")
    wait_for_note(page, "Watertight · 100 ×")
    page.get_by_label("range slider for Longest edge").press("ArrowRight")
    wait_for_note(page, "Watertight · 105 ×")


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


def canvas(page: Page) -> np.ndarray:
    """What the viewer draws, without its buttons, as soon as it draws something."""
    for _ in range(120):
        picture = Image.open(BytesIO(page.locator("#scene canvas").screenshot())).convert("RGB")
        drawn = np.asarray(picture).astype(int)[30:]
        if drawn.std() > 8:
            return drawn
        page.wait_for_timeout(500)
    raise AssertionError("the viewer draws nothing")


def test_the_first_view_fills_the_canvas_and_a_rebuilt_shape_keeps_the_camera(page: Page) -> None:
    page.get_by_role("button", name="pagoda").click()
    page.wait_for_function("document.querySelector('#photo img')?.src.includes('temple')")
    open_scene(page)
    canvas(page)
    page.wait_for_timeout(3000)  # the viewer moves to its first view
    first = canvas(page)
    rows, columns = np.nonzero(np.abs(first - first[-1, -1]).sum(axis=2) > 24)
    height, width = first.shape[:2]
    assert rows.max() - rows.min() > 0.75 * height and columns.max() - columns.min() > 0.6 * width
    assert abs((columns.max() + columns.min()) / 2 - width / 2) < 0.1 * width

    box = page.locator("#scene canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 200, y, steps=4)
    page.mouse.up()
    page.wait_for_timeout(3000)
    turned = canvas(page)
    with page.expect_response(lambda answer: "mesh.glb" in answer.url):  # its note may say the same of both
        enter(page, "Nearest / farthest", "0.27")
    page.wait_for_timeout(3000)
    rebuilt = canvas(page)
    assert np.abs(rebuilt - turned).mean() < 0.5 * np.abs(turned - first).mean()
