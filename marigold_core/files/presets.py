"""What programs want of a result: one table, from which the page, the command line and HTTP are made.

A line says what to tick there. Sources of what they want: the programs' own documentation and readers; the files are
opened with them, or with the library that they read files with, in ``tests/files/test_consumers.py``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from marigold_core.prediction import Prediction

SaveFor = Literal[
    "controlnet",
    "displacement",
    "cnc",
    "compositing",
    "rgbd",
    "nerfstudio",
    "looking-glass",
    "stereo",
    "lithophane",
    "print",
]


MILLIMETRES_MAX = 65535  # of 16 bits; what is farther is unknown, as 0 says to all readers
SAVE_FOR = "write the files that programs want; without formats no others"


@dataclass(frozen=True)
class Preset:
    """The files that a program wants, by their names in ``formats.FILES``, and how they are opened there."""

    label: str
    files: tuple[str, ...]
    tick: str
    metric: bool = False  # whether depth has to be in metres


PRESETS: dict[SaveFor, Preset] = {
    "controlnet": Preset(
        "ControlNet map",
        ("controlnet",),
        "8-bit RGB, disparity, near is white: give it to a depth model as it is, with the preprocessor none.",
    ),
    "displacement": Preset(
        "Displacement map",
        ("height",),
        "16-bit grey, near is white. Blender: Color Space Non-Color, then a Displacement node, Midlevel 0.",
    ),
    "cnc": Preset(
        "CNC or laser height map",
        ("height",),
        "16-bit grey, white is the highest and black the deepest: no gamma, no dithering, no inversion.",
    ),
    "compositing": Preset(
        "Compositing",
        ("rgbz",),
        "EXR with linear RGB and Z, which grows with distance. Nuke: Read, not raw; depth is in depth.Z.",
    ),
    "rgbd": Preset(
        "RGB-D for Open3D and SLAM",
        ("photo", "depth_mm", "intrinsics"),
        "16-bit millimetres, 0 is unknown: depth_scale 1000, depth_trunc 65.5; the camera is in intrinsics.json.",
        metric=True,
    ),
    "nerfstudio": Preset(
        "nerfstudio and gsplat",
        ("photo", "depth_mm", "ply", "transforms"),
        "OpenGL camera, depth in millimetres. nerfstudio-data --orientation-method none --center-method none"
        " --auto-scale-poses False --eval-mode all.",
        metric=True,
    ),
    "looking-glass": Preset(
        "Looking Glass",
        ("side_by_side",),
        "Photo left, depth right, near is white: import as an RGB-D photo, depth on the right, not inverted.",
    ),
    "stereo": Preset(
        "Stereo pair",
        ("stereo", "stereo_filled"),
        "Left eye left, full width, unless stereo_layout says otherwise: choose side by side, or red and cyan glasses;"
        " stereo_filled.png is white where the photo does not show what an eye would see.",
    ),
    "lithophane": Preset(
        "Lithophane",
        ("lithophane",),
        "The photo's darkness as thickness, 0.6 to 3 mm: print it standing, all solid, in white, unit millimetre.",
    ),
    "print": Preset(
        "Relief print",
        ("stl", "relief_3mf"),
        "Millimetres: 3MF says so itself, for STL choose millimetre; print it lying, scale 100 %, no supports.",
    ),
}


def advice(name: SaveFor, prediction: Prediction) -> str:
    """Say what to tick in a program, and which share of a result its files do not hold."""
    tick = PRESETS[name].tick
    if "depth_mm" not in PRESETS[name].files:
        return tick
    beyond = float(np.mean(prediction.values * 1000 > MILLIMETRES_MAX))
    left_out = f" {max(beyond, 0.001):.1%} of the pixels are farther than 65.5 m, so that they are unknown."
    return f"{tick}{left_out if beyond else ''}"
