"""All files of a result in one ZIP, with the very bytes that ``writers.save`` wrote.

The same files make the same archive: no times, no owners, no folders.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from marigold_core import storage
from marigold_core.errors import ExportError

LIMIT_BYTES = 2 * 10**9  # any program opens an archive below 2 GiB

_CHUNK_BYTES = 2**20
_COMPRESSED = (".png", ".exr", ".jpg", ".3mf")  # would not get smaller
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows
_UNIX, _READABLE = 3, 0o644 << 16


def write(files: Iterable[Path], archive: Path) -> None:
    """Write files, in their order and each under its own name, into a ZIP, holding a piece of one in memory at a time.

    Raises:
        ExportError: together they are larger than ``LIMIT_BYTES``, or the disk refuses.
    """
    files = list(files)
    total = sum(file.stat().st_size for file in files)
    if total > LIMIT_BYTES:
        raise ExportError(
            f"The files are {total / 1e9:.1f} GB together, and {archive.name} holds up to {LIMIT_BYTES / 1e9:.0f} GB;"
            " take them one by one."
        )
    with storage.replacing(archive) as temporary, ZipFile(temporary, "w") as bundle:
        for file in files:
            with file.open("rb") as content, bundle.open(entry(file.name), "w") as written:
                shutil.copyfileobj(content, written, _CHUNK_BYTES)


def entry(name: str) -> ZipInfo:
    """Describe a file of an archive by its name alone, the same on every system."""
    made = ZipInfo(name, _EPOCH)
    made.compress_type = ZIP_STORED if name.endswith(_COMPRESSED) else ZIP_DEFLATED
    made.create_system, made.external_attr = _UNIX, _READABLE
    return made
