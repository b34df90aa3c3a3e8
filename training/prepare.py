"""Prepares published data sets for training, ``python -m training.prepare hypersim RAW OUT``.

hypersim: HDF5 files become tone-mapped photos and maps of plane depth; OUT is then opened as ``hypersim:OUT``. Needs
RAW/metadata_images_split_scene_v1.csv. All pictures are written; listed are those that pass the filter of the authors
(prs-eth/Marigold, issue 158, 2025-08-16): little without geometry, and some range of depth and of colour. The authors'
own lists, ``filename_list_SPLIT_filtered.txt``, go before ours when they are put into OUT.

tar: archives in the layout of WebDataset, ``NAME.jpg`` with ``NAME.depth.png`` or ``NAME.depth.npy``, are unpacked into
a folder of ``pairs``. RAW holds the archives; each gets a folder of its own.

split: nothing is converted. Pictures of ``pairs`` or ``measured`` in RAW are divided into train.txt, val.txt and
test.txt in OUT, which is RAW; with ``--by folder`` all pictures of a sub-folder, a recording say, go into one of them.

vkitti: nothing is converted. RAW holds ``rgb/`` and ``depth/`` unpacked; all pairs are counted and listed.
"""

import csv
import hashlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
import tyro
from pydantic import Field

from marigold_core.errors import ExportError, MarigoldError
from marigold_core.settings import Frozen
from marigold_core.storage import atomic_folder, real_path, remove, replacing, write_bytes
from training.data.sets import recognise
from training.data.sets.files import AS_STORED, is_list
from training.data.sets.formats import (
    CAMERAS,
    DEPTH_ENDINGS,
    FORMATS,
    HYPERSIM_PX,
    PHOTO_ENDINGS,
    SCENE_PAIRS,
    VARIATIONS,
    VKITTI,
    search_pairs,
)
from training.data.sets.hypersim import COLUMNS, Picture, Row, convert, read_index
from training.engine.command import BAD_INPUT, run
from training.engine.progress import follow
from training.engine.workers import end_with_parent, locked, say_disk_need

PUBLISHED = {"train": 53_885, "val": 7_370, "test": 7_682}  # lines of the authors' lists for Hypersim
PAPER = "about 54,000 of 365 scenes"  # of Hypersim's training split, Ke et al. 2024, section 4.1
PICTURE_BYTES = HYPERSIM_PX[0] * HYPERSIM_PX[1] * (3 + 2)  # of colour and depth before PNG makes them smaller
SHOWN = 20  # faults that are printed


class Preparation(Frozen):
    """How to prepare."""

    workers: int = Field(default=os.cpu_count() or 1, ge=1, description="processes")
    verify: bool = Field(default=False, description="read everything again at the end")
    shares: tuple[float, ...] = Field(
        default=(0.8, 0.1, 0.1), min_length=3, max_length=3, description="split: of train, val and test"
    )
    by: Literal["picture", "folder"] = Field(default="picture", description="split: what is kept together")
    seed: int = Field(default=0, ge=0, description="split: which pictures go where is a function of it")
    # of Hypersim, as the authors filter it: prs-eth/Marigold, issue 158
    max_invalid: float = Field(
        default=0.03, ge=0, le=1, description="hypersim: list pictures with at most this share without geometry"
    )
    min_depth_range_m: float = Field(
        default=0.5, ge=0, description="hypersim: list pictures whose farthest depth is so much beyond their nearest"
    )
    min_rgb_range: float = Field(
        default=10, ge=0, le=255, description="hypersim: list pictures whose brightest value is so far from the darkest"
    )

    def lists(self, row: Row) -> bool:
        """Decide whether a picture is listed."""
        ranges = {name: float(row[f"{name}_max"]) - float(row[f"{name}_min"]) for name in ("depth", "rgb")}
        return (
            float(row["invalid_ratio"]) <= self.max_invalid
            and ranges["depth"] >= self.min_depth_range_m
            and ranges["rgb"] >= self.min_rgb_range
        )


Outcome = tuple[list[str], list[str]]  # faults, and the splits that were listed


def prepare_hypersim(raw: Path, out: Path, options: Preparation) -> Outcome:
    """Convert what is not there yet and list it.

    A picture is there when its two files are and ``filename_meta_SPLIT.csv`` has its row, so that a run that was
    stopped goes on. Raises: MarigoldError when ``raw`` has no index, ExportError when ``out`` cannot be written.
    """
    pictures = read_index(raw)
    splits = [split for split in PUBLISHED if any(picture.split == split for picture in pictures)]
    _check_lists(_list(out, split) for split in splits)
    rows = {split: _read_rows(_meta(out, split), out / split) for split in splits}
    missing = [picture for picture in pictures if picture.paths[0] not in rows[picture.split]]
    print(f"{len(pictures)} pictures in the index, {len(pictures) - len(missing)} done")
    size_bytes = len(missing) * PICTURE_BYTES
    say_disk_need(out, size_bytes, f"{len(missing):,} pictures need at most")
    faults = []
    for picture, found in _convert_all(missing, raw, out, options.workers):
        if isinstance(found, str):
            faults.append(found)
            continue
        try:
            with _meta(out, picture.split).open("a", newline="", encoding="utf-8") as file:  # kept if this is killed
                csv.DictWriter(file, COLUMNS).writerow(found)
        except OSError as error:
            raise ExportError(f"The table of pictures in {out} cannot be written: {error.strerror}.") from error
        rows[picture.split][picture.paths[0]] = found
    done = [split for split in rows if rows[split]]
    for split in done:
        _list_hypersim(out, split, [row for _, row in sorted(rows[split].items())], options)
    return faults, done


def _convert_all(
    pictures: Sequence[Picture], raw: Path, out: Path, workers: int
) -> Iterator[tuple[Picture, Row | str]]:
    """Yield every picture with its row or its fault, in order, as it is done."""
    work = partial(convert, raw=raw, out=out)
    if workers == 1 or not pictures:
        yield from ((picture, work(picture)) for picture in follow(pictures, len(pictures), "hypersim"))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
    try:
        results = zip(pictures, pool.map(work, pictures, chunksize=4), strict=True)
        yield from follow(results, len(pictures), "hypersim")
    finally:
        pool.shutdown(cancel_futures=True)


def _meta(out: Path, split: str) -> Path:
    return out / split / f"filename_meta_{split}.csv"


def _list(out: Path, split: str) -> Path:
    return out / split / f"filename_list_{split}.txt"


def _read_rows(path: Path, folder: Path) -> dict[str, Row]:
    """Read the rows of pictures that are there, by photo, and write the file anew with these alone.

    The last line of a run that was killed may be cut off: it does not count.
    Raises: MarigoldError for a table that this command did not write.
    """
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    if text and not f"{text}\n".startswith(",".join(COLUMNS)):
        raise MarigoldError(f"{path} is not a table of this command, which would replace it: give another OUT.")
    there = {}
    for stored in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        row = {name: stored.get(name) or "" for name in COLUMNS}
        if all(row.values()) and all((folder / row[name]).is_file() for name in ("rgb_path", "depth_path")):
            there[row["rgb_path"]] = row
    _write_rows(path, list(there.values()))
    return there


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _list_hypersim(out: Path, split: str, rows: Sequence[Row], options: Preparation) -> None:
    """Write the sorted rows and the list of complete pictures, and print the published numbers beside ours."""
    _write_rows(_meta(out, split), rows)
    complete = [row for row in rows if options.lists(row)]
    _write_list(_list(out, split), [(row["rgb_path"], row["depth_path"]) for row in complete])
    scenes = len({row["scene_name"] for row in complete})
    paper = f"; the paper: {PAPER}" if split == "train" else ""
    print(
        f"{split}: {len(rows)} pictures, {len(complete)} of {scenes} scenes listed (the authors list "
        f"{PUBLISHED[split]:,}{paper})"
    )


def prepare_vkitti(raw: Path, out: Path) -> Outcome:
    """Count the pairs of Virtual KITTI 2 and list them in ``out``, which is ``raw`` or gets links to it.

    Raises: MarigoldError when there is no pair at all, or ``out`` has other pictures; ExportError when it cannot be
    written.
    """
    faults = []
    found = {split: VKITTI.search(raw, split) for split in SCENE_PAIRS}
    if not any(found.values()):
        raise MarigoldError(f"{raw} holds no pictures of vkitti: {VKITTI.photo} with {VKITTI.depth[0]}.")
    for name in ("rgb", "depth"):
        if (out / name).exists() and real_path(out / name) != real_path(raw / name):
            raise MarigoldError(f"{out / name} is not that of {raw}, whose pictures would be listed: give another OUT.")
    lists = {split: out / f"vkitti_{split}.txt" for split in found}
    _check_lists(lists.values())
    for split, entries in found.items():
        whole = [entry for entry in entries if all((raw / path).is_file() for path in entry)]
        faults += [f"{raw / path} is missing." for entry in entries for path in entry if not (raw / path).is_file()]
        counts = Counter(tuple(entry[0].split("/")[1:3]) for entry in whole)
        print(f"{split}: {len(whole):,} of {sum(SCENE_PAIRS[split].values()):,} pairs")
        for scene, pairs in SCENE_PAIRS[split].items():
            for variation in VARIATIONS:
                if counts[scene, variation] != pairs // len(VARIATIONS):
                    there = f"{counts[scene, variation]} pairs of {pairs // len(VARIATIONS)}"
                    faults.append(f"{scene}/{variation} has {there} ({' and '.join(CAMERAS)} together).")
        _write_list(lists[split], whole)
    if real_path(out) != real_path(raw):
        for name in ("rgb", "depth"):
            if not (out / name).exists():
                try:
                    (out / name).symlink_to((raw / name).resolve(), target_is_directory=True)
                except OSError as error:  # a disk, or a Windows account, without links
                    raise ExportError(f"{out} cannot link to {raw}: {error.strerror}; give {raw} twice.") from error
    return faults, [split for split in found if found[split]]


def unpack_archives(raw: Path, out: Path) -> None:
    """Unpack the photos and depth maps of all archives ``*.tar`` of a folder, those that are there whole excepted.

    Raises: MarigoldError when there is no archive, one is damaged or would write elsewhere; ExportError when ``out``
    cannot be written.
    """
    archives = sorted(raw.glob("*.tar"))
    if not archives:
        raise MarigoldError(f"{raw} holds no archive *.tar.")
    for path in follow(archives, len(archives), "tar", "archive"):
        target = out / path.stem
        if target.exists():
            continue
        try:
            with atomic_folder(target) as aside, tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.name.lower().endswith((*PHOTO_ENDINGS, *DEPTH_ENDINGS)):
                        file = (aside / member.name).resolve()
                        if not file.is_relative_to(aside.resolve()):  # extract's own filter came with Python 3.11.4
                            raise tarfile.ReadError(f"{member.name} lies outside of it")
                        file.parent.mkdir(parents=True, exist_ok=True)
                        with cast(IO[bytes], archive.extractfile(member)) as content, file.open("wb") as kept:
                            shutil.copyfileobj(content, kept)
        except (tarfile.TarError, EOFError) as error:
            raise MarigoldError(f"{path} cannot be unpacked: {error}.") from None
    print(f"{len(search_pairs(out)):,} pictures in {len(archives)} archives: give pairs:{out}")


def split_own(raw: Path, out: Path, options: Preparation) -> None:
    """Divide a folder of pairs or measured pictures into lists that ``open_set`` reads.

    A picture's or sub-folder's place depends on its name and the seed, so pictures that are added later move no others.
    Raises: MarigoldError for another kind of folder, for shares that are no shares, and when a list would be empty.
    """
    if real_path(raw) != real_path(out):
        raise MarigoldError(f"The lists of a split lie beside its pictures: give {raw} twice.")
    if min(options.shares) < 0 or not sum(options.shares):
        raise MarigoldError(f"shares must be three numbers of 0 or more, but got {options.shares}.")
    form = FORMATS.get(recognise(raw))
    if form is None or not form.own:
        raise MarigoldError(f"{raw} holds rendered pictures: render a set of its own with another seed instead.")
    lists = {split: raw / names[0] for split, names in form.lists.items()}
    _check_lists(lists.values(), "\t")
    limits = np.cumsum(options.shares) / sum(options.shares)
    found: dict[str, list[Sequence[str]]] = {split: [] for split in form.lists}
    for entry in form.search(raw, ""):
        if any(mark in path for path in entry for mark in "\t\n\r"):
            raise MarigoldError(f"{entry[0]!r} has a tab or a line break, which no list can hold: rename it.")
        kept = entry[0] if options.by == "picture" else Path(entry[0]).parent.as_posix()
        digest = hashlib.sha256(f"{options.seed} {kept}".encode(errors=AS_STORED)).hexdigest()
        place = int(digest, 16) / 2**256  # even for alike names
        found[[*found][int(np.searchsorted(limits, place, side="right"))]].append(entry)
    for split, share in zip(found, options.shares, strict=True):
        if share and not found[split]:
            raise MarigoldError(f"No picture of {raw} falls to {split}: give it a larger share, another seed, or 0.")
    for split, entries in found.items():
        print(f"{split}: {len(entries):,} pictures")
        if entries:
            _write_list(lists[split], entries, "\t")
        else:  # an older one would hold pictures of the other splits
            remove(lists[split])


def _check_lists(paths: Iterable[Path], between: str = " ") -> None:
    """Check that what is in the place of lists are lists. Raises: MarigoldError."""
    for path in paths:
        if path.exists() and not (path.is_file() and is_list(path, between)):
            raise MarigoldError(f"{path} is no list of this command, which would replace it: move it away.")


def _write_list(path: Path, entries: Sequence[Sequence[str]], between: str = " ") -> None:
    write_bytes(path, "".join(f"{between.join(entry)}\n" for entry in entries).encode(errors=AS_STORED))


def main(
    data: tyro.conf.Positional[Literal["hypersim", "vkitti", "tar", "split"]],
    raw: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    options: Preparation,
) -> int:
    """Prepare a data set for training; the same command goes on where it was stopped.

    Args:
        data: which data set.
        raw: folder with the data set as it is published.
        out: folder for what training reads; for vkitti it may be the same, for split it is.
        options: how to prepare.
    """
    if not raw.is_dir():
        raise MarigoldError(f"There is no folder {raw}.")
    faults: list[str] = []
    splits: list[str] = []
    with locked(out, within=[f"{split}{below}" for split in PUBLISHED for below in ("", "/*")]):
        match data:
            case "hypersim":
                faults, splits = prepare_hypersim(raw, out, options)
            case "vkitti":
                faults, splits = prepare_vkitti(raw, out)
            case "tar":
                unpack_archives(raw, out)
            case "split":
                split_own(raw, out, options)
    if options.verify:
        from training.doctor import examine

        for report in (examine(f"{data}/{split}:{out}", workers=options.workers) for split in splits):
            print(report)
            faults += [f"{fault.where}: {fault.what}" for fault in report.faults]
    for fault in faults[:SHOWN]:
        print(fault)
    if len(faults) > SHOWN:
        write_bytes(out / "faults.txt", "\n".join([*faults, ""]).encode())
        print(f"and {len(faults) - SHOWN} more: see {out / 'faults.txt'}")
    print(f"{len(faults)} faults" if faults else "no faults")
    return BAD_INPUT if faults else 0


if __name__ == "__main__":
    run(main, "python -m training.prepare")
