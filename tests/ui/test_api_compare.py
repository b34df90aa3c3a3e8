"""The endpoint ``compare`` of the running app."""

import csv
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from marigold_core.comparison.sweep import COLUMNS

pytestmark = pytest.mark.slow


def test_sheet_table_and_rows_say_the_same(client: Client, picture: Path, tiny_depth: Path) -> None:
    asked = {"steps": [2, 1], "sizes": [1, 3], "processing_resolution": 32}
    job = client.submit(handle_file(picture), **asked, api_name="/compare")
    answer = job.result(120)
    assert any(output.get("progress") == "3 of 4 cells" for output in job.outputs())
    with Image.open(answer["sheet"]) as sheet, Image.open(answer["differences"]) as other:
        assert sheet.size == other.size and sheet.format == "PNG"
    table = list(csv.DictReader(Path(answer["table"]).read_text().splitlines()))
    assert [tuple(row) for row in answer["rows"]] == [COLUMNS] * 4
    assert [(row["steps"], row["members"]) for row in answer["rows"]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    for row, line in zip(answer["rows"], table, strict=True):
        assert row["checkpoint"] == line["checkpoint"] == tiny_depth.name
        assert f"{row['difference']:.4f}" == line["difference"]
        assert (row["uncertainty"] is None) == (line["uncertainty"] == "") == (row["members"] < 3)
    assert [row["reference"] for row in answer["rows"]] == [False, False, False, True]


def test_too_much_is_refused_before_it_waits(client: Client, picture: Path) -> None:
    for asked, message in (
        ({"steps": [0]}, "steps"),
        ({"seeds": [0, 1, 2, 3, 4]}, "80 cells are too many"),
        ({"checkpoints": ["/etc"]}, "choose one of"),
    ):
        with pytest.raises(ValidationError, match=message):
            client.predict(handle_file(picture), **asked, api_name="/compare")
