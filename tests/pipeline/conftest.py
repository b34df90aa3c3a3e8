"""What tests of the pipeline share: the tiny checkpoint, opened once a module, a photo, and counted calls."""

from collections.abc import Callable
from typing import Any

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


@pytest.fixture
def calls_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[tuple]]:
    """``calls_of(thing, method)`` -> a list to which each call adds its arguments from now on."""

    def calls_of(thing: Any, method: str) -> list[tuple]:
        calls, call = list[tuple](), getattr(thing, method)
        monkeypatch.setattr(thing, method, lambda *given, **named: calls.append(given) or call(*given, **named))
        return calls

    return calls_of
