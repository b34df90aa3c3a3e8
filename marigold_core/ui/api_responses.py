"""What the HTTP endpoints share: running a job for a caller, and the files of its result as an answer."""

import json
from collections.abc import Generator, Sequence
from typing import Any, TypedDict

from gradio.data_classes import FileData

from marigold_core.checkpoints.registry import default_checkpoint
from marigold_core.images.photo import Photo
from marigold_core.prediction import Prediction, ProgressEvents
from marigold_core.serving.jobs import Service
from marigold_core.settings import Colormap, Format, MeshSettings, Settings
from marigold_core.ui.offered_checkpoints import check_checkpoint

DEFAULT_FORMATS: tuple[Format, ...] = ("npy", "png16", "color")


class DepthResult(TypedDict, total=False):
    """Files by format name, as asked, and the manifest; while a job runs only ``progress``."""

    npy: FileData
    png16: FileData
    color: FileData
    uncertainty: FileData
    uncertainty_npy: FileData
    normals: FileData
    normals_npy: FileData
    glb: FileData
    ply: FileData
    stl: FileData
    exr: FileData
    manifest: dict
    progress: str


def read_settings(
    num_inference_steps: int | None,
    ensemble_size: int,
    processing_resolution: int | None,
    seed: int,
    batch_size: int | None,
) -> Settings:
    """Arguments of an endpoint -> settings. Raises: SettingsError."""
    return Settings(
        num_inference_steps=num_inference_steps,
        ensemble_size=ensemble_size,
        processing_resolution=processing_resolution,
        seed=seed,
        batch_size=batch_size,
    )


def run(
    service: Service, photo: str | Photo, settings: Settings, checkpoint: str | None
) -> Generator[dict[str, Any], None, Prediction]:
    """Run a job, yielding its progress -> its prediction; closing this stops the job."""
    progress = ProgressEvents(service.run(photo, settings, check_checkpoint(checkpoint or default_checkpoint())))
    for event in progress:
        yield {"progress": event.stage}
    return progress.result


def files_of(
    service: Service, prediction: Prediction, formats: Sequence[Format], mesh: MeshSettings, colormap: Colormap
) -> dict[str, Any]:
    """Keep a prediction and write its files -> the answer that names them."""
    files = service.export(service.keep(prediction), formats, mesh, colormap)
    answer: dict[str, Any] = {"manifest": json.loads(files["manifest"].read_text())}
    for name, path in files.items():
        if name != "manifest":
            answer[name] = FileData(path=str(path), orig_name=path.name).model_dump()
    return answer
