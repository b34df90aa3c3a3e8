"""The readers of public data sets against folders that were written from the documentation alone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError
from marigold_core.images.photo import load_rgb
from tests.helpers import set_writers as sets
from tests.helpers.damage import DAMAGE
from tests.helpers.set_writers import Picture, picture
from tests.images.test_photo import HEIC
from training.data.sets import open_set
from training.data.sets.formats import kitti_benchmark_crop
from training.data.sets.sample import DepthSet, Sample, labels
from training.prepare import Preparation, split_own

KITTI_CROP = (slice(23, 375), slice(13, 1229))
NAMES = {
    "hypersim": ["ai_001_001/cam_00_fr0000", "ai_001_001/cam_01_fr0003"],
    "vkitti": ["Scene02/clone/Camera_0/00000", "Scene20/15-deg-left/Camera_1/00012"],
    "nyu": ["kitchen_0004/0001", "office_0005/0009"],
    "kitti": ["2011_09_26_drive_0002_sync/0000000042", "2011_09_26_drive_0002_sync/0000000069"],
    "eth3d": ["office/DSC_0219", "pipes/DSC_0634"],
    "scannet": ["scene0011_00/000000", "scene0406_02/000300"],
    "diode": [
        "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010",
        "outdoor/scene_00022/scan_00196/00022_00196_outdoor_350_020",
    ],
    "measured": ["bottle", "street"],
}
SIZES = {
    **{"hypersim": (768, 1024), "vkitti": (375, 1242), "nyu": (480, 640), "kitti": (375, 1242)},
    **{"eth3d": (40, 60), "scannet": (480, 640), "diode": (768, 1024), "measured": (24, 36)},
}
STEPS_M = {"vkitti": 1 / 100, "kitti": 1 / 256}
WRITERS: dict[str, Callable[..., None]] = {kind: getattr(sets, f"write_{kind}") for kind in (*NAMES, "pairs")}
KINDS = list(NAMES)
LOSSY = ("vkitti", "eth3d", "scannet", "pairs")  # photos are JPEGs


def pictures(kind: str) -> dict[str, Picture]:
    known = kind != "vkitti"  # rendered: what has no depth is sky
    drawn = [picture(SIZES[kind], seed, step_m=STEPS_M.get(kind, 0.001), unknown=known) for seed in range(2)]
    if kind == "vkitti":
        drawn[0].depth_m[:100] = np.inf
    return dict(zip(NAMES[kind], drawn, strict=True))


def spec(kind: str, folder: Path) -> str:
    if kind == "measured":
        return str(folder)  # recognised
    return f"{kind}/{sets.SPLITS[kind]}:{folder}" if kind in sets.SPLITS else f"{kind}:{folder}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Picture]]]:
    """Every set once, with two pictures each."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(kind), pictures(kind)
        WRITERS[kind](*folders[kind])
    return folders


def compare(read: Sample, wrote: Picture, kind: str) -> None:
    rgb, depth = wrote.rgb, wrote.depth_m
    if kind in ("kitti", "vkitti"):
        rgb, depth = rgb[KITTI_CROP], depth[KITTI_CROP]
    assert read.rgb.dtype == np.uint8
    assert read.depth_m.dtype == np.float32
    assert read.rgb.shape == rgb.shape
    assert np.abs(read.rgb.astype(int) - rgb).max() <= (6 if kind in LOSSY else 0)
    np.testing.assert_allclose(read.depth_m, depth, rtol=1e-6)  # NaN and inf in the same places


# ------------------------------------------------------------------------------- what is read is what was written


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_holds_what_was_written(kind: str, written: dict) -> None:
    folder, truth = written[kind]
    opened = open_set(spec(kind, folder))
    assert (opened.kind, opened.folder, len(opened)) == (kind, folder, 2)
    for index, wrote in enumerate(truth.values()):
        compare(opened[index], wrote, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_names_files_and_sizes_are_those_of_the_pictures(kind: str, written: dict) -> None:
    opened = open_set(spec(kind, written[kind][0]))
    samples = [opened[index] for index in range(2)]
    assert [opened.name(index) for index in range(2)] == [one.name for one in samples]
    assert len({one.name for one in samples}) == 2
    assert list(opened.sizes()) == [one.depth_m.shape for one in samples]
    for index in range(2):
        files = opened.files(index)
        assert len(files) >= 2
        assert all(path.is_file() for path in files)


@pytest.mark.parametrize(
    ("kind", "near_m", "far_m", "size", "fov_x_deg"),
    [
        ("hypersim", 1e-5, 65, (480, 640), 60.0),  # 1024 pixels at 886.81
        ("vkitti", 1e-5, 80, (352, 1216), 79.97),  # 1216 at 725.0087
        ("nyu", 1e-3, 10, None, 63.33),  # 640 at 518.8579
        ("kitti", 1e-5, 80, None, None),
        ("eth3d", 1e-5, np.inf, None, None),
        ("scannet", 1e-3, 10, None, None),
    ],
)
def test_published_ranges_training_sizes_and_fields_of_view(
    kind: str, near_m: float, far_m: float, size: tuple[int, int] | None, fov_x_deg: float | None, written: dict
) -> None:
    opened = open_set(spec(kind, written[kind][0]))
    assert (opened.near_m, opened.far_m) == (near_m, far_m)
    assert opened.size == size
    assert opened[0].fov_x_deg == (fov_x_deg and pytest.approx(fov_x_deg, abs=0.01))


@pytest.mark.parametrize("kind", KINDS)
def test_opening_reads_no_picture(kind: str, written: dict, tmp_path: Path) -> None:
    copy = tmp_path / kind
    shutil.copytree(written[kind][0], copy)
    for path in copy.rglob("*"):
        if path.is_file() and path.suffix != ".txt":
            path.write_bytes(b"")
    assert len(open_set(spec(kind, copy))) == 2


# ------------------------------------------------------------------------------- what is known


def test_nyu_reads_what_was_measured_not_what_was_filled(written: dict) -> None:
    read = open_set(f"nyu/test:{written['nyu'][0]}")[0]
    assert np.isnan(read.depth_m[:120, :80]).all()
    assert np.isfinite(read.depth_m[120:]).all()


def test_diode_knows_what_its_mask_says(written: dict) -> None:
    folder, truth = written["diode"]
    read = open_set(f"diode/val:{folder}")[0].depth_m
    assert np.array_equal(np.isnan(read), np.isnan(truth[NAMES["diode"][0]].depth_m))


# ------------------------------------------------------------------------------- lists and splits


@pytest.mark.parametrize("kind", ["hypersim", "nyu", "eth3d", "scannet", "diode"])
def test_a_list_says_which_pictures_count_and_in_which_order(kind: str, tmp_path: Path) -> None:
    truth = pictures(kind)
    WRITERS[kind](tmp_path, truth)
    path = next(tmp_path.rglob("*list*.txt"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{second}\n{first}\n")
    turned = open_set(spec(kind, tmp_path))
    compare(turned[0], truth[NAMES[kind][1]], kind)
    compare(turned[1], truth[NAMES[kind][0]], kind)
    path.write_text(f"{second}\n")
    assert len(open_set(spec(kind, tmp_path))) == 1
    path.unlink()
    searched = open_set(spec(kind, tmp_path))
    assert len(searched) == 2
    compare(searched[0], truth[NAMES[kind][0]], kind)


@pytest.mark.parametrize("line", ["kitchen/rgb_0001.png", "/etc/a.png b.png c.png", "../a.png b.png c.png"])
def test_a_list_that_is_none_is_refused_by_its_line(line: str, tmp_path: Path) -> None:
    sets.write_nyu(tmp_path, pictures("nyu"))
    path = tmp_path / "filename_list_test.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(MarigoldError, match=r"3.*filename_list_test\.txt"):
        open_set(f"nyu/test:{tmp_path}")


def test_splits_are_apart(tmp_path: Path) -> None:
    one, two = (picture((480, 640), seed) for seed in range(2))
    sets.write_nyu(tmp_path / "nyu", {"office_0003/0003": one}, "train")
    sets.write_nyu(tmp_path / "nyu", {"kitchen_0004/0001": two}, "test")
    sets.write_hypersim(tmp_path / "hypersim", {"ai_001_001/cam_00_fr0000": one})
    sets.write_hypersim(tmp_path / "hypersim", {"ai_003_010/cam_00_fr0001": two}, "val")
    for kind, train, other in (("nyu", "train", "test"), ("hypersim", "train", "val")):
        for split, wrote in ((train, one), (other, two)):
            for opened in (open_set(f"{kind}/{split}:{tmp_path / kind}"), open_set(f"{kind}:{tmp_path / kind}", split)):
                assert len(opened) == 1
                compare(opened[0], wrote, kind)


@pytest.mark.parametrize("kind", ["pairs", "measured"])
@pytest.mark.parametrize("by", ["picture", "folder"])
def test_pictures_of_ones_own_are_divided_by_lists(kind: str, by: Literal["picture", "folder"], tmp_path: Path) -> None:
    names = [f"day {day}/{row}" if kind == "pairs" else f"{day}_{row}" for day in range(9) for row in range(2)]
    WRITERS[kind](tmp_path, {name: picture((24, 36), place) for place, name in enumerate(names)})
    spec = f"{kind}:{tmp_path}"
    assert [len(open_set(spec, split)) for split in ("train", "val", "test")] == [18] * 3  # whole
    with pytest.raises(MarigoldError, match=r"has no val\.txt: make splits with: python -m training\.prepare split"):
        open_set(f"{kind}/val:{tmp_path}")
    options = Preparation(shares=(0.5, 0.25, 0.25), by=by)
    split_own(tmp_path, tmp_path, options)
    found = {split: [a_set.name(k) for k in range(len(a_set))] for split, a_set in opened(kind, tmp_path).items()}
    assert sorted(name for part in found.values() for name in part) == sorted(names)
    assert [len(open_set(spec, split)) for split in found] == [len(part) for part in found.values()]
    if by == "folder" and kind == "pairs":  # what was taken together stays together
        days = [{name.partition("/")[0] for name in part} for part in found.values()]
        assert sum(map(len, days)) == len(set.union(*days)) == 9
    WRITERS[kind](tmp_path, {"more": picture((24, 36), 99)})
    split_own(tmp_path, tmp_path, options)
    again = {split: {a_set.name(k) for k in range(len(a_set))} for split, a_set in opened(kind, tmp_path).items()}
    assert all(set(part) <= again[split] for split, part in found.items())
    (tmp_path / "val.txt").unlink()
    with pytest.raises(MarigoldError, match=r"has no val\.txt"):
        open_set(spec, "val")


def test_names_that_are_no_text_or_hold_odd_breaks_are_divided_too(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9"), "a\u2028b", "a\x85b", " b ", "c d"]
    sets.write_pairs(tmp_path, {name: picture((24, 36), place) for place, name in enumerate(names)})
    split_own(tmp_path, tmp_path, Preparation(shares=(1, 0, 0)))
    a_set = open_set(f"pairs/train:{tmp_path}")
    assert sorted(a_set[place].name for place in range(len(a_set))) == sorted(names)
    sets.write_pairs(tmp_path, {"a\tb": picture((24, 36), 9)})
    with pytest.raises(MarigoldError, match=r"'a\\tb\.jpg' has a tab or a line break, which no list can hold"):
        split_own(tmp_path, tmp_path, Preparation(shares=(1, 0, 0)))


def test_a_list_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    sets.write_pairs(tmp_path, {name: picture((24, 36), place) for place, name in enumerate("ab")})
    split_own(tmp_path, tmp_path, Preparation(shares=(1, 0, 0)))
    path = tmp_path / "train.txt"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig", newline="\r\n")
    a_set = open_set(f"pairs/train:{tmp_path}")
    assert [a_set[place].name for place in range(len(a_set))] == ["a", "b"]
    split_own(tmp_path, tmp_path, Preparation(shares=(1, 0, 0)))  # it is still a list of this command


def test_lists_of_another_hand_stay_and_none_of_an_earlier_division_does(tmp_path: Path) -> None:
    sets.write_pairs(tmp_path, {f"{number}": picture((24, 36), number) for number in range(8)})
    (tmp_path / "val.txt").write_text("what to do on Monday\n")
    with pytest.raises(MarigoldError, match=r"val\.txt is no list of this command, which would replace it"):
        split_own(tmp_path, tmp_path, Preparation(shares=(0.5, 0.5, 0)))
    assert [path.name for path in tmp_path.glob("*.txt")] == ["val.txt"]
    assert (tmp_path / "val.txt").read_text() == "what to do on Monday\n"
    (tmp_path / "val.txt").unlink()
    split_own(tmp_path, tmp_path, Preparation(shares=(0.5, 0, 0.5)))
    split_own(tmp_path, tmp_path, Preparation(shares=(0.5, 0.5, 0)))
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["train.txt", "val.txt"]  # tested on none of those


def opened(kind: str, folder: Path) -> dict[str, DepthSet]:
    return {split: open_set(f"{kind}/{split}:{folder}") for split in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("shares", "out", "say"),
    [((0, 0, 0), ".", "three numbers"), ((1, -1, 1), ".", "three numbers"), ((1, 0, 0), "other", "give .* twice")],
)
def test_a_split_that_is_none_is_refused(shares: tuple[float, ...], out: str, say: str, tmp_path: Path) -> None:
    WRITERS["pairs"](tmp_path, {"one": picture((24, 36))})
    with pytest.raises(MarigoldError, match=say):
        split_own(tmp_path, tmp_path / out, Preparation(shares=shares))
    with pytest.raises(MarigoldError, match="falls to (train|val)"):
        split_own(tmp_path, tmp_path, Preparation(shares=(0.5, 0.5, 0)))


def test_pairs_are_photos_with_depth_of_the_same_name(tmp_path: Path) -> None:
    one, two = (picture((24, 36), seed) for seed in range(2))
    sets.write_pairs(tmp_path, {"a/one": one}, as_png=True)
    sets.write_pairs(tmp_path, {"two": two}, as_png=False)
    for text in (str(tmp_path), f"pairs:{tmp_path}"):
        opened = open_set(text)
        assert (opened.kind, len(opened)) == ("pairs", 2)
        compare(opened[0], one, "pairs")
        compare(opened[1], two, "pairs")


def test_rendered_pictures_open_with_sky(tmp_path: Path) -> None:
    drawn = [picture((24, 36), seed, step_m=1 / 64, unknown=False) for seed in range(3)]
    drawn[1].depth_m[:5] = np.inf
    sets.write_rendered(tmp_path, drawn[:2])
    sets.write_rendered(tmp_path, drawn[2:], shard=1)
    for text in (str(tmp_path), f"rendered:{tmp_path}"):
        opened = open_set(text)
        assert (opened.kind, len(opened)) == ("rendered", 3)
        for index, wrote in enumerate(drawn):
            half = Picture(wrote.rgb, wrote.depth_m.astype(np.float16).astype(np.float64))
            compare(opened[index], half, "rendered")


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named(kind: str, how: str, written: dict, tmp_path: Path) -> None:
    copy = tmp_path / kind
    shutil.copytree(written[kind][0], copy)
    opened = open_set(spec(kind, copy))
    for index, which in ((0, 0), (1, -1)):
        path = opened.files(index)[which]
        DAMAGE[how](path)
        with pytest.raises(MarigoldError, match=path.name):
            opened[index]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("vkitti", "kitti")])
def test_depth_of_another_shape_is_refused(kind: str, tmp_path: Path) -> None:
    truth = pictures(kind)
    WRITERS[kind](tmp_path / "right", truth)
    WRITERS[kind](tmp_path / "wrong", {name: Picture(one.rgb[1:], one.depth_m[1:]) for name, one in truth.items()})
    right, wrong = (open_set(spec(kind, tmp_path / name)) for name in ("right", "wrong"))
    for depth in range(1, len(right.files(0))):
        shutil.copyfile(wrong.files(0)[depth], right.files(0)[depth])
    with pytest.raises(MarigoldError, match=right.files(0)[1].name):
        right[0]


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ("hypersym:{folder}", "hypersim"),
        ("hypersim:{folder}/missing", "missing"),
        ("{folder}/missing", "missing"),
        ("hypersim/training:{folder}", "train"),
        ("vkitti:{folder}", "frames/rgb"),
        ("kitti/test:{folder}", "kitti"),
        ("hypersim:{folder}", "training.prepare"),
        ("{folder}", "KIND"),
        ("rendered:{folder}", "training.render"),
    ],
)
def test_what_is_no_data_set_is_refused_in_a_sentence(text: str, say: str, tmp_path: Path) -> None:
    sets.write_photo(tmp_path / "somewhere" / "a.png", picture((24, 36)).rgb)
    with pytest.raises(MarigoldError, match=say) as refusal:
        open_set(text.format(folder=tmp_path))
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------------------------- Virtual KITTI 2

VARIATIONS = ["clone", "morning", "overcast", "sunset", "15-deg-left", "15-deg-right"]
LEFT_OUT = ["fog", "rain", "30-deg-left", "30-deg-right"]


@pytest.fixture(scope="module")
def all_variations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of every scene, variation and camera, all the same files."""
    folder = tmp_path_factory.mktemp("vkitti_all")
    sets.write_vkitti(folder, {"Scene01/clone/Camera_0/00000": picture(sets.KITTI_SIZE, step_m=0.01, unknown=False)})
    rgb, depth = folder.rglob("rgb_00000.jpg"), folder.rglob("depth_00000.png")
    for one in (next(rgb), next(depth)):
        kind, ending = one.parts[-7], one.suffix
        for scene in ("01", "02", "06", "18", "20"):
            for variation in (*VARIATIONS, *LEFT_OUT):
                for camera in ("Camera_0", "Camera_1"):
                    place = folder / kind / f"Scene{scene}" / variation / "frames" / kind / camera
                    place.mkdir(parents=True, exist_ok=True)
                    for number in range(2):
                        copy = place / f"{kind}_{number:05d}{ending}"
                        if copy != one:
                            copy.hardlink_to(one)
    return folder


def test_training_uses_four_scenes_six_variations_and_both_cameras(all_variations: Path) -> None:
    train, val = (open_set(f"vkitti/{split}:{all_variations}") for split in ("train", "val"))
    assert len(train) == 4 * 6 * 2 * 2
    assert len(val) == 6 * 2 * 2
    for opened, scenes in ((train, {"Scene02", "Scene06", "Scene18", "Scene20"}), (val, {"Scene01"})):
        paths = [opened.files(index)[0].relative_to(all_variations).parts for index in range(len(opened))]
        assert {path[1] for path in paths} == scenes
        assert {path[2] for path in paths} == set(VARIATIONS)
        assert {path[5] for path in paths} == {"Camera_0", "Camera_1"}
    assert train.sizes()[0] == (352, 1216)


def test_vkitti_depth_is_in_centimetres_and_the_farthest_is_sky(tmp_path: Path) -> None:
    depth = np.full(sets.KITTI_SIZE, 12.34)
    depth[:200] = np.inf
    depth[300:] = 655.34
    rgb = picture(sets.KITTI_SIZE).rgb
    sets.write_vkitti(tmp_path, {"Scene06/sunset/Camera_1/00002": Picture(rgb, depth)})
    stored = np.asarray(Image.open(next(tmp_path.rglob("depth_00002.png"))))
    assert {int(value) for value in np.unique(stored)} == {1234, 65534, 65535}
    read = open_set(f"vkitti:{tmp_path}")[0].depth_m
    assert read[177, 0] == np.float32(12.34)
    assert np.isinf(read[:177]).all()
    assert read[-1, 0] == pytest.approx(655.34)


# ------------------------------------------------------------------------------- crops of KITTI


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(375, 1242, 23, 13), (376, 1241, 24, 12), (370, 1224, 18, 4), (374, 1238, 22, 11), (352, 1216, 0, 0)],
)
def test_the_benchmark_crop_keeps_the_lowest_rows_and_the_middle(height: int, width: int, top: int, left: int) -> None:
    rows, columns = np.mgrid[0:height, 0:width]
    cut = kitti_benchmark_crop(np.stack([rows, columns], axis=-1))
    assert cut.shape == (352, 1216, 2)
    assert cut[0, 0].tolist() == [top, left]
    assert cut[-1, -1].tolist() == [height - 1, left + 1215]
    assert kitti_benchmark_crop(rows).shape == (352, 1216)


def test_a_picture_below_the_benchmark_crop_is_refused() -> None:
    with pytest.raises(MarigoldError, match="352"):
        kitti_benchmark_crop(np.zeros((351, 1242)))


# ------------------------------------------------------------------------------- KITTI


def test_kitti_pictures_without_truth_are_left_out(tmp_path: Path) -> None:
    """As 45 of the 697: here 2 of 5."""
    truth = picture(sets.KITTI_SIZE, step_m=1 / 256)
    names = [f"2011_09_26_drive_0002_sync/{number:010d}" for number in (69, 75, 54, 72, 42)]
    sets.write_kitti(tmp_path, {name: None if name[-1] in "52" and name[-2:] != "42" else truth for name in names})
    opened = open_set(f"kitti/test:{tmp_path}")
    assert [opened.files(index)[0].stem[-2:] for index in range(len(opened))] == ["69", "54", "42"]


def test_kitti_is_in_256ths_of_a_metre_and_0_is_unknown(tmp_path: Path) -> None:
    depth = np.full(sets.KITTI_SIZE, np.nan)
    depth[100] = 10 + 3 / 256
    sets.write_kitti(tmp_path, {"2011_09_26_drive_0002_sync/0000000069": Picture(picture(depth.shape).rgb, depth)})
    read = open_set(f"kitti/test:{tmp_path}")[0].depth_m
    assert (read[77] == np.float32(10.01171875)).all()
    assert np.isnan(np.delete(read, 77, axis=0)).all()


@pytest.mark.parametrize(
    "layout",
    ["side by side", "rgb and depth", "a scene with rgb and depth", "scenes in rgb and depth", "images", "Photos"],
)
@pytest.mark.parametrize("depth", ["png", "npy"])
def test_pairs_lie_in_one_folder_or_two(layout: str, depth: str, tmp_path: Path) -> None:
    one = picture((24, 32), unknown=False)
    folder = tmp_path / "scene" if layout.startswith("a scene") else tmp_path
    names = ("x.{}", "x.depth.{}") if layout == "side by side" else ("rgb/x.{}", "depth/x.{}")
    names = (f"{layout}/x.{{}}", "depth/x.{}") if layout in ("images", "Photos") else names
    names = ("RGB/a/x.{}", "Depth/a/x.{}") if layout == "scenes in rgb and depth" else names
    photo_path, depth_path = (folder / name.format(end) for name, end in zip(names, ("jpg", depth), strict=True))
    sets.write_photo(photo_path, one.rgb)
    if depth == "png":
        sets.write_png16(depth_path, one.depth_m, 1000)
    else:
        depth_path.parent.mkdir(parents=True, exist_ok=True)
        np.save(depth_path, one.depth_m)
    found = open_set(str(tmp_path))
    assert (found.kind, len(found), found.sizes()) == ("pairs", 1, [(24, 32)])
    sample = found[0]
    np.testing.assert_allclose(sample.depth_m, one.depth_m, rtol=1e-6)
    assert np.abs(sample.rgb.astype(int) - one.rgb).mean() < 6


def test_two_folders_of_photos_beside_one_of_depth_are_one_sentence(tmp_path: Path) -> None:
    for name in ("rgb", "images"):
        sets.write_photo(tmp_path / name / "x.jpg", picture((24, 32)).rgb)
    sets.write_png16(tmp_path / "depth" / "x.png", np.ones((24, 32)), 1000)
    with pytest.raises(MarigoldError, match="has images and rgb beside depth: keep one folder of photos"):
        open_set(str(tmp_path))


def test_photos_of_pairs_may_be_heic(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    sets.write_png16(tmp_path / "IMG_1.depth.png", np.linspace(1, 2, 40 * 24).reshape(40, 24), 1000)
    found = open_set(str(tmp_path))
    assert (found.kind, found.sizes()) == ("pairs", [(40, 24)])
    np.testing.assert_array_equal(found[0].rgb, load_rgb(HEIC))


@pytest.mark.parametrize(
    ("size", "say"),
    [((24, 32), "24 x 32 pixels, but the photo 48 x 64 .* one size"), ((64, 48), "64 x 48 pixels.* the same way up")],
)
def test_depth_of_another_size_than_its_photo_is_one_sentence(size: tuple[int, int], say: str, tmp_path: Path) -> None:
    sets.write_photo(tmp_path / "x.jpg", picture((48, 64)).rgb)
    sets.write_png16(tmp_path / "x.depth.png", picture(size).depth_m, 1000)
    with pytest.raises(MarigoldError, match=say):
        open_set(str(tmp_path))[0]


def test_whole_numbers_in_an_array_are_not_taken_for_metres(tmp_path: Path) -> None:
    sets.write_photo(tmp_path / "x.jpg", picture((24, 32)).rgb)
    np.save(tmp_path / "x.depth.npy", np.full((24, 32), 1500, np.uint16))
    with pytest.raises(MarigoldError, match="whole numbers .uint16.*in metres"):
        open_set(str(tmp_path))[0]


def test_a_map_that_is_missing_is_looked_for_in_the_folder_of_maps(tmp_path: Path) -> None:
    for name in "xy":
        sets.write_photo(tmp_path / f"rgb/{name}.avif", picture((24, 32)).rgb)
    sets.write_png16(tmp_path / "depth/x.png", picture((24, 32)).depth_m, 1000)
    found = open_set(str(tmp_path))
    assert found[0].rgb.shape == (24, 32, 3)
    with pytest.raises(MarigoldError, match="depth/y.png is missing"):
        found[1]


def test_two_sets_of_one_name_have_two_labels(tmp_path: Path) -> None:
    for name in ("a/val", "b/val"):
        sets.write_measured(tmp_path / name, {"one": picture((24, 36))})
    found = [open_set(str(tmp_path / name)) for name in ("a/val", "b/val")]
    assert labels(found) == ["measured val", "measured val (2)"]
