"""Stage 4: the network that moves a checkpoint's outlines, ``python -m training.displacement --out runs/displacement``.

The checkpoint predicts rendered pictures; the network learns to give these maps the outlines that the true depth has,
from the photo alone. It is the last to be trained, since it knows the faults of one checkpoint.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core.checkpoints.layout import DISPLACEMENT
from marigold_core.images.colormaps import depth_to_rgb
from marigold_core.pipeline.displacement import PASSES, DisplacementNetwork
from marigold_core.pipeline.outlines import follow_outlines
from marigold_core.settings import Settings
from marigold_core.storage import replacing
from training.data.augmentation import photographic
from training.data.outlines import with_true_outlines
from training.data.random_streams import stream
from training.data.sets.rendered import RenderedScenes
from training.engine.addition import MAPS, SHOWN, Addition, Task
from training.engine.command import run
from training.engine.loop import Losses
from training.recipe import DisplacementRecipe
from training.start import find_start

STEPS = 2  # denoising steps of a map that is trained on; one member
SCALES = (1.0, 2.0)  # of the pictures; at the larger they are about as large as the network sees photos
SOFTER = 2.2  # pixels: deviation of the widest blur of half of the maps, as several members or a hard photo give
OFFERED = 3  # places for a crop; the one with most to mend is taken
WEIGHTS = (0.5, 1.0)  # of the maps after the passes


class Crops(NamedTuple):
    """A batch: photos [B, 3, S, S] in [-1, 1], maps and what is to be made of them [B, 1, S, S] in [0, 1]."""

    photos: Tensor
    maps: Tensor
    wanted: Tensor
    names: tuple[str, ...] = ()  # for the loop's messages; there would be too many


class Maps:
    """Training batches: crops of rendered photos and of a checkpoint's maps of them, a function of (seed, step)."""

    def __init__(self, recipe: DisplacementRecipe, scenes: RenderedScenes, numbers: list[int], folder: Path) -> None:
        self.recipe, self.scenes, self.numbers, self.folder = recipe, scenes, numbers, folder

    def batch(self, step: int) -> Crops:
        """Draw the batch of a step."""
        rng = np.random.default_rng([self.recipe.seed, step])
        places = rng.integers(len(self.numbers) - SHOWN, size=self.recipe.batch_size)
        crops = torch.stack([self._crop(self.numbers[SHOWN + place], rng) for place in places])
        photos = photographic(crops[:, :3].clamp(0, 1), stream(self.recipe.seed, step))
        return Crops(photos * 2 - 1, crops[:, 3:4], crops[:, 4:])

    def read(self, number: int) -> Tensor:
        """Read photo, map and what is to be made of it -> [5, H, W] in [0, 1]."""
        maps = np.load(self.folder / f"{number:06d}.npy", allow_pickle=False)
        photo = torch.from_numpy(self.scenes[number].rgb.copy()).permute(2, 0, 1).float() / 255
        return torch.cat([photo, torch.from_numpy(maps).float()])

    def _crop(self, number: int, rng: np.random.Generator) -> Tensor:
        picture, side = self.read(number), self.recipe.crop_px
        height, width = picture.shape[1:]
        low, high = np.log(SCALES)
        scale = max(float(np.exp(rng.uniform(low, high))), side / min(height, width))
        cut = min(height, width, round(side / scale))
        offered = [(int(rng.integers(height - cut + 1)), int(rng.integers(width - cut + 1))) for _ in range(OFFERED)]
        cuts = [picture[None, :, top : top + cut, left : left + cut] for top, left in offered]
        crop = max(cuts, key=lambda one: float((one[:, 3] - one[:, 4]).abs().mean()))
        crop = F.interpolate(crop, (side, side), mode="bilinear")
        if rng.random() < 0.5:
            crop = crop.flip(-1)
        if rng.random() < 0.5:
            crop[:, 3:4] = _blur(crop[:, 3:4], scale * rng.uniform(0.4, SOFTER))
        return crop[0]


def predict_maps(run: Addition) -> None:
    """Let the checkpoint predict pictures -> ``maps/NUMBER.npy`` [2, H, W] float16: the map, and what to make of it.

    What is there is kept. Raises: MarigoldError when it was made otherwise.
    """
    for pipeline, number, target in run.missing(".npy", 4 * math.prod(run.scenes.sizes()[0])):
        sample = run.scenes[number]
        values = pipeline(sample.rgb, Settings(num_inference_steps=STEPS, seed=number)).values
        wanted = with_true_outlines(torch.from_numpy(values), torch.from_numpy(sample.depth_m))
        with replacing(target) as aside, aside.open("wb") as file:
            np.save(file, np.stack([values, wanted.numpy()]).astype(np.float16))


def displacement_losses(network: nn.Module, crops: Crops) -> Losses:
    """Score the map after each pass: absolute error, and that of neighbours' differences at three scales."""
    loss, depth = crops.maps.new_zeros(()), crops.maps
    for weight in WEIGHTS[-PASSES:]:
        depth = network(crops.photos, depth)
        loss = loss + weight * (depth - crops.wanted).abs().mean()
        for scale in (1, 2, 4):
            fine, truth = (F.avg_pool2d(part, scale) for part in (depth, crops.wanted))
            for axis in (-1, -2):
                loss = loss + weight * (fine.diff(dim=axis) - truth.diff(dim=axis)).abs().mean()
    before = (crops.maps - crops.wanted).abs().mean()
    return {"loss": loss, "error": (depth - crops.wanted).abs().mean().detach(), "error_before": before}


def train_displacement(task: Task, recipe: DisplacementRecipe) -> Path:
    """Predict the pictures, then train the network on these maps -> the newest checkpoint of the run.

    Raises: MarigoldError for unusable starts or data, and what ``loop.run_loop`` raises.
    """
    run = Addition(task, recipe, find_start(task.start_from), DISPLACEMENT)
    predict_maps(run)
    maps = Maps(recipe, run.scenes, run.numbers, task.out / MAPS)

    def loss(network: DisplacementNetwork, step: int, crops: Crops) -> Losses:
        return displacement_losses(network, crops)

    def show(network: DisplacementNetwork, number: int) -> tuple[np.ndarray, ...]:
        picture = maps.read(number)
        photo = (picture[:3] * 255).byte().permute(1, 2, 0).numpy()
        before, wanted = picture[3:].numpy()
        followed = follow_outlines(before, photo, max(photo.shape) * 2 // 3, network)
        return photo, *(depth_to_rgb(one) for one in (before, followed, wanted))

    columns = ("photo", "predicted", "followed", "with true outlines")
    return run.train(DisplacementNetwork, DisplacementNetwork, maps.batch, loss, columns, show)


def _blur(maps: Tensor, sigma_px: float) -> Tensor:
    """Blur maps [B, 1, S, S] by a Gaussian."""
    radius = int(3 * sigma_px) + 1
    kernel = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma_px**2))
    kernel = kernel / kernel.sum()
    wide = F.pad(maps, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, kernel[None, None, None]), kernel[None, None, :, None])


def main(task: Task, recipe: DisplacementRecipe = DisplacementRecipe()) -> None:  # noqa: B008 (frozen)
    """Train the network that moves a checkpoint's outlines; the same command resumes a run that was stopped."""
    print(train_displacement(task, recipe))


if __name__ == "__main__":
    run(main, "python -m training.displacement")
