"""What a link carries and what it does not; values of a stranger's link are checked like any other."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl

import gradio as gr
import pytest

from marigold_core.errors import MarigoldError
from marigold_core.files import examples
from marigold_core.serving.jobs import Service
from marigold_core.settings import PRESETS, Settings
from marigold_core.ui.controls.examples import ExampleGallery
from marigold_core.ui.controls.settings import DEFAULT_PRESET, RESOLUTIONS_PX, draw_effort, draw_settings
from marigold_core.ui.controls.share_link import PageState, ShareLink, read, write
from marigold_core.ui.events import NO_CHANGE
from marigold_core.ui.run_controller import CurrentJob, RunController


def query(**words: str) -> dict[str, str]:
    return words


@pytest.mark.parametrize("pixels", [None, 0, *RESOLUTIONS_PX])
@pytest.mark.parametrize("example", [None, *examples.NAMES])
def test_what_is_written_is_read_back(pixels: int | None, example: str | None) -> None:
    asked = Settings(num_inference_steps=7, ensemble_size=12, processing_resolution=pixels, seed=2**32 - 1)
    asked = asked.changed(views="mirrored", tiles_per_side=3, follow_outlines=pixels is None)
    place = PageState(asked, "nano", example)
    assert read(dict(parse_qsl(write(place).removeprefix("?")))) == place


def test_a_link_says_nothing_about_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_MODEL", "/models/of/mine")
    link = write(PageState(Settings(num_inference_steps=1), "/models/of/mine", None))
    usual = "views=photo&tiles_per_side=1&follow_outlines=False&decoder=own"
    assert link == f"?num_inference_steps=1&ensemble_size=1&seed=0&{usual}"
    place = read(dict(parse_qsl(link.removeprefix("?"))))
    assert place is not None and place.checkpoint == "/models/of/mine"  # wherever it is opened, that place's own


def test_a_query_that_is_not_ours_is_no_link() -> None:
    assert read({}) is None
    assert read(query(__theme="dark", utm_source="x")) is None
    place = read(query(__theme="dark", example="cat"))
    assert place == PageState(Settings(**PRESETS[DEFAULT_PRESET]), "nano", "cat")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (query(seed="-1"), "seed must be"),
        (query(seed="1e3"), "seed must be"),
        (query(seed="9" * 5000), "seed must be"),
        (query(seed=""), "seed must be"),
        (query(num_inference_steps="51"), "num_inference_steps must be"),
        (query(ensemble_size="<script>"), "ensemble_size must be"),
        (query(views="turned"), "views must be"),
        (query(follow_outlines="yes"), "follow_outlines must be"),
        (query(processing_resolution="264"), "processing_resolution has no 264; choose from 256"),
        (query(processing_resolution="2049"), "processing_resolution"),
        (query(example="../cat"), "example has no '../cat'; choose from street"),
        (query(example="cat", checkpoint="/etc"), "There is no checkpoint '/etc' here"),
        (query(checkpoint="somebody/else"), "There is no checkpoint"),
    ],
)
def test_what_the_page_does_not_offer_is_refused_in_a_sentence(words: dict[str, str], said: str) -> None:
    with pytest.raises(MarigoldError) as refusal:
        read(words)
    assert said in str(refusal.value) and str(refusal.value).endswith(".")
    assert len(str(refusal.value)) < 300


def test_only_a_photo_with_an_examples_bytes_is_named(tmp_path: Path, photo) -> None:
    from PIL import Image

    copy = tmp_path / "holiday.jpg"
    shutil.copy(examples.FOLDER / "coffee.jpg", copy)
    assert ExampleGallery.name_of(str(copy)) == "coffee"
    Image.fromarray(photo(24, 32)).save(tmp_path / "coffee.jpg")
    assert ExampleGallery.name_of(str(tmp_path / "coffee.jpg")) is None
    assert ExampleGallery.name_of(None) is None


def test_a_link_on_show_follows_the_page() -> None:
    link = link_of_a_page()
    values: dict[Any, Any] = {widget: getattr(widget, "value", None) for widget in link.inputs.values}
    values |= {link.controller.photo: str(examples.FOLDER / "coffee.jpg"), link.address: ""}
    assert link.renew(values) == {link.address: NO_CHANGE}  # none was asked for
    shown = "https://here.org/depth/" + link.compose(values).value
    assert shown.endswith("&example=coffee")
    assert link.renew({**values, link.address: shown}) == {link.address: NO_CHANGE}
    other = {**values, link.address: shown, link.controller.photo: str(examples.FOLDER / "CREDITS.md")}
    assert link.renew(other)[link.address] == shown.removesuffix("&example=coffee")
    bad = link.renew({**other, link.inputs.seed: -1})
    assert bad[link.address].value == "" and not bad[link.address].visible
    assert link.renew({**other, link.address: "?example=coffee"}) == {link.address: NO_CHANGE}


def test_a_page_that_begins_late_takes_nothing_back() -> None:
    link = link_of_a_page()
    current = CurrentJob()
    current.ask("photo.png")  # before the page's beginning was answered
    values: Any = {link.controller.current: current, link.controller.result: None}
    asked = SimpleNamespace(query_params={"example": "coffee"})
    assert link.on_load(values, cast(gr.Request, asked)) == {link.controller.status: NO_CHANGE}
    assert current.wanted == ("photo.png",)


def link_of_a_page() -> ShareLink:
    async def draw() -> ShareLink:  # in a loop that is closed again
        with gr.Blocks():
            controller = RunController(Service())
            controller.draw_photo()
            controller.draw_status()
            inputs = draw_settings(draw_effort())
            return ShareLink(controller, inputs, ExampleGallery(controller))

    return asyncio.run(draw())
