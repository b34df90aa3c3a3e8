"""The sanity checks on networks that ignore the photo, and on one that does not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marigold_core.errors import MarigoldError
from marigold_core.prediction import Cell, Prediction
from marigold_core.settings import Settings
from tests.training.scoring.test_alignment import prediction
from training.data.sets.sample import Sample
from training.scoring.protocols import Protocol
from training.scoring.sanity_checks import SanityChecks, SanityReport
from training.scoring.scores import ramp

pytestmark = pytest.mark.numeric

SIZE = (24, 32)
Guess = Callable[[np.ndarray], np.ndarray]


class Network:
    """Stands for a pipeline: a function of the photo, the same with every seed, member and number of steps."""

    def __init__(self, guess: Guess):
        self.guess = guess

    def __call__(self, pixels: np.ndarray, settings: Settings) -> Prediction:
        return prediction("affine", "depth", self.guess(pixels).astype(np.float32))

    def grid(self, pixels: np.ndarray, *, steps: list[int], sizes: list[int], seeds: list[int]) -> Iterator[Cell]:
        for n in steps:
            for size in sizes:
                one = replace(self(pixels, Settings()), uncertainty=np.full(SIZE, 0.25))
                yield Cell(replace(one, settings=Settings(ensemble_size=size).resolved(n, 64)), 0.0)


def read_red(pixels: np.ndarray) -> np.ndarray:
    """Read depth off the photo, where the samples below show it as red."""
    return pixels[..., 0] / 255


def sample(seed: int) -> Sample:
    red = np.random.default_rng(seed).integers(1, 256, SIZE, np.uint8)
    return Sample(str(seed), np.stack([red] * 3, axis=-1), (1 + red / 50).astype(np.float32))


def check(guess: Guess, examples: Path, samples: list[Sample]) -> SanityReport:
    network = Network(guess)
    checks = SanityChecks(network, Settings(), Protocol(), examples)  # pyright: ignore[reportArgumentType]
    for one in samples:
        checks.add(one, network(one.rgb, Settings()))
    return checks.finish()


@pytest.fixture
def examples(folder: Path) -> Path:
    Image.fromarray(sample(9).rgb).save(folder / "a.jpg")
    return folder


def test_a_network_that_looks_follows_the_content(examples: Path) -> None:
    found = check(read_red, examples, [sample(seed) for seed in range(3)])
    assert found.own_abs_rel == pytest.approx(0, abs=1e-6)
    assert found.turned_abs_rel == pytest.approx(0, abs=1e-6)
    assert found.turned_unturned_abs_rel > 0.2
    assert found.other_abs_rel > 0.2
    assert found.turned_correlation == pytest.approx(1)
    assert found.spread == 0.25


def test_a_network_that_knows_only_positions_is_found_out(examples: Path) -> None:
    found = check(ramp, examples, [sample(seed) for seed in range(3)])
    assert found.other_abs_rel == pytest.approx(found.own_abs_rel)
    assert found.turned_unturned_abs_rel == pytest.approx(found.own_abs_rel)
    assert found.turned_correlation == pytest.approx(-1)
    assert found.steps_difference == 0  # a regressor


def test_each_photo_is_compared_with_the_next_prediction(examples: Path) -> None:
    """Of two alike photos and another one, only the pair of alike neighbours fits."""
    a, b = sample(0), sample(1)
    rows = [check(read_red, examples, order).other_abs_rel for order in ([a, b, b], [a, b], [a, a, a])]
    assert rows[2] == pytest.approx(0, abs=1e-6)
    assert rows[1] > rows[0] > 0.1
    assert 3 * rows[0] == pytest.approx(2 * rows[1])  # a with b, b with b, b with the first


def test_a_photo_without_truth_is_left_out(examples: Path) -> None:
    blind = Sample("blind", sample(2).rgb, np.full(SIZE, np.nan, np.float32))
    assert check(read_red, examples, [sample(0), blind]).own_abs_rel == pytest.approx(0, abs=1e-6)


def test_a_folder_without_examples_is_refused(folder: Path) -> None:
    with pytest.raises(MarigoldError, match="no example photograph"):
        check(read_red, folder, [])
