"""Clips and depth of field from one photo: right where the photo shows it, marked where it does not."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter

from marigold_core import ExportError, MeshSettings, Prediction, Settings, SettingsError, cli
from marigold_core.images.colormaps import to_linear
from marigold_core.prediction import Progress
from marigold_core.settings import CameraSettings
from marigold_core.video.defocus import defocus, save_defocus
from marigold_core.video.parallax import camera_path, seen_from, stream_parallax, views
from marigold_core.video.settings import DefocusSettings, ParallaxSettings
from tests.helpers.command_line import QUICK, run_command

SIZE = (60, 80)
BOX = (slice(20, 40), slice(30, 50))  # of the near thing
MESH = MeshSettings(near_ratio=0.5, fov_x_deg=60.0)


@pytest.fixture
def prediction() -> Prediction:
    """A bright striped card at half the distance of a dark wall with stripes the other way."""
    y, x = np.indices(SIZE)
    photo = np.zeros((*SIZE, 3), np.uint8)
    photo[..., 2] = 60 + 40 * (y // 4 % 2)
    photo[BOX] = np.stack([180 + 60 * (x // 3 % 2), np.zeros(SIZE, int), np.zeros(SIZE, int)], axis=-1)[BOX]
    values = np.ones(SIZE, np.float32)
    values[BOX] = 0.0
    settings = Settings().resolved(1, 0)
    return Prediction("depth", "affine", "depth", values, None, None, photo, None, settings, "planted", "0" * 64)


def test_near_things_move_and_the_far_end_stays(prediction: Prediction) -> None:
    """Half as far away, the card moves by focal * eye * (1 / z - 1 / far) = 100 * .06 * (1 / .5 - 1) = 6 pixels."""
    z = np.where(prediction.values == 0, 0.5, 1.0).astype(np.float32)
    made, filled = seen_from(prediction.photo, z, 100.0, (0.06, 0.0, 0.0), 1.0)
    expected = prediction.photo.copy()
    moved = np.zeros(SIZE, bool)
    moved[20:40, 24:44] = True
    np.testing.assert_array_equal(made[moved], prediction.photo[BOX].reshape(-1, 3))
    still = ~moved & ~filled
    np.testing.assert_array_equal(made[still], expected[still])
    assert filled[20:40, 45:50].all() and filled.sum() <= 20 * 6  # what was behind the card
    assert (made[filled][:, 0] == 0).all()  # from the wall, not from the card
    same, nothing = seen_from(prediction.photo, z, 100.0, (0.0, 0.0, 0.0), 1.0)
    np.testing.assert_array_equal(same, prediction.photo)
    assert not nothing.any()


def test_the_camera_comes_back_and_comes_nearer(prediction: Prediction) -> None:
    for motion in ("circle", "sideways", "dolly"):
        path = camera_path(ParallaxSettings(motion=motion, seconds=1, rate=10, amount=0.1))
        assert path.shape == (10, 3) and np.abs(path[0]).max() == 0 and 0.05 < np.abs(path).max() <= 0.1
        assert np.abs(path[0] - path[-1]).max() < 0.08
    settings = ParallaxSettings(motion="dolly", seconds=1, rate=6, amount=0.3)
    red = [(picture[..., 0] > 100).sum() for picture, _ in views(prediction, settings, MESH)]
    assert red[3] > 1.2 * red[0] and red[0] == 400  # 1 / (1 - .3) on each side, less what the middle is kept still by


def test_a_thing_moves_whole_where_its_depth_ends_before_its_outline(prediction: Prediction) -> None:
    values = np.ones(SIZE, np.float32)
    values[21:39, 31:49] = 0.0
    settings = ParallaxSettings(motion="sideways", seconds=1, rate=8, amount=0.12, longest_px=80)
    for picture, _ in views(replace(prediction, values=values), settings, MESH):
        columns = np.flatnonzero(picture[picture.shape[0] // 2, :, 0] > 100)
        assert np.ptp(columns) + 1 == len(columns) <= 21  # none of it stays behind


def test_a_photo_becomes_a_clip_that_says_what_is_invented(prediction: Prediction, tmp_path: Path) -> None:
    settings = ParallaxSettings(seconds=0.5, rate=10, amount=0.3)
    *progress, files = stream_parallax(prediction, tmp_path, settings, MESH)
    assert [event.done for event in progress if isinstance(event, Progress)] == [1, 2, 3, 4, 5]
    assert isinstance(files, dict)
    frames = {}
    for name, path in files.items():
        with av.open(str(path)) as container:
            frames[name] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames["clip"]) == len(frames["invented"]) == 5
    assert frames["invented"][0].max() < 30 and frames["invented"][1].max() > 200
    with pytest.raises(ExportError, match="exists already"):
        list(stream_parallax(prediction, tmp_path, settings, MESH))


# ------------------------------------------------------------------------------- depth of field


def contrast(picture: np.ndarray, rows: slice, columns: slice, channel: int) -> float:
    return float(picture[rows, columns, channel].astype(float).std())


def test_what_is_in_focus_stays_and_all_else_is_blurred(prediction: Prediction) -> None:
    near, invented = defocus(prediction, DefocusSettings(focus=(40, 30), aperture=0.1), MESH)
    np.testing.assert_allclose(near[BOX], prediction.photo[BOX], atol=1)  # the card is as it was
    wall = slice(2, 16), slice(2, 70), 2
    assert contrast(near, *wall) < 0.75 * contrast(prediction.photo, *wall)
    assert near[:20, :, 0].max() < 10  # no red of the sharp card in the wall
    assert not invented[BOX].any()

    read_smaller = replace(prediction, given_size=(120, 160))  # positions are those of the photo that was given
    np.testing.assert_array_equal(defocus(read_smaller, DefocusSettings(focus=(80, 60), aperture=0.1), MESH)[0], near)
    far, invented = defocus(prediction, DefocusSettings(focus=(5, 5), aperture=0.1), MESH)
    np.testing.assert_allclose(far[:12], prediction.photo[:12], atol=1)
    card = slice(26, 34), slice(36, 44), 0
    assert contrast(far, *card) < 0.5 * contrast(prediction.photo, *card)
    assert invented[20, 30:50].all() and not invented[30, 40] and not invented[:19].any()
    assert far[18, 40, 0] > 20  # the card's blur lies over the wall

    same, nothing = defocus(prediction, DefocusSettings(aperture=0.0), MESH)
    np.testing.assert_allclose(same, prediction.photo, atol=1)
    assert not nothing.any()


@pytest.mark.parametrize("beside", [0, 1])
def test_an_outline_that_is_blurred_leaves_no_line_where_it_was(prediction: Prediction, beside: int) -> None:
    """A tilted card in front of a wall in focus, whether the map lies on its outline or a pixel beside it."""
    fine = Image.new("L", (800, 600))
    ImageDraw.Draw(fine).polygon([(250, 150), (550, 200), (500, 450), (200, 400)], fill=255)
    share = np.asarray(fine.resize((80, 60), Image.Resampling.BOX), np.float32) / 255  # of the card, as in a photo
    wall, card = np.array([40.0, 90.0, 200.0]), np.array([200.0, 40.0, 30.0])
    photo = np.rint(wall + share[..., None] * (card - wall)).astype(np.uint8)
    values = np.where(np.roll(share, beside, (0, 1)) > 0.5, 0, 1).astype(np.float32)
    made, _ = defocus(
        replace(prediction, photo=photo, values=values), DefocusSettings(focus=(5, 5), aperture=0.1), MESH
    )
    told = to_linear(made)[..., 0]
    blurred = (told - told.min()) / (told.max() - told.min())
    rows, columns = np.indices(share.shape)
    middle = np.hypot(rows - 30, columns - 37.5)
    order = blurred[30][np.argsort(middle[30], kind="stable")]
    assert np.all(np.diff(order) < 0.03)  # from the middle outwards ever less, without a line or teeth
    assert blurred[30, 37] > 0.97 and blurred[30, 5] < 0.01


@pytest.mark.parametrize(
    ("name", "value"), [("near_ratio", 0.3), ("edge_cut", 0.0), ("fov_x_deg", 20.0), ("smoothing", 0.2)]
)
def test_all_that_a_lens_is_offered_changes_what_it_shows(prediction: Prediction, name: str, value: float) -> None:
    assert set(CameraSettings.model_fields) == {"near_ratio", "edge_cut", "fov_x_deg", "smoothing"}
    photo = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    soft = replace(prediction, photo=photo, values=uniform_filter(prediction.values, 3) * 0.9 + photo[..., 0] / 2550)
    move, lens = ParallaxSettings(seconds=0.5, rate=5), DefocusSettings(focus=(40, 30), aperture=0.1)
    plain = CameraSettings(fov_x_deg=None if name == "fov_x_deg" else 60.0)
    first, other = ([*views(soft, move, one)][1][0] for one in (plain, plain.changed(**{name: value})))
    assert not np.array_equal(first, other)
    first, other = (defocus(soft, lens, one)[0] for one in (plain, plain.changed(**{name: value})))
    assert not np.array_equal(first, other)


def test_the_pictures_of_a_lens_are_written_once(prediction: Prediction, tmp_path: Path) -> None:
    files = save_defocus(prediction, tmp_path, DefocusSettings(focus=(40, 30)), MESH)
    with Image.open(files["picture"]) as picture, Image.open(files["invented"]) as mask:
        assert picture.size == mask.size == (80, 60)
    with pytest.raises(ExportError, match="exists already"):
        save_defocus(prediction, tmp_path)
    with pytest.raises(SettingsError, match="The focus 80, 5 lies outside"):
        defocus(prediction, DefocusSettings(focus=(80, 5)))


def test_commands_make_them_with_a_real_checkpoint(
    prediction: Prediction, tmp_path: Path, tiny_depth: Path, capsys
) -> None:
    Image.fromarray(prediction.photo).save(tmp_path / "a.png")
    options = ["-o", tmp_path / "out", "--model", tiny_depth, "--device", "cpu", *QUICK]
    for words in (["parallax", "--seconds", "0.5", "--rate", "5"], ["defocus", "--focus", "40,30"]):
        command = [words[0], tmp_path / "a.png", *options, *words[1:]]
        assert run_command(*command) == cli.ALL_DONE
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert run_command(*command) != cli.ALL_DONE
        assert capsys.readouterr().err.endswith(" exists already; --overwrite replaces it.\n")
    assert len(list((tmp_path / "out" / "a").iterdir())) == 4
