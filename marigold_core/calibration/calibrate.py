"""Metres for a map of unknown scale and shift, from what a person knows of the photo.

Every hint is one equation for the two unknowns: a known depth, a known length, a flat patch, the near plane's
distance. All are solved together by robust weighted least squares, in the quantity that the network predicts. Hints
that do not determine the unknowns or contradict one another are refused with the reason.
"""

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np
from pydantic import Field

from marigold_core.calibration.anchors import (
    ANCHOR_FORM,
    LENGTH_FORM,
    PATCH_FORM,
    Along,
    Anchor,
    Equation,
    EquationBuilder,
    Length,
    Residual,
    affine_from_depth,
    depth_from_affine,
)
from marigold_core.calibration.interpolation import interpolate
from marigold_core.calibration.plane_fit import Patch, fit_patch, pixels_of
from marigold_core.calibration.solver import NO_HINT, Problem, check_enough
from marigold_core.errors import CalibrationError, SettingsError
from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import Frozen, Settings, check_type, default

Numbers = Iterable[tuple[float, ...]]
Groups = TypeVar("Groups")  # of numbers, as a surface takes them: one string, or lists
Method = Literal["affine", "completion"]
COMPLETION_STEPS = 50  # of denoising; with 25 and less a completion follows the known depths less
COMPLETION_WORK = 3  # of each step, in steps and decodes: gradients cost twice as much as what they are gradients of
_UNIT_NOISE = 1e-5  # of the farthest depth, where it is the unit
_NEAREST = 0.01  # of the least known depth: a guided map is not kept from falling below 0
NAMED_HINTS = 50  # hints that are told one by one; of more, their number


class HintFields(Frozen, Generic[Groups]):
    """What is known of a photo in metres; positions are pixels of the upright photo, from its top left corner."""

    anchors: Groups | None = Field(None, description=f"known depths, {ANCHOR_FORM} each")
    along: Along = Field(
        "axis", description="how these were measured: axis is parallel to the view's axis, ray straight from the camera"
    )
    lengths: Groups | None = Field(None, description=f"known lengths from pixel to pixel, {LENGTH_FORM} each")
    patch: Groups | None = Field(
        None, description=f"rectangles on a flat floor or wall, {PATCH_FORM} each; alone they leave one factor open"
    )
    near_m: float | None = Field(None, description="distance of the plane where the map is 0, metres")


class CalibrationMethod(Frozen):
    """What is made of the hints."""

    method: Method = Field(
        "affine",
        description="affine moves and stretches the finished map; completion guides the denoising itself through the"
        " known depths, so that the map follows each of them; it is slow, and pays from some dozens of them on",
    )


@dataclass(frozen=True)
class Hints:
    """All that is known of a photo in metres, at least one of them; positions are pixels (x, y) from the top left.

    Attributes:
        anchors: pixels of known depth.
        lengths: pairs of pixels of known distance from each other; these need the field of view.
        patches: parts of the photo that are flat in the world; alone they leave one factor open.
        near_m: distance of the plane where the map is 0, metres.
        fov_x_deg: horizontal field of view for lengths and for depths along a ray; by default the photo's own.
        method: "affine" finds one scale and shift of the finished map (``calibrate``); "completion" takes depths alone
            and guides the denoising by them (``MarigoldPipeline.complete``).
    """

    anchors: Sequence[Anchor] = ()
    lengths: Sequence[Length] = ()
    patches: Sequence[Patch] = ()
    near_m: float | None = None
    fov_x_deg: float | None = None
    method: Method = "affine"

    def __post_init__(self) -> None:
        """Check the types, as a word that is not known would be another one. Raises: CalibrationError."""
        for name, kind in (("anchors", Anchor), ("lengths", Length), ("patches", Patch)):
            given: Any = getattr(self, name)
            listed: list[object] = [*given] if hasattr(given, "__len__") else [None]
            if not all(isinstance(one, kind) and _holds_numbers(one) for one in listed):
                raise CalibrationError(f"{name} must be a list of {kind.__name__}, but got {reprlib.repr(given)}.")
        for name in ("near_m", "fov_x_deg"):
            if not isinstance(value := getattr(self, name), Real | None):
                raise CalibrationError(f"{name} must be a number, but got {value!r}.")
        words = [("method", self.method, get_args(Method))]
        for name, word, known in words + [("along", one.along, get_args(Along)) for one in self.anchors]:
            if word not in known:
                raise CalibrationError(f"{name} has no {word!r}; choose from {', '.join(known)}.")

    @property
    def is_given(self) -> bool:
        """Whether there is any hint."""
        return bool(self.anchors or self.lengths or self.patches or self.near_m is not None)

    @property
    def guides(self) -> bool:
        """Whether they guide the denoising, instead of being solved on the finished map."""
        return self.method == "completion"

    @property
    def kind(self) -> Kind:
        """What they make of relative depth: metres, or from flat patches alone depth up to one factor."""
        return "metric" if self.anchors or self.lengths or self.near_m is not None else "scale"


def _holds_numbers(hint: Anchor | Length | Patch) -> bool:
    """Tell whether positions and metres are numbers, and the corners of a patch pairs of them."""
    if isinstance(hint, Patch):
        try:
            values: list[object] = [value for x, y in hint.corners for value in (x, y)]
        except (TypeError, ValueError):  # corners that are no pairs
            return False
    else:
        values = [value for name, value in vars(hint).items() if name != "along"]
    return all(isinstance(value, Real) for value in values)


def hints_of(
    anchors: Numbers = (),
    lengths: Numbers = (),
    patch: Numbers = (),
    *,
    along: Along = "axis",
    near_m: float | None = None,
    fov_x_deg: float | None = None,
    method: Method = "affine",
) -> Hints:
    """Groups of numbers in the forms of ``anchors`` -> hints; all anchors were measured ``along`` the same."""
    return Hints(
        anchors=[Anchor(x, y, metres, along) for x, y, metres in anchors],
        lengths=[Length(*numbers) for numbers in lengths],
        patches=[Patch(((x0, y0), (x1, y1))) for x0, y0, x1, y1 in patch],
        near_m=near_m,
        fov_x_deg=fov_x_deg,
        method=method,
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Measured(Prediction, ABC):
    """A prediction in metres (or of kind "scale", up to one factor), and what it came from.

    Attributes:
        hints: what is known of the photo.
        residuals: the value each hint gives and the one found on this map.
        relative: a prediction of the same photo without hints, where there is one.
    """

    hints: Hints
    residuals: tuple[Residual, ...]
    relative: Prediction | None

    @property
    @abstractmethod
    def how(self) -> str:
        """What was done with which hints, in one sentence: files carry it."""

    @property
    def typical_residual(self) -> str:
        """How far the map is from the hints, in a sentence."""
        off = [abs(one.found / one.given - 1) for one in self.residuals]
        half, most = np.quantile(off, (0.5, 0.9))
        return f"Half of the {len(off)} hints are met within {half:.1%}, nine tenths within {most:.1%}."

    @property
    def named_hints(self) -> str:
        """The hints by name, or how many there are."""
        names = [one.hint for one in self.residuals]
        return ", ".join(names) if len(names) <= NAMED_HINTS else f"{len(names)} hints"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Completed(Measured):
    """A prediction whose denoising was guided by known depths."""

    @property
    def how(self) -> str:
        """What was done with which hints, in one sentence: files carry it."""
        return f"denoising guided by {self.named_hints}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibrated(Measured):
    """A prediction whose scale and shift were found from hints.

    Attributes:
        relative: the prediction as the model gave it; ``calibrate(relative, hints)`` gives this one again.
        scale: scale * value + shift is the depth, its logarithm or its inverse, as ``affine_space`` says.
        shift: see ``scale``.
        covariance: [2, 2] of (scale, shift).
    """

    relative: Prediction
    scale: float
    shift: float
    covariance: np.ndarray

    @property
    def affine_space(self) -> Space:
        """The quantity that is scale * value + shift."""
        return _affine_space(self.relative)

    @property
    def scale_error(self) -> float:
        """Standard error of the scale."""
        return math.sqrt(self.covariance[0, 0])

    @property
    def shift_error(self) -> float:
        """Standard error of the shift."""
        return math.sqrt(self.covariance[1, 1])

    def depth_error(self, depth: float) -> float:
        """Standard error, in the map's unit, that scale and shift leave to a depth of this map."""
        affine, slope = affine_from_depth(np.array([depth]), self.affine_space)
        by_unknowns = np.array([(affine[0] - self.shift) / self.scale, 1.0]) / slope[0]
        return math.sqrt(by_unknowns @ self.covariance @ by_unknowns)

    @property
    def how(self) -> str:
        """What was found and from which hints, in one sentence: files carry it."""
        what = {"depth": "depth", "log": "ln(depth)", "disparity": "1 / depth"}[self.affine_space]
        unit = " with depth in metres" if self.kind == "metric" else " with the farthest depth as 1"
        return (
            f"{what} = {self.scale:.6g} (+/- {self.scale_error:.2g}) x value + {self.shift:.6g}"
            f" (+/- {self.shift_error:.2g}){unit}, from {self.named_hints}"
        )


@dataclass(frozen=True)
class Distance:
    """A measured distance and its standard error."""

    metres: float
    error_m: float


def calibrate(prediction: Prediction, hints: Hints) -> Calibrated:
    """Turn relative depth into metres: the one function behind the command line, the endpoint, the page and replays.

    Args:
        prediction: depth [H, W] of kind "affine" or "scale".
        hints: what is known of the photo.

    Returns:
        The same map as metres along the optical axis, of kind "metric"; from flat patches alone of kind "scale", with
        the farthest depth as 1.

    Raises:
        CalibrationError: the hints do not determine metres, contradict one another, or a hint is not usable.
    """
    check_type("prediction", prediction, Prediction)
    check_type("hints", hints, Hints)
    check_claim(prediction.modality, prediction.kind)
    if hints.guides:
        raise CalibrationError("Completion guides the denoising, so it cannot start from a finished depth map.")
    if not np.isfinite(prediction.values).all():
        raise CalibrationError("The depth map holds values that are not numbers; run again with dtype float32.")
    if prediction.kind == "scale" and (hints.patches or hints.near_m is not None):
        raise CalibrationError(
            "The shift of this map is known already; give a known depth or length, which determine its scale."
        )
    space, spread, doubt = _affine_space(prediction), prediction.spread, prediction.uncertainty
    fov_x_deg = hints.fov_x_deg or prediction.fov_x_deg
    known = prediction.known_values
    equations = _equations(hints, EquationBuilder(known, spread, fov_x_deg, prediction.photo_size))
    patches = [fit_patch(patch, known, space, spread, prediction.photo_size) for patch in hints.patches]
    ends = np.array([prediction.values.min(), np.median(prediction.values), prediction.values.max()], np.float64)
    unit = Equation("farthest depth", ends[2:], np.array([_UNIT_NOISE]), np.array([[0.0, 0.0, 1.0]]), 1.0)
    given = equations or ([unit] if patches else [])
    problem = Problem(space, given, patches, ends, fixed_shift=prediction.kind == "scale")
    unknowns, covariance = problem.solve()
    scale, shift = map(float, unknowns)
    depth, slope = depth_from_affine(scale * prediction.values.astype(np.float64) + shift, space)
    changed: dict[str, Any] = {
        "kind": hints.kind,
        "space": "depth",
        "values": depth.astype(np.float32),
        "uncertainty": None if doubt is None else (np.abs(slope * scale) * doubt).astype(np.float32),
        "fov_x_deg": fov_x_deg,
        "members": None,  # those of the model, each with a scale and shift of its own
    }
    return Calibrated(
        **(_fields(prediction) | changed),
        relative=prediction,
        hints=hints,
        scale=scale,
        shift=shift,
        covariance=covariance,
        residuals=tuple(one for one in problem.residuals(unknowns) if one.hint != unit.name),
    )


def completed(prediction: Prediction, hints: Hints, known: "KnownDepths", relative: Prediction | None) -> Completed:
    """Make a completion of a prediction in metres [H, W] that was guided by known depths, and compare it with them.

    What the guided map is still off at these places is interpolated smoothly and divided out, so that it meets them.
    """
    rows, columns = known.places.T
    guided = np.maximum(prediction.values, _NEAREST * known.metres.min())
    off = interpolate(known.places, np.log(known.metres / guided[rows, columns]), guided.shape)
    values = guided * np.exp(off)
    fov_x_deg = hints.fov_x_deg or prediction.fov_x_deg
    changed: dict[str, Any] = {"values": values, "members": None, "fov_x_deg": fov_x_deg}
    pairs = zip(known.names, known.metres, values[rows, columns], strict=True)
    return Completed(
        **(_fields(prediction) | changed),
        hints=hints,
        residuals=tuple(Residual(name, float(given), float(depth), "m") for name, given, depth in pairs),
        relative=relative,
    )


def _fields(prediction: Prediction) -> dict[str, Any]:
    """Take the fields that every prediction has."""
    return {field.name: getattr(prediction, field.name) for field in fields(Prediction)}


def measured(prediction: Prediction, hints: Hints) -> Measured:
    """Return what a run with hints has led to: a completion as it is, other predictions calibrated.

    Raises:
        CalibrationError: as ``calibrate``.
    """
    return prediction if isinstance(prediction, Completed) else calibrate(prediction, hints)


def check_claim(modality: str, kind: Kind) -> None:
    """Refuse, with a CalibrationError, what cannot be calibrated: normals, and depth that is in metres already."""
    if modality != "depth":
        raise CalibrationError(f"Metres are found for depth, not for {modality}.")
    if kind == "metric":
        raise CalibrationError("This map is in metres already.")


def check_metric(prediction: Prediction) -> None:
    """Refuse, with a CalibrationError, a map that distances cannot be measured on: one that is not in metres."""
    if prediction.modality != "depth" or prediction.kind != "metric":
        raise CalibrationError("Distances need a map in metres; calibrate it first with a known depth or length.")


def check_hints(
    hints: Hints,
    shape: tuple[int, int],
    fov_x_deg: float | None = None,
    photo_size: tuple[int, int] | None = None,
    kind: Kind | None = None,
) -> None:
    """Check hints before there is a depth map.

    Args:
        hints: what is known of the photo.
        shape: height and width of the map.
        photo_size: (height, width) of the photo that positions are on; by default those of the map.
        fov_x_deg: the photo's horizontal field of view, where it is known.
        kind: that of the map, where it is known: a single hint is too few for one of kind "affine".

    Raises:
        CalibrationError: what ``calibrate`` would refuse of any map: no hint, a bad pixel, length or patch; and two
            values of one depth or length.
    """
    builder = EquationBuilder(np.zeros(shape, np.float32), None, hints.fov_x_deg or fov_x_deg, photo_size)
    equations = _equations(hints, builder)
    if hints.guides:
        known_depths(hints, shape, fov_x_deg, photo_size)
    for patch in hints.patches:
        pixels_of(patch, np.full(shape, 0.5, np.float32), photo_size)
    if not equations and not hints.patches:
        raise CalibrationError(NO_HINT)
    if kind == "affine":
        check_enough(list({one.name: one for one in equations}.values()), hints.patches)  # one given twice is one


@dataclass(frozen=True)
class KnownDepths:
    """Known depths on a map: where, how deep, and what they are called."""

    places: np.ndarray  # [N, 2] row and column of pixels of the map
    at: np.ndarray  # [N, 2] float32: x and y of their centres, from -1 to 1 across the map
    metres: np.ndarray  # [N] float32, along the optical axis
    names: tuple[str, ...]


def known_depths(
    hints: Hints, shape: tuple[int, int], fov_x_deg: float | None, photo_size: tuple[int, int] | None = None
) -> KnownDepths:
    """Read the known depths that a completion is guided by, as depths along the optical axis.

    Raises:
        CalibrationError: there are other hints, fewer than two depths, all are equal, or one is not usable.
    """
    check_guiding(hints)
    builder = EquationBuilder(np.zeros(shape, np.float32), None, hints.fov_x_deg or fov_x_deg, photo_size)
    equations = [builder.anchor(anchor) for anchor in hints.anchors]
    places = np.array([builder.pixel(anchor.x, anchor.y, "depth") for anchor in hints.anchors])
    at = ((places + 0.5) / shape * 2 - 1)[:, ::-1].astype(np.float32)
    metres = [one.metres / float(np.linalg.norm(one.rays[0])) for one in equations]
    return KnownDepths(places, at.copy(), np.array(metres, np.float32), tuple(one.name for one in equations))


def check_guiding(hints: Hints) -> None:
    """Refuse, with a CalibrationError, hints that cannot guide: others than depths, or depths that are all equal."""
    if hints.lengths or hints.patches or hints.near_m is not None:
        raise CalibrationError("method completion takes known depths alone; leave out other hints, or use affine.")
    _refuse_contradictions(hints)
    if len({one.metres for one in hints.anchors}) < 2:
        raise CalibrationError("method completion needs at least two known depths that differ.")


def _refuse_contradictions(hints: Hints) -> None:
    """Refuse, with a CalibrationError, two values of one pixel's depth, or of the length between two pixels."""
    known = dict[object, float]()
    for one in (*hints.anchors, *hints.lengths):
        if isinstance(one, Anchor):
            key, what = (int(one.x), int(one.y), one.along), f"depths of the pixel at ({one.x:g}, {one.y:g})"
        else:
            ends = frozenset({(int(one.x1), int(one.y1)), (int(one.x2), int(one.y2))})
            key, what = ends, f"lengths from ({one.x1:g}, {one.y1:g}) to ({one.x2:g}, {one.y2:g})"
        if (metres := known.setdefault(key, one.metres)) != one.metres:
            raise CalibrationError(
                f"Two known {what} contradict each other, {metres:g} and {one.metres:g} m; leave one out."
            )


def check_guided(settings: Settings) -> None:
    """Refuse, with a SettingsError, settings that mean nothing where known depths guide the denoising."""
    for name in ("views", "tiles_per_side", "follow_outlines", "decoder"):
        usual = default(Settings, name)
        if getattr(settings, name) != usual:
            raise SettingsError(f"{name} must be {usual!r} for a completion, which sees the photo as it is.")


def distance_m(
    prediction: Prediction, a: tuple[float, float], b: tuple[float, float], fov_x_deg: float | None = None
) -> Distance:
    """Measure the distance between what two pixels of a map in metres show.

    Args:
        prediction: depth of kind "metric".
        a: one pixel (x, y).
        b: the other pixel (x, y).
        fov_x_deg: horizontal field of view; by default the photo's own.

    Returns:
        The distance and its standard error, of the map's spread and grain at both pixels and, where hints gave the
        metres, of scale and shift.

    Raises:
        CalibrationError: the map is not in metres, or the pixels are not usable for a ``Length``.
    """
    check_metric(prediction)
    if (int(a[0]), int(a[1])) == (int(b[0]), int(b[1])):
        return Distance(0.0, 0.0)
    fov_x_deg = fov_x_deg or prediction.fov_x_deg
    builder = EquationBuilder(prediction.known_values, prediction.spread, fov_x_deg, prediction.photo_size)
    equation = builder.length(Length(*a, *b, metres=1.0))
    metres, _, by_depth = equation.evaluate("depth", np.array([1.0, 0.0]))
    variance = float(np.sum((by_depth * equation.noise) ** 2))
    if isinstance(prediction, Calibrated):
        affine, slope = affine_from_depth(equation.values, prediction.affine_space)
        by_affine = by_depth / slope
        by_unknowns = np.array([by_affine @ ((affine - prediction.shift) / prediction.scale), by_affine.sum()])
        variance += float(by_unknowns @ prediction.covariance @ by_unknowns)
    return Distance(float(metres), math.sqrt(variance))


def _affine_space(prediction: Prediction) -> Space:
    return "depth" if prediction.kind == "scale" else prediction.space


def _equations(hints: Hints, builder: EquationBuilder) -> list[Equation]:
    equations = [*map(builder.anchor, hints.anchors), *map(builder.length, hints.lengths)]
    _refuse_contradictions(hints)
    return equations if hints.near_m is None else [*equations, builder.near_plane(hints.near_m)]
