"""The compare screen without a browser: what is drawn of a comparison, and the endpoint's arguments."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import CheckpointError
from marigold_core.files import examples
from marigold_core.serving.api.arguments import read_comparison
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINTS
from marigold_core.ui.screens import compare
from marigold_core.ui.screens.compare import draw_grid, draw_table
from tests.helpers.sweeps import sweep_of


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep pictures out of the page's cache -> the files that were written."""
    written: list[str] = []

    def save(picture: np.ndarray) -> str:
        written.append(str(tmp_path / f"{len(written)}.png"))
        Image.fromarray(picture).save(written[-1])
        return written[-1]

    monkeypatch.setattr(compare, "preview", save)
    return written


def test_cells_stand_in_their_places_and_the_rest_is_still_to_come(painted: list[str]) -> None:
    drawn = draw_grid(sweep_of(3, seeds=(0, 5)), {})
    assert drawn.count("<table") == 2 and "tiny, seed 5" in drawn
    assert re.findall(r'data-cell="(\d+)"', drawn) == ["0", "1", "2"]
    assert drawn.count('<span class="cell">') == 5
    assert re.findall(r'scope="(?:row|col)">([^<]+)', drawn)[:4] == ["1 member", "3 members", "1 step", "2 steps"]
    assert drawn.count('aria-pressed="true"') == 1
    assert "spread 0.100" in drawn


def test_a_picture_is_painted_once(painted: list[str]) -> None:
    files, sweep = {}, sweep_of(2)
    for cells in (2, 3, 4):
        sweep.tiles[:] = sweep_of(cells).tiles
        draw_grid(sweep, files)
    assert len(painted) == 4
    sweep.shows = "differences"
    draw_grid(sweep, files)
    sweep.pin(0)
    draw_grid(sweep, files)
    assert len(painted) == 4 + 4 + 4
    sweep.shows = "maps"
    assert painted[0] in draw_grid(sweep, files) and len(painted) == 12


def test_names_are_text_and_never_markup(painted: list[str]) -> None:
    sweep = sweep_of(4, name="<img src=x onerror=alert(1)>'\"")
    for drawn in (draw_grid(sweep, {}), draw_table(sweep.rows())):
        assert "<img src=x" not in drawn and "onerror=alert(1)&gt;&#39;&#34;" in drawn


def test_the_table_says_what_is_known(painted: list[str]) -> None:
    assert draw_table([]) == ""
    drawn = draw_table(sweep_of(4).rows())
    assert drawn.count('class="reference"') == 1 and "<td>reference</td>" in drawn
    assert drawn.count("needs 3 members") == 2 and drawn.count("<td>0.1000 (spread)</td>") == 2
    assert "Reference: tiny, seed 0, 2  steps, 3  members; difference: mean after fitting scale and shift" in drawn


def test_normals_have_no_colour_bar(painted: list[str]) -> None:
    sweep = sweep_of(1)
    facing = np.zeros((30, 40, 3), np.float32)
    sweep.tiles[0] = replace(sweep.tiles[0], modality="normals", kind="unit-vector", values=facing)
    drawn = draw_grid(sweep, {})
    assert "toward the viewer" in drawn and "linear-gradient" not in drawn
    assert "linear-gradient" in draw_grid(sweep_of(1), {})


# ------------------------------------------------------------------------------- the endpoint's arguments


COMPARE = next(endpoint for endpoint in ENDPOINTS if endpoint.name == "compare")
NONE_GIVEN: dict[str, Any] = {
    **dict.fromkeys(("steps", "sizes", "seeds", "processing_resolution", "checkpoints", "depth", "fov_x_deg")),
    "views": "photo",
}


def test_arguments_become_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARIGOLD_MODEL", raising=False)
    asked, names = read_comparison(NONE_GIVEN)
    assert (asked.steps, asked.sizes, asked.seeds, names) == ((1, 2, 4, 10), (1, 3, 5, 10), (0,), ["nano"])
    assert read_comparison({**NONE_GIVEN, "steps": [4, 1], "checkpoints": ["nano"]})[0].steps == (1, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": [51]}, "steps must be less than or equal to 50"),
        ({"steps": 4}, "steps must be a list"),
        ({"sizes": [True]}, "sizes must be a valid integer"),
        ({"sizes": []}, "sizes must have at least one value"),
        ({"seeds": ["0"]}, "seeds must be a valid integer"),
        ({"processing_resolution": 100}, "processing_resolution must be a multiple of 8"),
        ({"checkpoints": "nano"}, "checkpoints must be a list"),
        ({"checkpoints": ["/etc"]}, "There is no checkpoint"),
        ({"checkpoints": []}, "at least one checkpoint"),
        ({"seeds": list(range(9))}, "cells are too many"),
        ({"colormap": "pink"}, "colormap must be"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(wrong: dict, message: str) -> None:
    right = {"photo": str(examples.FOLDER / "temple.jpg"), **NONE_GIVEN}
    assert fault(COMPARE, right) is None
    at, sentence = fault(COMPARE, {**right, **wrong}) or ("", "")
    assert message in sentence and (at in wrong or at in ("steps", "checkpoints"))


def test_a_checkpoint_that_is_not_offered_is_refused() -> None:
    with pytest.raises(CheckpointError, match="choose one of"):
        read_comparison({**NONE_GIVEN, "checkpoints": ["../nano"]})
