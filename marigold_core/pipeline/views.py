"""Test-time views: the members of an ensemble see the photo, its mirror image and both in other sizes, in turn.

What a network gets wrong in one view it may get right in another, so members that differ in their view as well as in
their noise have a better median, and their spread says more about the error. Each member is brought back to the grid of
the photo before members are aligned; nothing after that knows of views. Importing this module costs no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from marigold_core.checkpoints.families import Family
from marigold_core.errors import SettingsError
from marigold_core.settings import ResolvedSettings, Settings, Views, bounds

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint

MULTIPLE_PX = 8  # as of processing resolutions
MAX_PX = int(bounds(Settings, "processing_resolution")[1])
MOST_MEMBERS = int(bounds(Settings, "ensemble_size")[1])


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


def most_members(family: Family, views: Views) -> int:
    """Return how many members of an ensemble can differ."""
    return len(VIEWS[views]) if family.deterministic else MOST_MEMBERS


def check_meaning(settings: Settings, family: Family, name: str) -> None:
    """Refuse steps and members that would change nothing with the checkpoint ``name``. Raises: SettingsError."""
    steps, members = settings.num_inference_steps or 1, settings.ensemble_size
    if family.one_step and steps > 1:
        raise SettingsError(f"{name} predicts in one step: ask for 1 denoising step, not {steps}.")
    most = most_members(family, settings.views)
    if members > most:
        wider = [f"; {views} makes {len(seen)}" for views, seen in VIEWS.items() if len(seen) > most]
        raise SettingsError(
            f"{name} is deterministic, its members differ by their view of the photo alone: views {settings.views}"
            f" makes at most {most}, not {members}{''.join(wider)}."
        )


def resolve(settings: Settings, checkpoint: "Checkpoint") -> ResolvedSettings:
    """Fill in what a checkpoint decides, denoising steps and processing resolution.

    Raises: SettingsError for steps or members that would change nothing with it.
    """
    check_meaning(settings, checkpoint.family, checkpoint.name)
    return settings.resolved(checkpoint.default_steps, checkpoint.default_resolution)
