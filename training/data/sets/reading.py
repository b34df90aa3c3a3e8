"""Readers of single files -> arrays; each fault of a file becomes a MarigoldError that names it."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from marigold_core.errors import ImageError, MarigoldError
from marigold_core.images.photo import FORMATS, load_rgb

HEIC = (".heic", ".heif", ".hif")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")  # what Pillow calls a 16-bit grey PNG
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_DAMAGE = (
    *(OSError, ValueError, TypeError, SyntaxError, EOFError, KeyError),
    *(struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError, RuntimeError),
)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what readers raise for a missing, empty or damaged file into a MarigoldError that names it."""
    try:
        if path.stat().st_size == 0:
            raise MarigoldError(f"{path} is empty.")
        yield
    except ImageError as error:
        raise MarigoldError(f"{path}: {error}") from None
    except MarigoldError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MarigoldError(f"{path} is missing.") from None
    except PermissionError:
        raise MarigoldError(f"{path} cannot be opened: permission denied.") from None
    except _DAMAGE:
        raise MarigoldError(f"{path} is damaged or cut off: it cannot be decoded.") from None


def read_photo(path: Path, upright: bool) -> np.ndarray:
    """Read a photo -> [H, W, 3] uint8.

    ``upright`` turns it as its EXIF tag says, as the app does. Published sets are read as they are stored, because
    their depth maps are not turned.

    Raises: MarigoldError naming the file when it is missing, damaged or no photo.
    """
    if path.suffix.lower() in HEIC:
        with naming(path):
            return load_rgb(path)  # libheif turns it upright as it decodes
    with naming(path), Image.open(path, formats=FORMATS) as image:
        if image.mode in (*SIXTEEN_BIT, "F"):
            raise MarigoldError(f"{path} is a 16-bit grey picture, not a photo; are photo and depth exchanged?")
        return load_rgb(image) if upright else np.array(image.convert("RGB"))


def photo_size(path: Path, upright: bool) -> tuple[int, int]:
    """Read (height, width) of what ``read_photo`` returns from the header of the file.

    Raises: MarigoldError as ``read_photo``.
    """
    if path.suffix.lower() in HEIC:
        with naming(path):
            height, width, _ = load_rgb(path).shape
            return height, width
    with naming(path), Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        turned = upright and image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (width, height) if turned else (height, width)


def read_png16(path: Path) -> np.ndarray:
    """Read a 16-bit grey PNG -> [H, W] uint16.

    Raises: MarigoldError naming the file when it is missing, damaged or of another kind.
    """
    with naming(path), Image.open(path, formats=("PNG",)) as image:
        if image.mode not in SIXTEEN_BIT:
            raise MarigoldError(f"{path} is a PNG of mode {image.mode}; depth is stored as 16-bit grey.")
        return np.asarray(image).astype(np.uint16)


def read_numbers(path: Path, key: str | None = None) -> np.ndarray:
    """Read a .npy array, or the array ``key`` of a .npz file -> [H, W], without unpickling; [H, W, 1] is taken too.

    Raises: MarigoldError naming the file when it is missing, damaged, or not a map of numbers.
    """
    with naming(path):
        if key is None:
            array = np.array(np.load(path, mmap_mode="r"))  # mapped: a header that promises too much is refused
        else:
            with path.open("rb") as file, np.load(file) as arrays:
                if key not in arrays:
                    raise MarigoldError(f"{path} has no array {key!r}, only {', '.join(arrays) or 'nothing'}.")
                array = arrays[key]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise MarigoldError(f"{path} holds {array.dtype} {list(array.shape)}; a map of numbers is [height, width].")
    return array


def check_shape(depth_m: np.ndarray, rgb: np.ndarray, path: Path) -> None:
    """Check that a depth map [H, W] fits its photo [H, W, 3]; ``path`` is the file to name.

    Raises: MarigoldError when the shapes differ.
    """
    if depth_m.shape != rgb.shape[:2]:
        there, wanted = (" x ".join(map(str, shape)) for shape in (depth_m.shape, rgb.shape[:2]))
        do = "save both in one size, the photo made smaller or the depth made larger without averaging"
        if depth_m.shape == rgb.shape[1::-1]:
            do = "save both the same way up; photos are turned as their EXIF tags say, depth maps are not"
        raise MarigoldError(f"{path} has {there} pixels, but the photo {wanted} (height x width): {do}.")


def check_depth(depth_m: np.ndarray, path: Path) -> None:
    """Check the values of a depth map [H, W] in metres; ``path`` is the file to name.

    Raises: MarigoldError when a depth is negative or none is known.
    """
    if (depth_m < 0).any():
        raise MarigoldError(f"{path} holds negative depths.")
    if not np.isfinite(depth_m).any():
        raise MarigoldError(f"{path} has no pixel with a known depth.")
