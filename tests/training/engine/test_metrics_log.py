import json
import resource
import time
from pathlib import Path

import pytest

from tests.helpers.set_writers import picture, write_pairs
from tests.helpers.training_runs import lines
from training.engine.metrics_log import MetricsLog, Throughput
from training.recipe import RECIPES
from training.train import Task, train


def test_a_log_reads_back_what_was_added_to_the_last_bit(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": float("inf")}, {"step": 2, "event": "saved"}]
    for record in records:
        log.add(record)
    found = log.read()
    assert [{**line, "time": None} for line in found] == [{**record, "time": None} for record in records]
    assert all(-0.001 <= time.time() - float(str(line["time"])) < 60 for line in found)


def test_going_on_drops_what_will_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 5):
        log.add({"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # cut off by a kill
    again = MetricsLog(path)
    again.rewind(2)
    assert [record["step"] for record in again.read()] == [1, 2]
    assert path.read_text().count("\n") == 2
    again.rewind(0)
    assert path.read_text() == ""


def test_the_best_score_is_the_lowest_and_the_earliest_of_equals(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.best_step is None
    for step, score in ((10, 0.3), (20, 0.1), (30, 0.1), (40, 0.2)):
        log.add({"step": step, "validation": {}, "score": score})
    assert log.best_step == 20
    again = MetricsLog(log.path)
    again.rewind(30)
    assert again.scores == {10: 0.3, 20: 0.1, 30: 0.1}
    again.rewind(10)
    assert again.best_step == 10


def test_a_process_that_does_not_keep_it_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 5}) + "\n")
    other = MetricsLog(path, active=False)
    other.add({"step": 6})
    other.rewind(0)
    assert MetricsLog(path).read() == [{"step": 5}]


def test_a_full_disk_costs_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        log.add({"step": 2, "loss": 0.123456789})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "metrics.jsonl could not be written" in capsys.readouterr().err
    log.add({"step": 3})
    assert [record["step"] for record in log.read()] == [1, 3]


def test_throughput_counts_steps_and_waiting_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    throughput = Throughput(batch_size=16)
    assert throughput.read() == {}
    for _ in range(2):
        with throughput.step():
            with throughput.wait():
                clock[0] += 1
            clock[0] += 3
        clock[0] += 50  # between steps: validation, saving
    assert throughput.read() == {"samples_a_second": 4.0, "waited_share": 0.25}
    assert throughput.read() == {}


def test_a_run_writes_its_throughput_when_it_saves(tiny_depth: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", {f"{seed}": picture((48, 64), seed) for seed in range(4)})
    recipe = RECIPES["smoke"].changed(steps=2, figure_steps=100)
    task = Task(str(tiny_depth), tmp_path / "run", data=(f"pairs:{tmp_path / 'set'}",), device="cpu")
    began = time.monotonic()
    train(task, recipe)
    took_s = time.monotonic() - began
    (saved,) = (record for record in lines(task.out) if record.get("event") == "saved")
    assert saved["samples_a_second"] > 2 * recipe.batch_size / took_s
    assert 0 < saved["waited_share"] < 1
