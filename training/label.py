"""Labels photographs with what checkpoints say of them, ``python -m training.label CHECKPOINT... --photos PHOTOS``.

A photograph without depth is given the mean of members that see it as it is and in other views and of as many drafts,
which err otherwise, where checkpoints make drafts. Jumps are moved onto the photo's outlines: soft labels make soft
outlines. Kept are the photographs on which members and drafts, or without drafts two halves of the members, agree best.
The result is a data set of ``pairs``.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from zlib import crc32

import numpy as np
import torch
import tyro
from PIL import Image
from pydantic import Field
from torch.nn import functional as F

from marigold_core import load
from marigold_core.ensemble import align_affine
from marigold_core.errors import MarigoldError
from marigold_core.images.photo import Photo, load_photo, network_size
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.outlines import follow_outlines
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.pipeline.views import VIEWS, View
from marigold_core.settings import Frozen, Settings
from marigold_core.storage import replacing, write_json
from training.data.photographs import photographs
from training.data.sets.sample import spread
from training.engine.checkpoints import in_run
from training.engine.command import run
from training.engine.progress import follow
from training.engine.workers import locked

RECORD = "labels.json"
VIEWED = "mirrored-rescaled"
QUALITY = 95  # of the JPEG photos
ENDINGS = (".jpg", ".depth.npy")


class Labelling(Frozen):
    """What labels depend on, beside checkpoints and photographs."""

    members: int = Field(default=2, ge=1, le=6, description="of each checkpoint, and drafts, each with another view")
    steps: int = Field(default=3, ge=1, description="denoising steps of a member")
    kept: float = Field(
        default=0.67, gt=0, le=1, description="share of the photographs that is kept, those with the best agreement"
    )
    long_edge_px: int = Field(default=384, ge=64, description="larger photographs are made smaller first")
    widest: float = Field(default=2.4, ge=1, description="photographs wider or higher than this ratio are left out")
    seed: int = Field(default=0, ge=0, description="of the members")
    limit: int | None = Field(default=None, ge=1, description="how many photographs, evenly spread; auto: all")


@torch.inference_mode()
def draft_map(pipeline: MarigoldPipeline, photo: Photo, view: View) -> torch.Tensor:
    """Read depth off what a checkpoint drafts of a photo in a view -> [1, 1, PH, PW] of the photo.

    Raises: MarigoldError when the checkpoint drafts nothing.
    """
    depth = pipeline.modality
    if pipeline.draft is None or not isinstance(depth, Depth):
        raise MarigoldError(f"{pipeline.checkpoint.name} makes no draft: run training.draft first.")
    height, width = photo.pixels.shape[:2]
    resolution = pipeline.checkpoint.default_resolution
    seen = Photo(view.pixels(photo.pixels), None, None)
    features = pipeline.photo_features(seen, view.resolution(resolution, (height, width)))
    values = depth.read(pipeline.draft(tuple(one.float() for one in features)))
    values = depth.mirror(values) if view.mirrored else values
    return depth.resize(values, network_size(height, width, resolution)).cpu()


def guess(pipelines: Sequence[MarigoldPipeline], photo: Photo, how: Labelling, seed: int) -> tuple[np.ndarray, float]:
    """Guess the depth of a photo -> [PH, PW] in [0, 1], and the correlation of members and drafts.

    Without a draft it is that of two halves of the members. Raises: MarigoldError for a single member without a draft.
    """
    settings = Settings(num_inference_steps=how.steps, ensemble_size=how.members, views=VIEWED, seed=seed)
    members: list[torch.Tensor] = []
    drafts: list[torch.Tensor] = []
    for pipeline in pipelines:
        if pipeline.draft is not None:
            drafts += [draft_map(pipeline, photo, view) for view in VIEWS[VIEWED][::-1][: how.members]]
        found = cast(np.ndarray, pipeline(photo, settings).members)  # [E, PH, PW]
        members += torch.from_numpy(found.astype(np.float32)).unsqueeze(1).split(1)
    if not drafts and len(members) < 2:
        raise MarigoldError("One member without a draft has nothing to agree with: give --members 2 or more.")
    means: list[torch.Tensor] = []
    for kind in (members, drafts) if drafts else (members[::2], members[1::2]):
        maps = torch.cat([F.interpolate(one, members[0].shape[-2:], mode="bilinear") for one in kind])
        scale, shift = (part.to(maps)[:, None, None, None] for part in align_affine(maps))
        means.append((scale * maps + shift).mean(dim=(0, 1)))
    agreement = float(torch.corrcoef(torch.stack([mean.flatten() for mean in means]))[0, 1])
    values = (means[0] + means[1]).numpy()
    return (values - values.min()) / max(float(np.ptp(values)), 1e-6), agreement


def label(checkpoints: Sequence[str], photos: str | Path, out: Path, how: Labelling) -> int:
    """Label photographs of a folder or a data set -> how many are kept.

    Raises: MarigoldError when ``out`` was begun otherwise or holds what is no label, or another process labels into it.
    """
    path = out / RECORD
    if not path.exists() and out.is_dir() and any(one.name[0] != "." for one in out.iterdir()):
        raise MarigoldError(f"{out} holds something else already, which labels could replace: give another --out.")
    pipelines = [load(in_run(checkpoint)) for checkpoint in checkpoints]
    found = photographs(photos)
    begun = how.model_dump() | {"checkpoints": [pipeline.checkpoint.sha256 for pipeline in pipelines]}
    with locked(out, "labels", within=["**"]):
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"settings": begun, "agreement": {}}
        if record["settings"] != begun:
            raise MarigoldError(
                f"{out} holds labels of other checkpoints or settings: give the same, or another --out."
            )
        write_json(path, record)  # before the first label, so that a killed run is known as one
        agreement = cast(dict[str, float], record["agreement"])

        def label_all(numbers: Sequence[int]) -> None:
            for number in follow(numbers, len(numbers), "label"):
                name = found.names[number]
                photo = load_photo(_smaller(found.read(number), how.long_edge_px))
                height, width = photo.pixels.shape[:2]
                if max(height, width) > how.widest * min(height, width):
                    continue
                values, agreement[name] = guess(pipelines, photo, how, crc32(f"{how.seed} {name}".encode()))
                _write(out / name, photo, values)
                write_json(path, record)

        label_all([number for number in spread(found, how.limit) if found.names[number] not in agreement])
        best = set(sorted(agreement, key=lambda name: -agreement[name])[: math.ceil(how.kept * len(agreement))])
        # of those that an earlier run left out, more are among the best when worse ones have been added
        label_all([number for number, name in enumerate(found.names) if name in best and not _is_there(out / name)])
        for name in agreement.keys() - best:
            for label_file in _files(out / name):
                label_file.unlink(missing_ok=True)
    return len(best)


def _files(target: Path) -> list[Path]:
    """Name the files of a label: its photo and its depth."""
    return [target.with_name(target.name + ending) for ending in ENDINGS]


def _is_there(target: Path) -> bool:
    return all(path.exists() for path in _files(target))


def _write(target: Path, photo: Photo, values: np.ndarray) -> None:
    """Write photo and label; depth begins at 1 m, since it is not known where it would be 0."""
    height, width = photo.pixels.shape[:2]
    full = F.interpolate(torch.from_numpy(values)[None, None], (height, width), mode="bilinear", align_corners=False)
    depth = follow_outlines(full[0, 0].numpy(), photo.pixels, max(values.shape))
    photo_file, depth_file = _files(target)
    with replacing(photo_file) as aside:
        Image.fromarray(photo.pixels).save(aside, "JPEG", quality=QUALITY)
    with replacing(depth_file) as aside, aside.open("wb") as file:
        np.save(file, (1 + 9 * depth).astype(np.float32))


def _smaller(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Shrink a photo [H, W, 3] to a longest edge in pixels, if it is larger."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def main(
    checkpoints: tyro.conf.Positional[tuple[str, ...]],
    photos: str,
    out: Path,
    how: Labelling = Labelling(),  # noqa: B008 (frozen)
) -> None:
    """Label photographs with what checkpoints say of them; the same command goes on where it was stopped.

    Args:
        checkpoints: folders, names or runs, best each with a draft.
        photos: folder of photographs, or a data set KIND/SPLIT:FOLDER whose depth is not looked at.
        out: folder to write, a data set of pairs.
        how: what the labels depend on.
    """
    print(f"{label(checkpoints, photos, out, how)} photographs of {photos} are labelled in {out}")


if __name__ == "__main__":
    run(main, "python -m training.label")
