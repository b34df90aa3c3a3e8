"""The disk: where the bundled assets and the user's cache are, and files and folders that are complete or absent.

What is written is written aside in the same folder, flushed, then renamed.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from marigold_core.errors import ExportError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PACKAGE = Path(__file__).resolve().parent
# A wheel maps the assets into the package; in a checkout they lie beside it.
ASSETS = _PACKAGE / "assets" if (_PACKAGE / "assets").is_dir() else _PACKAGE.parent / "assets"

UNFINISHED = "marigold-unfinished"  # ending of the hidden names of what is not complete; nobody else has such names
LOCK = "marigold-lock"  # that of what is held

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LONGEST = 200  # bytes of a name that something is still added to; file systems end at 255
_FORBIDDEN = str.maketrans(dict.fromkeys([*map(chr, range(32)), *'<>:"|?*\\\x7f'], "_"))
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def cache_folder() -> Path:
    """Find our folder in the user's cache, ``$XDG_CACHE_HOME/marigold`` or ``~/.cache/marigold``; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marigold"


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a path beside ``path`` to write to; on success it takes the place of ``path``, else it is removed.

    Folders are made as needed. What a killed process left half-written is taken over by the next one that writes
    ``path``.

    Raises:
        ExportError: disk full, folder read-only, or any other refusal of the operating system.
    """
    with made(path.parent, path.name), _refusals(path.name):
        with _aside(path) as temporary:
            try:
                yield temporary
                sync(temporary)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def _aside(path: Path) -> Generator[Path]:
    """Yield the hidden file that becomes ``path``, held while it is written to.

    Where another process writes the same ``path``, or files cannot be held, it has a random name.
    """
    file, handle = unfinished(path), None
    with suppress(OSError):  # whatever refuses here refuses again where it is told
        handle = _hold(file)
    try:
        yield file if handle is not None else path.parent / f".{secrets.token_hex(8)}.{UNFINISHED}"
    finally:
        if handle is not None:
            os.close(handle)


def _hold(file: Path) -> int | None:
    """Make a file, or empty the one that is there, and lock it -> its handle. Raises: OSError."""
    if fcntl is None:
        return None
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), file.stat()):  # else another process has just finished it
            os.truncate(handle, 0)
            return handle
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def write_bytes(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a whole file at once, of content that may come in pieces.

    Raises:
        ExportError: as ``replacing``.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)


def refuse_existing(
    paths: Iterable[Path], overwrite: bool, advice: str = "allow overwriting or choose another folder"
) -> bool:
    """Tell whether any of the files is there, to be overwritten. Raises: ExportError where not, with the advice."""
    existing = next((path for path in paths if os.path.lexists(path)), None)
    if existing and not overwrite:
        raise ExportError(f"{existing.name} exists already; {advice}.")
    return existing is not None


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all.

    Raises:
        ExportError: as ``replacing``.
    """
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def atomic_folder(
    folder: Path,
    *,
    replace: bool = False,
    known: Callable[[str], bool] = lambda name: False,
    move: Callable[[Path, Path], None] | None = None,
) -> Generator[Path]:
    """Yield an empty folder to write to; on success it becomes ``folder``, else nothing is left of it.

    What a killed process left half-written is cleared by the next one. With ``replace`` an older ``folder`` makes way
    that holds nothing but files of the names of the new one and of ``known`` names, as "unet/config.json"; after a kill
    in that moment the next one puts it back first. ``move`` (from, to) brings the finished folder to its place in
    another way.

    Raises:
        ExportError: the disk refuses, or ``folder`` holds something that is not to be replaced, as the current folder.
    """
    if Path.cwd().is_relative_to(real_path(folder)):  # its place would be taken by another one
        raise ExportError(f"{folder} is or holds the current folder, which cannot be replaced: give another folder.")
    aside = unfinished(folder)
    with made(folder.parent, folder.name):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            older = _beside(folder, f"old.{UNFINISHED}")  # always whole: it is removed under the other name
            if older.exists():
                older.rename(aside if os.path.lexists(folder) else folder)
                shutil.rmtree(aside, ignore_errors=True)
            if not (replace or move):
                check_free(folder)
            aside.mkdir()
            yield aside
            for path in (*aside.rglob("*"), aside):
                sync(path)
            if move:
                move(aside, folder)
            else:
                if others := [name for name in not_in(aside, folder) if not known(name)]:
                    raise ExportError(f"{folder} holds {others[0]}, which would be deleted: move it away.")
                if replace and folder.exists():
                    folder.rename(older)
                aside.rename(folder)
                if older.exists():
                    older.rename(aside)
            sync(folder.parent)
        except (OSError, SafetensorError) as error:  # the latter is how weights say that the disk is full
            raise ExportError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def real_path(path: Path) -> Path:
    """Follow the links of a path as far as they lead anywhere; ``Path.resolve`` raises where they lead in a circle."""
    return Path(os.path.realpath(path))


def check_free(folder: Path) -> None:
    """Raise ExportError where a folder cannot be made because something is there; long work asks before it begins."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} holds something else already: move it away, or give another folder.")


def not_in(new: Path, old: Path) -> list[str]:
    """List the files and links below the folder ``old`` that are not in ``new``, by their paths in it."""
    files = (path for path in sorted(old.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [name for path in files if not os.path.lexists(new / (name := path.relative_to(old).as_posix()))]


def unfinished(folder: Path) -> Path:
    """Name the hidden file or folder that is written to before the result is ``folder``."""
    return _beside(folder, UNFINISHED)


def clear_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in ``folder``, not below it, of what has a ``name``, with wildcards."""
    for path in list(folder.glob(f".{name}.{UNFINISHED}")):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Generator[int]:
    """Hold ``path`` against other processes; yields 0 where another one holds it, unless that is to ``wait`` for.

    Else it yields how many have begun to hold it in a row, this one and those that ended without a word.

    The operating system frees what a process that was killed held. The hidden lock file is removed in the end, and of
    work that failed the folders that were made for it, where they are empty.

    Raises:
        ExportError: the folder of ``path`` cannot be made or written to.
    """
    file = _beside(path, LOCK)
    with made(path.parent, path.name):
        with _refusals(path.name):
            lock = FileLock(file)
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                lock = None
        begun = int(lock is not None)
        if lock is not None:
            with suppress(OSError), file.open("ab") as marks:
                marks.write(b".")
                begun = marks.tell()
        try:
            yield begun
        finally:
            if lock is not None:
                with suppress(OSError):  # before it is released: whoever waits finds its file gone, and makes one
                    file.unlink()
                lock.release()


@contextmanager
def made(folder: Path, name: str | None = None) -> Generator[None]:
    """Make a folder for some work; where that fails, it goes again with those above it that were made and are empty.

    ``name`` is what was not written where the folder cannot be made, by default the folder.

    Raises:
        ExportError: it cannot be made.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    with _refusals(name or folder.name):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # of the first that holds something
            for one in new:
                one.rmdir()
        raise


def ended(path: Path) -> int:
    """Count the processes in a row that ended, without a word, while they held ``path``; 0 while another one does."""
    file = _beside(path, LOCK)
    with suppress(OSError, Timeout):
        if file.exists():
            with FileLock(file).acquire(timeout=0):
                return file.stat().st_size
    return 0


def clear_claim(path: Path) -> None:
    """Remove the lock file that a killed process left of ``path``, unless another process holds it."""
    if _beside(path, LOCK).exists():
        with suppress(ExportError), claim(path):
            pass


def portable_name(name: str) -> str:
    """Change a file's name where Windows or a memory card would refuse it, or where it is no text; most stay."""
    plain = os.fsencode(name).decode("utf-8", "replace").replace("\ufffd", "_").translate(_FORBIDDEN)
    if plain[-1:] in (" ", "."):
        plain = f"{plain[:-1]}_"
    if plain.partition(".")[0].strip().upper() in _RESERVED:
        plain = f"_{plain}"
    return os.fsdecode(plain.encode())  # as this locale holds names


def _beside(path: Path, ending: str) -> Path:
    """Name a hidden helper of ``path``, in the same folder."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{ending}")


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        ExportError: the operating system refuses.
    """
    with _refusals(path.name):
        path.unlink(missing_ok=True)


@contextmanager
def _refusals(name: str) -> Generator[None]:
    """Turn what the operating system refuses into one sentence about the file ``name``, without its folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            text = f"The disk is full (or a size limit is reached): {name} was not written."
        elif error.errno in _REFUSED:
            text = f"The folder does not allow writing: {name} was not written."
        elif error.errno in _NO_FOLDER:
            text = f"{name} was not written: a file is where its folder should be."
        else:
            text = f"{name} was not written: {error.strerror or error}."
        raise ExportError(text) from error


def size_of(folder: Path) -> int:
    """Sum the bytes of the files below a folder, which others may write and remove meanwhile; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was renamed just now
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's list of names is on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # elsewhere a folder cannot be opened, and a rename is durable by itself
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(path: Path, target: Path) -> None:
    """Hard-link a file that is never written to again, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)  # the file itself: caches hold symbolic links
    except OSError:
        shutil.copyfile(path, target)
