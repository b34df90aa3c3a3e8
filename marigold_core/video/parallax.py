"""A short clip from one photo: the camera moves a little, and near things move more than far ones."""

import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from marigold_core import storage
from marigold_core.geometry.camera import field_of_view, focal_length_px, metric_z
from marigold_core.geometry.depth_filters import sharpen
from marigold_core.prediction import Prediction, Progress
from marigold_core.settings import CameraSettings
from marigold_core.video.clips import ClipWriter
from marigold_core.video.settings import ParallaxSettings

FILES = {"clip": "parallax.mp4", "invented": "parallax_invented.mp4"}
CRACK_PX = 1.5  # neighbours of one surface part by less
FILL_PX = 3.0  # over which filled pixels are blurred among themselves: streaks are seen more than softness
RIM = 0.004  # of the longest edge
SAME_SURFACE = 0.05  # relative difference of z, below which two neighbours lie on one surface


def camera_path(settings: ParallaxSettings) -> np.ndarray:
    """Where the camera is in each frame: [N, 3] right, down, forward, as shares of the nearest depth."""
    turn = np.arange(round(settings.seconds * settings.rate)) / round(settings.seconds * settings.rate) * 2 * math.pi
    across, still = settings.amount * np.sin(turn), np.zeros_like(turn)
    if settings.motion == "dolly":
        return np.stack([still, still, settings.amount * (1 - np.cos(turn)) / 2], axis=-1)
    down = settings.amount * (1 - np.cos(turn)) / 4 if settings.motion == "circle" else still
    return np.stack([across, down, still], axis=-1)


def views(
    prediction: Prediction, settings: ParallaxSettings, mesh: CameraSettings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the camera sees in each frame: [h, w, 3] uint8, and which pixels [h, w] the photo does not show.

    The middle of the depth stays in place: near things move one way, far ones the other. The rim that a move would
    uncover is cut off. What comes out from behind an edge is filled from the farther side.

    Raises:
        ExportError: the prediction is not depth.
    """
    height, width = prediction.photo.shape[:2]
    scale = min(1.0, settings.longest_px / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    photo = cv2.resize(prediction.photo, size, interpolation=cv2.INTER_AREA)
    z = cv2.resize(metric_z(prediction, mesh), size, interpolation=cv2.INTER_LINEAR)
    z = with_rims(sharpen(z, mesh.edge_cut).astype(np.float32))
    focal = focal_length_px(size[0], field_of_view(prediction, mesh))
    near, still = float(z.min()), 2 / (1 / float(z.min()) + 1 / float(z.max()))
    path = camera_path(settings) * near
    reach = focal * np.abs(path[:, :2]).max() * (1 / near - 1 / still)
    rim = min(math.ceil(reach), min(size) // 4)
    inside = slice(rim, size[1] - rim), slice(rim, size[0] - rim)
    for right, down, forward in path:
        picture, filled = seen_from(photo, z, focal, (right, down, forward), still)
        yield picture[inside], filled[inside]


def with_rims(z: np.ndarray) -> np.ndarray:
    """Let near things [h, w] reach ``RIM`` further: outlines of depth lie a little inside those of the photo.

    What was left of a thing on its background would stay there when it moves, and colour what is filled in.
    """
    reach = max(1, round(RIM * max(z.shape)))
    return cv2.erode(z, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))


def seen_from(
    photo: np.ndarray, z: np.ndarray, focal_px: float, eye: tuple[float, float, float], still: float
) -> tuple[np.ndarray, np.ndarray]:
    """A photo [h, w, 3] with z [h, w] from another place, what is ``still`` stays -> picture, filled [h, w]."""
    height, width = z.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    right, down, forward = eye
    moved = np.maximum(z - forward, 1e-3 * z)
    zoom = z / moved * (still - forward) / still
    u = (x - width / 2 + 0.5) * zoom - focal_px * right * (1 / moved - 1 / (still - forward)) + width / 2 - 0.5
    v = (y - height / 2 + 0.5) * zoom - focal_px * down * (1 / moved - 1 / (still - forward)) + height / 2 - 0.5
    order = np.argsort(-z.ravel(), kind="stable")  # the nearest come last and stay
    source = np.full((height + 2, width + 2), -1, np.int64)
    flat_u, flat_v = u.ravel()[order], v.ravel()[order]
    for to_column, to_row in product((np.floor, np.ceil), repeat=2):  # all around the place: a surface has no cracks
        columns = np.clip(to_column(flat_u).astype(np.int64), -1, width) + 1
        rows = np.clip(to_row(flat_v).astype(np.int64), -1, height) + 1
        before = source[rows, columns]
        nearer = (before < 0) | (z.ravel()[order] <= z.ravel()[np.maximum(before, 0)])
        source[rows[nearer], columns[nearer]] = order[nearer]
    source = source[1:-1, 1:-1]
    filled = source < 0
    source = _from_farther_side(source, z)
    at_x, at_y = source % width, source // width
    # From the pixel that landed here to the very place in the photo; not across an edge.
    step_x, step_y = x - u.ravel()[source], y - v.ravel()[source]
    step_x, step_y = (np.where(filled, 0, np.clip(step, -CRACK_PX, CRACK_PX)) for step in (step_x, step_y))
    to_x, to_y = (
        np.rint(np.clip(at + step, 0, side - 1)).astype(int)
        for at, step, side in ((at_x, step_x, width), (at_y, step_y, height))
    )
    same = np.abs(z[to_y, to_x] - z[at_y, at_x]) < SAME_SURFACE * z[at_y, at_x]
    step_x, step_y = np.where(same, step_x, 0), np.where(same, step_y, 0)
    sampled = cv2.remap(
        photo,
        (at_x + step_x).astype(np.float32),
        (at_y + step_y).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    weight = np.maximum(cv2.GaussianBlur(filled.astype(np.float32), (0, 0), FILL_PX), 1e-6)[..., None]
    soft = cv2.GaussianBlur(np.where(filled[..., None], sampled, 0).astype(np.float32), (0, 0), FILL_PX) / weight
    return np.where(filled[..., None], np.rint(soft), sampled).astype(np.uint8), filled


def _from_farther_side(source: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Give every pixel -1 of [h, w] the nearest known one to its left, right, above or below that lies farthest."""
    best, depth = np.where(source < 0, 0, source), np.where(source < 0, -1.0, z.ravel()[np.maximum(source, 0)])
    known = source >= 0
    for axis, back in product((0, 1), (False, True)):
        way = np.flip(source, axis) if back else source
        places = np.indices(way.shape, np.int64)[axis]
        last: np.ndarray = np.maximum.accumulate(np.where(way >= 0, places, 0), axis)
        found = np.take_along_axis(way, last, axis)  # -1 before the first known one
        candidate = np.flip(found, axis) if back else found
        deep = np.where(candidate >= 0, z.ravel()[np.maximum(candidate, 0)], -1)
        better = ~known & (deep > depth)
        best, depth = np.where(better, candidate, best), np.where(better, deep, depth)
    return best


def stream_parallax(
    prediction: Prediction,
    folder: str | Path,
    settings: ParallaxSettings | None = None,
    mesh: CameraSettings | None = None,
    *,
    overwrite: bool = False,
) -> Generator[Progress | dict[str, Path]]:
    """Write the clip, and one that is white where pixels are invented; yields a ``Progress`` a frame, then the paths.

    Raises:
        ExportError: a file exists already, the prediction is not depth, or the disk refuses.
    """
    settings, mesh = settings or ParallaxSettings(), mesh or CameraSettings()
    paths = {name: Path(folder) / file for name, file in FILES.items()}
    storage.refuse_existing(paths.values(), overwrite)
    total = len(camera_path(settings))
    with storage.replacing(paths["clip"]) as clip, storage.replacing(paths["invented"]) as invented:
        time_base = Fraction(1, settings.rate)
        writers = [ClipWriter(path, time_base, Fraction(settings.rate)) for path in (clip, invented)]
        try:
            for number, (picture, filled) in enumerate(views(prediction, settings, mesh)):
                mask = np.repeat(np.where(filled, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
                for writer, content in zip(writers, (picture, mask), strict=True):
                    writer.write(content, number)
                yield Progress(number + 1, total, f"frame {number + 1} of {total}")
        finally:
            for writer in writers:
                writer.close()
    yield paths
