"""Depth of a 360-degree panorama: its views are predicted like photos, aligned where they overlap, and blended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from marigold_core.errors import CheckpointError, ImageError
from marigold_core.geometry import sphere
from marigold_core.geometry.camera import metric_z
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Prediction, Progress, ProgressEvents
from marigold_core.settings import CameraSettings, ResolvedSettings, Settings, SurfaceSettings

if TYPE_CHECKING:
    from marigold_core.pipeline.pipeline import PhotoSource

ASPECT_ERROR = 0.02  # by which width may miss twice the height
NATIVE_SIDE_PX = 1024  # of a view where the network sees it as it is


class Predictor(Protocol):
    """What predicts the views: a ``MarigoldPipeline``."""

    def resolve(self, settings: Settings | None) -> ResolvedSettings:
        """Fill in what the checkpoint decides."""
        ...

    def stream(self, photo: "PhotoSource", settings: Settings | None = None) -> Iterator[Progress | Prediction]:
        """Predict from a view [H, W, 3] uint8, step by step."""
        ...


@dataclass(frozen=True)
class Panorama:
    """Distances around the camera."""

    distance: np.ndarray  # [H, W] float32 from the camera, along each ray; the farthest is 1, the scale is unknown
    photo: np.ndarray  # [H, W, 3] uint8
    seam: float  # median relative difference of two views where they overlap, after alignment
    view: Prediction  # the first view's, for what it was made with
    note: str | None  # what a person should know about how the panorama was decoded


def is_full(height: int, width: int) -> bool:
    """Return whether a photo of this size may be a full panorama."""
    return abs(width / (2 * height) - 1) <= ASPECT_ERROR


def check_full(photo_size: tuple[int, int]) -> None:
    """Check that a photo (height, width) is a full panorama by its shape. Raises: ImageError."""
    height, width = photo_size
    if not is_full(height, width):
        raise ImageError(
            f"A 360-degree panorama is twice as wide as high, but this has {width} x {height} pixels;"
            " one of less than the full circle or sphere has to be padded first."
        )


def stream_panorama(
    pipe: Predictor, photo: "PhotoSource", settings: Settings | None = None, mesh: SurfaceSettings | None = None
) -> Iterator[Progress | Panorama]:
    """Predict view by view, yielding a ``Progress`` a step and the ``Panorama`` at the end.

    Args:
        pipe: a loaded checkpoint that predicts depth.
        photo: an equirectangular panorama, twice as wide as high: a path, bytes, a PIL image or [H, W, 3] uint8.
        settings: of each view; by default the checkpoint's own.
        mesh: its ``near_ratio`` is what a view's depth begins from before views are aligned.

    Raises:
        ImageError: the photo cannot be used, or is no full panorama.
        SettingsError: a setting is out of range.
        CheckpointError: the checkpoint predicts something else than depth.
    """
    source = load_photo(photo)
    check_full(source.size)
    picture, settings = source.pixels, pipe.resolve(settings)
    height, width = picture.shape[:2]
    side = sphere.face_side_px(width, settings.processing_resolution or NATIVE_SIDE_PX)
    camera = CameraSettings(near_ratio=mesh and mesh.near_ratio, fov_x_deg=sphere.FACE_FOV_DEG)
    views, first = list[np.ndarray](), None
    for face, name in enumerate(sphere.FACES):
        yield Progress(face, len(sphere.FACES), f"looking {name}")
        events = ProgressEvents(pipe.stream(sphere.cut_out(picture, face, side), settings))
        for event in events:
            yield Progress(face, len(sphere.FACES), f"looking {name}: {event.stage}")
        made = events.result
        if made.modality != "depth":
            raise CheckpointError(f"A panorama is made of depth, but {made.checkpoint} predicts {made.modality}.")
        first = first or made
        views.append(metric_z(made, camera))
    assert first is not None  # there are faces
    yield Progress(len(views), len(views), "bringing the views together")
    fitted, seam = sphere.align(views, has_shift=first.kind == "affine")
    yield Panorama(sphere.blend(views, fitted, height, width), picture, seam, first, source.note)
