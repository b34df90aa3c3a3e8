"""Checks that predictions depend on the photo, and that members and steps differ, as a diffusion model's do."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from marigold_core import Prediction, Settings
from marigold_core.errors import MarigoldError
from marigold_core.images.photo import load_rgb
from marigold_core.pipeline.convergence import mean_spread
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.sets.sample import Sample
from training.scoring.metrics import correlation
from training.scoring.protocols import Protocol
from training.scoring.scores import compare

FEW_STEPS, MORE_STEPS = 1, 4
MEMBERS = 4


@dataclass(frozen=True)
class SanityReport:
    """Results of the checks, averaged over photographs."""

    own_abs_rel: float  # each photo with its own prediction
    other_abs_rel: float  # each photo with the next photo's prediction: must be clearly worse
    turned_abs_rel: float  # predicted upside down, the map turned back: the map follows the content
    turned_unturned_abs_rel: float  # the same without turning back: would be as good for a map of position alone
    turned_correlation: float  # of the turned-back map with the upright prediction
    spread: float  # of members, mean of the examples, in units of the depth range: they differ
    steps_difference: float  # mean |1 step - 4 steps| on the examples: more steps change something


class SanityChecks:
    """All checks, given one photograph at a time; of the others it keeps one map and one truth.

    Cost: a prediction of every photo upside down, and at the end ``MEMBERS`` + 1 members of every example.
    Raises: MarigoldError when ``examples`` holds no JPEG.
    """

    def __init__(self, pipeline: MarigoldPipeline, settings: Settings, protocol: Protocol, examples: Path):
        self.pipeline, self.settings, self.protocol = pipeline, settings, protocol
        self.examples = sorted(examples.glob("*.jpg"))
        if not self.examples:
            raise MarigoldError(f"{examples.name} holds no example photograph NAME.jpg, which the honesty checks need.")
        self.first: Prediction | None = None
        self.last_truth_m: np.ndarray | None = None  # to be compared with the next prediction
        self.found: dict[str, list[float]] = {check.name: [] for check in fields(SanityReport)}

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Check one photograph.

        Its truth is compared with its own prediction and with predictions of the photo upside down; the truth of the
        photograph before is compared with this prediction.
        """
        if self.last_truth_m is None:
            self.first = prediction
        else:
            self._score("other_abs_rel", prediction, self.last_truth_m)
        self.last_truth_m = sample.depth_m
        below = self.pipeline(sample.rgb[::-1].copy(), self.settings)
        turned = replace(below, values=below.values[::-1])
        self._score("own_abs_rel", prediction, sample.depth_m)
        self._score("turned_abs_rel", turned, sample.depth_m)
        self._score("turned_unturned_abs_rel", below, sample.depth_m)
        self.found["turned_correlation"].append(correlation(turned.values, prediction.values))

    def finish(self) -> SanityReport:
        """Compare the truth of the last photograph with the prediction of the first, check the examples -> averages."""
        assert self.first is not None and self.last_truth_m is not None  # there are photographs
        self._score("other_abs_rel", self.first, self.last_truth_m)
        for path in self.examples:
            self._compare_members(path)
        return SanityReport(**{name: float(np.mean(values)) for name, values in self.found.items()})

    def _score(self, check: str, prediction: Prediction, truth_m: np.ndarray) -> None:
        row = compare(replace(prediction, uncertainty=None), truth_m, self.protocol).row
        if "abs_rel" in row:  # the picture has pixels that count
            self.found[check].append(row["abs_rel"])

    def _compare_members(self, path: Path) -> None:
        """Predict an example with few and more steps, alone and as an ensemble."""
        cells = self.pipeline.grid(
            load_rgb(path), steps=[FEW_STEPS, MORE_STEPS], sizes=[1, MEMBERS], seeds=[self.settings.seed]
        )
        made = {(cell.settings.num_inference_steps, cell.settings.ensemble_size): cell.prediction for cell in cells}
        spread = mean_spread(made[MORE_STEPS, MEMBERS])
        assert spread is not None  # there are four members
        self.found["spread"].append(spread)
        difference = np.abs(made[FEW_STEPS, 1].values - made[MORE_STEPS, 1].values)
        self.found["steps_difference"].append(float(difference.mean()))
