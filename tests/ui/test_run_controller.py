"""What a job leaves on show, however it ends: the last member that came is the result, for every screen."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import Service
from marigold_core.settings import Settings
from marigold_core.ui import text
from marigold_core.ui.run_controller import Stage, Update


def prediction(members: int) -> Prediction:
    return Prediction(
        modality="depth",
        kind="affine",
        space="linear",
        values=np.full((6, 8), members / 10, np.float32),
        uncertainty=None,
        members=np.zeros((members, 6, 8), np.float16),
        photo=np.zeros((6, 8, 3), np.uint8),
        fov_x_deg=None,
        settings=Settings(num_inference_steps=1, ensemble_size=members).resolved(1, 64),
        checkpoint="tiny",
        checkpoint_sha256="0" * 64,
        device="cpu",
        dtype="float32",
    )


def job(members: int) -> Iterator[Progress | Prediction]:
    for number in range(1, members + 1):
        yield Progress(number, members, "working")
        yield prediction(number)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    service = Service(tmp_path)

    async def draw() -> Stage:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks():
            stage = Stage(service)
            stage.draw_buttons()
            stage.draw_status()
            return stage

    yield asyncio.run(draw())
    service.close()


def shown_members(stage: Stage, update: Update) -> int:
    return stage.service.prediction(str(update[stage.result])).settings.ensemble_size


def test_every_member_is_the_result_until_the_next_one(stage: Stage) -> None:
    updates = list(stage.follow(job(3), {}))
    keys = [str(update[stage.result]) for update in updates if stage.result in update]
    assert shown_members(stage, updates[-1]) == 3
    assert [key for key in dict.fromkeys(keys) if stage.service.keeps(key)] == [keys[-1]]


def test_a_stopped_job_leaves_the_members_it_had(stage: Stage) -> None:
    values = {stage.result: None}
    following = stage.follow(job(5), values)
    for update in following:
        values |= update
        if stage.result in update and shown_members(stage, update) == 2:
            following.close()
    ended = stage.end(values)
    assert shown_members(stage, ended) == 2
    assert text.STOPPED_WITH.format(members="2 members") in str(ended[stage.status])


def test_a_job_stopped_before_its_first_member_leaves_the_result_before_it(stage: Stage) -> None:
    values = {stage.result: None}
    assert stage.result not in stage.end(values)
    values |= stage.present(prediction(4), "", values)
    following = stage.follow(job(5), values)
    values |= next(following)
    following.close()
    assert shown_members(stage, stage.end(values)) == 4
