"""Encode pictures and depth maps once, ``python -m training.latents --checkpoint ... --data ... --out ...``.

The autoencoder is frozen while the U-Net learns, so training can read latents alone (``training.data.latent_cache``).
The same command resumes where it was stopped and encodes pictures that were added: the content of a shard is a function
of (seed, number of its first picture, variant).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.settings import Frozen
from training.data.framing import Batch, choose_size, frame
from training.data.latent_cache import (
    OLD_DEFAULTS,
    autoencoder_sha256,
    check_record,
    holds,
    prior_sha256,
    target_record,
    write_latents,
)
from training.data.loader import start_workers
from training.data.photographs import folder_colours
from training.data.sets import open_set
from training.data.sets.sample import DepthSet
from training.engine import command
from training.engine.checkpoints import in_run
from training.engine.progress import Progress
from training.engine.workers import locked, say_disk_need
from training.recipe import PRESETS, Framing, Precision
from training.start import check_targets

SHARD = 256  # pictures
EVEN = 0.5  # share of flips at which both orientations are equally frequent
VARIANTS = 4  # of a picture, where framing is random
BATCH, BATCH_PX = 16, 450_000  # most pictures and pixels that are encoded at once
AUTOCAST: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Encoding(Frozen):
    """How many variants of a picture are encoded, and in which precision."""

    variants: int | None = Field(
        default=None, ge=1, description="of each picture; auto: 4, or both orientations where only the flip is random"
    )
    precision: Precision | None = Field(
        default=None, description="of the autoencoder; auto: bfloat16 on a CPU, three times as fast, float32 elsewhere"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="all choices are a function of (seed, shard, variant)")
    workers: int = Field(default=0, ge=0, description="processes that read and frame pictures beside the encoder")


@dataclass(frozen=True)
class Shard:
    """Pictures that are stored together, all in one variant."""

    indices: tuple[int, ...]
    variant: int

    @property
    def name(self) -> str:
        """Return the name of its folder, which does not change when pictures are added at the end."""
        return f"shard_{self.indices[0]:08d}_v{self.variant}"


def plan(a_set: DepthSet, framing: Framing, variants: int) -> list[Shard]:
    """Divide a data set into shards, first variant first; with random crops portraits and landscapes are separate."""
    groups = [list(range(len(a_set)))]
    if framing.long_edge_px is not None:
        portrait = np.array([height > width for height, width in a_set.sizes()], dtype=bool)
        groups = [np.flatnonzero(~portrait).tolist(), np.flatnonzero(portrait).tolist()]
    chunks = [tuple(group[at : at + SHARD]) for group in groups for at in range(0, len(group), SHARD)]
    return [Shard(chunk, variant) for variant in range(variants) for chunk in sorted(chunks)]


def count_variants(framing: Framing, asked: int | None) -> int:
    """Decide how many variants of each picture are encoded.

    Where nothing but an even flip is random they are the two orientations, so training draws from the cache what it
    would have framed itself. Raises: MarigoldError when more are asked for than exist.
    """
    still = framing.long_edge_px is None and framing.photographic == 0
    still = still and framing.flip in (0, EVEN, 1) and framing.upside_down in (0, 1)
    most = (2 if framing.flip == EVEN else 1) if still else None
    if most is not None and asked is not None and asked > most:
        raise MarigoldError(
            f"A picture has no more than {most} variants where nothing but the flip is left to chance, but {asked} "
            "were asked for; leave out --variants, or give --long-edge-px or --photographic."
        )
    return asked or most or VARIANTS


def framing_of(framing: Framing, variant: int) -> Framing:
    """Return the framing of a variant; where only the flip is random, unflipped for 0 and flipped for 1."""
    if count_variants(framing, None) != 2:
        return framing
    given: dict[str, Any] = framing.model_dump(include=set(Framing.model_fields))
    return Framing(**{**given, "flip": float(variant)})


class _Framed(Dataset[Batch | MarigoldError]):
    """The batches of shards in order, framed and not yet encoded, for a data loader.

    An error is returned as a value, since the loader would add the worker's traceback to its message.
    """

    def __init__(
        self,
        a_set: DepthSet,
        shards: Sequence[Shard],
        framing: Framing,
        pipeline: MarigoldPipeline,
        colours: Tensor | None,
        seed: int,
    ) -> None:
        self.a_set, self.framing, self.colours, self.seed = a_set, framing, colours, seed
        self.factor, self.modality = pipeline.factor, pipeline.modality
        self.parts: list[tuple[Shard, tuple[int, int], slice]] = []
        for shard in shards:
            rng = np.random.default_rng([seed, shard.indices[0], shard.variant])
            size = choose_size(a_set, shard.indices[0], framing, rng)
            count = max(1, min(BATCH, BATCH_PX // (size[0] * size[1])))
            starts = range(0, len(shard.indices), count)
            self.parts += [(shard, size, slice(at, min(at + count, len(shard.indices)))) for at in starts]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Batch | MarigoldError:
        shard, size, rows = self.parts[number]
        place = (self.seed, shard.indices[0], shard.variant, rows.start)
        framing = framing_of(self.framing, shard.variant)
        try:
            samples = [self.a_set[index] for index in shard.indices[rows]]
            return frame(samples, self.a_set, size, framing, self.factor, place, self.colours, self.modality)
        except MarigoldError as error:
            return error


def encode_set(
    pipeline: MarigoldPipeline,
    a_set: DepthSet,
    folder: Path,
    framing: Framing,
    encoding: Encoding,
    colours: Tensor | None = None,
) -> None:
    """Encode all variants of a data set into ``folder``, except shards that exist.

    Raises: MarigoldError for a damaged picture, and for a folder that was made with other options or pictures.
    """
    precision = encoding.precision or ("bfloat16" if pipeline.device.type == "cpu" else "float32")
    shards = plan(a_set, framing, count_variants(framing, encoding.variants))
    made_with = {
        "kind": a_set.kind,
        "autoencoder_sha256": autoencoder_sha256(pipeline),
        "prior_sha256": prior_sha256(pipeline),
        "depth_curve": pipeline.checkpoint.depth_transfer,
        "target": target_record(pipeline.modality),
        "framing": framing.model_dump(mode="json"),
        "photos_sha256": None if colours is None else hashlib.sha256(colours.numpy().tobytes()).hexdigest(),
        "precision": precision,
        "seed": encoding.seed,
    }
    if made_with["target"] == OLD_DEFAULTS["target"]:
        del made_with["target"]  # as older folders record it: runs compare the record
    check_record(folder, made_with, pictures=len(a_set))
    missing = [
        shard for shard in shards if not holds(folder / shard.name, [a_set.name(index) for index in shard.indices])
    ]
    framed = _Framed(a_set, missing, framing, pipeline, colours, encoding.seed)
    total, left = (sum(len(shard.indices) for shard in some) for some in (shards, missing))
    say_disk_need(folder, _stored_bytes(framed, pipeline), f"{left} encoded pictures need", must=True)
    parts: list[dict[str, np.ndarray]] = []
    names: list[str] = []
    if 0 < left < total:
        print(f"Going on: {total - left} of {total} pictures of {a_set.kind} are encoded", flush=True)
    with locked(folder), Progress(total, a_set.kind, "picture", total - left) as progress:
        batches = start_workers(DataLoader(framed, batch_size=None, num_workers=encoding.workers))
        for (shard, _, _), batch in zip(framed.parts, batches, strict=True):
            if isinstance(batch, MarigoldError):
                raise batch
            parts.append(encode(pipeline, batch, precision))
            names += batch.names
            progress.update(len(batch.names))
            if len(names) == len(shard.indices):
                arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                write_latents(folder / shard.name, arrays, names)
                parts, names = [], []


@torch.inference_mode()
def _stored_bytes(framed: _Framed, pipeline: MarigoldPipeline) -> float:
    """Compute what the shards that are to be encoded take on the disk, but for their names."""
    counts = [
        (rows.stop - rows.start, size[0] // pipeline.factor, size[1] // pipeline.factor)
        for _, size, rows in framed.parts
    ]
    if not counts:
        return 0
    _, height, width = counts[0]
    features = pipeline.features(torch.zeros(1, 4, height, width, device=pipeline.device))
    grey = 2 * isinstance(pipeline.modality, Depth)
    latents = 2 * 4 * (1 + pipeline.modality.pictures)  # of the photo and of the target's pictures
    a_cell = latents + grey + 1 + 2 * sum(part.numel() for part in features) / (height * width)
    return sum(count * height * width for count, height, width in counts) * a_cell


@torch.inference_mode()
def encode(pipeline: MarigoldPipeline, batch: Batch, precision: Precision) -> dict[str, np.ndarray]:
    """Encode a batch of pictures -> image and target latents [B, 4, h, w] float16, valid [B, 1, h, w] bool.

    Of depth its grey in each cell, [B, 1, h, w] float16, and with an image prior its trunk's features of the stored
    image latents, [B, C, h', w'] float16 each.
    Raises: MarigoldError when a latent is not finite in float16.
    """
    arrays = {"valid": batch.valid.numpy()}
    if isinstance(pipeline.modality, Depth):
        arrays["grey"] = F.avg_pool2d(batch.target[:, :1], pipeline.factor).half().numpy()
    dtype = AUTOCAST[precision]
    with torch.autocast(pipeline.device.type, dtype, enabled=dtype is not torch.float32):
        for name, picture in (("image", batch.image), ("target", batch.target)):
            latent = pipeline.encode(picture.to(pipeline.device)).half()
            if not latent.isfinite().all():
                raise MarigoldError(
                    f"The autoencoder gave numbers beyond float16 for {batch.names[0]} or its neighbours in "
                    f"{precision}; give --precision float32, or another checkpoint."
                )
            arrays[name] = latent.cpu().numpy()
            if name == "image":
                features = pipeline.features(latent.float())
                arrays |= {f"features_{number}": found.half().cpu().numpy() for number, found in enumerate(features)}
    return arrays


def main(
    checkpoint: Path,
    data: tuple[str, ...],
    out: Path,
    framing: Framing,
    encoding: Encoding,
    photos: Path | None = None,
) -> None:
    """Encode data sets for training.train; the same command resumes where it was stopped.

    Args:
        checkpoint: folder or name of a checkpoint with the autoencoder, such as a run of training.autoencoder.
        data: data sets, as KIND:FOLDER or a folder that tells its kind.
        out: folder for the latents; of several data sets each gets a folder of its own in it, 1_KIND, 2_KIND ...
        framing: see training.recipe.
        encoding: variants, precision, seed and worker processes.
        photos: folder of photographs whose colours are lent to pictures with --photographic.
    """
    sets = [open_set(spec) for spec in data]
    colours = folder_colours(photos) if photos else None
    pipeline = load(in_run(checkpoint), dtype="float32")
    check_targets(pipeline.checkpoint)
    for number, a_set in enumerate(sets, start=1):
        folder = out if len(sets) == 1 else out / f"{number}_{a_set.kind}"
        encode_set(pipeline, a_set, folder, framing, encoding, colours)


if __name__ == "__main__":
    command.run(main, "python -m training.latents", presets=PRESETS)
