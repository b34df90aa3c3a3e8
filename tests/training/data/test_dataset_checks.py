"""What the doctor finds in shards of rendered pictures and of latents."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import set_writers as sets
from tests.helpers.damage import DAMAGE
from tests.helpers.set_writers import picture
from training.doctor import examine

SIZE = (24, 36)


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
