"""The modalities that a network can be trained to predict: how values become a picture, and a picture values.

A modality is five methods: ``to_vae`` for training, ``from_vae``, ``fuse``, ``resize`` and ``mirror`` for inference.
Both directions stand in one class, so that training and inference agree. ``pictures`` is how many pictures of three
channels the values need; the network denoises a latent of four channels for each of them at once.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from marigold_core.checkpoints.layout import Capabilities
from marigold_core.ensemble import fuse_absolute, fuse_affine, fuse_directions, fuse_scale, pool_spread
from marigold_core.images.colormaps import HALF_BYTE
from marigold_core.images.differences import depth_planes
from marigold_core.images.intrinsics import Layer, count_pictures
from marigold_core.prediction import DepthTransfer, Kind, Prediction, Space

TINY = 1e-6  # metres; keeps logarithm and inverse finite where nothing is known


@dataclass(frozen=True)
class Depth:
    """Depth along the optical axis; what may be claimed about it (``kind``) comes from the checkpoint.

    ``transfer`` is the function from depth, 0 at the near and 1 at the far plane, to the grey of the picture: "linear"
    as published, or "root", the square root, which gives the near half seven tenths of the greys. ``from_vae`` inverts
    it. ``space`` is the quantity that the network predicts: a picture of disparity, white where it is near,
    is read as values that grow with distance, as all others do. Depth in metres (``range_m``) is painted as its
    logarithm between two fixed depths, given for a camera whose focal length is ``focal_px`` in pixels of the network's
    input: what a network sees of a size in pixels is as far as the focal length is long.
    """

    kind: Kind = "affine"
    transfer: DepthTransfer = "linear"
    space: Space = "depth"
    range_m: tuple[float, float] | None = None  # of metric depth: what is black and what is white
    focal_px: float | None = None
    name = "depth"
    pictures = 1

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        """Normalise depth > 0 [B, 1, H, W] with bool mask [B, 1, H, W] -> [B, 3, H, W] in [-1, 1].

        Near is -1 and far 1, of disparity the other way round. Per image the 2 % and 98 % quantiles of the valid values
        of ``space`` become the ends, of metric depth those of ``range_m``; what lies outside is clipped and invalid
        pixels go to the far plane, so that the latent cells around a hole are not encoded as a near surface. An image
        without depth range becomes far everywhere.
        Source: Ke et al. 2024, section 3.2; the transfer function is an addition of this project. Disparity: He et al.
        2024 (Lotus); logarithm: Gui et al. 2025 (DepthFM); one focal length for all: Yin et al. 2023 (Metric3D).
        """
        planes: list[Tensor] = []
        for depth, mask in zip(values.float(), valid, strict=True):
            plane = torch.full_like(depth, self.far_grey)  # [1, H, W]
            if (place := self._place(depth, mask)) is not None:
                plane = torch.where(mask, (place.sqrt() if self.transfer == "root" else place) * 2 - 1, plane)
            planes.append(plane)
        return torch.stack(planes).expand(-1, 3, -1, -1)

    @property
    def far_grey(self) -> float:
        """The far plane in a picture in [-1, 1]."""
        return -1.0 if self.space == "disparity" else 1.0

    def _place(self, depth: Tensor, mask: Tensor) -> Tensor | None:
        """Depth [1, H, W] -> its place between the ends of the picture, in [0, 1]; None where it has no range."""
        if self.range_m is not None:
            low, high = map(math.log, self.range_m)
            return ((depth.clamp_min(TINY).log() - low) / (high - low)).clamp(0, 1)
        if self.space != "depth":
            depth = depth.clamp_min(TINY).log() if self.space == "log" else 1 / depth.clamp_min(TINY)
        ends = depth_planes(depth[mask].cpu().numpy())
        return ((depth - ends[0]) / (ends[1] - ends[0])).clamp(0, 1) if ends else None

    def from_vae(self, decoded: Tensor) -> Tensor:
        """Read depth off a decoded picture [B, 3, H, W] -> [B, 1, H, W] in [0, 1], 0 = near plane, or in metres.

        Metres are those of a camera with ``focal_px``.
        """
        values = self.read(decoded).clamp(0, 1)
        if self.range_m is None:
            return values
        near, far = self.range_m
        return near * (far / near) ** values

    def read(self, decoded: Tensor) -> Tensor:
        """Read depth off a decoded picture [B, 3, H, W] -> [B, 1, H, W], also beyond the planes at 0 and 1."""
        grey = (decoded.mean(dim=1, keepdim=True) + 1) / 2
        values = grey * grey.abs() if self.transfer == "root" else grey
        return 1 - values if self.space == "disparity" else values

    def fuse(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse members [E, 1, H, W] -> (depth, spread), both [1, 1, H, W], aligned as far as ``kind`` is unknown."""
        fusers = {"affine": fuse_affine, "scale": fuse_scale}
        depth, spread = fusers.get(self.kind, fuse_absolute)(members)
        return depth, pool_spread(spread)

    def resize(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize depth [B, 1, h, w] to (H, W) bilinearly."""
        return _bilinear(values, size)

    def mirror(self, values: Tensor, upside_down: bool = False) -> Tensor:
        """Turn depth [B, 1, H, W] of a photo into that of its mirror image, left to right or upside down."""
        return values.flip(-2 if upside_down else -1)


@dataclass(frozen=True)
class Normals:
    """Surface normals as unit vectors: X right, Y up, Z toward the viewer."""

    full_z_range: bool = True  # False: the picture holds z in [0, 1] stretched to [-1, 1]
    picture_x: Literal["right", "left"] = "right"  # where X points in the picture
    kind: Kind = "unit-vector"
    name = "normals"
    pictures = 1

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        """Encode unit vectors [B, 3, H, W] as a picture [B, 3, H, W] in [-1, 1]; invalid pixels face the viewer."""
        facing = values.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
        vectors = self._turned(torch.where(valid, values, facing))
        if self.full_z_range:
            return vectors
        return torch.cat([vectors[:, :2], vectors[:, 2:] * 2 - 1], dim=1)

    def from_vae(self, decoded: Tensor) -> Tensor:
        """Read unit vectors off a decoded picture [B, 3, H, W] -> [B, 3, H, W]."""
        vectors = decoded.clamp(-1, 1)
        if not self.full_z_range:
            vectors = torch.cat([vectors[:, :2], vectors[:, 2:] * 0.5 + 0.5], dim=1)
        return _unit(self._turned(vectors))

    def _turned(self, vectors: Tensor) -> Tensor:
        """Turn X [B, 3, H, W] to where the picture has it, or back; a no-op for pictures with X right."""
        return vectors if self.picture_x == "right" else torch.cat([-vectors[:, :1], vectors[:, 1:]], dim=1)

    def fuse(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse members [E, 3, H, W] -> (unit vectors [1, 3, H, W], mean angle over pi [1, 1, H, W])."""
        return fuse_directions(members)

    def resize(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize unit vectors [B, 3, h, w] to (H, W) bilinearly and make them unit length again."""
        return _unit(_bilinear(values, size))

    def mirror(self, values: Tensor, upside_down: bool = False) -> Tensor:
        """Turn unit vectors [B, 3, H, W] of a photo into those of its mirror image: what faced right faces left."""
        mirrored = values.flip(-2 if upside_down else -1)
        mirrored[:, 1 if upside_down else 0].neg_()
        return mirrored


@dataclass(frozen=True)
class Intrinsics:
    """Layers, such as albedo and shading: the channels of all ``layers``, C together, each in [0, 1], or classes.

    The numbers are those of the network, in the space that each layer states; shading and residual of unknown scale are
    not aligned, as their range fixes it. Source: Ke et al. 2025; the same as diffusers' MarigoldIntrinsicsPipeline.
    """

    layers: tuple[Layer, ...]
    kind: Kind = "unit-range"
    name = "intrinsics"

    @property
    def pictures(self) -> int:
        """How many pictures the layers lie in."""
        return count_pictures(self.layers)

    def _parts(self, values: Tensor) -> list[Tensor]:
        """Split values [B, C, H, W] into those of each layer."""
        return list(torch.split(values, [layer.width for layer in self.layers], dim=1))

    def _each(self) -> "list[_Quantity | Segmentation]":
        """What encodes, reads and fuses each of the layers."""
        return [Segmentation((layer,)) if layer.classes else _Quantity(layer.grey) for layer in self.layers]

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        """Encode layers [B, C, H, W] as pictures [B, 3 * pictures, H, W] in [-1, 1]; invalid pixels are -1.

        So are the channels of a picture that no layer has. Classes are painted as ``Segmentation`` does, a number in
        grey.
        """
        batch, _, height, width = values.shape
        pictures = values.new_full((batch, 3 * self.pictures, height, width), -1.0)
        for layer, one, part in zip(self.layers, self._each(), self._parts(values), strict=True):
            pictures[:, channels_in(layer)] = one.to_vae(part, valid)
        return pictures

    def from_vae(self, decoded: Tensor) -> Tensor:
        """Read layers off decoded pictures [B, 3 * pictures, H, W] -> [B, C, H, W] in [0, 1], or numbers of classes."""
        pairs = zip(self.layers, self._each(), strict=True)
        return torch.cat([one.from_vae(decoded[:, channels_in(layer)]) for layer, one in pairs], dim=1)

    def fuse(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse members [E, C, H, W] -> (median, of classes the vote [1, C, H, W], mean spread of all [1, 1, H, W])."""
        fused = [one.fuse(part) for one, part in zip(self._each(), self._parts(members), strict=True)]
        values, spreads = (torch.cat(parts, dim=1) for parts in zip(*fused, strict=True))
        return values, pool_spread(spreads.mean(dim=1, keepdim=True))

    def resize(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize layers [B, C, h, w] to (H, W) bilinearly; classes take the nearest."""
        pairs = zip(self._each(), self._parts(values), strict=True)
        return torch.cat([one.resize(part, size) for one, part in pairs], dim=1)

    def mirror(self, values: Tensor, upside_down: bool = False) -> Tensor:
        """Turn layers [B, C, H, W] of a photo into those of its mirror image."""
        return values.flip(-2 if upside_down else -1)


@dataclass(frozen=True)
class _Quantity:
    """A layer of one or three channels in [0, 1]."""

    grey: bool  # one number, in all channels of its picture alike

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid, values, 0).clamp(0, 1) * 2 - 1

    def from_vae(self, decoded: Tensor) -> Tensor:
        return ((decoded.mean(dim=1, keepdim=True) if self.grey else decoded).clamp(-1, 1) + 1) / 2

    def fuse(self, members: Tensor) -> tuple[Tensor, Tensor]:
        values, spread = fuse_absolute(members.flatten(1, 2).unsqueeze(1))  # as maps [E, 1, C H, W]
        return values.view_as(members[:1]), spread.view_as(members[:1])

    def resize(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return _bilinear(values, size)


@dataclass(frozen=True)
class Segmentation:
    """Classes of pixels, painted in one colour each; what is read off a picture is the class of the nearest colour.

    Source: Xu et al. 2025 (GenPercept) paint and read classes so.
    """

    layers: tuple[Layer, ...]  # one, with the classes
    kind: Kind = "class"
    name = "segmentation"
    pictures = 1

    def _palette(self, like: Tensor) -> Tensor:
        """The colours [K, 3] in [-1, 1]."""
        return like.new_tensor([one.rgb for one in self.layers[0].classes]) / HALF_BYTE - 1

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        """Paint numbers of classes [B, 1, H, W] -> [B, 3, H, W] in [-1, 1]; invalid pixels are grey."""
        colours = self._palette(values.float())[values[:, 0].long()].permute(0, 3, 1, 2)
        return torch.where(valid, colours, 0)

    def scores(self, decoded: Tensor) -> Tensor:
        """Score the classes of a decoded picture [B, 3, H, W] -> [B, K, H, W], minus squared distances to colours."""
        palette = self._palette(decoded)
        dots = torch.einsum("bchw,kc->bkhw", decoded, palette)
        squares = decoded.square().sum(dim=1, keepdim=True) + palette.square().sum(dim=1).view(1, -1, 1, 1)
        return 2 * dots - squares

    def from_vae(self, decoded: Tensor) -> Tensor:
        """Read numbers of classes off a decoded picture [B, 3, H, W] -> [B, 1, H, W]."""
        return self.scores(decoded).argmax(dim=1, keepdim=True).float()

    def fuse(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse members [E, 1, H, W] -> (the most frequent class, the share of members with another), [1, 1, H, W]."""
        votes = torch.stack([(members == number).float().mean(dim=0) for number in range(len(self.layers[0].classes))])
        share, chosen = votes.max(dim=0, keepdim=True)
        return chosen.float(), 1 - share

    def resize(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize classes [B, 1, h, w] to (H, W): each pixel takes the nearest."""
        return F.interpolate(values, size, mode="nearest-exact")

    def mirror(self, values: Tensor, upside_down: bool = False) -> Tensor:
        """Turn classes [B, 1, H, W] of a photo into those of its mirror image."""
        return values.flip(-2 if upside_down else -1)


Modality = Depth | Normals | Intrinsics | Segmentation


def modality_for(checkpoint: Capabilities) -> Modality:
    """Return what a checkpoint predicts."""
    if checkpoint.modality == "intrinsics":
        return Intrinsics(checkpoint.layers)
    if checkpoint.modality == "segmentation":
        return Segmentation(checkpoint.layers)
    if checkpoint.modality == "normals":
        return Normals(checkpoint.full_z_range, checkpoint.family.normals_x or "right")
    metric = checkpoint.metric_range_m, checkpoint.focal_px
    return Depth(checkpoint.kind, checkpoint.depth_transfer, checkpoint.space, *metric)


def modality_of(prediction: Prediction) -> Modality:
    """Return what the members of a prediction are fused by."""
    if prediction.modality == "intrinsics":
        return Intrinsics(prediction.layers)
    if prediction.modality == "segmentation":
        return Segmentation(prediction.layers)
    return Normals() if prediction.modality == "normals" else Depth(prediction.kind)


def channels_in(layer: Layer) -> list[int]:
    """The channels of the pictures that a layer lies in."""
    return [3 * layer.picture + channel for channel in layer.channels]


def _bilinear(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def _unit(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    return F.normalize(vectors, dim=1, eps=eps)
