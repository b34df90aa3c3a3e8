"""One file for all: the bytes of the unzipped files, the same archive every time, nothing half written."""

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from marigold_core.errors import ExportError
from marigold_core.files import archive
from tests.helpers.damage import DISK_FULL, failing


@pytest.fixture
def files(folder: Path) -> list[Path]:
    contents = {"depth.npy": bytes(3 * 2**20), "depth_color.png": os.urandom(5000), "manifest.json": b"{}\n"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_every_file_comes_out_as_it_went_in(files: list[Path], out: Path) -> None:
    archive.write(iter(files), out / "everything.zip")
    with ZipFile(out / "everything.zip") as bundle:
        assert bundle.testzip() is None
        assert bundle.namelist() == [file.name for file in files]  # the manifest last, as it was written
        assert all(bundle.read(file.name) == file.read_bytes() for file in files)
    assert (out / "everything.zip").stat().st_size < 20_000  # zeros are squeezed


def test_the_same_files_make_the_same_archive_at_any_time(files: list[Path], out: Path) -> None:
    archive.write(files, out / "a.zip")
    for file in files:
        os.utime(file, (1e9, 1e9))
        file.chmod(0o600)
    archive.write(files, out / "b.zip")
    assert (out / "a.zip").read_bytes() == (out / "b.zip").read_bytes()


def test_too_much_is_refused_before_anything_is_written(files, out, monkeypatch) -> None:
    monkeypatch.setattr(archive, "LIMIT_BYTES", 2**20)
    with pytest.raises(ExportError, match=r"everything\.zip holds up to .* take them one by one"):
        archive.write(files, out / "everything.zip")
    assert not out.exists()


def test_a_file_that_cannot_be_read_leaves_the_earlier_archive(files, out, monkeypatch) -> None:
    archive.write(files, out / "everything.zip")
    before = (out / "everything.zip").read_bytes()
    monkeypatch.setattr("shutil.copyfileobj", failing(DISK_FULL))
    with pytest.raises(ExportError, match="disk is full"):
        archive.write(files, out / "everything.zip")
    assert [file.name for file in out.iterdir()] == ["everything.zip"]
    assert (out / "everything.zip").read_bytes() == before


def test_memory_holds_a_piece_at_a_time(folder: Path, out: Path) -> None:
    import tracemalloc

    with (folder / "depth.npy").open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    archive.write([folder / "depth.npy"], out / "everything.zip")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 2**20
