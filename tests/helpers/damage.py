"""Files that are damaged, changed or hostile, calls that fail, and the one sentence in which a refusal is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from marigold_core.errors import CheckpointError

DISK_FULL = OSError(28, "No space left on device")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {"missing": Path.unlink, "empty": empty, "cut off": cut_off}


def edit(path: Path, *absent: str, **changes: object) -> None:
    """Take keys out of a JSON file and change others."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in absent}))


class Trap:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def failing(error: BaseException) -> Callable[..., NoReturn]:
    """A function of any arguments that fails."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def refusal(call: Callable[[], object]) -> str:
    """The one sentence with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text, text
    return text
