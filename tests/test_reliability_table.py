"""The table of what must not break names every promise, and tests that are there."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
NAMED = re.compile(r"`([\w/]+\.py)(?:::(test_\w+))?`")


def test_every_promise_has_a_test_that_is_there() -> None:
    rows = re.findall(
        r"^\| (T\d\d) \| (.*?) \| (.*?) \| (.*?) \| (\d{4}-\d\d-\d\d) \| (.*?) \|$",
        (FOLDER / "README.md").read_text(),
        re.M,
    )
    assert [row[0] for row in rows] == [f"T{number:02}" for number in range(1, 68)]
    missing = []
    for file, test in (named for row in rows for named in NAMED.findall(row[1])):
        names = {node.name for node in ast.parse((FOLDER / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        missing += [f"{file}::{test}"] if test and test not in names else []
    assert missing == [] and all(NAMED.search(row[1]) for row in rows)
