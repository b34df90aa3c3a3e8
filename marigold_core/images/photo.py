"""Decoding of photos from files, bytes and arrays to upright RGB, and the input of the network made from them.

Everything reads photos through ``load_photo``, so that a file is accepted, refused and toned the same way everywhere.
Sizes are checked on the header, before any pixel is decoded. Colour profiles are ignored: depth hardly depends on
them, and no hostile file reaches the profile parser.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pi_heif  # pyright: ignore[reportMissingTypeStubs]
from PIL import ExifTags, Image, UnidentifiedImageError

from marigold_core.errors import ImageError
from marigold_core.settings import MeshSettings, bounds

if TYPE_CHECKING:
    import torch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # what Pillow may open; HEIC goes to libheif
MAX_BYTES = 40 * 1024 * 1024
MAX_PIXELS = 64_000_000
MIN_SIDE_PX = 16
MAX_ASPECT = 20
DRAFT_PIXELS = 32_000_000  # larger JPEGs are decoded at half size: such sensors bin 2x2 pixels and hold no finer detail
DIAGONAL_35MM = math.hypot(36, 24)  # millimetres

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """An upright photo without its metadata, except the field of view, which geometry needs."""

    pixels: np.ndarray  # [H, W, 3] uint8
    fov_x_deg: float | None  # horizontal field of view from EXIF, degrees
    note: str | None  # what a person should know about the decoding, a sentence


def load_photo(source: str | Path | bytes | Image.Image | np.ndarray | Photo) -> Photo:
    """Decode a photo -> upright RGB and its field of view.

    Alpha is laid on white, 16-bit and float tones are scaled to 8 bits, of an animation the first frame is taken. JPEGs
    above ``DRAFT_PIXELS`` are decoded at half their size, with a note.

    Args:
        source: a path, file content, a PIL image, a [H, W], [H, W, 3] or [H, W, 4] uint8 array, or a ``Photo``, which
            is returned as it is.

    Raises:
        ImageError: not a photo, damaged, or outside the limits stated at the top of this module.
    """
    note = None
    if isinstance(source, Photo):
        return source
    if isinstance(source, str | Path):
        image, note = _open(_read(Path(source)))
    elif isinstance(source, bytes):
        image, note = _open(source)
    elif isinstance(source, Image.Image):
        image = source
    elif isinstance(source, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        image = _from_array(source)
    else:
        raise ImageError(
            f"A photo is a path, bytes, a PIL image or a [H, W, 3] uint8 array, but got {type(source).__name__}."
        )
    _check_size(*image.size)
    with _decoding():
        image.load()
        orientation, focal_35mm = _exif(image)
        rgb = _to_rgb(image)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
    return Photo(np.array(rgb), _fov_x_deg(rgb.width, rgb.height, focal_35mm), note)


def load_rgb(source: str | Path | bytes | Image.Image | np.ndarray | Photo) -> np.ndarray:
    """Decode a photo -> [H, W, 3] uint8, upright; the pixels of ``load_photo``.

    Raises:
        ImageError: as ``load_photo``.
    """
    return load_photo(source).pixels


def read_size(path: Path) -> tuple[int, int]:
    """Read the size of a photo file -> (height, width) before it is turned upright; only HEIC is decoded for it.

    Raises:
        ImageError: as ``load_photo``.
    """
    image, _ = _open(_read(path))
    return image.height, image.width


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
        raise ImageError("This is not a photo that can be read; use JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC.") from None
    except Exception:
        raise ImageError("The photo is damaged: it cannot be decoded.") from None


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ImageError("The photo cannot be read: there is no such file.")
    try:
        _check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"The photo cannot be read: {error.strerror}.") from None


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"The file has {size / 2**20:.0f} MB; the limit is {MAX_BYTES // 2**20} MB.")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The photo has too many pixels: {width} x {height}; the limit is {MAX_PIXELS / 1e6:.0f} megapixels."
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"The photo is too small: {width} x {height}, each side needs {MIN_SIDE_PX} pixels.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"The photo is too narrow: {width} x {height}, sides may differ {MAX_ASPECT} times at most.")


def _open(data: bytes) -> tuple[Image.Image, str | None]:
    """File content -> (image whose pixels are not decoded yet, note); HEIC is decoded at once, after its size check."""
    _check_bytes(len(data))
    brands = _iso_brands(data)
    if brands & _AVIF_BRANDS:
        raise ImageError("AVIF is not supported; save the photo as JPEG or PNG.")
    with _decoding():
        if brands & _HEIC_BRANDS:
            heif = cast(Any, pi_heif).open_heif(data)
            _check_size(*heif.size)
            return heif.to_pillow(), None  # libheif has turned it upright and the tag now says so
        image = Image.open(BytesIO(data), formats=FORMATS)
        _check_size(*image.size)
        if image.format in ("JPEG", "MPO"):
            width, height = image.size
            if width * height > DRAFT_PIXELS:
                image.draft(image.mode, (width // 2, height // 2))
                return image, f"The photo of {width} x {height} pixels was read at half its size."
        elif getattr(image, "is_animated", False):  # not n_frames, which reads the whole file
            return image, "The file is an animation or has several pages: the first one was used."
        return image, None


def _iso_brands(data: bytes) -> set[bytes]:
    """The brands of an ISO media file (HEIC, AVIF, MP4); empty for anything else."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[i : i + 4] for i in range(8, end, 4) if i != 12}  # 12 holds the minor version


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        shape = list(array.shape)
        raise ImageError(f"An array must be [H, W, 3], [H, W, 4] or [H, W] of uint8, but got {array.dtype} {shape}.")
    _check_size(array.shape[1], array.shape[0])  # before Pillow, which refuses empty arrays in its own words
    return Image.fromarray(array)


def _exif(image: Image.Image) -> tuple[int, float | None]:
    """The orientation tag and the 35 mm equivalent focal length; damaged metadata are ignored."""
    orientation, focal_35mm = 1, None
    with suppress(Exception):
        exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        focal_35mm = float(exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm])
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """[H, W] uint16, int32 or float32 -> [H, W] uint8.

    uint16 is full scale at 65535. For the others the smallest usual full scale that holds the values is
    taken, and values outside all of them are stretched from minimum to maximum.
    """
    if not np.isfinite(values).all():
        raise ImageError("The photo holds values that are not numbers (NaN or infinity).")
    low, high = float(values.min()), float(values.max())
    scales = {"u": (65535,), "i": (255, 65535), "f": (1, 255, 65535)}[values.dtype.kind]
    full = next((scale for scale in scales if low >= 0 and high <= scale), None)
    low, high = (0.0, full) if full else (low, max(high, low + 1))
    return np.rint((values.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
