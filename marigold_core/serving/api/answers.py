"""What endpoints answer: names of files and figures."""

from typing import Any, Literal, NotRequired, TypedDict, cast

from marigold_core.calibration.calibrate import Calibrated, Measured
from marigold_core.files.formats import FILES

Answer = dict[str, Any]
_typed_dict = cast(Any, TypedDict)  # of fields that are listed elsewhere, which type checkers do not know


class FileMeta(TypedDict):
    """Tells Gradio's clients that this is a file."""

    _type: Literal["gradio.FileData"]


class FileData(TypedDict):
    """A file that a client may fetch, as Gradio's clients know it."""

    path: str
    url: str | None
    size: int | None
    orig_name: str | None
    mime_type: str | None
    is_stream: bool
    meta: FileMeta


# Files by their names in ``files.formats.FILES``, as requested, and the manifest; while a job runs only ``progress``.
_OF_DEPTH: dict[str, Any] = {**dict.fromkeys(FILES, FileData), "manifest": dict[str, Any], "progress": str}
DepthResult: type = _typed_dict("DepthResult", _OF_DEPTH, total=False)


class HintResult(TypedDict):
    """One hint beside what the map has there; of a flat patch the steepness that makes it flat."""

    hint: str
    given: float
    found: float
    unit: str


class Solution(TypedDict):
    """Scale * value + shift is the depth, its logarithm or its inverse; a completion has neither.

    The errors are standard errors.
    """

    kind: str
    space: str
    scale: NotRequired[float]
    scale_error: NotRequired[float]
    shift: NotRequired[float]
    shift_error: NotRequired[float]
    residuals: list[HintResult]
    how: str


# The files of a calibrated result, and what the hints have led to.
MetresResult: type = _typed_dict("MetresResult", {**_OF_DEPTH, "calibration": Solution}, total=False)


class CompareResult(TypedDict, total=False):
    """The sheets as PNG, the table as CSV, its rows, how the photo was read; while a job runs only ``progress``.

    A row's ``uncertainty_measure`` says what its ``uncertainty`` is: the members' spread, or the expected error.
    """

    sheet: FileData
    differences: FileData
    table: FileData
    rows: list[dict[str, Any]]
    note: str
    progress: str


class PanoramaResult(TypedDict, total=False):
    """Distances, their pictures, the mesh, and what they were made with; while a job runs only ``progress``."""

    npy: FileData
    png16: FileData
    color: FileData
    glb: FileData
    record: dict[str, Any]
    note: str
    progress: str


class VideoResult(TypedDict, total=False):
    """Clips as MP4, frames as ZIP, a table of the frames, and what they were made with."""

    color: FileData
    grey: FileData
    side_by_side: FileData
    exr: FileData
    png16: FileData
    ply: FileData
    glb: FileData
    table: FileData
    record: dict[str, Any]
    note: str
    progress: str


class ParallaxResult(TypedDict, total=False):
    """The clip, and one that is white where its pixels are invented."""

    clip: FileData
    invented: FileData
    note: str
    progress: str


class DefocusResult(TypedDict, total=False):
    """The picture, and one that is white where its pixels are invented."""

    picture: FileData
    invented: FileData
    note: str
    progress: str


def solution(found: Measured) -> Solution:
    """Gather what the hints have led to, in numbers."""
    answer: Solution = {
        "kind": found.kind,
        "space": found.space,
        "residuals": [
            {"hint": one.hint, "given": one.given, "found": one.found, "unit": one.unit} for one in found.residuals
        ],
        "how": found.how,
    }
    if isinstance(found, Calibrated):
        answer["space"] = found.affine_space
        answer["scale"], answer["scale_error"] = found.scale, found.scale_error
        answer["shift"], answer["shift_error"] = found.shift, found.shift_error
    return answer
