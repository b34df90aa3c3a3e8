"""Evaluation protocols: which pixels count and what is fitted, as published for every kind of data set."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from marigold_core.errors import SettingsError
from marigold_core.settings import Frozen
from training.scoring.alignment import Alignment

Mask = Literal["range", "known"]
Crop = Literal["none", "nyu", "eigen", "garg"]
Averaging = Literal["pictures", "pixels"]

# Part of the picture that counts: top, bottom, left, right as shares of height and width.
CROPS: dict[Crop, tuple[float, float, float, float]] = {
    "none": (0, 1, 0, 1),
    "nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),  # inside the white rim of undistorted pictures
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al. 2014
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016
}


class Protocol(Frozen):
    """Which pixels count and what is fitted. Numbers of different protocols cannot be compared."""

    alignment: Alignment | Literal["auto"] = "auto"
    alignment_max_px: int = Field(default=0, ge=0)
    near_m: float = Field(default=1e-3, gt=0)
    far_m: float = Field(default=80.0, gt=0)
    mask: Mask = "range"
    crop: Crop = "none"
    averaging: Averaging = "pictures"
    # longest edge of the network's input, unless the settings have one; rounded up to what the autoencoder divides
    processing_resolution: int | None = None

    def counted(self, truth_m: np.ndarray) -> np.ndarray:
        """Choose the pixels of a truth [H, W] that count -> bool [H, W]."""
        counted = np.isfinite(truth_m)
        if self.mask == "range":
            counted[counted] = (truth_m[counted] > self.near_m) & (truth_m[counted] < self.far_m)
        inside = np.zeros_like(counted)
        inside[self.window(*counted.shape)] = True
        return counted & inside

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Cut out the part of a picture that counts -> its rows and columns; shares are rounded down."""
        top, bottom, left, right = CROPS[self.crop]
        return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))


class Overrides(Frozen):
    """Single fields of a protocol, changed; ``None`` leaves them as they are. Ranges are the protocol's own."""

    alignment: Alignment | None = Field(
        default=None, description="what scale and shift are fitted to; auto: as the kind of the prediction requires"
    )
    alignment_max_px: int | None = Field(
        default=None, description="the fit sees at most this many pixels a side; 0: all of them"
    )
    near_m: float | None = Field(default=None, description="nearest depth that counts; predictions are clipped to it")
    far_m: float | None = Field(default=None, description="farthest depth that counts; predictions are clipped to it")
    mask: Mask | None = Field(
        default=None, description="range: known pixels between near and far count; known: all that are known"
    )
    crop: Crop | None = Field(default=None, description="part of the picture that counts")
    averaging: Averaging | None = Field(
        default=None, description="every picture weighs the same, or as much as it has pixels that count"
    )


# Source: Ke et al. 2024, section 4.1, and the authors' released data set classes and evaluation scripts.
PRESETS: dict[str, Protocol] = {
    "nyu": Protocol(near_m=1e-3, far_m=10, crop="nyu", processing_resolution=0),
    "kitti": Protocol(near_m=1e-5, far_m=80, crop="eigen", processing_resolution=0),  # pictures: benchmark crop
    "kitti-garg": Protocol(near_m=1e-5, far_m=80, crop="garg", processing_resolution=0),
    "eth3d": Protocol(
        near_m=1e-5,
        far_m=math.inf,
        alignment_max_px=1024,
        processing_resolution=756,  # as published
    ),
    "scannet": Protocol(near_m=1e-3, far_m=10, processing_resolution=0),
    "diode": Protocol(near_m=0.6, far_m=350, mask="known", processing_resolution=640),
    "hypersim": Protocol(near_m=1e-5, far_m=65, processing_resolution=0),
    "vkitti": Protocol(near_m=1e-5, far_m=80, processing_resolution=0),
    "measured": Protocol(),
}


def choose_protocol(kind: str, name: str | None = None, overrides: Overrides | None = None) -> Protocol:
    """Choose the protocol of a kind of data set, or the one called ``name``, and change single fields of it.

    A kind without a protocol of its own is scored as "measured". Raises: SettingsError for an unknown name or value.
    """
    if name is not None and name not in PRESETS:
        raise SettingsError(f"There is no protocol {name!r}; choose from {', '.join(PRESETS)}.")
    chosen = PRESETS[name] if name else PRESETS.get(kind, PRESETS["measured"])
    changes = overrides.model_dump(exclude_none=True) if overrides else {}
    return chosen.changed(**changes)
