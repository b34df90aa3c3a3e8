"""Both pipelines in this process, stage by stage and as a whole."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import MarigoldDepthPipeline
from PIL import Image

from marigold_core import Settings, load
from marigold_core.ensemble import fuse_absolute, fuse_affine
from marigold_core.images.photo import to_network
from tests.bench.timing import Row, Work, compare, seconds
from tests.helpers.planted import disturb, fit_error, generator, plant

STEPS = 4
MEMBERS = 10
HEADLINE = (576, 768)  # size of the aligner's own rows


@dataclass(frozen=True)
class Rivals:
    """What both sides are run with."""

    checkpoint: str  # as shown in the table
    folder: Path
    device: str
    dtype: str
    batch_size: int


def photo() -> np.ndarray:
    """[576, 768, 3] uint8, the same in every run: hills of colour and some grain."""
    hues = torch.cat([plant(generator(seed), "hills", HEADLINE) for seed in range(3)], dim=1)[0]
    grain = torch.randn(hues.shape, generator=generator(3))
    return (hues * 215 + 20 + 4 * grain).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def measure_aligner(device: str, repeats: int) -> list[Row]:
    """Time fusing ten members of 768 x 576 with median and MAD, and score both results on the planted truth."""
    rng = generator(0)
    truth = plant(rng, "boxes", HEADLINE)
    members = disturb(rng, truth, MEMBERS, level=0.05).to(device)
    kept = {}

    def ours() -> None:
        kept["ours"] = fuse_affine(members)[0]

    def theirs() -> None:
        kept["theirs"] = MarigoldDepthPipeline.ensemble_depth(members, output_uncertainty=True)[0]

    row = compare("-", f"aligner, E={MEMBERS}, 768x576", ours, theirs, repeats)
    errors = [[fit_error(kept[side].cpu(), truth)] for side in ("ours", "theirs")]
    return [row, Row("-", "its error against the planted truth", "RMSE", *errors)]


def measure_median(device: str, repeats: int) -> list[Row]:
    """Time median and MAD over members of two sizes: our sorting network against ``torch.sort`` and ``kthvalue``."""

    def by_rank(members: torch.Tensor, sort: bool) -> torch.Tensor:
        ranks = {(len(members) - 1) // 2, len(members) // 2}
        if sort:
            ordered = members.sort(dim=0).values
            return torch.stack([ordered[rank] for rank in ranks]).mean(dim=0)
        return torch.stack([members.kthvalue(rank + 1, dim=0).values for rank in ranks]).mean(dim=0)

    def theirs(members: torch.Tensor, sort: bool) -> None:
        by_rank((members - by_rank(members, sort)).abs(), sort)

    rows = []
    for height, width in ((480, 640), HEADLINE):
        for count in (3, 5, 10, 20):
            members = torch.rand(count, 1, height, width, generator=generator(count)).to(device)
            for name, sort in (("sort", True), ("kthvalue", False)):
                part = f"median and MAD, E={count}, {width}x{height}, against {name}"
                ours, rival = partial(fuse_absolute, members), partial(theirs, members, sort)
                rows.append(compare("-", part, ours, rival, repeats))
    return rows


def measure_ours(rivals: Rivals, repeats: int) -> list[Row]:
    """Time whole runs of one member and of ten, ours alone: diffusers shrinks no photo in bfloat16."""
    ours, picture = load(rivals.folder, device=rivals.device, dtype=rivals.dtype), photo()
    rows: list[Row] = []
    for members in (1, MEMBERS):
        settings = Settings(num_inference_steps=STEPS, ensemble_size=members)
        ours(picture, settings)
        samples = [seconds(lambda settings=settings: ours(picture, settings)) for _ in range(repeats)]
        rows.append(Row(rivals.checkpoint, f"whole run, {STEPS} steps, E={members}", "s", samples))
    return rows


def open_theirs(rivals: Rivals) -> MarigoldDepthPipeline:
    """Open the same folder in diffusers, in the same type on the same device."""
    pipe = MarigoldDepthPipeline.from_pretrained(
        rivals.folder, dtype=getattr(torch, rivals.dtype), use_safetensors=True
    ).to(rivals.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def measure_stages(rivals: Rivals, repeats: int) -> list[Row]:
    """Time encode, one step, decode, the aligner and whole runs at the checkpoint's own resolution."""
    ours = load(rivals.folder, device=rivals.device, dtype=rivals.dtype)
    theirs = open_theirs(rivals)
    picture = photo()
    image = Image.fromarray(picture)
    x, size = to_network(picture, ours.checkpoint.default_resolution, ours.factor)
    x = x.to(ours.device, ours.dtype)
    latent = ours.encode(x)
    noise = torch.randn(latent.shape, generator=generator(0)).to(latent)
    prompt = ours.prompt.to(latent)
    features = ours.features(latent)  # of the image prior, which diffusers leaves out; a photo is looked at once

    def their_step() -> None:
        theirs.scheduler.set_timesteps(1, device=latent.device)
        t = theirs.scheduler.timesteps[0]
        velocity = theirs.unet(torch.cat([latent, noise], dim=1), t, encoder_hidden_states=prompt, return_dict=False)[0]
        theirs.scheduler.step(velocity, t, noise)

    def our_run(members: int) -> None:
        ours(picture, Settings(num_inference_steps=STEPS, ensemble_size=members, batch_size=rivals.batch_size))

    def their_run(members: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about spacing and step counts, the same every time
            theirs(
                image,
                num_inference_steps=STEPS,
                ensemble_size=members,
                batch_size=rivals.batch_size,
                output_uncertainty=members > 2,
            )

    members = disturb(generator(1), plant(generator(2), "boxes", size), MEMBERS, level=0.05).to(latent.device)
    parts: dict[str, tuple[Work, Work]] = {
        "encode": (lambda: ours.features(ours.encode(x)), lambda: theirs.prepare_latents(x, None, None, 1, 1)),
        "one step": (lambda: list(ours.denoise(latent, noise, 1, features=features)), their_step),
        "decode": (lambda: ours.modality.from_vae(ours.decode(latent)), lambda: theirs.decode_prediction(latent)),
        f"aligner, E={MEMBERS}": (
            lambda: fuse_affine(members),
            lambda: theirs.ensemble_depth(members, output_uncertainty=True),
        ),
        f"whole run, {STEPS} steps, E=1": (lambda: our_run(1), lambda: their_run(1)),
        f"whole run, {STEPS} steps, E={MEMBERS}": (lambda: our_run(MEMBERS), lambda: their_run(MEMBERS)),
    }
    label = f"{rivals.checkpoint} {size[1]}x{size[0]}"
    return [compare(label, part, us, them, repeats) for part, (us, them) in parts.items()]
