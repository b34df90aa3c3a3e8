"""From clean renders to pictures as cameras take them: random crops, and photometric faults by the batch.

The renderer's pictures are sharp, evenly lit and white balanced; photographs are not, and a network that has only
seen the former does not carry over (figures: training/README.md). Random numbers come from the callers' generators.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SMALLEST_CROP = 0.45  # share of the view that the smallest crop keeps


def draw_crop(height: int, width: int, aspect: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a box of ``aspect`` = width / height inside a picture -> (left, top, right, bottom) in pixels."""
    largest_w = min(width, height * aspect)
    w = largest_w * np.sqrt(rng.uniform(SMALLEST_CROP, 1))
    h = w / aspect
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h


def crop_picture(pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Crop [H, W, 3] uint8 to ``box`` and resize to (h, w) with antialiasing -> [h, w, 3] uint8."""
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def crop_nearest(values: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Crop [H, W, ...] to ``box`` and take the nearest value at each of (h, w) places: no depth is ever invented."""
    left, top, right, bottom = box
    rows = top + (np.arange(size[0]) + 0.5) * (bottom - top) / size[0]
    columns = left + (np.arange(size[1]) + 0.5) * (right - left) / size[1]
    rows = rows.astype(int).clip(0, values.shape[0] - 1)
    columns = columns.astype(int).clip(0, values.shape[1] - 1)
    return values[rows[:, None], columns]


def photographic(pictures: Tensor, generator: torch.Generator, looks: Tensor | None = None) -> Tensor:
    """Give pictures [B, 3, H, W] in [0, 1] the faults of photographs -> the same shape and range.

    ``looks`` [L, 3, 2] are colour statistics of real photographs (``colour_look``); about half of the pictures take
    one over. Then saturation, colour cast, exposure, contrast, gamma, haze and vignetting, blur, noise and JPEG.
    """
    batch = len(pictures)

    def even(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)

    def normal(std: float, channels: int = 1) -> Tensor:
        return std * torch.randn(batch, channels, 1, 1, generator=generator)

    def sometimes(share: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator) < share

    x = pictures
    if looks is not None:
        chosen = looks[torch.randint(len(looks), (batch,), generator=generator)]  # [B, 3, 2]
        mean, std = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
        moved = (x - mean) / (std + 1e-3) * chosen[:, :, 1, None, None] + chosen[:, :, 0, None, None]
        x = torch.where(sometimes(0.5), torch.lerp(x, moved, even(0.2, 1)), x).clamp(0, 1)
    grey = x.mean(dim=1, keepdim=True)
    x = torch.lerp(grey.expand_as(x), x, torch.where(sometimes(0.08), torch.zeros(()), even(0.4, 1.3)))
    x = x * torch.exp(normal(0.08, 3)) * torch.exp(normal(0.2))
    x = (x - 0.5) * even(0.7, 1.25) + 0.5 + normal(0.04)
    x = x.clamp(0, 1) ** torch.exp(normal(0.2))
    x = torch.lerp(x, x.amax(dim=(2, 3), keepdim=True), even(-0.1, 0.15).clamp_min(0))
    rows, columns = torch.linspace(-1, 1, x.shape[2])[:, None], torch.linspace(-1, 1, x.shape[3])
    x = x * (1 - even(-0.3, 0.4).clamp_min(0) * (rows**2 + columns**2) / 2)
    x = _blur(x, even(-0.6, 1.2).clamp_min(0))
    noise = torch.randn(x.shape, generator=generator)
    noise = torch.where(sometimes(0.3), _blur(noise, torch.full_like(even(0, 1), 0.8)) * 2, noise)
    x = x + noise * even(-0.02, 0.06).clamp_min(0)
    x = x.clamp(0, 1)
    quality = even(20, 95).flatten().tolist()
    compressed = sometimes(0.4).flatten().tolist()
    return torch.stack([_jpeg(p, int(q)) if c else p for p, q, c in zip(x, quality, compressed, strict=True)])


def colour_look(pixels: np.ndarray) -> np.ndarray:
    """Measure [H, W, 3] uint8 -> [3, 2] float32, mean and standard deviation of each channel in [0, 1]."""
    values = pixels.reshape(-1, 3).astype(np.float32) / 255
    return np.stack([values.mean(axis=0), values.std(axis=0)], axis=1)


def _blur(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur each picture of [B, C, H, W] by its own ``sigma_px`` [B, 1, 1, 1]; 0 leaves it as it is."""
    batch, channels, height, width = x.shape
    reach = torch.arange(-3, 4, dtype=x.dtype)
    kernel = torch.exp(-(reach**2) / (2 * sigma_px.view(-1, 1).clamp_min(1e-2) ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # [B C, 7]
    x = F.pad(x.reshape(1, batch * channels, height, width), (3, 3, 3, 3), mode="replicate")
    x = F.conv2d(x, kernel[:, None, None, :], groups=batch * channels)
    x = F.conv2d(x, kernel[:, None, :, None], groups=batch * channels)
    return x.view(batch, channels, height, width)


def _jpeg(picture: Tensor, quality: int) -> Tensor:
    """Write [3, H, W] in [0, 1] as JPEG and read it again."""
    pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).float() / 255
