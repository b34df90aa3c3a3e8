"""The modalities that a network can be trained to predict: how values become a picture, and a picture values.

A modality is five methods: ``to_vae`` for training, ``from_vae``, ``fuse``, ``resize`` and ``mirror`` for inference.
Both directions stand in one class, so that training and inference agree.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from marigold_core.ensemble import fuse_absolute, fuse_affine, fuse_directions, fuse_scale, pool_spread
from marigold_core.prediction import DepthTransfer, Kind, Space

NEAR_QUANTILE, FAR_QUANTILE = 0.02, 0.98  # Ke et al. 2024, section 3.2: robust ends of the valid depth range


@dataclass(frozen=True)
class Depth:
    """Depth along the optical axis; what may be claimed about it (``kind``) comes from the checkpoint.

    ``transfer`` is the function from depth, 0 at the near and 1 at the far plane, to the grey of the picture: "linear"
    as published, or "root", the square root, which gives the near half seven tenths of the greys. ``from_vae`` inverts
    it. ``space`` is the quantity that the network predicts: a picture of disparity, white where it is near,
    is read as values that grow with distance, as all others do.
    """

    kind: Kind = "affine"
    transfer: DepthTransfer = "linear"
    space: Space = "depth"
    name = "depth"

    def to_vae(self, values: Tensor, valid: Tensor) -> Tensor:
        """Normalise depth [B, 1, H, W] with bool mask [B, 1, H, W] -> [B, 3, H, W] in [-1, 1], near = -1, far = 1.

        Per image the 2 % and 98 % quantiles of the valid values become -1 and 1; what lies outside is clipped and
        invalid pixels go to the far plane, so that the latent cells around a hole are not encoded as a near surface.
        An image without depth range becomes far everywhere. For ``space`` "depth" alone: those of other spaces are run
        here but not trained. Source: Ke et al. 2024, section 3.2; the transfer function is an addition of this project.
        """
        planes: list[Tensor] = []
        for depth, mask in zip(values.float(), valid, strict=True):
            plane = torch.ones_like(depth)  # [1, H, W]
            known = depth[mask]
            if known.numel():
                # numpy selects where torch sorts: a sixth of the time, and no limit of 16 million values
                near, far = np.quantile(known.cpu().numpy(), (NEAR_QUANTILE, FAR_QUANTILE)).tolist()
                if far > near:
                    place = ((depth - near) / (far - near)).clamp(0, 1)
                    plane = torch.where(mask, (place.sqrt() if self.transfer == "root" else place) * 2 - 1, plane)
            planes.append(plane)
        return torch.stack(planes).expand(-1, 3, -1, -1)

    def from_vae(self, decoded: Tensor) -> Tensor:
        """Read depth off a decoded picture [B, 3, H, W] -> [B, 1, H, W] in [0, 1], 0 = near plane."""
        return self.read(decoded).clamp(0, 1)

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

    def mirror(self, values: Tensor) -> Tensor:
        """Turn depth [B, 1, H, W] of a photo into that of its mirror image."""
        return values.flip(-1)


@dataclass(frozen=True)
class Normals:
    """Surface normals as unit vectors: X right, Y up, Z toward the viewer."""

    full_z_range: bool = True  # False: the picture holds z in [0, 1] stretched to [-1, 1]
    picture_x: Literal["right", "left"] = "right"  # where X points in the picture
    kind: Kind = "unit-vector"
    name = "normals"

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

    def mirror(self, values: Tensor) -> Tensor:
        """Turn unit vectors [B, 3, H, W] of a photo into those of its mirror image: what faced right faces left."""
        return values.flip(-1) * values.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)


Modality = Depth | Normals


def _bilinear(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def _unit(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    return F.normalize(vectors, dim=1, eps=eps)
