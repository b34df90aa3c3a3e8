"""A checkpoint for several jobs at once: what their members ask of the U-Net at the same time is one forward pass.

Jobs may differ in photo, seed, number of steps and moment of their beginning; what must be equal is the size that the
network sees. Sums round differently in larger batches.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.pipeline.sampling import is_out_of_memory, release
from marigold_core.prediction import Cell, Prediction, Progress


@dataclass(frozen=True)
class Rows:
    """What one job asks of the U-Net in one step: as ``MarigoldPipeline.predict_velocity`` takes it."""

    image_latent: Tensor  # [B, 4, h, w]
    noisy: Tensor  # [B, 4 P, h, w]
    t: Tensor  # []
    features: Features

    @property
    def shapes(self) -> list[torch.Size]:
        """What rows of one forward pass have in common."""
        return [part.shape[1:] for part in (self.image_latent, self.noisy, *self.features)]


class TogetherPipeline(MarigoldPipeline):
    """A loaded checkpoint that may run several jobs at once, each in a thread of its own."""

    submit: Callable[[Rows], Tensor]  # hands rows to ``predict_velocities``, with those of other jobs, and waits

    def predict_velocity(
        self, image_latent: Tensor, noisy: Tensor, t: Tensor, features: Features | None = None
    ) -> Tensor:
        """Run the U-Net together with other jobs, unless gradients or the features themselves are asked for."""
        if features is None or torch.is_grad_enabled():
            return super().predict_velocity(image_latent, noisy, t, features)
        return self.submit(Rows(image_latent, noisy, t, features))

    @torch.inference_mode()
    def predict_velocities(self, asked: Sequence[Rows]) -> list[Tensor]:
        """Run the U-Net for several jobs, those of one size in one pass -> velocities [B, 4 P, h, w] of each."""
        found: dict[int, Tensor] = {}
        waiting = [*range(len(asked))]
        while waiting:
            group = [number for number in waiting if asked[number].shapes == asked[waiting[0]].shapes]
            waiting = [number for number in waiting if number not in group]
            rows = [asked[number] for number in group]
            try:
                found.update(zip(group, self._pass(rows), strict=True))
                continue
            except (RuntimeError, MemoryError) as error:
                if len(group) == 1 or not is_out_of_memory(error):
                    raise
            release(self.device)
            found.update((number, self._pass([asked[number]])[0]) for number in group)
        return [found[number] for number in range(len(asked))]

    def _pass(self, rows: Sequence[Rows]) -> Sequence[Tensor]:
        counts = [len(one.noisy) for one in rows]
        velocity = super().predict_velocity(
            torch.cat([one.image_latent for one in rows]),
            torch.cat([one.noisy for one in rows]),
            torch.cat([one.t.to(self.device).expand(count) for one, count in zip(rows, counts, strict=True)]),
            tuple(torch.cat(level) for level in zip(*(one.features for one in rows), strict=True)),
        )
        return torch.split(velocity, counts)

    def stream(self, *photo: Any, **how: Any) -> Iterator[Progress | Prediction]:
        """Predict as ``MarigoldPipeline.stream``."""
        return super(TogetherPipeline, self._of_one_job()).stream(*photo, **how)

    def stream_grid(self, *photo: Any, **how: Any) -> Iterator[Progress | Cell]:
        """Predict as ``MarigoldPipeline.stream_grid``."""
        return super(TogetherPipeline, self._of_one_job()).stream_grid(*photo, **how)

    def _of_one_job(self) -> "TogetherPipeline":
        """Return the same networks with the one state that a job changes, whether it decodes in tiles, of its own."""
        own = copy.copy(self)
        own.vae = copy.copy(self.vae)
        return own
