"""The app over a model that only waits, for what happens around it; who enters and leaves the model is noted.

python -m tests.helpers.slow_app NOTES.jsonl
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STEP_S = 0.02
MAX_WAITING = 8  # jobs before the queue is full, beside those that the service's own line takes


def hold(notes: Path) -> Path:
    """Name the file that keeps a job in the model as long as it is there."""
    return notes.with_name("hold")


def note(notes: Path, what: str) -> None:
    with notes.open("a") as file:
        file.write(json.dumps({"at": time.monotonic(), "what": what}) + "\n")


def inside(notes: Path) -> list[tuple[float, int]]:
    """When jobs entered or left the model, by the clock of ``time.monotonic``, and how many were in it from then on."""
    count, made = 0, list[tuple[float, int]]()
    for line in notes.read_text().splitlines() if notes.exists() else []:
        one = json.loads(line)
        count += 1 if one["what"] == "in" else -1
        made.append((one["at"], count))
    return made


def main(notes: Path) -> None:
    import torch
    from gradio import networking

    import marigold_core
    from marigold_core.checkpoints.registry import find
    from marigold_core.prediction import Prediction, Progress
    from marigold_core.settings import ResolvedSettings, Settings
    from marigold_core.ui import events, launch
    from tests.helpers.predictions import prediction_of

    class WaitingPipeline:
        device, dtype, checkpoint = torch.device("cpu"), torch.float32, find("nano")

        def resolve(self, settings: Settings | None, hints: object = None) -> ResolvedSettings:
            return (settings or Settings()).resolved(4, 64)

        def stream(
            self, photo: Any, settings: ResolvedSettings, start: object = None, hints: object = None
        ) -> Iterator[Progress | Prediction]:
            note(notes, "in")
            try:
                for done in range(settings.num_inference_steps):
                    time.sleep(STEP_S)
                    while hold(notes).exists():
                        time.sleep(STEP_S)
                        yield Progress(done, settings.num_inference_steps, "held")
                    yield Progress(done + 1, settings.num_inference_steps, "denoising")
                values = np.broadcast_to(np.linspace(0, 1, photo.pixels.shape[1]), photo.pixels.shape[:2])
                yield prediction_of(values, photo=photo.pixels, settings=settings, checkpoint="nano")
            finally:
                note(notes, "out")

    pipe: Any = WaitingPipeline()
    marigold_core.load = lambda *_, **__: pipe
    events.MAX_WAITING = MAX_WAITING
    networking.url_ok = lambda url: False  # as on a machine that is too busy to answer within 3 s
    launch.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
