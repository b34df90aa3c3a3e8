"""Test-time views: the members of an ensemble see the photo, its mirror image and both in other sizes, in turn.

What a network gets wrong in one view it may get right in another, so members that differ in their view as well as in
their noise have a better median, and their spread says more about the error. Each member is brought back to the grid of
the photo before members are aligned; nothing after that knows of views. Importing this module costs no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from marigold_core.errors import SettingsError
from marigold_core.settings import ResolvedSettings, Settings, Views, bounds

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint

MULTIPLE_PX = 8  # as of processing resolutions
MAX_PX = int(bounds(Settings, "processing_resolution")[1])


@dataclass(frozen=True)
class View:
    """One way in which a member sees a photo."""

    mirrored: bool = False  # left and right are exchanged
    scale: float = 1.0  # of the processing resolution

    def pixels(self, photo: np.ndarray) -> np.ndarray:
        """Return the photo [H, W, 3], mirrored if this view is; its size is left to ``resolution``."""
        return photo[:, ::-1] if self.mirrored else photo

    def resolution(self, resolution: int, photo_size: tuple[int, int]) -> int:
        """Return the longest edge of a photo [H, W] in this view, pixels; 0 is the photo's own size.

        Other sizes are multiples of ``MULTIPLE_PX`` and end at ``MAX_PX``, unless the photo itself is seen larger.
        """
        if self.scale == 1:
            return resolution
        longest = resolution or max(photo_size)
        scaled = round(longest * self.scale / MULTIPLE_PX) * MULTIPLE_PX
        return max(2 * MULTIPLE_PX, min(scaled, max(longest, MAX_PX)))


# The first few already differ in both ways.
VIEWS: dict[Views, tuple[View, ...]] = {
    "photo": (View(),),
    "mirrored": (View(), View(mirrored=True)),
    "mirrored-rescaled": (
        View(),
        View(mirrored=True, scale=1.25),
        View(mirrored=True, scale=0.875),
        View(mirrored=True),
        View(scale=1.25),
        View(scale=0.875),
    ),
}


def view_of(views: Views, k: int) -> View:
    """Return how member ``k`` (from 0) sees the photo: a function of its number alone, so that members can be added."""
    return VIEWS[views][k % len(VIEWS[views])]


def count_views(views: Views, members: int) -> int:
    """Count the views that an ensemble has; the photo is encoded in each of them once."""
    return min(members, len(VIEWS[views]))


def relative_pixels(views: Views, members: int) -> float:
    """Return the mean number of pixels that a member sees, in units of those of the photo as it is."""
    return sum(view_of(views, k).scale ** 2 for k in range(members)) / members


def resolve(settings: Settings, checkpoint: "Checkpoint") -> ResolvedSettings:
    """Fill in what a checkpoint decides, denoising steps and processing resolution.

    Raises: SettingsError for steps or members that would change nothing with it.
    """
    resolved = settings.resolved(checkpoint.default_steps, checkpoint.default_resolution)
    steps, members, distinct = resolved.num_inference_steps, resolved.ensemble_size, len(VIEWS[resolved.views])
    if checkpoint.family.one_step and steps > 1:
        raise SettingsError(f"{checkpoint.name} predicts in one step: ask for 1 denoising step, not {steps}.")
    if checkpoint.family.deterministic and members > distinct:
        wider = [f"{views} makes {len(seen)}" for views, seen in VIEWS.items() if len(seen) > distinct]
        raise SettingsError(
            f"{checkpoint.name} is deterministic, its members differ by their view of the photo alone: views"
            f" {resolved.views} makes at most {distinct}, not {members}{''.join(f'; {one}' for one in wider)}."
        )
    return resolved
