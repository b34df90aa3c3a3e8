"""Folders that are complete or absent, whenever the process that writes them is killed."""

import shutil
from itertools import count
from pathlib import Path

from marigold_core.storage import atomic_folder
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
