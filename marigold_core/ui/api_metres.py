"""The HTTP endpoint ``calibrate``: one photo and what is known of it, in the words of the command line."""

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from marigold_core.calibration.anchors import ANCHOR_FORM, LENGTH_FORM, PATCH_FORM, Along, check_numbers
from marigold_core.calibration.calibrate import Calibrated, Hints, calibrate, check_hints, hints_of
from marigold_core.errors import CalibrationError
from marigold_core.images.photo import load_photo
from marigold_core.serving.jobs import Service
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, Format, MeshSettings, Settings, default
from marigold_core.ui.api_responses import DEFAULT_FORMATS, DepthResult, files_of, read_settings, run
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.text import metres as metres_text


class HintResult(TypedDict):
    """What one hint said and what the map says; of a flat patch the steepness that makes it flat."""

    hint: str
    given: float
    found: float
    unit: str


class Solution(TypedDict):
    """Scale * value + shift is the depth, its logarithm or its inverse; the errors are standard errors."""

    kind: str
    space: str
    scale: float
    scale_error: float
    shift: float
    shift_error: float
    residuals: list[HintResult]
    how: str


class MetresResult(DepthResult, total=False):
    """The files of a calibrated result, and what the hints have led to."""

    calibration: Solution


class MetresEndpoint:
    """The function behind the endpoint; Gradio shows its docstring to callers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def calibrate(
        self,
        photo: str,
        anchors: list[list[float]] | None = None,
        along: Along = "axis",
        lengths: list[list[float]] | None = None,
        patch: list[list[float]] | None = None,
        near_m: float | None = None,
        fov_x_deg: float | None = default(MeshSettings, "fov_x_deg"),
        num_inference_steps: int | None = default(Settings, "num_inference_steps"),
        ensemble_size: int = default(Settings, "ensemble_size"),
        processing_resolution: int | None = default(Settings, "processing_resolution"),
        seed: int = default(Settings, "seed"),
        batch_size: int | None = default(Settings, "batch_size"),
        checkpoint: str | None = None,
        formats: list[Format] | None = None,
        colormap: Colormap = DEFAULT_COLORMAP,
    ) -> Iterator[dict[str, Any]]:
        """Estimate the depth of a photo in metres, from what is known of it: depths, lengths, flat patches.

        Positions are pixels of the upright photo, from its top left corner. Two hints at different depths are needed.

        Args:
            photo: the photo, JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC, up to 40 MB.
            anchors: known depths, [[x, y, metres], ...].
            along: how these were measured: "axis", parallel to the view's axis, or "ray", straight from the camera.
            lengths: known lengths from pixel to pixel, [[x1, y1, x2, y2, metres], ...].
            patch: rectangles on a flat floor or wall, [[x0, y0, x1, y1], ...]; alone they leave one factor open.
            near_m: distance of the plane where the map is 0, metres.
            fov_x_deg: horizontal field of view, degrees, for lengths and rays; by default from EXIF.
            num_inference_steps: denoising steps a member, 1 to 50; by default the checkpoint's own.
            ensemble_size: independent members to fuse, 1 to 20; 3 or more widen the error bars by their spread.
            processing_resolution: longest edge the network sees, pixels; 0 is the photo's own size.
            seed: member k draws its noise from (seed, k).
            batch_size: members in one forward pass; by default as many as fit in memory.
            checkpoint: a name that the page offers; by default the server's own.
            formats: files to return: npy, png16, color, uncertainty, normals, glb, ply, stl, exr.
            colormap: the colours of the picture.
        """
        with translate_errors():
            settings = read_settings(num_inference_steps, ensemble_size, processing_resolution, seed, batch_size)
            known = read_hints(
                {"anchors": anchors, "lengths": lengths, "patch": patch, "near_m": near_m}, along, fov_x_deg
            )
            opened = load_photo(photo)
            check_hints(known, opened.pixels.shape[:2], opened.fov_x_deg)  # before the model is waited for
            found = calibrate((yield from run(self.service, opened, settings, checkpoint)), known)
            mesh = MeshSettings(fov_x_deg=fov_x_deg)
            answer = files_of(self.service, found, formats or DEFAULT_FORMATS, mesh, colormap)
            yield {**answer, "calibration": solution(found)}


def read_hints(values: Mapping[str, Any], along: Along = "axis", fov_x_deg: float | None = None) -> Hints:
    """Arguments of the endpoint by name -> hints. Raises: CalibrationError for the first that is of another form."""
    near_m = values["near_m"]
    if near_m is not None and type(near_m) not in (int, float):
        raise CalibrationError(metres_text.NOT_METRES.format(name="near_m", value=near_m))
    return hints_of(
        check_numbers("anchors", values["anchors"], ANCHOR_FORM),
        check_numbers("lengths", values["lengths"], LENGTH_FORM),
        check_numbers("patch", values["patch"], PATCH_FORM),
        along=along,
        near_m=near_m,
        fov_x_deg=fov_x_deg,
    )


def solution(found: Calibrated) -> Solution:
    """What the hints have led to, in numbers."""
    return {
        "kind": found.kind,
        "space": found.affine_space,
        "scale": found.scale,
        "scale_error": found.scale_error,
        "shift": found.shift,
        "shift_error": found.shift_error,
        "residuals": [
            {"hint": one.hint, "given": one.given, "found": one.found, "unit": one.unit} for one in found.residuals
        ],
        "how": found.how,
    }
