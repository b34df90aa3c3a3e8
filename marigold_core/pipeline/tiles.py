"""Detail of large photos: beside the photo as a whole, the network sees overlapping tiles of it, each as large.

A network sees a tile sharper, and less of the scene. So the low frequencies of a map are those of the photo as a whole
and the high ones those of its tiles, the split being a Gaussian of each tile, so that tiles hardly differ where they
overlap and are blended. A wider Gaussian takes over more of what a tile gets wrong for want of the whole scene.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import torch
from scipy import ndimage as _ndimage  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor
from torch.nn import functional as F

from marigold_core.geometry.camera import assumed_fov_x_deg, focal_length_px
from marigold_core.images.photo import Photo, network_size
from marigold_core.settings import OVERLAP, ResolvedSettings, tile_span

if TYPE_CHECKING:
    from marigold_core.pipeline.modalities import Modality

ndimage = cast(Any, _ndimage)  # scipy has no types
BLUR = 1 / 32  # standard deviation of the Gaussian, as a share of the longest side of a member
BLURRED_PX = 8  # its standard deviation where it is computed: on a smaller map, as what remains is smooth
Box = tuple[slice, slice]  # rows and columns


def member_grid(photo_size: tuple[int, int], settings: ResolvedSettings) -> tuple[int, int]:
    """Return the (height, width) of a member: what the network sees, in all tiles together at most the photo's own."""
    resolution, longest = settings.processing_resolution, max(photo_size)
    if resolution:
        resolution = max(resolution, min(longest, round(resolution * tile_span(settings.tiles_per_side))))
    return network_size(*photo_size, resolution)


def boxes(grid: tuple[int, int], per_side: int) -> list[Box]:
    """Cut a grid of (height, width) into tiles that overlap, row by row; one tile a side makes none."""
    height, width = grid
    return list(product(_cut(height, per_side), _cut(width, per_side))) if per_side > 1 else []


def _cut(length: int, per_side: int) -> list[slice]:
    side = length / tile_span(per_side)
    starts = [n * side * (1 - OVERLAP) for n in range(per_side)]
    return [slice(math.floor(start), min(length, math.ceil(start + side))) for start in starts]


def cut_out(photo: Photo, settings: ResolvedSettings) -> Iterator[Photo]:
    """Yield the tiles of a photo, of its camera."""
    size = (photo.pixels.shape[0], photo.pixels.shape[1])
    focal_px = focal_length_px(size[1], photo.fov_x_deg or assumed_fov_x_deg(*size))
    grid = member_grid(size, settings)
    for box in boxes(grid, settings.tiles_per_side):
        pixels = photo.pixels[tuple(map(_scaled, box, size, grid))]
        yield replace(photo, pixels=pixels, fov_x_deg=math.degrees(2 * math.atan(pixels.shape[1] / (2 * focal_px))))


def _scaled(place: slice, full: int, cells: int) -> slice:
    return slice(math.floor(int(place.start) * full / cells), math.ceil(int(place.stop) * full / cells))


class Mosaic:
    """A member [1, C, PH, PW] that is put together of the photo as a whole and of its tiles, one after the other."""

    def __init__(self, whole: Tensor, grid: tuple[int, int], per_side: int, modality: "Modality") -> None:
        """Begin with the map of the ``whole`` photo [1, C, h, w]; the result has the size of the ``grid``."""
        self.modality, self.whole = modality, modality.resize(whole, grid)
        self._boxes = boxes(grid, per_side)
        self._sum, self._weight = torch.zeros_like(self.whole), torch.zeros_like(self.whole[:, :1])

    def add(self, number: int, tile: Tensor) -> None:
        """Add the map [1, C, h, w] of a tile; relative depth is brought to the whole by least squares."""
        rows, columns = self._boxes[number]
        below = self.whole[..., rows, columns]
        tile = self.modality.resize(tile, (below.shape[-2], below.shape[-1]))
        if self.modality.name == "depth":
            centred, mean = tile - tile.mean(), below.mean()
            scale = (centred * (below - mean)).sum() / centred.square().sum().clamp(min=1e-12)
            tile = scale.clamp(min=0) * centred + mean
        tile = tile + blurred(below - tile, BLUR * max(self.whole.shape[-2:]))  # so that neighbours hardly differ
        height, width = self.whole.shape[-2:]
        weight = _ramp(rows, height).to(tile)[:, None] * _ramp(columns, width).to(tile)
        self._sum[..., rows, columns] += weight * tile
        self._weight[..., rows, columns] += weight

    def member(self) -> Tensor:
        """Blend the tiles; their values stay in the range of the whole."""
        values = (self._sum / self._weight).clamp(self.whole.min(), self.whole.max())
        return self.modality.resize(values, (values.shape[-2], values.shape[-1]))  # unit vectors: of unit length again


def _ramp(place: slice, length: int) -> Tensor:
    """Weights in (0, 1] of a tile along one side, which fall toward its neighbours."""
    size = place.stop - place.start
    steps = (torch.arange(size) + 0.5) / max(1.0, OVERLAP * size)
    rising = steps if place.start > 0 else torch.ones(size)
    falling = steps.flip(0) if place.stop < length else torch.ones(size)
    return torch.sin(rising.minimum(falling).clamp(max=1) * (math.pi / 2)) ** 2  # whose slope has no steps


def blurred(values: Tensor, deviation: float) -> Tensor:
    """Blur a map [1, C, H, W] by a Gaussian of this standard deviation in pixels."""
    height, width = values.shape[-2:]
    shrunk = min(1.0, BLURRED_PX / deviation)
    size = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    small = F.interpolate(values, size, mode="area").float().cpu().numpy()
    smooth = torch.as_tensor(ndimage.gaussian_filter(small, deviation * shrunk, axes=(-2, -1))).to(values)
    return F.interpolate(smooth, (height, width), mode="bicubic", align_corners=False)
