"""What kind of file this is by its first bytes, and where the photo lies in files that hold several pictures.

Camera RAW files hold previews beside the values of the sensor, which nothing here develops: the largest JPEG in them is
the photo if it is as large as the sensor's picture. TIFF files may begin with a preview as well.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import pi_heif  # pyright: ignore[reportMissingTypeStubs]
from PIL.JpegImagePlugin import JpegImageFile

from marigold_core.errors import ImageError
from marigold_core.images.bitstreams import CodedColours, av1_colours, hevc_colours

HEAD_BYTES = 256  # of a file, enough for ``identify``

_BRANDS = {  # of ISO media files
    "HEIC": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"},
    "AVIF": {b"avif", b"avis"},
    "RAW": {b"crx "},
}
_SIGNATURES = (  # offset, bytes, what it is
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (8, b"CR\2\0", "RAW"),  # Canon's CR2, whose directories do not say that they hold values of a sensor
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"),
    (0, b"FUJIFILMCCD-RAW", "RAW"),
    (0, b"IIRO", "RAW"),
    (0, b"IIRS", "RAW"),
    (0, b"MMOR", "RAW"),
    (0, b"IIU\0", "RAW"),
    (6, b"HEAPCCDR", "RAW"),
    (0, b"FOVb", "RAW"),
    (0, b"\0MRM", "RAW"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (4, b"ftyp", "a video"),
    (0, b"BM", "BMP"),
)
READABLE = {"JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "HEIC", "AVIF", "RAW"}

SEVERAL = "The file holds several pictures, such as frames, pages or views: the {which} one was used."
_DAMAGED = "The photo is damaged: its list of contents does not fit together."
_FULL_SIZE = 0.8  # of the sensor's edge: JPEGs of cameras leave out its rim, half-size previews have less
_UNKNOWN_PX = 2_000_000  # a photo, not a preview, where the size of the sensor is not stated
_MOST_PICTURES = 64  # in one file
_BOXES_BYTES = 1 << 20  # before the pictures of a CR3
_MOST_MARKERS = 2_000  # chance makes a few in the values of a sensor
_SENSOR = {32803, 34892}  # photometric interpretations: colour filter array, linear raw
_DECODABLE = {0, 1, 2, 3, 5, 6, 8}  # photometric interpretations that Pillow reads
_SENSOR_CODING = {32767, 34713, 65535}  # compressions of Sony, Nikon and Pentax
_OLD_JPEG = 6  # a compression that Pillow reads no page of
_LOSSLESS = 0xC3  # the marker of a JPEG that holds values of a sensor
_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUB_IFDS = 254, 256, 257, 259, 262, 330
_EXIF, _INTEROP, _INTEROP_INDEX, _DNG = 34665, 40965, 1, 50706
_PLACES = (_SUB_IFDS, _EXIF, _INTEROP)  # tags that say where other directories are
_R03 = tuple(b"R03\0")  # the index of what is in Adobe RGB. Source: Exif 3.0 (DCF)
_IDENTITY, _YCGCO, _DERIVED = 0, 8, 12  # matrix coefficients that are read in some files only
_MATRICES = {1, 2, 4, 5, 6, 7, 9}  # that are read in all; 2 says nothing
_BMP_HEADER, _BMP_V5 = 14, struct.pack("<I", 124)  # where it begins; the length of the longest
_MP_ENTRIES = 0xB002  # in the index of a JPEG's pictures
_DESCRIBES = (b"hdrgm", b"AuxiliaryImageType", b'Semantic="Depth')  # in the XMP of such pictures
ORIENTATION, FOCAL_35MM, COLOUR_SPACE = 274, 0xA405, 0xA001
ADOBE_RGB = 2  # a value of the last, which cameras write beside that index or in its place


def identify(head: bytes) -> str | None:
    """Tell what a file is by its first ``HEAD_BYTES`` -> one of ``READABLE``, other words, or None if unknown."""
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), HEAD_BYTES)
        found = {head[i : i + 4] for i in range(8, end, 4) if i != 12}  # 12 holds the minor version
        for kind in ("AVIF", "HEIC", "RAW"):  # an AVIF file may name the general brand mif1 as well
            if found & _BRANDS[kind]:
                return kind
    kind = next((kind for at, bytes_, kind in _SIGNATURES if head.startswith(bytes_, at)), None)
    return None if kind == "BMP" and any(head[6:10]) else kind  # a text may begin with BM


@dataclass(frozen=True)
class Inner:
    """A picture within a file."""

    at: int  # where it begins: a JPEG, or the directory of a TIFF page
    size: tuple[int, int]  # width, height
    form: str  # as Pillow calls it
    tags: dict[int, int] = field(default_factory=dict[int, int])  # orientation and focal length where the file says so
    note: str | None = None

    def cut(self, data: bytes) -> bytes:
        """Make a file whose first picture it is."""
        if self.form == "JPEG":
            return data[self.at :]
        order: Literal["big", "little"] = "big" if data[:2] == b"MM" else "little"
        if data[2:4] in (b"+\0", b"\0+"):
            return data[:8] + self.at.to_bytes(8, order) + data[16:]
        return (b"MM\0*" if order == "big" else b"II*\0") + self.at.to_bytes(4, order) + data[8:]


def find_photo(data: bytes, kind: str) -> Inner | None:
    """Find the photo in a RAW or TIFF file -> where it is; None where the file's first picture is the photo.

    Raises:
        ImageError: a RAW file that holds previews only.
    """
    tiff = _Tiff(data)
    directories = tiff.directories()
    is_raw = kind == "RAW" or any(
        _DNG in one or one.get(_PHOTOMETRIC, (0,))[0] in _SENSOR or one.get(_COMPRESSION, (1,))[0] in _SENSOR_CODING
        for one in directories
    )
    pages = [page for one in directories if (page := tiff.page(one))]
    if not is_raw:
        first = directories[0] if directories else {}
        is_told = first.get(_SUBFILE, (0,))[0] & 1 or _SUB_IFDS in first  # that it is a preview
        width, height = _size(first)
        pages = [one for one in pages if _area(one) > width * height]
        largest = max(
            (one for one in pages if is_told or is_preview((width, height), one.size)), key=_area, default=None
        )
        if largest is None:
            return None
        return replace(largest, tags=tiff.tags(directories), note=None if is_told else SEVERAL.format(which="largest"))
    best = max([*pages, *_jpegs(data)], key=lambda one: (_area(one), one.form == "JPEG"), default=None)
    width, height = _sensor_size(data, directories)
    full = best and (max(best.size) >= _FULL_SIZE * max(width, height) if width else _area(best) >= _UNKNOWN_PX)
    if best is None or not full:
        has = f"its preview has only {best.size[0]} x {best.size[1]} pixels" if best else "it has no preview"
        of = f" of {width} x {height}" if best and width else ""
        raise ImageError(
            f"This is a camera RAW file without a full-size JPEG in it ({has}{of});"
            " develop it and export a JPEG or TIFF."
        )
    what = "JPEG" if best.form == "JPEG" else "picture"
    note = f"Of the camera RAW file the embedded {what} of {best.size[0]} x {best.size[1]} pixels was used."
    return replace(best, tags=tiff.tags(directories), note=note)


def is_preview(size: tuple[int, int], of: tuple[int, int]) -> bool:
    """Whether a picture may be another one in small, by width and height: scanned pages differ less in size."""
    (width, height), (wide, high) = size, of
    return 1.2 * width <= wide and abs(high * width - height * wide) <= max(wide, high)  # a pixel, by rounding


def with_usual_matrix(data: bytes, kind: str) -> tuple[bytes, str | None]:
    """Content of a HEIC or AVIF file -> the same, and a note where its colours are coded as its decoder does not read.

    Decoders refuse such matrices, and are given the usual one of BT.2020 or BT.709 instead.
    Source: ITU-T H.273, MatrixCoefficients; what libheif 1.23 and libavif 1.4 make of each was tried.
    """
    note, is_deep = None, False
    boxes = [*_inside(data, 0, len(data))]
    if kind == "HEIC":
        is_deep = any(bits > 8 for name, (begin, end) in boxes if name == b"pixi" for bits in data[begin + 5 : end])
    stated: list[tuple[CodedColours, int | None]] = [
        (CodedColours(*struct.unpack_from(">HHH", data, begin + 4), bool(data[begin + 10] & 128)), begin + 8)
        for name, (begin, end) in boxes
        if name == b"colr" and data[begin : begin + 4] == b"nclx" and end - begin >= 11
    ]
    for colours, at in stated or [(_stream_colours(data, boxes), None)]:
        is_read = {_IDENTITY: colours.is_full or kind == "AVIF", _YCGCO: colours.is_full and not is_deep}
        if colours.matrix in _MATRICES or (is_read | {_DERIVED: at is not None or kind == "AVIF"}).get(colours.matrix):
            continue
        note = (
            f"The file codes its colours by matrix {colours.matrix} of ITU-T H.273, which is not read, so that its hues"
            " may be wrong; export it as PNG or JPEG for right ones."
        )
        if at and (kind == "AVIF" or colours.matrix not in is_read):  # those are decoded, in a wrong range
            data = data[:at] + (9 if colours.primaries == 9 else 1).to_bytes(2, "big") + data[at + 2 :]
    return data, note


def open_heif(data: bytes) -> Any:
    """Open a HEIC file, whose pictures are decoded when they are asked for.

    libheif's binding takes for granted that an item that is referred to has a type, and that names are text; where they
    are not it ends the process. So that is looked up first.

    Raises: ImageError.
    """
    described, referred = set[int](), set[int]()
    try:
        for kind, (begin, end) in _inside(data, 0, len(data)):
            version = data[begin] if end > begin else 0
            if kind == b"infe":
                number = ">H" if version == 2 else ">I"
                data[begin + 6 + struct.calcsize(number) : end].decode()  # its type and names
                described |= {*struct.unpack_from(number, data, begin + 4)} if version in (2, 3) else set()
            elif kind == b"auxC":
                data[begin + 4 : end].partition(b"\0")[0].decode()
            elif kind == b"iref":
                for _, (at, _) in _boxes(data, begin + 4, end):
                    referred |= {*struct.unpack_from(">H" if version == 0 else ">I", data, at)}
    except (struct.error, UnicodeDecodeError):
        raise ImageError(_DAMAGED) from None
    if not referred <= described:
        raise ImageError(_DAMAGED)
    return cast(Any, pi_heif).open_heif(with_usual_matrix(data, "HEIC")[0])


def coded_colours(heif: Any, data: bytes) -> tuple[int, int] | None:
    """Return the numbers of primaries and transfer that an opened HEIC or AVIF file states; None where it does not."""
    if box := heif.info.get("nclx_profile"):
        stated = box["color_primaries"], box["transfer_characteristics"]
    else:
        colours = _stream_colours(data, [*_inside(data, 0, len(data))])
        stated = colours.primaries, colours.transfer
    return None if stated == (2, 2) else stated


def _stream_colours(data: bytes, boxes: list[tuple[bytes, tuple[int, int]]]) -> CodedColours:
    """Read what the coded picture of a HEIC or AVIF file states of its colours; that counts where the file does not."""
    first = {name: data[begin:end] for name, (begin, end) in reversed(boxes) if name in (b"hvcC", b"iloc")}
    with suppress(ValueError):  # damage is the decoder's to tell
        if b"hvcC" in first:
            return hevc_colours(first[b"hvcC"])
        if b"iloc" in first:
            return av1_colours(data, first[b"iloc"])
    return CodedColours()


def gif_profile(data: bytes) -> bytes:
    """Return the colour profile of a GIF, of whatever is left of one where it is damaged; empty where it has none.

    Source: ICC.1:2004-10, annex B (embedding in GIF: the application extension ICCRGBG1012).
    """
    _, found, blocks = data.partition(b"!\xff\x0bICCRGBG1012")
    profile, at = bytearray(), 0
    while found and (size := int.from_bytes(blocks[at : at + 1], "big")):
        profile += blocks[at + 1 : at + 1 + size]
        at += 1 + size
    return bytes(profile)


def bmp_profile(data: bytes) -> bytes:
    """Return the colour profile of a BMP; empty where it has none. Source: Microsoft, BITMAPV5HEADER."""
    if data[_BMP_HEADER : _BMP_HEADER + 4] != _BMP_V5 or data[70:74] != b"DEBM":  # PROFILE_EMBEDDED
        return b""
    at, size = struct.unpack_from("<II", data, 126)
    return data[_BMP_HEADER + at : _BMP_HEADER + at + size]


def count_views(jpeg: JpegImageFile, data: bytes) -> int:
    """Count the pictures that stand beside each other in a JPEG, such as the two of a stereo pair.

    Previews are none, nor what describes the photo: a map of brightness for bright screens, or of depth.
    Source: CIPA DC-007 (multi-picture format).
    """
    try:
        index: dict[int, Any] = cast(Any, jpeg)._getmp() or {}
        kinds = [str(entry["Attribute"]["MPType"]) for entry in index.get(_MP_ENTRIES, ())]
    except Exception:  # a damaged index, which Pillow does not promise an exception for
        return 1
    if any(word in data for word in _DESCRIBES):
        return 1
    return sum(not kind.startswith("Large Thumbnail") for kind in kinds)


def count_pages(data: bytes) -> int:
    """Count the pages of a TIFF, a few dozen at most; previews and masks are none."""
    return sum(_WIDTH in one and not one.get(_SUBFILE, (0,))[0] & 0b101 for one in _Tiff(data).directories())


def _inside(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """List the boxes of a HEIC file, also those in others."""
    for kind, (begin, stop) in _boxes(data, at, end):
        yield kind, (begin, stop)
        head = {b"meta": 4, b"iinf": 6 if data[begin : begin + 1] == b"\0" else 8, b"iprp": 0, b"ipco": 0}.get(kind)
        if head is not None:
            yield from _inside(data, begin + head, stop)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """List the boxes of an ISO media file between two places -> their types, and where their contents begin and end."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 16 if size == 1 else 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        size = size or end - at
        if size < head or at + size > end:
            return
        yield kind, (at + head, at + size)
        at += size


def _area(one: Inner) -> int:
    return one.size[0] * one.size[1]


def _size(directory: dict[int, tuple[int, ...]]) -> tuple[int, int]:
    return directory.get(_WIDTH, (0,))[0], directory.get(_HEIGHT, (0,))[0]


def _sensor_size(data: bytes, directories: list[dict[int, tuple[int, ...]]]) -> tuple[int, int]:
    """Width and height of the sensor's picture as a RAW file states it; (0, 0) where it does not."""
    sizes = [_size(one) for one in directories]
    if data.startswith(b"IIU\0"):  # Panasonic's own tags
        sizes += [(one[2][0], one[3][0]) for one in directories if 2 in one and 3 in one]
    if data.startswith(b"FUJIFILMCCD-RAW") and len(data) > 100:
        at = int.from_bytes(data[92:96], "big")
        for _ in range(min(int.from_bytes(data[at : at + 4], "big"), 256)):
            tag, length = int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
            if tag == 0x100 and length == 4:
                height, width = struct.unpack(">HH", data[at + 8 : at + 12].ljust(4, b"\0"))
                sizes.append((width, height))
            at += 4 + length
    for _, marker, _, (width, height), planes in _frames(data):
        if marker == _LOSSLESS:  # Canon's CR2 states the sensor's size there alone: columns in turn are planes
            sizes.append((width * planes if planes in (2, 4) else width, height))
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _jpegs(data: bytes) -> Iterator[Inner]:
    """Yield the JPEGs within a file, wherever they lie; without the lossless ones, which hold values of a sensor."""
    for at, marker, precision, size, planes in _frames(data):
        if marker != _LOSSLESS and precision == 8 and planes in (1, 3, 4):
            yield Inner(at, size, "JPEG")


def jpeg_bits(data: bytes) -> int | None:
    """Return how many bits a value of a JPEG has; None where it does not tell."""
    frame = _frame(data, 2)
    return frame[1] if frame else None


def _frames(data: bytes) -> Iterator[tuple[int, int, int, tuple[int, int], int]]:
    """Yield what the JPEGs within a file state: where they begin, coding, bits, (width, height), planes."""
    at = -1
    for _ in range(_MOST_MARKERS):
        at = data.find(b"\xff\xd8\xff", at + 1)
        if at < 0:
            return
        if frame := _frame(data, at + 2):
            yield at, *frame


def _frame(data: bytes, at: int) -> tuple[int, int, tuple[int, int], int] | None:
    """Coding, bits, (width, height) and planes of the JPEG whose segments begin there; None where it is none."""
    for _ in range(_MOST_PICTURES):
        if at + 10 > len(data) or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2, _LOSSLESS):
            precision, height, width, planes = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return marker, precision, (width, height), planes
        if marker == 0xFF:
            at += 1
        elif length < 2 or marker in (0xD8, 0xD9, 0xDA):
            return None
        else:
            at += 2 + length
    return None


class _Tiff:
    """The directories of a TIFF file, classic or big, or of a RAW file that is laid out as one.

    Only whole numbers and short texts are read, and few of each, so that a hostile file costs no memory.
    """

    _SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the types of whole numbers, and of text

    def __init__(self, data: bytes) -> None:
        self.data, self.start, self.order, self.big = data, 0, "<", False

    def directories(self) -> list[dict[int, tuple[int, ...]]]:
        """List all directories, the first one first: tag -> values, and under 0 the place of the directory."""
        if self.data[4:8] != b"ftyp":
            return self._chain(0)
        boxes = (self.data.find(name, 0, _BOXES_BYTES) for name in (b"CMT1", b"CMT2"))  # of Canon's CR3
        return [one for at in boxes if at >= 0 for one in self._chain(at + 4)]

    def _chain(self, start: int) -> list[dict[int, tuple[int, ...]]]:
        self.start, self.order = start, ">" if self.data[start : start + 2] == b"MM" else "<"
        self.big = self._number(start + 2, 2) == 43
        if self.data[start : start + 2] not in (b"II", b"MM"):
            return []
        waiting = [self._number(start + (8 if self.big else 4), 8 if self.big else 4)]
        found: dict[int, dict[int, tuple[int, ...]]] = {}
        while waiting and len(found) < _MOST_PICTURES:
            at = waiting.pop(0)
            if at not in found and 0 < at < len(self.data) - start:
                found[at], after = self._directory(at)
                waiting += [*(place for tag in _PLACES for place in found[at].get(tag, ())), after]
        return list(found.values())

    def _directory(self, at: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Read one directory -> it, and the place of the next one, 0 for none."""
        counter, entry, wide = (8, 20, 8) if self.big else (2, 12, 4)
        count = min(self._number(self.start + at, counter), 4096)
        tags: dict[int, tuple[int, ...]] = {0: (at,)}
        for number in range(count):
            here = self.start + at + counter + number * entry
            tag, kind, values = self._number(here, 2), self._number(here + 2, 2), self._number(here + 4, wide)
            size = self._SIZES.get(kind)
            if size and 0 < values <= _MOST_PICTURES:
                place = here + 4 + wide
                if values * size > wide:
                    place = self.start + self._number(place, wide)
                tags[tag] = tuple(self._number(place + k * size, size) for k in range(values))
        return tags, self._number(self.start + at + counter + count * entry, wide)

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "big" if self.order == ">" else "little")

    def page(self, directory: dict[int, tuple[int, ...]]) -> Inner | None:
        """Return the picture of a directory; None where Pillow cannot read it."""
        width, height = _size(directory)
        compression, photometric = directory.get(_COMPRESSION, (1,))[0], directory.get(_PHOTOMETRIC, (-1,))[0]
        readable = photometric in _DECODABLE and compression not in {_OLD_JPEG, *_SENSOR_CODING}
        return Inner(directory[0][0], (width, height), "TIFF") if width and height and readable else None

    @staticmethod
    def tags(directories: list[dict[int, tuple[int, ...]]]) -> dict[int, int]:
        """What the directories state of orientation, focal length and colours; the first statement of each counts."""
        stated: dict[int, int] = {}
        for one in directories:
            for tag in (ORIENTATION, FOCAL_35MM, COLOUR_SPACE):
                if tag in one:
                    stated.setdefault(tag, one[tag][0])
            if one.get(_INTEROP_INDEX) == _R03:
                stated[COLOUR_SPACE] = ADOBE_RGB
        return stated
