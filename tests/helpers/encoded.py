"""Pictures and arrays as the bytes of files."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

PNG_BEGIN = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: object) -> bytes:
    """Write a picture as Pillow does, in a format of its own words."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(header: bytes, rows: bytes) -> bytes:
    """A PNG of a header's content and of its rows, each after the number of its filter."""
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PNG_BEGIN + b"".join(chunk(*one) for one in chunks)
