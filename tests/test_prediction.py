"""A prediction in other people's programs: its picture in a notebook, its text, comparing it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageShow

from marigold_core import Anchor, ExportError, Hints, SettingsError, calibrate
from marigold_core.images.colormaps import to_rgb
from marigold_core.prediction import Cell, Prediction
from tests.helpers.predictions import prediction_of

RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def test_a_notebook_shows_the_picture() -> None:
    made = prediction_of(RAMP)
    picture = Image.open(BytesIO(made._repr_png_()))
    np.testing.assert_array_equal(np.asarray(picture), to_rgb(made))
    large = prediction_of(np.zeros((300, 3000)))
    assert Image.open(BytesIO(large._repr_png_())).size == (1024, 102)
    normals = prediction_of(np.dstack([np.zeros((8, 8, 2)), np.ones((8, 8))]), kind="unit-vector")
    assert np.asarray(Image.open(BytesIO(normals._repr_png_())))[0, 0].tolist() == [128, 128, 255]


def test_show_takes_the_notebook_else_the_viewer_else_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made, shown = prediction_of(RAMP), []
    viewer = SimpleNamespace(show=lambda image, **options: shown.append(image.size) or 1)
    monkeypatch.setattr(ImageShow, "_viewers", [viewer])
    monkeypatch.setattr(sys, "platform", "linux")
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    with pytest.raises(ExportError, match="no program that shows pictures"):
        made.show()
    monkeypatch.setenv("DISPLAY", ":0")
    made.show()
    assert shown == [(64, 48)]
    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(ExportError, match="no program that shows pictures"):
        made.show()
    notebook = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=True), display=SimpleNamespace(display=shown.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    made.show()
    assert shown[1] is made


def test_its_text_is_one_line() -> None:
    expected = "<Prediction: affine depth, 64 x 48, checkpoint tiny, 4 steps, 1 member, seed 0>"
    assert repr(prediction_of(RAMP)) == expected
    assert "affine depth in disparity" in repr(prediction_of(RAMP, space="disparity"))
    assert len(repr(Cell(prediction_of(RAMP), 1.0))) < 200
    metres = calibrate(prediction_of(RAMP), Hints(anchors=[Anchor(2, 2, 1.0), Anchor(60, 40, 5.0)]))
    assert repr(metres).startswith("<Calibrated: metric depth, 64 x 48")


@pytest.mark.parametrize(
    "ask", [lambda made: made.layer("albedo"), lambda made: made.layer(3), lambda made: made.boxes()]
)
def test_depth_has_no_layers(ask: Callable[[Prediction], object]) -> None:
    with pytest.raises(SettingsError, match="The prediction has no layer .*: it has no layers."):
        ask(prediction_of(RAMP))


def test_predictions_compare_without_an_error() -> None:
    made = prediction_of(RAMP)
    assert made == prediction_of(RAMP) and Cell(made, 1.0) == Cell(prediction_of(RAMP), 1.0)
    assert made != prediction_of(RAMP / 2) and made != replace(made, members=RAMP[None]) and made != "depth"
    assert made in [prediction_of(1 - RAMP), prediction_of(RAMP)]
    hints = Hints(anchors=[Anchor(2, 2, 1.0), Anchor(60, 40, 5.0)])
    assert calibrate(made, hints) == calibrate(made, hints) != made
