"""Which photos a command line names, and which folder the files of each go to.

No two photos share a folder, no folder lies outside the output folder, and what a folder holds appears all at
once: it is written aside and renamed, so that a run that was killed leaves nothing that looks finished.
"""

import glob
import mimetypes
import os
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import numpy as np

from marigold_core.cli import locations
from marigold_core.cli.locations import is_address
from marigold_core.errors import ExportError, ImageError, MarigoldError, SettingsError
from marigold_core.files import MANIFEST
from marigold_core.images import containers
from marigold_core.storage import atomic_folder, claim, portable_name, real_path, unfinished

if TYPE_CHECKING:
    from marigold_core.files.manifest import Manifest
    from marigold_core.images.photo import Photo

STDIN = Path("-")
SAME_FOLDER = "The output folder {word} is also the input folder; give another with -o."
_TYPES = mimetypes.MimeTypes()  # the built-in table, not the machine's
_PHOTOS = {f"image/{kind.lower()}" for kind in (*containers.READABLE, "HEIF")}  # that names are taken for


@dataclass(frozen=True)
class Job:
    """A photo and the folder of its own that its files go to."""

    photo: Path
    folder: Path
    version: str | None = None  # of a photo in a store: another one when the file is

    def load(self) -> "Photo":
        """Decode the photo. Raises: ImageError."""
        from marigold_core.images.photo import MAX_BYTES, load_photo

        if is_address(self.photo):
            return load_photo(locations.read(self.photo, MAX_BYTES + 1))
        return load_photo(sys.stdin.buffer.read(MAX_BYTES + 1) if self.photo == STDIN else self.photo)


@dataclass
class Found:
    """The jobs that a command line names, in order, and paths that cannot be jobs, with the reason.

    What was left out of a search is no failure: files that are not photos, and hidden ones.
    """

    jobs: list[Job] = field(default_factory=list[Job])
    refused: list[tuple[Path, MarigoldError]] = field(default_factory=list[tuple[Path, MarigoldError]])
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict[str, list[Path]](list))  # by reason


def find_jobs(words: Sequence[str], out: Path) -> Found:
    """Turn photos, folders (with sub-folders, which are kept below ``out``) and globs into jobs.

    The words and ``out`` may be addresses. Raises: SettingsError when the words name no photo, or ``out`` is one of the
    folders or cannot be written to; ImageError when a store refuses.
    """
    if not words:
        raise SettingsError("Name a photo, a folder of photos or a quoted glob.")
    found = Found()
    roots: dict[Path, Path] = {}  # photo -> the folder its name is relative to
    versions: dict[Path, str] = {}
    for word in words:
        path = locations.locate(word)
        if is_address(path):
            if str(path) == str(out):
                raise SettingsError(SAME_FOLDER.format(word=word))
            stored = {file: (root, version) for file, root, version in locations.below(path) if not _within(file, out)}
            shown = [file for file, (root, _) in stored.items() if not _hidden(file, root, found)]
            for file in _photos(shown, found):
                roots[file], versions[file] = stored[file]
        elif path == STDIN:
            if not (stdin := cast("TextIO | None", sys.stdin)) or stdin.isatty():
                raise SettingsError('"-" reads the photo from the standard input: marigold-depth predict - < photo.jpg')
            roots[STDIN] = Path()
        elif os.path.isdir(path):
            if _resolved(path) == _resolved(out):
                raise SettingsError(SAME_FOLDER.format(word=word))
            roots.update(dict.fromkeys(_walk(path, out, found), path))
        elif not os.path.lexists(path) and glob.escape(word) != word:
            matches = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
            files = [match for match in matches if os.path.isfile(match) and not _within(match, out)]
            roots.update(dict.fromkeys(_photos(files, found), _fixed_part(word)))
        elif os.path.lexists(path):
            roots[path] = path.parent
        else:
            found.refused.append((path, ImageError("There is no such file.")))
    if not roots and not found.refused:
        left_out = "".join(f"; left out: {line}" for line in describe_left_out(found))
        raise SettingsError(f"There is no photo in {', '.join(words)}{left_out}.")
    found.jobs = [Job(photo, out / str(name), versions.get(photo)) for photo, name in _names(roots).items()]
    if not is_address(out):
        check_output(out)
    return found


def check_output(out: Path) -> None:
    """Check that an output folder is there or can be made; it is made with the first result.

    Raises: SettingsError.
    """
    at = next(at for at in (out, *out.absolute().parents) if os.path.lexists(at))
    if not at.is_dir():
        raise SettingsError(f"The output folder {out} cannot be made: {at} is no folder.")
    if not os.access(at, os.W_OK):
        raise SettingsError(f"The output folder {out} does not allow writing.")


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
    if not _within(job.folder, out):
        raise ExportError(f"{job.folder} is a link that leads out of the output folder.")
    return job


def _walk(root: Path, out: Path, found: Found) -> Iterator[Path]:
    """Yield the photos below a folder in order; links that leave it are refused, not followed."""
    inside = _resolved(root)

    def unreadable(error: OSError) -> None:
        reason = ImageError(f"The folder cannot be opened: {error.strerror}.")
        found.refused.append((Path(os.fsdecode(error.filename or root)), reason))

    for parent, folders, files in os.walk(root, onerror=unreadable):
        here = Path(parent)
        for name in sorted(folders):
            if (here / name).is_symlink():
                found.refused.append((here / name, ImageError("A link to a folder is not followed.")))
        found.left_out["hidden"] += [here / name for name in sorted((*folders, *files)) if name[0] == "."]
        folders[:] = sorted(name for name in folders if name[0] != "." and not _within(here / name, out))
        for path in _photos([here / name for name in sorted(files) if name[0] != "."], found):
            if _resolved(path).is_relative_to(inside):
                yield path
            else:
                found.refused.append((path, ImageError("The link leads out of the input folder.")))


def _photos(files: Iterable[Path], found: Found) -> Iterator[Path]:
    """Yield the files that are photos by their name or their first bytes; say why the others are left out."""
    for path in files:
        kind, packed = _TYPES.guess_type(path.name, strict=False)
        reason = None if kind in _PHOTOS and not packed else _no_photo(path)
        if reason is None:
            yield path
        else:
            found.left_out[reason].append(path)


def _hidden(file: Path, root: Path, found: Found) -> bool:
    """Tell whether a file of a store, or a folder on the way to it, is hidden; those are noted as left out."""
    hidden = any(part[0] == "." for part in locations.relative(file, root).parts)
    if hidden:
        found.left_out["hidden"].append(file)
    return hidden


def _no_photo(path: Path) -> str | None:
    """Tell why the content of a file is no photo; None where it is one."""
    if not is_address(path) and not os.path.isfile(path):
        return "not a file"
    try:
        if is_address(path):
            kind = containers.identify(locations.read(path, containers.HEAD_BYTES))
        else:
            with path.open("rb") as file:
                kind = containers.identify(file.read(containers.HEAD_BYTES))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if kind in containers.READABLE else kind or "not a photo"


def describe_left_out(found: Found, most: int = 5) -> Iterator[str]:
    """Describe what a search left out, a line for each reason, with the first few names."""
    for reason, paths in found.left_out.items():
        if paths:
            more = f" and {len(paths) - most} more" if len(paths) > most else ""
            yield f"{reason}: {', '.join(str(path) for path in paths[:most])}{more}"


def _within(path: Path, folder: Path) -> bool:
    if is_address(path) or is_address(folder):
        return f"{path}/".startswith(f"{str(folder).rstrip('/')}/")
    return _resolved(path).is_relative_to(_resolved(folder))


def _resolved(path: Path) -> Path:
    """Follow the links of a path; an address has none."""
    return path if is_address(path) else real_path(path)


def _fixed_part(pattern: str) -> Path:
    """Return the folder before the first wildcard: ``scenes/*/rgb.png`` -> ``scenes``."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.escape(part) != part)
    return Path(*parts[:fixed])


def _names(roots: dict[Path, Path]) -> dict[Path, Path]:
    """Name each photo's folder: its path below its root without the extension, which is kept where two would clash.

    Names that differ only in case or in how an accent is written clash, because some file systems do not tell them
    apart; the later ones are numbered. Raises: SettingsError when photos of one name from two folders clash.
    """
    distinct = {_resolved(photo) if photo != STDIN else photo: photo for photo in reversed(roots)}.values()
    given = {photo: locations.relative(photo, roots[photo]) for photo in roots if photo in distinct}
    if STDIN in given:
        given[STDIN] = Path("stdin")
    full = {photo: _portable(name) for photo, name in given.items()}
    names = {photo: _portable(name.with_suffix("")) for photo, name in given.items()}
    while clashing := _clashing(names):
        for photos in clashing:
            if any(names[photo] != full[photo] for photo in photos):
                names.update({photo: full[photo] for photo in photos})
            elif len({given[photo] for photo in photos}) == len(photos):
                for number, photo in enumerate(photos[1:], 2):
                    names[photo] = full[photo] = full[photo].with_name(f"{full[photo].name}-{number}")
            else:
                raise SettingsError(
                    f"{' and '.join(map(str, photos[:2]))} would both be written to {names[photos[0]]}; "
                    "give the folder above them or a quoted glob, which keep sub-folders apart."
                )
    return names


def _portable(name: Path) -> Path:
    return Path(*map(portable_name, name.parts))


def _clashing(names: dict[Path, Path]) -> list[list[Path]]:
    """Group the photos whose names clash."""
    groups = defaultdict[str, list[Path]](list)
    for photo, name in names.items():
        groups[unicodedata.normalize("NFC", str(name)).casefold()].append(photo)
    return [photos for photos in groups.values() if len(photos) > 1]


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Hold a folder against other processes. Raises: ExportError when one is writing to it."""
    with claim(folder) as ours:
        if not ours:
            raise ExportError(f"Another process is writing to {folder}; wait for it, or give another output folder.")
        yield


def place(folder: Path, flat: bool) -> tuple[Path, str]:
    """Where the files of a result lie, and what their names begin with: in its folder or, flat, beside that."""
    return (folder.parent, f"{folder.name}_") if flat else (folder, "")


def described(folder: Path, flat: bool) -> str:
    """Say where the files of a result are: their folder, or flat what their names begin with."""
    return f"{folder}_*" if flat else str(folder)


@contextmanager
def result_folder(folder: Path, within: Path, overwrite: bool, flat: bool = False) -> Generator[Path]:
    """Yield an empty folder to write to; on success its files appear in their ``place``, else they are removed.

    The caller holds ``folder`` by a claim. The remains of a run that was killed are cleared by the next one for the
    same photo. In a store, which has no claims and renames nothing, the manifest is written last, and files without one
    are such remains.
    Raises: ExportError when ``folder`` holds files and ``overwrite`` is false, leaves ``within`` through a link, or
    cannot be written.
    """
    if is_address(folder):
        home, prefix = place(folder, flat)
        if (older := _recorded(home, prefix)) and not overwrite:
            raise ExportError(f"{folder} exists already; --overwrite replaces what it holds.")
        last = f"{prefix}{MANIFEST}"
        with locations.uploaded(home, last, [last, *older.files] if older else []) as aside:
            yield aside
        return
    end_publishing(folder, flat)
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


def end_publishing(folder: Path, flat: bool) -> None:
    """Bring the rest of a result to its place whose files were on their way when their process was killed."""
    if is_address(folder):
        return
    (home, prefix), aside = place(folder, flat), unfinished(folder)
    recorded = _recorded(aside, prefix)  # the list is written last and moved last
    begun = recorded and any(not (aside / name).exists() and (home / name).exists() for name in recorded.files)
    if begun:
        _publish(aside, folder, flat)


def _taken(home: Path, prefix: str) -> Path | None:
    """Find a file of a flat result that is there already."""
    from marigold_core.files.formats import FILES

    names = (MANIFEST, *(name for name, _ in FILES.values()))
    return next((path for name in names if os.path.lexists(path := home / f"{prefix}{name}")), None)


def _publish(aside: Path, folder: Path, flat: bool) -> None:
    """Rename a finished folder; flat or where there is one, let its files take the place of those it lists."""
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


def finished_since(folder: Path, moment: float, flat: bool) -> bool:
    """Return whether the result of ``folder`` was finished after a moment, in seconds as of ``time.time``."""
    home, prefix = place(folder, flat)
    with locations.may_lack(home):
        return (home / f"{prefix}{MANIFEST}").stat().st_mtime > moment
    return False


def is_done(folder: Path, pixels: np.ndarray, files: Iterable[str], *, flat: bool = False, **wanted: object) -> bool:
    """Return whether the ``place`` of a photo [H, W, 3] uint8 holds files whose manifest has the wanted values."""
    from marigold_core.files.manifest import sha256

    home, prefix = place(folder, flat)
    recorded = _recorded(home, prefix)
    return (
        recorded is not None
        and all(name in recorded.left_out or (name in recorded.files and (home / name).is_file()) for name in files)
        and all(getattr(recorded, name) == value for name, value in wanted.items())
        and recorded.how is None  # not the metres of an earlier calibration
        and recorded.photo.sha256 == sha256(pixels.tobytes())
    )


def _recorded(home: Path, prefix: str) -> "Manifest | None":
    """Read the manifest of a finished result; None where no run of ours finished."""
    from marigold_core.files.manifest import Manifest

    with locations.may_lack(home):
        return Manifest.model_validate_json((home / f"{prefix}{MANIFEST}").read_text(encoding="utf-8"))
    return None
