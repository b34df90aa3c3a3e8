"""The unknown scale and shift of a map, solved from all hints at once.

First every plausible shift / scale is tried, each with its best scale by absolute deviations, so that no start is
needed and one wrong hint among several does not lead astray; the best ones are refined by least squares with Tukey's
biweight loss. Where two solutions fit equally well, or none is plausible, the hints are refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marigold_core.calibration.anchors import Equation, Residual, affine_from_depth, depth_from_affine
from marigold_core.calibration.plane_fit import PatchSlope, minimise
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space

NO_HINT = "Give a known depth, a known length or a flat patch; without one there are no metres."
MAX_DEPTH_ERROR = 0.5  # relative standard error of the middle depth from which the hints do not determine it
MAX_MEDIAN_RESIDUAL = 0.3  # relative residual of most hints from which they contradict one another
_SAME_DEPTH = 0.02  # relative difference of depths up to which two solutions are one
_TUKEY = 4.685  # residuals beyond so many deviations have no weight
_MIN_ROBUST = 4  # hints; among fewer, none can be called wrong
_HINT_DEVIATION = 0.02  # relative deviation that counts as much as one standard error of a patch in the search
_CANDIDATES = 400
_STARTS = 4
_ROUNDS = 2  # of refinement, each with the noise that follows from the solution of the one before


def check_enough(equations: Sequence[Equation], patches: Sequence[object]) -> None:
    """Refuse, with a CalibrationError, one equation where scale and shift are unknown."""
    if len(equations) + len(patches) < 2 and equations:
        raise CalibrationError(
            f"The {equations[0].name} alone cannot fix both the scale and the shift; "
            "add a second depth or length, or mark a flat patch."
        )


@dataclass(frozen=True)
class Problem:
    """Hints on one map, and the least, middle and greatest value of the map [3]."""

    space: Space
    equations: Sequence[Equation]
    patches: Sequence[PatchSlope]
    values: np.ndarray
    fixed_shift: bool  # the shift is known to be 0

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Solve for (scale, shift) [2] -> those and their covariance [2, 2].

        Raises:
            CalibrationError: the hints leave an unknown open, allow two solutions, contradict one another, or put a
                visible part behind the camera.
        """
        if not self.equations:
            raise CalibrationError(NO_HINT)
        if not self.fixed_shift:
            check_enough(self.equations, self.patches)
        solutions = [self._refine(start) for start in self._starts()]
        best, *others = sorted(solutions, key=lambda one: (self._fault(one) is not None, float(self._deviation(one))))
        covariance = self._covariance(best)
        self._refuse_implausible(best)
        self._refuse_ambiguous(best, others)
        depth, slope = depth_from_affine(self._affine(best), self.space)
        by_unknowns = slope[1] * np.array([self.values[1], 1.0])
        if not math.sqrt(by_unknowns @ covariance @ by_unknowns) < MAX_DEPTH_ERROR * depth[1]:
            raise CalibrationError(
                "The hints are too alike to fix the shift: the depth in between is uncertain by more than half; "
                "add one that is much nearer or farther."
            )
        return best, covariance

    def residuals(self, unknowns: np.ndarray) -> tuple[Residual, ...]:
        """The value each hint gives beside the one on the calibrated map."""
        return (
            *(Residual(one.name, one.metres, float(self._metres(one, unknowns)), "m") for one in self.equations),
            *(
                Residual(one.name, one.value, float(self._patch_slope(one, unknowns)[0]), "steepness")
                for one in self.patches
            ),
        )

    # --------------------------------------------------------------------------- starts

    def _starts(self) -> np.ndarray:
        """The best scale for each candidate ratio -> unknowns [n, 2] at the local minima of the absolute deviations."""
        ratios = self._candidates()
        unit = self._unknowns(ratios, np.ones_like(ratios))
        factors = [-self._log_error(one, unit) for one in self.equations]
        starts = self._unknowns(ratios, np.exp(np.median(factors, axis=0)))
        deviations = np.pad(self._deviation(starts), 1, constant_values=math.inf)
        inner = deviations[1:-1]
        lowest = np.flatnonzero((inner <= deviations[:-2]) & (inner <= deviations[2:]))
        return starts[lowest[np.argsort(inner[lowest])[:_STARTS]]]

    def _candidates(self) -> np.ndarray:
        """Ratios for which all that is visible lies before the camera."""
        if self.fixed_shift:
            return np.zeros(1)
        if self.space == "log":
            return np.logspace(-3, 1.5, _CANDIDATES)
        beyond = np.logspace(-4, 3, _CANDIDATES)
        return self.values[2] + beyond if self.space == "disparity" else beyond - self.values[0]

    def _unknowns(self, ratio: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Ratio [n] and size of the depths [n] -> (scale, shift) [n, 2]."""
        if self.space == "log":
            return np.stack([ratio, np.log(factor)], axis=-1)
        if self.space == "disparity":
            return np.stack([-1 / factor, ratio / factor], axis=-1)
        return np.stack([factor, ratio * factor], axis=-1)

    def _deviation(self, unknowns: np.ndarray) -> np.ndarray:
        """Sum [...] of absolute deviations for unknowns [..., 2]; a wrong hint hardly moves its minimum."""
        hints = [np.abs(self._log_error(one, unknowns)) / _HINT_DEVIATION for one in self.equations]
        patches = [np.abs(self._patch_slope(one, unknowns)[0] - one.value) / one.error for one in self.patches]
        return np.sum([*hints, *patches], axis=0)

    def _log_error(self, one: Equation, unknowns: np.ndarray) -> np.ndarray:
        """ln(found / given) of a hint for unknowns [..., 2]."""
        return np.log(np.maximum(self._metres(one, unknowns), 1e-12) / one.metres)

    def _metres(self, one: Equation, unknowns: np.ndarray) -> np.ndarray:
        return one.evaluate(self.space, unknowns)[0]

    def _patch_slope(self, patch: PatchSlope, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a patch determines [...], and its derivatives [..., 2] by scale and shift, for unknowns [..., 2]."""
        scale, shift = unknowns[..., 0], unknowns[..., 1]
        if self.space == "log":
            return scale, np.stack([np.ones_like(scale), np.zeros_like(scale)], axis=-1)
        depth = scale * patch.at + shift
        return scale / depth, np.stack([shift / depth**2, -scale / depth**2], axis=-1)

    # --------------------------------------------------------------------------- refinement

    def _rows(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals [N], their derivatives [N, 2] and standard errors [N], in the quantity the network predicts."""
        rows: list[tuple[float, np.ndarray, float]] = []
        for one in self.equations:
            metres, by_unknowns, by_values = one.evaluate(self.space, unknowns)
            affine, slope = affine_from_depth(np.array([metres, one.metres]), self.space)
            error = abs(slope[0]) * float(np.linalg.norm(by_values * one.noise))
            rows.append((affine[0] - affine[1], slope[0] * by_unknowns, error))
        for patch in self.patches:
            found, by_unknowns = self._patch_slope(patch, unknowns)
            rows.append((float(found) - patch.value, by_unknowns, patch.error))
        residuals, slopes, errors = zip(*rows, strict=True)
        return np.array(residuals), np.array(slopes), np.maximum(errors, 1e-12)

    def _refine(self, start: np.ndarray) -> np.ndarray:
        """Robust least squares from a start [2] -> unknowns [2]."""
        free = 1 if self.fixed_shift else 2
        unknowns = start.copy()
        for _ in range(_ROUNDS):
            residuals, _, errors = self._rows(unknowns)

            def weighted(tried: np.ndarray, errors: np.ndarray = errors) -> tuple[np.ndarray, np.ndarray]:
                everything = np.concatenate([tried, start[free:]])
                behind = self.space == "disparity" and any(
                    (everything[0] * one.values + everything[1] <= 0).any() for one in self.equations
                )
                with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a step too far is halved
                    residuals, slopes, _ = self._rows(everything)
                    return residuals / errors + (math.inf if behind else 0), slopes[:, :free] / errors[:, None]

            robust = len(errors) >= _MIN_ROBUST
            scale = _TUKEY * _robust_deviation(residuals / errors)
            unknowns[:free] = minimise(weighted, unknowns[:free], _biweight if robust else "linear", scale)[0]
        return unknowns

    def _covariance(self, unknowns: np.ndarray) -> np.ndarray:
        """Covariance [2, 2], widened where the hints disagree by more than their own errors."""
        residuals, slopes, errors = self._rows(unknowns)
        residuals = residuals / errors
        weights = np.ones_like(errors)
        if len(errors) >= _MIN_ROBUST:
            weights = np.sqrt(_biweight((residuals / (_TUKEY * _robust_deviation(residuals))) ** 2)[1])
        free = 1 if self.fixed_shift else 2
        rows = slopes[:, :free] * (weights / errors)[:, None]
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
        if not singular[-1] > 1e-8 * singular[0]:
            raise CalibrationError(
                "The hints lie at the same depth, which cannot fix both the scale and the shift; "
                "add one that is nearer or farther, or mark a flat patch."
            )
        surplus = np.count_nonzero(weights) - free
        misfit = float(np.sum((residuals * weights) ** 2)) / surplus if surplus > 0 else 0.0
        covariance = np.zeros((2, 2))
        covariance[:free, :free] = axes.T / singular**2 @ axes * max(1.0, misfit)
        return covariance

    # --------------------------------------------------------------------------- refusals

    def _affine(self, unknowns: np.ndarray) -> np.ndarray:
        return unknowns[0] * self.values + unknowns[1]

    def _fault(self, unknowns: np.ndarray) -> str | None:
        """Why no camera sees such a map, or None."""
        scale, affine = unknowns[0], self._affine(unknowns)
        size = 1.0 if self.space == "log" else float(np.abs(affine).max())
        if not self.fixed_shift and np.ptp(affine) <= 1e-9 * size:  # the sign of such a scale is rounding
            return "The hints contradict the map: they put all of it at one depth; check the pixels and metres."
        if not (scale < 0 if self.space == "disparity" else scale > 0):
            return (
                "The hints contradict the map: what it shows farther away was said to be nearer; "
                "check the pixels and metres."
            )
        if self.space != "log" and not (affine.min() > 0 or self.fixed_shift):
            end = "farthest" if self.space == "disparity" else "nearest"
            return (
                f"With these hints the {end} part of the picture would lie behind the camera; "
                "check the pixels and metres, or add a hint there."
            )
        return None

    def _refuse_implausible(self, unknowns: np.ndarray) -> None:
        if fault := self._fault(unknowns):
            raise CalibrationError(fault)
        typical = np.median([abs(float(self._metres(one, unknowns)) / one.metres - 1) for one in self.equations])
        if typical > MAX_MEDIAN_RESIDUAL:
            raise CalibrationError(
                f"The hints contradict one another: half of them are off by {typical:.0%} or more; "
                "check the pixels and metres."
            )

    def _refuse_ambiguous(self, best: np.ndarray, others: Sequence[np.ndarray]) -> None:
        """Refuse where another solution fits the hints as well as the best one does, with other depths."""
        for other in others:
            if self._fault(other) or self._deviation(other) > self._deviation(best) + 1:
                continue
            depths = np.array([depth_from_affine(self._affine(one), self.space)[0] for one in (best, other)])
            ratios = np.abs(np.log(depths[0] / depths[1]))  # of the nearest, the middle and the farthest
            if ratios.max() > _SAME_DEPTH:
                part = ("nearest part", "middle", "farthest part")[int(ratios.argmax())]
                low, high = sorted(depths[:, ratios.argmax()])
                raise CalibrationError(
                    f"Two answers fit these hints, with the {part} of the picture {low:.3g} m or {high:.3g} m away; "
                    "add another hint."
                )


def _robust_deviation(residuals: np.ndarray) -> float:
    """Residuals [N] in standard errors -> their robust deviation, at least 1; two may be 0 by the fit alone."""
    surplus = np.sort(np.abs(residuals))[2:]
    return max(1.0, 1.4826 * float(np.median(surplus))) if surplus.size else 1.0


def _biweight(squares: np.ndarray) -> np.ndarray:
    """Squared residuals [N] -> Tukey's loss and its first and second derivatives [3, N], constant from 1 on."""
    below = np.maximum(0.0, 1 - squares)
    return np.stack([(1 - below**3) / 3, below**2, -2 * below])
