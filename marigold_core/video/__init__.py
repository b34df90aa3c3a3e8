"""Depth of moving pictures: read frame by frame, predicted alike, aligned in time, written as clips or frames.

Needs the extra ``video`` (PyAV and OpenCV). Memory does not grow with the length of a clip.
"""

from importlib.util import find_spec

from marigold_core.errors import MarigoldError

IS_INSTALLED = find_spec("av") is not None and find_spec("cv2") is not None  # the extra "video"


def check_installed() -> None:
    """Raise MarigoldError where the extra is missing."""
    if not IS_INSTALLED:
        raise MarigoldError(
            "This needs PyAV and OpenCV, which are not installed: pip install 'marigold-depth-studio[video]'."
        )
