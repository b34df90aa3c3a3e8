"""Colours and tones of a decoded picture to 8 bits of sRGB: embedded profiles, alpha, and more than 8 bits."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

import numpy as np
from PIL import ExifTags, Image, ImageChops, TiffImagePlugin, UnidentifiedImageError
from PIL import ImageCms as _ImageCms

from marigold_core.errors import ImageError
from marigold_core.images.containers import ADOBE_RGB

ImageCms: Any = _ImageCms  # untyped
CICP = "cicp"  # under which the info of a picture holds what Pillow leaves out: the numbers of primaries and transfer
SPACE = "colour space"  # the same for what EXIF elsewhere in the file states
_PHOTOMETRIC, _YCBCR = 262, 6  # a TIFF tag, and a value of it
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
# TIFF tags; planar 2: a plane a colour; format 3: floats
_WIDTH, _BITS, _COMPRESSION, _COUNT, _PLANAR, _FORMAT = (256, 258, 259, 277, 284, 339)
_WEBP = 50001  # a value of the third
_READ = {*TiffImagePlugin.COMPRESSION_INFO} - {_WEBP}  # which the libtiff of Pillow is built without
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode -> a profile's colour space
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # how Pillow calls byte orders
_SRGB = 0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06  # x and y of white, red, green and blue
_PRIMARIES = {4: "BT.470 M", 8: "of film", 9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3"}  # by their numbers
_TRANSFERS = {
    5: "of gamma 2.8",
    8: "linear",
    9: "logarithmic",
    10: "logarithmic",
    16: "PQ",
    17: "SMPTE ST 428",
    18: "HLG",
}
_TRANSFER_TABLE, _WHITE_POINT, _PRIMARY_POINTS = 301, 318, 319  # TIFF tags, in EXIF too
_SRGB_PROFILE = "sRGB"
_JPEG_CHANGES = 4  # levels by which the colours of a grey picture differ
_DARK = 0.25  # pictures that reach no more of white than this may hold fewer bits than their file


def to_srgb(image: Image.Image, full: int | None = None) -> tuple[Image.Image, str | None]:
    """Any image -> (RGB, a note).

    Alpha is laid on white, a profile that fits the image is converted to sRGB, and deep tones become 8 bits. Colours
    that are stated otherwise than by a profile are taken as sRGB, which the note says.

    Args:
        image: decoded; it is not changed.
        full: the value of white in a deep image, where the file states it.

    Raises:
        ImageError: values that are not numbers.
    """
    alpha, note = None, None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = grey_values(image)
        full = full if full and values.max() <= full else None
        levels, note = _to_8_bit(values, full)
        if isinstance(clear := image.info.get("transparency"), int):  # the one value of a PNG that is
            alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is 0, which Pillow heeds up to 8 bits only
            levels, note = 255 - levels, None
        flat = Image.fromarray(levels)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        flat = rgba.getchannel("R") if image.mode in ("LA", "La") else rgba.convert("RGB")
    else:
        flat = image.convert("L") if image.mode == "1" else image if image.mode in _SPACES else image.convert("RGB")
    profile, said = image.info.get("icc_profile", b""), None
    if profile is None or (isinstance(profile, bytes) and profile):  # Pillow makes None of one that is cut
        rgb, said = _convert(flat, profile or b"")
    else:
        rgb = flat.convert("RGB")
        if flat.mode == "CMYK":
            said = "The file's colours are inks (CMYK) without a profile of their press, so that they are approximate."
        elif stated := _stated_colours(image):
            said = f"The file states its colours as {stated}, without a profile; they were taken as sRGB."
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return rgb, " ".join(filter(None, (note, said))) or None


def _stated_colours(image: Image.Image) -> str | None:
    """Name the colours that a file without a profile states and that are not sRGB, the strongest statement first.

    Source: https://www.w3.org/TR/png-3, chapter 4.3; ITU-T H.273 (numbers of primaries and transfers); TIFF 6.0,
    section 20; Exif 3.0 (ColorSpace, and R03 of DCF for Adobe RGB).
    """
    info: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if cicp := info.get(CICP):
        return " ".join(filter(None, (_PRIMARIES.get(cicp[0]), _TRANSFERS.get(cicp[1])))) or None
    if "srgb" in info:
        return None
    gamma, points = 1 / info.get("gamma", 0) if info.get("gamma") else 2.2, info.get("chromaticity", ())
    with suppress(Exception):  # damaged metadata are ignored
        exif = image.getexif()
        points = points or (*(exif.get(_WHITE_POINT) or _SRGB[:2]), *(exif.get(_PRIMARY_POINTS) or _SRGB[2:]))
        if table := exif.get(_TRANSFER_TABLE):  # of 2 to the power of bits entries, or three of them
            curve = table[: len(table) // 3] if len(table) % 3 == 0 else table
            gamma = math.log(curve[len(curve) // 2] / 65535) / math.log(0.5)
    if not 1.93 < gamma < 2.5:
        return f"of gamma {gamma:.3g}"
    if max((abs(one - usual) for one, usual in zip(points, _SRGB, strict=False)), default=0) > 0.01:
        return "of other primaries"
    with suppress(Exception):
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace, info.get(SPACE))
        if space == ADOBE_RGB or exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03":
            return "Adobe RGB"
    return None


def dark_note(most: float, white: int = 65535) -> str | None:
    """Say that a picture, whose greatest value is ``most``, may have a lower white; None where it does not seem so."""
    if not 0 < most < _DARK * white:
        return None
    return (
        f"The values of the picture are at most {most:.4g} of {white}, so it is taken as dark; if they have another"
        f" white, scale them to {white} before."
    )


def opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Open a picture, not decoded yet, with two corrections of how Pillow reads the deep values of a TIFF.

    It takes separate planes of 16 bits, uncompressed, for 8 bits, and swaps the bytes of compressed big-endian values,
    which libtiff hands over in this machine's order.

    Raises:
        ImageError: a TIFF that Pillow does not read: an unusual compression, numbers of 64 bits, floats of 16, several
            floats a pixel, grey of 16 bits with alpha, YCbCr without compression.
        UnidentifiedImageError: other content that it does not read.
    """
    try:
        image = Image.open(BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data[:4] in _TIFF and (tags := _first_tags(data)).get(_WIDTH):
            raise _unread(tags) from None
        raise
    tags: Any = getattr(image, "tag_v2", {})
    if not tags:
        return image
    if tags.get(_COMPRESSION) == _WEBP or (image.mode == "L" and _sign(tags) == "signed"):
        raise _unread(tags)  # Pillow would fail to decode it, or read numbers as if they had no sign
    is_big, tiles = data.startswith(b"MM"), cast(Any, image).tile
    if tags.get(_PHOTOMETRIC) == _YCBCR and tiles and tiles[0].codec_name == "raw":  # which Pillow finds cut short
        raise ImageError("This TIFF has YCbCr colours without compression, which are not read; save it as RGB or grey.")
    if tags.get(_PLANAR) == 2 and set(tags.get(_BITS, ())) == {16} and tiles[0].codec_name == "raw":
        order = ";16B" if is_big else ";16L"
        cast(Any, image).tile = [tile._replace(args=(tile.args[0] + order, *tile.args[1:])) for tile in tiles]
    elif is_big and image.mode in ("I", "F") and tiles[0].codec_name == "libtiff":
        native = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}[raw_mode(image)]
        cast(Any, image).tile = [tile._replace(args=(native, *tile.args[1:])) for tile in tiles]
    return image


def grey_values(image: Image.Image) -> np.ndarray:
    """Decode a picture of one number a pixel -> [h, w]; of 32 bits and of 16 with a sign Pillow makes int32."""
    values, tags = np.asarray(image), cast(Any, getattr(image, "tag_v2", None))
    if image.mode != "I" or not tags:
        return values
    return values.view(np.uint32) if not _sign(tags) else values.astype(f"i{max(tags[_BITS]) // 8}")


def _first_tags(data: bytes) -> Any:
    file = BytesIO(data)
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if b"+" in data[:4] else 8))
    file.seek(tags.next)
    tags.load(file)
    return tags


def _sign(tags: Any) -> str:
    """Tell what numbers a TIFF has: "" for those without a sign, which are usual, "signed" or "floats"."""
    return {2: "signed", 3: "floats"}.get(tags.get(_FORMAT, (1,))[0], "")


def _unread(tags: Any) -> ImageError:
    if (compression := tags.get(_COMPRESSION, 1)) not in _READ:
        return ImageError(
            f"This TIFF is compressed in a way that is not read (number {compression} of TIFF); save it with LZW,"
            " Deflate or no compression."
        )
    kind = {"signed": "signed numbers", "floats": "floats"}.get(_sign(tags), "numbers")
    return ImageError(
        f"This TIFF has {kind} of {max(tags.get(_BITS, (1,)))} bits, {tags.get(_COUNT, 1)} a pixel, which are not read;"
        " save grey or RGB of 8 or 16 bits without a sign, or one 32-bit float a pixel."
    )


def deep_colours(reopen: Callable[[], Image.Image], full: int) -> Image.Image:
    """Colours of 16 bits of which Pillow keeps the high byte -> 8 bits, ``full`` being white and opaque.

    Args:
        reopen: opens the picture once more, not decoded yet.
        full: the value of white.
    """
    values = deep_values(reopen)
    planes = np.minimum(values * np.float32(255 / full) + 0.5, 255).astype(np.uint8)
    if planes.shape[2] == 4 and values[..., 3].max() > full:
        planes[..., 3] = values[..., 3] >> 8
    image = Image.fromarray(planes)
    image.info |= reopen().info
    return image


def make_opaque(image: Image.Image) -> None:
    """Scale the alpha of a picture, in place, so that its greatest value is opaque."""
    alpha = image.getchannel("A")
    greatest = max(int(np.asarray(alpha).max()), 1)
    image.putalpha(alpha.point([min(255, level * 255 // greatest) for level in range(256)]))


def deep_values(reopen: Callable[[], Image.Image]) -> np.ndarray:
    """Colours of 16 bits of which Pillow keeps the high byte -> [H, W, 3 or 4] uint16, as ``deep_colours``.

    Raises:
        ImageError: compressed planes of a TIFF, of which nothing but the high byte can be had.
    """
    high, low = reopen(), reopen()
    tiles: list[Any] = cast(Any, low).tile
    if raw_mode(low) == "LA;16B":
        cast(Any, low).tile = [tile._replace(args="RGBA") for tile in tiles]  # as large, and keeps each byte
        return np.asarray(low).view(">u2").astype(np.uint16)[..., [0, 0, 0, 1]]
    if tiles[0].codec_name == "libtiff" and getattr(low, "tag_v2", {}).get(_PLANAR) == 2:
        raise ImageError(
            "The TIFF keeps 16-bit colours in separate compressed planes, which cannot be read; save them interleaved."
        )
    cast(Any, low).tile = [tile._replace(args=_swapped(tile.args)) for tile in tiles]
    return np.asarray(high).astype(np.uint16) * 256 + np.asarray(low)


def raw_mode(image: Image.Image) -> str:
    """How the stored values of a picture that is not decoded yet are laid out, as Pillow calls it."""
    tiles: list[Any] = getattr(image, "tile", [])
    args: Any = tiles[0].args if tiles else ""
    name: Any = args if isinstance(args, str) else next(iter(cast(tuple[Any, ...], args) or ()), "")
    return name if isinstance(name, str) else ""


def _swapped(args: Any) -> Any:
    """Arguments of Pillow's decoder -> those that keep the other byte of each value."""
    if not isinstance(args, str):
        return (_swapped(args[0]), *args[1:])
    return args[:-1] + _OTHER_BYTE[args[-1]]


def _convert(image: Image.Image, icc: bytes) -> tuple[Image.Image, str | None]:
    """Convert to sRGB by the image's profile, grey as colours that are grey -> (RGB, a note where it was not used)."""
    space, given = _space(icc), _SPACES[image.mode]
    suited = image
    if given == "GRAY" and space == "RGB":
        suited = image.convert("RGB")
    elif given == "RGB" and space == "GRAY" and _is_grey(image):
        suited = image.convert("L")
    transform = _transform(icc, suited.mode) if _SPACES[suited.mode] == space else None
    if isinstance(transform, _ImageCms.ImageCmsTransform):
        return ImageCms.applyTransform(suited, transform), None
    if transform == _SRGB_PROFILE:
        return suited, None
    why = "damaged" if space in (None, given) else f"of the kind {space}, and its colours are {given}"
    said = f"The file's colour profile is {why}, so that it was not used and colours may be wrong."
    return image.convert("RGB"), said


def _is_grey(image: Image.Image) -> bool:
    """Whether the three colours of an RGB picture are the same everywhere, but for what JPEG changes."""
    red, green, blue = image.split()
    differences: list[Any] = [ImageChops.difference(one, green) for one in (red, blue)]
    return max(one.getextrema()[1] for one in differences) <= _JPEG_CHANGES


def _space(icc: bytes) -> str | None:
    """Name the kind of colours that a profile is for; None where it cannot be read."""
    try:
        return ImageCms.ImageCmsProfile(BytesIO(icc)).profile.xcolor_space.strip()
    except Exception:  # the parser does not document what it raises of damaged profiles
        return None


@lru_cache(maxsize=8)
def _transform(icc: bytes, mode: str) -> _ImageCms.ImageCmsTransform | str | None:
    """Make the way from a profile that fits ``mode`` to sRGB, which may be ``_SRGB_PROFILE``; None where damaged."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # as above
        return None
    if mode == "RGB" and _changes_nothing(transform):
        return _SRGB_PROFILE  # which most photos name: faster, and to the last bit as stored
    return transform


def _changes_nothing(transform: _ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    converted = ImageCms.applyTransform(Image.fromarray(grid), transform)
    return bool(np.abs(np.asarray(converted).astype(int) - grid).max() <= 2)


def _to_8_bit(values: np.ndarray, full: int | None) -> tuple[np.ndarray, str | None]:
    """[H, W] of 16 or 32 bits -> ([H, W] uint8, a note).

    White is ``full`` where it is given, else 65535 for uint16. For the others the smallest usual full scale that holds
    the values is taken, and values outside all of them are stretched from minimum to maximum.
    """
    if not np.isfinite(values).all():
        raise ImageError("The photo holds values that are not numbers (NaN or infinity).")
    low, most = float(values.min()), float(values.max())
    scales = {"u2": (65535,), "i2": (255, 32767), "f4": (1, 255, 65535)}.get(values.dtype.str[1:], (255, 65535))
    white = full or next((scale for scale in scales if low >= 0 and most <= scale), None)
    low, high = (0.0, white) if white else (low, max(most, low + 1))
    scaled = np.rint((values.astype(np.float32) - low) * (255 / (high - low)))
    return np.clip(scaled, 0, 255).astype(np.uint8), dark_note(most, white) if white and not full else None
