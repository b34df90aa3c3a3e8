"""What tests of the pipeline share: the tiny checkpoint, opened once a module, and a photo."""

import numpy as np
import pytest

from marigold_core import load
from marigold_core.pipeline.pipeline import MarigoldPipeline


@pytest.fixture(scope="module")
def pipe(tiny_depth) -> MarigoldPipeline:
    return load(tiny_depth, device="cpu")


@pytest.fixture(scope="module")
def picture(photo) -> np.ndarray:
    return photo(50, 70)
