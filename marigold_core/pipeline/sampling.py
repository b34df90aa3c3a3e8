"""The members of one ensemble: each a random stream of its own, denoised in batches as large as memory allows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import CheckpointError, MarigoldError, SettingsError
from marigold_core.images.photo import Photo, to_network
from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.memory import is_out_of_memory, members_that_fit, release
from marigold_core.prediction import Prediction, Progress
from marigold_core.settings import Settings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import MarigoldPipeline


def generator(seed: int, k: int) -> torch.Generator:
    """Return the random stream of member ``k``: a function of (seed, k) alone, whatever the batch or device."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0]))


def noise(stream: torch.Generator, h: int, w: int) -> Tensor:
    """Draw the latent [1, 4, h, w] a member starts from, on the CPU in float32."""
    return torch.randn(1, 4, h, w, generator=stream)


Velocity = Callable[[Tensor, Tensor, Tensor, Features], Tensor]  # as ``MarigoldPipeline.predict_velocity``


@dataclass(frozen=True)
class Condition:
    """What is known of a photo while its members are denoised, computed once for all of them."""

    latent: Tensor  # [1, 4, h, w], the encoded photo
    features: Features  # of the image prior, [1, C, h', w'] each; none without one
    size: tuple[int, int]  # (PH, PW), processing size without padding

    def rows(self, count: int) -> tuple[Tensor, Features]:
        """Repeat latent and features for ``count`` members, without copying."""
        return self.latent.expand(count, -1, -1, -1), tuple(f.expand(count, -1, -1, -1) for f in self.features)


@torch.inference_mode()
def look_at(pipe: "MarigoldPipeline", photo: Photo, resolution: int) -> Condition:
    """Encode a photo and look at the result, in tiles when memory runs out."""
    x, size = to_network(photo.pixels, resolution, pipe.factor)  # [1, 3, PPH, PPW]
    try:
        latent = pipe.encode(x.to(pipe.device, pipe.dtype))
        return Condition(latent, pipe.features(latent), size)
    except RuntimeError as error:
        if not is_out_of_memory(error) or pipe.vae.use_tiling:
            raise
    release(pipe.device)
    pipe.vae.enable_tiling()
    return look_at(pipe, photo, resolution)


class FirstSteps:
    """Velocities of first steps, for runs of other step counts to share: the same noise at the same timestep.

    Whatever timesteps follow, the first is nearly always the last of training, so that its velocity is needed once.
    """

    def __init__(self, pipe: "MarigoldPipeline") -> None:
        self._pipe = pipe
        self._known: dict[tuple[int, range, int], tuple[Tensor, float]] = {}
        self._saved_s = 0.0

    def predict(
        self, seed: int, rows: range, image_latent: Tensor, start: Tensor, t: Tensor, features: Features
    ) -> Tensor:
        """Return the velocity [B, 4, h, w] of the members ``rows`` at ``t``, where they are their noise ``start``."""
        key = (seed, rows, int(t))
        if key in self._known:
            velocity, seconds = self._known[key]
            self._saved_s += seconds
            return velocity
        began = perf_counter()
        velocity = self._pipe.predict_velocity(image_latent, start, t, features)
        if velocity.is_cuda:
            torch.cuda.synchronize(velocity.device)  # or the time would be that of asking
        self._known[key] = velocity, perf_counter() - began
        return velocity

    def take_saved_s(self) -> float:
        """Return the seconds that sharing has saved since the last call."""
        saved, self._saved_s = self._saved_s, 0.0
        return saved


def restore_members(
    pipe: "MarigoldPipeline", photo: Photo, settings: Settings, start: Prediction | None
) -> list[Tensor]:
    """Take over the members [1, C, PH, PW] of an earlier prediction, as precise as it keeps them (float16).

    Raises: SettingsError when ``start`` is of another photo, checkpoint, steps, resolution or seed.
    """
    if start is None:
        return []
    free = {"ensemble_size": 1, "batch_size": None}  # what may differ without changing a member
    same = Settings(**{**start.settings.model_dump(), **free}) == Settings(**{**settings.model_dump(), **free})
    if not same or not np.array_equal(start.photo, photo.pixels) or start.checkpoint_sha256 != pipe.checkpoint.sha256:
        raise SettingsError(
            "Only a prediction of the same photo, checkpoint, steps, resolution and seed can be continued."
        )
    if start.members is None:
        raise SettingsError("This prediction kept no members, so it cannot be continued.")
    stack = torch.from_numpy(start.members.astype(np.float32)).to(pipe.device)
    stack = stack.unsqueeze(1) if stack.ndim == 3 else stack.permute(0, 3, 1, 2)
    return list(stack.split(1))


def run_members(
    pipe: "MarigoldPipeline",
    condition: Condition,
    settings: Settings,
    first: int,
    shared: FirstSteps | None = None,
) -> Iterator[Progress | Tensor]:
    """Yield a ``Progress`` each step and each finished member [1, C, PH, PW], from member ``first`` on.

    When memory runs out the batch is halved, then the autoencoder works in tiles, and the events say so.
    Raises: MarigoldError when one member in tiles is still too large; CheckpointError for numbers not finite.
    """
    steps, members = settings.num_inference_steps or pipe.checkpoint.default_steps, settings.ensemble_size
    channels = pipe.unet.config["block_out_channels"][0]
    batch = settings.batch_size or members_that_fit(pipe.device, condition.latent, channels, members - first)
    k = first
    while k < members:
        rows = range(k, min(k + batch, members))
        try:
            for event in _batch(pipe, condition, settings, rows, first, shared):
                k += isinstance(event, Tensor)
                yield event
            continue
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, so that the traceback no longer holds the tensors.
        release(pipe.device)
        if batch > 1:
            batch = (batch + 1) // 2
            note = f"out of memory: going on with {batch} at a time"
        elif not pipe.vae.use_tiling:
            pipe.vae.enable_tiling()
            note = "out of memory: going on with the picture in tiles"
        else:
            raise MarigoldError(
                "This photo is too large for the memory of this machine; choose a lower processing resolution."
            )
        yield Progress((k - first) * steps, (members - first) * steps, note)


def _batch(
    pipe: "MarigoldPipeline",
    condition: Condition,
    settings: Settings,
    rows: range,
    first: int,
    shared: FirstSteps | None,
) -> Iterator[Progress | Tensor]:
    """Denoise the members ``rows`` together, then decode and yield them one by one."""
    steps, members = settings.num_inference_steps or pipe.checkpoint.default_steps, settings.ensemble_size
    streams = [generator(settings.seed, k) for k in rows]
    start = torch.cat([noise(stream, *condition.latent.shape[-2:]) for stream in streams]).to(pipe.device, pipe.dtype)
    first_step = partial(shared.predict, settings.seed, rows) if shared else None
    height, width = condition.size
    latent, features = condition.rows(len(rows))
    denoising = pipe.denoise(latent, start, steps, streams, first_step, features)
    clean = start  # [B, 4, h, w]
    who = f"member {rows.start + 1}" if len(rows) == 1 else f"members {rows.start + 1} to {rows.stop}"
    for step in range(1, steps + 1):
        with torch.inference_mode():  # entered anew each step: the mode must not leak out of a paused generator
            clean = next(denoising)
        done = (rows.start - first) * steps + step * len(rows)
        yield Progress(done, (members - first) * steps, f"{who} of {members}, step {step} of {steps}")
    for row in range(len(rows)):
        with torch.inference_mode():
            member = pipe.modality.from_vae(pipe.decode(clean[row : row + 1]))[..., :height, :width].float()
            if not torch.isfinite(member).all():
                raise CheckpointError(
                    f"The checkpoint {pipe.checkpoint.name} gives numbers that are not finite with"
                    f" {str(pipe.dtype).removeprefix('torch.')}; try float32 or another checkpoint."
                )
        yield member
