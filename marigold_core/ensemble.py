"""Fuse the members of an ensemble into one map and its spread, in closed form.

Members of an affine-invariant model agree only up to a scale and a shift each. Brought to mean 0 and standard
deviation 1 they all lie in one frame, so there is nothing to search for: the means and one E x E matrix of
correlations are all that alignment needs from the pixels. The correlations also decide which members are fused: a
flat one carries no depth, and an inverted or unrelated one would only blur the others.

The median comes from a sorting network over the member axis, applied to blocks of pixels that stay in cache. Of an even
number of values it is the mean of the middle two: unlike the lower one it treats near and far alike, and of two members
it is their mean. The spread is the standard deviation about the median: of four to ten members it ranks errors better
than the median absolute deviation, to which the outer half of them makes no difference (training/NOTES.md).

Members are finite by contract. The work is done in float32 on the device that the members are on.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

FLAT = 1e-5  # a member with a smaller deviation is rounding noise, not depth
CANCELLED = 1e-3  # members of deviation 1 whose median spans less have cancelled each other out
QUORUM = 0.5  # a member is fused if it agrees with the others at least half as well as the best one does
POOLED_SHARE = 64  # the longest side of a map over the radius of the windows in which members' deviations are pooled
BLOCK_CPU = 1 << 16  # pixels; smaller blocks pay for more calls, larger ones leave the cache
BLOCK_GPU = 1 << 20  # only bounds the scratch memory


def fuse_affine(members: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse [E, 1, H, W] affine depth -> (depth [1, 1, H, W] in [0, 1], its spread [1, 1, H, W] in the same units).

    Positive scale, shift and order of the members do not matter. One member comes back unchanged with spread 0;
    of two the result is the mean. Members to which ``align_affine`` gives scale 0 are left out. If all are flat
    or cancel each other, depth is 0 everywhere.
    Source: Ke et al. 2024, section 3.4, test-time ensembling; its iterative search is replaced as said above.
    """
    if len(_rows(members)) == 1:
        return members, torch.zeros_like(members)
    return _fuse(members, *align_affine(members), near=None)


def fuse_scale(members: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse [E, 1, H, W] depth >= 0 of unknown scale -> (depth [1, 1, H, W] in [0, 1], its spread [1, 1, H, W]).

    As ``fuse_affine``, but a member has no shift: 0 stays 0, and the farthest pixel becomes 1.
    """
    rows = _rows(members)
    if len(rows) == 1:
        return members, torch.zeros_like(members)
    shift = torch.zeros(len(rows), dtype=torch.float64)
    return _fuse(members, _scale(rows, shift), shift, near=0.0)


def fuse_absolute(members: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse [E, 1, H, W] depth in one unit -> (median [1, 1, H, W], spread [1, 1, H, W]) in that unit."""
    rows = _rows(members)
    ones = torch.ones(len(rows))
    median, spread = _median_spread(rows, ones, torch.zeros_like(ones))
    return median.view_as(members[:1]), spread.view_as(members[:1])


def fuse_directions(normals: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse [E, 3, H, W] unit normals -> (unit normals [1, 3, H, W], mean angle / pi [1, 1, H, W] in [0, 1]).

    Each pixel takes the member nearest to the mean direction, so that edges stay edges; the spread is the mean
    angle between the members and that direction. One member comes back unchanged with spread 0.
    """
    if normals.ndim != 4 or normals.shape[1] != 3 or not len(normals):
        raise ValueError(f"members must be [E, 3, H, W], but got {list(normals.shape)}")
    if len(normals) == 1:
        return normals, torch.zeros_like(normals[:, :1])
    mean = F.normalize(normals.mean(dim=0, keepdim=True), dim=1, eps=1e-6)  # [1, 3, H, W]
    cosine = (mean * normals).sum(dim=1, keepdim=True).clamp(-1, 1)  # [E, 1, H, W]
    nearest = cosine.argmax(dim=0, keepdim=True).expand(-1, 3, -1, -1)
    return normals.gather(0, nearest), cosine.arccos().mean(dim=0, keepdim=True) / torch.pi


def pool_spread(spread: Tensor) -> Tensor:
    """Average the squares of a spread [1, 1, H, W] over the window around each pixel -> its root, [1, 1, H, W].

    The standard deviation of a few members is itself known to a third or so; neighbours share it, so that their mean
    square is a better estimate.
    """
    radius = max(1, round(max(spread.shape) / POOLED_SHARE))
    window = 2 * radius + 1
    return F.avg_pool2d(spread.square(), window, 1, radius, count_include_pad=False).sqrt()


def align_affine(members: Tensor) -> tuple[Tensor, Tensor]:
    """Align [E, 1, H, W] affine depth -> (scale [E], shift [E]), float64 on the CPU, for ``scale * member + shift``.

    Every aligned member has mean 0 and deviation 1. Scale and shift are 0 for a member that is left out: it is
    flat, or agrees too little with the others (a negative scale would turn the scene inside out, so it is never
    the answer). Costs two passes over the members.
    """
    rows = _rows(members)
    mean = rows.mean(dim=1).cpu().double()
    scale = _scale(rows, mean)
    return scale, -scale * mean


def _rows(members: Tensor) -> Tensor:
    """View [E, 1, H, W] as [E, H * W] float32."""
    if members.ndim != 4 or members.shape[1] != 1 or not len(members):
        raise ValueError(f"members must be [E, 1, H, W], but got {list(members.shape)}")
    return members.float().reshape(len(members), -1)


def _blocks(rows: Tensor) -> list[slice]:
    """Cut the pixels of [E, N] into runs that are worked on together."""
    size = BLOCK_CPU if rows.device.type == "cpu" else BLOCK_GPU
    return [slice(start, start + size) for start in range(0, rows.shape[1], size)]


def _scale(rows: Tensor, origin: Tensor) -> Tensor:
    """[E, N] and its zero points [E] -> the scale [E] to RMS 1 about them, or 0 for a member that is left out.

    Agreement is the leading eigenvector of the correlations, with negative ones taken as none. Starting from the
    uniform vector keeps both of two equally large groups of members, and always both of two members.
    """
    centre = origin.to(rows)[:, None]
    moments = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in _blocks(rows):
        centred = rows[:, block] - centre
        moments += (centred @ centred.T).cpu().double() / rows.shape[1]
    rms = moments.diagonal().sqrt()
    scale = torch.where(rms > FLAT * origin.abs().clamp(min=1), 1 / rms, 0)
    correlation = scale[:, None] * moments * scale
    agreement = correlation.clamp(min=0).matrix_power(32).sum(dim=1)
    return torch.where(agreement >= QUORUM * agreement.max(), scale, 0)


def _fuse(members: Tensor, scale: Tensor, shift: Tensor, near: float | None) -> tuple[Tensor, Tensor]:
    """Fuse the members of positive scale; ``near`` (None: the least value) becomes 0 and the greatest value 1."""
    kept = scale.nonzero().flatten()
    if not len(kept):
        return torch.zeros_like(members[:1]), torch.zeros_like(members[:1])
    rows = _rows(members)
    if len(kept) < len(rows):
        rows, scale, shift = rows[kept.to(rows.device)], scale[kept], shift[kept]
    median, spread = _median_spread(rows, scale, shift)
    low, high = (float(end) for end in median.aminmax())
    low = low if near is None else near
    if high - low < CANCELLED:
        median, extent = torch.zeros_like(median), 1.0  # the spread stays in deviations of a member
    else:
        median, extent = median.sub_(low), high - low
    return median.div_(extent).view_as(members[:1]), spread.div_(extent).view_as(members[:1])


def _median_spread(rows: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """[E, N], scale [E], shift [E] -> (median [N], spread [N]) of ``scale * rows + shift``, reading the rows once."""
    scale, shift = scale.to(rows)[:, None], shift.to(rows)[:, None]
    median, spread = torch.empty_like(rows[0]), torch.empty_like(rows[0])
    count, half = len(rows), len(rows) // 2
    for block in _blocks(rows):
        values = list(torch.addcmul(shift, rows[:, block], scale))
        for i, j in _sorting_network(count):
            values[i], values[j] = torch.minimum(values[i], values[j]), torch.maximum(values[i], values[j])
        median[block] = middle = values[half] if count % 2 else (values[half - 1] + values[half]) / 2
        squares = torch.zeros_like(middle)
        for value in values:
            squares.addcmul_(value - middle, value - middle)
        spread[block] = squares.div_(count).sqrt_()
    return median, spread


@lru_cache
def _sorting_network(count: int) -> tuple[tuple[int, int], ...]:
    """List the comparators (i, j), i < j, that sort any ``count`` values: Batcher's merge exchange.

    The median of 3 to 20 members of 640 x 480 and 768 x 576 take a sixth to a twenty-fourth of the time that they
    take with ``torch.sort`` or ``kthvalue`` on two cores of an AMD EPYC (``python -m tests.bench --only median``).
    Source: Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2 M.
    """
    comparators: list[tuple[int, int]] = []
    top = 1 << max(count - 1, 0).bit_length() >> 1
    p = top
    while p:
        q, r, distance = top, 0, p
        while distance:
            comparators += [(i, i + distance) for i in range(count - distance) if i & p == r]
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(comparators)
