import json
import time
from pathlib import Path

import pytest

from tests.helpers.set_writers import picture, write_pairs
from training.engine.throughput import Pace
from training.recipe import RECIPES
from training.train import Task, train


def test_pace_counts_steps_and_waiting_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(batch_size=16)
    assert pace.read() == {}
    for _ in range(2):
        with pace.step():
            with pace.wait():
                clock[0] += 1
            clock[0] += 3
        clock[0] += 50  # between steps: validation, saving
    assert pace.read() == {"samples_a_second": 4.0, "waited_share": 0.25}
    assert pace.read() == {}


def test_a_run_writes_its_pace_when_it_saves(tiny_depth: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", {f"{seed}": picture((48, 64), seed) for seed in range(4)})
    recipe = RECIPES["smoke"].recipe.model_copy(update={"steps": 2, "figure_steps": 100})
    task = Task(str(tiny_depth), tmp_path / "run", data=(f"pairs:{tmp_path / 'set'}",), device="cpu")
    began = time.monotonic()
    train(task, recipe)
    took_s = time.monotonic() - began
    records = [json.loads(line) for line in (task.out / "metrics.jsonl").read_text().splitlines()]
    (saved,) = (record for record in records if record.get("event") == "saved")
    assert saved["samples_a_second"] > 2 * recipe.batch_size / took_s
    assert 0 < saved["waited_share"] < 1
