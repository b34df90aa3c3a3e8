import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import set_writers as sets
from tests.helpers.command_line import exit_status
from tests.helpers.damage import DAMAGE, cut_off, empty
from tests.helpers.set_writers import Picture, picture
from training.doctor import examine, main

SIZE = (24, 36)
STRAY = np.full(SIZE, 2.0, np.float32)
STRAY[0, :3] = 5.0  # fewer pixels than the 2 % beyond which near and far are looked for


def replace_depth(values: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, values) if path.suffix == ".npy" else sets.write_png16(path, values, 1000)

    return write


# The nine kinds of damage: which file, how, how many, and what must be said about it.
KINDS: dict[str, tuple[str, Callable[[Path], None], int, str]] = {
    "photo missing": ("photo", Path.unlink, 4, "missing"),
    "depth missing": ("depth", Path.unlink, 4, "missing"),
    "photo empty": ("photo", empty, 3, "empty"),
    "depth empty": ("depth", empty, 3, "empty"),
    "photo cut off": ("photo", cut_off, 4, "damaged"),
    "depth cut off": ("depth", cut_off, 4, "damaged"),
    "other shape": ("depth", replace_depth(np.full((12, 18), 2.0, np.float32)), 3, "12 x 18"),
    "nothing known": ("depth", replace_depth(np.zeros(SIZE, np.float32)), 2, "no pixel"),
    "one depth": ("depth", replace_depth(STRAY), 1, "has one depth, 2 m, but for a few pixels"),
    "not a number": ("depth", replace_depth(np.full(SIZE, np.nan, np.float32)), 3, "no pixel"),
}


def write_pairs(folder: Path, count: int) -> list[dict[str, Path]]:
    """Write pairs of both layouts by turns -> the photo and the depth file of each."""
    files = []
    for number in range(count):
        png = number % 2 == 0
        name = f"room_{number % 7}/{number:03d}"
        sets.write_pairs(folder, {name: picture(SIZE, number)}, as_png=png)
        photo, depth = (".jpg", ".depth.png") if png else (".png", ".depth.npy")
        files.append({"photo": folder / f"{name}{photo}", "depth": folder / f"{name}{depth}"})
    return files


def test_all_of_31_damaged_pairs_are_found_and_no_other(tmp_path: Path) -> None:
    """300 pairs, ten kinds of damage."""
    files = write_pairs(tmp_path, 300)
    chosen = iter(np.random.default_rng(0).permutation(300).tolist())
    expected = {}
    for kind, (which, harm, count, say) in KINDS.items():
        for _ in range(count):
            broken = next(
                files[one] for one in chosen if kind != "not a number" or files[one]["depth"].suffix == ".npy"
            )
            harm(broken[which])
            expected[broken["photo"].relative_to(tmp_path).with_suffix("").as_posix()] = (broken[which].name, say)
    assert len(expected) == 31
    report = examine(str(tmp_path))
    assert report.sound == 269
    assert len(report.faults) == 31
    found = {fault.where.partition(".")[0]: f"{fault.where} {fault.what}" for fault in report.faults}
    assert found.keys() == expected.keys()
    for name, (file, say) in expected.items():
        assert say in found[name]
        if "missing" not in say and "one depth" not in say:  # of a missing photo nobody knows the ending
            assert file in found[name]


def test_a_picture_of_another_size_than_the_set_is_found(tmp_path: Path) -> None:
    """Published sets have one size: photo and depth fit each other here, but not the set."""
    right, wrong = picture((768, 1024)), picture((384, 512))
    sets.write_hypersim(tmp_path, {"ai_001_001/cam_00_fr0000": right, "ai_001_001/cam_00_fr0001": wrong})
    (fault,) = examine(f"hypersim:{tmp_path}").faults
    assert "fr0001" in fault.where
    assert "384 x 512" in fault.what


@pytest.mark.parametrize("workers", [1, 3])
def test_a_report_does_not_depend_on_the_workers(workers: int, tmp_path: Path) -> None:
    files = write_pairs(tmp_path, 12)
    for number in (3, 8):
        cut_off(files[number]["photo"])
    report = examine(f"pairs:{tmp_path}", workers=workers)
    assert [fault.where for fault in report.faults] == ["room_1/008", "room_3/003"]
    assert report.sizes == {"24x36": 10}


# ------------------------------------------------------------------------------- sets without a fault


def write_healthy(kind: str, folder: Path) -> str:
    """Write a small sound set -> what to give to the doctor."""
    ordinary = {f"a{'_' if kind == 'measured' else '/'}{number}": picture(SIZE, number) for number in range(3)}
    sky = picture(sets.KITTI_SIZE, step_m=0.01, unknown=False)
    sky.depth_m[:100] = np.inf
    if kind == "vkitti":
        sets.write_vkitti(folder, {"Scene02/clone/Camera_0/00000": sky})
    elif kind == "kitti":
        name = "2011_09_26_drive_0002_sync/000000006"
        sets.write_kitti(folder, {f"{name}9": picture(sets.KITTI_SIZE, step_m=1 / 256), f"{name}8": None})
    elif kind == "rendered":
        drawn = [picture(SIZE, number, step_m=1 / 64, unknown=False) for number in range(3)]
        drawn[0].depth_m[:5] = np.inf
        sets.write_rendered(folder, drawn)
    else:
        getattr(sets, f"write_{kind}")(folder, ordinary)
    return f"{kind}/{sets.SPLITS[kind]}:{folder}" if kind in sets.SPLITS else f"{kind}:{folder}"


@pytest.mark.parametrize(
    "kind", ["hypersim", "vkitti", "nyu", "kitti", "eth3d", "scannet", "diode", "measured", "rendered"]
)
def test_a_sound_set_has_no_fault(kind: str, tmp_path: Path) -> None:
    report = examine(write_healthy(kind, tmp_path))
    assert report.faults == ()
    assert report.sound == sum(report.sizes.values()) == (1 if kind in ("vkitti", "kitti") else 3)
    assert 0.5 < report.known <= 1
    assert report.range_m is not None
    assert 1 < report.range_m[0] < report.range_m[1] < 10


def test_the_summary_counts_what_is_known(tmp_path: Path) -> None:
    one = picture(SIZE, unknown=False)
    half = Picture(one.rgb, np.full(SIZE, 3.25))
    half.depth_m[:12] = np.nan
    pictures = {"half": half, "whole": Picture(one.rgb, np.full(SIZE, 1.5))}
    pictures["wide"] = Picture(one.rgb[:20], np.full((20, 36), 2.0))
    for each in pictures.values():
        each.depth_m[-1] = 2.5
    sets.write_pairs(tmp_path, pictures)
    report = examine(str(tmp_path))
    assert report.sizes == {"24x36": 2, "20x36": 1}
    assert report.known == pytest.approx((0.5 + 1 + 1) / 3)
    assert report.range_m == pytest.approx((1.5, 3.25))
    assert "3 sound pictures" in str(report)
    assert "24x36 (2)" in str(report)
    assert "83.3% known" in str(report)
    assert "no fault" in str(report)


def test_depths_beyond_what_training_uses_are_a_fault(tmp_path: Path) -> None:
    far = Picture(picture((768, 1024)).rgb, np.full((768, 1024), 65.5))
    sets.write_hypersim(
        tmp_path, {"ai_001_001/cam_00_fr0000": far, "ai_001_001/cam_00_fr0001": picture(far.rgb.shape[:2])}
    )
    (fault,) = examine(f"hypersim:{tmp_path}").faults
    assert "fr0000" in fault.where
    assert "65" in fault.what


def test_every_missing_file_of_a_listed_picture_is_named(tmp_path: Path) -> None:
    sets.write_nyu(tmp_path, {"kitchen/0001": picture(SIZE), "kitchen/0002": picture(SIZE)})
    for name in ("rgb_0002.png", "depth_0002.png"):
        (tmp_path / "test" / "kitchen" / name).unlink()
    found = {fault.where for fault in examine(f"nyu/test:{tmp_path}").faults}
    assert found == {"test/kitchen/rgb_0002.png", "test/kitchen/depth_0002.png"}


# ------------------------------------------------------------------------------- shards of renders and of latents


def shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def spoil(number: int, value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        array = np.load(path)
        array[number] = value
        np.save(path, array)

    return write


def widen(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


HARM = DAMAGE | {"shorter": shorten, "another type": widen}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["rgb", "depth", "normals", "labels"])
def test_a_damaged_array_of_rendered_pictures_is_found(name: str, harm: str, tmp_path: Path) -> None:
    for shard in range(3):
        sets.write_rendered(tmp_path, [picture(SIZE, unknown=False)] * 2, shard)
    HARM[harm](tmp_path / "shard_00001" / f"{name}.npy")
    report = examine(str(tmp_path))
    assert report.faults
    assert {fault.where for fault in report.faults} == {"shard_00001"}
    assert any(f"{name}.npy" in fault.what for fault in report.faults)
    assert report.sizes == {"24x36": 4}


@pytest.mark.parametrize("text", [None, "", "{", '{"kinds": ["room"], "fov_x_deg": [60.0]}', '{"kinds": []}'])
def test_a_damaged_description_of_rendered_pictures_is_found(text: str | None, tmp_path: Path) -> None:
    meta = sets.write_rendered(tmp_path, [picture(SIZE, unknown=False)] * 2) / "meta.json"
    sets.write_rendered(tmp_path, [picture(SIZE, unknown=False)] * 2, 1)
    meta.unlink() if text is None else meta.write_text(text)
    assert {fault.where for fault in examine(f"rendered:{tmp_path}").faults} == {"shard_00000"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_rendered_picture_without_depth_is_found(value: float, tmp_path: Path) -> None:
    shard = sets.write_rendered(tmp_path, [picture(SIZE, unknown=False)] * 3)
    spoil(1, value)(shard / "depth.npy")
    (fault,) = examine(str(tmp_path)).faults
    assert fault.where == "shard_00000/0001"


def write_latents(folder: Path, shards: int = 2) -> None:
    rng = np.random.default_rng(0)
    for shard in range(shards):
        path = folder / f"shard_{shard:05d}_64px_v0"
        path.mkdir(parents=True)
        for name in ("image", "target"):
            np.save(path / f"{name}.npy", rng.normal(size=(3, 4, 12, 16)).astype(np.float16))
        np.save(path / "valid.npy", np.ones((3, 1, 12, 16), bool))
        (path / "names.json").write_text(json.dumps(["a", "b", "c"]))
    (folder / "latents.json").write_text(json.dumps({"kind": "pairs", "pictures": 3 * shards}))


def test_sound_latents_have_no_fault(tmp_path: Path) -> None:
    write_latents(tmp_path)
    report = examine(str(tmp_path))
    assert report.faults == ()
    assert (report.sound, report.sizes, report.known, report.range_m) == (6, {"12x16": 6}, 1.0, None)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["image", "target", "valid"])
def test_a_damaged_array_of_latents_is_found(name: str, harm: str, tmp_path: Path) -> None:
    write_latents(tmp_path)
    HARM[harm](tmp_path / "shard_00001_64px_v0" / f"{name}.npy")
    report = examine(str(tmp_path))
    assert report.faults
    assert all(fault.where.startswith("shard_00001_64px_v0/") for fault in report.faults)
    assert report.sizes == {"12x16": 3}


@pytest.mark.parametrize("text", [None, "", "[", "3", '["a", "b"]'])
def test_damaged_names_of_latents_are_found(text: str | None, tmp_path: Path) -> None:
    write_latents(tmp_path)
    names = tmp_path / "shard_00001_64px_v0" / "names.json"
    names.unlink() if text is None else names.write_text(text)
    assert all(fault.where.startswith("shard_00001_64px_v0/") for fault in examine(str(tmp_path)).faults)
    assert examine(str(tmp_path)).sound == 3


@pytest.mark.parametrize("text", [None, "{"])
def test_latents_that_do_not_say_what_they_were_made_with_are_found(text: str | None, tmp_path: Path) -> None:
    write_latents(tmp_path)
    index = tmp_path / "latents.json"
    index.unlink() if text is None else index.write_text(text)
    (fault,) = examine(str(tmp_path)).faults
    assert fault.where == "latents.json"


@pytest.mark.parametrize(("name", "value"), [("image", np.nan), ("target", np.inf), ("valid", False)])
def test_latents_that_teach_nothing_are_found(name: str, value: float, tmp_path: Path) -> None:
    write_latents(tmp_path)
    spoil(2, value)(tmp_path / "shard_00000_64px_v0" / f"{name}.npy")
    (fault,) = examine(str(tmp_path)).faults
    assert fault.where == f"shard_00000_64px_v0/{name}.npy[2]"


# ------------------------------------------------------------------------------- the command


def test_the_command_ends_with_0_1_or_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, sick, report = tmp_path / "sound", tmp_path / "sick", tmp_path / "report.json"
    write_pairs(sound, 4)
    cut_off(write_pairs(sick, 4)[1]["depth"])
    for words, status in (
        ([sound], 0),
        ([sound, f"pairs:{sick}", "--workers", 2, "--json-out", report], 1),
        ([tmp_path / "none"], 2),
        ([sound, "--workers", 0], 2),
    ):
        assert exit_status(main, *words) == status
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if status == 1:
            assert "001.depth.npy" in said.out
            assert f"{sound}: 4 sound pictures" in said.out
        if status == 2:
            assert said.err.strip().count("\n") == 0
    healthy, ill = json.loads(report.read_text())
    assert healthy["faults"] == []
    assert [fault["where"] for fault in ill["faults"]] == ["room_1/001"]


def test_a_report_replaces_nothing_but_a_report_and_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "sound", 2)
    mine, older = tmp_path / "mine.json", tmp_path / "older.json"
    mine.write_text('[{"data": "mine"}]')
    for path, status in ((mine, 2), (older, 0), (older, 0)):
        assert exit_status(main, tmp_path / "sound", "--json-out", path) == status
    assert mine.read_text() == '[{"data": "mine"}]'
    capsys.readouterr()
    exit_status(main, tmp_path / "sound", "--json-out", mine / "report.json")
    said = capsys.readouterr()
    assert not said.out and "report.json was not written: a file is where" in said.err  # before the work is done
