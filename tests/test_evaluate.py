import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError, SettingsError
from training.evaluate import main
from training.protocol import Protocol, averages, constant, evaluate, ramp
from training.readers import Measured, read_measured

HEIGHT, WIDTH = 48, 64


def sloping_floor(seed: int = 0) -> Measured:
    """A floor that rises into the distance: exactly a vertical ramp."""
    depth = np.repeat(np.linspace(5, 1, HEIGHT, dtype=np.float32)[:, None], WIDTH, axis=1)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Measured(f"floor_{seed}", pixels, depth)


@pytest.fixture
def measured_folder(tmp_path: Path) -> Path:
    for seed in (1, 0):
        photo = sloping_floor(seed)
        folder = tmp_path / "data" / photo.name
        folder.mkdir(parents=True)
        Image.fromarray(photo.pixels).save(folder / "rgb.png")
        np.savez(folder / "depth.npz", depth=photo.depth_m)
    return tmp_path / "data"


def test_a_perfect_map_scores_zero_whatever_its_scale() -> None:
    photo = sloping_floor()
    score = Protocol().score(3 * photo.depth_m - 2, photo.depth_m)
    assert score["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert score["delta1"] == 1


def test_the_ramp_solves_a_floor_and_the_constant_does_not() -> None:
    photo = sloping_floor()
    assert evaluate(ramp, [photo], Protocol())[0]["abs_rel"] == pytest.approx(0, abs=1e-6)
    depth = np.linspace(5, 1, HEIGHT)
    expected = np.mean(np.abs(depth.mean() - depth) / depth)
    assert evaluate(constant, [photo], Protocol())[0]["abs_rel"] == pytest.approx(expected, rel=1e-5)


def test_what_does_not_count() -> None:
    depth = np.full((10, 10), 2.0, np.float32)
    depth[0] = np.nan
    depth[1] = 81
    depth[2] = 5e-4
    depth[3] = np.inf
    assert Protocol().mask(depth).sum() == 60
    assert Protocol(crop=(0.5, 1.0, 0.0, 0.5)).mask(depth).sum() == 25


def test_fitted_depths_are_clipped_to_the_range() -> None:
    """Without the clip the fit would call the far corner negative or beyond the range."""
    truth = np.array([[1.0, 1.0, 1.0, 70.0]])
    prediction = np.array([[0.0, 0.0, 1.0, 1.0]])
    score = Protocol().score(prediction, truth)
    assert score["abs_rel"] == pytest.approx((0 + 0 + 34.5 + 34.5 / 70) / 4)


def test_a_map_of_another_size_is_resized() -> None:
    photo = sloping_floor()
    small = np.asarray(Image.fromarray(photo.depth_m).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR))
    assert Protocol().score(small, photo.depth_m)["abs_rel"] < 0.01


def test_averages_count_every_photo_the_same() -> None:
    assert averages([{"abs_rel": 0.1}, {"abs_rel": 0.3}]) == {"abs_rel": pytest.approx(0.2)}


def test_the_reader_sorts_by_name_and_refuses_an_empty_folder(measured_folder: Path, tmp_path: Path) -> None:
    assert [photo.name for photo in read_measured(measured_folder)] == ["floor_0", "floor_1"]
    with pytest.raises(MarigoldError, match="depth.npz"):
        read_measured(tmp_path)


def test_an_unknown_protocol_setting_is_refused() -> None:
    with pytest.raises(SettingsError):
        Protocol(space="log")  # pyright: ignore[reportArgumentType]


def test_the_command_scores_a_checkpoint(
    measured_folder: Path, tiny_depth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from marigold_core import Settings

    examples = tmp_path / "examples"
    examples.mkdir()
    Image.fromarray(sloping_floor(5).pixels).save(examples / "a.jpg")
    report = tmp_path / "report.json"
    settings = Settings(num_inference_steps=1, ensemble_size=1)
    main(str(tiny_depth), measured_folder, settings, honesty=examples, json_out=report)
    written = json.loads(report.read_text())
    assert written["means"]["vertical ramp"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert written["means"]["constant"]["abs_rel"] > 0.3
    assert set(written["photos"]) == {"floor_0", "floor_1"}
    assert written["honesty"]["own_abs_rel"] == pytest.approx(written["means"]["tiny-depth"]["abs_rel"])
    assert written["honesty"]["spread"] > 0  # random weights: members differ
    assert written["honesty"]["steps_difference"] > 0
    assert "vertical ramp" in capsys.readouterr().out
