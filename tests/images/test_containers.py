"""Camera RAW files and TIFF files with previews: the photo is never the preview."""

import struct
from collections.abc import Mapping

import numpy as np
import pytest

from marigold_core.errors import ImageError
from marigold_core.images.containers import identify
from marigold_core.images.photo import load_photo
from tests.helpers.encoded import encoded

WIDE, HIGH = 480, 320
CFA, RGB = 32803, 2


def shades(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 90 + 0 * x], axis=-1).astype(np.uint8)


def jpeg(width: int, height: int) -> bytes:
    return encoded(shades(width, height), "JPEG", quality=95)


class Tiff:
    """Writes TIFF directories anywhere in a file, as cameras do."""

    def __init__(self, order: str = "<", magic: bytes | None = None, big: bool = False) -> None:
        self.order, self.big = order, big
        head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
        self.body = bytearray((magic or head) + (struct.pack(f"{order}HHQ", 8, 0, 0) if big else bytes(4)))

    def put(self, content: bytes) -> int:
        self.body += bytes(len(self.body) % 2)
        self.body += content
        return len(self.body) - len(content)

    def directory(self, tags: Mapping[int, int | list[int] | bytes], after: int = 0) -> int:
        counter, wide, word = ("Q", 8, "Q") if self.big else ("H", 4, "I")
        entries = b""
        for tag, value in sorted(tags.items()):
            if isinstance(value, bytes):  # a short text
                entries += struct.pack(f"{self.order}HH{word}", tag, 2, len(value)) + value.ljust(wide, b"\0")
                continue
            values = value if isinstance(value, list) else [value]
            packed = struct.pack(f"{self.order}{len(values)}{word}", *values)
            place = packed if len(packed) <= wide else struct.pack(f"{self.order}{word}", self.put(packed))
            entries += struct.pack(f"{self.order}HH{word}", tag, 16 if self.big else 4, len(values)) + place
        return self.put(
            struct.pack(f"{self.order}{counter}", len(tags)) + entries + struct.pack(f"{self.order}{word}", after)
        )

    def picture(self, width: int, height: int, photometric: int = RGB, **more: int) -> dict[int, int | list[int]]:
        """Tags of uncompressed values: colours, or those of a sensor."""
        values = shades(width, height).tobytes() if photometric == RGB else bytes(width * height)
        planes = 3 if photometric == RGB else 1
        return {
            **{256: width, 257: height, 258: [8] * planes, 259: 1, 262: photometric, 273: self.put(values)},
            **{277: planes, 278: height, 279: len(values)},
            **{int(tag[1:]): value for tag, value in more.items()},
        }

    def file(self, first: int) -> bytes:
        place, form = (8, "Q") if self.big else (4, "I")
        struct.pack_into(f"{self.order}{form}", self.body, place, first)
        return bytes(self.body)


def raw(inside: bytes, *, order: str = "<", magic: bytes | None = None, tags: dict[int, int] | None = None) -> bytes:
    """A RAW file: a small preview first, the sensor's values in a directory below it, a JPEG somewhere."""
    tiff = Tiff(order, magic)
    sensor = tiff.directory(tiff.picture(WIDE + 8, HIGH + 6, CFA, t254=0))
    tiff.put(inside)
    return tiff.file(tiff.directory(tiff.picture(48, 32, t254=1) | {330: sensor} | (tags or {})))


def raf(inside: bytes, width: int, height: int) -> bytes:
    """Fujifilm: a header of its own with the place of the JPEG and a table of sizes."""
    table = struct.pack(">IHHHH", 1, 0x100, 4, height, width)
    head = b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(
        ">IIII", 112 + len(table), len(inside), 112, len(table)
    )
    return head.ljust(112, b"\0") + table + inside


def cr3(inside: bytes, width: int, height: int) -> bytes:
    """Canon: boxes of ISO media, one of which holds the first directory."""
    tiff = Tiff()
    boxed = tiff.file(tiff.directory({256: width, 257: height, 274: 6}))
    return b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + struct.pack(">I", 8 + len(boxed)) + b"CMT1" + boxed + inside


def rw2(inside: bytes) -> bytes:
    tiff = Tiff(magic=b"IIU\0")
    tiff.put(inside)
    return tiff.file(tiff.directory({2: WIDE, 3: HIGH}))


def cr2(inside: bytes) -> bytes:
    """Canon before CR3: a TIFF with a mark of its own; JPEGs in strips, and the sensor's values as lossless JPEG."""
    tiff = Tiff(magic=b"II*\0\x10\0\0\0CR\2\0")
    lossless = bytes.fromhex("ffd8ffc3000e0e0140009004010000000000") + bytes(2000)
    sensor = tiff.directory({259: 6, 273: tiff.put(lossless), 279: len(lossless)})
    small = jpeg(160, 120)
    thumbnail = tiff.directory({259: 6, 513: tiff.put(small), 514: len(small)}, after=sensor)
    tags: dict[int, int | list[int]] = {256: WIDE, 257: HIGH, 258: [8, 8, 8], 259: 6, 274: 1}
    return tiff.file(tiff.directory({**tags, 273: tiff.put(inside), 279: len(inside)}, after=thumbnail))


FULL, PREVIEW = jpeg(WIDE, HIGH), jpeg(240, 160)
RAW_FILES = {
    "dng": lambda inside: raw(inside, tags={50706: 0x401}),
    "nef": lambda inside: raw(inside, order=">"),
    "arw": raw,
    "orf": lambda inside: raw(inside, magic=b"IIRO"),
    "rw2": rw2,
    "raf": lambda inside: raf(inside, WIDE + 16, HIGH + 12),
    "cr2": cr2,
    "cr3": lambda inside: cr3(inside, WIDE, HIGH),
}


@pytest.mark.parametrize("kind", RAW_FILES)
def test_of_a_raw_file_the_full_size_jpeg_is_used_and_said(kind: str) -> None:
    photo = load_photo(RAW_FILES[kind](PREVIEW + FULL + PREVIEW))
    turned = kind == "cr3"
    assert photo.pixels.shape == ((WIDE, HIGH, 3) if turned else (HIGH, WIDE, 3))
    expected = np.rot90(shades(WIDE, HIGH), -1) if turned else shades(WIDE, HIGH)
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 4
    assert photo.note == f"Of the camera RAW file the embedded JPEG of {WIDE} x {HIGH} pixels was used."


@pytest.mark.parametrize("kind", RAW_FILES)
@pytest.mark.parametrize("inside", [PREVIEW, b""], ids=["preview", "nothing"])
def test_a_raw_file_with_previews_only_is_refused(kind: str, inside: bytes) -> None:
    with pytest.raises(ImageError, match=r"RAW file without a full-size JPEG.+export a JPEG or TIFF\.$"):
        load_photo(RAW_FILES[kind](inside))


@pytest.mark.parametrize(("planes", "width"), [(2, WIDE // 2), (3, WIDE)])  # columns in turn, or colours
def test_the_lossless_jpeg_of_a_cr2_states_the_size_of_the_sensor(planes: int, width: int) -> None:
    """Early ones hold a JPEG of half the size, which is all that their directories state."""
    lossless = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 8 + 3 * planes, 14, HIGH, width, planes) + bytes(2000)
    for inside in (PREVIEW, FULL):
        tiff = Tiff(magic=b"II*\0\x10\0\0\0CR\2\0")
        sensor = tiff.directory({259: 6, 273: tiff.put(lossless), 279: len(lossless)})
        tags: dict[int, int | list[int]] = {256: 240, 257: 160, 258: [8, 8, 8], 259: 6}
        data = tiff.file(tiff.directory({**tags, 273: tiff.put(inside), 279: len(inside)}, after=sensor))
        if inside == FULL:
            assert load_photo(data).pixels.shape == (HIGH, WIDE, 3)
        else:
            with pytest.raises(ImageError, match=f"only 240 x 160 pixels of {WIDE} x {HIGH}"):
                load_photo(data)


def test_orientation_and_focal_length_of_the_raw_file_hold_for_its_jpeg() -> None:
    tiff = Tiff()
    sensor = tiff.directory(tiff.picture(WIDE, HIGH, CFA, t254=0))
    lens = tiff.directory({0xA405: 35})
    tiff.put(FULL)
    first = tiff.picture(48, 32, t254=1, t274=8) | {330: sensor, 34665: lens}
    photo = load_photo(tiff.file(tiff.directory(first)))
    assert photo.pixels.shape == (WIDE, HIGH, 3)
    assert photo.fov_x_deg == pytest.approx(37.8, abs=0.1)  # 24 mm across at 35 mm


@pytest.mark.parametrize(("order", "space", "index"), [("<", 2, b""), (">", 0xFFFF, b"R03\0"), ("<", 1, b"R98\0")])
def test_adobe_rgb_in_a_raw_file_holds_for_its_jpeg(order: str, space: int, index: bytes) -> None:
    tiff = Tiff(order)
    sensor = tiff.directory(tiff.picture(WIDE, HIGH, CFA, t254=0))
    more = {0xA005: tiff.directory({1: index})} if index else {}
    shot = tiff.directory({0xA001: space} | more)
    tiff.put(FULL)
    photo = load_photo(tiff.file(tiff.directory(tiff.picture(48, 32, t254=1) | {330: sensor, 34665: shot})))
    assert ("states its colours as Adobe RGB, without a profile" in (photo.note or "")) == (space != 1)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])  # Pillow reads no fourth kind
@pytest.mark.parametrize("below", [True, False])
def test_a_preview_before_the_photo_of_a_tiff_is_passed_over(order: str, big: bool, below: bool) -> None:
    tiff = Tiff(order, big=big)
    photo = tiff.directory(tiff.picture(WIDE, HIGH, t254=0))
    preview = tiff.picture(48, 32, t254=1)
    first = tiff.directory(preview | {330: photo}) if below else tiff.directory(preview, after=photo)
    np.testing.assert_array_equal(load_photo(tiff.file(first)).pixels, shades(WIDE, HIGH))


@pytest.mark.parametrize(
    ("small", "which"), [((48, 32), "largest"), ((48, 40), "first"), ((WIDE - 9, HIGH - 6), "first")]
)
def test_of_pages_without_a_word_the_first_is_the_photo_unless_it_is_a_small_copy(
    small: tuple[int, int], which: str
) -> None:
    tiff = Tiff()
    photo = load_photo(tiff.file(tiff.directory(tiff.picture(*small), after=tiff.directory(tiff.picture(WIDE, HIGH)))))
    np.testing.assert_array_equal(photo.pixels, shades(*((WIDE, HIGH) if which == "largest" else small)))
    assert photo.note and f"the {which} one was used" in photo.note


def test_reduced_copies_behind_the_photo_change_nothing() -> None:
    tiff = Tiff()
    small = tiff.directory(tiff.picture(48, 32, t254=1))
    pixels = load_photo(tiff.file(tiff.directory(tiff.picture(WIDE, HIGH) | {330: small}))).pixels
    np.testing.assert_array_equal(pixels, shades(WIDE, HIGH))


def test_directories_in_a_circle_and_counts_that_lie_end() -> None:
    tiff = Tiff()
    first = tiff.directory(tiff.picture(48, 32, t254=1) | {330: [8] * 64}, after=8)
    content = bytearray(tiff.file(first))
    for at in range(8, len(content), 997):
        content[at] = 0xFF
        with np.errstate(all="ignore"):
            try:
                load_photo(bytes(content))
            except ImageError:
                continue
    with pytest.raises(ImageError):
        load_photo(b"FUJIFILMCCD-RAW" + b"\xff\xd8\xff" * 100_000)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video"),
        (b"a text", None),
        (b"", None),
    ],
)
def test_kinds_by_first_bytes(head: bytes, kind: str | None) -> None:
    assert identify(head) == kind
