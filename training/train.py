"""Stage 3: the U-Net, ``python -m training.train --recipe nano --start ... --latents ... --out runs/nano``."""

import argparse
from pathlib import Path
from typing import Annotated

import torch
import tyro

from marigold_core import load
from training.dataset import LatentBatches
from training.loop import run_loop
from training.losses import velocity_loss
from training.recipe import RECIPES, Recipe


def train(recipe: Recipe, start: Path, latents: Path, out: Path, minutes: float | None = None) -> Path:
    """Train the U-Net of the checkpoint ``start`` on encoded pictures -> the newest checkpoint in ``out``.

    Raises: MarigoldError for an unusable start, too few latents, or a run begun with other settings.
    """
    pipeline = load(start, dtype="float32")
    pipeline.prompt = pipeline.prompt.clone()  # loaded in inference mode, which autograd refuses
    pipeline.unet.train().requires_grad_(True)
    batches = LatentBatches(latents, recipe.batch_size, recipe.seed)
    print(f"{len(batches)} encoded pictures, {batches.steps_an_epoch} steps an epoch")

    def losses(step: int) -> dict[str, torch.Tensor]:
        image, target, valid = (part.to(pipeline.device) for part in batches.batch(step))
        return {"loss": velocity_loss(pipeline, image, target, valid, recipe=recipe, step=step)}

    return run_loop(pipeline.unet, losses, recipe, run=out, base=start, part="unet", minutes=minutes)


def main() -> None:
    """Read ``--recipe NAME`` first: it gives the defaults of all other options."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--recipe", choices=sorted(RECIPES), default="nano")
    name, rest = first.parse_known_args()

    def run(
        start: Path,
        latents: Path,
        out: Path,
        minutes: float | None = None,
        recipe: Annotated[Recipe, tyro.conf.arg(name="")] = RECIPES[name.recipe],
    ) -> None:
        """Train the U-Net; the same command goes on with a run that was stopped.

        Args:
            start: checkpoint to begin with: its autoencoder is kept, its U-Net trained.
            latents: encoded pictures, from training.latents with that autoencoder.
            out: folder of the run; its newest step_* folder is a whole checkpoint.
            minutes: stop after this time.
            recipe: see training.recipe; --recipe NAME chooses the defaults.
        """
        print(train(recipe, start, latents, out, minutes))

    tyro.cli(run, prog="python -m training.train --recipe {" + ",".join(RECIPES) + "}", args=rest)


if __name__ == "__main__":
    main()
