"""The manifest of every result: what it was made from, with what, and what its numbers mean.

It holds no time, no path and nothing of the photo's metadata, so the same run writes the same bytes.
"""

import hashlib
import platform
import sys
from importlib import metadata
from typing import Any, Literal

from pydantic import BaseModel, model_validator

from marigold_core import __version__
from marigold_core.calibration.calibrate import Calibrated, Hints
from marigold_core.images.colormaps import value_range
from marigold_core.prediction import Kind, Prediction, Space
from marigold_core.settings import ColourSettings, FieldOfView, Frozen, MeshSettings, Settings

SCHEMA_VERSION = 4  # 2 added ``how``, device, dtype, machine, 3 ``hints``, 4 ``colours``; older ones are read as before

_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow", "trimesh")
_MEANING = {
    "affine": "0 = near plane, 1 = far plane, z along the optical axis, up to an unknown scale and shift",
    "scale": "z along the optical axis from the camera, up to an unknown scale",
    "metric": "z along the optical axis from the camera, in metres",
    "unit-vector": "unit vectors, X right, Y up, Z toward the viewer",
}
_AXES = (
    "mesh.glb: y up, camera looks along -z; points.ply: y down, camera looks along +z; relief.stl: z up, millimetres"
)


class _Record(BaseModel):
    model_config = Frozen.model_config  # without Frozen's constructor, through which JSON could not be read back


class Range(_Record):
    """An inclusive range of values."""

    low: float
    high: float


class PhotoRecord(_Record):
    """The photo as decoded: upright, 8 bits; the hash is of its [H, W, 3] bytes, not of the file."""

    width: int
    height: int
    sha256: str


class Manifest(_Record):
    """The record of one run. ``Manifest.model_validate_json(text)`` reads it back."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    checkpoint: str
    checkpoint_sha256: str
    modality: str
    kind: Kind
    space: Space
    convention: str
    how: str | None = None  # the hints that ``kind`` rests on; None: it is what the checkpoint itself claims
    hints: Hints | None = None  # the same to be read again: a replay solves them anew
    axes: str = _AXES
    value_range: Range  # least and greatest value of the map
    png16_range: Range | None  # the depths of pixels 0 and 65535 in depth_16bit.png
    colours: ColourSettings  # of depth_color.png; up to schema 3 its ``colormap`` alone
    settings: Settings
    mesh: MeshSettings
    fov_x_deg: FieldOfView | None  # from EXIF, or as given for a calibration
    photo: PhotoRecord
    files: dict[str, str]  # name -> SHA-256 of its bytes
    versions: dict[str, str]
    torch_threads: int | None  # None where torch is not loaded
    device: str | None = None  # "cpu", "cuda" or "mps"
    dtype: str | None = None  # of the weights
    machine: str | None = None  # system and processor, which decide the last bits

    @model_validator(mode="before")
    @classmethod
    def _colours_of_older_schemas(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "colormap" not in values:
            return values
        kept = {name: value for name, value in values.items() if name != "colormap"}
        return {**kept, "colours": {"colormap": values["colormap"]}}


def describe(prediction: Prediction, mesh: MeshSettings, colours: ColourSettings, files: dict[str, str]) -> Manifest:
    """Prediction, what its files were made with, and their hashes by name -> ``Manifest``."""
    low, high = value_range(prediction)
    height, width = prediction.photo.shape[:2]
    torch = sys.modules.get("torch")  # its thread count decides the last bits of a result
    return Manifest(
        checkpoint=prediction.checkpoint,
        checkpoint_sha256=prediction.checkpoint_sha256,
        modality=prediction.modality,
        kind=prediction.kind,
        space=prediction.space,
        convention=_MEANING[prediction.kind],
        how=_how(prediction),
        hints=prediction.hints if isinstance(prediction, Calibrated) else None,
        value_range=Range(low=float(prediction.values.min()), high=float(prediction.values.max())),
        png16_range=Range(low=low, high=high) if prediction.modality == "depth" else None,
        colours=colours,
        settings=prediction.settings,
        mesh=mesh,
        fov_x_deg=prediction.fov_x_deg,
        photo=PhotoRecord(width=width, height=height, sha256=sha256(prediction.photo.tobytes())),
        files=files,
        versions=versions(),
        torch_threads=torch.get_num_threads() if torch else None,
        device=prediction.device,
        dtype=prediction.dtype,
        machine=machine(prediction.device),
    )


def claim(prediction: Prediction) -> str:
    """Describe what the numbers of a prediction mean and what that rests on, in one line for a file's comment."""
    how = _how(prediction)
    return f"{prediction.kind}: {_MEANING[prediction.kind]}" + (f"; {how}" if how else "")


def _how(prediction: Prediction) -> str | None:
    return prediction.how if isinstance(prediction, Calibrated) else None


def versions() -> dict[str, str]:
    """List the versions of Python, of this package and of the libraries that decide its numbers; imports none."""
    found = {"python": platform.python_version(), "marigold_core": __version__}
    return found | {name: metadata.version(name) for name in _LIBRARIES}


def machine(device: str | None) -> str:
    """Describe what decides the last bits of a result: system, processor, its vector instructions, GPU."""
    parts = [f"{platform.system()} {platform.machine()}"]
    if torch := sys.modules.get("torch"):
        parts.append(torch.backends.cpu.get_cpu_capability())
        if device == "cuda":
            parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def sha256(content: bytes) -> str:
    """Hash bytes -> SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
