import json
import resource
from pathlib import Path

import pytest

from training.engine.metrics_log import Journal


def test_a_journal_reads_back_what_was_added_to_the_last_bit(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.read() == []
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": float("inf")}, {"step": 2, "event": "saved"}]
    for record in records:
        journal.add(record)
    assert journal.read() == records


def test_going_on_drops_what_will_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    for step in range(1, 5):
        journal.add({"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # cut off by a kill
    again = Journal(path)
    again.rewind(2)
    assert [record["step"] for record in again.read()] == [1, 2]
    assert path.read_text().count("\n") == 2
    again.rewind(0)
    assert path.read_text() == ""


def test_the_best_score_is_the_lowest_and_the_earliest_of_equals(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.best_step is None
    for step, score in ((10, 0.3), (20, 0.1), (30, 0.1), (40, 0.2)):
        journal.add({"step": step, "validation": {}, "score": score})
    assert journal.best_step == 20
    again = Journal(journal.path)
    again.rewind(30)
    assert again.scores == {10: 0.3, 20: 0.1, 30: 0.1}
    again.rewind(10)
    assert again.best_step == 10


def test_a_process_that_does_not_keep_it_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 5}) + "\n")
    other = Journal(path, active=False)
    other.add({"step": 6})
    other.rewind(0)
    assert Journal(path).read() == [{"step": 5}]


def test_a_full_disk_costs_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.add({"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        journal.add({"step": 2, "loss": 0.123456789})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "metrics.jsonl could not be written" in capsys.readouterr().err
    journal.add({"step": 3})
    assert [record["step"] for record in journal.read()] == [1, 3]
