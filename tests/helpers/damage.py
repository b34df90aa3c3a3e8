"""Kinds of damage to files, for tests of what reads them."""

from collections.abc import Callable
from pathlib import Path


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {"missing": Path.unlink, "empty": empty, "cut off": cut_off}
