"""A depth map from elsewhere on the page: put on show for every screen, refused in a sentence, and made again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from marigold_core import Anchor, Hints, MeshSettings, Prediction, calibrate, save
from marigold_core.files.presets import PRESETS
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.page import PhotoTab
from marigold_core.ui.screens.files import ITEMS
from tests.helpers.encoded import encoded
from tests.images.test_depth_map import LEVELS, gdepth_photo

Z = (2 + np.add.outer(np.arange(48) / 48, np.arange(64) / 16)).astype(np.float32)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[PhotoTab]:
    service = Service(tmp_path / "files")

    async def draw() -> PhotoTab:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks() as page:
            tab = PhotoTab(service)
            tab.connect(page)
        return tab

    yield asyncio.run(draw())
    service.close()


@pytest.fixture
def files(tmp_path: Path) -> SimpleNamespace:
    photo, depth = tmp_path / "room.png", tmp_path / "room_mm.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)).save(photo)
    Image.fromarray(np.rint(Z * 1000).astype(np.uint16)).save(depth)
    return SimpleNamespace(photo=str(photo), depth=str(depth))


def held(tab: PhotoTab, **given: object) -> dict[Any, Any]:
    """Give what the widgets of the page hold at first, the file inputs and the choices of the fold apart."""
    controller = tab.controller
    widgets = [*controller.inputs, *tab.inputs.values, *controller.mesh.widgets.values(), controller.result]
    values = {widget: getattr(widget, "value", None) for widget in widgets}
    values |= {widget: widget.value for widget in tab.given.reading.values()}  # type: ignore[attr-defined]
    values |= {tab.given.reading[name]: value for name, value in given.items() if name in tab.given.reading}
    files = {controller.photo: given.get("photo"), tab.given.file: given.get("depth")}
    return values | files | {tab.given.photo: given.get("added_to")}


def used(tab: PhotoTab, values: dict[Any, Any]) -> tuple[Prediction, str]:
    *_, last = tab.given.on_use(values)
    return tab.controller.service.prediction(last[tab.controller.result]), str(last[tab.controller.status])


def test_a_given_map_is_on_show_for_every_screen(tab: PhotoTab, files: SimpleNamespace) -> None:
    values = held(tab, photo=files.photo, depth=files.depth, unit_m="0.001")
    *_, last = tab.given.on_use(values)
    controller = tab.controller
    made = controller.service.prediction(last[controller.result])
    np.testing.assert_allclose(made.values, Z, atol=6e-4)
    assert (made.kind, made.checkpoint) == ("metric", "given: room_mm.png")
    assert "given: room_mm.png, depth in metres. Not all of what its values mean was stated" in last[controller.status]
    runs = last[controller.screens[-1].outputs[0]]
    assert [run.made for run in runs] == [("given: room_mm.png", "depth in metres")]
    for name, preset in PRESETS.items():
        assert preset.label == ITEMS[name][0]
        controller.service.export(last[controller.result], (), MeshSettings(), None, (name,))


def test_what_is_chosen_is_used_and_an_own_unit_can_be_typed(tab: PhotoTab, files: SimpleNamespace) -> None:
    made, said = used(tab, held(tab, photo=files.photo, depth=files.depth, greater="nearer"))
    assert (made.kind, made.space, made.values[0, 0]) == ("affine", "disparity", 1)
    assert "relative depth. Not all of what its values mean was stated; taken as usual: disparity, relative" in said
    made, _ = used(tab, held(tab, photo=files.photo, depth=files.depth, unit_m="0.0002"))
    np.testing.assert_allclose(made.values, Z / 5, atol=2e-4)


def test_without_a_file_it_is_the_depth_of_the_photo(tab: PhotoTab, tmp_path: Path, files: SimpleNamespace) -> None:
    lens = tmp_path / "lens.jpg"
    lens.write_bytes(gdepth_photo(encoded(LEVELS.astype(np.uint8))))
    made, _ = used(tab, held(tab, photo=str(lens)))
    assert made.kind == "metric" and made.checkpoint == "given: lens.jpg"
    with pytest.raises(gr.Error, match="This photo carries no depth map"):
        used(tab, held(tab, photo=files.photo))


def test_the_map_of_another_photo_is_not_used_though_it_is_still_in_its_box(
    tab: PhotoTab, files: SimpleNamespace
) -> None:
    made, _ = used(tab, held(tab, photo=files.photo, depth=files.depth, added_to=files.photo))
    assert made.checkpoint == "given: room_mm.png"
    with pytest.raises(gr.Error, match="This photo carries no depth map"):
        used(tab, held(tab, photo=files.photo, depth=files.depth, added_to="before.png"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"photo": None}, text.NO_PHOTO),
        ({"unit_m": "feet"}, "unit_m must be a valid number, but got 'feet'."),
        ({"kind": "metric"}, "unit_m is needed for metres"),
        ({"kind": "scale", "greater": "nearer", "quantity": "depth"}, "depth of kind scale is farther"),
    ],
)
def test_what_cannot_be_is_said(tab: PhotoTab, files: SimpleNamespace, given: dict[str, str], message: str) -> None:
    values = held(tab, **{"photo": files.photo, "depth": files.depth, **given})
    updates = []
    with pytest.raises(gr.Error, match=message):
        for update in tab.given.on_use(values):
            updates.append(update)
    assert message.split()[0] in str(updates[-1][tab.controller.status])


def test_a_given_map_has_no_members_to_add(tab: PhotoTab, files: SimpleNamespace) -> None:
    values = held(tab, photo=files.photo, depth=files.depth)
    *_, last = tab.given.on_use(values)
    uncertainty = tab.controller.screens[1]
    assert text.MORE_GIVEN in str([last[output] for output in uncertainty.outputs if output in last])


@pytest.mark.parametrize("metres", [False, True])
def test_its_manifest_is_made_again_or_says_what_is_missing(
    tab: PhotoTab, files: SimpleNamespace, tmp_path: Path, metres: bool
) -> None:
    made, _ = used(tab, held(tab, photo=files.photo, depth=files.depth))
    if metres:
        made = calibrate(made, Hints(anchors=[Anchor(2, 3, 2.2), Anchor(60, 40, 6.6)]))
    manifest = str(save(made, tmp_path / "saved", ["npy", "color"])["manifest"])
    values: dict[Any, Any] = {**held(tab), tab.replay.manifest: [manifest, files.photo, files.depth]}
    *_, last = tab.replay.on_upload(values)
    assert "Same bytes: 2 files." in last[tab.controller.status]
    run, stop = (last[button].constructor_args["interactive"] for button in tab.controller.actions.outputs)
    assert run and not stop
    values[tab.replay.manifest] = [manifest, files.photo]
    with pytest.raises(gr.Error, match="The depth map of this manifest, room_mm.png, is not here"):
        list(tab.replay.on_upload(values))
