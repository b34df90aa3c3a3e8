"""One picture with its depth, and what every data set can do."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Sample:
    """A picture with its depth."""

    name: str  # unique within its data set: where it lies, without endings
    rgb: np.ndarray  # [H, W, 3] uint8
    depth_m: np.ndarray  # [H, W] float32 metres along the optical axis; inf = sky, NaN = not known
    fov_x_deg: float | None = field(default=None, kw_only=True)  # across the picture; None: not known


class DepthSet(Protocol):
    """A data set: reading a sample is a function of its number, and opening the set reads no picture.

    Samples hold depth as it was measured; training masks what lies outside ``near_m`` .. ``far_m``, the range that
    was published for the set, and evaluation has its own range (``scoring.protocol``).
    """

    kind: str  # "hypersim", "nyu", ...: what may be given as KIND:FOLDER
    folder: Path
    near_m: float
    far_m: float
    size: tuple[int, int] | None  # (height, width) that training uses as published; None: pictures are of many sizes

    def __len__(self) -> int:
        """Count the pictures."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Read one picture. Raises: MarigoldError naming the file when it is missing, damaged or of a wrong shape."""
        ...

    def name(self, index: int) -> str:
        """Name a picture without reading it."""
        ...

    def files(self, index: int) -> Sequence[Path]:
        """List the files that a picture is read from."""
        ...

    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every picture as ``__getitem__`` returns it, from file headers at most."""
        ...


def spread(a_set: Sized, limit: int | None) -> list[int]:
    """Choose up to ``limit`` pictures at even distances over a data set, or a list -> their numbers; all by default."""
    count = len(a_set) if limit is None else min(limit, len(a_set))
    return np.linspace(0, len(a_set) - 1, count).round().astype(int).tolist()


def labels(sets: Sequence[DepthSet]) -> list[str]:
    """Name data sets in tables, "KIND FOLDER" each; of two with one name the later get a number."""
    names = [f"{a_set.kind} {a_set.folder.name}" for a_set in sets]
    earlier = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, earlier, strict=True)]
