"""Which photos a command line names, and which folder the files of each go to.

No two photos share a folder, no folder lies outside the output folder, and what a folder holds appears all at
once: it is written aside and renamed, so that a run that was killed leaves nothing that looks finished.
"""

import glob
import mimetypes
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marigold_core.errors import ExportError, ImageError, MarigoldError, SettingsError
from marigold_core.storage import atomic_folder

if TYPE_CHECKING:
    from marigold_core.files.manifest import Manifest

_TYPES = mimetypes.MimeTypes()  # the built-in table, not the machine's


@dataclass(frozen=True)
class Job:
    """A photo and the folder of its own that its files go to."""

    photo: Path
    folder: Path


@dataclass
class Found:
    """The jobs that a command line names, in order, and paths that cannot be jobs, with the reason."""

    jobs: list[Job] = field(default_factory=list[Job])
    refused: list[tuple[Path, MarigoldError]] = field(default_factory=list[tuple[Path, MarigoldError]])


def find_jobs(words: Sequence[str], out: Path) -> Found:
    """Turn photos, folders (with sub-folders, which are kept below ``out``) and globs into jobs.

    Raises: SettingsError when the words name no photo, or ``out`` is one of the folders or cannot be written to.
    """
    if not words:
        raise SettingsError("Name a photo, a folder of photos or a quoted glob.")
    found = Found()
    roots: dict[Path, Path] = {}  # photo -> the folder its name is relative to
    for word in words:
        path = Path(word)
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise SettingsError(f"The output folder {word} is also the input folder; give another with -o.")
            roots.update(dict.fromkeys(_walk(path, out, found), path))
        elif not os.path.lexists(path) and glob.escape(word) != word:
            matches = (Path(match) for match in sorted(glob.glob(word, recursive=True)))
            photos = (match for match in matches if match.is_file() and _is_photo(match) and not _within(match, out))
            roots.update(dict.fromkeys(photos, _fixed_part(word)))
        elif os.path.lexists(path):
            roots[path] = path.parent
        else:
            found.refused.append((path, ImageError("There is no such file.")))
    if not roots and not found.refused:
        raise SettingsError(f"There is no photo in {', '.join(words)}.")
    found.jobs = [Job(photo, out / name) for photo, name in _names(roots).items()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The output folder {out} cannot be made: {error.strerror}.") from None
    if not os.access(out, os.W_OK):
        raise SettingsError(f"The output folder {out} does not allow writing.")
    return found


def only_job(word: str, out: Path, why: str) -> Job:
    """Turn the name of one photo into its job; ``why`` is the reason for one in the message that refuses more.

    Raises: ImageError, SettingsError and ExportError when there is none, another number, or no place for its files.
    """
    found = find_jobs([word], out)
    for path, reason in found.refused:
        raise ImageError(f"{path}: {reason}")
    if len(found.jobs) > 1:
        raise SettingsError(f"{word} stands for {len(found.jobs)} photos; {why}.")
    job = found.jobs[0]
    if not job.folder.resolve().is_relative_to(out.resolve()):
        raise ExportError(f"{job.folder} is a link that leads out of the output folder.")
    return job


def _walk(root: Path, out: Path, found: Found) -> Iterator[Path]:
    """Yield the photos below a folder in order; links that leave it are refused, not followed."""
    inside = root.resolve()
    for parent, folders, files in os.walk(root):
        here = Path(parent)
        for name in sorted(folders):
            if (here / name).is_symlink():
                found.refused.append((here / name, ImageError("A link to a folder is not followed.")))
        folders[:] = sorted(name for name in folders if name[0] != "." and not _within(here / name, out))
        for path in (here / name for name in sorted(files) if name[0] != "." and _is_photo(Path(name))):
            if path.resolve().is_relative_to(inside):
                yield path
            else:
                found.refused.append((path, ImageError("The link leads out of the input folder.")))


def _is_photo(path: Path) -> bool:
    kind = _TYPES.guess_type(path.name, strict=False)[0]
    return kind is not None and kind.startswith("image/")


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _fixed_part(pattern: str) -> Path:
    """Return the folder before the first wildcard: ``scenes/*/rgb.png`` -> ``scenes``."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.escape(part) != part)
    return Path(*parts[:fixed])


def _names(roots: dict[Path, Path]) -> dict[Path, Path]:
    """Name each photo's folder: its path below its root without the extension, which is kept where two would clash.

    Names that differ only in case clash, because some file systems do not tell them apart.
    Raises: SettingsError when photos clash although the extensions are kept.
    """
    distinct = {photo.resolve(): photo for photo in reversed(roots)}.values()
    full = {photo: photo.relative_to(roots[photo]) for photo in roots if photo in distinct}
    names = {photo: name.with_suffix("") for photo, name in full.items()}
    while clashing := _clashing(names):
        if all(names[photo] == full[photo] for photo in clashing):
            raise SettingsError(
                f"{' and '.join(map(str, clashing[:2]))} would both be written to {names[clashing[0]]}; "
                "give the folder above them or a quoted glob, which keep sub-folders apart."
            )
        names.update({photo: full[photo] for photo in clashing})
    return names


def _clashing(names: dict[Path, Path]) -> list[Path]:
    counts = Counter(str(name).casefold() for name in names.values())
    return [photo for photo, name in names.items() if counts[str(name).casefold()] > 1]


def place(folder: Path, flat: bool) -> tuple[Path, str]:
    """Where the files of a result lie, and what their names begin with: in its folder or, flat, beside that."""
    return (folder.parent, f"{folder.name}_") if flat else (folder, "")


@contextmanager
def result_folder(folder: Path, within: Path, overwrite: bool, flat: bool = False) -> Generator[Path]:
    """Yield an empty folder to write to; on success its files appear in their ``place``, else they are removed.

    The remains of a run that was killed are cleared by the next one for the same photo.
    Raises: ExportError when ``folder`` holds files and ``overwrite`` is false, leaves ``within`` through a link, or
    cannot be written.
    """
    try:
        if not _within(folder, within):
            raise ExportError("Its output folder is a link that leads out of the output folder.")
        if flat and not overwrite and (taken := _taken(*place(folder, flat))):
            raise ExportError(f"{taken} exists already; --overwrite replaces it.")
        if not flat and not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder} exists already; --overwrite replaces what it holds.")
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}.") from error
    with atomic_folder(folder, move=partial(_publish, flat=flat)) as aside:
        yield aside


def _taken(home: Path, prefix: str) -> Path | None:
    """Find a file of a flat result that is there already."""
    from marigold_core.files.formats import FILES
    from marigold_core.files.writers import MANIFEST

    names = (MANIFEST, *(name for name, _ in FILES.values()))
    return next((path for name in names if os.path.lexists(path := home / f"{prefix}{name}")), None)


def _publish(aside: Path, folder: Path, flat: bool) -> None:
    """Rename a finished folder; flat or where there is one, let its files take the place of those it lists."""
    from marigold_core.files.writers import MANIFEST

    if not flat and (not folder.exists() or not any(folder.iterdir())):
        os.replace(aside, folder)
        return
    home, prefix = place(folder, flat)
    recorded, listed = _recorded(home, prefix), f"{prefix}{MANIFEST}"
    for name in (listed, *(recorded.files if recorded else ())):  # first the list: without it nothing is finished
        (home / name).unlink(missing_ok=True)
    for file in sorted(aside.iterdir(), key=lambda file: file.name == listed):
        os.replace(file, home / file.name)


# ------------------------------------------------------------------------------- what is there already


def is_done(folder: Path, pixels: np.ndarray, files: Iterable[str], *, flat: bool = False, **wanted: object) -> bool:
    """Return whether the ``place`` of a photo [H, W, 3] uint8 holds files whose manifest has the wanted values."""
    from marigold_core.files.manifest import sha256

    home, prefix = place(folder, flat)
    recorded = _recorded(home, prefix)
    return (
        recorded is not None
        and all(name in recorded.files and (home / name).is_file() for name in files)
        and all(getattr(recorded, name) == value for name, value in wanted.items())
        and recorded.how is None  # not the metres of an earlier calibration
        and recorded.photo.sha256 == sha256(pixels.tobytes())
    )


def _recorded(home: Path, prefix: str) -> "Manifest | None":
    """Read the manifest of a finished result; None where no run of ours finished."""
    from marigold_core.files.manifest import Manifest
    from marigold_core.files.writers import MANIFEST

    try:
        return Manifest.model_validate_json((home / f"{prefix}{MANIFEST}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
