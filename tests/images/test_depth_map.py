"""Depth maps as other programs write them: the values as they were planted, and what the file says of them."""

import struct
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from marigold_core.errors import ImageError
from marigold_core.images import depth_map
from marigold_core.images.depth_map import decode, decode_embedded, from_array
from marigold_core.images.photo import load_photo
from marigold_core.settings import DepthReading
from tests.helpers.encoded import encoded, npy, png_of

LEVELS = np.add.outer(np.arange(18), np.arange(24)) * 5  # 0 to 200
PORTRAIT = Path(__file__).with_name("portrait.heic")  # drawn, not photographed
NAMESPACE = "http://ns.google.com/photos/1.0/depthmap/"


def exr(channels: dict[str, np.ndarray], **header: object) -> bytes:
    file = BytesIO()
    base = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(base | header, {name: np.ascontiguousarray(values) for name, values in channels.items()}).write(file)
    return file.getvalue()


# ------------------------------------------------------------------------------- pictures and arrays


@pytest.mark.parametrize(
    "data",
    [
        encoded(LEVELS.astype(np.uint8)),
        encoded(LEVELS.astype(np.uint16)),
        encoded(np.repeat(LEVELS.astype(np.uint8)[..., None], 3, axis=-1)),
        encoded(LEVELS.astype(np.uint8), "BMP"),
        encoded(LEVELS.astype(np.uint16), "TIFF"),
        encoded(LEVELS.astype(np.float32), "TIFF"),
        encoded(LEVELS.astype(np.float32), "PPM"),  # that is PFM
        npy(LEVELS.astype(np.uint8)),
        npy(LEVELS.astype(">f8")),
        npy(LEVELS.astype(np.float16)[None, ..., None]),
        npy(np.asfortranarray(LEVELS.astype(np.float32))),
    ],
    ids=["png8", "png16", "rgb", "bmp", "tiff16", "tiff-float", "pfm", "npy8", "npy-f8", "npy-axes", "npy-fortran"],
)
def test_values_are_those_of_the_file(data: bytes) -> None:
    found = decode(data)
    np.testing.assert_array_equal(found.values, LEVELS)
    assert found.stated == DepthReading() and found.ends is None


@pytest.mark.parametrize("most", [200, 254, 1000, 10000, 65534])
def test_a_pgm_and_a_ppm_hold_the_values_up_to_their_own_white(most: int) -> None:
    values = LEVELS * most // 200
    head, kind = b" 24 18 %d\n" % most, "u1" if most < 256 else ">u2"
    for data in (b"P5" + head + values.astype(kind).tobytes(), b"P2" + head + " ".join(map(str, values.flat)).encode()):
        np.testing.assert_array_equal(decode(data).values, values)
    colours = b"P6" + head + np.repeat(values, 3).astype(kind).tobytes()
    if most < 256:
        np.testing.assert_array_equal(decode(colours).values, values)
    else:
        with pytest.raises(ImageError, match=f"colours up to {most}, of which 8 bits are read"):
            decode(colours)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_png_of_few_bits_holds_its_values_as_stored(bits: int) -> None:
    values = LEVELS // 5 % 2**bits
    rows = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., -bits:].reshape(18, -1)
    lines = b"".join(b"\0" + line.tobytes() for line in np.packbits(rows, axis=-1))
    png = png_of(struct.pack(">IIBBBBB", 24, 18, bits, 0, 0, 0, 0), lines)
    np.testing.assert_array_equal(decode(png).values, values)


def test_colours_of_16_bits_keep_all_of_them() -> None:
    import cv2

    deep = (LEVELS * 300 + 7).astype(np.uint16)
    done, file = cv2.imencode(".png", np.repeat(deep[..., None], 3, axis=-1))
    assert done
    np.testing.assert_array_equal(decode(file.tobytes()).values, deep)


def test_what_is_transparent_or_no_number_or_no_hit_is_missing() -> None:
    alpha = np.full(LEVELS.shape, 255)
    alpha[:4] = 0
    picture = np.stack([LEVELS, LEVELS, LEVELS, alpha], axis=-1).astype(np.uint8)
    assert np.isnan(decode(encoded(picture)).values).sum() == 4 * 24
    values = LEVELS.astype(np.float32)
    values[0, :5] = np.nan, np.inf, -np.inf, 1e10, 3
    for data in (npy(values), exr({"Z": values})):
        np.testing.assert_array_equal(decode(data).values[0, :5], [np.nan, np.inf, -np.inf, np.inf, 3])
    coloured = exr({"R": values, "G": 2 * values, "B": values})
    with pytest.raises(ImageError, match="has colours"):
        decode(coloured)
    tiff = encoded(LEVELS.astype(np.float32), "TIFF", tiffinfo={42113: "200"})
    assert np.isnan(decode(tiff).values).sum() == (LEVELS == 200).sum() > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "This is an empty file or a folder"),
        (b"some text that is no picture", "This is no depth map that can be read"),
        (b"\x93NUMPY\x01\x00\x10\x00garbage", "The depth map is damaged"),
        (npy(np.zeros((4, 4, 3))), r"one number a pixel, \[H, W\], but got float64 of shape \[4, 4, 3\]"),
        (npy(np.zeros((4, 4), complex)), "one number a pixel"),
        (npy(np.zeros((0, 4))), "has 4 x 0 pixels"),
        (npy(np.zeros((64, 64)))[:300], "does not fit its size"),
        (exr({"Z": np.ones((8, 8), np.float32)})[:200], "The depth map is damaged"),
        (exr({name: np.ones((8, 8), np.float32) for name in ("u", "v")}), "The EXR file has no depth"),
        (exr({f"N.{name}": np.ones((8, 8), np.float32) for name in "XYZ"}), "The EXR file has no depth"),
        (exr({name: np.eye(8, dtype=np.float32) * (name == "R") for name in "RGB"}), "has colours"),
        (encoded(np.stack([LEVELS, 200 - LEVELS, LEVELS], axis=-1).astype(np.uint8)), "has colours"),
    ],
)
def test_what_is_no_depth_map_is_refused_in_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


@pytest.mark.parametrize("kind", [OpenEXR.scanlineimage, OpenEXR.tiledimage, None], ids=["lines", "tiles", "parts"])
def test_a_cut_exr_is_damaged_and_nothing_is_printed(kind: object, capfd: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    if kind is None:
        file = BytesIO()
        parts = [OpenEXR.Part({}, {name: values}, f"part {name}") for name in ("Y", "Z")]
        OpenEXR.File(parts).write(file)
        data = file.getvalue()
    else:
        tiles = {"tiles": OpenEXR.TileDescription()} if kind == OpenEXR.tiledimage else {}
        data = exr({"Z": values, "Y": values}, type=kind, **tiles)
    np.testing.assert_array_equal(decode(data).values, values)
    for length in (len(data) - 1, len(data) - 9000, len(data) // 2, 900, 400, 200, 9):
        with pytest.raises(ImageError, match="The depth map is damaged"):
            decode(data[:length])
    assert capfd.readouterr() == ("", "")


def test_an_exr_of_many_channels_is_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 2 MB may hold 8 GB of zeros."""
    data = exr({f"c{number}": np.zeros((64, 64), np.float16) for number in range(9)} | {"Z": np.ones((64, 64), "f4")})
    monkeypatch.setattr(depth_map, "MOST_EXR_VALUES", 64 * 64 * 10)
    assert decode(data).values.shape == (64, 64)
    monkeypatch.setattr(depth_map, "MOST_EXR_VALUES", 64 * 64 * 10 - 1)
    with pytest.raises(ImageError, match="holds 40,960 numbers in its channels; save its depth alone"):
        decode(data)


def test_an_exr_of_which_a_part_cannot_be_decoded_is_damaged() -> None:
    data = exr({name: np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.float32) for name in ("Y", "Z")})
    with pytest.raises(ImageError, match="The depth map is damaged"):
        decode(data[:-300] + b"x" * 300)


@pytest.mark.parametrize(
    ("bits", "count", "big", "words"),
    [
        (64, 1, False, "floats of 64 bits, 1 a pixel"),
        (32, 3, False, "floats of 32 bits, 3 a pixel"),
        (16, 1, False, "floats of 16 bits, 1 a pixel"),
        (64, 1, True, "floats of 64 bits, 1 a pixel"),
    ],
)
def test_floats_of_a_tiff_that_are_no_photo_are_named(bits: int, count: int, big: bool, words: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0\0\0\0\0")
    tags[256], tags[257], tags[258], tags[259], tags[262] = 8, 8, (bits,) * count, 1, 1
    tags[273], tags[277], tags[278], tags[279], tags[339] = 8, count, 8, 8 * bits * count, (3,) * count
    file = BytesIO()
    tags.save(file)
    with pytest.raises(ImageError, match=f"This TIFF has {words}, which are not read"):
        load_photo(file.getvalue() + bytes(8 * bits * count))


FORMS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzw", "predictor": True, "rowsperstrip": 5},
    {"compression": "lzw", "byteorder": ">", "tile": (16, 16)},
    {"compression": "zstd", "tile": (16, 32)},
    {"compression": "packbits"},
    {"planes": 3, "planarconfig": "separate", "compression": "zlib"},
    {"planes": 3, "photometric": "rgb"},
    {"photometric": "miniswhite"},
]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())) or "plain")
def test_tiffs_of_all_numbers_are_read_as_stored(kind: str, form: dict[str, Any]) -> None:
    values = (LEVELS - LEVELS.min() - (60 if kind[0] != "u" else 0)).astype(kind)
    expected, options = values.astype(np.float64), {"photometric": "minisblack"} | form
    if options.pop("planes", 1) == 3:
        values = np.stack([values, values, values], 0 if "planarconfig" in options else -1)
    np.testing.assert_array_equal(decode(tiff(values, **options)).values, expected)


def test_tiffs_say_which_page_was_read_what_is_missing_and_how_they_lie() -> None:
    values = np.linspace(1.1, 9, 24 * 32).reshape(24, 32)
    values[2, 3], values[4, 5], values[6, 7] = np.nan, np.inf, np.float32(-32767.1)
    data = tiff(values.astype(np.float32), extratags=[(42113, 2, 0, "-32767.1", True), (274, 3, 1, 6, True)])
    found = decode(data)
    assert found.values.shape == (32, 24)
    upright = np.rot90(found.values)  # the rows of a picture of orientation 6 run down its right side
    assert [tuple(map(int, at)) for at in np.argwhere(~np.isfinite(upright))] == [(2, 3), (4, 5), (6, 7)]
    np.testing.assert_allclose(upright[0], values[0], rtol=1e-6)
    pages = decode(tiff(np.stack([values, values + 1, values]), photometric="minisblack"))
    assert pages.note == "Of the 3 pages of the depth map the first one was used." and pages.values[0, 0] == 1.1
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:  # a preview that nothing calls one
        writer.write(values[::2, ::2], metadata=None)
        writer.write(values, metadata=None)
    pages = decode(file.getvalue())
    assert pages.note == "Of the 2 pages of the depth map the largest one was used." and pages.values.shape == (24, 32)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: tiff(np.ones((8, 8, 2)), planarconfig="contig"), "several numbers a pixel"),
        (lambda: tiff(np.ones((8, 8, 5)), planarconfig="contig"), "several numbers a pixel"),
        (lambda: tiff(np.ones((8, 8), np.complex64)), "this TIFF has complex64"),
        (lambda: tiff(np.random.default_rng(0).random((8, 8, 3)), photometric="rgb"), "has colours"),
        (lambda: tiff(np.ones((8, 8, 3), np.uint8), photometric="ycbcr"), "YCbCr colours without compression"),
        (lambda: tiff(np.ones((64, 64)))[:-900], "damaged"),
        (lambda: tiff(np.random.default_rng(0).random((64, 64)), compression="lzw")[:-900], "damaged"),
        (lambda: tiff(np.ones((64, 64)), compression="zlib").replace(b"x\x9c", b"y\x9c"), "damaged"),
    ],
)
def test_tiffs_of_which_depth_cannot_be_told_are_refused(data: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(data())


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    how: Any = {"photometric": "minisblack"} | options
    tifffile.imwrite(file, array, **how)
    return file.getvalue()


def test_a_pfm_of_colours_is_refused_as_such() -> None:
    with pytest.raises(ImageError, match="This PFM has three values a pixel"):
        decode(b"PF\n8 8\n-1\n" + np.ones((8, 8, 3), np.float32).tobytes())


def test_no_array_is_unpickled() -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode(npy(np.array([[{"a": 1}]], object)))


# ------------------------------------------------------------------------------- EXR


@pytest.mark.parametrize("name", ["Z", "depth.Z", "ViewLayer.Depth.Z", "ViewLayer.Depth.V", "Depth"])
def test_the_depth_of_an_exr_is_found_beside_its_colours(name: str) -> None:
    values = LEVELS.astype(np.float32) + 0.25
    found = decode(exr({"R": values * 0, "G": values * 0, "B": values * 0, name: values}))
    np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize(
    ("depth", "others"),
    [
        ("Z", "A.Position.X A.Position.Y A.Position.Z depth.Z"),
        ("depth.Z", "A.Position.X A.Position.Y A.Position.Z R G B"),
        ("Depth.V", "Normal.X Normal.Y Normal.Z"),
        ("Depth.V", "R G B A.Mist.Y"),
        ("ViewLayer.Depth.Z", "ViewLayer.Combined.R ViewLayer.Combined.G ViewLayer.Combined.B ViewLayer.Mist.Z"),
        ("ViewLayer.Z", "R G B Mist.Y Vector.X Vector.Y Vector.Z Vector.W UV.U UV.V UV.A"),
        ("Mist.Y", "R G B"),
        ("Mist.V", "N.X N.Y N.Z"),
    ],
)
def test_no_other_pass_of_an_exr_is_taken_for_its_depth(depth: str, others: str) -> None:
    values = LEVELS.astype(np.float32)
    found = decode(exr({depth: values} | {name: values * 0 for name in others.split()}))
    np.testing.assert_array_equal(found.values, values)
    assert found.stated.quantity == (None if "Mist" in depth else "depth")


def test_the_depth_of_an_exr_is_found_in_another_part_than_its_colours(tmp_path: Path) -> None:
    values = LEVELS.astype(np.float32)
    parts = [
        OpenEXR.Part({}, {name: values * 0 for name in "RGB"}, "colours"),
        OpenEXR.Part({}, {"Y": values}, "Depth"),
    ]
    OpenEXR.File(parts).write(str(tmp_path / "parts.exr"))
    np.testing.assert_array_equal(decode((tmp_path / "parts.exr").read_bytes()).values, values)


def test_the_name_of_a_channel_and_the_unit_of_an_exr_are_used() -> None:
    values = LEVELS.astype(np.float32)
    assert decode(exr({"Z": values})).stated == DepthReading(quantity="depth", greater="farther")
    assert decode(exr({"Z": values}, unit="metre")).stated.unit_m == 1
    assert decode(exr({"Y": values})).stated == DepthReading()
    assert decode(exr({name: values for name in "RGB"})).stated == DepthReading()
    np.testing.assert_array_equal(decode(exr({name: values for name in "RGB"})).values, values)
    assert decode(exr({"whatever": values.astype(np.float16)})).stated == DepthReading()
    for name in ("disparity", "View.Disparity.V", "inverse_depth"):
        for others in ({}, {name: values * 0 for name in "RGB"}):
            found = decode(exr({name: values} | others))
            np.testing.assert_array_equal(found.values, values)
            assert found.stated == DepthReading(quantity="disparity")


def test_what_the_mask_of_an_array_hides_is_missing() -> None:
    values = np.ma.masked_greater(LEVELS, np.median(LEVELS))
    np.testing.assert_array_equal(np.isnan(from_array(values).values), values.mask)


def test_what_lies_outside_the_stored_part_of_an_exr_is_missing() -> None:
    values = LEVELS.astype(np.float32)
    window = (np.array([0, 0], np.int32), np.array([29, 19], np.int32))
    found = decode(exr({"Z": values}, displayWindow=window)).values
    assert found.shape == (20, 30) and np.isnan(found[18:]).all() and np.isnan(found[:, 24:]).all()
    np.testing.assert_array_equal(found[:18, :24], values)


# ------------------------------------------------------------------------------- photos that carry depth


def xmp(**values: str) -> bytes:
    attributes = "".join(f' GDepth:{name}="{value}"' for name, value in values.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:GDepth="{NAMESPACE}"{attributes}/></rdf:RDF></x:xmpmeta>'
    ).encode()


def segment(content: bytes) -> bytes:
    return b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content


def gdepth_photo(depth: bytes, orientation: int = 1, cut: int | None = None, **said: str) -> bytes:
    """A JPEG with Google's depth in its XMP, in one packet or the data cut into segments of an extended one."""
    exif = Image.Exif()
    exif[274] = orientation
    jpeg = encoded(np.zeros((36, 48, 3), np.uint8), "JPEG", exif=exif)
    data = b64encode(depth).decode()
    said = {"Format": "RangeInverse", "Near": "2", "Far": "10", "Mime": "image/png"} | said
    if cut is None:
        packets = segment(b"http://ns.adobe.com/xap/1.0/\0" + xmp(**said, Data=data))
    else:
        packets, more = segment(b"http://ns.adobe.com/xap/1.0/\0" + xmp(**said)), xmp(Data=data)
        for at in reversed(range(0, len(more), cut)):  # in any order
            place = len(more).to_bytes(4, "big") + at.to_bytes(4, "big")
            packets += segment(b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + place + more[at : at + cut])
    return jpeg[:2] + packets + jpeg[2:]


@pytest.mark.parametrize("cut", [None, 100])
@pytest.mark.parametrize("unit_m", [1, 0.001])
def test_google_depth_is_read_by_its_formulas(cut: int | None, unit_m: float) -> None:
    share = LEVELS / 255
    unit = "m" if unit_m == 1 else "mm"
    inverse = decode_embedded(gdepth_photo(encoded(LEVELS.astype(np.uint8)), cut=cut, Units=unit))
    depth = 10 * 2 / (10 - share * (10 - 2))  # the formula of Google's page
    np.testing.assert_allclose(1 / inverse.values, depth, rtol=1e-12)
    wanted = DepthReading(quantity="disparity", kind="metric", unit_m=float(unit_m), measured="axis")
    assert inverse.stated == wanted
    linear = gdepth_photo(encoded(LEVELS.astype(np.uint8)), cut=cut, Format="RangeLinear", MeasureType="OpticRay")
    np.testing.assert_allclose(decode(linear).values, 2 + share * 8, rtol=1e-12)
    assert decode(linear).stated == DepthReading(quantity="depth", kind="metric", unit_m=1.0, measured="ray")


def test_google_depth_turns_upright_with_its_photo() -> None:
    photo = gdepth_photo(encoded(LEVELS.astype(np.uint8)), 6, Format="RangeLinear", Near="0", Far="255")
    found = decode_embedded(photo)
    np.testing.assert_allclose(found.values, np.rot90(LEVELS, -1), rtol=1e-12)


@pytest.mark.parametrize(
    "data",
    [
        gdepth_photo(b"no picture"),
        gdepth_photo(encoded(LEVELS.astype(np.uint8)), Near="near"),
        gdepth_photo(encoded(LEVELS.astype(np.uint8)), Near="5", Far="5"),
        gdepth_photo(encoded(LEVELS.astype(np.uint8)), Near="0"),
        gdepth_photo(encoded(LEVELS.astype(np.uint8)), Format="Range"),
        encoded(np.zeros((32, 32, 3), np.uint8), "JPEG"),
        encoded(np.zeros((32, 32), np.uint8)),
    ],
)
def test_a_photo_without_usable_depth_says_so(data: bytes) -> None:
    with pytest.raises(ImageError, match="depth map"):
        decode_embedded(data)


@pytest.mark.parametrize(("form", "near", "far"), [("RangeInverse", "1e-320", "5"), ("RangeLinear", "1", "inf")])
def test_ends_that_are_infinite_are_named(form: str, near: str, far: str) -> None:
    with pytest.raises(ImageError, match="from Near .* to Far"):
        decode_embedded(gdepth_photo(encoded(LEVELS.astype(np.uint8)), Format=form, Near=near, Far=far))


def test_the_depth_of_a_real_heic_file() -> None:
    """Its photo of ramps has a depth image of 8 bits, 3 (row + column), from 0.5 to 3 per metre, as portraits have."""
    found = decode_embedded(PORTRAIT.read_bytes())
    levels = 3 * np.add.outer(np.arange(36), np.arange(48))
    np.testing.assert_allclose(found.values, 0.5 + levels / 255 * 2.5, rtol=1e-6)
    assert found.stated == DepthReading(quantity="disparity") and found.belongs
    np.testing.assert_array_equal(decode(PORTRAIT.read_bytes()).values, found.values)


class HeifDepth(SimpleNamespace):
    """What pi_heif hands over as one of ``info["depth_images"]``."""

    size = LEVELS.shape[::-1]

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return LEVELS.astype(np.uint8)


@pytest.mark.parametrize(
    ("metadata", "values", "stated"),
    [
        (
            {"representation_type": 1, "d_min": 0.5, "d_max": 3.0, "z_near": None},
            0.5 + LEVELS / 255 * 2.5,
            DepthReading(quantity="disparity"),
        ),
        ({}, LEVELS / 255, DepthReading(quantity="disparity")),
        (
            {"representation_type": 0, "z_near": 0.5, "z_far": 4.0},
            0.25 + LEVELS / 255 * 1.75,
            DepthReading(quantity="disparity", kind="scale"),
        ),
        (
            {"representation_type": 2, "z_near": 0.5, "z_far": 4.0},
            0.5 + LEVELS / 255 * 3.5,
            DepthReading(quantity="depth", kind="scale"),
        ),
    ],
)
def test_the_depth_of_a_heic_portrait(metadata, values, stated, monkeypatch) -> None:
    opened = SimpleNamespace(info={"depth_images": [HeifDepth(info={"metadata": metadata})]})
    monkeypatch.setattr(depth_map.containers, "open_heif", lambda data: opened)
    found = decode(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")
    np.testing.assert_allclose(found.values, values, rtol=1e-12)
    assert found.stated == stated
    opened.info["depth_images"] = []
    with pytest.raises(ImageError, match="carries no depth map"):
        decode_embedded(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")
