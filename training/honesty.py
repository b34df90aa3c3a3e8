"""Is it what it claims to be? A network that looks at the photo, and a diffusion model rather than a regressor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marigold_core import Settings
from marigold_core.image import load_rgb
from marigold_core.pipeline import MarigoldPipeline
from training.metrics import correlation
from training.protocol import Protocol
from training.readers import Measured

FEW_STEPS, MORE_STEPS = 1, 4
MEMBERS = 4


@dataclass(frozen=True)
class Honesty:
    """What the checks found, averaged over photographs."""

    own_abs_rel: float  # each photo with its own prediction
    other_abs_rel: float  # each photo with the next photo's prediction: must be clearly worse
    turned_abs_rel: float  # predicted upside down, the map turned back: the map follows the content
    turned_unturned_abs_rel: float  # the same without turning back: would be as good for a map of position alone
    turned_correlation: float  # of the turned-back map with the upright prediction
    spread: float  # mean uncertainty of the examples, in units of the depth range: members differ
    steps_difference: float  # mean |1 step - 4 steps| on the examples: more steps change something


def check_honesty(
    pipeline: MarigoldPipeline,
    photos: Sequence[Measured],
    maps: Mapping[str, np.ndarray],
    settings: Settings,
    protocol: Protocol,
    examples: Path,
) -> Honesty:
    """Run all checks; ``maps`` are the predictions of ``photos`` by name, ``examples`` a folder of JPEGs.

    Cost: a prediction of every photo upside down, and ``MEMBERS`` + 1 members of every example.
    """
    own, other, turned, unturned, similar = [], [], [], [], []
    for photo, neighbour in zip(photos, [*photos[1:], photos[0]], strict=True):
        upright = maps[photo.name]
        below = pipeline(photo.pixels[::-1].copy(), settings).values
        own.append(protocol.score(upright, photo.depth_m)["abs_rel"])
        other.append(protocol.score(maps[neighbour.name], photo.depth_m)["abs_rel"])
        turned.append(protocol.score(below[::-1], photo.depth_m)["abs_rel"])
        unturned.append(protocol.score(below, photo.depth_m)["abs_rel"])
        similar.append(correlation(below[::-1], upright))
    spreads, differences = [], []
    for path in sorted(examples.glob("*.jpg")):
        cells = pipeline.grid(load_rgb(path), steps=[FEW_STEPS, MORE_STEPS], sizes=[1, MEMBERS], seeds=[settings.seed])
        predictions = {
            (cell.prediction.settings.num_inference_steps, cell.prediction.settings.ensemble_size): cell.prediction
            for cell in cells
        }
        differences.append(np.abs(predictions[FEW_STEPS, 1].values - predictions[MORE_STEPS, 1].values).mean())
        uncertainty = predictions[MORE_STEPS, MEMBERS].uncertainty
        assert uncertainty is not None  # there are four members
        spreads.append(uncertainty.mean())
    return Honesty(*(float(np.mean(found)) for found in (own, other, turned, unturned, similar, spreads, differences)))
