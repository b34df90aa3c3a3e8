"""Augmentation: random crops, and photometric faults as of photographs, drawn for a whole batch.

The renderer's pictures are sharp, evenly lit and white balanced; photographs are not, and a network that has only
seen the former generalises poorly (figures: training/NOTES.md). Random numbers come from the callers' generators.
"""

import math
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SMALLEST_CROP = 0.45  # share of the view that the smallest crop keeps
BLUR_SIGMA = 1 / 160  # of the long edge: the widest Gaussian blur, 4 px of 640
MOTION_PX = (3, 11)  # shortest and longest motion blur, odd
MOTION_LONG_EDGE_PX = 640  # of pictures that get the longest; smaller ones get less in proportion
HUE_TURN = 0.2  # largest turn of all hues, of a full circle


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
    """Crop [H, W, ...] to ``box`` and take the nearest value at each of (h, w) places: depths are never averaged."""
    left, top, right, bottom = box
    rows = top + (np.arange(size[0]) + 0.5) * (bottom - top) / size[0]
    columns = left + (np.arange(size[1]) + 0.5) * (right - left) / size[1]
    rows = rows.astype(int).clip(0, values.shape[0] - 1)
    columns = columns.astype(int).clip(0, values.shape[1] - 1)
    return values[rows[:, None], columns]


def photographic(
    pictures: Tensor, generator: torch.Generator, colours: Tensor | None = None, share: float = 1.0
) -> Tensor:
    """Give a ``share`` of the pictures [B, 3, H, W] in [0, 1] the faults of photographs -> the same shape and range.

    Colour: that of a real photograph, saturation, hue, cast, exposure, contrast, gamma, haze, vignetting. Sharpness:
    Gaussian and motion blur. Sensor and file: white or blotchy noise, JPEG. Every picture draws its own.
    ``colours`` [L, 3, 2] are colour statistics of real photographs (``measure_colours``); about half of the pictures
    take one over. Source: the kinds of blur, the lengths of motion and the turns of hue are those of the authors'
    released normals configuration (Ke et al. 2025); other ranges are ours.
    """
    chosen = torch.rand(len(pictures), generator=generator) < share
    if not chosen.any():
        return pictures
    draw = _Draw(int(chosen.sum()), generator)
    faulty = _sensor(_soften(_colour(pictures[chosen], draw, colours), draw), draw)
    result = pictures.clone()
    result[chosen] = faulty
    return result


class _Draw:
    """Random numbers for the pictures of a batch, one [B, 1, 1, 1] at a time."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator = batch, generator

    def even(self, low: float, high: float) -> Tensor:
        """Draw from an interval."""
        return low + (high - low) * torch.rand(self.batch, 1, 1, 1, generator=self.generator)

    def normal(self, std: float, channels: int = 1) -> Tensor:
        """Draw around 0, for each of ``channels``."""
        return std * torch.randn(self.batch, channels, 1, 1, generator=self.generator)

    def sometimes(self, share: float) -> Tensor:
        """Draw True for a share of the pictures."""
        return torch.rand(self.batch, 1, 1, 1, generator=self.generator) < share


def _colour(x: Tensor, draw: _Draw, colours: Tensor | None) -> Tensor:
    """Change the colours of [B, 3, H, W] in [0, 1], each picture as a whole but for its vignetting."""
    if colours is not None:
        chosen = colours[torch.randint(len(colours), (len(x),), generator=draw.generator)]  # [B, 3, 2]
        mean, std = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
        moved = (x - mean) / (std + 1e-3) * chosen[:, :, 1, None, None] + chosen[:, :, 0, None, None]
        x = torch.where(draw.sometimes(0.5), torch.lerp(x, moved, draw.even(0.2, 1)), x).clamp_(0, 1)
    grey = x.mean(dim=1, keepdim=True)
    x = torch.lerp(grey, x, torch.where(draw.sometimes(0.08), torch.zeros(()), draw.even(0.4, 1.3)))
    x = turn_hue(x, torch.where(draw.sometimes(0.3), draw.even(-HUE_TURN, HUE_TURN), torch.zeros(())))
    x = x * (torch.exp(draw.normal(0.08, 3)) * torch.exp(draw.normal(0.2)))
    x = x.sub_(0.5).mul_(draw.even(0.7, 1.25)).add_(0.5 + draw.normal(0.04))
    x = x.clamp_(0, 1).pow_(torch.exp(draw.normal(0.2)))
    x = torch.lerp(x, x.amax(dim=(2, 3), keepdim=True), draw.even(-0.1, 0.15).clamp_min(0))
    rows, columns = torch.linspace(-1, 1, x.shape[2])[:, None], torch.linspace(-1, 1, x.shape[3])
    return x.mul_(1 - draw.even(-0.3, 0.4).clamp_min(0) * (rows**2 + columns**2) / 2)


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn all hues of [B, 3, H, W] by ``turn`` [B, 1, 1, 1], in circles; grey and the mean of the channels stay."""
    angle = turn.flatten() * 2 * math.pi
    grey = torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    matrices = cos * torch.eye(3) + (1 - cos) * grey + sin * across  # [B, 3, 3], rotation about the grey axis
    return (matrices @ x.flatten(2)).view_as(x)


def _soften(x: Tensor, draw: _Draw) -> Tensor:
    """Blur two thirds of the pictures [B, 3, H, W] evenly, and a fifth along a line, as a moved camera does."""
    long_edge = max(x.shape[2:])
    x = _blur(x, draw.even(-0.5, 1).clamp_min(0) * BLUR_SIGMA * long_edge)
    shortest, longest = MOTION_PX
    longest = max(shortest, min(longest, longest * long_edge // MOTION_LONG_EDGE_PX))
    lengths = shortest + 2 * torch.floor(draw.even(0, (longest - shortest) // 2 + 1)).flatten()
    angles = draw.even(0, math.pi).flatten()
    moved = draw.sometimes(0.2).flatten()
    if moved.any():
        x[moved] = motion_blur(x[moved], lengths[moved], angles[moved])
    return x


def motion_blur(x: Tensor, length_px: Tensor, angle: Tensor) -> Tensor:
    """Blur each picture of [B, C, H, W] along a line of odd ``length_px`` [B] at ``angle`` [B] in radians."""
    reach = int(length_px.max()) // 2
    v, u = torch.meshgrid(torch.arange(-reach, reach + 1.0), torch.arange(-reach, reach + 1.0), indexing="ij")
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along, across = (u * cos + v * sin).abs(), (v * cos - u * sin).abs()  # [B, K, K]
    kernel = (1 - across).clamp_min(0) * ((length_px[:, None, None] + 1) / 2 - along).clamp(0, 1)
    return _convolve(x, kernel / kernel.sum(dim=(1, 2), keepdim=True))


def _sensor(x: Tensor, draw: _Draw) -> Tensor:
    """Add noise, white or blotchy, and JPEG's blocks to [B, 3, H, W] -> the same shape in [0, 1]."""
    noise = torch.randn(x.shape, generator=draw.generator)
    blotchy = draw.sometimes(0.3).flatten()
    if blotchy.any():
        noise[blotchy] = _blur(noise[blotchy], torch.full((int(blotchy.sum()), 1, 1, 1), 0.8)) * 2
    x = x.addcmul_(noise, draw.even(-0.02, 0.06).clamp_min(0)).clamp_(0, 1)
    quality = draw.even(20, 95).flatten().tolist()
    compressed = draw.sometimes(0.4).flatten().tolist()
    return torch.stack([_jpeg(p, int(q)) if c else p for p, q, c in zip(x, quality, compressed, strict=True)])


def measure_colours(pixels: np.ndarray) -> np.ndarray:
    """Measure [H, W, 3] uint8 -> [3, 2] float32, mean and standard deviation of each channel in [0, 1]."""
    values = pixels.reshape(-1, 3).astype(np.float32) / 255
    return np.stack([values.mean(axis=0), values.std(axis=0)], axis=1)


def _blur(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur each picture of [B, C, H, W] by its own ``sigma_px`` [B, 1, 1, 1]; 0 leaves it as it is."""
    reach = max(1, math.ceil(2.5 * sigma_px.max().item()))
    steps = torch.arange(-reach, reach + 1.0)
    kernel = torch.exp(-(steps**2) / (2 * sigma_px.view(-1, 1).clamp_min(1e-2) ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # [B, K]
    return _convolve(_convolve(x, kernel[:, None, :]), kernel[:, :, None])


def _convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter all channels of each picture of [B, C, H, W] with its own kernel of [B, K, L]; the border is repeated."""
    batch, channels, height, width = x.shape
    rows, columns = (side // 2 for side in kernels.shape[1:])
    x = F.pad(x.reshape(1, batch * channels, height, width), (columns, columns, rows, rows), mode="replicate")
    kernels = kernels.repeat_interleave(channels, dim=0)[:, None]  # [B C, 1, K, L]
    return F.conv2d(x, kernels, groups=batch * channels).view(batch, channels, height, width)


def _jpeg(picture: Tensor, quality: int) -> Tensor:
    """Write [3, H, W] in [0, 1] as JPEG and read it again."""
    pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).float() / 255
