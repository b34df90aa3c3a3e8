"""Where photos are and results go: paths of this machine, and addresses that fsspec knows, such as s3://bucket/photos.

An address is a ``UPath``: it has those methods of ``Path`` that are used of it, so it is one here by its type.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from glob import escape
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, cast

from marigold_core.errors import ExportError, ImageError, MarigoldError, SettingsError

EXTRA = "pip install 'marigold-depth-studio[cluster]'"
# What stores say of a file that is another one when its content is: name, time or checksum of a version.
_VERSION = ("size", "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "mtime")


def locate(word: str) -> Path:
    """Turn a word of the command line into a path, or an address where it holds "://".

    Raises: SettingsError when what such addresses need is not installed.
    """
    if "://" not in word:
        return Path(word)
    if find_spec("upath") is None:
        raise SettingsError(f"{word} is the address of a store, which needs an extra: {EXTRA}.")
    from upath import UPath

    with refused(SettingsError, f"{word} cannot be opened"):  # fsspec says "Install s3fs to access S3"
        address = UPath(word)
        _ = address.fs  # imports the library of the store, some of which connect at once
    return cast(Path, address)


def is_address(place: object) -> bool:
    """Tell an address from a path of this machine."""
    return not isinstance(place, Path)


def below(address: Path) -> Iterator[tuple[Path, Path, str]]:
    """List the files at an address: below a folder, of a glob, or the one -> file, folder above it, its version.

    Raises: ImageError when the store refuses.
    """
    store, top = _store(address), cast(Any, address).path
    with refused(ImageError, f"{address} cannot be listed"):
        root = PurePosixPath(top)
        if escape(top) != top:
            while escape(str(root)) != str(root):
                root = root.parent
            found = cast(Mapping[str, dict[str, Any]], store.glob(top, detail=True))
            files = {name: info for name, info in found.items() if info["type"] == "file"}
        elif store.isfile(top):
            root, files = root.parent, {top: store.info(top)}
        else:
            files = store.find(top, detail=True)
        base = address
        for _ in range(len(PurePosixPath(top).parts) - len(root.parts)):
            base = base.parent
        for name in sorted(files):
            inner = PurePosixPath(name).relative_to(root)
            yield base / str(inner), base, "|".join(str(files[name].get(key, "")) for key in _VERSION)


def relative(place: Path, folder: Path) -> Path:
    """Take the path of what is in a folder, relative to it."""
    if not is_address(place):
        return place.relative_to(folder)
    return Path(PurePosixPath(cast(Any, place).path).relative_to(cast(Any, folder).path))


def read(address: Path, most: int) -> bytes:
    """Read up to so many bytes of a file in a store. Raises: ImageError."""
    with refused(ImageError, "The photo cannot be read"), address.open("rb") as file:
        return file.read(most)


@contextmanager
def uploaded(home: Path, last: str, stale: list[str]) -> Generator[Path]:
    """Yield an empty folder of this machine; on success its files are written to the address ``home``.

    Args:
        home: the address of a folder.
        last: the file that is written last, so that where it is there all others are whole.
        stale: names of files of an older result, which are removed first, ``last`` before the others.

    Raises:
        ExportError: the store refuses.
    """
    with TemporaryDirectory(prefix="marigold-") as made:
        aside = Path(made)
        yield aside
        store = _store(home)
        with refused(ExportError, f"{home} cannot be written"):
            for name in sorted(stale, key=lambda name: name != last):
                (home / name).unlink(missing_ok=True)
            for file in sorted(aside.iterdir(), key=lambda file: file.name == last):
                put(store, file, cast(Any, home / file.name).path)


def put(store: Any, file: Path, target: str) -> None:
    """Write a file to a path of a store, making folders where those are needed, but no bucket of a mistyped name."""
    try:
        store.put_file(str(file), target)
    except FileNotFoundError:
        folder = PurePosixPath(target).parent
        if not store.exists(folder.parts[0]):
            raise
        store.makedirs(str(folder), exist_ok=True)
        store.put_file(str(file), target)


def _store(address: Path) -> Any:
    return cast(Any, address).fs


@contextmanager
def may_lack(place: Path) -> Generator[None]:
    """Pass over that something is not there or is damaged. Raises: ExportError where a store cannot be asked at all."""
    of_store = refused(ExportError, f"{place} cannot be read") if is_address(place) else nullcontext()
    with of_store, suppress(OSError, ValueError):
        yield


@contextmanager
def refused(kind: type[MarigoldError], what: str) -> Generator[None]:
    """Turn what a store raises into one sentence: each library has errors of its own, of no common class."""
    try:
        yield
    except MarigoldError:
        raise
    except Exception as error:
        raise kind(f"{what}: {str(error) or type(error).__name__}.") from error
