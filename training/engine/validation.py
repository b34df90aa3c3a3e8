"""What a run looks like while it goes on: scores on pictures with known depth, sample pictures, curves."""

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin

from marigold_core import Settings, storage
from marigold_core.errors import ExportError
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.data.framing import Batch
from training.data.sets.sample import DepthSet, spread
from training.engine.metrics_log import Journal, Record
from training.engine.run_plots import draw_curves, sample_sheet
from training.recipe import Recipe
from training.scoring.protocols import choose_protocol
from training.scoring.scores import Row, averages, compare

VALIDATION_STEPS = 1  # denoising steps and members, as published


@dataclass(frozen=True)
class Watcher:
    """Looks at the weights of a run when the recipe says so, and at its end; each look is made once."""

    pipeline: MarigoldPipeline
    recipe: Recipe
    sets: Sequence[DepthSet]
    pictures: int  # of each set, spread evenly
    examples: Batch  # what sample pictures are drawn of
    folder: Path

    def __call__(self, network: ModelMixin, step: int, journal: Journal, stopping: Callable[[], bool]) -> None:
        """Validate, draw samples and curves, as far as it is time for them, unless the run is ``stopping``."""
        validate = self.sets and self._due(step, self.recipe.validate_steps) and step not in journal.scores
        sheet = self.folder / "samples" / f"step_{step:08d}.png"
        draw = self._due(step, self.recipe.figure_steps) and not sheet.exists()
        if stopping() or not (validate or draw):
            return
        pipeline = copy.copy(self.pipeline)
        pipeline.unet = network  # type: ignore (the same class, with the weights that will be saved)
        network.eval()
        with torch.inference_mode():
            if validate and (scores := self._scores(pipeline, step, stopping)):
                journal.add(scores)
            try:
                if draw:
                    with storage.replacing(sheet) as aside:
                        sample_sheet(pipeline, self.examples, self.recipe.seed).save(aside, format="png")
                draw_curves(journal.read(), self.folder / "curves.png")
            except ExportError as error:  # training goes on without pictures
                print(f"Not drawn at step {step}: {error}", file=sys.stderr)
        network.train()

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.recipe.steps)

    def _scores(self, pipeline: MarigoldPipeline, step: int, stopping: Callable[[], bool]) -> Record | None:
        """Score the weights: one step, one member, scale and shift fitted; None when the run is stopped meanwhile.

        Source: Ke et al. 2024, section 4.2.
        """
        means: dict[str, Row] = {}
        for a_set in self.sets:
            protocol = choose_protocol(a_set.kind)
            rows = []
            for number in spread(a_set, self.pictures):
                if stopping():
                    return None
                sample = a_set[number]
                settings = Settings(
                    num_inference_steps=VALIDATION_STEPS,
                    processing_resolution=self.recipe.validate_px,
                    seed=(self.recipe.seed + number) % 2**32,
                )
                rows.append(compare(pipeline(sample.rgb, settings), sample.depth_m, protocol).row)
            means[f"{a_set.kind} {a_set.folder.name}"] = averages(rows)
        first = next(iter(means.values()))
        print(f"Step {step}: " + json.dumps({name: round(row["abs_rel"], 4) for name, row in means.items()}))
        return {"step": step, "validation": means, "score": first["abs_rel"]}
