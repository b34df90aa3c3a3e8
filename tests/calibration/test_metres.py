"""Distances, and metres in files and on the command line: what they are, what they came from, what is refused."""

import json
import re
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh

from marigold_core import CalibrationError, Settings, cli, load
from marigold_core.calibration.anchors import Anchor, Length, read_numbers
from marigold_core.calibration.calibrate import Calibrated, Hints, calibrate, check_hints, distance_m
from marigold_core.files.manifest import Manifest
from marigold_core.files.writers import save
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Prediction
from marigold_core.settings import ColourSettings
from tests.helpers.command_line import QUICK, run_command
from tests.helpers.measured_room import FLOOR, FOV_DEG, anchors, length, noisy, planted, room

pytestmark = pytest.mark.numeric


# ------------------------------------------------------------------------------- distances


def test_distances_between_pixels_with_error_bars() -> None:
    z = room()
    truth = length(z, (20, 20), (140, 110)).metres
    exact = calibrate(planted(z), Hints(anchors=anchors(z, 2)))
    assert distance_m(exact, (20, 20), (140, 110)).metres == pytest.approx(truth, rel=1e-5)
    assert distance_m(exact, (20, 20), (20.5, 20)).metres == 0
    scores = []
    for seed in range(60):
        found = calibrate(noisy(planted(z), 0.01, seed), Hints(anchors=anchors(z, 5)))
        measured = distance_m(found, (25, 25), (130, 110))
        bare = Prediction(**{field.name: getattr(found, field.name) for field in fields(Prediction)})
        plain = distance_m(bare, (25, 25), (130, 110))
        assert measured.metres == plain.metres and measured.error_m > plain.error_m > 0
        scores.append((measured.metres - length(z, (25, 25), (130, 110)).metres) / measured.error_m)
    assert 0.6 < np.sqrt(np.mean(np.square(scores))) < 1.5
    with pytest.raises(CalibrationError, match="need a map in metres"):
        distance_m(planted(z), (1, 1), (5, 5))
    with pytest.raises(CalibrationError, match="needs the camera's field of view"):
        distance_m(replace(exact, fov_x_deg=None), (1, 1), (9, 9))


# ------------------------------------------------------------------------------- positions


def test_positions_are_those_of_the_photo_that_was_given_where_it_was_read_smaller(tmp_path: Path) -> None:
    z = room()
    height, width = z.shape
    small = planted(z)
    large = replace(small, given_size=(2 * height, 2 * width), note="It was read at half its size.")
    known, span = anchors(z, 3), length(z, (20, 20), (140, 110))
    found = calibrate(small, Hints(anchors=known, lengths=[span], patches=[FLOOR]))
    doubled = Hints(
        anchors=[replace(one, x=2 * one.x, y=2 * one.y) for one in known],
        lengths=[Length(2 * span.x1, 2 * span.y1, 2 * span.x2, 2 * span.y2, span.metres)],
        patches=[replace(FLOOR, corners=tuple((2 * x, 2 * y) for x, y in FLOOR.corners))],
    )
    check_hints(doubled, z.shape, small.fov_x_deg, large.photo_size)
    same = calibrate(large, doubled)
    assert (same.scale, same.shift) == (found.scale, found.shift)
    assert distance_m(same, (40, 40), (280, 220)).metres == distance_m(found, (20, 20), (140, 110)).metres
    for refuse in (
        lambda hints: calibrate(large, hints),
        lambda hints: check_hints(hints, z.shape, 60, large.photo_size),
    ):
        with pytest.raises(CalibrationError, match=f"has {2 * width} x {2 * height} pixels"):
            refuse(Hints(anchors=[Anchor(2 * width + 1, 5, 1.0)]))
    record = Manifest.model_validate_json(save(same, tmp_path, ["npy"])["manifest"].read_text())
    assert (record.photo.given_size, record.photo.note) == (large.given_size, large.note)


# ------------------------------------------------------------------------------- files


def test_every_file_with_room_for_words_says_metric_and_how(tmp_path: Path) -> None:
    z = room()
    found = calibrate(planted(z), Hints(anchors=anchors(z, 2), patches=[FLOOR]))
    claims = ["metric", "in metres", "depth at (80, 112)", "flat patch at (12, 88)", found.how]
    paths = save(found, tmp_path)
    record = Manifest.model_validate_json(paths["manifest"].read_text())
    assert (record.kind, record.how) == ("metric", found.how) and "metres" in record.convention
    assert record.hints is not None
    np.testing.assert_array_equal(calibrate(planted(z), record.hints).values, found.values)
    assert record.png16_range is not None
    assert (record.png16_range.low, record.png16_range.high) == pytest.approx((z.min(), z.max()), rel=1e-5)
    np.testing.assert_array_equal(np.load(paths["npy"]), found.values)
    content = paths["glb"].read_bytes()
    told = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])["asset"]["extras"]["depth"]
    head = paths["ply"].read_bytes().partition(b"end_header")[0].decode("ascii")
    import OpenEXR

    with OpenEXR.File(str(paths["exr"])) as file:
        comments = file.header()["comments"]
    for claim in claims:
        assert claim in told and claim in head and claim in comments
    cloud = trimesh.load(BytesIO(paths["ply"].read_bytes()), file_type="ply")
    assert isinstance(cloud, trimesh.PointCloud)
    np.testing.assert_allclose(cloud.vertices[:, 2].min(), -z.max(), rtol=1e-4)


def test_a_relative_map_says_so_and_old_manifests_are_read(tmp_path: Path) -> None:
    paths = save(planted(room()), tmp_path, ["npy", "ply"])
    assert b"comment depth is affine: 0 = near plane" in paths["ply"].read_bytes()
    stored = json.loads(paths["manifest"].read_text())
    assert (stored["schema_version"], stored["kind"], stored["how"]) == (4, "affine", None)
    stored["colormap"] = stored.pop("colours")["colormap"]
    del stored["how"], stored["hints"], stored["camera"]
    record = Manifest.model_validate_json(json.dumps(stored | {"schema_version": 1}))
    assert (record.how, record.camera, record.colours) == (None, None, ColourSettings())


def test_what_came_from_hints_cannot_lose_its_reason(tmp_path: Path) -> None:
    found = calibrate(planted(room()), Hints(anchors=anchors(room(), 2)))
    later = replace(found, fov_x_deg=50.0)
    assert isinstance(later, Calibrated) and later.how == found.how
    assert later.relative.kind == "affine" and later.hints == found.hints
    assert b"depth at (80, 112)" in save(later, tmp_path, ["ply"])["ply"].read_bytes()


# ------------------------------------------------------------------------------- command line


def test_words_become_numbers() -> None:
    assert read_numbers("1,2,3; 4.5 , 6,7e1", "x,y,m") == [(1, 2, 3), (4.5, 6, 70)]
    assert read_numbers(None, "x,y,m") == read_numbers(" ", "x,y,m") == []
    for text in ("1,2", "1,2,3,4", "1,2,m", "1;2;3"):
        with pytest.raises(CalibrationError, match="Expected numbers like x,y,m"):
            read_numbers(text, "x,y,m")


def run(*words: object) -> int:
    return run_command("calibrate", *words, *QUICK, "--device", "cpu", "--formats", "npy")


def test_the_command_writes_metres_and_says_how(
    folder: Path, out: Path, tiny_depth: Path, write, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = write(folder / "a.png")
    settings = Settings(num_inference_steps=1, processing_resolution=32)
    values = load(tiny_depth, device="cpu")(photo, settings).values
    z = 1.5 * values + 2
    (y1, x1), (y2, x2) = (np.unravel_index(at, z.shape) for at in (z.argmin(), z.argmax()))
    hints = f"{x1},{y1},{z.min()}; {x2},{y2},{z.max()}"
    assert run(photo, "-o", out, "--model", tiny_depth, "--anchors", hints) == cli.ALL_DONE
    np.testing.assert_allclose(np.load(out / "a" / "depth.npy"), z, rtol=1e-4)
    record = Manifest.model_validate_json((out / "a" / "manifest.json").read_text())
    assert record.kind == "metric" and record.how is not None and f"depth at ({x1}, {y1})" in record.how
    told = capsys.readouterr().out
    for word in ("scale", "shift", "+/-", f"depth at ({x2}, {y2}), m", record.how, str(out / "a")):
        assert word in told
    again = [photo, "-o", out, "--model", tiny_depth, "--anchors", hints]
    assert run(*again) == cli.USAGE and "--overwrite" in capsys.readouterr().err
    assert run(*again, "--overwrite", "--quiet") == cli.ALL_DONE and capsys.readouterr().out == ""


def test_the_command_completes_a_sparse_map_and_a_replay_has_the_same_bytes(
    folder: Path, out: Path, write, tiny_depth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, sparse = write(folder / "photo.png"), folder / "sparse.npy"
    known = np.zeros(load_photo(photo).pixels.shape[:2], np.float32)
    known[5, 6], known[12, 25], known[20, 8] = 1.5, 4.0, 2.25
    np.save(sparse, known)
    assert run(photo, "-o", out, "--model", tiny_depth, "--sparse", sparse, "--method", "completion") == 0
    assert "denoising guided by depth at (6.5, 5.5), " in capsys.readouterr().out
    depth_m = np.load(out / "photo" / "depth.npy")
    np.testing.assert_allclose(depth_m[known > 0], known[known > 0], rtol=0.05)
    record = json.loads((out / "photo" / "manifest.json").read_text())
    assert (record["kind"], record["hints"]["method"], len(record["hints"]["anchors"])) == ("metric", "completion", 3)
    assert run_command("replay", out / "photo", "--photo", photo, "--model", tiny_depth) == 0
    assert "Same bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give a known depth, a known length or a flat patch"),
        (["--anchors", "1,2"], "Expected numbers like x,y,metres"),
        (["--anchors", "1,2,3; 40,2,3"], r"\(40, 2\) lies outside the photo, which has 32 x 24 pixels"),
        (["--lengths", "1,2,9,9,3"], "needs the camera's field of view"),
        (["--patch", "1,2,9"], "Expected numbers like x0,y0,x1,y1"),
        (["--near-m", "-1", "--anchors", "1,1,1"], "must be a number of metres above 0"),
        (["--along", "way"], "along must be 'axis' or 'ray', but got 'way'"),
    ],
)
def test_bad_words_are_one_sentence_before_the_model_runs(
    words: list[str], sentence: str, folder: Path, out: Path, write, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("marigold_core.cli.console.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert run(write(folder / "a.png"), "-o", out, *words) == cli.USAGE
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert re.search(sentence, captured.err)
    assert list(out.rglob("*")) == []


def test_hints_belong_to_one_photo(folder: Path, out: Path, write, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write(folder / f"{name}.png")
    assert run(folder, "-o", out, "--anchors", "1,1,1") == cli.USAGE
    assert "stands for 2 photos; hints belong to one" in capsys.readouterr().err
    assert run(folder / "c.png", "-o", out, "--anchors", "1,1,1") == cli.USAGE
    assert "no such file" in capsys.readouterr().err


def test_bad_hints_are_told_before_there_is_a_map() -> None:
    z = room()
    check_hints(Hints(anchors=anchors(z, 2), patches=[FLOOR], near_m=1.0), z.shape)
    across = Hints(lengths=[Length(0, 0, 9, 9, 1)])
    for hints in (
        Hints(),
        Hints(anchors=[Anchor(0, 120, 1)]),
        Hints(near_m=-1),
        Hints(lengths=[Length(0, 0, 9, 9, 1)]),
        Hints(anchors=[Anchor(60, 41, 6), Anchor(60, 41, 7)]),
    ):
        with pytest.raises(CalibrationError):
            check_hints(hints, z.shape)
    check_hints(across, z.shape, FOV_DEG)
    with pytest.raises(CalibrationError, match="alone cannot fix both"):
        check_hints(Hints(anchors=[Anchor(60, 41, 6)] * 2), z.shape, kind="affine")


def test_a_normals_checkpoint_is_refused_before_it_runs(
    folder: Path, out: Path, tiny_normals: Path, write, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", tiny_normals, "--anchors", "1,1,1; 9,9,2"]
    assert run(write(folder / "a.png"), "-o", out, *words) == cli.USAGE
    assert "not for normals" in capsys.readouterr().err
