"""The unknown scale and shift of a map, solved from all hints at once.

First every plausible shift / scale is tried, each with its best scale by absolute deviations, so that no start is
needed and one wrong hint among several does not lead astray; what fits best is refined by Gauss-Newton steps with
Tukey's weights. Where two answers fit equally well, or none is sensible, the hints are refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marigold_core.calibration.anchors import Equation, Residual, depth_of, line_of
from marigold_core.calibration.plane_fit import Steepness
from marigold_core.errors import CalibrationError
from marigold_core.prediction import Space

NO_HINT = "Give a known depth, a known length or a flat patch; without one there are no metres."
VAGUE = 0.5  # relative standard error of the middle depth from which the hints do not determine it
ASTRAY = 0.3  # relative residual of most hints from which they contradict one another
_TWINS = 0.02  # relative difference of depth from which two answers are two
_TUKEY = 4.685  # residuals beyond so many deviations weigh nothing
_ROBUST_FROM = 4  # hints; among fewer, none can be called wrong
_CARELESS = 0.02  # relative deviation that stands against one standard error of a patch while starts are compared
_CANDIDATES = 400
_STARTS = 4
_ROUNDS, _STEPS = 2, 50
_EXACT = 1e-13  # relative step that changes nothing


@dataclass(frozen=True)
class Problem:
    """Hints on one map, and the least, middle and greatest value of the map [3]."""

    space: Space
    equations: Sequence[Equation]
    patches: Sequence[Steepness]
    values: np.ndarray
    fixed_shift: bool  # the shift is known to be 0

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Solve for (scale, shift) [2] -> those and their covariance [2, 2].

        Raises:
            CalibrationError: the hints leave an unknown open, allow two answers, contradict one another, or put a
                visible part behind the camera.
        """
        if not self.equations:
            raise CalibrationError(NO_HINT)
        if not self.fixed_shift and len(self.equations) + len(self.patches) < 2:
            raise CalibrationError(
                f"The {self.equations[0].name} alone cannot fix both the scale and the shift; "
                "add a second depth or length, or mark a flat patch."
            )
        answers = sorted(map(self._refine, self._starts()), key=self._order)
        best = answers[0]
        covariance = self._covariance(best)
        self._refuse_nonsense(best)
        self._refuse_rivals(best, answers[1:])
        depth, slope = depth_of(self._lines(best), self.space)
        by_unknowns = slope[1] * np.array([self.values[1], 1.0])
        if not math.sqrt(by_unknowns @ covariance @ by_unknowns) < VAGUE * depth[1]:
            raise CalibrationError(
                "The hints are too alike to fix the shift: the depth in between is uncertain by more than half; "
                "add one that is much nearer or farther."
            )
        return best, covariance

    def residuals(self, unknowns: np.ndarray) -> tuple[Residual, ...]:
        """What each hint said beside what the map says once calibrated."""
        measured = (
            Residual(one.name, one.metres, float(one.measure(self.space, unknowns)[0]), "m") for one in self.equations
        )
        bent = (
            Residual(one.name, one.value, float(self._steepness(one, unknowns)[0]), "steepness") for one in self.patches
        )
        return (*measured, *bent)

    # --------------------------------------------------------------------------- starts

    def _starts(self) -> np.ndarray:
        """The best scale for each candidate ratio -> unknowns [n, 2] at the local minima of the absolute deviations."""
        ratios = self._candidates()
        unit = self._unknowns(ratios, np.ones_like(ratios))
        factors = [-self._deviation(one, unit) for one in self.equations]
        starts = self._unknowns(ratios, np.exp(np.median(factors, axis=0)))
        misfits = np.concatenate([[math.inf], self._misfit(starts), [math.inf]])
        lowest = np.flatnonzero((misfits[1:-1] <= misfits[:-2]) & (misfits[1:-1] <= misfits[2:]))
        return starts[lowest[np.argsort(misfits[1:-1][lowest])[:_STARTS]]]

    def _deviation(self, one: Equation, unknowns: np.ndarray) -> np.ndarray:
        """ln(found / given) of a hint for unknowns [..., 2]."""
        return np.log(np.maximum(one.measure(self.space, unknowns)[0], 1e-12) / one.metres)

    def _misfit(self, unknowns: np.ndarray) -> np.ndarray:
        """Sum [...] of absolute deviations for unknowns [..., 2]; a wrong hint hardly moves its minimum."""
        misfit = sum(np.abs(self._deviation(one, unknowns)) / _CARELESS for one in self.equations)
        for one in self.patches:
            misfit = misfit + np.abs(self._steepness(one, unknowns)[0] - one.value) / one.error
        return np.asarray(misfit)

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

    def _steepness(self, patch: Steepness, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a patch determines [...], and its slopes [..., 2] by scale and shift, for unknowns [..., 2]."""
        scale, shift = unknowns[..., 0], unknowns[..., 1]
        if self.space == "log":
            return scale, np.stack([np.ones_like(scale), np.zeros_like(scale)], axis=-1)
        depth = scale * patch.at + shift
        return scale / depth, np.stack([shift / depth**2, -scale / depth**2], axis=-1)

    # --------------------------------------------------------------------------- refinement

    def _rows(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals [N], their slopes [N, 2] and standard errors [N], in the quantity the model thinks in."""
        residuals, slopes, errors = [], [], []
        for one in self.equations:
            length, by_unknowns, by_values = one.measure(self.space, unknowns)
            line, steepness = line_of(np.array([length, one.metres]), self.space)
            residuals.append(line[0] - line[1])
            slopes.append(steepness[0] * by_unknowns)
            errors.append(abs(steepness[0]) * np.linalg.norm(by_values * one.noise))
        for patch in self.patches:
            found, by_unknowns = self._steepness(patch, unknowns)
            residuals.append(found - patch.value)
            slopes.append(by_unknowns)
            errors.append(patch.error)
        return np.array(residuals), np.array(slopes), np.maximum(errors, 1e-12)

    def _refine(self, unknowns: np.ndarray) -> np.ndarray:
        """Gauss-Newton steps with weights from the start's noise, then again with weights from what they led to."""
        free = slice(0, 1 if self.fixed_shift else 2)
        for _ in range(_ROUNDS):
            residuals, _, errors = self._rows(unknowns)
            deviation = _deviation_of(residuals / errors)
            for _ in range(_STEPS):
                residuals, slopes, _ = self._rows(unknowns)
                weights = _tukey(residuals / errors, deviation) / errors
                step = np.zeros(2)
                rows = slopes[:, free] * weights[:, None]
                step[free] = np.linalg.lstsq(rows, -residuals * weights, rcond=None)[0]
                least = _EXACT * np.linalg.norm(unknowns)
                cost = np.linalg.norm(residuals * weights)
                while np.linalg.norm(step) > least and not self._cost(unknowns + step, weights) <= cost:
                    step /= 2
                if np.linalg.norm(step) <= least:
                    break
                unknowns = unknowns + step
        return unknowns

    def _cost(self, unknowns: np.ndarray, weights: np.ndarray) -> float:
        if self.space == "disparity" and any(
            (unknowns[0] * one.values + unknowns[1] <= 0).any() for one in self.equations
        ):
            return math.inf  # a hint behind the camera
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a step too far is halved
            return float(np.linalg.norm(self._rows(unknowns)[0] * weights))

    def _covariance(self, unknowns: np.ndarray) -> np.ndarray:
        """Covariance [2, 2], widened where the hints disagree by more than their own errors."""
        residuals, slopes, errors = self._rows(unknowns)
        weights = _tukey(residuals / errors, _deviation_of(residuals / errors)) / errors
        free = 1 if self.fixed_shift else 2
        rows = slopes[:, :free] * weights[:, None]
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

    # --------------------------------------------------------------------------- sense

    def _lines(self, unknowns: np.ndarray) -> np.ndarray:
        return unknowns[0] * self.values + unknowns[1]

    def _nonsense(self, unknowns: np.ndarray) -> str | None:
        """Why no camera sees such a map, or None."""
        scale = unknowns[0]
        if not (scale < 0 if self.space == "disparity" else scale > 0):
            return (
                "The hints contradict the map: what it shows farther away was said to be nearer; "
                "check the pixels and metres."
            )
        nearest = self._lines(unknowns).min()
        if self.space != "log" and not (nearest > 0 or self.fixed_shift):
            end = "farthest" if self.space == "disparity" else "nearest"
            return (
                f"With these hints the {end} part of the picture would lie behind the camera; "
                "check the pixels and metres, or add a hint there."
            )
        return None

    def _refuse_nonsense(self, unknowns: np.ndarray) -> None:
        reason = self._nonsense(unknowns)
        if reason:
            raise CalibrationError(reason)
        astray = [abs(one.found / one.given - 1) for one in self.residuals(unknowns) if one.unit == "m"]
        if astray and np.median(astray) > ASTRAY:
            raise CalibrationError(
                f"The hints contradict one another: half of them are off by {np.median(astray):.0%} or more; "
                "check the pixels and metres."
            )

    def _order(self, unknowns: np.ndarray) -> tuple[bool, float]:
        return self._nonsense(unknowns) is not None, float(self._misfit(unknowns))

    def _refuse_rivals(self, best: np.ndarray, others: Sequence[np.ndarray]) -> None:
        """Refuse where another answer fits the hints as well as the best one does, and says something else."""
        for other in others:
            if self._nonsense(other) or self._misfit(other) > self._misfit(best) + 1:
                continue
            depths = np.array([depth_of(self._lines(answer), self.space)[0] for answer in (best, other)])
            apart = np.abs(np.log(depths[0] / depths[1]))  # of the nearest, the middle and the farthest
            if apart.max() > _TWINS:
                part = ("nearest part", "middle", "farthest part")[int(apart.argmax())]
                low, high = sorted(depths[:, apart.argmax()])
                raise CalibrationError(
                    f"Two answers fit these hints, with the {part} of the picture {low:.3g} m or {high:.3g} m away; "
                    "add another hint."
                )


def _deviation_of(residuals: np.ndarray) -> float:
    """Residuals [N] in standard errors -> their robust deviation, at least 1; two may be 0 by the fit alone."""
    surplus = np.sort(np.abs(residuals))[2:]
    return max(1.0, 1.4826 * float(np.median(surplus))) if surplus.size else 1.0


def _tukey(residuals: np.ndarray, deviation: float) -> np.ndarray:
    """Residuals [N] in standard errors -> what they are multiplied by [N], in [0, 1]: the roots of their weights."""
    if len(residuals) < _ROBUST_FROM:
        return np.ones_like(residuals)
    return np.maximum(0.0, 1 - (residuals / (_TUKEY * deviation)) ** 2)
