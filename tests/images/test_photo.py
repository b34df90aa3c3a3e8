"""Decoding: what is read, how it is toned and turned, and what is refused in which words."""

import base64
import math
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from marigold_core.errors import ImageError
from marigold_core.images import depth_map
from marigold_core.images import photo as decoder
from marigold_core.images.bitstreams import CodedColours, hevc_colours
from marigold_core.images.photo import Photo, load_photo, load_rgb, to_network
from marigold_core.settings import MeshSettings
from tests.bench.fuzz import CORPUS
from tests.helpers.encoded import chunk, encoded, png_of

# 40 x 24 before libheif turns it by 90 degrees: top left red, bottom right blue, the rest white.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAcdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAAB6wABAAAAAAAAAGgAAgAAAAACUwABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABBmlwcnAAAADlaXBjbwAAAHVodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "rprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFw"
    "AAAAKAAAAAEAAAAYAAAAAf///+gAAAAC////2AAAAAIAAAAQcGl4aQAAAAADCAgIAAAACWlyb3QDAAAAGWlwbWEAAAAAAAAAAQAB"
    "BoECAwWEhgAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAAlG1kYXQAAABkKAGvGSG2UJj3lna+/TFcA/qYopaw6IkpHQN1djxD"
    "zAqIh0L7CqdhKnqZJxzWEKWTXjfPAGJIBR0Qxd/ypjBg8GP407UG3xT0T1cN+YTkx1CywUnQo3IRZl65IVrqQKlJVo2xYAAAAAZF"
    "eGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """Top left red, bottom right blue, the rest white: no flip or turn maps it to itself."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[height // 2 :, width // 2 :] = BLUE
    return pixels


def smooth() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 2 - y], axis=-1).astype(np.uint8))


def in_mode(mode: str) -> Image.Image:
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return cast(Image.Image, ImageCms.applyTransform(smooth(), to_lab))
    return smooth().quantize(256) if mode == "P" else smooth().convert(mode)


# ------------------------------------------------------------------------------- sources


def test_every_kind_of_source_gives_the_same_photo(tmp_path: Path) -> None:
    pixels = picture()
    content = encoded(pixels, "PNG")
    path = tmp_path / "photo.jpg"  # the suffix lies and does not matter
    path.write_bytes(content)
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    for source in (path, str(path), content, Image.fromarray(pixels), pixels, rgba, load_photo(content)):
        np.testing.assert_array_equal(load_rgb(source), pixels)
    np.testing.assert_array_equal(load_rgb(pixels[..., 0]), np.repeat(pixels[..., :1], 3, axis=2))


def test_the_photo_is_a_copy_and_the_caller_s_image_stays() -> None:
    pixels = picture()
    image = Image.fromarray(pixels)
    image.getexif()[274] = 6
    photo = load_photo(pixels)
    photo.pixels[:] = 0
    assert pixels.max() == 255
    load_photo(image)
    assert image.size == (40, 24) and image.getexif()[274] == 6


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "got NoneType"),
        (7, "got int"),
        (np.zeros((20, 20, 3), np.float32), "got float32 [20, 20, 3]"),
        (np.zeros((20, 20), np.uint16), "got uint16"),
        (np.zeros((20, 20, 2), np.uint8), "[20, 20, 2]"),
        (np.zeros((0, 20, 3), np.uint8), "too small: 20 x 0"),
        ("nowhere.jpg", "no such file"),
        ("/dev/zero", "it is no file"),
        (".", "it is no file"),
        ("a\0b", "no such file"),
        (b"", "empty file or a folder"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "not a photo"),
    ],
)
def test_wrong_sources_are_refused_in_words(source: object, words: str) -> None:
    with pytest.raises(ImageError, match=re.escape(words)):
        load_photo(source)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- limits (T01, T02)


def png_header(width: int, height: int) -> bytes:
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"0")


def patched(content: bytes, offset: int, form: str, *values: int) -> bytes:
    size = struct.calcsize(form)
    return content[:offset] + struct.pack(form, *values) + content[offset + size :]


def bombs() -> dict[str, bytes]:
    flat = Image.new("1", (9000, 9000))
    jpeg, bmp, gif = (encoded(picture(), form) for form in ("JPEG", "BMP", "GIF"))
    lossless = encoded(picture(), "WEBP", lossless=True)
    progressive = encoded(picture(), "JPEG", progressive=True)
    sof = jpeg.index(b"\xff\xc0") + 5
    ispe = HEIC.index(b"ispe") + 8
    return {
        "png flat": encoded(flat, "PNG"),
        "png 10^5": png_header(100_000, 100_000),
        "png 12000": png_header(12_000, 12_000),
        "png 9000": png_header(9_000, 9_000),
        "jpeg": patched(jpeg, sof, ">HH", 17000, 17000),
        "jpeg progressive": patched(progressive, progressive.index(b"\xff\xc2") + 5, ">HH", 9000, 9000),
        "jpeg 65500": patched(jpeg, sof, ">HH", 65500, 65500),
        "webp": patched(lossless, 21, "<I", (1 << 28) | 16382 << 14 | 16382),
        "tiff": encoded(flat, "TIFF", compression="group4"),
        "tiff tiles": encoded(flat, "TIFF", compression="tiff_adobe_deflate"),
        "bmp": patched(bmp, 18, "<ii", 30_000, 30_000),
        "gif": patched(gif, 6, "<HH", 65535, 65535),
        "heic": patched(HEIC, ispe, ">II", 30_000, 30_000),
    }


def test_bombs_are_refused_before_they_are_decoded() -> None:
    prepared = bombs()
    process = psutil.Process()
    for name, content in prepared.items():
        before, start = process.memory_info().rss, time.process_time()
        with pytest.raises(ImageError) as refusal:
            load_photo(content)
        if name != "heic":  # libheif has limits of its own
            assert "too many pixels" in str(refusal.value), name
        assert time.process_time() - start < 0.3, name
        assert process.memory_info().rss - before < 50 * 2**20, name


def test_narrow_and_small_photos_are_refused_and_the_narrowest_accepted() -> None:
    for width, height in ((1, 20000), (20000, 1), (7, 7), (15, 100), (17, 341)):
        with pytest.raises(ImageError, match="too (narrow|small)"):
            load_photo(np.zeros((height, width, 3), np.uint8))
    with pytest.raises(ImageError):
        load_photo(png_header(10, 0))
    for width, height in ((16, 320), (320, 16), (16, 16)):
        assert load_rgb(np.zeros((height, width, 3), np.uint8)).shape == (height, width, 3)


def test_long_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(decoder.MAX_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match="limit is 128 MB"):
        load_photo(path)


def test_jpegs_of_large_sensors_come_at_half_size_with_a_note_and_keep_their_own_pixels() -> None:
    content = encoded(Image.new("L", (10800, 8000), 77), "JPEG", exif=exif(6))
    photo = load_photo(content)
    assert photo.pixels.shape == (5400, 4000, 3) and photo.pixels[5, 5, 0] == 77
    assert photo.size == photo.given_size == (10800, 8000)
    assert photo.note and "8000 x 10800 pixels was read at half its size" in photo.note


def test_up_to_64_megapixels_a_jpeg_is_read_at_its_own_size() -> None:
    photo = load_photo(encoded(Image.new("L", (5800, 5600), 77), "JPEG"))
    assert photo.pixels.shape == (5600, 5800, 3) and photo.size == (5600, 5800) and photo.note is None


# ------------------------------------------------------------------------------- damage and disguise (T03 - T07)


SEEDS = [
    encoded(smooth(), "JPEG"),
    encoded(smooth(), "PNG"),
    encoded(smooth(), "WEBP"),
    encoded(smooth(), "TIFF", compression="tiff_lzw"),
    encoded(smooth(), "BMP"),
    encoded(smooth(), "GIF"),
    HEIC,
    encoded(smooth(), "AVIF"),
]


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_is_read_or_refused(path: Path) -> None:
    """What ``tests.bench.fuzz`` found to reach other code, beside one file a format."""
    photo_or_refusal(path.read_bytes())


def photo_or_refusal(content: bytes) -> Photo | None:
    try:
        return load_photo(content)
    except ImageError:
        return None


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, len(SEEDS) - 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_mutated_files_are_read_or_refused(seed: int, changes: list[tuple[float, int]]) -> None:
    content = bytearray(SEEDS[seed])
    for place, value in changes:
        content[int(place * min(len(content), 400))] = value  # headers are where it matters
    start = time.process_time()
    photo = photo_or_refusal(bytes(content))
    assert time.process_time() - start < 2
    assert photo is None or photo.pixels.ndim == 3


@pytest.mark.parametrize("content", SEEDS, ids=["jpeg", "png", "webp", "tiff", "bmp", "gif", "heic", "avif"])
def test_cut_files_are_refused(content: bytes) -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert photo_or_refusal(content) is not None
    for percent in range(0, 100, 5):
        photo = photo_or_refusal(content[: len(content) * percent // 100])
        assert photo is None or percent > 50


def disguises() -> dict[str, bytes]:
    Image.init()
    found = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'></svg>",
        "html": b"<!DOCTYPE html><html><body>photo</body></html>",
        "zip": b"PK\x03\x04" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
    }
    for form in set(Image.SAVE) - set(decoder.FORMATS) - {"MPO"}:  # an MPO is a JPEG with more behind it
        for mode in ("RGB", "L", "1"):
            try:
                found[form] = encoded(smooth().convert(mode), form)
                break
            except (OSError, ValueError, KeyError):  # this mode, or an encoder that Pillow lacks
                continue
    return found


def test_other_formats_are_refused_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a decoder started a process")

    files = disguises()
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    files["JXL"] = b"\xff\x0a" + bytes(60)
    files["MP4"] = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(60)
    names = {"JXL": "a JPEG XL picture", "MP4": "a video", "PDF": "a PDF document", "JPEG2000": "a JPEG 2000 picture"}
    assert names.keys() | {"EPS", "PPM", "TGA", "ICO"} <= files.keys() and len(files) > 20
    for name, content in files.items():
        with pytest.raises(ImageError) as refusal:
            load_photo(content)
        assert "not a photo that can be read" in str(refusal.value), name
        assert names.get(name, "") in str(refusal.value)


def test_heic_is_turned_upright_once() -> None:
    pixels = load_rgb(HEIC)
    expected = np.rot90(picture(), -1)
    assert pixels.shape == expected.shape == (40, 24, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 6


# ------------------------------------------------------------------------------- frames and tones (T08 - T10)


@pytest.mark.parametrize("frames", [2, 500])
@pytest.mark.parametrize(
    ("form", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "raw"})]
)
def test_the_first_frame_is_used_and_said(form: str, options: dict[str, object], frames: int) -> None:
    first = Image.fromarray(picture(16, 16))
    rest = [Image.new("RGB", (16, 16), (i % 256, 99, i // 2)) for i in range(1, frames)]
    content = encoded(first, form, save_all=True, append_images=rest, **options)
    start = time.process_time()
    photo = load_photo(content)
    assert time.process_time() - start < 0.5
    np.testing.assert_array_equal(photo.pixels, picture(16, 16))
    assert photo.note and "first one was used" in photo.note
    assert load_photo(encoded(first, form, **options)).note is None


PORTRAIT = Path(__file__).with_name("portrait.heic").read_bytes()  # with a map of depth beside the photo


def described(view: bytes) -> bytes:
    """A stereo pair, or the photo with a map of brightness that phones keep in the same place."""
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1.0'/>"
    return view[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + view[2:]


@pytest.mark.parametrize(
    ("content", "which"),
    [
        (encoded(smooth(), "MPO", save_all=True, append_images=[smooth()]), "first"),
        (encoded(smooth(), "MPO", save_all=True, append_images=[smooth(), smooth()]), "first"),
        (described(encoded(smooth(), "MPO", save_all=True, append_images=[smooth()])), None),
        (PORTRAIT.replace(b"auxl", b"xxxx"), "main"),
        (PORTRAIT, None),
        (encoded(smooth(), "TIFF", save_all=True, append_images=[smooth()]), "first"),
        (encoded(smooth(), "TIFF", save_all=True, append_images=[smooth()], tiffinfo={254: 1}), None),
        (encoded(smooth(), "AVIF", save_all=True, append_images=[smooth().rotate(90)]), "first"),
    ],
    ids=["pair", "three", "with brightness", "heic", "with depth", "pages", "previews", "sequence"],
)
def test_pictures_that_are_left_out_are_noted(content: bytes, which: str | None) -> None:
    note = load_photo(content).note
    assert (note or "").endswith(f"the {which} one was used.") if which else note is None


def ramp() -> np.ndarray:
    return np.linspace(0, 1, 600 * 32).reshape(32, 600)


@pytest.mark.parametrize(
    ("form", "array"),
    [
        ("PNG", np.rint(ramp() * 65535).astype(np.uint16)),
        ("TIFF", np.rint(ramp() * 65535).astype(np.uint16)),
        ("TIFF", np.rint(ramp() * 65535).astype(">u2")),
        ("TIFF", np.rint(ramp() * 65535).astype(np.int32)),
        ("TIFF", np.rint(ramp() * 255).astype(np.int32)),
        ("TIFF", (ramp() * 1e6 - 5e5).astype(np.int32)),
        ("TIFF", ramp().astype(np.float32)),
        ("TIFF", (ramp() * 255).astype(np.float32)),
        ("TIFF", (ramp() * 40 - 7).astype(np.float32)),
    ],
)
def test_deep_tones_equal_their_8_bit_twin(form: str, array: np.ndarray) -> None:
    pixels = load_rgb(encoded(array, form))
    assert len(np.unique(pixels)) > 250
    assert np.abs(pixels[..., 0] - ramp() * 255).max() <= 1
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize(("form", "value", "level"), [("PNG", np.uint16(6553), 25), ("TIFF", np.float32(-3), 0)])
def test_constant_photos_are_read_and_16_bit_is_never_stretched(form: str, value: np.generic, level: int) -> None:
    assert (load_rgb(encoded(np.full((16, 16), value), form)) == level).all()


def test_floats_that_are_no_numbers_are_refused() -> None:
    array = np.zeros((16, 16), np.float32)
    for bad in (np.nan, np.inf):
        array[3, 3] = bad
        with pytest.raises(ImageError, match="not numbers"):
            load_photo(encoded(array, "TIFF"))


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(("TIFF", mode) for mode in ("CMYK", "LAB", "YCbCr", "RGBA")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")),
        *(("GIF", "P"), ("BMP", "P"), ("WEBP", "RGBA")),
    ],
)
def test_colour_modes_equal_their_rgb_twin(form: str, mode: str) -> None:
    options = {"compression": "jpeg"} if (form, mode) == ("TIFF", "YCbCr") else {}  # Pillow misreads its own raw ones
    twin = smooth().convert(mode if mode in ("1", "L") else "L" if mode == "LA" else "RGB").convert("RGB")
    difference = np.abs(load_rgb(encoded(in_mode(mode), form, **options)).astype(int) - np.asarray(twin)).mean()
    assert difference <= (20 if mode == "CMYK" else 8)


def transparent_palette() -> Image.Image:
    image = Image.fromarray((np.arange(256).reshape(16, 16) // 128).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 0, 0, 0] + [0] * 762)
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_laid_on_white(form: str) -> None:
    pixels = load_rgb(encoded(transparent_palette(), form, transparency=1))
    assert (pixels[0] == (10, 20, 30)).all() and (pixels[-1] == 255).all()


def test_a_transparent_grey_of_16_bits_is_laid_on_white() -> None:
    grey = np.tile(np.arange(40, dtype=np.uint16) * 1000, (24, 1))
    image = Image.fromarray(grey)
    pixels = load_rgb(encoded(image, "PNG", transparency=5000))
    expected = np.rint(grey / 257)
    expected[:, 5] = 255
    np.testing.assert_array_equal(pixels[..., 0], expected)


def test_a_tiff_of_grey_and_alpha_of_16_bits_is_refused_by_what_it_holds() -> None:
    file = BytesIO()
    tifffile.imwrite(file, np.full((24, 40, 2), 9999, np.uint16), photometric="minisblack", extrasamples=["unassalpha"])
    with pytest.raises(ImageError, match=r"numbers of 16 bits, 2 a pixel, which are not read; save grey or RGB"):
        load_photo(file.getvalue())


@pytest.mark.parametrize("number", [34712, 34933, 50001])  # JPEG 2000, PNG, WebP
def test_a_tiff_of_an_unusual_compression_is_refused_by_it(number: int) -> None:
    plain = encoded(smooth(), "TIFF")
    stated = struct.pack("<HHIHH", 259, 3, 1, 1, 0)
    assert plain.count(stated) == 1
    with pytest.raises(ImageError, match=rf"compressed in a way that is not read \(number {number} of TIFF\); save it"):
        load_photo(plain.replace(stated, struct.pack("<HHIHH", 259, 3, 1, number, 0)))


def test_a_jpeg_of_more_than_8_bits_is_refused_by_them() -> None:
    plain = encoded(smooth(), "JPEG")
    at = plain.index(b"\xff\xc0") + 4
    with pytest.raises(ImageError, match=r"This JPEG has 12 bits a value, which are not read; save it with 8 bits\."):
        load_photo(plain[:at] + b"\x0c" + plain[at + 1 :])


def test_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[8:, :, 3] = 128
    pixels = load_rgb(rgba)
    assert (pixels[:8] == 255).all() and (pixels[8:] == 127).all()


# ------------------------------------------------------------------------------- metadata (T11)


def stored(orientation: int) -> Image.Image:
    """``picture()`` as a camera stores it under an orientation tag."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    return Image.fromarray(np.ascontiguousarray(turns[orientation](picture())))


def exif(orientation: int, focal_35mm: int | None = None) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    if focal_35mm is not None:
        tags.get_ifd(0x8769)[0xA405] = focal_35mm
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "tolerance"), [("PNG", 0), ("TIFF", 0), ("WEBP", 0), ("JPEG", 4)])
def test_every_orientation_comes_upright(form: str, tolerance: int, orientation: int) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    pixels = load_rgb(encoded(stored(orientation), form, exif=exif(orientation), **options))
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels.astype(int) - picture()).mean() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and goes on
def test_damaged_metadata_does_not_cost_the_photo() -> None:
    good = exif(6, 28).tobytes()
    rng = np.random.default_rng(0)
    blocks = [good[:cut] for cut in (7, 12, 20, 31)] + [good[:10] + rng.bytes(60), b"Exif\0\0" + rng.bytes(90)]
    for block in blocks:
        assert load_rgb(encoded(smooth(), "JPEG", exif=block)).size == 64 * 48 * 3
    assert load_rgb(encoded(smooth(), "JPEG", exif=exif(99))).shape == (48, 64, 3)
    for extra in ({"icc_profile": rng.bytes(200)}, {"xmp": rng.bytes(200)}, {"comment": rng.bytes(200)}):
        assert load_rgb(encoded(smooth(), "JPEG", **extra)).shape == (48, 64, 3)
    text = encoded(smooth(), "PNG")
    text = text[:33] + chunk(b"tEXt", b"a\0b") * 100_000 + text[33:]
    assert load_rgb(text).shape == (48, 64, 3)


@pytest.mark.parametrize(("orientation", "film_side_mm"), [(1, 36), (3, 36), (6, 24), (8, 24)])
def test_the_field_of_view_belongs_to_the_upright_photo(orientation: int, film_side_mm: int) -> None:
    landscape = Image.new("RGB", (300, 200))
    photo = load_photo(encoded(landscape, "JPEG", exif=exif(orientation, 28)))
    assert photo.fov_x_deg == pytest.approx(math.degrees(2 * math.atan(film_side_mm / 2 / 28)))


@pytest.mark.parametrize("focal", [1, 2, 4, 690, 3000, 65535])
def test_a_field_of_view_from_exif_is_one_that_geometry_takes(focal: int) -> None:
    """Of spheres and fisheyes, which no pinhole camera takes, up to zooms of half a degree."""
    found = load_photo(encoded(Image.new("RGB", (300, 200)), "JPEG", exif=exif(1, focal))).fov_x_deg
    right = math.degrees(2 * math.atan(18 / focal))
    assert found == (pytest.approx(right) if 0.1 <= right <= 150 else None)
    MeshSettings(fov_x_deg=found)


@pytest.mark.parametrize("focal", [None, 0])
def test_without_a_focal_length_there_is_no_field_of_view(focal: int | None) -> None:
    assert load_photo(encoded(smooth(), "JPEG", exif=exif(1, focal))).fov_x_deg is None


# ------------------------------------------------------------------------------- colours and bits


FROM_SRGB = np.array(  # linear light to XYZ, adapted to D50
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def to_srgb_bytes(xyz: np.ndarray) -> np.ndarray:
    """XYZ of D50 [..., 3] -> sRGB [..., 3] from 0 to 255, not rounded. Source: IEC 61966-2-1."""
    light = np.clip(xyz @ np.linalg.inv(FROM_SRGB).T, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def wide_gamut() -> bytes:
    """A profile of display class, made of sRGB's with the red and the green primary moved to those of Display P3."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name, xyz in (
        (b"rXYZ", (0.515, 0.241, -0.001)),
        (b"gXYZ", (0.292, 0.692, 0.042)),
        (b"bXYZ", (0.157, 0.067, 0.784)),
    ):
        entry = icc.index(name)
        at = int.from_bytes(icc[entry + 4 : entry + 8], "big") + 8
        icc[at : at + 12] = struct.pack(">3i", *(round(value * 65536) for value in xyz))
    return bytes(icc)


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})],
)
@pytest.mark.parametrize("alpha", [False, True])
def test_an_embedded_profile_is_converted_to_srgb(form: str, options: dict[str, object], alpha: bool) -> None:
    icc = wide_gamut()
    muted = Image.fromarray((np.asarray(smooth()) // 2 + 60).astype(np.uint8))  # inside both gamuts
    stored = ImageCms.profileToProfile(
        muted, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(icc)), outputMode="RGB"
    )
    assert stored is not None and np.abs(np.asarray(stored).astype(int) - np.asarray(muted)).max() > 15
    if alpha:
        stored.putalpha(255)
    pixels = load_rgb(encoded(stored, form, icc_profile=icc, **options))
    assert np.abs(pixels.astype(int) - np.asarray(muted)).max() <= (8 if form == "AVIF" else 3)


def with_profile(gif: bytes, icc: bytes) -> bytes:
    """Put a profile before the first picture of a GIF of 256 colours, in blocks of up to 255 bytes."""
    blocks = b"".join(bytes([len(icc[k : k + 255])]) + icc[k : k + 255] for k in range(0, len(icc), 255))
    at = 13 + 3 * 256
    return gif[:at] + b"!\xff\x0bICCRGBG1012" + blocks + b"\0" + gif[at:]


@pytest.mark.parametrize("frames", [1, 2])
def test_the_profile_of_a_gif_is_converted_to_srgb_or_noted(frames: int) -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    others = {"save_all": True, "append_images": [smooth().quantize()]} if frames > 1 else {}
    gif = encoded(colours.quantize(256), "GIF", loop=0, **others)
    flat, icc = load_rgb(gif), wide_gamut()
    expected = load_rgb(encoded(flat, "PNG", icc_profile=icc))
    assert np.abs(expected.astype(int) - flat).max() > 15
    photo = load_photo(with_profile(gif, icc))
    np.testing.assert_array_equal(photo.pixels, expected)
    assert "profile" not in (photo.note or "")
    damaged = load_photo(with_profile(gif, icc[:99]))
    np.testing.assert_array_equal(damaged.pixels, flat)
    assert "The file's colour profile is damaged, so that it was not used" in (damaged.note or "")


def test_the_profile_of_a_bmp_is_converted_to_srgb() -> None:
    stored, icc = (np.asarray(smooth()) // 2 + 60).astype(np.uint8), wide_gamut()
    bmp = encoded(stored, "BMP")
    head, pixels = bmp[18:54], bmp[54:]
    more = bytearray(124 - 40)
    more[16:20] = b"DEBM"  # PROFILE_EMBEDDED, at 56 of the header
    more[72:80] = struct.pack("<II", 124 + len(pixels), len(icc))
    place = struct.pack("<I", 14 + 124)
    with_icc = bmp[:10] + place + struct.pack("<I", 124) + head + more + pixels + icc
    expected = load_rgb(encoded(stored, "PNG", icc_profile=icc))
    assert np.abs(expected.astype(int) - stored).max() > 15
    np.testing.assert_array_equal(load_rgb(with_icc), expected)
    np.testing.assert_array_equal(load_rgb(with_icc.replace(b"DEBM", b"BGRs")), stored)  # LCS_sRGB


def test_a_profile_of_which_a_part_is_missing_is_noted() -> None:
    jpeg = encoded(smooth(), "JPEG", icc_profile=wide_gamut())
    first_of_two = jpeg.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2")
    photo = load_photo(first_of_two)
    np.testing.assert_array_equal(photo.pixels, load_rgb(encoded(smooth(), "JPEG")))
    assert photo.note == "The file's colour profile is damaged, so that it was not used and colours may be wrong."


def without_a_profile(stated: str | None) -> str | None:
    return stated and f"The file states its colours as {stated}, without a profile; they were taken as sRGB."


def stating(content: bytes, form: str, *colours: int) -> Photo:
    """Load an AVIF or HEIC file whose box of colours is made to state others than BT.709 and sRGB, from the first."""
    head, usual, rest = content.partition(b"nclx" + struct.pack(">HH", 1, 13))
    stated = struct.pack(form, *colours)
    return load_photo(head + usual[:4] + stated + (usual[4:] + rest)[len(stated) :])


PRIMARIES = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "stated"),
    [
        ([(b"cICP", b"\x0c\x0d\0\1")], "Display P3"),
        ([(b"cICP", b"\x09\x10\0\1")], "BT.2020 PQ"),
        ([(b"cICP", b"\x01\x0d\0\1"), (b"gAMA", struct.pack(">I", 100000))], None),
        ([(b"tEXt", b"Comment\0the cICP\x09\x10 chunk")], None),
        ([(b"cICP", b"\x09")], None),
        ([(b"gAMA", struct.pack(">I", 100000))], "of gamma 1"),
        ([(b"gAMA", struct.pack(">I", 45455))], None),
        ([(b"cHRM", PRIMARIES)], "of other primaries"),
        ([(b"sRGB", b"\0"), (b"cHRM", PRIMARIES)], None),
    ],
)
def test_colours_that_a_png_states_without_a_profile_are_noted(
    chunks: list[tuple[bytes, bytes]], stated: str | None
) -> None:
    png = encoded(smooth(), "PNG")
    photo = load_photo(png[:33] + b"".join(chunk(*one) for one in chunks) + png[33:])
    assert photo.note == without_a_profile(stated)


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
@pytest.mark.parametrize(
    ("primaries", "transfer", "stated"),
    [(1, 13, None), (12, 13, "Display P3"), (9, 16, "BT.2020 PQ"), (9, 18, "BT.2020 HLG"), (9, 1, "BT.2020")],
)
def test_colours_that_a_container_states_without_a_profile_are_noted(
    form: str, primaries: int, transfer: int, stated: str | None
) -> None:
    content = encoded(smooth(), "AVIF") if form == "AVIF" else PORTRAIT
    assert stating(content, ">HH", primaries, transfer).note == without_a_profile(stated)


def in_the_stream_alone(avif: bytes, colours: tuple[int, int, int]) -> bytes:
    """Take the colours of an AVIF out of its boxes, and have its coded pictures state others."""
    usual, others = (f"{'{:08b}' * 3}".format(*numbers) for numbers in ((1, 13, 6), colours))
    at = avif.index(b"mdat")
    head = f"{int.from_bytes(avif[at : at + 80], 'big'):0{8 * 80}b}"
    assert head.count(usual) >= 1
    coded = int(head.replace(usual, others), 2).to_bytes(80, "big")
    return avif[:at].replace(b"colr", b"free") + coded + avif[at + 80 :]


@pytest.mark.parametrize(
    "image",
    [smooth(), smooth().convert("L"), Image.merge("RGBA", [*smooth().split(), smooth().split()[0]])],
    ids=["RGB", "L", "RGBA"],
)
@pytest.mark.parametrize(
    ("colours", "stated"),
    [((1, 13, 6), None), ((12, 13, 6), "Display P3"), ((9, 16, 9), "BT.2020 PQ"), ((9, 16, 12), "BT.2020 PQ")],
)
def test_colours_that_only_the_stream_of_an_avif_states_are_noted(
    image: Image.Image, colours: tuple[int, int, int], stated: str | None
) -> None:
    assert load_photo(in_the_stream_alone(encoded(image, "AVIF"), colours)).note == without_a_profile(stated)


def by_matrix(form: str, matrix: int, is_full: bool = True, *, deep: bool = False) -> Photo:
    """Load a file whose planes are taken to be coded by another matrix than they are."""
    content = encoded(smooth(), "AVIF", subsampling="4:4:4", quality=100) if form == "AVIF" else PORTRAIT
    if deep:
        content = content.replace(b"pixi\0\0\0\0\3\x08\x08\x08", b"pixi\0\0\0\0\3\x0a\x0a\x0a")
    return stating(content, ">HHHB", 1, 13, matrix, 128 * is_full)


def test_the_identity_matrix_of_an_avif_is_heeded() -> None:
    y, cb, cr = (np.asarray(plane).astype(int) for plane in smooth().convert("YCbCr").split())
    for is_full, low, span in ((True, 0, 255), (False, 16, 219)):
        photo = by_matrix("AVIF", 0, is_full)
        expected = np.clip((np.stack([cr, y, cb], axis=-1) - low) * 255 / span, 0, 255)
        assert np.abs(photo.pixels - expected).mean() < 2 and photo.note is None  # coded with a little loss


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
@pytest.mark.parametrize("matrix", [3, 8, 10, 11, 13, 14, 16, 255])
def test_a_matrix_that_is_not_read_is_noted(form: str, matrix: int) -> None:
    photo = by_matrix(form, matrix, is_full=False)
    assert photo.note and f"by matrix {matrix} of ITU-T H.273, which is not read" in photo.note
    usual = by_matrix(form, 1, is_full=False)
    assert usual.note is None
    if (form, matrix) != ("HEIC", 8):
        np.testing.assert_array_equal(photo.pixels, usual.pixels)


def test_matrices_that_are_read_in_some_files_only_are_noted_in_the_others() -> None:
    assert by_matrix("HEIC", 8).note is None and by_matrix("HEIC", 8, deep=True).note
    assert by_matrix("HEIC", 0).note is None and by_matrix("HEIC", 0, is_full=False).note


def in_stream(primaries: int, transfer: int, matrix: int, is_full: bool) -> Photo:
    """Load a HEIC file of which the coded picture alone states its colours."""
    content = PORTRAIT.replace(b"colrnclx", b"freenclx")
    at = content.index(b"hvcC") + 4
    end = at - 8 + int.from_bytes(content[at - 8 : at - 4], "big")
    bits = f"{int.from_bytes(content[at:end], 'big'):0{8 * (end - at)}b}"
    usual, stated = (
        f"{full:b}1" + "".join(f"{number:08b}" for number in numbers)
        for full, *numbers in ((True, 1, 13, 6), (is_full, primaries, transfer, matrix))
    )
    assert bits.count(usual) == 1
    bits = bits.replace(usual, stated)
    return load_photo(content[:at] + int(bits, 2).to_bytes(end - at, "big") + content[end:])


@pytest.mark.parametrize("is_full", [False, True])
def test_colours_that_only_the_coded_picture_of_a_heic_states_are_heeded(is_full: bool) -> None:
    usual = in_stream(1, 13, 6, is_full)
    assert usual.note is None
    for matrix in (0, 8, 10, 11, 12, 13, 14):
        note = in_stream(1, 13, matrix, is_full).note or ""
        assert (f"by matrix {matrix} of ITU-T H.273, which is not read" in note) == (matrix > 8 or not is_full)
    for stated in ((12, 13, "Display P3"), (9, 16, "BT.2020 PQ")):
        assert (in_stream(*stated[:2], 6, is_full).note or "").startswith(f"The file states its colours as {stated[2]}")


def test_colours_of_a_sequence_with_all_options_are_read() -> None:
    """The description of ITU-T H.265, 7.3.2.2, with each part that may stand before the colours."""

    def golomb(number: int) -> str:
        return f"{number + 1:b}".rjust(2 * (number + 1).bit_length() - 1, "0")

    rest = "1" * 88
    parts = ["0000", "010", "1", rest, "1" * 8, "1101", "0" * 12, rest, "1" * 8, "1" * 8]  # two layers below
    parts += [golomb(0), golomb(3), "1", *map(golomb, (9, 9)), "1", *map(golomb, (1, 2, 3, 4)), *map(golomb, (2, 2, 4))]
    parts += ["1", *[golomb(5)] * 9, *map(golomb, range(6)), "11"]
    parts += ["1", *[golomb(2)] * 16] + ["0" + golomb(1)] * 11 + ["1", *[golomb(2)] * 65] + ["0" + golomb(0)] * 7
    parts += ["11", "1", "00001111", *map(golomb, (0, 1)), "1"]
    parts += [golomb(3), golomb(1), golomb(0), golomb(3), "0"]  # three sets of pictures: one, two, two
    parts += ["11", golomb(2), "01", "1", "10", golomb(0), "1", "00", "1"]
    parts += ["1", golomb(2), *["1" * 8 + "0"] * 2, "11", "1", "1", "1" * 8, "0" * 32, "11"]
    parts += ["1", "101", "0", "1", *(f"{number:08b}" for number in (9, 16, 10))]
    bits = "".join(parts)
    unit = b"\x42\1" + int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8), "big")
    unit = unit.replace(b"\0\0", b"\0\0\3")
    head = bytes(22) + b"\2" + b"\x20\0\1\0\2\1\1" + b"\x21\0\1" + len(unit).to_bytes(2, "big")
    assert hevc_colours(head + unit) == CodedColours(9, 16, 10, False)
    for short in (b"", head, head + unit[:60]):
        with pytest.raises(ValueError, match="missing|no description|too early"):
            hevc_colours(short)


def test_a_few_bytes_that_state_millions_of_parts_are_read_to_their_end_alone() -> None:
    class Counted(bytes):
        reads = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.reads += 1
            return bytes.__getitem__(self, at)

    with pytest.raises(ValueError, match="too early"):
        hevc_colours(Counted(bytes(22) + b"\xff" + b"\x20\xff\xff" * 9))
    assert Counted.reads < 100


@pytest.mark.parametrize(
    ("tags", "stated"),
    [
        ({319: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}, "of other primaries"),
        ({318: (0.3457, 0.3585)}, "of other primaries"),
        ({318: (0.3127, 0.329), 319: (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)}, None),
        ({301: tuple(range(0, 65536, 257))}, "of gamma 0.994"),
        ({301: tuple(round(65535 * (k / 255) ** 2.2) for k in range(256)) * 3}, None),
    ],
)
def test_colours_that_a_tiff_states_without_a_profile_are_noted(
    tags: dict[int, tuple[float, ...]], stated: str | None
) -> None:
    written = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in tags.items():
        written.tagtype[tag] = 3 if tag == 301 else 5
        written[tag] = values
    note = load_photo(encoded(smooth(), "TIFF", tiffinfo=written)).note
    assert (note is None) if stated is None else (f"as {stated}, without" in (note or ""))


@pytest.mark.parametrize(("space", "index"), [(2, None), (0xFFFF, "R03"), (1, "R98"), (0xFFFF, None)])
def test_adobe_rgb_in_exif_without_a_profile_is_noted(space: int, index: str | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    note = load_photo(encoded(smooth(), "JPEG", exif=exif)).note
    assert (note is not None and "as Adobe RGB, without" in note) == (space == 2 or index == "R03")
    assert load_photo(encoded(smooth(), "JPEG", exif=exif, icc_profile=wide_gamut())).note is None


D50 = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)


def lookup_profile(space: bytes, connection: bytes, table: bytes) -> bytes:
    """A profile whose colours are looked up in a table, as those of presses and of the space XYB are."""
    return profile(b"prtr" if space == b"CMYK" else b"scnr", space, connection, {b"wtpt": D50, b"A2B0": table})


def profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"table\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0CC0\0", **tags}
    index, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        index += tag + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x04300000, kind, space, connection)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + D50[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


@pytest.mark.parametrize(("form", "allowed"), [("TIFF", 4), ("JPEG", 8)])
def test_inks_are_converted_by_the_profile_of_their_press(form: str, allowed: int) -> None:
    """Sixteen mixtures of full inks, which this press prints as greys and muted colours of its own."""
    lab = np.array([(95 - 4 * k, 12 * (k % 4) - 18, 25 - 6 * (k // 2)) for k in range(16)], np.float64)
    lab[0] = 100, 0, 0  # paper is white
    corners = np.rint(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], axis=-1)).astype(np.uint8)
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0\4\3\2\0" + struct.pack(">9i", *(np.eye(3, dtype=int).ravel() * 65536))
    icc = lookup_profile(b"CMYK", b"Lab ", table + straight * 4 + corners.tobytes() + straight * 3)
    inks = np.array([[(255 * (k >> 3 & 1), 255 * (k >> 2 & 1), 255 * (k >> 1 & 1), 255 * (k & 1)) for k in range(16)]])
    stored = Image.fromarray(inks.repeat(32, 0).repeat(32, 1).astype(np.uint8), "CMYK")
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    found = load_rgb(encoded(stored, form, icc_profile=icc, **options))[16, 16::32].astype(int)
    y = (lab[:, 0] + 16) / 116
    roots = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 108 / 841) * (0.9642, 1, 0.8249)
    assert np.abs(found - to_srgb_bytes(xyz)).max() <= allowed
    without = load_photo(encoded(stored, form, **options))
    assert np.abs(found - without.pixels[16, 16::32]).max() > 60
    assert without.note == (
        "The file's colours are inks (CMYK) without a profile of their press, so that they are approximate."
    )


@pytest.mark.parametrize(("form", "allowed"), [("PNG", 3), ("JPEG", 12)])
def test_a_space_like_xyb_is_converted_to_srgb(form: str, allowed: int) -> None:
    """XYB's way from stored values to light: a mixture by a table, cubes, a matrix."""
    muted = (np.asarray(smooth()).astype(np.float64) / 255 * 0.1 + 0.55) ** 3  # light, whose roots lie within 0.1
    red, green, blue = np.moveaxis(np.cbrt(muted), -1, 0)
    x = (red - green + 0.1) / 0.2
    stored = np.rint(255 * np.stack([x, (red - 0.1 * x) / 0.9, blue], axis=-1)).clip(0, 255).astype(np.uint8)
    nodes = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    mixed = np.stack([0.9 * nodes[:, 1] + 0.1 * nodes[:, 0], 0.9 * nodes[:, 1] + 0.1 * (1 - nodes[:, 0]), nodes[:, 2]])
    grid = b"\2\2\2" + bytes(13) + b"\2\0\0\0" + np.rint(mixed.T * 65535).astype(">u2").tobytes()
    straight = (b"curv" + bytes(8)) * 3
    cubes = (b"para" + bytes(8) + struct.pack(">i", 3 * 65536)) * 3
    matrix = struct.pack(">12i", *np.rint(np.append(FROM_SRGB.ravel() * 32768 / 65535, (0, 0, 0)) * 65536).astype(int))
    places, body = [], b""
    for part in (straight, matrix, cubes, grid, straight):
        places.append(32 + len(body))
        body += part
    table = b"mAB \0\0\0\0\3\3\0\0" + struct.pack(">5I", *places) + body
    icc = lookup_profile(b"RGB ", b"XYZ ", table)
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    found = load_rgb(encoded(Image.fromarray(stored), form, icc_profile=icc, **options)).astype(int)
    expected = to_srgb_bytes(muted @ FROM_SRGB.T)
    assert np.abs(found - expected).max() <= allowed
    assert np.abs(stored.astype(int) - expected).max() > 30


def test_srgb_named_by_its_profile_is_read_to_the_last_bit() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load_rgb(encoded(picture(), "PNG", icc_profile=icc)), picture())


def curve_profile(space: bytes, gamma: float) -> bytes:
    """A profile of one curve, of grey or of sRGB's primaries."""
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    if space == b"GRAY":
        return profile(b"mntr", space, b"XYZ ", {b"wtpt": D50, b"kTRC": curve})
    columns = np.rint(FROM_SRGB * 65536).astype(int).T
    primaries = {
        name: b"XYZ " + bytes(4) + struct.pack(">3i", *xyz)
        for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile(b"mntr", space, b"XYZ ", {b"wtpt": D50, **primaries, **curves})


@pytest.mark.parametrize(("mode", "space"), [("L", b"RGB "), ("LA", b"RGB "), ("RGB", b"GRAY"), ("P", b"GRAY")])
def test_a_grey_picture_is_converted_by_a_profile_of_colours_and_as_colours_by_one_of_grey(
    mode: str, space: bytes
) -> None:
    grey = np.tile(np.arange(32, 224, 3, dtype=np.uint8), (64, 1))
    image = Image.fromarray(grey).convert("RGB").quantize(64) if mode == "P" else Image.fromarray(grey).convert(mode)
    photo = load_photo(encoded(image, "PNG", icc_profile=curve_profile(space, 1.0)))
    assert photo.note is None
    light = np.asarray(image.convert("L")) / 255
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels - expected[..., None]).max() <= 2


@pytest.mark.parametrize(
    ("mode", "space", "said"),
    [
        ("RGB", b"GRAY", "of the kind GRAY, and its colours are RGB"),
        ("RGB", b"CMYK", "of the kind CMYK, and its colours are RGB"),
        ("RGB", b"Lab ", "of the kind Lab, and its colours are RGB"),
        ("P", b"CMYK", "of the kind CMYK, and its colours are RGB"),
        ("RGBA", b"CMYK", "of the kind CMYK, and its colours are RGB"),
        ("L", b"CMYK", "of the kind CMYK, and its colours are GRAY"),
        ("CMYK", b"RGB ", "of the kind RGB, and its colours are CMYK"),
        ("CMYK", b"GRAY", "of the kind GRAY, and its colours are CMYK"),
        ("LAB", b"RGB ", "of the kind RGB, and its colours are Lab"),
        ("RGB", b"", "damaged"),
    ],
)
def test_a_profile_that_is_not_for_the_colours_of_its_picture_is_noted(mode: str, space: bytes, said: str) -> None:
    image, form = in_mode(mode), "TIFF" if mode in ("CMYK", "LAB") else "PNG"
    if space in (b"GRAY", b"RGB "):
        icc = curve_profile(space, 1.8)
    elif space:
        icc = wide_gamut().replace(b"RGB ", space, 1)
    else:
        icc = b"none" * 50
    photo = load_photo(encoded(image, form, icc_profile=icc))
    assert photo.note and said in photo.note and "was not used" in photo.note
    np.testing.assert_allclose(photo.pixels, load_rgb(encoded(image, form)), atol=1)  # Lab is rounded once more


def with_sbit(png: bytes, bits: int, planes: int) -> bytes:
    return png[:33] + chunk(b"sBIT", bytes([bits] * planes)) + png[33:]


@pytest.mark.parametrize("bits", [10, 12])
def test_few_bits_in_16_are_scaled_by_what_the_file_says(bits: int) -> None:
    white = (1 << bits) - 1
    values = np.rint(ramp() * white).astype(np.uint16)
    plain = encoded(values, "PNG")
    stated = {
        "png": with_sbit(plain, bits, 1),
        "tiff": encoded(values, "TIFF", tiffinfo={281: white}),
        "png rgb": with_sbit(png_rgb16(np.dstack([values] * 3)), bits, 3),
    }
    for name, content in stated.items():
        photo = load_photo(content)
        assert np.abs(photo.pixels - ramp()[..., None] * 255).max() <= 1 and photo.note is None, name
    for content in (plain, png_rgb16(np.dstack([values] * 3))):  # nothing is stated: taken as it is, and said
        photo = load_photo(content)
        assert photo.pixels.max() in (white >> 8, round(white / 257))
        assert photo.note and f"at most {white} of 65535, so it is taken as dark" in photo.note
    filled = np.rint(ramp() * 65535).astype(np.uint16)  # as the PNG specification wants it: scaled already
    photo = load_photo(with_sbit(encoded(filled, "PNG"), bits, 1))
    assert np.abs(photo.pixels[..., 0] - ramp() * 255).max() <= 1 and photo.note is None


@pytest.mark.parametrize("alone", [False, True], ids=["colours", "grey"])
def test_alpha_of_few_bits_in_16_is_scaled_as_the_colours_are(alone: bool) -> None:
    values = np.rint(ramp() * 4095).astype(np.uint16)
    for alpha, level in ((4095, 255), (2048, 127.5), (65535, 255)):
        planes = np.dstack([values] * (1 if alone else 3) + [np.full_like(values, alpha)])
        if alpha == 2048:
            planes[0, 0, -1] = 4095
        stated = load_photo(with_sbit(png_rgb16(planes), 12, planes.shape[2]))
        expected = 255 - level * (1 - ramp())
        assert np.abs(stated.pixels - expected[..., None])[1:].max() <= 1 and stated.note is None
        silent = load_photo(png_rgb16(planes))  # as dark as without alpha
        if alpha != 2048:
            assert silent.pixels.max() == 15 and silent.note and "taken as dark" in silent.note


@pytest.mark.parametrize("most", [4095, 12.75, 0.2, 2.0])
def test_floats_far_below_white_are_said_to_be_dark(most: float) -> None:
    white = next(scale for scale in (1, 255, 65535) if most <= scale)
    photo = load_photo(encoded((ramp() * most).astype(np.float32), "TIFF"))
    assert photo.note and f"at most {most:g} of {white}, so it is taken as dark" in photo.note
    assert load_photo(encoded((ramp() * white).astype(np.float32), "TIFF")).note is None


def test_a_deep_tiff_in_which_white_is_0_is_no_negative() -> None:
    tiff = bytearray(encoded(np.rint((1 - ramp()) * 65535).astype(np.uint16), "TIFF"))
    at = tiff.index(struct.pack("<HHIH", 262, 3, 1, 1))
    tiff[at + 8] = 0
    photo = load_photo(bytes(tiff))
    assert np.abs(photo.pixels - ramp()[..., None] * 255).max() <= 1 and photo.note is None


def grey_tiff(values: np.ndarray, form: int, order: str, packed: bool) -> bytes:
    """[h, w] -> a TIFF of one strip; ``form`` is 1 for numbers without a sign, 2 with one, 3 for floats."""
    (height, width), bits = values.shape, values.dtype.itemsize * 8
    strip = values.astype(values.dtype.newbyteorder(cast(Any, order))).tobytes()
    strip = zlib.compress(strip) if packed else strip
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0" if order == "<" else b"MM\0*\0\0\0\0")
    for tag, value in ((256, width), (257, height), (258, bits), (259, 8 if packed else 1), (262, 1), (277, 1)):
        tags[tag] = value
    tags[278], tags[279], tags[339], tags[273] = height, len(strip), form, 0
    file = BytesIO()
    tags.save(file)  # which counts the place of strips, 273, from its own end
    return file.getvalue() + strip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "form", "white"), [("i2", 2, 32767), ("i4", 2, 65535), ("u4", 1, 65535), ("f4", 3, 1)]
)
def test_deep_grey_tiffs_are_read_in_every_order_and_sign(
    kind: str, form: int, white: int, order: str, packed: bool
) -> None:
    values = (ramp() * white).astype(kind)
    content = grey_tiff(values, form, order, packed)
    np.testing.assert_array_equal(depth_map.decode(content).values, values)
    if (kind, order) == ("u4", ">"):
        with pytest.raises(ImageError, match="numbers of 32 bits, 1 a pixel, which are not read"):
            load_photo(content)
        return
    photo = load_photo(content)
    assert np.abs(photo.pixels - ramp()[..., None] * 255).max() <= 1 and photo.note is None


def test_signs_of_a_tiff_are_heeded() -> None:
    values = np.rint(ramp() * 4e9).astype(np.uint32)
    assert np.abs(load_photo(grey_tiff(values, 1, "<", False)).pixels - ramp()[..., None] * 255).max() <= 1
    dark = load_photo(grey_tiff((ramp() * 4095).astype(np.int16), 2, "<", False))
    assert dark.note and "at most 4095 of 32767, so it is taken as dark" in dark.note
    below = (ramp() * 200 - 100).astype(np.int8)
    with pytest.raises(ImageError, match="signed numbers of 8 bits, 1 a pixel, .+ without a sign"):
        load_photo(grey_tiff(below, 2, "<", False))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [3, 4])
def test_separate_planes_of_16_bits_are_read(order: str, planes: int) -> None:
    values = np.rint(ramp() * 65535).astype(np.uint16)
    colours = np.stack([values, values[:, ::-1], values // 2, np.full_like(values, 65535)][:planes])
    pixels = load_photo(planar_tiff(colours, order)).pixels
    assert np.abs(pixels - np.moveaxis(colours[:3], 0, -1) / 257.0).max() <= 1
    grey = np.stack([*[values] * 3, np.full_like(values, 65535)][:planes])
    np.testing.assert_array_equal(depth_map.decode(planar_tiff(grey, order)).values, values)


def planar_tiff(planes: np.ndarray, order: str) -> bytes:
    """[3 or 4, h, w] uint16 -> an uncompressed TIFF with a plane of each colour."""
    count, height, width = planes.shape
    size, tags_end = height * width * 2, 8 + 2 + 12 * 11 + 4
    bits_at, places_at, sizes_at = tags_end, tags_end + 8, tags_end + 24
    data_at = sizes_at + 16
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, count, bits_at), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, count, places_at), (277, 3, 1, count), (278, 4, 1, height), (279, 4, count, sizes_at)]
    tags += [(284, 3, 1, 2)] + [(338, 3, 1, 2)] * (count == 4)
    content = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    for tag, kind, length, value in tags:
        short = kind == 3 and length == 1
        content += struct.pack(order + ("HHIHH" if short else "HHII"), tag, kind, length, value, *([0] * short))
    content = (content + bytes(4)).ljust(tags_end, b"\0")
    content += struct.pack(order + "4H", *[16] * 4)
    content += struct.pack(order + "8I", *(data_at + size * k for k in range(4)), *[size] * 4)
    return content + planes.astype(order + "u2").tobytes()


def png_rgb16(values: np.ndarray) -> bytes:
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_of(struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[values.shape[2]], 0, 0, 0), rows)


# ------------------------------------------------------------------------------- to the network


@pytest.mark.parametrize(
    ("height", "width", "resolution", "factor"),
    [(48, 64, 0, 8), (33, 200, 96, 8), (61, 47, 128, 8), (100, 75, 64, 4), (16, 320, 48, 16), (200, 33, 0, 8)],
)
def test_network_input_has_the_numbers_of_diffusers(height: int, width: int, resolution: int, factor: int) -> None:
    import torch
    from diffusers.pipelines.marigold.marigold_image_processing import MarigoldImageProcessor

    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    theirs, padding, _ = MarigoldImageProcessor(vae_scale_factor=factor).preprocess(
        Image.fromarray(pixels), processing_resolution=resolution
    )
    ours, size = to_network(pixels, resolution, factor)
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    assert size == (theirs.shape[2] - padding[0], theirs.shape[3] - padding[1])
    assert (ours - theirs).abs().max() <= 1e-5  # a level of 8 bits is 8e-3


def test_the_narrowest_photo_at_the_lowest_resolution_keeps_a_row() -> None:
    tensor, size = to_network(np.zeros((16, 320, 3), np.uint8), 16, 8)
    assert size == (1, 16) and tensor.shape == (1, 3, 8, 16)


def test_reading_photos_needs_no_torch() -> None:
    code = "import sys, marigold_core.images.photo; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
