"""Folders that are complete or absent, whenever the process that writes them is killed."""

import shutil
from itertools import count
from pathlib import Path

import pytest

from marigold_core import storage
from marigold_core.errors import ExportError
from marigold_core.storage import atomic_folder, replacing, write_bytes
from tests.helpers.kills import killed_at

NAMES = ("config.json", "unet/config.json", "unet/weights")


def write(folder: Path, text: str) -> None:
    """Write a folder anew; what its card said stays beside the new one, as ``training.publish`` keeps it."""
    with atomic_folder(folder, replace=True, known=lambda _: True) as aside:
        for name in NAMES:
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_text(text)
        for name in ("card", "older_card"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, aside / "older_card")
                break


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_replaced_is_the_old_or_the_new_one_at_every_kill(tmp_path: Path) -> None:
    new = dict.fromkeys(NAMES, "new") | {"older_card": "by hand"}
    for number in count():
        folder = tmp_path / str(number) / "out"
        write(folder, "old")
        (folder / "card").write_text("by hand")
        old = texts(folder)
        killed = killed_at(number, lambda folder=folder: write(folder, "new"))
        if folder.exists():
            assert texts(folder) in (old, new)
        if not killed:
            break
        assert not killed_at(1000, lambda folder=folder: write(folder, "new"))
        assert texts(folder) == new and [*folder.parent.iterdir()] == [folder]
    assert number > 10


def test_a_file_is_the_old_or_the_new_one_at_every_kill_and_the_next_write_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    write_bytes(file, b"old")
    for number in count():
        killed = killed_at(number, lambda: write_bytes(file, b"new"))
        assert file.read_bytes() in (b"old", b"new")
        if not killed:
            break
        write_bytes(file, b"old")
        assert [*tmp_path.iterdir()] == [file]
    assert number >= 3  # the hidden file is made, written and renamed


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with replacing(file) as first:
        first.write_bytes(b"first")
        write_bytes(file, b"second")
        assert file.read_bytes() == b"second"
    assert file.read_bytes() == b"first" and [*tmp_path.iterdir()] == [file]


def test_a_link_in_the_place_of_the_hidden_file_leads_nowhere(tmp_path: Path) -> None:
    file, other = tmp_path / "report.json", tmp_path / "other"
    other.write_bytes(b"untouched")
    storage.unfinished(file).symlink_to(other)
    write_bytes(file, b"new")
    assert (file.read_bytes(), other.read_bytes()) == (b"new", b"untouched")


def test_where_files_cannot_be_locked_they_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "fcntl", None)  # as on Windows
    write_bytes(tmp_path / "report.json", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize("name", [".", "..", "/", "../at"])
def test_the_current_folder_is_never_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "at").mkdir()
    monkeypatch.chdir(tmp_path / "at")
    with pytest.raises(ExportError, match="current folder"), atomic_folder(Path(name)):
        pass
    assert [*tmp_path.rglob("*")] == [tmp_path / "at"]


def test_a_link_in_a_circle_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "at").symlink_to("at")
    with pytest.raises(ExportError, match="at cannot be written"), atomic_folder(tmp_path / "at") as aside:
        (aside / "file").touch()
    assert [*tmp_path.iterdir()] == [tmp_path / "at"]
