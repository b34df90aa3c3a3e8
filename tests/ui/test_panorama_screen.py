"""The way around: offered for photos of a panorama's shape, run as a job of the service, shown from within."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from marigold_core.prediction import Prediction
from marigold_core.serving.jobs import Service
from marigold_core.settings import Settings
from marigold_core.ui import page, run_controller
from marigold_core.ui.events import NO_CHANGE
from marigold_core.ui.run_controller import OpenTab, Update
from marigold_core.ui.screens.panorama import PanoramaScreen
from marigold_core.ui.text import panorama as text
from marigold_core.ui.theme import CSS


@pytest.fixture
def tab(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[page.PhotoTab]:
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(run_controller, "STATE_S", 0.0)
    service = Service(tmp_path / "results")

    async def draw() -> page.PhotoTab:  # in a loop that is closed again
        with gr.Blocks():
            return page.PhotoTab(service)

    yield asyncio.run(draw())
    service.close()


def predicted(tab: page.PhotoTab, photo: np.ndarray, checkpoint: Path) -> Prediction:
    settings = Settings(num_inference_steps=1, processing_resolution=32)
    *_, made = tab.controller.service.run(photo, settings, str(checkpoint))
    assert isinstance(made, Prediction)
    return made


def test_it_is_offered_for_a_panorama_and_gives_a_mesh_all_around(tab: page.PhotoTab, photo, tiny_depth: Path) -> None:
    (screen,) = [one for one in tab.controller.screens if isinstance(one, PanoramaScreen)]
    made = predicted(tab, photo(64, 128), tiny_depth)
    values: dict[Any, Any] = {widget: getattr(widget, "value", None) for widget in screen.given}
    values[tab.controller.result] = tab.controller.service.keep(made)
    offered = screen.finish(made, values)
    (offer,) = [one for widget, one in offered.items() if isinstance(widget, gr.Tab)]
    assert offer.constructor_args["visible"]
    hidden = screen.finish(predicted(tab, photo(64, 96), tiny_depth), values)
    assert [one.constructor_args["visible"] for widget, one in hidden.items() if isinstance(widget, gr.Tab)] == [False]

    updates: list[Update] = list(screen.on_make(values))
    told = " ".join(str(update.get(tab.controller.status)) for update in updates)
    assert "Looking front" in told and "Looking down" in told
    came = updates[-1][screen.unseen]
    seen: dict[Any, Any] = {screen.unseen: came, tab.controller.open_tab: OpenTab()}
    assert Path(came).stat().st_size > 1000 and screen.on_made(seen)[screen.scene] is NO_CHANGE  # another tab is open
    seen[tab.controller.open_tab].set(text.TAB)
    assert screen.on_made(seen)[screen.scene].constructor_args["value"] == came
    assert str(updates[-1][screen.files]).count(" download>") == 5
    assert "figcaption a[download]" in CSS.read_text(encoding="utf-8")  # as buttons
    assert updates[-1][tab.controller.actions.run].constructor_args["interactive"]

    shape = tab.controller.mesh.widgets
    values |= {shape["near_clip"]: 0.95, shape["far_clip"]: 0.96}
    *_, last = screen.on_make(values)
    assert "panorama.glb was left out: The cuts leave nothing" in str(last[tab.controller.status])
    assert last[screen.unseen] is None and str(last[screen.files]).count(" download>") == 4
