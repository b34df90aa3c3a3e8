"""What the viewer paints, writes and remembers, without a browser and without a model."""

import asyncio
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.components import Component
from PIL import Image

from marigold_core import storage
from marigold_core.comparison.sweep import PartTimes
from marigold_core.images.colormaps import colour_range, depth_to_rgb, uncertainty_top
from marigold_core.prediction import Prediction
from marigold_core.serving.jobs import Service
from marigold_core.serving.runtime_estimate import RuntimeEstimate
from marigold_core.settings import ColourSettings, MeshSettings, Settings
from marigold_core.ui import text
from marigold_core.ui.controls.runtime import describe
from marigold_core.ui.run_controller import CurrentJob, OpenTab, RunController, Values
from marigold_core.ui.screens.depth import LEVELS, DepthScreen, readout_values
from marigold_core.ui.screens.history import MOST_RUNS, History
from marigold_core.ui.screens.layers import (
    DEPTH,
    GREY,
    MEMBER,
    NORMALS,
    PHOTO,
    UNCERTAINTY,
    draw_legends,
    main_layer,
    offered,
    paint,
)
from tests.helpers.predictions import layers_of

HEIGHT, WIDTH = 120, 160
PARTS = PartTimes(1.0, 1.0, 1.0)
PLAIN, FLAT = ColourSettings(), MeshSettings()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))


def depth(members: int = 4, seed: int = 0, **changed: object) -> Prediction:
    """A ramp from left, 0, to right, 1; its spread grows from top to bottom."""
    values = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))
    spread = np.tile(np.linspace(0, 0.2, HEIGHT, dtype=np.float32)[:, None], (1, WIDTH))
    made = Prediction(
        modality="depth",
        kind="affine",
        space="depth",
        values=values,
        uncertainty=spread if members >= 3 else None,
        members=np.linspace(0, 1, members * 12 * 16).reshape(members, 12, 16).astype(np.float16),
        photo=np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
        fov_x_deg=None,
        settings=Settings(ensemble_size=members, seed=seed).resolved(4, 64),
        checkpoint="tiny",
        checkpoint_sha256="0" * 64,
        device="cpu",
        dtype="float32",
    )
    return replace(made, **changed)


def facing(members: int = 4) -> Prediction:
    """A wall that faces the camera, as a normals checkpoint sees it."""
    towards = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    towards[..., 2] = 1
    small = np.broadcast_to(towards[:12, :16], (members, 12, 16, 3)).astype(np.float16)
    return replace(depth(members), modality="normals", kind="unit-vector", values=towards, members=small)


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


# ------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    "prediction", [depth(), facing(), layers_of(HEIGHT, WIDTH)], ids=["depth", "normals", "intrinsics"]
)
def test_every_layer_has_the_size_of_the_photo_on_the_page(prediction: Prediction) -> None:
    for _, layer in offered(prediction):
        assert pixels(paint(prediction, layer, PLAIN, FLAT)).shape == (HEIGHT, WIDTH, 3), layer


def test_large_photos_are_shown_at_the_size_of_a_screen() -> None:
    large = depth(
        values=np.zeros((900, 2000), np.float32),
        uncertainty=np.zeros((900, 2000), np.float32),
        photo=np.zeros((900, 2000, 3), np.uint8),
    )
    assert {pixels(paint(large, layer, PLAIN, FLAT)).shape for _, layer in offered(large)} == {(576, 1280, 3)}


def test_only_what_is_there_is_offered() -> None:
    assert [name for _, name in offered(depth(2))] == [PHOTO, DEPTH, GREY, NORMALS, f"{MEMBER}1", f"{MEMBER}2"]
    assert UNCERTAINTY in [name for _, name in offered(depth(3))]
    assert [name for _, name in offered(replace(facing(1), uncertainty=None, members=None))] == [PHOTO, NORMALS]
    intrinsics = replace(layers_of(HEIGHT, WIDTH), uncertainty=None, members=None)
    assert [name for _, name in offered(intrinsics)] == [PHOTO, "albedo", "shading", "roughness"]
    assert main_layer(intrinsics) == "albedo"
    legends = draw_legends(intrinsics, ["albedo", "shading"], PLAIN)
    assert "without light and shadow" in legends and legends.count("its scale is not known") == 1
    assert [one["label"] for one in readout_values(intrinsics)["channels"]] == ["Albedo", "Shading", "Roughness"]


def test_depth_takes_the_colours_of_the_map_grey_and_members_likewise() -> None:
    made = depth()
    for layer, colours, expected in (
        (DEPTH, ColourSettings(colormap="magma"), depth_to_rgb(made.values, "magma")),
        (GREY, ColourSettings(colormap="magma"), depth_to_rgb(made.values, "gray")),
        (DEPTH, ColourSettings(invert=True), depth_to_rgb(made.values, invert=True)),
    ):
        np.testing.assert_array_equal(pixels(paint(made, layer, colours, FLAT)), expected)
    shades = pixels(paint(made, f"{MEMBER}4", ColourSettings(colormap="gray"), FLAT))[..., 0]
    assert shades.min() > 0.7 * 255 and shades.max() == 255  # the last quarter of the numbers


def test_the_range_is_a_share_of_the_depths() -> None:
    made = depth()
    first, last = (depth_to_rgb(np.array([[end]]))[0, 0] for end in (0.0, 1.0))
    shown = pixels(paint(made, DEPTH, ColourSettings(range_from=0.25, range_to=0.5), FLAT))
    assert (shown[:, : WIDTH // 4 - 1] == first).all() and (shown[:, WIDTH // 2 + 1 :] == last).all()
    assert len(np.unique(shown[0], axis=0)) > 20
    metres = depth(kind="metric", values=made.values * 8 + 2)
    assert colour_range(metres, ColourSettings(range_from=0.25)) == (4.0, 10.0)


def test_a_picture_that_a_browser_may_be_reading_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [paint(depth(), layer, PLAIN, FLAT) for layer in (PHOTO, DEPTH)]
    monkeypatch.setattr(storage, "write_bytes", lambda path, content: pytest.fail(f"{path} was written again"))
    assert [paint(depth(), layer, PLAIN, FLAT) for layer in (PHOTO, DEPTH)] == shown


# ------------------------------------------------------------------------------- legend


def ticks(drawn: str) -> list[str]:
    return re.findall(r'<span style="left:[\d.]+%">([^<]*)</span>', drawn)


def test_ticks_are_relative_or_metres_and_follow_the_range() -> None:
    assert ticks(draw_legends(depth(), [PHOTO, DEPTH], PLAIN)) == ["near 0.00", "0.25", "0.50", "0.75", "1.00 far"]
    narrow = ColourSettings(range_from=0.2, range_to=0.6)
    assert ticks(draw_legends(depth(), [DEPTH], narrow))[1:4] == ["0.30", "0.40", "0.50"]
    metres = draw_legends(depth(kind="metric", values=depth().values * 8 + 2), [DEPTH], PLAIN)
    assert ticks(metres) == ["near 2.00 m", "4.00 m", "6.00 m", "8.00 m", "10.00 m far"]
    assert text.KEY_KINDS["metric"] in metres and "not metres" not in metres


def test_each_legend_is_drawn_once_and_photos_have_none() -> None:
    assert draw_legends(depth(), [PHOTO, PHOTO], PLAIN).count("<figure") == 0
    assert draw_legends(depth(), [DEPTH, DEPTH], PLAIN).count("<figure") == 1
    assert draw_legends(depth(), [f"{MEMBER}1", f"{MEMBER}4"], PLAIN).count("<figure") == 1
    assert draw_legends(depth(), [GREY, DEPTH], PLAIN).count("<figure") == 2
    assert text.KEY_NORMALS in draw_legends(facing(), [NORMALS, f"{MEMBER}1"], PLAIN)


def test_the_legend_has_the_colours_of_the_picture() -> None:
    plain, swapped = (draw_legends(depth(), [DEPTH], ColourSettings(invert=invert)) for invert in (False, True))
    stops = [re.findall(r"rgb\([\d ]+\)", drawn) for drawn in (plain, swapped)]
    assert stops[0] == stops[1][::-1]
    red, green, blue = depth_to_rgb(np.zeros((1, 1), np.float32))[0, 0]
    assert stops[0][0] == f"rgb({red} {green} {blue})"


def test_the_legend_of_uncertainty_ends_where_the_picture_does() -> None:
    made = depth()
    assert made.uncertainty is not None
    top = uncertainty_top(made.uncertainty)
    assert ticks(draw_legends(made, [UNCERTAINTY], PLAIN))[-1] == f"{top * 100:.1f} % or more"
    assert ticks(draw_legends(replace(made, kind="metric"), [UNCERTAINTY], PLAIN))[-1] == f"{top:.2f} m or more"


# ------------------------------------------------------------------------------- numbers under the pointer


def numbers(channel: dict) -> np.ndarray:
    codes = np.frombuffer(b64decode(channel["codes"]), "<u2").reshape(channel["rows"], channel["columns"])
    return channel["low"] + codes * channel["step"]


def test_readings_are_the_numbers_of_the_map_in_their_units() -> None:
    made = depth(kind="metric", values=depth().values * 8 + 2)
    found = readout_values(made)
    assert (found["width"], found["height"]) == (WIDTH, HEIGHT)
    of_depth, of_doubt = found["channels"]
    np.testing.assert_allclose(numbers(of_depth), made.values, atol=1e-3)
    assert made.uncertainty is not None
    np.testing.assert_allclose(numbers(of_doubt), made.uncertainty, atol=1e-4)
    assert (of_depth["unit"], of_doubt["unit"]) == (" m", " m")
    relative = readout_values(depth())["channels"]
    assert (relative[0]["unit"], relative[1]["unit"]) == ("", " %")
    np.testing.assert_allclose(numbers(relative[1]).max(), 20, rtol=1e-3)


def test_readings_are_coarse_and_bear_a_constant_map() -> None:
    (channel,) = readout_values(depth(1, values=np.full((1200, 1600), 0.3, np.float32)))["channels"]
    assert (channel["rows"], channel["columns"]) == (120, 160)
    np.testing.assert_allclose(numbers(channel), 0.3, atol=1 / LEVELS)


def test_readings_of_normals_are_angles_to_the_viewer() -> None:
    values = facing().values.copy()
    values[:, 80:] = (np.sin(np.radians(30)), 0, np.cos(np.radians(30)))
    angles = numbers(readout_values(replace(facing(), values=values))["channels"][0])
    np.testing.assert_allclose(angles[60, [10, 150]], [0, 30], atol=0.1)


# ------------------------------------------------------------------------------- the screen


@pytest.fixture
def controller(tmp_path: Path) -> RunController:
    """A controller without a page: widgets can be made, and hold their first values."""
    return RunController(Service(tmp_path / "results"))


@pytest.fixture
def viewer(controller: RunController) -> DepthScreen:
    async def draw() -> DepthScreen:  # in a running loop: without one Gradio makes its own and leaves it open
        with gr.Blocks(), gr.Tab(text.DEPTH_TAB) as tab:
            return DepthScreen(controller, tab)

    return asyncio.run(draw())


def values_of(viewer: DepthScreen, **changed: object) -> Values:
    held = {widget: widget.value for widget in (*viewer.inputs, viewer.controller.open_tab)}
    return held | {getattr(viewer, name): value for name, value in changed.items()}


def test_a_side_that_a_result_does_not_have_shows_what_it_is_about(viewer: DepthScreen) -> None:
    asked = values_of(viewer, left=GREY, right=UNCERTAINTY)
    offer = viewer.finish(depth(1), asked)
    assert offer[viewer.right].constructor_args["value"] == DEPTH
    assert "value" not in offer[viewer.left].constructor_args
    _, right = viewer.show(depth(1), asked)[viewer.pictures]
    np.testing.assert_array_equal(pixels(right), depth_to_rgb(depth().values))
    assert viewer.finish(facing(1), asked)[viewer.left].constructor_args["value"] == PHOTO


def test_nothing_is_painted_in_a_closed_tab(controller: RunController, viewer: DepthScreen) -> None:
    closed = {**values_of(viewer), controller.open_tab: OpenTab(text.FILES_TAB)}
    assert viewer.show(depth(), closed) == {}
    closed[controller.open_tab].set(text.DEPTH_TAB)  # opened while the job goes on
    assert viewer.pictures in viewer.show(depth(), closed)


def test_controls_paint_the_kept_result_again_and_say_its_sizes(controller: RunController, viewer: DepthScreen) -> None:
    key = controller.service.keep(depth())
    chosen = {**values_of(viewer, right=NORMALS), controller.result: key}
    update = viewer.repaint(chosen)
    np.testing.assert_array_equal(pixels(update[viewer.pictures][1]), pixels(paint(depth(), NORMALS, PLAIN, FLAT)))
    assert text.KEY_NORMALS in update[viewer.legends]
    assert viewer.repaint({**chosen, controller.result: None}) == {viewer.pictures: gr.skip()}
    line = viewer.finish(depth(), chosen)[viewer.sizes]
    assert "160×120" in line and "64×48" in line


def test_normals_have_the_field_of_view_of_the_3d_screen(controller: RunController, viewer: DepthScreen) -> None:
    controller.mesh.widgets.update(fov_x_deg=gr.Slider(1, 150), edge_cut=gr.Slider())
    fov = controller.mesh.widgets["fov_x_deg"]
    assert fov in viewer.inputs and controller.mesh.widgets["edge_cut"] not in viewer.inputs
    painted = [viewer.draw(depth(), {**values_of(viewer, right=NORMALS), fov: angle}) for angle in (30, 90)]
    shown = [pixels(update[viewer.pictures][1]) for update in painted]
    for angle, picture in zip((30, 90), shown, strict=True):
        expected = pixels(paint(depth(), NORMALS, PLAIN, MeshSettings(fov_x_deg=angle)))
        np.testing.assert_array_equal(picture, expected)
    assert (shown[0] != shown[1]).any()


# ------------------------------------------------------------------------------- the runs of a visit


class Strip:
    """A history and what the page would hold for it."""

    def __init__(self, controller: RunController) -> None:
        self.history = History(controller)
        self.values: dict[Component, Any] = {self.history.runs: [], controller.current: CurrentJob()}
        self.drawn = ""
        controller.draw_buttons()
        controller.draw_status()
        controller.screens.append(self.history)

    def finish(self, prediction: Prediction) -> None:
        self.take(self.history.finish(prediction, self.values))

    def pick(self, run: int) -> dict:
        found = self.history.on_pick(self.values, gr.EventData(None, {"run": self.values[self.history.runs][run].key}))
        self.take(found)
        return found

    def take(self, update: dict) -> None:
        self.values[self.history.runs] = update.get(self.history.runs, self.values[self.history.runs])
        self.drawn = update[self.history.strip]

    @property
    def pressed(self) -> list[bool]:
        return [word == "true" for word in re.findall('aria-pressed="(true|false)"', self.drawn)]


def test_runs_line_up_newest_first_once_each_and_stored_examples_do_not(controller: RunController) -> None:
    strip = Strip(controller)
    assert text.NO_RUNS in strip.history.draw([], None)
    first, second = depth(seed=1), depth(seed=2)
    strip.finish(first)
    strip.finish(second)
    assert strip.pressed == [True, False]
    assert strip.drawn.index("seed 2") < strip.drawn.index("seed 1")
    assert "4 steps, 4 members, seed 2, 64 px, tiny" in strip.drawn
    strip.finish(first)
    assert strip.pressed == [False, True]
    strip.finish(depth(device=None))
    assert strip.pressed == [False, False]


def test_the_same_run_made_again_takes_the_place_of_the_first(controller: RunController) -> None:
    strip = Strip(controller)
    for prediction in (depth(seed=1), depth(seed=2), depth(seed=1)):
        strip.finish(prediction)
    assert strip.pressed == [True, False] and strip.drawn.index("seed 1") < strip.drawn.index("seed 2")
    strip.finish(depth(seed=1, photo=np.full((HEIGHT, WIDTH, 3), 91, np.uint8)))
    strip.finish(depth(seed=1, checkpoint_sha256="1" * 64))
    assert len(strip.pressed) == 4


def test_a_picked_run_is_on_show_again_under_its_own_id(controller: RunController) -> None:
    strip = Strip(controller)
    first = depth(seed=1)
    for prediction in (first, depth(seed=2)):
        strip.finish(prediction)
    update = strip.pick(1)
    assert controller.service.prediction(update[controller.result]) is first
    assert update[controller.result] == strip.values[strip.history.runs][1].key
    assert "An earlier run: 4 steps, 4 members, seed 1" in update[controller.status]
    assert strip.pressed == [False, True]


def test_another_process_brings_the_runs_of_a_browser_back(tmp_path: Path) -> None:
    """The browser holds ids alone; what it sends that is no id of a kept result is left out."""
    controller = RunController(Service(tmp_path))
    strip, update = Strip(controller), {}
    for seed in (1, 2):
        update = strip.history.finish(made := depth(seed=seed), strip.values)
        strip.take(update)
        controller.service.persist(controller.service.keep(made))
    later = History(RunController(Service(tmp_path)))
    runs, drawn = later.on_load([*update[strip.history.browser], "../../etc", 7, "0" * 32])
    assert [run.key for run in runs] == update[strip.history.browser] and "seed 1" in drawn
    assert [replace(run, picture="") for run in runs] == [
        replace(run, picture="") for run in strip.values[strip.history.runs]
    ]
    assert later.on_load({"no": "list"})[0] == later.on_load(None)[0] == []


def test_the_strip_is_bounded(controller: RunController) -> None:
    strip = Strip(controller)
    for seed in range(MOST_RUNS + 3):
        strip.finish(depth(1, seed=seed))
    assert len(strip.pressed) == MOST_RUNS
    assert f"seed {MOST_RUNS + 2}" in strip.drawn and "seed 2," not in strip.drawn


def test_a_run_whose_result_made_room_says_so(tmp_path: Path) -> None:
    controller = RunController(Service(tmp_path, kept_bytes=1))  # one result is always kept
    strip = Strip(controller)
    strip.finish(depth(seed=1))
    strip.finish(depth(seed=2))
    assert strip.drawn.count(f"<br>{text.RUN_GONE_SHORT}") == 1 and 'class="gone"' in strip.drawn
    update = strip.pick(1)
    assert text.RUN_GONE in update[controller.status]
    assert controller.result not in update


def test_names_of_checkpoints_are_text_on_the_strip(controller: RunController) -> None:
    strip = Strip(controller)
    strip.finish(depth(checkpoint="<img src=x onerror='x'>"))
    assert "<img src=x" not in strip.drawn and "onerror='x'" not in strip.drawn
    assert "<img src=x" not in strip.pick(0)[controller.status]


def test_a_pick_of_an_unknown_run_changes_nothing_on_show(controller: RunController) -> None:
    strip = Strip(controller)
    update = strip.history.on_pick(strip.values, gr.EventData(None, {"run": "someone else's"}))
    assert text.RUN_GONE in update[controller.status] and controller.result not in update


# ------------------------------------------------------------------------------- the cost


def asked(steps: int, members: int, tiles: int = 1) -> Settings:
    return Settings(num_inference_steps=steps, ensemble_size=members, tiles_per_side=tiles)


def test_an_estimate_says_what_it_does_not_know() -> None:
    timed = describe(asked(1, 10), RuntimeEstimate(3.21, True, 0, PARTS), has_photo=True)
    assert timed == "1 step, 10 members: about 3.2 s."
    guess = describe(asked(1, 10), RuntimeEstimate(140, False, 2_600_000_000, PARTS), has_photo=False)
    assert guess.startswith("1 step, 10 members: roughly 2.3 minutes for 12 megapixels, a first guess.")
    assert "2.6 GB are downloaded" in guess
    for measured in (True, False):
        cut = describe(asked(4, 4, 2), RuntimeEstimate(21, measured, 0, PARTS), has_photo=True)
        assert cut.startswith("4 steps, 4 members, 2×2 tiles: ")


def test_a_host_that_lends_its_gpu_says_what_a_run_costs_or_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", "20")
    parts = PartTimes(1.0, 0.5, 1.0)
    fits = describe(asked(4, 3), RuntimeEstimate(5.0, True, 0, parts), has_photo=True)
    assert "It asks for 10 s of your GPU time" in fits and "2 minutes" in fits
    too_long = describe(asked(4, 10), RuntimeEstimate(31.0, True, 0, parts), has_photo=True)
    assert too_long.endswith("One run may have the GPU for 20 s: at most 4 members with these steps.")
    none = describe(asked(50, 1), RuntimeEstimate(27.0, True, 0, parts), has_photo=True)
    assert none.endswith("One run may have the GPU for 20 s: choose fewer steps or a lower resolution.")
