"""Results on the disk as they are in memory, to be read back by another process: one .npz of the arrays and a text.

They are predictions, comparisons and batches. Nothing is pickled, and the only types that come back are those of a
list.
"""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import BadZipFile

import numpy as np

from marigold_core.calibration.anchors import Anchor, Length, Residual
from marigold_core.calibration.calibrate import Calibrated, Completed, Hints
from marigold_core.calibration.plane_fit import Patch
from marigold_core.comparison.sweep import Comparison, Sweep, Tile
from marigold_core.errors import ExportError
from marigold_core.images.intrinsics import ClassColour, Layer
from marigold_core.images.photo import Photo
from marigold_core.prediction import Prediction
from marigold_core.serving.batch import Batch, BatchPhoto
from marigold_core.settings import DepthReading, Frozen, ResolvedSettings, Settings
from marigold_core.storage import replacing

_OF_PREDICTIONS = (Prediction, Completed, Calibrated, Hints, Anchor, Length, Patch, Residual, Layer, ClassColour)
_LISTED = (
    *_OF_PREDICTIONS,
    ResolvedSettings,
    DepthReading,
    Sweep,
    Comparison,
    Tile,
    Photo,
    Batch,
    BatchPhoto,
    Settings,
)
_TYPES: dict[str, Callable[..., Any]] = {one.__name__: one for one in _LISTED}
_TEXT = "text"  # the name of the array that holds everything else
Item = TypeVar("Item")


def write(item: Prediction | Sweep | Batch, path: Path) -> None:
    """Write a result into a file, whole or not at all. Raises: ExportError."""
    arrays = list[np.ndarray]()
    text = json.dumps(_described(item, arrays)).encode()
    named: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
    named[_TEXT] = np.frombuffer(text, np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **named)


def read(path: Path, kind: type[Item]) -> Item:
    """Read what ``write`` wrote of a kind. Raises: ExportError when the file is missing, damaged or of another kind."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            made = _made(json.loads(stored[_TEXT].tobytes()), {name: stored[name] for name in stored.files})
        if not isinstance(made, kind):
            raise TypeError(f"no {kind.__name__}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ExportError("The kept result is missing or damaged; run the photo again.") from error
    return made


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
    """Turn a value into one that JSON has; arrays, each once, are put into the list and named by their place in it."""
    if isinstance(value, np.ndarray):
        number = next((number for number, known in enumerate(arrays) if known is value), len(arrays))
        arrays += [value] if number == len(arrays) else []
        return {"array": number}
    if isinstance(value, np.generic):
        return cast(Any, value).item()
    if isinstance(value, tuple):
        return [_described(one, arrays) for one in cast(tuple[Any, ...], value)]
    if isinstance(value, list):
        return {"list": [_described(one, arrays) for one in cast(list[Any], value)]}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Frozen):
        names = [*type(value).model_fields]
    elif is_dataclass(value):
        names = [one.name for one in fields(value) if one.init]
    else:
        return value
    return {"type": type(value).__name__, **{name: _described(getattr(value, name), arrays) for name in names}}


def _made(told: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn what ``_described`` gave into the value again."""
    if isinstance(told, list):
        return tuple(_made(one, arrays) for one in cast(list[Any], told))
    if not isinstance(told, dict):
        return told
    values = cast(dict[str, Any], told)
    if "array" in values:
        return arrays[str(values["array"])]
    if "list" in values:
        return [*_made(values["list"], arrays)]
    if "path" in values:
        return Path(values["path"])
    return _TYPES[values["type"]](**{name: _made(one, arrays) for name, one in values.items() if name != "type"})
