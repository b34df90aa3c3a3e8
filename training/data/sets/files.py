"""Data sets of files in folders: one class for all of them, and a ``Format`` that describes each."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Formatter

import numpy as np

from marigold_core.errors import MarigoldError
from training.data.sets.reading import check_depth, check_shape, photo_size, read_photo
from training.data.sets.sample import Sample

AS_STORED = "surrogateescape"  # how Python holds names of files that are no text
Entry = tuple[str, ...]  # photo, depth map and what else belongs to them, relative to the folder
Decode = Callable[[Sequence[Path], tuple[int, int]], np.ndarray]  # depth files, photo's size -> [H, W] float32 metres


def whole_split(split: str) -> Iterable[Mapping[str, str]]:
    """Choose what a split consists of, for sets whose splits are folders, or that have no splits."""
    return [{"split": split}]


@dataclass(frozen=True)
class Format:
    """The layout of a data set on disk, and the meaning of its numbers.

    ``photo`` and ``depth`` are paths with {fields}; a field is any part of a file name, and equal in all files of a
    picture. A list file has one picture a line; without one the folder is searched.
    """

    kind: str
    photo: str
    depth: tuple[str, ...]
    decode: Decode
    range_m: tuple[float, float]  # depths that training uses, as published
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # split -> names of its list file, best first
    list_root: str = ""  # what the paths in list files are relative to
    parts: Callable[[str], Iterable[Mapping[str, str]]] = whole_split  # split -> values of some fields
    crop: Callable[[np.ndarray], np.ndarray] | None = None
    pixels: tuple[int, int] | None = None  # height and width of all pictures as read, where the set has one size
    focal_px: float | None = None  # of pictures of that width, where one camera took all of them
    size: tuple[int, int] | None = None  # of training, as published
    upright: bool = False  # turn photos as their EXIF tags say
    lister: Callable[[Path], Iterable[Entry]] | None = None  # in place of looking for ``photo`` and ``depth``
    own: bool = False  # pictures of one's own, which list files alone divide into splits
    hint: str = ""  # what to do about a folder of another layout

    def entries(self, folder: Path, split: str) -> list[Entry]:
        """List the pictures of a split.

        Raises: MarigoldError when there is none, or a list file is not as expected.
        """
        root = self.list_root.format(split=split)
        for name in self.lists.get(split, ()):
            path = next((place / name for place in (folder, folder / root) if (place / name).is_file()), None)
            if path is not None:
                found = _read_list(path, root, columns=1 + len(self.depth))
                break
        else:
            if self.own and split:
                raise MarigoldError(
                    f"{folder} has no {self.lists[split][0]}: make splits with: python -m training.prepare split "
                    f"{folder}, or name another as {self.kind}/SPLIT:{folder}."
                )
            found = self.search(folder, split)
        if not any((folder / entry[0]).is_file() for entry in found):
            paths = (path.replace("{split}", split) for path in (self.photo, *self.depth))
            raise MarigoldError(f"{folder} holds no pictures of {self.kind}: {' with '.join(paths)}{self.hint}.")
        return found

    @property
    def fov_x_deg(self) -> float | None:
        """Horizontal field of view of the pictures as read, degrees; None where the set does not tell."""
        if self.focal_px is None or self.pixels is None:
            return None
        return math.degrees(2 * math.atan(self.pixels[1] / 2 / self.focal_px))

    def has_lists(self, folder: Path) -> bool:
        """Return whether any list file lies in a folder."""
        return any((folder / name).is_file() for names in self.lists.values() for name in names)

    def search(self, folder: Path, split: str) -> list[Entry]:
        """List what is in the folder; a picture of which the photo or the depth map is missing counts too."""
        if self.lister:
            return sorted(self.lister(folder))
        found = set()
        for values in self.parts(split):
            for template in (self.photo, self.depth[0]):
                for fields in _matches(folder, template, values):
                    found.add(tuple(path.format(**values, **fields) for path in (self.photo, *self.depth)))
        return sorted(found)


class FileSet:
    """The pictures of one split of a data set of files. Opening it reads no picture; it can be sent to processes.

    Raises: MarigoldError when the folder has no picture of that format.
    """

    def __init__(self, form: Format, folder: Path, split: str):
        self.form, self.kind, self.folder = form, form.kind, folder
        self.near_m, self.far_m = form.range_m
        self.size = form.size
        self._entries = form.entries(folder, split)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read one picture. Raises: MarigoldError naming the file that is missing, damaged or does not fit."""
        photo, *depth = self.files(index)
        rgb = read_photo(photo, self.form.upright)
        depth_m = self.form.decode(depth, rgb.shape[:2])
        check_shape(depth_m, rgb, depth[0])
        rgb, depth_m = (self._cropped(array, photo) for array in (rgb, depth_m))
        check_depth(depth_m, depth[0])
        whole = np.ascontiguousarray(rgb), np.ascontiguousarray(depth_m, np.float32)
        return Sample(self.name(index), *whole, fov_x_deg=self.form.fov_x_deg)

    def name(self, index: int) -> str:
        """Name a picture: the path of its photo in the folder, without ending; NAME/rgb.png is NAME."""
        return self._entries[index][0].rpartition(".")[0].removesuffix("/rgb")

    def files(self, index: int) -> list[Path]:
        """List the photo and the depth files of a picture."""
        return [self.folder / path for path in self._entries[index]]

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every picture, from the headers of the photos, read once.

        When the first has the size that the set is published in, all have it. A photo that cannot be read counts as
        the most common size, so that one damaged file does not make a set unusable.
        """
        return self._sizes

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        first = self._size(0) or self.form.pixels
        if first and first == self.form.pixels:
            return [first] * len(self)
        found = [self._size(index) for index in range(len(self))]
        common = Counter(size for size in found if size).most_common(1)
        if not common:
            raise MarigoldError(f"{self.folder} has no photo that can be read.")
        return [size or common[0][0] for size in found]

    def _size(self, index: int) -> tuple[int, int] | None:
        photo = self.folder / self._entries[index][0]
        try:
            size = photo_size(photo, self.form.upright)
            height, width = self._cropped(np.broadcast_to(False, size), photo).shape
        except MarigoldError:
            return None
        return height, width

    def _cropped(self, array: np.ndarray, photo: Path) -> np.ndarray:
        try:
            return self.form.crop(array) if self.form.crop else array
        except MarigoldError as error:
            raise MarigoldError(f"{photo}: {error}") from None


def _matches(folder: Path, template: str, values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Find files whose path fits a template with the given values -> the other fields of each.

    A template with a shortened field, as {drive:.10}, can be written but not searched: nothing is found.
    """
    pattern, expression = "", ""
    for text, name, spec, _ in Formatter().parse(template):
        pattern, expression = pattern + text, expression + re.escape(text)
        if spec:
            return
        if not name:
            continue
        if name in values:
            pattern, expression = pattern + values[name], expression + re.escape(values[name])
        else:
            pattern += "*"
            expression += f"(?P={name})" if f"(?P<{name}>" in expression else f"(?P<{name}>[^/]+)"
    for path in folder.glob(pattern):
        found = re.fullmatch(expression, path.relative_to(folder).as_posix())
        if found:
            yield found.groupdict()


def is_list(path: Path, between: str = "\t") -> bool:
    """Tell whether every line of a file is one of a list that ``training.prepare`` writes: names of files in a row."""
    rows = (line.split(between) for line in _lines(path) if line)
    return all(len(row) > 1 and all(Path(word).suffix for word in row) for row in rows)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors=AS_STORED)  # editors and spreadsheets add the mark
    return text.rstrip("\n").split("\n")  # names hold other breaks


def _read_list(path: Path, root: str, columns: int) -> list[Entry]:
    """Read the pictures of a list file: a line holds the photo, the depth map and perhaps more; None means no map.

    Raises: MarigoldError when a line has fewer words, or leaves the folder.
    """
    entries = []
    for number, line in enumerate(_lines(path), start=1):
        words = line.rstrip("\r").split("\t" if "\t" in line else None)[:columns]  # names of one's own may have spaces
        if not words or "None" in words:
            continue
        if len(words) < columns or any(word.startswith(("/", "\\")) or ".." in Path(word).parts for word in words):
            raise MarigoldError(f"Line {number} of {path} is not {columns} paths inside the folder: {line[:80]!r}.")
        entries.append(tuple(root + word for word in words))
    return entries
