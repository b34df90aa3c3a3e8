"""The uncertainty screen without a browser: the curve, the member values of a pixel, and their sentences."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from marigold_core.prediction import Prediction
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.run_controller import CurrentJob, RunController
from marigold_core.ui.screens.layers import format_share
from marigold_core.ui.screens.uncertainty import (
    UncertaintyScreen,
    curve_sentence,
    draw_curve,
    draw_member_values,
    member_values_sentence,
)
from tests.pipeline.test_convergence import SIZE, convergence_curve, noisy, planted, ramp
from tests.pipeline.test_member_values import member_values


def test_modes_are_described_with_their_numbers() -> None:
    assert member_values_sentence(member_values(*[0.2] * 8, *[0.6] * 2), "") == (
        "Two groups: 8 of 10 members give about 0.20 (nearer), 2 give about 0.60 (farther); the map takes 0.20."
    )
    one = member_values_sentence(member_values(0.2, 0.3, 0.25), " m")
    assert one == "3 members between 0.20 m and 0.30 m; the map takes 0.25 m."
    moved = member_values_sentence(member_values(0.2, 0.3, 0.25, shown=0.4), "")
    assert moved == "3 members between 0.20 and 0.30; their median is 0.25; the map takes 0.40."
    odd = member_values_sentence(member_values(0.2, 0.2, 0.2, members=4), "")
    assert odd.endswith("Left out of the median: 1 member, at odds with all others.")
    assert member_values_sentence(member_values(members=3), "") == "The members found no depth in this photo."


def test_every_member_is_a_dot_and_equal_ones_are_stacked() -> None:
    members = np.stack([ramp()] * 4)
    drawn = draw_member_values(replace(planted(members), uncertainty=np.zeros(SIZE)), (40, 59))
    assert re.findall(r"left:([\d.]+)%;--row:(\d)", drawn) == [("100.00", str(row)) for row in range(4)]
    assert 'data-u="0.50625" data-v="0.99167"' in drawn


def test_where_nothing_can_be_drawn_a_sentence_gives_the_reason() -> None:
    three = replace(planted(noisy(3)), uncertainty=np.zeros(SIZE))
    assert "photo has 80 × 60" in draw_member_values(three, (80, 0))
    assert "Click a pixel" in draw_member_values(three, None)
    assert "3 members or more" in draw_member_values(planted(noisy(2)), (1, 1))
    assert "kept no members" in draw_member_values(replace(three, members=None), (1, 1))


def test_shares_are_written_with_as_many_digits_as_help() -> None:
    assert [format_share(share, "depth") for share in (0.0025, 0.031, 0.2)] == ["0.25 %", "3.1 %", "20.0 %"]
    assert format_share(0.5, "normals") == "90.0°"


def drawn_curve(prediction: Prediction) -> str:
    return draw_curve(convergence_curve(prediction), 0.005, "depth")


def test_the_curve_has_a_dot_for_every_figure_and_its_sentence() -> None:
    drawn = drawn_curve(planted(noisy(6)))
    assert drawn.count('<i class="moved"') == 5
    assert drawn.count('<i class="doubt"') == 4
    heights = [float(bottom) for bottom in re.findall(r'<i class="moved" style="left:[\d.]+%;bottom:([\d.]+)%', drawn)]
    assert heights == sorted(heights, reverse=True)
    assert all(0 <= height <= 100 for height in heights)
    sentence = re.search('aria-label="([^"]+)"', drawn)
    assert sentence and sentence[1].startswith("Member 6 moved the map by") and f"<p>{sentence[1]}</p>" in drawn


def test_the_axis_grows_once() -> None:
    last = [drawn_curve(planted(noisy(count))).rpartition('%">')[2].partition("<")[0] for count in (1, 2, 10, 11, 20)]
    assert last == ["10", "10", "10", "20", "20"]


def test_the_sentence_of_the_curve() -> None:
    assert "kept no members" in curve_sentence([], 0.01, "depth")
    assert "begins with the second" in curve_sentence(convergence_curve(planted(noisy(1))), 0.01, "depth")
    second = curve_sentence(convergence_curve(planted(noisy(2))), 0.01, "depth")
    assert re.fullmatch(r"Member 2 moved the map by [\d.]+ % of the depth range\.", second)
    still = curve_sentence(convergence_curve(planted(noisy(5, level=0))), 0.01, "depth")
    assert "The map settled at 4 members" in still and "less than 1.0 % each" in still


def test_while_a_job_runs_nothing_asks_to_run_again(tmp_path: Path) -> None:
    service = Service(tmp_path)

    async def draw() -> UncertaintyScreen:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks():
            controller = RunController(service)
            with gr.Tabs(), gr.Tab(text.UNCERTAINTY_TAB) as tab:
                return UncertaintyScreen(controller, tab)

    screen = asyncio.run(draw())
    controller, current = screen.controller, CurrentJob()
    one = service.keep(replace(planted(noisy(1)), uncertainty=None))
    values: dict[Any, Any] = {
        controller.result: one,
        controller.current: current,
        controller.threshold: 1.0,
        screen.pixel: None,
    }
    assert "this result has 1" in screen.on_open(values)[screen.note]  # also where more were chosen, then stopped
    current.identity = object()
    assert "comes with the members" in screen.on_open(values)[screen.note]
    assert "comes with the members" in screen.begin(values)[screen.note]
    kept = replace(planted(noisy(3)), uncertainty=np.zeros(SIZE, np.float32))
    assert screen.note not in screen.begin({**values, controller.result: service.keep(kept)})
    service.close()
