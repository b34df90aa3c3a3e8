"""Decoding of photos from files, bytes and arrays to upright RGB, and the input of the network made from them.

Everything reads photos through ``load_photo``, so that a file is accepted, refused and toned the same way everywhere.
Sizes are checked on the header, before any pixel is decoded.
"""

import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from marigold_core.errors import ImageError
from marigold_core.images import containers, tones
from marigold_core.settings import MeshSettings, bounds

if TYPE_CHECKING:
    import torch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # what Pillow may open; HEIC goes to libheif
MAX_BYTES = 128 * 1024 * 1024
MAX_PIXELS = 64_000_000
MAX_JPEG_PIXELS = 256_000_000  # of sensors of 108 and 200 megapixels: such JPEGs are decoded at half their size
MIN_SIDE_PX = 16
MAX_ASPECT = 20
DIAGONAL_35MM = math.hypot(36, 24)  # millimetres

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"  # how such files begin
_PROFILES = {"GIF": containers.gif_profile, "BMP": containers.bmp_profile}
_TURNED = {5, 6, 7, 8}  # of those: height and width change places


@dataclass(frozen=True)
class Photo:
    """An upright photo without its metadata, except the field of view, which geometry needs."""

    pixels: np.ndarray  # [H, W, 3] uint8
    fov_x_deg: float | None  # horizontal field of view from EXIF, degrees
    note: str | None  # what a person should know about the decoding, a sentence or two
    given_size: tuple[int, int] | None = None  # (height, width), upright, where it was read smaller

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo that was given: positions on it are in pixels of this size."""
        height, width = self.pixels.shape[:2]
        return self.given_size or (height, width)


def load_photo(source: str | Path | bytes | Image.Image | np.ndarray | Photo) -> Photo:
    """Decode a photo -> upright RGB and its field of view.

    Embedded colour profiles are converted to sRGB, alpha is laid on white, 16-bit and float tones are scaled to 8 bits.
    With a note: of several pictures, as animations and stereo pairs have, the first is taken, of a camera RAW file the
    full-size JPEG in it, and a JPEG above ``MAX_PIXELS`` is decoded at half its size.

    Args:
        source: a path, file content, a PIL image, a [H, W], [H, W, 3] or [H, W, 4] uint8 array, or a ``Photo``, which
            is returned as it is.

    Raises:
        ImageError: not a photo, damaged, or outside the limits stated at the top of this module.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, str | Path):
        opened = _open(read_file(Path(source)))
    elif isinstance(source, bytes):
        opened = _open(source)
    elif isinstance(source, Image.Image):
        opened = _Opened(source)
    elif isinstance(source, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        opened = _Opened(_from_array(source))
    else:
        raise ImageError(
            f"A photo is a path, bytes, a PIL image or a [H, W, 3] uint8 array, but got {type(source).__name__}."
        )
    image = opened.image
    _check_size(*image.size)
    with _decoding():
        image.load()
        orientation, focal_35mm = _exif(image, opened.tags)
        if space := opened.tags.get(containers.COLOUR_SPACE):
            image.info[tones.SPACE] = space
        rgb, tone_note = tones.to_srgb(image, opened.full)
        given_size = opened.given_size
        rgb = upright(rgb, orientation)
        if given_size and orientation in _TURNED:
            given_size = (given_size[1], given_size[0])
    reduced_note = given_size and (
        f"The photo of {given_size[1]} x {given_size[0]} pixels was read at half its size; "
        "positions are those of its own pixels."
    )
    note = _joined(opened.note, reduced_note, tone_note)
    return Photo(np.array(rgb), _fov_x_deg(rgb.width, rgb.height, focal_35mm), note, given_size)


def load_rgb(source: str | Path | bytes | Image.Image | np.ndarray | Photo) -> np.ndarray:
    """Decode a photo -> [H, W, 3] uint8, upright; the pixels of ``load_photo``.

    Raises:
        ImageError: as ``load_photo``.
    """
    return load_photo(source).pixels


def read_header(source: Path | bytes) -> tuple[tuple[int, int], float | None]:
    """Read the (height, width) of an upright photo and its field of view as ``Photo`` has; only HEIC is decoded for it.

    Raises:
        ImageError: as ``load_photo``, but for damage behind the header.
    """
    opened = _open(source if isinstance(source, bytes) else read_file(source))
    orientation, focal_35mm = _exif(opened.image, opened.tags)
    height, width = opened.given_size or (opened.image.height, opened.image.width)
    if orientation in _TURNED:
        height, width = width, height
    return (height, width), _fov_x_deg(width, height, focal_35mm)


def stated_pixels(source: Path | bytes) -> int:
    """Read how many pixels a photo states, of HEIC too without decoding it; 0 where it is no photo."""
    with suppress(ImageError):
        data = source if isinstance(source, bytes) else read_file(source)
        with _decoding():
            if containers.identify(data[: containers.HEAD_BYTES]) == "HEIC":
                width, height = containers.open_heif(data).size
                return width * height
        (height, width), _ = read_header(data)
        return height * width
    return 0


def network_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Size of a photo -> the (height, width) at which the network sees it, without padding; ``resolution`` 0 keeps it.

    Source: the integer rounding of diffusers.
    """
    longest = max(height, width)
    if not resolution:
        return height, width
    return max(1, height * resolution // longest), max(1, width * resolution // longest)


def to_network(pixels: np.ndarray, resolution: int, factor: int) -> "tuple[torch.Tensor, tuple[int, int]]":
    """[H, W, 3] uint8 -> ([1, 3, PPH, PPW] float32 in [-1, 1], (PH, PW)): resized, then padded.

    The longest edge becomes ``resolution`` (0 keeps the photo's size); then both sides are padded to multiples of
    ``factor``. Padding repeats the last row and column, so ``[..., :PH, :PW]`` of any output undoes it. The numbers
    are those of diffusers' ``MarigoldImageProcessor``.

    Source: arXiv 2312.02145 section 3.3.
    """
    import torch
    from torch.nn import functional

    height, width = pixels.shape[:2]
    size = network_size(height, width, resolution)
    padding = (0, -size[1] % factor, 0, -size[0] % factor)
    planes: list[torch.Tensor] = []
    for channel in range(3):  # a plane at a time: a 64-megapixel photo costs 256 MB here instead of 768
        plane = torch.as_tensor(np.ascontiguousarray(pixels[None, None, :, :, channel])).float()
        plane = plane.div_(255).mul_(2).sub_(1)
        if resolution:
            plane = functional.interpolate(plane, size, mode="bilinear", antialias=True, align_corners=False)
        planes.append(functional.pad(plane, padding, mode="replicate"))
    return torch.cat(planes, dim=1), size


_UNREADABLE = "This is {what}; use JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF."


@dataclass(frozen=True)
class _Opened:
    """An image whose pixels are not decoded yet, except of HEIC and of deep colours, and what its file states."""

    image: Image.Image
    note: str | None = None
    full: int | None = None  # the value of white in a deep image
    tags: Mapping[int, int] = field(default_factory=dict[int, int])  # EXIF that stands elsewhere in the file
    given_size: tuple[int, int] | None = None  # (height, width) before it was reduced and turned


@contextmanager
def _decoding() -> Generator[None]:
    """Turn any exception of a decoder into an ImageError of one sentence; decoders do not document which they raise."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"The photo has too many pixels; the limit is {MAX_PIXELS / 1e6:.0f} megapixels.") from None
    except UnidentifiedImageError:
        raise ImageError(_UNREADABLE.format(what="not a photo that can be read")) from None
    except Exception:
        raise ImageError("The photo is damaged: it cannot be decoded.") from None


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as the orientation tag of its photo says."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def orientation_of(image: Image.Image) -> int:
    """Read the orientation tag of a photo; 1 where it has none."""
    return _exif(image, {})[0]


def read_file(path: Path, what: str = "photo") -> bytes:
    """Read a file of at most ``MAX_BYTES``; messages call it ``what``. Raises: ImageError."""
    if not os.path.isfile(path):  # also where the system refuses the name itself
        where = "it is no file" if os.path.exists(path) else "there is no such file"
        where = "the link leads nowhere" if path.is_symlink() else where
        raise ImageError(f"The {what} cannot be read: {where}.")
    try:
        check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"The {what} cannot be read: {error.strerror}.") from None


def check_bytes(size: int) -> None:
    """Refuse, with an ImageError, a file of more than ``MAX_BYTES``."""
    if size > MAX_BYTES:
        raise ImageError(f"The file has {size / 2**20:.0f} MB; the limit is {MAX_BYTES // 2**20} MB.")


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise ImageError(
            f"The photo has too many pixels: {width} x {height}; the limit is {most / 1e6:.0f} megapixels."
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"The photo is too small: {width} x {height}, each side needs {MIN_SIDE_PX} pixels.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"The photo is too narrow: {width} x {height}, sides may differ {MAX_ASPECT} times at most.")


def _open(data: bytes) -> _Opened:
    """File content -> the photo in it; its size is checked before anything is decoded."""
    check_bytes(len(data))
    if not data:  # which is what the page sends of a folder
        raise ImageError(_UNREADABLE.format(what="an empty file or a folder"))
    kind = containers.identify(data[: containers.HEAD_BYTES])
    if kind and kind not in containers.READABLE:
        raise ImageError(_UNREADABLE.format(what=f"{kind}, not a photo that can be read"))
    with _decoding():
        note, coding, tags = None, None, dict[int, int]()
        if kind in ("HEIC", "AVIF"):
            data, coding = containers.with_usual_matrix(data, kind)
        if kind == "HEIC":
            heif = containers.open_heif(data)
            _check_size(*heif.size)
            image = heif.to_pillow()  # libheif has turned it upright and the tag now says so
            image.info[tones.CICP] = containers.coded_colours(heif, data)
            note = containers.SEVERAL.format(which="main") if len(heif) > 1 else None
            return _Opened(image, _joined(note, coding))
        if kind in ("RAW", "TIFF") and (inner := containers.find_photo(data, kind)):
            data, note, tags = inner.cut(data), inner.note, inner.tags
        if data.startswith(b"\xff\xd8\xff"):  # past Image.open, which refuses from 179 megapixels on
            if (bits := containers.jpeg_bits(data) or 8) != 8:
                raise ImageError(f"This JPEG has {bits} bits a value, which are not read; save it with 8 bits.")
            jpeg = JpegImageFile(BytesIO(data))
            if note is None and containers.count_views(jpeg, data) > 1:
                note = containers.SEVERAL.format(which="first")
            return _reduced(jpeg, note, tags)
        image = tones.opened(data, FORMATS)
        _check_size(*image.size)
        # Not n_frames, which reads the whole file.
        several = containers.count_pages(data) > 1 if image.format == "TIFF" else getattr(image, "is_animated", False)
        if several and note is None:
            note = containers.SEVERAL.format(which="first")
        full, layout = _stated_white(image, data), tones.raw_mode(image)
        if ";16" in layout and image.mode in ("RGB", "RGBA"):
            brightest = max(high for _, high in cast(Any, image).getextrema()[:3])  # Pillow keeps the high byte
            if full and brightest <= full >> 8:
                image = tones.deep_colours(lambda: tones.opened(data, FORMATS), full)
            elif brightest and not full:
                dark = tones.dark_note(brightest << 8 | 255)
                note = note or dark
                if dark and image.mode == "RGBA" and tones.dark_note(cast(Any, image).getextrema()[3][1] << 8 | 255):
                    tones.make_opaque(image)  # of as few bits as the colours
            full = None
        if len(cicp := _png_chunk(image, data, b"cICP")) > 1:
            image.info[tones.CICP] = tuple(cicp[:2])
        elif image.format in _PROFILES and (profile := _PROFILES[image.format](data)):
            image.info["icc_profile"] = profile  # which Pillow passes over
        elif kind == "AVIF":
            with suppress(Exception):  # of the colours alone: Pillow decodes it
                image.info[tones.CICP] = containers.coded_colours(containers.open_heif(data), data)
        return _Opened(image, _joined(note, coding), full, tags)


def _joined(*notes: str | None) -> str | None:
    return " ".join(note for note in notes if note) or None


def _reduced(image: JpegImageFile, note: str | None, tags: Mapping[int, int]) -> _Opened:
    """Have a JPEG decoded at half its size where it has more than ``MAX_PIXELS``."""
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return _Opened(image, note, tags=tags)
    _check_size(width, height, MAX_PIXELS if image.info.get("progressive") else MAX_JPEG_PIXELS)  # those are held whole
    image.draft(image.mode, (width // 2, height // 2))
    return _Opened(image, note, tags=tags, given_size=(height, width))


def _stated_white(image: Image.Image, data: bytes) -> int | None:
    """The value of white where a deep image's file states that it holds fewer than 16 bits, and its values agree."""
    bits, most = 16, 0
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        bits, most = max(tags.get(258, (16,))), np.max(tags.get(281, 0))
    elif chunk := _png_chunk(image, data, b"sBIT"):
        bits = chunk[0]
    if 8 < bits < 16:
        most = (1 << bits) - 1
    return int(most) if 255 < most < 65535 else None


def _png_chunk(image: Image.Image, data: bytes, name: bytes) -> bytes:
    """Return the content of a chunk before the pixels of a PNG; nothing where there is none."""
    at = len(_PNG) if image.format == "PNG" else len(data)
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) != b"IDAT":
        size = int.from_bytes(data[at : at + 4], "big")
        if kind == name:
            return data[at + 8 : at + 8 + size]
        at += 12 + size
    return b""


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        shape = list(array.shape)
        raise ImageError(f"An array must be [H, W, 3], [H, W, 4] or [H, W] of uint8, but got {array.dtype} {shape}.")
    _check_size(array.shape[1], array.shape[0])  # before Pillow, which refuses empty arrays in its own words
    return Image.fromarray(array)


def _exif(image: Image.Image, tags: Mapping[int, int]) -> tuple[int, float | None]:
    """The orientation tag and the 35 mm equivalent focal length, ``tags`` where the image has none of its own.

    Damaged metadata are ignored.
    """
    orientation, focal_35mm = tags.get(containers.ORIENTATION, 1), tags.get(containers.FOCAL_35MM)
    with suppress(Exception):
        exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, orientation))
        focal_35mm = float(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm, focal_35mm))
    return orientation, focal_35mm


def _fov_x_deg(width: int, height: int, focal_35mm: float | None) -> float | None:
    """The horizontal field of view of an upright photo; the 35 mm equivalent compares diagonals.

    On 3:2 photos this is the 36 mm (landscape) or 24 mm (portrait) rule. What no pinhole camera sees, as panoramas and
    fisheyes state it, is as good as unknown: geometry could not use it.
    """
    if focal_35mm is None or not focal_35mm > 0:  # 0 means unknown
        return None
    width_35mm = DIAGONAL_35MM * width / math.hypot(width, height)
    fov_x_deg = math.degrees(2 * math.atan(width_35mm / (2 * focal_35mm)))
    low, high = bounds(MeshSettings, "fov_x_deg")
    return fov_x_deg if low <= fov_x_deg <= high else None
