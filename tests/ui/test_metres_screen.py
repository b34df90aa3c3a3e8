"""The metres screen without a browser: annotations, the solved result on show, the table, the drawn picture."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import numpy as np
import pytest

from marigold_core import CalibrationError
from marigold_core.calibration.anchors import Anchor
from marigold_core.calibration.calibrate import Calibrated, Hints, calibrate, distance_m
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.run_controller import CurrentJob, RunController
from marigold_core.ui.screens.annotations import LONGEST_PX, Annotations, Mode, bar_length, draw_annotations
from marigold_core.ui.screens.metres import MetresScreen, draw_results, format_with_error
from marigold_core.ui.text import metres as metres_text
from tests.helpers.measured_room import FLOOR, FOV_DEG, SPOTS, anchors, length, planted, room

Z = room()


# ------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    ("mode", "points", "left"),
    [("depth", 1, 1), ("depth", 2, 1), ("length", 2, 2), ("length", 3, 1), ("patch", 5, 5), ("distance", 1, 1)],
)
def test_points_are_collected_as_the_mode_needs_them(mode: Mode, points: int, left: int) -> None:
    annotations = Annotations()
    for k in range(points):
        annotations = annotations.with_point((k, k), mode)
    assert len(annotations.points) == left and annotations.points[-1] == (points - 1, points - 1)


def test_two_points_are_a_distance() -> None:
    annotations = Annotations().with_point((1, 2), "distance").with_point((3, 4), "distance")
    assert (annotations.points, annotations.measured) == ((), (((1, 2), (3, 4)),))


def test_points_and_a_number_are_a_hint() -> None:
    one = Annotations(points=((5, 6),))
    assert one.next_hint("depth", 3.0, False) == Hints(anchors=(Anchor(5, 6, 3.0),))
    assert one.next_hint("depth", 3.0, True).anchors[0].along == "ray"
    two = Annotations(Hints(fov_x_deg=50), points=((5, 6), (7, 8)))
    assert (
        two.next_hint("length", 2.0, False).lengths[0].metres == 2
        and two.next_hint("length", 2.0, False).fov_x_deg == 50
    )
    assert two.next_hint("patch", None, False).patches[0].corners == ((5, 6), (7, 8))
    refused: list[tuple[Annotations, Mode, float | None]] = [
        (Annotations(), "depth", 1.0),
        (one, "length", 1.0),
        (one, "patch", None),
        (one, "depth", None),
        (two, "distance", 1.0),
    ]
    for annotations, mode, metres in refused:
        with pytest.raises(CalibrationError) as refusal:
            annotations.next_hint(mode, metres, False)
        assert str(refusal.value) == (
            metres_text.METRES_LACKING if annotations is one and mode == "depth" else metres_text.POINTS_LACKING[mode]
        )


def test_rows_are_those_of_the_residuals_and_each_can_be_taken_out() -> None:
    hints = Hints(anchors(Z, 2), [length(Z, (30, 15), (130, 15))], [FLOOR], near_m=float(Z.min()))
    annotations = Annotations(hints, measured=(((1, 1), (2, 2)),))
    assert len(annotations.hint_list) == len(calibrate(planted(Z), hints).residuals) == 5
    for row in range(5):
        left = annotations.without(row).hint_list
        assert left == [one for number, one in enumerate(annotations.hint_list) if number != row]
    assert annotations.without(5).measured == () and annotations.without(5).hint_list == annotations.hint_list
    assert annotations.without(9) == replace(annotations, hints=annotations.without(9).hints)


# ------------------------------------------------------------------------------- words and pictures


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [(2.314, 0.08, "2.31 ± 0.08"), (2.3, 0.13, "2.30 ± 0.13"), (104.2, 12, "104 ± 12"), (5, 1e-9, "5.000 ± 0.001")],
)
def test_a_number_stops_where_its_error_begins(value: float, error: float, written: str) -> None:
    assert format_with_error(value, error) == written


def test_the_table_says_what_was_given_found_and_measured() -> None:
    wrong = [*anchors(Z, 4), Anchor(60, 92, float(Z[92, 60]) * 1.1)]
    made = calibrate(planted(Z), Hints(wrong))
    annotations = Annotations(made.hints, measured=(((20, 20), (140, 110)),))
    shown = draw_results(made, annotations)
    distance = distance_m(made, (20, 20), (140, 110))
    assert (
        metres_text.METRES_FIT.partition("{")[0] in shown
        and f"{format_with_error(distance.metres, distance.error_m)} m" in shown
    )
    assert f"{made.residuals[4].found:.3g} m" in shown and "60,92" in shown
    assert shown.count("data-row=") == 6
    assert metres_text.METRES_EXACT in draw_results(
        calibrate(planted(Z), Hints(anchors(Z, 2))), Annotations(Hints(anchors(Z, 2)))
    )
    assert "no reason." in draw_results(planted(Z), annotations, "no reason.")
    assert "–" in draw_results(planted(Z), annotations)


def test_a_straightened_map_a_metric_one_and_normals_have_their_own_sentence() -> None:
    straight = calibrate(planted(Z), Hints(patches=[FLOOR]))
    assert "Straightened, not metres" in draw_results(straight, Annotations(straight.hints))
    assert draw_results(replace(planted(Z), kind="metric"), Annotations()) == f"<p>{metres_text.METRES_OWN}</p>"
    assert "not for normals" in draw_results(replace(planted(Z), modality="normals"), Annotations())


@pytest.mark.parametrize(("across", "bar"), [(10.0, 2.0), (1.0, 0.2), (0.34, 0.1), (70, 20), (3.34, 1.0)])
def test_the_scale_bar_is_a_round_length_that_fits(across: float, bar: float) -> None:
    assert bar_length(across) == pytest.approx(bar)


def test_marks_are_drawn_where_they_lie_at_any_size_of_photo() -> None:
    plain = np.asarray(draw_annotations(planted(Z), Annotations(), "depth")).astype(int)
    assert max(plain.shape) == LONGEST_PX and plain.max() == 0  # the photo of this room is black
    marked = np.asarray(draw_annotations(planted(Z), Annotations(Hints((Anchor(40, 30, 1.0),))), "depth")).astype(int)
    rows, columns = np.nonzero(marked.max(axis=2) > 100)
    assert abs(columns.min() - 40 * 8) < 15 and abs(rows.max() - 30 * 8) < 15
    metric = calibrate(planted(Z), Hints(anchors(Z, 2)))
    assert np.asarray(draw_annotations(metric, Annotations(), "depth"))[-120:].max() > 200  # the scale bar
    unseen = calibrate(planted(Z, fov_x_deg=None), Hints(anchors(Z, 2)))
    assert np.asarray(draw_annotations(unseen, Annotations(), "depth")).max() == 0


# ------------------------------------------------------------------------------- the screen


class Visitor:
    """One who clicks and types: what the page holds, and what each handler changes in it."""

    def __init__(self, service: Service) -> None:
        self.controller = RunController(service)
        self.controller.draw_buttons()
        self.controller.draw_status()
        self.screen = screen = MetresScreen(self.controller)
        self.controller.screens.append(screen)
        self.values: dict[Any, Any] = {
            self.controller.current: CurrentJob(),
            screen.annotations: Annotations(),
            screen.mode: "depth",
            screen.tape: False,
            **dict.fromkeys([screen.x, screen.y, screen.metres, screen.fov, self.controller.result]),
        }

    def open(self, prediction) -> None:
        self.take(self.controller.show_result(prediction, "", self.values))

    def take(self, update) -> None:
        self.values |= update

    def type(self, **values: object) -> None:
        self.values |= {getattr(self.screen, name): value for name, value in values.items()}

    def know(self, x: float, y: float, metres: float) -> None:
        self.type(x=x, y=y, metres=metres)
        self.take(self.screen.on_point(self.values))
        self.take(self.screen.on_add(self.values))

    @property
    def shown(self):
        return self.controller.service.prediction(self.values[self.controller.result])

    @property
    def found(self) -> str:
        return self.values[self.screen.results]


@pytest.fixture
def visitor(tmp_path) -> Iterator[Visitor]:
    service = Service(tmp_path)

    async def draw() -> Visitor:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks():
            return Visitor(service)

    yield asyncio.run(draw())
    service.close()


def test_a_hint_that_is_given_during_a_job_ends_it_and_stays(visitor) -> None:
    """One does not determine metres yet; the result of the job would have come without it."""
    visitor.open(planted(Z))
    current = visitor.values[visitor.controller.current]
    identity = current.begin("photo.png")
    (x, y) = SPOTS[0]
    visitor.know(x, y, float(Z[y, x]))
    assert current.identity is not identity
    assert len(visitor.values[visitor.screen.annotations].hint_list) == 1
    assert visitor.values[visitor.controller.actions.run].constructor_args["interactive"]


def test_two_distances_make_the_result_metric_and_clearing_undoes_it(visitor: Visitor) -> None:
    model = planted(Z)
    visitor.open(model)
    (x1, y1), (x2, y2) = SPOTS[:2]
    visitor.know(x1, y1, float(Z[y1, x1]))
    assert visitor.shown is model and "alone cannot fix both" in visitor.found
    visitor.know(x2, y2, float(Z[y2, x2]))
    np.testing.assert_allclose(visitor.shown.values, Z, rtol=1e-4)
    assert "In metres" in visitor.found and "In metres, from 2 hints" in visitor.values[visitor.controller.status]
    visitor.take(visitor.screen.on_remove(visitor.values, cast(Any, SimpleNamespace(row=0))))
    assert visitor.shown is model and "alone cannot fix both" in visitor.found
    visitor.know(x1, y1, float(Z[y1, x1]))
    visitor.take(visitor.screen.on_clear(visitor.values))
    assert visitor.shown is model and visitor.values[visitor.screen.annotations] == Annotations()
    assert metres_text.RELATIVE_STATUS in visitor.values[visitor.controller.status]


def test_a_typed_point_needs_no_mark_of_its_own(visitor: Visitor) -> None:
    visitor.open(planted(Z))
    visitor.type(x=80, y=112, metres=2.0)
    visitor.take(visitor.screen.on_add(visitor.values))
    assert visitor.values[visitor.screen.annotations].hints.anchors == (Anchor(80, 112, 2.0),)
    visitor.type(x=80, y=120, metres=2.0)
    with pytest.raises(gr.Error, match="lies outside the photo"):
        visitor.screen.on_add(visitor.values)


def test_clicks_are_pixels_of_the_photo(visitor: Visitor) -> None:
    visitor.open(planted(Z))
    scale = LONGEST_PX / Z.shape[1]
    click: Any = SimpleNamespace(index=[int(80.5 * scale), int(112.5 * scale)])
    visitor.take(visitor.screen.on_click(visitor.values, click))
    assert visitor.values[visitor.screen.annotations].points == ((80, 112),)
    assert (visitor.values[visitor.screen.x], visitor.values[visitor.screen.y]) == (80, 112)


def test_a_flat_floor_and_a_length_need_and_take_the_field_of_view(visitor: Visitor) -> None:
    visitor.open(planted(Z, fov_x_deg=None))
    visitor.type(mode="patch")
    for x, y in FLOOR.corners:
        visitor.type(x=x, y=y)
        visitor.take(visitor.screen.on_point(visitor.values))
    visitor.take(visitor.screen.on_add(visitor.values))
    assert visitor.shown.kind == "scale" and "Straightened" in visitor.found
    known = length(Z, (30, 15), (130, 15))
    visitor.type(mode="length")
    for x, y in ((30, 15), (130, 15)):
        visitor.type(x=x, y=y, metres=known.metres)
        visitor.take(visitor.screen.on_point(visitor.values))
    with pytest.raises(gr.Error, match="needs the camera's field of view"):
        visitor.screen.on_add(visitor.values)
    visitor.type(fov=FOV_DEG)
    visitor.take(visitor.screen.on_view(visitor.values))
    assert visitor.screen.on_view(visitor.values) == {visitor.screen.annotations: gr.skip()}  # the field was only left
    visitor.take(visitor.screen.on_mode(visitor.values))
    for x, y in ((30, 15), (130, 15)):
        visitor.type(x=x, y=y, metres=known.metres)
        visitor.take(visitor.screen.on_point(visitor.values))
    visitor.take(visitor.screen.on_add(visitor.values))
    assert (visitor.shown.kind, visitor.shown.fov_x_deg) == ("metric", FOV_DEG)
    np.testing.assert_allclose(visitor.shown.values, Z, rtol=2e-3)


def test_an_answer_takes_no_number_back_that_was_typed_since(visitor: Visitor) -> None:
    """It says what its hint was made of, so that the browser empties the fields that still hold that."""
    visitor.open(planted(Z))
    fields = [visitor.screen.x, visitor.screen.y, visitor.screen.metres, visitor.screen.fov]
    for x, y in SPOTS[:2]:
        visitor.type(x=x, y=y, metres=float(Z[y, x]), fov=FOV_DEG)
        update = visitor.screen.on_add(visitor.values)
        assert not {*fields} & update.keys()
        assert update[visitor.screen.sent] == [x, y, float(Z[y, x])]
        visitor.take(update)
    assert visitor.shown.kind == "metric"
    more = visitor.controller.show_result(planted(Z), "", visitor.values)
    assert not {*fields[:3]} & more.keys()  # of the same photo
    visitor.open(replace(planted(Z), photo=255 - planted(Z).photo))
    assert [visitor.values[field] for field in fields[:3]] == [None, None, None]


def test_distances_wait_for_metres_and_do_not_solve_again(visitor: Visitor) -> None:
    visitor.open(planted(Z))
    visitor.type(mode="distance", x=20, y=20)
    with pytest.raises(gr.Error, match="need a map in metres"):
        visitor.screen.on_point(visitor.values)
    visitor.type(mode="depth")
    for x, y in SPOTS[:2]:
        visitor.know(x, y, float(Z[y, x]))
    before = visitor.shown
    visitor.type(mode="distance")
    for x, y in ((20, 20), (140, 110)):
        visitor.type(x=x, y=y)
        visitor.take(visitor.screen.on_point(visitor.values))
    distance = distance_m(before, (20, 20), (140, 110))
    assert f"{format_with_error(distance.metres, distance.error_m)} m" in visitor.found
    visitor.take(visitor.screen.on_remove(visitor.values, cast(Any, SimpleNamespace(row=2))))
    assert visitor.shown is before and visitor.values[visitor.screen.annotations].measured == ()


def test_a_calibrated_result_brings_its_hints_and_a_new_one_none(visitor: Visitor) -> None:
    made = calibrate(planted(Z), Hints(anchors(Z, 3)))
    visitor.open(made)
    assert visitor.values[visitor.screen.annotations].hints == made.hints and visitor.found.count("data-row=") == 3
    visitor.open(planted(Z))
    assert visitor.values[visitor.screen.annotations] == Annotations() and not isinstance(visitor.shown, Calibrated)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"x": None, "y": 3}, metres_text.POINT_LACKING),
        ({"x": 160, "y": 3}, "There is no such point: the photo has 160 x 120"),
    ],
)
def test_points_that_are_none_are_told(visitor: Visitor, typed: dict[str, Any], sentence: str) -> None:
    visitor.open(planted(Z))
    visitor.type(**typed)
    with pytest.raises(gr.Error, match=sentence):
        visitor.screen.on_point(visitor.values)


def test_without_a_result_there_is_nothing_to_mark(visitor: Visitor) -> None:
    visitor.type(x=1, y=1, mode="length")
    with pytest.raises(gr.Error, match=text.NO_RESULT):
        visitor.screen.on_point(visitor.values)
    assert visitor.screen.help in visitor.screen.on_mode(visitor.values)
    visitor.take(visitor.screen.clear_result(visitor.values, None))
    assert visitor.found == visitor.screen.results.value == metres_text.METRES_WAITS  # there is no map to be relative
