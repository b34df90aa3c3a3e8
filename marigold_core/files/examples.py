"""Example photos with results made beforehand, so that a first click shows depth, uncertainty and a mesh at once.

``python -m marigold_core.files.examples`` makes the results again with the bundled checkpoint. They are stored small
and without loss of meaning: depth as 16-bit PNG, uncertainty as 8-bit PNG, and one manifest for all.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from marigold_core.images.differences import resize_map, shrink
from marigold_core.images.photo import load_photo
from marigold_core.prediction import Prediction
from marigold_core.settings import ResolvedSettings, Settings
from marigold_core.storage import ASSETS, write_json

FOLDER = ASSETS / "examples"
RESULTS = FOLDER / "results"
MANIFEST = RESULTS / "manifest.json"
NAMES = ("street", "stream", "temple", "lounge", "mountains", "coffee", "cat", "astronaut")  # in the page's order
STORED_PX = 512  # longest edge of a stored map; the bundled checkpoint sees no more
SETTINGS = Settings(num_inference_steps=4, ensemble_size=4, seed=0)


def photos() -> list[Path]:
    """List the example photos in the order of the page."""
    return [FOLDER / f"{name}.jpg" for name in NAMES]


def load_result(photo: Path) -> Prediction:
    """Read the stored result of an example photo -> a ``Prediction`` at the photo's size, without members."""
    record = json.loads(MANIFEST.read_text())
    decoded = load_photo(photo)
    height, width = decoded.pixels.shape[:2]
    depth, doubt = (resize_map(stored, (height, width), Resampling.BICUBIC) for stored in stored_maps(photo))
    return Prediction(
        modality="depth",
        kind=record["kind"],
        space=record["space"],
        values=depth.clip(0, 1),
        uncertainty=doubt.clip(0),
        uncertainty_measure=record["uncertainty_measure"],
        members=None,
        photo=decoded.pixels,
        fov_x_deg=decoded.fov_x_deg,
        settings=ResolvedSettings(**record["settings"]),
        checkpoint=record["checkpoint"],
        checkpoint_sha256=record["checkpoint_sha256"],
    )


def stored_maps(photo: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the stored maps of an example photo -> depth [h, w] in [0, 1] and uncertainty [h, w], float32."""
    entry = json.loads(MANIFEST.read_text())["examples"][photo.stem]
    depth = _read(RESULTS / f"{photo.stem}_depth.png", 65535)
    return depth, _read(RESULTS / f"{photo.stem}_uncertainty.png", 255) * np.float32(entry["uncertainty_max"])


def to_stored_size(values: np.ndarray) -> np.ndarray:
    """[H, W] float32 -> the same map at the size in which results are stored."""
    return shrink(values, STORED_PX, Resampling.BILINEAR)


def write_results(checkpoint: str) -> None:
    """Predict every example photo anew and store the results."""
    from marigold_core import load

    pipe = load(checkpoint, dtype="float32")  # what is stored must not depend on the machine
    RESULTS.mkdir(exist_ok=True)
    record: dict[str, Any] = {
        "checkpoint": pipe.checkpoint.name,
        "checkpoint_sha256": pipe.checkpoint.sha256,
        "kind": pipe.checkpoint.kind,
        "space": pipe.checkpoint.space,
        "settings": pipe.resolve(SETTINGS).model_dump(),
        "examples": {},
    }
    for photo in photos():
        prediction = pipe(photo, SETTINGS)
        assert prediction.uncertainty is not None  # SETTINGS have more than two members
        record["uncertainty_measure"] = prediction.uncertainty_measure
        depth, doubt = (to_stored_size(values) for values in (prediction.values, prediction.uncertainty))
        top = float(doubt.max())
        _write(RESULTS / f"{photo.stem}_depth.png", np.rint(depth.clip(0, 1) * 65535).astype(np.uint16))
        _write(RESULTS / f"{photo.stem}_uncertainty.png", np.rint(doubt / (top or 1) * 255).astype(np.uint8))
        record["examples"][photo.stem] = {"uncertainty_max": top}
    write_json(MANIFEST, record)


def _read(path: Path, full_scale: int) -> np.ndarray:
    return np.asarray(Image.open(path, formats=["PNG"])).astype(np.float32) / np.float32(full_scale)


def _write(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path, optimize=True)


if __name__ == "__main__":
    write_results("nano")
