"""What a clip is made with beside the settings of each frame. Importing this module costs no torch and no PyAV."""

from typing import Literal

from pydantic import Field

from marigold_core.settings import Frozen

VideoFormat = Literal["color", "grey", "side_by_side", "exr", "png16", "ply", "glb"]


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
