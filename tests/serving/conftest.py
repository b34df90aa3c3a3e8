"""What tests of the server share: a service whose checkpoints run on the CPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marigold_core import load
from marigold_core.serving.jobs import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "results", loader=lambda name: load(name, device="cpu"))
    yield made
    made.close()
