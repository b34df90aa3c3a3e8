"""Small clips with a known camera move and known depth: a window that moves over a still scene."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from marigold_core import Prediction, Settings
from marigold_core.prediction import Progress
from marigold_core.settings import ResolvedSettings
from tests.helpers.planted import generator, plant, smooth

SIZE = (72, 96)  # of a frame: height, width
STEP = (1, 2)  # pixels that the window moves a frame: down, right


@dataclass
class Scene:
    """A still scene, larger than a frame."""

    picture: np.ndarray  # [H, W, 3] uint8
    depth: np.ndarray  # [H, W] in [0, 1]

    def window(self, array: np.ndarray, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
        """What the frame of a number sees of ``picture`` or ``depth``."""
        top, left = (step * number for step in STEP)
        return array[top : top + size[0], left : left + size[1]]

    def frame(self, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
        """The picture [h, w, 3] of a frame."""
        return np.ascontiguousarray(self.window(self.picture, number, size))

    def truth(self, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
        """The depth [h, w] of a frame."""
        return self.window(self.depth, number, size)

    def frames(self, count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
        """The pictures of the first so many frames."""
        return [self.frame(number, size) for number in range(count)]

    def truths(self, count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
        """Their depths."""
        return [self.truth(number, size) for number in range(count)]


def scene(seed: int, size: tuple[int, int] = (160, 240)) -> Scene:
    """Boxes before a ground plane, and a texture with detail everywhere."""
    rng = generator(seed)
    depth = plant(rng, "boxes", size)[0, 0].numpy()
    colours = smooth(rng, 3, size, knots=30)[:, 0].permute(1, 2, 0).numpy()
    tint = smooth(rng, 3, size, knots=4)[:, 0].permute(1, 2, 0).numpy()
    edges = 60 * depth[..., None]
    return Scene(np.clip(120 + 35 * colours + 40 * tint + edges, 0, 255).astype(np.uint8), depth)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    rotation: int = 0,
    sound: str | None = None,
) -> Path:
    """Write frames [H, W, 3] uint8, at 25 a second or at ``times`` in milliseconds, with a tone if ``sound``."""
    height, width = frames[0].shape[:2]
    even = codec == "libx264"
    head_first = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=head_first) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"crf": "8"} if even else {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        tone: Any = container.add_stream(sound, rate=44100) if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 1000) if times else Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone:
            samples = np.sin(np.arange(44100 * len(frames) // 25) / 30).astype(np.float32)[None]
            given = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            given.sample_rate = 44100
            for resampled in av.AudioResampler(tone.format.name, tone.layout.name, 44100).resample(given):
                container.mux(tone.encode(resampled))
            container.mux(tone.encode(None))
    return path


@dataclass
class PlantedPipe:
    """Stands for a loaded checkpoint: the n-th call gives the n-th of the planted depth maps."""

    depths: Sequence[np.ndarray]
    kind: str = "affine"
    calls: int = 0
    seen: list[np.ndarray] = field(default_factory=list)
    on_call: Callable[[int], None] | None = None

    @property
    def checkpoint(self) -> Any:
        return SimpleNamespace(modality="depth", name="planted", sha256="0" * 64, kind=self.kind, space="depth")

    def resolve(self, settings: Settings | None) -> ResolvedSettings:
        return (settings or Settings()).resolved(1, 0)

    def stream(self, photo: np.ndarray, settings: Any = None, carry: Any = None) -> Iterator[Progress | Prediction]:
        yield Progress(0, 1, "reading the photo")
        if self.on_call:
            self.on_call(self.calls)
        values = self.depths[self.calls].astype(np.float32)
        self.calls += 1
        self.seen.append(photo)
        if carry is not None:
            import torch

            carry.keep(0, torch.full((1, 4, 2, 2), float(self.calls)))
        yield Prediction(
            "depth", "affine", "depth", values, None, None, photo, None, self.resolve(None), "planted", "0" * 64
        )


def disturbed(truths: Sequence[np.ndarray], seed: int, level: float = 0.04) -> list[np.ndarray]:
    """What a model makes of the frames: each with its own scale and shift, under smooth noise of its own."""
    rng, random = generator(seed), np.random.default_rng(seed)
    made = []
    for truth in truths:
        noise = smooth(rng, 1, truth.shape, knots=6)[0, 0].numpy()
        made.append((random.uniform(0.7, 1.0) * (truth + level * noise) + random.uniform(0, 0.2)).astype(np.float32))
    return made


def flicker(maps: Sequence[np.ndarray], truths: Sequence[np.ndarray], step: tuple[int, int] = STEP) -> float:
    """How much the error of a depth map changes from a frame to the next at the same place of the scene.

    One scale and shift is fitted over the clip. Mean absolute difference, in units of the true depth's range.
    """
    given, wanted = np.stack(maps).astype(np.float64), np.stack(truths).astype(np.float64)
    design = np.stack([given.ravel(), np.ones(given.size)], axis=1)
    scale, shift = np.linalg.lstsq(design, wanted.ravel(), rcond=None)[0]
    errors = scale * given + shift - wanted
    down, right = step
    height, width = errors.shape[1:]
    before, after = errors[:-1, down:, right:], errors[1:, : height - down, : width - right]
    return float(np.abs(after - before).mean() / np.ptp(wanted))
