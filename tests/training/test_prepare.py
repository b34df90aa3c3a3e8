"""Preparation of the training sets: what is written, from raw folders that were made without the product's code."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError
from tests.helpers import set_writers as sets
from tests.helpers.command_line import ROOT, exit_status, fingerprints
from tests.helpers.damage import DAMAGE
from tests.helpers.set_writers import Frame, frame, picture
from training.data.sets import open_set
from training.data.sets.hypersim import COLUMNS, INDEX, plane_depth, tone_map
from training.prepare import Preparation, main, unpack_archives


def prepare(*words: object) -> int:
    """Run the command in this process -> its exit status."""
    return exit_status(main, *words, "--workers", 1)


FRAMES = [
    frame(4.0, 1.0),
    frame(5.5, 2.0, camera="cam_01", frame=37),
    frame(3.25, 3.0, scene="ai_003_010", split="val"),
    frame(3.0, 4.0, scene="ai_001_010", split="test", frame=1),
    frame(9.0, 5.0, frame=2, public=False),
]
SPLITS = ("train", "train", "val", "test")
SMALL = (96, 128)  # for tests that look at files rather than pixels
NAMES = {
    "train/ai_001_001": ("cam_00_fr0000", "cam_01_fr0037"),
    "val/ai_003_010": ("cam_00_fr0000",),
    "test/ai_001_010": ("cam_00_fr0001",),
}
PICTURES = {
    f"{folder}/{kind}_{name}.png"
    for folder, names in NAMES.items()
    for name in names
    for kind in ("rgb", "depth_plane")
}
LISTS = {f"{split}/filename_list_{split}.txt" for split in ("train", "val", "test")}


def plane_mm(distance_m: float) -> np.ndarray:
    u, v = np.linspace(-511.5, 511.5, 1024), np.linspace(-383.5, 383.5, 768)[:, None]
    return distance_m * 886.81 / np.sqrt(u**2 + v**2 + 886.81**2) * 1000


def toned(one: Frame) -> np.ndarray:
    light = one.hdr.astype(np.float16).astype(np.float64)
    bright = 0.3 * light[..., 0] + 0.59 * light[..., 1] + 0.11 * light[..., 2]
    scale = 0.8**2.2 / np.percentile(bright[one.entity != -1], 90)
    return (np.clip(scale * light, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    sets.write_hypersim_raw(folder, FRAMES)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    sets.write_hypersim_raw(
        folder, [frame(number + 3, size=SMALL, split=split, frame=number) for number, split in enumerate(SPLITS)]
    )
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare("hypersim", raw, folder) == 0
    return folder


# ------------------------------------------------------------------------------- what is written


def test_published_pictures_of_all_splits_are_written_and_listed(prepared: Path) -> None:
    """The frame that is not included in the public release has no files, and is not asked for."""
    there = set(fingerprints(prepared))
    assert {path for path in there if path.endswith(".png")} == PICTURES
    assert there >= LISTS
    lines = (prepared / "train" / "filename_list_train.txt").read_text().splitlines()
    assert lines == [
        "ai_001_001/rgb_cam_00_fr0000.png ai_001_001/depth_plane_cam_00_fr0000.png",
        "ai_001_001/rgb_cam_01_fr0037.png ai_001_001/depth_plane_cam_01_fr0037.png",
    ]
    with (prepared / "val" / "filename_meta_val.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["invalid_ratio"]) == pytest.approx(200 / (768 * 1024), rel=1e-3)


def test_depth_is_plane_depth_in_millimetres_and_0_where_there_is_no_surface(prepared: Path) -> None:
    stored = np.asarray(Image.open(prepared / "train/ai_001_001/depth_plane_cam_00_fr0000.png")).astype(int)
    assert stored.shape == (768, 1024)
    assert (stored[:10, :20] == 0).all()
    away = np.abs(stored - np.floor(plane_mm(4.0)))
    away[:10, :20] = 0
    assert away.max() <= 1
    assert (away == 0).mean() > 0.999
    assert stored[-1, -1] == int(4000 * 0.811189)
    assert stored[384, 512] == 3999  # x 0.9999997, truncated


def test_the_photo_is_tone_mapped_by_what_has_a_surface(prepared: Path) -> None:
    for one, name in ((FRAMES[0], "cam_00_fr0000"), (FRAMES[1], "cam_01_fr0037")):
        stored = np.asarray(Image.open(prepared / f"train/ai_001_001/rgb_{name}.png")).astype(int)
        away = np.abs(stored - toned(one))
        assert away.max() <= 1
        assert (away == 0).mean() > 0.999


def test_what_was_prepared_opens(prepared: Path) -> None:
    opened = open_set(f"hypersim:{prepared}")
    assert [opened.name(index).rpartition("/")[2] for index in range(2)] == ["rgb_cam_00_fr0000", "rgb_cam_01_fr0037"]
    depth = opened[1].depth_m
    assert np.isnan(depth[:10, :20]).all()
    np.testing.assert_allclose(depth[10:], plane_mm(5.5)[10:] / 1000, atol=2e-3)
    assert len(open_set(f"hypersim/val:{prepared}")) == len(open_set(f"hypersim/test:{prepared}")) == 1


def test_depths_beyond_16_bit_do_not_come_back_near(tmp_path: Path) -> None:
    sets.write_hypersim_raw(tmp_path / "raw", [frame(70.0)])
    assert prepare("hypersim", tmp_path / "raw", tmp_path / "out") == 0
    depth = open_set(f"hypersim:{tmp_path / 'out'}")[0].depth_m
    assert depth[384, 512] > 65
    assert np.nanmin(depth) > 56


def test_incomplete_pictures_are_written_but_not_listed(tmp_path: Path) -> None:
    holey = frame(size=SMALL, frame=1)
    holey.entity[:40] = -1
    sets.write_hypersim_raw(tmp_path / "raw", [frame(size=SMALL), holey])
    assert prepare("hypersim", tmp_path / "raw", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4
    assert [one.name for one in open_set(f"hypersim:{tmp_path / 'out'}")] == ["train/ai_001_001/rgb_cam_00_fr0000"]


# ------------------------------------------------------------------------------- going on, naming, verifying


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def test_the_same_command_goes_on_and_leaves_what_is_done(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare("hypersim", small, out) == 0
    before, content = times(out), fingerprints(out)
    gone = "train/ai_001_001/depth_plane_cam_00_fr0001.png"
    (out / gone).unlink()
    meta = out / "val" / "filename_meta_val.csv"
    meta.write_text(meta.read_text()[:-5])  # as after a kill while the last line was written
    assert prepare("hypersim", small, out) == 0
    after = times(out)
    again = {gone, gone.replace("depth_plane", "rgb"), *(path for path in before if path.startswith("val/"))}
    assert {path for path in after if after[path] != before[path]} == again
    assert fingerprints(out) == content


@pytest.mark.parametrize("which", range(3), ids=["colour", "distance", "entity"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_raw_file_is_named_and_the_others_are_done(
    which: int, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [frame(size=SMALL, frame=number) for number in range(2)]
    sets.write_hypersim_raw(tmp_path / "raw", frames)
    path = sets.hypersim_files(tmp_path / "raw", frames[0])[which]
    whole = path.read_bytes()
    DAMAGE[how](path)
    assert prepare("hypersim", tmp_path / "raw", tmp_path / "out") != 0
    assert path.name in capsys.readouterr().out
    done = times(tmp_path / "out")
    assert {name[-8:-4] for name in done} == {"0001"}
    path.write_bytes(whole)
    assert prepare("hypersim", tmp_path / "raw", tmp_path / "out") == 0
    after = times(tmp_path / "out")
    assert len(after) == 4
    assert {name: after[name] for name in done} == done


@pytest.mark.parametrize("what", ["shape", "entity 0", "key"])
def test_a_raw_file_that_makes_no_sense_is_named(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = frame(size=SMALL)
    sets.write_hypersim_raw(tmp_path / "raw", [one])
    path = sets.hypersim_files(tmp_path / "raw", one)[2]
    if what == "shape":
        sets.write_hdf5(path, one.entity[::2, ::2])
    elif what == "key":
        sets.write_hdf5(path, one.entity, key="data")
    else:
        one.entity[5, 5] = 0
        sets.write_hdf5(path, one.entity)
    assert prepare("hypersim", tmp_path / "raw", tmp_path / "out") != 0
    assert path.name in capsys.readouterr().out
    assert times(tmp_path / "out") == {}


def test_verifying_finds_what_was_damaged_later(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare("hypersim", small, out, "--verify") == 0
    path = out / "val/ai_001_001/depth_plane_cam_00_fr0002.png"
    path.write_bytes(path.read_bytes()[:-200])
    assert prepare("hypersim", small, out) == 0  # it is there: nothing to do
    capsys.readouterr()
    assert prepare("hypersim", small, out, "--verify") != 0
    assert path.name in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_preparation_ends_as_one_that_was_not(small: Path, tmp_path: Path) -> None:
    assert prepare("hypersim", small, tmp_path / "whole") == 0
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training.prepare", "hypersim", str(small), str(out), "--workers", "2"]
    running = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while running.poll() is None and not list(out.rglob("*.png")):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    assert fingerprints(out) == fingerprints(tmp_path / "whole")


def test_lists_that_a_kill_cut_off_are_written_anew_and_nothing_is_left(tmp_path: Path) -> None:
    sets.write_measured(tmp_path / "set", {f"p{number}": picture((24, 32), number) for number in range(6)})
    words = ("split", tmp_path / "set", tmp_path / "set", "--shares", "0.5,0.5,0")
    assert prepare(*words) == 0
    whole = fingerprints(tmp_path / "set")
    (tmp_path / "set" / ".0123.marigold-unfinished").write_bytes(b"p1\tp")  # as a killed process leaves it
    assert prepare(*words) == 0
    assert fingerprints(tmp_path / "set") == whole


# ------------------------------------------------------------------------------- formulas of Hypersim


def test_distance_to_the_centre_becomes_plane_depth() -> None:
    """Oracles: x 0.811189 in a corner, x 0.9999997 in the middle, for 1024 x 768 at 886.81 px."""
    depth = plane_depth(np.full(sets.HYPERSIM_SIZE, 10.0))
    corners = [depth[row, column] for row in (0, -1) for column in (0, -1)]
    assert corners == pytest.approx([8.11189] * 4, abs=5e-6)
    assert depth[383:385, 511:513] == pytest.approx(np.full((2, 2), 9.999997), abs=5e-6)
    assert depth.max() < 10
    u, v = 100 - 511.5, 700 - 383.5
    assert depth[700, 100] == pytest.approx(10 * 886.81 / (u**2 + v**2 + 886.81**2) ** 0.5, rel=1e-6)


def test_the_ninetieth_percentile_of_brightness_becomes_four_fifths() -> None:
    hdr = np.zeros((10, 100, 3))
    hdr[:] = np.linspace(0, 2, 1000).reshape(10, 100, 1)
    p90 = np.percentile(hdr[..., 0], 90)
    toned = tone_map(hdr, np.ones((10, 100), bool))
    assert toned.dtype == np.uint8
    scale = 0.8**2.2 / p90
    assert np.array_equal(toned, (np.clip(scale * hdr, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))
    assert toned.flat[3 * 899] == pytest.approx(0.8 * 255, abs=1)


def test_brightness_weighs_the_colours_and_counts_known_pixels_only() -> None:
    hdr = np.zeros((10, 10, 3))
    hdr[:5] = (1, 0, 0)
    hdr[5:] = (50, 50, 50)  # behind which there is no surface
    known = np.zeros((10, 10), bool)
    known[:5] = True
    toned = tone_map(hdr, known)
    expected = int((0.8**2.2 / 0.3) ** (1 / 2.2) * 255)  # over 1: clipped
    assert toned[0, 0].tolist() == [min(255, expected), 0, 0]
    assert toned[9, 9].tolist() == [255] * 3
    for weight, colour in ((0.3, (0.2, 0, 0)), (0.59, (0, 0.2, 0)), (0.11, (0, 0, 0.2))):
        hdr[:] = 1
        hdr[0, 0] = colour
        whole = tone_map(np.broadcast_to(np.array(colour), (10, 10, 3)), np.ones((10, 10), bool))
        bright = min(1.0, (0.8**2.2 / (weight * 0.2) * 0.2)) ** (1 / 2.2)
        assert whole[0, 0].max() == int(bright * 255)


def test_dark_and_empty_pictures_have_their_own_scale() -> None:
    everywhere, nowhere = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert tone_map(np.full((4, 4, 3), 9e-5), everywhere).max() == 0  # below 1e-4: scale 0
    assert tone_map(np.full((4, 4, 3), 1.1e-4), everywhere)[0, 0, 0] == pytest.approx(204, abs=1)
    assert tone_map(np.full((4, 4, 3), 0.5), nowhere)[0, 0, 0] == int(0.5 ** (1 / 2.2) * 255)  # none known: scale 1
    assert tone_map(np.full((4, 4, 3), -3.0), nowhere).max() == 0  # renders have negative colours


# ------------------------------------------------------------------------------- Virtual KITTI 2


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    one = picture(sets.KITTI_SIZE, step_m=0.01, unknown=False)
    places = [f"Scene{scene}/{weather}/Camera_0" for scene in ("01", "02", "20") for weather in ("clone", "fog")]
    sets.write_vkitti(tmp_path / "raw", {f"{place}/{number:05d}": one for place in places for number in range(2)})
    return tmp_path / "raw"


def test_virtual_kitti_is_counted_and_listed(streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An incomplete set is worked with, but said to be incomplete: the paper trains on 20,148 pairs."""
    assert prepare("vkitti", streets, tmp_path / "out") != 0
    said = capsys.readouterr().out
    assert "20,148" in said
    assert "5,364" in said
    assert "Scene06" in said
    lines = (tmp_path / "out" / "vkitti_train.txt").read_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        "rgb/Scene02/clone/frames/rgb/Camera_0/rgb_00000.jpg depth/Scene02/clone/frames/depth/Camera_0/depth_00000.png"
    )
    assert len(open_set(f"vkitti:{tmp_path / 'out'}")) == 4
    assert open_set(f"vkitti/val:{tmp_path / 'out'}")[1].rgb.shape == (352, 1216, 3)


def test_a_street_without_depth_is_named_and_not_listed(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = streets / "depth/Scene02/clone/frames/depth/Camera_0/depth_00001.png"
    gone.unlink()
    prepare("vkitti", streets, tmp_path / "out")
    assert gone.name in capsys.readouterr().out
    assert len(open_set(f"vkitti:{tmp_path / 'out'}")) == 3


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({}, True),
        ({"invalid_ratio": "0.0299"}, True),
        ({"invalid_ratio": "0.0301"}, False),
        ({"depth_min": "2.51"}, False),
        ({"depth_min": "2.5"}, True),
        ({"rgb_max": "29"}, False),
        ({"rgb_max": "30"}, True),
    ],
)
def test_hypersim_is_filtered_as_the_authors_filter_it(change: dict[str, str], listed: bool) -> None:
    row = dict.fromkeys(COLUMNS, "1") | {"rgb_min": "20", "rgb_max": "255", "depth_min": "1", "depth_max": "3"}
    assert Preparation().lists({**row, "invalid_ratio": "0", **change}) is listed


def test_what_another_program_left_is_not_replaced(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "out" / "train" / "filename_meta_train.csv"
    table.parent.mkdir(parents=True)
    table.write_text("scene,rgb\nmine,1\n")
    assert prepare("hypersim", small, tmp_path / "out") == 2
    assert "is not a table of this command" in capsys.readouterr().err
    assert table.read_text() == "scene,rgb\nmine,1\n"


@pytest.mark.parametrize(
    ("kind", "name"), [("hypersim", "train/filename_list_train.txt"), ("vkitti", "vkitti_train.txt")]
)
def test_a_file_that_is_no_list_is_not_replaced(
    kind: str, name: str, small: Path, streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("what to do on Monday\n")
    before = fingerprints(tmp_path / "out")
    assert prepare(kind, small if kind == "hypersim" else streets, tmp_path / "out") == 2
    assert f"{name} is no list of this command" in capsys.readouterr().err
    assert fingerprints(tmp_path / "out") == before


def test_tables_that_a_spreadsheet_saved_are_read(small: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(small, tmp_path / "raw")
    mark(raw / INDEX)
    assert prepare("hypersim", raw, tmp_path / "out") == 0
    before = fingerprints(tmp_path / "out")
    mark(tmp_path / "out" / "train" / "filename_meta_train.csv")
    assert prepare("hypersim", raw, tmp_path / "out") == 0
    assert fingerprints(tmp_path / "out") == before


def mark(path: Path) -> None:
    """Put the byte-order mark before a text."""
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")


def test_pictures_of_two_folders_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        sets.write_vkitti(tmp_path / name, {"Scene02/clone/Camera_0/00000": picture((375, 1242))})
    prepare("vkitti", tmp_path / "a", tmp_path / "out")
    before = fingerprints(tmp_path)
    assert prepare("vkitti", tmp_path / "b", tmp_path / "out") == 2
    assert "whose pictures would be listed" in capsys.readouterr().err
    assert fingerprints(tmp_path) == before


# ------------------------------------------------------------------------------- archives


def archive_of(path: Path, **files: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def a_pair(depth_m: float) -> dict[str, bytes]:
    photo, depth = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(photo, "PNG")
    np.save(depth, np.full((24, 32), depth_m, np.float32))
    return {"png": photo.getvalue(), "depth.npy": depth.getvalue()}


def test_archives_become_pairs_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for shard in range(2):
        files = {f"00{row}.{end}": body for row in range(2) for end, body in a_pair(1.0 + 2 * shard + row).items()}
        archive_of(raw / f"shard-{shard:06d}.tar", **files, **{"000.json": b"{}"})
    unpack_archives(raw, out)
    a_set = open_set(f"pairs:{out}")
    assert [float(a_set[index].depth_m[0, 0]) for index in range(len(a_set))] == [1, 2, 3, 4]
    assert not list(out.rglob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    unpack_archives(raw, out)  # whole ones stay
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == before
    for name in ("../../evil.png", str(tmp_path / "evil.png")):
        archive_of(raw / "shard-000002.tar", **{name: b"x"})
        with pytest.raises(MarigoldError, match="shard-000002.tar cannot be unpacked"):
            unpack_archives(raw, out)
    assert not (tmp_path / "evil.png").exists() and not (out / "shard-000002").exists()
    (raw / "shard-000002.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(MarigoldError, match="shard-000002.tar cannot be unpacked"):
        unpack_archives(raw, out)
    with pytest.raises(MarigoldError, match="holds no archive"):
        unpack_archives(out / "shard-000000", tmp_path / "new")
