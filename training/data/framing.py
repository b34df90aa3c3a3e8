"""Framing: pictures with a target, such as depth -> training batches; crops, flips, augmentation, normalisation, mask.

It runs on the CPU, in the workers of a data loader. Every random choice is a function of a place in the run, such as
(seed, micro-batch), and of a picture's position in the batch; the number of workers and restarts change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from marigold_core.errors import MarigoldError
from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.modalities import Depth, Modality
from training.data.augmentation import crop_nearest, crop_picture, draw_crop, photographic
from training.data.random_streams import stream
from training.data.sets.sample import DepthSet, Sample
from training.data.targets import focal_px, planes, target_of, which_count
from training.recipe import Framing

ASPECTS = (4 / 3, 3 / 2, 16 / 9, 5 / 2, 1.0)  # width / height of landscape crops; portraits take the inverse
ASPECT_SHARES = (0.55, 0.15, 0.1, 0.1, 0.1)
WIDE = 2.0  # from this width / height on, crops stay wide, as the pictures of cameras in cars are
WIDE_ASPECTS = (16 / 9, 5 / 2, 10 / 3)
WIDE_SHARES = (0.4, 0.3, 0.3)
ROUND_PX = 16

PUBLISHED = Depth()  # what is predicted unless a checkpoint says otherwise

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Batch:
    """A micro-batch: pictures of one size from one data set, or the latents of such."""

    image: Tensor  # [B, 3, H, W] in [-1, 1], or its latent [B, 4, h, w]
    target: Tensor  # the same of the target, as its modality paints it; of depth near = -1, far = 1
    valid: Tensor  # [B, 1, h, w] bool, latent cells whose target is known
    names: tuple[str, ...]
    encoded: bool  # True: image and target are latents
    features: Features = ()  # of the image prior's trunk, where they were computed with the latents
    grey: Tensor | None = None  # mean grey of the depth map in each latent cell [B, 1, h, w], where it is stored


def crop_size(long_edge_px: int, aspect: float) -> Size:
    """Choose (h, w) of ``aspect`` = w / h with the pixels of a 4:3 picture of that long edge, in steps of 16."""
    area = long_edge_px**2 * 3 / 4
    height, width = (area / aspect) ** 0.5, (area * aspect) ** 0.5
    return max(1, round(height / ROUND_PX)) * ROUND_PX, max(1, round(width / ROUND_PX)) * ROUND_PX


def choose_size(a_set: DepthSet, index: int, framing: Framing, rng: np.random.Generator) -> Size:
    """Choose the (height, width) in pixels of the micro-batch that begins with picture ``index``.

    With ``long_edge_px`` the aspect is drawn, wide for wide pictures, and the orientation kept; without it, it is the
    set's published size, or the one size that all its pictures have.
    Raises: MarigoldError when the pictures have several sizes and no size was chosen.
    """
    if framing.long_edge_px is not None:
        height, width = a_set.sizes()[index]
        wide = max(width / height, height / width) >= WIDE
        aspect = float(rng.choice(WIDE_ASPECTS, p=WIDE_SHARES) if wide else rng.choice(ASPECTS, p=ASPECT_SHARES))
        return crop_size(framing.long_edge_px, aspect if width >= height else 1 / aspect)
    if a_set.size is not None:
        return a_set.size
    sizes = sorted(set(a_set.sizes()))
    if len(sizes) > 1:
        (low_h, low_w), (high_h, high_w) = sizes[0], sizes[-1]
        raise MarigoldError(
            f"The pictures of {a_set.folder.name} have {len(sizes)} sizes, from {low_w} x {low_h} to "
            f"{high_w} x {high_h}, and a batch has one: choose it with --long-edge-px, such as --long-edge-px 640."
        )
    return sizes[0]


def frame(
    samples: Sequence[Sample],
    a_set: DepthSet,
    size: Size,
    framing: Framing,
    factor: int,
    place: tuple[int, ...],
    colours: Tensor | None = None,
    modality: Modality = PUBLISHED,
) -> Batch:
    """Turn pictures with a modality's target into a batch of ``size``, cut to multiples of ``factor``.

    ``place`` = (seed, ...) decides every random choice; ``colours`` [L, 3, 2] are colours of real photographs
    (``augmentation.measure_colours``) that faulty pictures may take over.
    A picture of one depth alone counts nowhere. Raises: MarigoldError naming the sample without target or known depth.
    Source: Ke et al. 2024, section 3.2; without random crops the published sizes, nearest-exact as the authors resize.
    """
    # 1. Crop or resize, and turn: what moves pixels.
    cut = (size[0] // factor * factor, size[1] // factor * factor)
    nearest = framing.nearest_rgb
    target, rgb, values = target_of(modality), [], []
    for position, sample in enumerate(samples):
        rng = np.random.default_rng([*place, position])
        box = _box(sample.depth_m.shape, size, cut, framing, rng)
        turned = rng.random() < framing.upside_down
        mirrored = rng.random() < framing.flip
        picture = (crop_nearest if nearest else crop_picture)(sample.rgb, box, cut)
        rgb.append(picture[:: -1 if turned else 1, :: -1 if mirrored else 1])
        seen = target.values(sample, focal_px(sample, cut[1] / (box[2] - box[0])))
        found = planes(crop_nearest(seen, box, cut))[None]  # [1, C, H, W]
        found = modality.mirror(found, upside_down=True) if turned else found
        values.append(modality.mirror(found) if mirrored else found)
    # 2. Photographs, with their faults.
    pictures = torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
    pictures = photographic(pictures, stream(*place, len(samples)), colours, framing.photographic)
    # 3. The target: what of it counts, and the picture that it becomes.
    finished = target.finish(torch.cat(values))
    measured, known = target.masks(finished, a_set, framing)
    painted = modality.to_vae(finished, measured)  # [B, 3 P, H, W]
    if isinstance(modality, Depth):
        _refuse_unknown(samples, known, a_set, framing)
        if modality.range_m is None:
            known = known & _has_range(painted, measured, modality.far_grey)
    if framing.min_known < 1:
        painted = fill_unknown(painted, known)
    cells = F.avg_pool2d(known.float(), factor) >= framing.min_known  # [B, 1, h, w]
    return Batch(pictures * 2 - 1, painted, cells, tuple(sample.name for sample in samples), encoded=False)


def _has_range(target: Tensor, measured: Tensor, far_grey: float) -> Tensor:
    """Encoded depth [B, 3, H, W], mask of what was measured [B, 1, H, W] -> which pictures have a range, [B, 1, 1, 1].

    Where the 2 % and the 98 % quantile are equal there is no near and no far plane, and ``Depth.to_vae`` gives the far
    plane alone: such a picture teaches nothing.
    """
    return ((target[:, :1] != far_grey) & measured).flatten(1).any(dim=1)[:, None, None, None]


def fill_unknown(target: Tensor, known: Tensor) -> Tensor:
    """Give unknown pixels of [B, C, H, W] the value of the nearest known one ([B, 1, H, W] bool) -> the same shape.

    So a latent cell with a few measurements is encoded as the surface that they lie on. A picture without any known
    pixel stays as it is.
    """
    filled = [
        plane if mask.all() or not mask.any() else plane[:, *_nearest_known(mask[0].numpy())]
        for plane, mask in zip(target, known, strict=True)
    ]
    return torch.stack(filled)


def _nearest_known(known: np.ndarray) -> tuple[Tensor, Tensor]:
    """Find the nearest True of [H, W] bool -> its row and its column for every pixel, both [H, W]."""
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)  # type: ignore
    return torch.from_numpy(rows).long(), torch.from_numpy(columns).long()


def _box(shape: tuple[int, ...], size: Size, cut: Size, framing: Framing, rng: np.random.Generator) -> Box:
    """Choose what becomes ``cut``: a random crop, or the middle of the picture at the scale that ``size`` asks for."""
    height, width = shape
    if framing.long_edge_px is not None:
        return draw_crop(height, width, cut[1] / cut[0], rng)
    h, w = height * cut[0] / size[0], width * cut[1] / size[1]
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _refuse_unknown(samples: Sequence[Sample], known: Tensor, a_set: DepthSet, framing: Framing) -> None:
    """Refuse pictures without any known depth; a crop may miss all of it, and then simply does not count."""
    for sample, seen in zip(samples, known.flatten(1).any(dim=1).tolist(), strict=True):
        if not seen and not which_count(torch.from_numpy(sample.depth_m), a_set, framing)[1].any():
            raise MarigoldError(
                f"{sample.name} of {a_set.folder.name} has no known depth between {a_set.near_m:g} and "
                f"{a_set.far_m:g} m: remove it, or see what is wrong with python -m training.doctor."
            )
