"""The HTTP endpoints: the same job path as the page, with the names of ``Settings`` as arguments.

Wrong values are refused by a validator before they take a place in the queue. Every other event of the page is
private. An endpoint is a generator, so that a client which goes away or cancels stops its job within a step.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args, get_type_hints

import gradio as gr
from gradio.components.api_component import Api
from gradio_client.utils import python_type_to_json_schema

from marigold_core.calibration.anchors import Along
from marigold_core.errors import MarigoldError
from marigold_core.serving.jobs import Service
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, Format, MeshSettings, Settings, default
from marigold_core.ui import text
from marigold_core.ui.api_compare import ARGUMENTS, CompareEndpoint, CompareResult, read_comparison
from marigold_core.ui.api_metres import MetresEndpoint, MetresResult, read_hints
from marigold_core.ui.api_responses import DEFAULT_FORMATS, DepthResult, files_of, read_settings, run
from marigold_core.ui.controls.settings import draw_photo
from marigold_core.ui.error_messages import plain, translate_errors
from marigold_core.ui.events import MODEL
from marigold_core.ui.offered_checkpoints import check_checkpoint


class Endpoints:
    """The functions behind the endpoints; Gradio shows their docstrings to callers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def predict_depth(
        self,
        photo: str,
        num_inference_steps: int | None = default(Settings, "num_inference_steps"),
        ensemble_size: int = default(Settings, "ensemble_size"),
        processing_resolution: int | None = default(Settings, "processing_resolution"),
        seed: int = default(Settings, "seed"),
        batch_size: int | None = default(Settings, "batch_size"),
        checkpoint: str | None = None,
        formats: list[Format] | None = None,
        colormap: Colormap = DEFAULT_COLORMAP,
    ) -> Iterator[dict[str, Any]]:
        """Estimate the depth of a photo: relative depth, 0 = near, 1 = far, and its uncertainty from 3 members up.

        Args:
            photo: the photo, JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC, up to 40 MB.
            num_inference_steps: denoising steps a member, 1 to 50; by default the checkpoint's own.
            ensemble_size: independent members to fuse, 1 to 20; 3 or more give uncertainty.
            processing_resolution: longest edge the network sees, pixels; 0 is the photo's own size.
            seed: member k draws its noise from (seed, k).
            batch_size: members in one forward pass; by default as many as fit in memory.
            checkpoint: a name that the page offers; by default the server's own.
            formats: files to return: npy, png16, color, uncertainty, normals, glb, ply, stl, exr.
            colormap: the colours of the picture.
        """
        settings = read_settings(num_inference_steps, ensemble_size, processing_resolution, seed, batch_size)
        yield from self._answer(photo, settings, checkpoint, formats or DEFAULT_FORMATS, MeshSettings(), colormap)

    def build_mesh(
        self,
        photo: str,
        num_inference_steps: int | None = default(Settings, "num_inference_steps"),
        ensemble_size: int = default(Settings, "ensemble_size"),
        processing_resolution: int | None = default(Settings, "processing_resolution"),
        seed: int = default(Settings, "seed"),
        batch_size: int | None = default(Settings, "batch_size"),
        checkpoint: str | None = None,
        formats: list[Literal["glb", "ply", "stl"]] | None = None,
        fov_x_deg: float | None = default(MeshSettings, "fov_x_deg"),
        near_ratio: float = default(MeshSettings, "near_ratio"),
        edge_cut: float = default(MeshSettings, "edge_cut"),
        near_clip: float = default(MeshSettings, "near_clip"),
        far_clip: float = default(MeshSettings, "far_clip"),
        smoothing: float = default(MeshSettings, "smoothing"),
        uncertainty_cut: float = default(MeshSettings, "uncertainty_cut"),
        max_triangles: int = default(MeshSettings, "max_triangles"),
        relief_mm: float = default(MeshSettings, "relief_mm"),
        relief_height_mm: float = default(MeshSettings, "relief_height_mm"),
        relief_base_mm: float = default(MeshSettings, "relief_base_mm"),
    ) -> Iterator[dict[str, Any]]:
        """Estimate the depth of a photo and build geometry from it: by default a textured mesh as GLB.

        Args:
            photo: the photo, JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC, up to 40 MB.
            num_inference_steps: denoising steps a member, 1 to 50; by default the checkpoint's own.
            ensemble_size: independent members to fuse, 1 to 20.
            processing_resolution: longest edge the network sees, pixels; 0 is the photo's own size.
            seed: member k draws its noise from (seed, k).
            batch_size: members in one forward pass; by default as many as fit in memory.
            checkpoint: a name that the page offers; by default the server's own.
            formats: glb (textured mesh), ply (coloured points), stl (relief to print).
            fov_x_deg: horizontal field of view, degrees; by default from EXIF, else 55.
            near_ratio: nearest depth over farthest depth, for relative depth.
            edge_cut: triangles are cut at depth jumps above this share; 0 keeps all.
            near_clip: what is nearer is left out, as a share of the depth range.
            far_clip: what is farther is left out, as a share of the depth range.
            smoothing: bumps below this share of the depth are levelled, edges stay; 0 is none.
            uncertainty_cut: what members disagree on by more of the depth range is left out; 0 keeps all.
            max_triangles: the mesh is simplified to this many triangles, points are at most twice as many.
            relief_mm: longest edge of the printed relief, millimetres.
            relief_height_mm: the relief from its farthest to its nearest point, millimetres.
            relief_base_mm: the plate under the relief's farthest point, millimetres.
        """
        settings = read_settings(num_inference_steps, ensemble_size, processing_resolution, seed, batch_size)
        mesh = MeshSettings(
            fov_x_deg=fov_x_deg,
            near_ratio=near_ratio,
            edge_cut=edge_cut,
            near_clip=near_clip,
            far_clip=far_clip,
            smoothing=smoothing,
            uncertainty_cut=uncertainty_cut,
            max_triangles=max_triangles,
            relief_mm=relief_mm,
            relief_height_mm=relief_height_mm,
            relief_base_mm=relief_base_mm,
        )
        yield from self._answer(photo, settings, checkpoint, formats or ["glb"], mesh, DEFAULT_COLORMAP)

    def _answer(
        self,
        photo: str,
        settings: Settings,
        checkpoint: str | None,
        formats: Sequence[Format],
        mesh: MeshSettings,
        colormap: Colormap,
    ) -> Iterator[dict[str, Any]]:
        with translate_errors():
            prediction = yield from run(self.service, photo, settings, checkpoint)
            yield files_of(self.service, prediction, formats, mesh, colormap)


def add_endpoints(page: gr.Blocks, service: Service) -> None:
    """Declare the endpoints on a page that is being drawn."""
    endpoints = Endpoints(service)
    _declare(page, endpoints.predict_depth, DepthResult)
    _declare(page, endpoints.build_mesh, DepthResult)
    _declare(page, MetresEndpoint(service).calibrate, MetresResult)
    _declare(page, CompareEndpoint(service).compare, CompareResult)


def _declare(page: gr.Blocks, handler: Callable[..., Iterator[dict[str, Any]]], result: type) -> None:
    """Do what ``gr.api`` does, but with our photo input and a validator."""
    hints = get_type_hints(handler)
    names = list(inspect.signature(handler).parameters)
    inputs: list[gr.components.Component] = [draw_photo(visible=False)]
    for name, parameter in list(inspect.signature(handler).parameters.items())[1:]:
        inputs.append(Api(parameter.default, python_type_to_json_schema(hints[name]), name))

    def check(*values: object) -> list[dict[str, Any]]:
        """Refuse wrong values with a sentence at the argument it names."""
        problem = fault(dict(zip(names, values, strict=True)))
        blamed = next((name for name in names if problem and name in problem), names[0])
        return [gr.validate(problem is None or name != blamed, problem or "") for name in names]

    page.default_config.set_event_trigger(
        [],
        handler,
        inputs,
        Api(None, python_type_to_json_schema(result), "result"),
        postprocess=False,
        show_progress="hidden",
        api_name=handler.__name__,
        trigger_mode=None,
        validator=check,
        **MODEL,
    )


def fault(values: dict[str, Any]) -> str | None:
    """Say what is wrong with the arguments of an endpoint, None when nothing is."""
    try:
        for model in (Settings, MeshSettings):
            model(**{name: value for name, value in values.items() if name in model.model_fields})
        if "anchors" in values:
            read_hints(values)
        if "sizes" in values:
            read_comparison(*(values[name] for name in ARGUMENTS))
        if values.get("checkpoint") is not None:
            check_checkpoint(values["checkpoint"])
    except MarigoldError as error:
        return plain(str(error))
    choices = {"formats": get_args(Format), "colormap": get_args(Colormap), "along": get_args(Along)}
    for name, known in choices.items():
        given = values.get(name)
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            if value not in known:
                return plain(text.UNKNOWN_VALUE.format(name=name, value=value, known=", ".join(known)))
    return None if values["photo"] else text.NO_PHOTO
