"""What a run looks like while it goes on."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import ExportError
from tests.helpers.damage import failing
from tests.helpers.set_writers import picture, write_measured
from tests.helpers.training_runs import ALWAYS, RECIPE, Killed, curve, lines, newest, unwatched, weights
from tests.training.conftest import TaskFor
from training import train as train_module
from training.data.sets import open_set
from training.engine import checkpoints, validation
from training.engine import figures as module
from training.engine.metrics_log import Record
from training.engine.validation import ValidationCallback
from training.scoring.plots import draw_sheet
from training.scoring.targets import Metric
from training.train import Task, train

WATCHED = RECIPE.changed(steps=6, validate_steps=2, figure_steps=3, validate_px=None, save_minutes=ALWAYS)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three photographs with measured depth."""
    folder = tmp_path_factory.mktemp("measured")
    write_measured(folder, {f"picture{seed}": picture((40, 56), seed) for seed in range(3)})
    return f"measured:{folder}"


@pytest.fixture
def task(task_for: TaskFor, measured: str) -> Task:
    return task_for(validation=(measured,), validation_pictures=2)


def scored(run: Path) -> list[dict]:
    return [line for line in lines(run) if "validation" in line]


def test_a_run_is_scored_and_drawn_without_being_changed(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    train(task, WATCHED)
    assert [line["step"] for line in scored(task.out)] == [2, 4, 6]
    for line in scored(task.out):
        (means,) = line["validation"].values()
        assert line["score"] == means["abs_rel"] > 0
        (guesses,) = line["baselines"].values()
        assert guesses.keys() == {"vertical ramp", "constant"} and min(guesses.values()) > 0
    with Image.open(task.out / "curves.png") as curves:
        assert curves.size == (1100, 660)
    sheets = sorted((task.out / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["step_00000003.png", "step_00000006.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.size[0] == 1056  # four columns of 2.4 inches at 110 dots
    before = {path: path.stat().st_mtime_ns for path in task.out.rglob("*")}
    train(task, WATCHED)  # finished: nothing is looked at again
    assert {path: path.stat().st_mtime_ns for path in sheets} == {path: before[path] for path in sheets}
    assert [line["step"] for line in scored(task.out)] == [2, 4, 6]
    monkeypatch.setattr(train_module, "ValidationCallback", unwatched)
    blind = train(replace(task, out=task.out.with_name("blind"), validation=()), WATCHED)
    assert curve(blind.parent) == curve(task.out)
    assert weights(blind) == weights(newest(task.out))


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than such a run."""
    monkeypatch.setattr(validation, "draw_curves", lambda *_: None)


def test_a_run_killed_in_a_validation_ends_the_same(
    task: Task, monkeypatch: pytest.MonkeyPatch, no_curves: None
) -> None:
    score = ValidationCallback._scores
    with monkeypatch.context() as patch:

        def killed(self: ValidationCallback, pipeline, step: int, stopping):
            if step == 4:
                raise Killed
            return score(self, pipeline, step, stopping)

        patch.setattr(ValidationCallback, "_scores", killed)
        with pytest.raises(Killed):
            train(task, WATCHED)
    assert checkpoints.step_of(newest(task.out)) == 3
    assert [line["step"] for line in scored(task.out)] == [2]
    train(task, WATCHED)
    whole = train(replace(task, out=task.out.with_name("whole")), WATCHED).parent
    assert [line["score"] for line in scored(task.out)] == [line["score"] for line in scored(whole)]
    assert [line["step"] for line in scored(task.out)] == [2, 4, 6]
    assert curve(task.out) == curve(whole)
    assert weights(newest(task.out)) == weights(newest(whole))


def test_a_validation_makes_way_for_a_signal_and_is_made_up_for(
    task: Task, monkeypatch: pytest.MonkeyPatch, no_curves: None
) -> None:
    """It may take minutes, and a run that is told to stop has seconds."""
    looked = []

    def row(*words):
        looked.append(words)
        signal.raise_signal(signal.SIGTERM)
        return row_once(*words)

    row_once = Metric.row
    with monkeypatch.context() as patch:
        patch.setattr(Metric, "row", row)
        assert checkpoints.step_of(train(task, WATCHED)) == 2
    assert len(looked) == 3  # the prediction and the two baselines of one picture
    assert scored(task.out) == []
    train(task, WATCHED)
    assert [line["step"] for line in scored(task.out)] == [2, 4, 6]


def test_the_best_checkpoint_is_kept(task: Task, monkeypatch: pytest.MonkeyPatch, no_curves: None) -> None:
    scores = {1: 0.5, 2: 0.2, 3: 0.3, 4: 0.25, 5: 0.21, 6: 0.4, 7: 0.1, 8: 0.3, 9: 0.2}

    def scripted(self: ValidationCallback, pipeline, step: int, stopping) -> dict:
        return {"step": step, "validation": {"set": {"abs_rel": scores[step]}}, "score": scores[step]}

    monkeypatch.setattr(ValidationCallback, "_scores", scripted)

    def kept(steps: int, **fields: object) -> list[int]:
        train(task, WATCHED.changed(steps=steps, validate_steps=1, figure_steps=100, **fields))
        return [checkpoints.step_of(folder) for folder in sorted(task.out.glob("step_*"))]

    assert kept(6) == [2, 5, 6]
    assert kept(7) == [6, 7]  # the new best, and the one before it
    assert kept(9, save_minutes=1e9) == [7, 9]  # a best is saved at once, others when it is time


def test_a_full_disk_costs_pictures_but_not_the_run(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = ExportError("The disk is full (or a size limit is reached): curves.png was not written.")
    monkeypatch.setattr(validation, "draw_curves", failing(full))
    assert checkpoints.step_of(train(task, WATCHED.changed(steps=4, figure_steps=2))) == 4
    said = capsys.readouterr().err
    assert said.count("Not drawn at step ") == 2
    assert "disk" in said
    assert [line["step"] for line in scored(task.out)] == [2, 4]


def test_a_sheet_shows_held_out_pictures_where_there_are_some(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    sheets = []
    monkeypatch.setattr(validation, "draw_sheet", lambda *sheet: sheets.append(sheet))
    train(task, WATCHED.changed(steps=1, figure_steps=1))
    train(replace(task, out=task.out.with_name("blind"), validation=()), WATCHED.changed(steps=1, figure_steps=1))
    (title, columns, rows, _), (blind, _, encoded, _) = sheets
    assert title == "held-out pictures, step 1" and blind == "training pictures as the autoencoder decodes them, step 1"
    assert columns[:3] == ("photo", "truth", "1 step")
    held_out = open_set(task.validation[0], "val")
    assert {name for name, _ in rows} <= {held_out.name(number) for number in range(len(held_out))}
    np.testing.assert_array_equal(rows[0][1][0], held_out[0].rgb)
    assert all(name.startswith("latents: ") for name, _ in encoded)


def test_curves_have_whole_steps_and_the_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, *_: figures.append(figure))
    records: list[Record] = [{"step": step, "loss": 1.0, "gradient": 1.0, "lr": 1.0} for step in (1, 2)]
    score = {"validation": {"nyu x": {"abs_rel": 0.2}}, "baselines": {"nyu x": {"vertical ramp": 0.3}}}
    module.draw_curves([*records, {"step": 2, "score": 0.2, **score}], tmp_path / "curves.png")
    panes = figures[0].axes
    assert all(float(tick).is_integer() for pane in panes for tick in pane.get_xticks())
    assert [line.get_label() for line in panes[3].lines] == ["nyu x", "vertical ramp, nyu x"]
    assert list(panes[3].lines[1].get_ydata()) == [0.3, 0.3]


def test_curves_of_a_stage_without_validation_show_the_parts_of_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(module, "save_figure", lambda figure, *_: drawn.append(figure))
    records: list[Record] = [
        {"step": step, "samples": 8, "loss": 1.0, "error": 0.4, "kl": 3.0, "gradient": 1.0, "lr": 1.0, "skipped": False}
        for step in (1, 2)
    ]
    module.draw_curves(records, tmp_path / "curves.png")
    pane = drawn[0].axes[3]
    assert pane.get_title() == "parts of the loss"
    assert [(line.get_label(), list(line.get_ydata())) for line in pane.lines] == [
        ("error", [0.4] * 2),
        ("kl", [3] * 2),
    ]


def test_names_with_dollars_or_that_are_no_text_are_drawn_as_they_are(tmp_path: Path) -> None:
    odd = "$_$ " + os.fsdecode(b"caf\xe9")
    records: list[Record] = [{"step": step, "loss": 1.0, "gradient": 1.0, "lr": 1.0} for step in (1, 2)]
    score = {"validation": {odd: {"abs_rel": 0.2}}, "baselines": {odd: {"vertical ramp": 0.3}}}
    module.draw_curves([*records, {"step": 2, "score": 0.2, **score}], tmp_path / "curves.png")
    draw_sheet("a sheet", ["photo"], [(odd, [np.zeros((9, 9, 3), np.uint8)])], tmp_path / "sheet.png")
    assert len([*tmp_path.iterdir()]) == 2
