"""The depth of one pixel in each member of an ensemble: whether the values agree, scatter or form two modes.

Two modes mean two possible surfaces, as at outlines, hair and glass; the mean of both would be neither.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from marigold_core.errors import SettingsError
from marigold_core.prediction import Kind, Prediction

if TYPE_CHECKING:
    from torch import Tensor

MIN_MEMBERS_FOR_MODES = 5  # among fewer, two values against one are no mode
MIN_GAP = 0.05  # of the depth range: values that are closer belong to one mode


@dataclass(frozen=True)
class MemberValues:
    """One pixel of the photo, and its depth in every member, brought to the frame of the map."""

    x: int  # pixels of the photo, from its top left corner
    y: int
    depths: np.ndarray  # [E] in the units of the map; NaN for a member that fusion left out
    median: float  # of the members
    shown: float  # depth of the map there, which a draft, outlines and the photo's finer grid may move off the median
    low: float  # nearest and farthest depth of the fused members
    high: float

    def modes(self) -> list[np.ndarray]:
        """Split the depths of the members that fusion used into one or two sorted groups, nearer first.

        There are two where the widest gap between neighbours is wider than either group, and than ``MIN_GAP``.
        """
        used = np.sort(self.depths[~np.isnan(self.depths)])
        if len(used) < MIN_MEMBERS_FOR_MODES:
            return [used]
        gaps = np.diff(used)
        cut = int(gaps.argmax()) + 1
        groups = [used[:cut], used[cut:]]
        widest = max(MIN_GAP * (self.high - self.low), *(float(np.ptp(group)) for group in groups))
        return groups if gaps.max() > widest else [used]


def member_values_at(prediction: Prediction, x: int, y: int) -> MemberValues:
    """Read the pixel (x, y) of the photo in every member of a depth prediction -> its values.

    Members have the processing resolution. Cost: one fusion, about 50 ms for ten members.
    Raises: SettingsError for a pixel outside the photo, normals, or a prediction that kept fewer than two members.
    """
    import torch

    from marigold_core.pipeline.modalities import Depth

    height, width = prediction.photo_size
    if prediction.modality != "depth" or prediction.members is None or len(prediction.members) < 2:
        raise SettingsError("Member values need a depth prediction that kept two or more members.")
    if not (0 <= x < width and 0 <= y < height):
        raise SettingsError(f"There is no pixel {x}, {y}: the photo has {width} x {height}.")
    stack = torch.as_tensor(prediction.members.astype(np.float32)).unsqueeze(1)  # [E, 1, h, w]
    fused = Depth(prediction.kind).fuse(stack)[0].flatten()
    h, w = prediction.members.shape[1:]
    pixel = int((y + 0.5) * h / height) * w + int((x + 0.5) * w / width)
    low, high = float(fused.min()), float(fused.max())
    depths = np.full(len(stack), np.nan)
    if high > low:
        depths = _aligned(stack, prediction.kind, [pixel, int(fused.argmin()), int(fused.argmax())])
    rows, columns = prediction.values.shape
    shown = float(prediction.values[int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)])
    return MemberValues(x, y, depths, float(fused[pixel]), shown, low, high)


def _aligned(stack: "Tensor", kind: Kind, pixels: list[int]) -> np.ndarray:
    """Members [E, 1, h, w] -> depth [E] of the first of three pixels in units of the fused map; NaN where left out.

    The other two are its nearest and its farthest pixel: members are fused to the median of the aligned ones, stretched
    so that these become 0 and 1. Of kind "scale" 0 stays 0, and metres stay metres.
    """
    from marigold_core.ensemble import align_affine

    values = stack.flatten(1)[:, pixels].double().numpy()  # [E, 3]
    if kind == "metric":
        return values[:, 0]
    if kind == "affine":
        scale, shift = (one.numpy()[:, None] for one in align_affine(stack))
        values = np.where(scale > 0, scale * values + shift, np.nan)
    else:
        values /= stack.flatten(1).double().square().mean(dim=1, keepdim=True).sqrt().numpy()
    nearest, farthest = np.nanmedian(values[:, 1:], axis=0)
    origin = nearest if kind == "affine" else 0.0
    return (values[:, 0] - origin) / (farthest - origin)
