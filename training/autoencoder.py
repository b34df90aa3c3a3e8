"""Trains a small autoencoder, ``python -m training.autoencoder --out runs/ae --data data/scenes``.

It encodes photographs, depth maps and normal maps, with ``--labels-share`` painted classes too, as four channels at a
quarter of their width and height, and is then frozen. Latents are scaled to unit variance by one factor, which is
stored in its configuration as in diffusers.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth, Normals, Segmentation
from marigold_core.storage import write_json
from training.data.augmentation import crop_nearest, crop_picture, draw_crop, photographic
from training.data.photographs import photographs
from training.data.random_streams import stream
from training.data.sets.rendered import RenderedScenes
from training.data.targets import CLASS_LAYER, CLASSES
from training.engine import checkpoints
from training.engine.command import run
from training.engine.figures import FigureCallback
from training.engine.fingerprint import check_folder, run_fingerprint
from training.engine.loop import Losses, Run, run_loop
from training.engine.metrics_log import MetricsLog
from training.engine.processes import accelerator_for
from training.recipe import AutoencoderRecipe
from training.scoring.plots import draw_sheet
from training.start import prepare_start


@dataclass(frozen=True)
class Task:
    """What to train on and where, beside the recipe."""

    out: Path  # folder of the run; its newest step_* folder is a whole checkpoint
    data: Path  # rendered scenes, from training.render
    photos: Path | None = None  # folder of photographs (JPEG or PNG) to learn natural pictures from
    # new:SHAPE for random weights, or a checkpoint whose U-Net then has to be trained anew
    start_from: str = "new:nano"
    minutes: float | None = None  # stop after this time
    device: Literal["auto", "cpu"] = "auto"  # where to train


PAINTED = Segmentation((CLASS_LAYER,))
OWN_COLOURS = 0.5  # share of painted classes that have the palette's colours; the others have colours of their own
SHOWN = 6  # crops of a sheet of reconstructions
MEASURED = 128  # pictures from which the scaling factor is computed


@dataclass(frozen=True)
class Crops:
    """A batch, [B, 3, S, S] in [-1, 1]."""

    pictures: Tensor
    names: tuple[str, ...] = ()  # for the loop's messages; there would be too many


class Pictures:
    """Training batches: crops of renders, photographs, depth and normal maps, a function of (seed, step)."""

    def __init__(self, recipe: AutoencoderRecipe, scenes: RenderedScenes, photos: list[np.ndarray]):
        self.recipe, self.scenes, self.photos = recipe, scenes, photos

    def __call__(self, steps: range) -> Iterator[Crops]:
        """Yield the batches of some steps."""
        for step in steps:
            yield Crops(self.batch(step))

    def batch(self, step: int) -> Tensor:
        """Draw [B, 3, S, S] in [-1, 1], the batch of one step."""
        rng = np.random.default_rng([self.recipe.seed, step])
        size = (self.recipe.crop_px, self.recipe.crop_px)
        maps, pictures = [], []
        for kind in rng.random(self.recipe.batch_size):
            sample = self.scenes[int(rng.integers(len(self.scenes)))]
            rgb = sample.rgb
            if self.photos and rng.random() < 0.6:
                rgb = self.photos[int(rng.integers(len(self.photos)))]
            box = draw_crop(sample.depth_m.shape[0], sample.depth_m.shape[1], 1.0, rng)
            if kind < self.recipe.depth_share:
                maps.append(self._depth(crop_nearest(sample.depth_m, box, size)))
            elif kind > 1 - self.recipe.labels_share:
                labels = torch.from_numpy(crop_nearest(sample.labels, box, size).copy())[None, None]
                palette = PAINTED if rng.random() < OWN_COLOURS else _any_colours(rng)
                maps.append(palette.to_vae(labels, torch.ones_like(labels, dtype=torch.bool)))
            elif kind < self.recipe.depth_share + self.recipe.normals_share:
                normals = torch.from_numpy(crop_nearest(sample.normals, box, size)).permute(2, 0, 1)[None]
                maps.append(Normals().to_vae(normals, normals.norm(dim=1, keepdim=True) > 0.5))
            else:
                box = draw_crop(rgb.shape[0], rgb.shape[1], 1.0, rng)
                pictures.append(torch.from_numpy(crop_picture(rgb, box, size).copy()).permute(2, 0, 1))
        if pictures:
            seen = photographic(torch.stack(pictures).float() / 255, stream(self.recipe.seed, step))
            maps.append(seen * 2 - 1)
        return torch.cat(maps)

    @staticmethod
    def _depth(depth_m: np.ndarray) -> Tensor:
        depth = torch.from_numpy(depth_m)[None, None]
        return Depth().to_vae(depth, depth.isfinite())


def _any_colours(rng: np.random.Generator) -> Segmentation:
    """Draw a palette, so that what is learned does not hold for one alone."""
    colours = rng.integers(0, 256, (len(CLASSES), 3)).tolist()
    classes = tuple(replace(one, rgb=tuple(rgb)) for one, rgb in zip(CLASSES, colours, strict=True))
    return Segmentation((replace(CLASS_LAYER, classes=classes),))


def autoencoder_losses(vae: AutoencoderKL, pictures: Tensor, recipe: AutoencoderRecipe, step: int) -> dict[str, Tensor]:
    """Score reconstruction of [B, 3, H, W] in [-1, 1]: absolute error, the same of neighbour differences, KL."""
    posterior = vae.encode(pictures, return_dict=False)[0]
    random = stream(recipe.seed, step, 1)
    noise = torch.randn(posterior.mean.shape, generator=random).to(posterior.mean)
    latent = cast(torch.FloatTensor, posterior.mean + posterior.std * noise)
    decoded = vae.decode(latent, return_dict=False)[0].float()
    error = (decoded - pictures).abs().mean()
    edges = decoded.new_zeros(())
    for scale in (1, 2):
        fine, truth = (F.avg_pool2d(x, scale) for x in (decoded, pictures))
        edges = edges + sum((fine.diff(dim=axis) - truth.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return {"loss": error + recipe.gradient_weight * edges + recipe.kl_weight * kl, "error": error, "kl": kl}


@torch.no_grad()
def scale_latents(folder: Path, pictures: Pictures) -> dict[str, float]:
    """Write the factor that scales latents to unit variance into the folder -> factor and reconstruction errors.

    Of photographs and renders: PSNR in dB. Of depth: mean absolute error in [-1, 1] of the mean over channels.
    """
    vae, recipe = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval(), pictures.recipe

    def drawn(**shares: float) -> list[Tensor]:  # batches that no step trained on
        source = Pictures(recipe.changed(**shares), pictures.scenes, pictures.photos)
        return [source.batch(recipe.steps + number) for number in range(-(-MEASURED // recipe.batch_size))]

    def with_decoded(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.cat(batches), torch.cat([vae(batch, return_dict=False)[0] for batch in batches]).clamp(-1, 1)

    latents = torch.cat([vae.encode(batch, return_dict=False)[0].mode().flatten() for batch in drawn()])
    factor = round(1 / latents.std().item(), 5)
    path = folder / "vae" / "config.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"scaling_factor": factor})
    truth, decoded = with_decoded(drawn(depth_share=0, normals_share=0, labels_share=0))
    squares = (decoded - truth).square().mean(dim=(1, 2, 3)) / 4
    depth, read = with_decoded(drawn(depth_share=1, normals_share=0, labels_share=0))
    return {
        "scaling_factor": factor,
        "picture_psnr_db": (-10 * squares.log10()).mean().item(),
        "depth_mae": (read.mean(dim=1) - depth[:, 0]).abs().mean().item(),
    }


@torch.inference_mode()
def draw_reconstructions(vae: AutoencoderKL, pictures: Pictures, step: int, path: Path) -> None:
    """Draw crops beside what the autoencoder makes of them -> a PNG at ``path``.

    The crops are the same in every sheet of a run; none of them is trained on.
    Raises: ExportError when it cannot be written.
    """
    batch = pictures.batch(pictures.recipe.steps)  # maps first, then pictures
    crops = batch[:: max(1, len(batch) // SHOWN)][:SHOWN]
    training = vae.training
    decoded = vae.eval()(crops.to(vae.device), return_dict=False)[0].float().clamp(-1, 1).cpu()
    vae.train(training)
    columns = [((part + 1) / 2 * 255).round().byte().permute(0, 2, 3, 1).numpy() for part in (crops, decoded)]
    rows = [(f"crop {number + 1}", pair) for number, pair in enumerate(zip(*columns, strict=True))]
    draw_sheet(f"crops that no step trains on, after step {step}", ("crop", "reconstruction"), rows, path)


def train_autoencoder(task: Task, recipe: AutoencoderRecipe) -> dict[str, float]:
    """Train the autoencoder of a checkpoint -> scaling factor and reconstruction errors, see ``scale_latents``.

    Raises: MarigoldError for unusable data, and what ``loop.run_loop`` raises.
    """
    maps = recipe.depth_share + recipe.normals_share + recipe.labels_share
    if maps > 1:
        raise MarigoldError(
            f"Depth, normals and labels cannot be {maps:g} of the pictures: give shares of at most 1 in all."
        )
    check_folder(task.out)
    accelerator = accelerator_for(recipe, task.device)
    if accelerator.num_processes > 1:
        raise MarigoldError("The autoencoder is small and is trained by one process; start it without a launcher.")
    scenes = RenderedScenes(task.data)
    photos = photographs(task.photos) if task.photos else None
    natural = [photos.read(number) for number in range(len(photos))] if photos else []
    pictures = Pictures(recipe, scenes, natural)
    new = checkpoints.latest(task.out) is None  # nothing was trained from an earlier start
    base = prepare_start(task.start_from, task.out / "start", seed=recipe.seed, replace=new)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae").train()

    def draw(network: ModelMixin, step: int, path: Path) -> None:
        draw_reconstructions(cast(AutoencoderKL, network), pictures, step, path)

    def loss(network: nn.Module, step: int, crops: Crops) -> Losses:
        return autoencoder_losses(cast(AutoencoderKL, network), crops.pictures.to(vae.device), recipe, step)

    data = [f"{len(scenes)} pictures, {len(natural)} photographs"]
    fingerprint = run_fingerprint(recipe, load(base).checkpoint.sha256, data, accelerator.device.type)
    run = Run(task.out, base, "vae", fingerprint, record={"pictures": data})
    figures = FigureCallback(recipe, task.out, draw)
    folder = run_loop(vae, loss, pictures, recipe, run, accelerator, callback=figures, minutes=task.minutes)
    scores = scale_latents(folder, pictures)
    log = MetricsLog(task.out / checkpoints.METRICS)
    record = {"step": checkpoints.step_of(folder), "event": "settled", **scores}
    if not any(record.items() <= line.items() for line in log.read()):  # a finished run that is started again has it
        log.add(record)
    load(folder)  # checks that the folder is complete
    return scores


def main(task: Task, recipe: AutoencoderRecipe = AutoencoderRecipe()) -> None:  # noqa: B008 (frozen)
    """Train the autoencoder of a checkpoint; the same command resumes a run that was stopped."""
    print(train_autoencoder(task, recipe))


if __name__ == "__main__":
    run(main, "python -m training.autoencoder")
