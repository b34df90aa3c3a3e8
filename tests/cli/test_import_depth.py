"""The command ``import-depth``: files of a depth map from elsewhere, in metres with hints, and the same bytes again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core import cli
from marigold_core.files.manifest import Manifest

Z = (2 + np.add.outer(np.arange(48) / 48, np.arange(64) / 16)).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)).save("room.png")
    np.save("room_depth.npy", Z)
    Image.fromarray(np.rint(Z * 1000).astype(np.uint16)).save("room_mm.png")
    return tmp_path


def run(*words: str) -> int:
    return cli.main(["import-depth", "room.png", *words, "-o", "out"])


def test_millimetres_become_metres_and_are_made_again(place: Path, capsys) -> None:
    words = ["--unit-m", "0.001", "--formats", "npy,ply,exr", "--save-for", "rgbd"]
    assert run("room_mm.png", *words) == cli.ALL_DONE
    np.testing.assert_allclose(np.load(place / "out/room/depth.npy"), Z, atol=6e-4)
    assert "metric: z along the optical axis from the camera, in metres." in capsys.readouterr().out
    record = Manifest.model_validate_json((place / "out/room/manifest.json").read_text())
    assert (record.checkpoint, record.kind) == ("given: room_mm.png", "metric")
    assert cli.main(["replay", "out/room"]) == cli.ALL_DONE
    assert "Same bytes: 6 files." in capsys.readouterr().out


def test_hints_make_metres_of_a_relative_map(place: Path, capsys) -> None:
    anchors = f"2,3,{Z[3, 2]};60,40,{Z[40, 60]}"
    assert run("room_depth.npy", "--anchors", anchors, "--formats", "npy", "--flat") == cli.ALL_DONE
    np.testing.assert_allclose(np.load(place / "out/room_depth.npy"), Z, rtol=1e-3)
    shown = capsys.readouterr().out
    assert "depth at (2, 3), m" in shown and "taken as usual: depth, relative, greater is farther" in shown


def test_a_replay_without_the_map_is_one_sentence(place: Path, capsys) -> None:
    assert run("room_depth.npy", "--formats", "npy", "--quiet") == cli.ALL_DONE
    (place / "room_depth.npy").rename(place / "elsewhere.npy")
    assert cli.main(["replay", "out/room"]) == cli.USAGE
    message = "The depth map room_depth.npy was not found beside the manifest; name it with --depth.\n"
    assert capsys.readouterr().err == message
    assert cli.main(["replay", "out/room", "--depth", "elsewhere.npy"]) == cli.ALL_DONE
    np.save(place / "elsewhere.npy", Z + 1)
    assert cli.main(["replay", "out/room", "--depth", "elsewhere.npy"]) == cli.USAGE
    assert "elsewhere.npy is another depth map than the recorded one: it has other bytes." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "This photo carries no depth map; give one as a file of its own."),
        (["room_depth.npy", "room_mm.png"], "One depth map belongs to a photo, but got 2."),
        (["nowhere.npy"], "The depth map cannot be read: there is no such file."),
        (["/dev/null"], "The depth map cannot be read: it is no file."),
        (["."], "The depth map cannot be read: it is no file."),
        (
            ["room_mm.png", "--kind", "metric"],
            "unit_m is needed for metres: the depth in metres where the value of the map is 1",
        ),
        (["room_mm.png", "--save-for", "rgbd"], "RGB-D for Open3D and SLAM needs depth in metres"),
        (["room_mm.png", "--greater", "up"], "greater must be 'farther' or 'nearer', but got 'up'."),
        (["room_mm.png", "--unit-m", "0.001", "--near-m", "2"], "This map is in metres already."),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], message: str, place: Path, capsys) -> None:
    assert run(*words) == cli.USAGE
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1
    assert not list(place.glob("out/*"))
