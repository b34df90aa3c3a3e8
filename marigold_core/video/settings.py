"""What clips, and pictures with depth of field, are made with, and where a clip's files lie.

Importing this module costs no torch and no PyAV.
"""

from typing import Annotated, Literal

from pydantic import Field

from marigold_core.errors import CheckpointError, SettingsError
from marigold_core.settings import Frozen

VideoFormat = Literal["color", "grey", "side_by_side", "exr", "png16", "ply", "glb"]
CLIPS: dict[VideoFormat, str] = {"color": "depth.mp4", "grey": "depth_grey.mp4", "side_by_side": "side_by_side.mp4"}
RECORD = "video.json"  # written last
UNFINISHED = "unfinished"  # folder of what a run that was stopped goes on from


class VideoSettings(Frozen):
    """How the frames of a clip are brought together, and what is written of it."""

    video_formats: tuple[VideoFormat, ...] = Field(
        default=("color", "side_by_side"),
        min_length=1,
        description="clips in colour, in grey (near is white) or beside the source; frames as EXR, 16-bit PNG, points"
        " (PLY) or meshes (GLB)",
    )
    window: int = Field(
        default=10, ge=1, le=60, description="frames before, which a frame's scale and shift are fitted to"
    )
    averaging: float = Field(
        default=0.9, ge=0, le=0.95, description="weight of a pixel's own past in its depth; 0 is none"
    )
    carry: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of the last frame's result in the noise that a frame starts from, which all frames share",
    )
    silent: bool = Field(default=False, description="leave the sound of the source out of the clips")


class ParallaxSettings(Frozen):
    """How the camera moves, and what the clip is like. It ends where it begins, so that it can be looped."""

    motion: Literal["circle", "sideways", "dolly"] = Field(
        default="circle", description="around the place of the photo, from left to right and back, or in and out"
    )
    amount: float = Field(
        default=0.06, gt=0, le=0.3, description="how far the camera moves, as a share of the nearest depth"
    )
    seconds: float = Field(default=4.0, ge=0.5, le=30, description="length of the clip")
    rate: int = Field(default=30, ge=5, le=60, description="frames a second")
    longest_px: int = Field(default=1024, ge=64, le=2048, multiple_of=2, description="longest edge of the clip, pixels")


class DefocusSettings(Frozen):
    """Where it is sharp, and how much it is blurred elsewhere."""

    focus: tuple[Annotated[float, Field(title="x")], Annotated[float, Field(title="y")]] | None = Field(
        default=None, description="pixel of the photo, x and y, that is sharp; by default the middle"
    )
    aperture: float = Field(
        default=0.02, ge=0, le=0.1, description="widest blur at infinity, as a share of the photo's longest edge"
    )


def check_depth(checkpoint: str, modality: str) -> None:
    """Raise CheckpointError where a checkpoint predicts something else than depth, which all of this is made of."""
    if modality != "depth":
        raise CheckpointError(f"This is made of depth, but {checkpoint} predicts {modality}.")


def check_focus(settings: DefocusSettings, photo_size: tuple[int, int]) -> tuple[float, float]:
    """Tell the pixel in focus of a photo (height, width). Raises: SettingsError where it lies outside."""
    height, width = photo_size
    x, y = settings.focus or (width / 2, height / 2)
    if not (0 <= x < width and 0 <= y < height):
        raise SettingsError(f"The focus {x:g}, {y:g} lies outside the photo of {width} x {height} pixels.")
    return x, y
