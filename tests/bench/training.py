"""Training nano: our loop against a plain one in the published way, on the same pictures and shapes, by turns.

Ours is ``training.train`` with the recipe as shipped: encoded pictures, bfloat16, whole batches of 16. The plain loop
is what the paper describes, written down without tricks: float32, 16 micro-batches of two pictures an optimiser step,
photo and depth encoded each time.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from marigold_core import load
from tests.bench.timing import Row, seconds
from tests.helpers.set_writers import picture, write_pairs
from training.data.sets import open_set
from training.latents import Encoding, encode_set
from training.models.networks import new_checkpoint
from training.recipe import RECIPES
from training.train import Task, train

NANO = RECIPES["nano"]
PICTURES = 64
STORED_PX, SEEN_PX = (192, 256), (144, 192)  # height, width of the files and of what both networks see
OUR_STEPS, PLAIN_STEPS = 8, 2  # a turn: 128 and 64 samples
UNSAVED_MINUTES = 60.0
LABEL = f"nano {SEEN_PX[1]}x{SEEN_PX[0]}"

Sample = tuple[Tensor, Tensor, Tensor]  # photo and depth [3, h, w] in [-1, 1], known [1, h, w] bool


class PlainSet(Dataset[Sample]):
    """Photos with depth as they lie on disk, read and resized each time they are seen."""

    def __init__(self, folder: Path) -> None:
        self.photos = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        path = self.photos[index]
        photo = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
        depth_m = torch.from_numpy(np.array(Image.open(path.with_suffix(".depth.png"))).astype(np.float32))[None] / 1000
        rasters = F.interpolate(torch.cat([photo, depth_m])[None], SEEN_PX, mode="nearest-exact")[0]
        if torch.rand(()) < 0.5:
            rasters = rasters.flip(-1)
        photo, depth_m = rasters[:3], rasters[3:]
        known = depth_m > 0
        near, far = torch.quantile(depth_m[known], torch.tensor([0.02, 0.98]))
        depth = ((depth_m - near) / (far - near)).clamp(0, 1) * 2 - 1
        return photo * 2 - 1, depth.expand(3, -1, -1), known


class PlainLoop:
    """The published fine-tuning, step by step. Source: Ke et al. 2024, sections 3.2 and 4.1."""

    accumulated, micro_batch_size = 16, 2

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.unet = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet").train()
        self.vae: Any = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae").eval().requires_grad_(False)
        self.scheduler: Any = DDPMScheduler.from_pretrained(checkpoint, subfolder="scheduler")
        self.prompt = load(checkpoint, device="cpu", dtype="float32").prompt.clone()
        self.shrink = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.optimizer = torch.optim.Adam(self.unet.parameters(), lr=3e-5)
        self.loader = DataLoader(PlainSet(folder), batch_size=self.micro_batch_size, shuffle=True, drop_last=True)
        self.batches = self._endless()

    def step(self) -> None:
        """Make one optimiser step on 32 pictures."""
        for _ in range(self.accumulated):
            (self._loss(*next(self.batches)) / self.accumulated).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _endless(self) -> Iterator[Sample]:
        while True:
            yield from self.loader

    def _loss(self, photo: Tensor, depth: Tensor, known: Tensor) -> Tensor:
        with torch.no_grad():
            image, clean = (
                self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor for x in (photo, depth)
            )
        t = torch.randint(self.scheduler.config.num_train_timesteps, (len(clean),))
        noise = annealed_noise(clean.shape, 0.9 * t / self.scheduler.config.num_train_timesteps)
        noisy = self.scheduler.add_noise(clean, noise, t)
        target = self.scheduler.get_velocity(clean, noise, t)
        prompt = self.prompt.expand(len(clean), -1, -1)
        velocity = self.unet(torch.cat([image, noisy], dim=1), t, prompt).sample
        usable = F.max_pool2d((~known).float(), self.shrink).eq(0).expand_as(target)
        return F.mse_loss(velocity[usable], target[usable])


def annealed_noise(shape: torch.Size, strength: Tensor) -> Tensor:
    """Draw multi-resolution noise [B, C, h, w] with a strength [B] for each sample."""
    noise = torch.randn(shape)
    height, width = h, w = shape[2:]
    for level in range(10):
        shrink = (2 + 2 * torch.rand(()).item()) ** level
        h, w = max(1, int(h / shrink)), max(1, int(w / shrink))
        coarse = F.interpolate(torch.randn(*shape[:2], h, w), (height, width), mode="bilinear")
        noise += coarse * (strength**level).view(-1, 1, 1, 1)
        if h == 1 or w == 1:
            break
    return noise / noise.std()


def measure_training(scratch: Path, repeats: int) -> list[Row]:
    """Time both loops by turns, each going on where it was, then ours on photos as it sees them; on the CPU.

    A first turn of each is not counted. Photos are encoded anew each time, in random crops of about the same area.
    """
    pictures, latents, checkpoint = scratch / "pictures", scratch / "latents", scratch / "start"
    write_pairs(pictures, {f"{seed:03d}": picture(STORED_PX, seed) for seed in range(PICTURES)})
    new_checkpoint(checkpoint, "nano")
    spec = f"pairs:{pictures}"
    whole = open_set(spec)
    whole.size = SEEN_PX
    framing = NANO.model_copy(update={"long_edge_px": None})  # whole pictures, as the plain loop sees them
    encode_set(load(checkpoint, device="cpu", dtype="float32"), whole, latents, framing, Encoding(variants=1))
    cached = Task(str(checkpoint), scratch / "cached", latents=(latents,), device="cpu")
    plain = PlainLoop(checkpoint, pictures)
    row = Row(LABEL, "training, a sample", "s", [], [])
    waits = Row(LABEL, "waiting for data, encoded pictures", "%", [])
    for turn in range(repeats + 1):
        ours_s, wait = turn_of_ours(cached, turn + 1)
        plain_s = seconds(lambda: [plain.step() for _ in range(PLAIN_STEPS)])
        if turn:
            row.ours.append(ours_s)
            row.theirs.append(plain_s / (PLAIN_STEPS * plain.accumulated * plain.micro_batch_size))
            waits.ours.append(wait)
    rows = [row, waits]
    for workers in (0, 1):
        task = Task(str(checkpoint), scratch / f"pictures{workers}", data=(spec,), workers=workers, device="cpu")
        found = [turn_of_ours(task, turn) for turn in range(1, min(repeats, 2) + 2)][1:]
        name = f"photos, {workers} worker" + "s" * (workers != 1)
        rows.append(Row(LABEL, f"training, a sample, {name}", "s", [one for one, _ in found]))
        rows.append(Row(LABEL, f"waiting for data, {name}", "%", [wait for _, wait in found]))
    return rows


def turn_of_ours(task: Task, turn: int) -> tuple[float, float]:
    """Go on with a run for one turn -> seconds a sample, percent of the time spent waiting for data."""
    with redirect_stdout(sys.stderr):  # standard output is for tables
        train(task, NANO.model_copy(update={"steps": turn * OUR_STEPS, "save_minutes": UNSAVED_MINUTES}))
    lines = [json.loads(line) for line in (task.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    saved = next(line for line in reversed(lines) if line.get("event") == "saved")
    return 1 / saved["samples_a_second"], 100 * saved["waited_share"]
