"""The random streams of an ensemble's members, what they share, and how many are denoised at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from marigold_core.pipeline.image_prior import Features
from marigold_core.pipeline.views import View

# Activations of the U-Net per member, as multiples of its first feature map. From the published table of the
# official repository: 18 members of 96 x 96 latents, 320 channels, 2 bytes each beside the weights on 24 GB.
ACTIVATION_FACTOR = 200
OUT_OF_MEMORY = (  # parts of messages
    "out of memory",  # MPS, and some libraries of CUDA
    "invalid buffer size",  # MPS, for a single tensor that is too large
    "failed to allocate",  # Metal, for a buffer
    "alloc_failed",  # cuDNN and cuBLAS
    "allocation_failed",  # cuDNN 9
    "can't allocate memory",  # the CPU of Linux and macOS
    "not enough memory",  # the CPU of Windows
)
SHARE_OF_FREE = 0.8  # the rest is left to the decoder and to fragmentation


def generator(seed: int, k: int) -> torch.Generator:
    """Return the random stream of member ``k``: a function of (seed, k) alone, whatever the batch or device."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0]))


def noise(stream: torch.Generator, channels: int, h: int, w: int) -> Tensor:
    """Draw the latents [1, ``channels``, h, w] a member starts from, on the CPU in float32."""
    return torch.randn(1, channels, h, w, generator=stream)


PredictVelocity = Callable[[Tensor, Tensor, Tensor, Features], Tensor]  # as MarigoldPipeline.predict_velocity


@dataclass(frozen=True)
class Preview:
    """A member as the tiny autoencoder decodes it, before the checkpoint's own one does."""

    member: Tensor  # [1, C, PH, PW]


@dataclass(frozen=True)
class Condition:
    """What is known of a photo in one view while members are denoised, computed once for all that have the view."""

    latent: Tensor  # [1, 4, h, w], the encoded photo
    features: Features  # of the image prior, [1, C, h', w'] each; none without one
    size: tuple[int, int]  # of the view without padding
    view: View
    photo_size: tuple[int, int]  # (PH, PW), processing size of the photo itself, without padding
    tiled: bool  # whether the autoencoder had to work in tiles
    focal_px: float = 1.0  # focal length in pixels of the view


class Conditions:
    """What is known of one photo and its tiles in each view, computed when a first member needs it."""

    def __init__(self, encode: Callable[[View, int], Condition], parts: int, grid: tuple[int, int]) -> None:
        """Compute nothing yet; ``parts`` are the photo and its tiles, ``grid`` is the (height, width) of a member."""
        self.parts, self.grid, self._encode = parts, grid, cache(encode)
        self.tiled = False  # whether the autoencoder works in tiles; set when memory runs out

    def __call__(self, view: View, part: int = 0) -> Condition:
        """Return what is known of a part of the photo in a view: 0 is the whole photo, others are its tiles."""
        condition = self._encode(view, part)
        self.tiled |= condition.tiled
        return condition


def stack(conditions: Sequence[Condition]) -> tuple[Tensor, Features]:
    """Put the latents and features of views of one size into rows [B, ...]; a single view is not copied."""
    count = len(conditions)
    if len({condition.view for condition in conditions}) == 1:
        latent, features = conditions[0].latent, conditions[0].features
        return latent.expand(count, -1, -1, -1), tuple(f.expand(count, -1, -1, -1) for f in features)
    features = zip(*(condition.features for condition in conditions), strict=True)
    return torch.cat([condition.latent for condition in conditions]), tuple(map(torch.cat, features))


class LatentCarry:
    """Hands the members of a frame to those of the next: a share of each one's result is in the noise it starts from.

    Together they have the variance of noise, so that the first step gets what it was trained on.
    """

    def __init__(self, share: float) -> None:
        """Begin without a frame before; ``share`` is in [0, 1)."""
        self.share = share
        self.latents: dict[int, Tensor] = {}  # [1, 4, h, w] float32 by member, of the last frame

    def start(self, k: int, noise: Tensor) -> Tensor:
        """Return what member ``k`` starts from, of its noise [1, 4, h, w]."""
        before = self.latents.get(k)
        if before is None or before.shape != noise.shape:
            return noise
        before = before - before.mean()
        before = before / before.std().clamp(min=1e-6)
        return (1 - self.share**2) ** 0.5 * noise + self.share * before

    def keep(self, k: int, clean: Tensor) -> None:
        """Keep the result [1, 4, h, w] of member ``k``."""
        self.latents[k] = clean.float().cpu()


class FirstStepCache:
    """Velocities of first steps, for runs of other step counts to share: the same noise at the same timestep.

    Whatever timesteps follow, the first is nearly always the last of training, so that its velocity is needed once.
    """

    def __init__(self, predict_velocity: PredictVelocity) -> None:
        self._predict_velocity = predict_velocity
        self._known: dict[tuple[int, tuple[int, ...], int], tuple[Tensor, float]] = {}
        self._saved_s = 0.0

    def predict(
        self, seed: int, members: tuple[int, ...], image_latent: Tensor, start: Tensor, t: Tensor, features: Features
    ) -> Tensor:
        """Return the velocity [B, 4 P, h, w] of the ``members`` at ``t``, where they are their noise ``start``."""
        key = (seed, members, int(t))
        if key in self._known:
            velocity, seconds = self._known[key]
            self._saved_s += seconds
            return velocity
        began = perf_counter()
        velocity = self._predict_velocity(image_latent, start, t, features)
        if velocity.is_cuda:
            torch.cuda.synchronize(velocity.device)  # without it only the launch of the kernels is timed
        self._known[key] = velocity, perf_counter() - began
        return velocity

    def take_saved_s(self) -> float:
        """Return the seconds that sharing has saved since the last call."""
        saved, self._saved_s = self._saved_s, 0.0
        return saved


def members_that_fit(device: torch.device, latent: torch.Tensor, channels: int, at_most: int) -> int:
    """Members of one forward pass for an image latent [1, 4, h, w], by the free memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    member = ACTIVATION_FACTOR * latent.shape[-2] * latent.shape[-1] * channels * latent.element_size()
    return max(1, min(at_most, int(free * SHARE_OF_FREE / member)))


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Tell running out of memory (CUDA, MPS or CPU) from other errors; only that of CUDA and of NumPy has a type."""
    message = str(error).lower()
    typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return typed or any(words in message for words in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell a fault after which CUDA refuses this process everything, such as a failed assertion on the device."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)


def release(device: torch.device) -> None:
    """Release cached GPU memory after a failed allocation; call it outside the ``except`` block."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
