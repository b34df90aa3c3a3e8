"""The committed example results are what the bundled checkpoint says, and the page can show them."""

import json

import numpy as np
import pytest

from marigold_core import load
from marigold_core.files.examples import (
    FOLDER,
    MANIFEST,
    NAMES,
    SETTINGS,
    load_result,
    photos,
    stored_maps,
    to_stored_size,
)

TOLERANCE = 1 / 255


def test_every_photo_has_a_result_and_a_credit():
    record = json.loads(MANIFEST.read_text())
    credits = (FOLDER / "CREDITS.md").read_text()
    assert set(record["examples"]) == set(NAMES) == {path.stem for path in FOLDER.glob("*.jpg")}
    assert all(f"`{name}.jpg`" in credits for name in NAMES)
    assert all(path.stat().st_size < 250_000 for path in photos())


@pytest.mark.parametrize("photo", photos(), ids=NAMES)
def test_a_result_is_a_whole_prediction(photo):
    prediction = load_result(photo)
    assert prediction.uncertainty is not None
    assert prediction.values.shape == prediction.uncertainty.shape == prediction.photo.shape[:2]
    assert 0 <= prediction.values.min() < 0.1 and 0.9 < prediction.values.max() <= 1
    assert prediction.uncertainty.mean() > 0
    assert prediction.fused == SETTINGS.ensemble_size


def test_recomputing_an_example_gives_the_committed_result():
    photo = photos()[0]
    depth, uncertainty = stored_maps(photo)
    recomputed = load("nano")(photo, SETTINGS)
    assert json.loads(MANIFEST.read_text())["checkpoint_sha256"] == recomputed.checkpoint_sha256
    assert recomputed.uncertainty is not None
    assert np.abs(depth - to_stored_size(recomputed.values)).max() < TOLERANCE
    assert np.abs(uncertainty - to_stored_size(recomputed.uncertainty)).max() < TOLERANCE
