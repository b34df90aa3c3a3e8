"""Depth maps from elsewhere: the values of a file, and what the file says that they mean.

Read are grey pictures, EXR, NPY, TIFF of any numbers and PFM, and the depth that a photo carries itself: Apple's and
others' in HEIC, and Google's in the XMP of a JPEG. Nothing is guessed here; what a file does not say stays open.

Sources: https://developers.google.com/depthmap-metadata (Format, Near, Far, Units, MeasureType); ISO/IEC 23008-2
annex F, depth representation information (HEIC).
"""

import binascii
import logging
import math
import re
from base64 import b64decode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from marigold_core.errors import ImageError
from marigold_core.images import containers, tones
from marigold_core.images.containers import ORIENTATION
from marigold_core.images.photo import MAX_PIXELS, check_bytes, orientation_of, upright
from marigold_core.settings import DepthReading

FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "PPM")  # what Pillow may open; PFM is among the last
NPY = b"\x93NUMPY"  # how such files begin
NO_HIT = 1e9  # what is farther is no depth: renderers write 1e10 where a ray meets nothing
_VALUES = ("z", "v", "y", "r")  # what the channel of values is called in a layer of an EXR file
_DISPARITY, _MIST, _COLOURS = 8, 10, 11  # ranks of EXR channels, which below that of mist are depth, or disparity
_DISPARITIES = ("disparity", "disp", "inverse_depth", "inversedepth", "invdepth")  # what such channels are called
_READ_AS_STORED, _PLANES = (0, 1, 2), 2  # values of TIFF tags: photometric (grey, RGB), planar configuration
_MOST_PAGES = 64  # of a TIFF that are looked at
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by the orientation that a TIFF states
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).T,
    8: np.rot90,
}
MOST_EXR_VALUES = 8 * MAX_PIXELS  # of all channels, which the library decodes together: 2 GB
_NODATA = 42113  # the TIFF tag in which GDAL says which value stands for none
_USE = "use PNG, TIFF, EXR, NPY or PFM, or a photo that carries depth."
_DAMAGED = "The depth map is damaged: it cannot be decoded."
_GDEPTH = "{http://ns.google.com/photos/1.0/depthmap/}"
_XMP, _XMP_MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_XMP_MORE_HEAD = len(_XMP_MORE) + 32 + 4 + 4  # then a hash, the length of the whole and the place of the part


@dataclass(frozen=True)
class DepthMap:
    """The values of a depth map as its file holds them, and what it says of them."""

    values: np.ndarray  # [h, w] float64; NaN where there is none, infinite from ``NO_HIT`` on
    stated: DepthReading = DepthReading()
    ends: tuple[float, float] | None = None  # the values of relative depth at its two ends, where the file says so
    texts: Mapping[str, str] = field(default_factory=dict[str, str])  # that the file carries
    belongs: bool = False  # whether it is the photo's own, which may be stretched to fit
    note: str | None = None  # what a person should know of how it was read


@dataclass(frozen=True)
class _Stored:
    """A depth map in a file, not decoded yet."""

    size: tuple[int, int]  # width and height; of several pictures in one file those of the largest
    read: Callable[[], DepthMap]


def stated_pixels(data: bytes) -> int:
    """Read how many pixels the file of a depth map states, or a photo of the map in it; 0 for none. None is decoded."""
    with suppress(ImageError), _decoding():
        return math.prod(_find(data).size)
    return 0


def decode(data: bytes) -> DepthMap:
    """Decode the file of a depth map.

    Raises:
        ImageError: it is none, damaged, too large, or a picture with colours.
    """
    return _decoded(data, _find)


def decode_embedded(data: bytes) -> DepthMap:
    """Decode the depth map that a photo file carries, upright as the photo.

    Raises:
        ImageError: it carries none, or a damaged one.
    """
    return _decoded(data, _find_embedded)


def _decoded(data: bytes, find: Callable[[bytes], _Stored]) -> DepthMap:
    check_bytes(len(data))
    with _decoding():
        stored = find(data)
        _check_size(*stored.size)
        return stored.read()


def _find(data: bytes) -> _Stored:
    """Find the depth map of a file. Raises: ImageError, or whatever a decoder raises."""
    if not data:  # which is what the page sends of a folder
        raise ImageError(f"This is an empty file or a folder; {_USE}")
    kind = containers.identify(data[: containers.HEAD_BYTES])
    if data.startswith(NPY):
        return _find_npy(data)
    if data.startswith(b"v/1\x01"):
        return _find_exr(data)
    if kind == "HEIC" or (kind == "JPEG" and b"GDepth" in data):
        return _find_embedded(data)
    if kind == "TIFF" and (found := _find_tiff(data)):
        return found
    if data.startswith(b"PF"):
        raise ImageError("This PFM has three values a pixel; a depth map has one (Pf).")
    return _find_picture(data)


def _find_embedded(data: bytes) -> _Stored:
    """Find the depth map that a photo file carries. Raises: as ``_find``."""
    kind = containers.identify(data[: containers.HEAD_BYTES])
    found = _find_heic(data) if kind == "HEIC" else _find_gdepth(data) if kind == "JPEG" else None
    if found is None:
        raise ImageError("This photo carries no depth map; give one as a file of its own.")
    return found


@contextmanager
def _decoding() -> Generator[None]:
    """Turn any exception of a decoder into an ImageError of one sentence; decoders do not document which they raise."""
    try:
        yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"This is no depth map that can be read; {_USE}") from None
    except Exception:
        raise ImageError(_DAMAGED) from None


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(
            f"The depth map has {width} x {height} pixels; it needs at least 1 and at most {MAX_PIXELS:,}."
        )


# ------------------------------------------------------------------------------- arrays


def from_array(array: np.ndarray) -> DepthMap:
    """Any numeric array [h, w], or with more axes of length 1 -> its depth map.

    Raises:
        ImageError: another shape, or no numbers.
    """
    flat = array.squeeze() if array.ndim > 2 else array
    if flat.ndim != 2 or flat.dtype.kind not in "fiu":
        raise ImageError(
            f"A depth map has one number a pixel, [H, W], but got {array.dtype} of shape {list(array.shape)}."
        )
    _check_size(flat.shape[1], flat.shape[0])
    return DepthMap(_finite(flat))


def _finite(array: np.ndarray) -> np.ndarray:
    """Numbers as float64, those without a hit infinite. Raises: ImageError where that are all."""
    values = np.ma.filled(array.astype(np.float64), np.nan)  # what a mask hides is missing
    is_far = np.abs(values) >= NO_HIT
    if np.isfinite(values).any() and not (np.isfinite(values) & ~is_far).any():
        raise ImageError(f"All values of the depth map are too large, {NO_HIT:,.0f} or more; scale them down.")
    values[is_far] = np.copysign(np.inf, values[is_far])
    return values


def _find_npy(data: bytes) -> _Stored:
    reader: Any = np.lib.format
    file = BytesIO(data)
    version = reader.read_magic(file)
    shape, _, dtype = (reader.read_array_header_1_0 if version == (1, 0) else reader.read_array_header_2_0)(file)
    count = math.prod(shape)
    if dtype.hasobject or count * dtype.itemsize > len(data):  # before it is allocated
        raise ImageError("The depth map is damaged: its header does not fit its size.")
    size = min(max(1, count), MAX_PIXELS), 1  # its shape is looked at by ``from_array``
    return _Stored(size, lambda: from_array(np.load(BytesIO(data), allow_pickle=False)))


# ------------------------------------------------------------------------------- EXR


def _find_exr(data: bytes) -> _Stored:
    import OpenEXR

    if not _is_whole(data):
        raise ImageError(_DAMAGED)
    headers = cast(Any, OpenEXR).File(BytesIO(data), False, True).parts
    windows = [part.header[name] for part in headers for name in ("dataWindow", "displayWindow")]
    sizes = [(int(right - left) + 1, int(bottom - top) + 1) for (left, top), (right, bottom) in windows]
    counts = [len(part.header["channels"]) for part in headers]
    numbers = sum(math.prod(size) * count for size, count in zip(sizes[::2], counts, strict=True))
    if numbers > MOST_EXR_VALUES:
        raise ImageError(f"This EXR holds {numbers:,} numbers in its channels; save its depth alone.")
    size = max(*sizes, (numbers * MAX_PIXELS // MOST_EXR_VALUES, 1), key=math.prod)
    return _Stored(size, partial(_read_exr, data, sizes))


def _read_exr(data: bytes, sizes: list[tuple[int, int]]) -> DepthMap:
    """The channel that holds depth; where the picture is larger than what is stored, the rest is missing.

    ``sizes`` are those of what is stored and of the picture, of each part.
    """
    import OpenEXR

    for size in sizes:
        _check_size(*size)
    parts = cast(Any, OpenEXR).File(BytesIO(data), True).parts
    if 2 * len(parts) < len(sizes):  # the library leaves out what it cannot decode
        raise ImageError(_DAMAGED)
    ranked = [(*found, part) for part in parts for found in _depth_channels(part.name() or "", [*part.channels])]
    if ranked:
        rank, names, part = min(ranked, key=lambda one: one[0])
    elif sum(len(part.channels) for part in parts) == 1:
        rank, names, part = _COLOURS, [*parts[0].channels], parts[0]
    else:
        raise ImageError("The EXR file has no depth: it needs a channel Z, depth.Z or Y, or a single one.")
    header: dict[str, Any] = part.header
    stored = _grey(np.stack([part.channels[one].pixels for one in names], axis=-1))
    (left, top), _ = header["dataWindow"]
    (origin_x, origin_y), (right, bottom) = header["displayWindow"]
    width, height = int(right - origin_x) + 1, int(bottom - origin_y) + 1
    texts = {key: value for key, value in header.items() if isinstance(value, str)}
    values = stored
    if stored.shape != (height, width):
        values = np.full((height, width), np.nan)
        x, y = int(left - origin_x), int(top - origin_y)
        inside = values[max(y, 0) : y + stored.shape[0], max(x, 0) : x + stored.shape[1]]
        inside[:] = stored[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]]
    is_z = rank < _MIST and rank != _DISPARITY
    unit_m = {"metre": 1.0, "meter": 1.0, "m": 1.0, "mm": 0.001, "millimetre": 0.001}.get(texts.get("unit", ""))
    quantity = "depth" if is_z else "disparity" if rank == _DISPARITY else None
    stated = DepthReading(quantity=quantity, greater="farther" if is_z else None, unit_m=unit_m)
    return DepthMap(values, stated, texts=texts)


def _is_whole(data: bytes) -> bool:
    """Whether the last chunk of an EXR file ends within it; of others the library would print to the terminal.

    Source: https://openexr.com/en/latest/OpenEXRFileLayout.html. Deep files are not checked.
    """
    flags = int.from_bytes(data[4:8], "little")
    several, deep, tiled = flags & 0x1000, flags & 0x800, [bool(flags & 0x200)]
    at = 8
    while data[at]:  # the header of each part, which an empty name ends
        while data[at]:
            name_end = data.index(0, at)
            value = data.index(0, name_end + 1) + 5
            if data[at:name_end] == b"type" and several:
                tiled[-1] = data.startswith(b"tiled", value)
            at = value + int.from_bytes(data[value - 4 : value], "little")
        at, tiled = at + 1, [*tiled, False]
        if not several:
            break
    at += bool(several)
    first, last = len(data), 0
    while at < first:  # the places of the chunks, which follow at once
        place = int.from_bytes(data[at : at + 8], "little")
        first, last, at = min(first, place), max(last, place), at + 8
    part = int.from_bytes(data[last : last + 4], "little") if several else 0
    size_at = last + (4 if several else 0) + (16 if tiled[part] else 4)
    size = int.from_bytes(data[size_at : size_at + 4], "little")
    return bool(deep) or (first > 0 and size_at + 4 + size <= len(data))


def _depth_channels(part: str, channels: list[str]) -> Generator[tuple[int, list[str]]]:
    """The channels of a part that may be its depth, each with a rank: the lowest of all parts is to be taken.

    Z is depth, then what a layer or part named depth holds (Blender: ViewLayer.Depth.Z or .V), then disparity, then the
    Z of another layer, unless that layer has X and Y as well: positions and normals. Mist is a share of depth.
    """
    split = {one: (f"{part}.{one}" if "." not in one else one).lower().split(".") for one in channels}
    lower = {one.lower() for one in channels}
    coloured = any(name[-1] in ("g", "b") for name in split.values())
    for channel, (*layers, last) in split.items():
        layer, stem = layers[-1] if layers else "", channel.lower().removesuffix(last)
        if last in ("x", "y", "z") and {f"{stem}x", f"{stem}y"} <= lower:
            continue
        if channel.lower() == "z":
            yield 0, [channel]
        elif last == "depth" or (layer == "depth" and last in _VALUES):
            yield 1 + _VALUES.index(last) if last in _VALUES else 1, [channel]
        elif last in _DISPARITIES or (layer in _DISPARITIES and last in _VALUES):
            yield _DISPARITY, [channel]
        elif last == "z":
            yield _MIST - 1, [channel]
        elif last == "mist" or (layer == "mist" and last in _VALUES):
            yield _MIST, [channel]
        elif last in ("y", "r") and not coloured:
            yield _COLOURS, [channel]
    if {*"RGB"} <= {*channels}:  # a picture without depth may itself be the grey map
        yield _COLOURS, [*"RGB"]


# ------------------------------------------------------------------------------- pictures


def _find_picture(data: bytes) -> _Stored:
    image = tones.opened(data, FORMATS)
    return _Stored(image.size, partial(_read_picture, image, data))


def _read_picture(image: Image.Image, data: bytes) -> DepthMap:
    """A grey picture: whole numbers as stored, 32-bit floats, colours that are all grey; transparent is missing."""
    texts = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    white, full = _scaling(image)
    deep = ";16" in tones.raw_mode(image) and image.mode in ("RGB", "RGBA")
    if deep:
        planes = tones.deep_values(lambda: tones.opened(data, FORMATS))
    else:
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX") or "transparency" in image.info:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        planes = tones.grey_values(image.convert("L") if image.mode == "1" else image)
    values = _grey(np.atleast_3d(planes))
    return DepthMap(values if white == full else np.rint(values * (white / full)), texts=texts)


def _scaling(image: Image.Image) -> tuple[int, int]:
    """The value of white in the file of a picture that is not decoded yet, and what Pillow scales it to.

    Raises:
        ImageError: Pillow would keep 8 bits of values that have more.
    """
    layout, full = tones.raw_mode(image), 65535 if image.mode == "I" else 255
    if image.format == "PPM" and image.mode in ("L", "I", "RGB"):
        args: Any = cast(Any, image).tile[0].args  # the layout alone where the values are taken as they are
        white = full if isinstance(args, str) else int(args[1])
        if white > full:
            raise ImageError(
                f"This PPM has colours up to {white}, of which 8 bits are read; save one grey value a pixel."
            )
        return white, full
    white = {"1": 1, "L;2": 3, "L;4": 15}.get(layout) if image.format == "PNG" else None
    return white or full, full


def _find_tiff(data: bytes) -> _Stored | None:
    """The first page of a TIFF that is no preview; None where it has colours of a palette or a print."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it would print what it finds wrong with a file
    pages = [cast(Any, page) for page in islice(tifffile.TiffFile(BytesIO(data)).pages, _MOST_PAGES)]
    whole = [page for page in pages if not page.is_reduced] or pages[:1]
    copies = [page for page in whole if containers.is_preview(_size_of(whole[0]), _size_of(page))]
    page = max(copies, key=_size_of, default=whole[0])
    if page.photometric not in _READ_AS_STORED:
        return None
    number = "first" if page is whole[0] else "largest"
    note = f"Of the {len(whole)} pages of the depth map the {number} one was used." if len(whole) > 1 else None
    return _Stored(_size_of(page), partial(_read_page, page, note))


def _read_page(page: Any, note: str | None) -> DepthMap:
    """The numbers of a page of a TIFF as stored.

    Raises:
        ImageError: several numbers a pixel that are no grey, or numbers that are none.
    """
    count, has_alpha = page.samplesperpixel, bool({1, 2} & {*page.extrasamples})
    if page.imagedepth > 1 or count - has_alpha not in (1, 3):
        raise ImageError("This TIFF has several numbers a pixel, of which depth cannot be told; save one a pixel.")
    if page.nbytes > 8 * MAX_PIXELS:
        raise ImageError(f"This TIFF holds {page.nbytes / 1e6:,.0f} MB; save one number a pixel.")
    if any(not size for size in page.databytecounts):
        raise ImageError(_DAMAGED)  # they would be taken as 0
    planes = page.asarray(maxworkers=1)
    if planes.dtype.kind not in "fiub":
        raise ImageError(f"A depth map has one number a pixel, but this TIFF has {planes.dtype}.")
    planes = np.moveaxis(planes, 0, -1) if page.planarconfig == _PLANES and count > 1 else np.atleast_3d(planes)
    values = _grey(planes)
    with suppress(AttributeError, KeyError, ValueError):  # where there is no such tag, or no number in it
        missing = np.float64(page.tags[_NODATA].value.strip(" \0")).astype(planes.dtype)
        values[planes[..., 0] == missing] = np.nan
    turn = _TURNS.get(int(page.tags.valueof(ORIENTATION, 1) or 1))
    return DepthMap(np.ascontiguousarray(turn(values)) if turn else values, note=note)


def _size_of(page: Any) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _grey(planes: np.ndarray) -> np.ndarray:
    """[h, w, 1 to 4] -> [h, w] float64 of the one colour; NaN where alpha is 0. Raises: ImageError for colours."""
    colours = planes[..., : 3 if planes.shape[2] > 2 else 1]
    known = colours[np.isfinite(colours).all(axis=-1)].astype(np.float64)
    spread = np.ptp(known, axis=-1).max(initial=0)
    if spread > 0.02 * known.max(initial=1e-9):  # JPEG leaves a little colour in a grey picture
        raise ImageError(
            "The depth map has colours, of which depth cannot be told; give the grey map, the EXR or the NPY."
        )
    values = _finite(colours[..., 0])
    if planes.shape[2] in (2, 4):
        values[planes[..., -1] == 0] = np.nan
    return values


# ------------------------------------------------------------------------------- depth within a photo


def _find_heic(data: bytes) -> _Stored | None:
    images: list[Any] = containers.open_heif(data).info.get("depth_images") or []
    return _Stored(images[0].size, partial(_read_heic, images[0])) if images else None


def _read_heic(image: Any) -> DepthMap:
    """The depth image of a HEIC file: 8 bits, near bright for disparity; portraits have that, with its two ends.

    Whether Apple's disparity is absolute stands in no box that libheif reads, so it is relative unless one says
    otherwise.
    """
    metadata: dict[str, Any] = image.info.get("metadata") or {}
    levels = np.atleast_3d(np.asarray(image))[..., 0]
    share = levels.astype(np.float64) / (255 if levels.dtype == np.uint8 else 65535)
    known = {name: value for name, value in metadata.items() if isinstance(value, float | int)}
    inverse_z, uniform_z = known.get("representation_type") == 0, known.get("representation_type") == 2
    near, far = known.get("z_near", 0.0), known.get("z_far", 0.0)
    if (inverse_z or uniform_z) and 0 < near < far:
        low, high = (1 / far, 1 / near) if inverse_z else (near, far)
        quantity = "disparity" if inverse_z else "depth"
        stated = DepthReading(quantity=quantity, kind="scale")
        return DepthMap(low + share * (high - low), stated, (low, high), belongs=True)
    low, high = known.get("d_min", 0.0), known.get("d_max", 0.0)
    if low < high:
        share = low + share * (high - low)
    return DepthMap(share, DepthReading(quantity="depth" if uniform_z else "disparity"), belongs=True)


def _find_gdepth(data: bytes) -> _Stored | None:
    """Google's depth map in the XMP of a JPEG; it lies as the photo does before that is turned upright."""
    photo = JpegImageFile(BytesIO(data))
    said = _xmp_values(photo)
    if not said.get("Data"):
        return None
    try:
        content = b64decode(re.sub(r"\s", "", said["Data"]) + "==")
        near, far = float(said["Near"]), float(said["Far"])
    except (KeyError, ValueError, binascii.Error):
        raise ImageError("The depth map in the photo is damaged: its XMP lacks Near, Far or Data.") from None
    form, unit = said.get("Format", "RangeInverse"), {"m": 1.0, "mm": 0.001}.get(said.get("Units", "m"))
    most = float(np.finfo(np.float32).max)  # beyond which depth and its inverse would be infinite
    possible = near > 1 / most if form == "RangeInverse" else form == "RangeLinear" and far <= most
    if not possible or not 0 <= near < far:
        raise ImageError(
            f"The depth map in the photo cannot be read: its Format is {form}, from Near {near:g} to Far {far:g}."
        )
    low, high = (1 / near, 1 / far) if form == "RangeInverse" else (near, far)
    stated = DepthReading(
        quantity="disparity" if form == "RangeInverse" else "depth",
        unit_m=unit,
        kind="metric" if unit else "scale",
        measured="ray" if said.get("MeasureType") == "OpticRay" else "axis",
    )
    picture = Image.open(BytesIO(content), formats=("PNG", "JPEG"))

    def read() -> DepthMap:
        is_deep = picture.mode.startswith("I")
        turned = upright(picture if is_deep else picture.convert("RGB"), orientation_of(photo))
        share = _grey(np.atleast_3d(np.asarray(turned))) / (65535 if is_deep else 255)
        return DepthMap(low + share * (high - low), stated, (min(low, high), max(low, high)), belongs=True)

    return _Stored(picture.size, read)


def _xmp_values(photo: JpegImageFile) -> dict[str, str]:
    """Read the values of Google's namespace from the XMP of a JPEG, also where it is cut into several segments."""
    segments: list[bytes] = [content for name, content in cast(Any, photo).applist if name == "APP1"]
    packets = [one[len(_XMP) :] for one in segments if one.startswith(_XMP)]
    parts: dict[bytes, dict[int, bytes]] = {}
    for one in segments:
        if one.startswith(_XMP_MORE):
            head = one[len(_XMP_MORE) : _XMP_MORE_HEAD]
            parts.setdefault(head[:32], {})[int.from_bytes(head[36:40], "big")] = one[_XMP_MORE_HEAD:]
    packets += [b"".join(part for _, part in sorted(one.items())) for one in parts.values()]
    said: dict[str, str] = {}
    for packet in packets:
        if b"<!" in packet:  # no XMP declares a document type, through which a text could grow without end
            continue
        for element in ElementTree.fromstring(packet.strip(b"\0")).iter():
            pairs = [*element.attrib.items(), (element.tag, element.text or "")]
            said |= {name.removeprefix(_GDEPTH): text for name, text in pairs if name.startswith(_GDEPTH)}
    return said
