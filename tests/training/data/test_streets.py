"""Virtual KITTI 2 and KITTI: scenes, units, the crop of the benchmark; and preparing the former."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError
from tests.helpers import set_writers as sets
from tests.helpers.set_writers import Picture, picture
from training.data.sets import open_set
from training.data.sets.formats import kitti_benchmark_crop
from training.engine.command import run
from training.prepare import main

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


# ------------------------------------------------------------------------------- preparing


def prepare(raw: Path, out: Path) -> int:
    with pytest.raises(SystemExit) as end:
        run(main, "prepare", ["vkitti", str(raw), str(out)])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    one = picture(sets.KITTI_SIZE, step_m=0.01, unknown=False)
    places = [f"Scene{scene}/{weather}/Camera_0" for scene in ("01", "02", "20") for weather in ("clone", "fog")]
    sets.write_vkitti(tmp_path / "raw", {f"{place}/{number:05d}": one for place in places for number in range(2)})
    return tmp_path / "raw"


def test_virtual_kitti_is_counted_and_listed(streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An incomplete set is worked with, but said to be incomplete: the paper trains on 20,148 pairs."""
    assert prepare(streets, tmp_path / "out") != 0
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
    prepare(streets, tmp_path / "out")
    assert gone.name in capsys.readouterr().out
    assert len(open_set(f"vkitti:{tmp_path / 'out'}")) == 3
