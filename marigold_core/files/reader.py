"""``from_depth`` makes a prediction of a depth map from elsewhere, which everything here then serves as its own.

What a file says of its values is used: the texts and the manifest of our own files, and what ``images.depth_map`` reads
of others. What it does not say is taken from the arguments, else as usual, which the prediction's note says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from marigold_core.errors import ImageError, MarigoldError, SettingsError
from marigold_core.files.formats import FILES
from marigold_core.files.manifest import Manifest, sha256
from marigold_core.geometry.camera import pixel_rays
from marigold_core.geometry.depth_filters import fill_missing
from marigold_core.images import depth_map
from marigold_core.images.depth_map import DepthMap
from marigold_core.images.differences import resize_map
from marigold_core.images.photo import load_photo, read_file
from marigold_core.prediction import Prediction, meaning_of
from marigold_core.settings import DepthKind, DepthReading, MeshSettings, check_type

GIVEN = "given: "  # before the name of the map, where other predictions name their checkpoint
_DEPTH_FILES = ("npy", "png16", "exr", "controlnet", "height", "rgbz", "depth_mm")  # of ``FILES``
_WORDS = {"affine": "relative", "metric": "in metres", "farther": "greater is farther", "nearer": "greater is nearer"}
_BARE = " An array carries no unit: metres need it said (1 metre for a depth.npy of ours); our EXR and PNG carry it."
_NO_DEPTH = "This is {what} of a result, no depth map; give its depth.npy or depth_16bit.png."
_ASPECT, _OWN_ASPECT = 0.04, 0.25  # how far the aspects may differ: estimators round sizes to multiples of 14 or 32


def from_depth(
    photo: Any,
    depth: str | Path | bytes | np.ndarray | None = None,
    reading: DepthReading | None = None,
    *,
    fov_x_deg: float | None = None,
) -> Prediction:
    """Make a prediction of a photo and a depth map from elsewhere, for files, geometry, metres and comparisons.

    Args:
        photo: what ``load_photo`` takes.
        depth: a PNG, TIFF, EXR, NPY or PFM, its content, or any numbers [h, w]; by default the map that the photo's
            own file carries. It is resized to the photo where the aspects match.
        reading: what its values mean, where the file does not say so, or is not to be believed.
        fov_x_deg: horizontal field of view, degrees; by default the photo's own.

    Returns:
        Depth at the photo's size, of the kind that was stated. ``note`` says what was taken as usual and what was done.
        Pixels without a value hold the nearest known one and are ``missing``: meshes, points and metres leave them
        out, and NPY and EXR hold NaN there.

    Raises:
        ImageError: the photo or the map cannot be used, or their aspects differ.
        SettingsError: the reading contradicts itself, or lacks what it needs; a field of view outside its range.
    """
    fov_x_deg = MeshSettings(fov_x_deg=fov_x_deg).fov_x_deg
    opened, source = load_photo(photo), _open(photo, depth)
    fov_x_deg = fov_x_deg or opened.fov_x_deg or source.fov_x_deg
    check_type("reading", reading or DepthReading(), DepthReading)
    full, assumed = _complete(reading or DepthReading(), source.map.stated)
    if assumed and full.kind == "affine" and source.is_bare:
        assumed += _BARE
    (values, is_far), kind = _to_convention(source.map, full, fov_x_deg), full.kind
    assert kind is not None  # _complete has filled it in
    size, stored = (opened.pixels.shape[0], opened.pixels.shape[1]), (values.shape[0], values.shape[1])
    _check_aspect(stored, size, _OWN_ASPECT if source.map.belongs else _ASPECT)
    values, missing = fill_missing(values)
    said = opened.note or ""
    notes = [source.map.note, assumed]
    if stored != size:
        values = resize_map(values, size)
        missing = None if missing is None else resize_map(missing.astype(np.float32), size) > 0.5
        notes.append(f"The depth map of {stored[1]} x {stored[0]} was resized to the photo's {size[1]} x {size[0]}.")
    if missing is not None and not missing.any():  # too few for the photo's size
        missing = None
    if missing is not None:
        counts = f", as which {depth_map.NO_HIT:,.0f} and more counts" if is_far else ""
        notes.append(
            f"{max(missing.mean(), 0.001):.1%} of its pixels have no value{counts}: meshes, points and metres leave"
            " them out, pictures show the nearest known one."
        )
    return Prediction(
        modality="depth",
        kind=kind,
        space=(full.quantity or "depth") if kind == "affine" else "depth",
        values=values.astype(np.float32),
        uncertainty=None,
        members=None,
        photo=opened.pixels,
        fov_x_deg=fov_x_deg,
        settings=full,
        checkpoint=f"{GIVEN}{source.name}",
        checkpoint_sha256=source.sha256,
        note=" ".join(filter(None, [said, *(note for note in notes if note and note not in said)])) or None,
        given_size=opened.given_size,
        missing=missing,
    )


# ------------------------------------------------------------------------------- what is read


@dataclass(frozen=True)
class _Source:
    """A decoded map, with what is known of it from its own file and from the manifest beside that."""

    map: DepthMap
    name: str
    sha256: str
    fov_x_deg: float | None = None
    is_bare: bool = False  # whether it is an array, which carries no texts, and no manifest is beside it


def _open(photo: object, depth: object) -> _Source:
    if isinstance(depth, np.ndarray):
        array = cast(np.ndarray, depth)
        return _Source(depth_map.from_array(array), "array", sha256(array.tobytes()), is_bare=True)
    file = photo if depth is None else depth
    if not isinstance(file, str | Path | bytes):
        if depth is None:
            raise ImageError("Give a depth map as well: this photo is no file, which could carry one.")
        raise ImageError(f"A depth map is a path, bytes or an array [H, W], but got {type(depth).__name__}.")
    data = file if isinstance(file, bytes) else read_file(Path(file), "depth map")
    found = depth_map.decode_embedded(data) if depth is None else depth_map.decode(data)
    name = "file" if isinstance(file, bytes) else Path(file).name
    digest = sha256(data)
    record = None if isinstance(file, bytes) else _record_of(Path(file), digest)
    if record and name.endswith(FILES["npy"][0]):
        found = _own(found.values, record.kind, record.space)  # an array carries no texts
    is_bare = record is None and data.startswith(depth_map.NPY)
    return _Source(_as_written(found), name, digest, record.fov_x_deg if record else None, is_bare)


def _record_of(path: Path, digest: str) -> Manifest | None:
    """Find the manifest beside a file of ours, which lists that very file. Raises: ImageError where it is no depth."""
    for key, (name, _) in FILES.items():
        if not path.name.endswith(name):
            continue
        try:
            text = path.with_name(f"{path.name.removesuffix(name)}manifest.json").read_text(encoding="utf-8")
            record = Manifest.model_validate_json(text)
        except (OSError, ValueError, MarigoldError):
            continue
        if record.files.get(path.name) == digest:
            if key not in _DEPTH_FILES or record.modality != "depth":
                raise ImageError(_NO_DEPTH.format(what=path.name))
            return record
    return None


def _as_written(found: DepthMap) -> DepthMap:
    """Read the texts that files of ours carry; other maps are returned as they are."""
    texts = found.texts
    if other := texts.get("layer"):
        raise ImageError(_NO_DEPTH.format(what=f"the layer {other}"))
    meaning = meaning_of(texts.get("depth", texts.get("comments", "")))
    if meaning is None:
        return found
    kind, space = meaning
    if kind not in get_args(DepthKind):
        raise ImageError(_NO_DEPTH.format(what="a file of layers"))
    if "depth" not in texts:
        return _own(found.values, kind, space)  # EXR holds the values themselves
    near, far, sign = float(texts["near"]), float(texts["far"]), texts.get("sign", "")
    if "white" not in sign and "black" not in sign:
        raise ImageError("This is a coloured picture of depth; give the depth_16bit.png, EXR or NPY of that result.")
    if texts.get("unit") == "millimetre":
        return DepthMap(found.values, DepthReading(quantity="depth", greater="farther", kind="metric", unit_m=0.001))
    if texts.get("quantity") == "disparity":
        if kind == "affine":
            return DepthMap(found.values, DepthReading(quantity="disparity", greater="nearer", kind=kind), (0, 255))
        return _own(1 / (1 / far + found.values / 255 * (1 / near - 1 / far)), kind, space)
    share = found.values / 65535
    return _own(near + (1 - share if "white" in sign else share) * (far - near), kind, space)


def _own(values: np.ndarray, kind: Any, space: Any) -> DepthMap:
    """Values as a prediction holds them, which grow with distance -> their map."""
    if kind == "affine":
        return DepthMap(values, DepthReading(quantity=space, greater="farther", kind=kind), (0.0, 1.0))
    unit_m = 1.0 if kind == "metric" else None
    return DepthMap(values, DepthReading(quantity="depth", greater="farther", kind=kind, unit_m=unit_m))


# ------------------------------------------------------------------------------- what it means


def _complete(asked: DepthReading, stated: DepthReading) -> tuple[DepthReading, str | None]:
    """What is asked for, else stated, else usual -> the reading without None, and what was taken as usual.

    Raises:
        SettingsError: metres without a unit, or a distance along rays of unknown scale.
    """
    given, said = asked.model_dump(exclude_none=True), stated.model_dump(exclude_none=True)
    if given.get("kind", "metric") != "metric":
        said.pop("unit_m", None)
    if "unit_m" in given:
        said.pop("kind", None)
    if "quantity" in given:
        said.pop("greater", None)
    known: dict[str, Any] = said | given
    usual: dict[str, Any] = {
        "quantity": "disparity" if known.get("greater") == "nearer" else "depth",
        "kind": "metric" if "unit_m" in known else "affine",
        "measured": "axis",
    }
    read = usual | known
    read.setdefault("greater", DepthReading(quantity=read["quantity"]).usual_greater)
    full = DepthReading(**read)
    if full.kind == "metric" and full.unit_m is None:
        raise SettingsError(
            "unit_m is needed for metres: the depth in metres where the value of the map is 1; kind says metric."
        )
    if full.kind == "affine" and full.measured == "ray":
        raise SettingsError("measured along rays needs kind scale or metric; relative depth is along the axis.")
    follows = {"kind": full.kind == "metric", "greater": full.kind != "affine"}  # from the unit, from the quantity
    assumed = [name for name in ("quantity", "kind", "greater") if name not in known and not follows.get(name)]
    words = [str(getattr(full, name)) for name in assumed]
    taken = ", ".join(_WORDS.get(word, word) for word in words)
    return full, f"Not all of what its values mean was stated; taken as usual: {taken}." if taken else None


def _to_convention(found: DepthMap, full: DepthReading, fov_x_deg: float | None) -> tuple[np.ndarray, bool]:
    """The values of a map -> ([h, w] float64 that grow with distance, as ``Prediction`` has them, whether any is far).

    NaN is missing, also where values, or depth, are ``NO_HIT`` or more, which is far.
    """
    values, is_far = np.where(np.isfinite(found.values), found.values, np.nan), bool(np.isinf(found.values).any())
    if full.kind == "affine":
        known = values[np.isfinite(values)]
        low, high = found.ends or (known.min(initial=np.inf), known.max(initial=-np.inf))
        if not low < high:
            raise ImageError(
                f"The depth map has one value or none below {depth_map.NO_HIT:,.0f} in all its pixels, so it tells near"
                " from far nowhere."
            )
        share = np.clip((values - low) / (high - low), 0, 1)
        return 1 - share if full.greater == "nearer" else share, is_far
    unit_m = full.unit_m or 1.0
    if full.quantity == "log":
        depth = np.exp(np.minimum(values, 700)) * unit_m
    else:
        positive = np.where(values > 0, values, np.nan)  # 0 is how sensors say that they saw nothing
        depth = unit_m / positive if full.quantity == "disparity" else positive * unit_m
    is_far |= bool((depth >= depth_map.NO_HIT).any())
    depth[~(depth < depth_map.NO_HIT)] = np.nan
    if full.measured == "ray":
        if fov_x_deg is None:
            raise SettingsError("fov_x_deg is needed for distances along rays: the photo tells no field of view.")
        x, y = pixel_rays(depth.shape, fov_x_deg)
        depth = depth / np.sqrt(x * x + y * y + 1)
    if not np.isfinite(depth).any():
        raise ImageError(f"The depth map has no value above 0 and below {depth_map.NO_HIT:,.0f} in any pixel.")
    return depth / np.nanmax(depth) if full.kind == "scale" else depth, is_far


def _check_aspect(stored: tuple[int, int], size: tuple[int, int], tolerance: float) -> None:
    """Refuse a map [h, w] of another aspect than the photo's, but for how sizes are rounded. Raises: ImageError."""
    (height, width), (photo_height, photo_width) = stored, size
    ratio = width * photo_height / (height * photo_width)
    rounding = 1.0 / min(stored)
    if max(ratio, 1 / ratio) - 1 > tolerance + rounding:
        raise ImageError(
            f"The depth map of {width} x {height} has another aspect than the photo of {photo_width} x {photo_height};"
            " crop, turn or stretch it to the photo first."
        )
