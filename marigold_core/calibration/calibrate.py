"""Metres for a map of unknown scale and shift, from what a person knows of the photo.

Every hint is one equation for the two unknowns: a known depth, a known length, a flat patch, the near plane's
distance. All are solved together by robust weighted least squares, in the quantity that the model thinks in. What
the hints do not determine, or say against one another, is refused with the reason.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from marigold_core.calibration.anchors import Along, Anchor, Equation, Length, Reader, Residual, depth_of, line_of
from marigold_core.calibration.plane_fit import Patch, pixels_of, steepness_of
from marigold_core.calibration.solver import NO_HINT, Problem
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Kind, Prediction, Space

Numbers = Iterable[tuple[float, ...]]
_UNIT_NOISE = 1e-5  # of the farthest depth, where it is the unit


@dataclass(frozen=True)
class Hints:
    """All that is known of a photo in metres; at least one of them must be there."""

    anchors: Sequence[Anchor] = ()
    lengths: Sequence[Length] = ()
    patches: Sequence[Patch] = ()
    near_m: float | None = None  # distance of the plane where the map is 0
    fov_x_deg: float | None = None  # for lengths and for depths along a ray; by default the photo's own


def hints_of(
    anchors: Numbers = (),
    lengths: Numbers = (),
    patch: Numbers = (),
    *,
    along: Along = "axis",
    near_m: float | None = None,
    fov_x_deg: float | None = None,
) -> Hints:
    """Groups of numbers in the forms of ``hints`` -> hints; ``along`` says how all anchors were measured."""
    return Hints(
        anchors=[Anchor(x, y, metres, along) for x, y, metres in anchors],
        lengths=[Length(*numbers) for numbers in lengths],
        patches=[Patch(((x0, y0), (x1, y1))) for x0, y0, x1, y1 in patch],
        near_m=near_m,
        fov_x_deg=fov_x_deg,
    )


@dataclass(frozen=True, kw_only=True)
class Calibrated(Prediction):
    """A prediction in metres (or "scale", up to one factor), and what it came from: its files say so."""

    relative: Prediction  # as the model gave it; ``calibrate(relative, hints)`` makes this one again
    hints: Hints
    scale: float  # scale * value + shift is the depth, its logarithm or its inverse: ``line_space`` says which
    shift: float
    covariance: np.ndarray  # [2, 2] of (scale, shift)
    residuals: tuple[Residual, ...]

    @property
    def line_space(self) -> Space:
        """The quantity in which scale and shift are a straight line."""
        return _line_space(self.relative)

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
        line, steepness = line_of(np.array([depth]), self.line_space)
        slopes = np.array([(line[0] - self.shift) / self.scale, 1.0]) / steepness[0]
        return math.sqrt(slopes @ self.covariance @ slopes)

    @property
    def how(self) -> str:
        """What was found and from which hints, in one sentence: files carry it."""
        what = {"depth": "depth", "log": "ln(depth)", "disparity": "1 / depth"}[self.line_space]
        unit = " with depth in metres" if self.kind == "metric" else " with the farthest depth as 1"
        return (
            f"{what} = {self.scale:.6g} (+/- {self.scale_error:.2g}) x value + {self.shift:.6g}"
            f" (+/- {self.shift_error:.2g}){unit}, from {', '.join(one.hint for one in self.residuals)}"
        )


@dataclass(frozen=True)
class Distance:
    """A measured distance and its standard error."""

    metres: float
    error_m: float


def calibrate(prediction: Prediction, hints: Hints) -> Calibrated:
    """Depth prediction of kind "affine" or "scale" and hints -> the same map [H, W] in metres along the optical axis.

    Flat patches alone give kind "scale", with the farthest depth as 1.

    Raises:
        CalibrationError: the hints do not determine metres, contradict one another, or a hint is not usable.
    """
    check_claim(prediction.modality, prediction.kind)
    if not np.isfinite(prediction.values).all():
        raise CalibrationError("The depth map holds values that are not numbers; run again with dtype float32.")
    if prediction.kind == "scale" and (hints.patches or hints.near_m is not None):
        raise CalibrationError("This map knows its shift already; give a known depth or length, which fix its scale.")
    space = _line_space(prediction)
    fov_x_deg = hints.fov_x_deg or prediction.fov_x_deg
    equations = _equations(Reader(prediction.values, prediction.uncertainty, fov_x_deg), hints)
    patches = [steepness_of(patch, prediction.values, space, prediction.uncertainty) for patch in hints.patches]
    ends = np.array([prediction.values.min(), np.median(prediction.values), prediction.values.max()], np.float64)
    unit = Equation("farthest depth", ends[2:], np.array([_UNIT_NOISE]), np.array([[0.0, 0.0, 1.0]]), 1.0)
    given = equations or ([unit] if patches else [])
    problem = Problem(space, given, patches, ends, fixed_shift=prediction.kind == "scale")
    unknowns, covariance = problem.solve()
    scale, shift = map(float, unknowns)
    depth, slope = depth_of(scale * prediction.values.astype(np.float64) + shift, space)
    spread = prediction.uncertainty
    kept = {field.name: getattr(prediction, field.name) for field in fields(Prediction)}
    changed = {
        "kind": "metric" if equations else "scale",
        "space": "depth",
        "values": depth.astype(np.float32),
        "uncertainty": None if spread is None else (np.abs(slope * scale) * spread).astype(np.float32),
        "fov_x_deg": fov_x_deg,
        "members": None,  # those of the model, each with a scale and shift of its own
    }
    return Calibrated(
        **(kept | changed),
        relative=prediction,
        hints=hints,
        scale=scale,
        shift=shift,
        covariance=covariance,
        residuals=tuple(one for one in problem.residuals(unknowns) if one.hint != unit.name),
    )


def check_claim(modality: str, kind: Kind) -> None:
    """Say whether hints are of use to a checkpoint. Raises: CalibrationError for normals and for metres."""
    if modality != "depth":
        raise CalibrationError(f"Metres are found for depth, but this is a {modality} prediction.")
    if kind == "metric":
        raise CalibrationError("This map is in metres already.")


def check_metric(prediction: Prediction) -> None:
    """Say whether distances can be read off a map. Raises: CalibrationError for one that is not in metres."""
    if prediction.modality != "depth" or prediction.kind != "metric":
        raise CalibrationError("Distances need a map in metres; calibrate it first with a known depth or length.")


def check_hints(hints: Hints, shape: tuple[int, int], fov_x_deg: float | None = None) -> None:
    """Look at hints on a photo [H, W] with this field of view before its depth is there.

    Raises: CalibrationError for what ``calibrate`` would refuse of any map: no hint, a bad pixel, length or patch.
    """
    equations = _equations(Reader(np.zeros(shape, np.float32), None, hints.fov_x_deg or fov_x_deg), hints)
    for patch in hints.patches:
        pixels_of(patch, np.full(shape, 0.5, np.float32))
    if not equations and not hints.patches:
        raise CalibrationError(NO_HINT)


def distance_m(
    prediction: Prediction, a: tuple[float, float], b: tuple[float, float], fov_x_deg: float | None = None
) -> Distance:
    """Two pixels (x, y) of a map in metres -> the distance between what they show, in metres.

    The error holds the spread and grain of the map at both pixels and, where hints gave the metres, the errors of
    scale and shift. The field of view is by default the photo's own.
    Raises: CalibrationError for a map that is not in metres, or as a ``Length`` would.
    """
    check_metric(prediction)
    if (int(a[0]), int(a[1])) == (int(b[0]), int(b[1])):
        return Distance(0.0, 0.0)
    equation = Reader(prediction.values, prediction.uncertainty, fov_x_deg or prediction.fov_x_deg).length(
        Length(*a, *b, metres=1.0)
    )
    metres, _, by_depth = equation.measure("depth", np.array([1.0, 0.0]))
    variance = float(np.sum((by_depth * equation.noise) ** 2))
    if isinstance(prediction, Calibrated):
        line, steepness = line_of(equation.values, prediction.line_space)
        values = (line - prediction.shift) / prediction.scale
        by_line = by_depth / steepness
        slopes = np.array([by_line @ values, by_line.sum()])
        variance += float(slopes @ prediction.covariance @ slopes)
    return Distance(float(metres), math.sqrt(variance))


def _line_space(prediction: Prediction) -> Space:
    return "depth" if prediction.kind == "scale" else prediction.space


def _equations(reader: Reader, hints: Hints) -> list[Equation]:
    read = [*map(reader.anchor, hints.anchors), *map(reader.length, hints.lengths)]
    return read if hints.near_m is None else [*read, reader.near_plane(hints.near_m)]
