"""The latent cache: folders of encoded pictures, and the record of what they were made with.

A folder holds the latents of one data set. ``latents.json`` records what they are a function of, and shards hold

    shard_00000256_v0/image.npy   [N, 4, h, w] float16  scaled latents of N pictures, number 256 being the first
    shard_00000256_v0/target.npy  [N, 4, h, w] float16  scaled latents of their depth maps, or of another target
    shard_00000256_v0/valid.npy   [N, 1, h, w] bool     cells whose target is known
    shard_00000256_v0/grey.npy    [N, 1, h, w] float16  mean grey of the depth map in each cell, -1 to 1; of depth alone
    shard_00000256_v0/names.json  N names
    shard_00000256_v0/features_0.npy ...   [N, C, h', w'] float16  of the image prior's trunk, where there is one

A shard is complete or absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.storage import atomic_folder, write_json

if TYPE_CHECKING:  # the doctor starts without torch
    from torch import nn

    from marigold_core.pipeline.modalities import Modality
    from marigold_core.pipeline.pipeline import MarigoldPipeline

INDEX, NAMES = "latents.json", "names.json"
TARGET_FIELDS = ("range_m", "focal_px")  # of a modality that has them
OLD_DEFAULTS: dict[str, Any] = {"depth_curve": "linear", "target": {"name": "depth"}}  # of older folders


def target_record(modality: "Modality") -> dict[str, Any]:
    """Describe what targets are, as ``latents.json`` records it: all that their pictures depend on but the curve."""
    from training.data.targets import name_of

    more = {name: getattr(modality, name, None) for name in TARGET_FIELDS}
    found = {"name": name_of(modality), **{name: value for name, value in more.items() if value is not None}}
    return json.loads(json.dumps(found))


def read_index(folder: Path) -> dict[str, Any]:
    """Read what the latents of a folder were made with, and the number of pictures.

    Raises: MarigoldError when it holds none.
    """
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MarigoldError(
            f"{folder.name} holds no latents: {INDEX} cannot be read; make some with: python -m training.latents"
        ) from None


def check_record(folder: Path, made_with: Mapping[str, object], pictures: int) -> None:
    """Record what the latents of a folder are made with, or compare it with an earlier record.

    Raises: MarigoldError naming what differs; pictures may have been added, but not taken away.
    """
    if (folder / INDEX).exists() and any(folder.glob("shard_*")):
        begun = OLD_DEFAULTS | read_index(folder)
        if changed := _changed(begun, OLD_DEFAULTS | dict(made_with)):
            raise MarigoldError(
                f"The latents in {folder.name} were made with another {', '.join(changed)}; "
                "use the same, or another --out."
            )
        if pictures < begun["pictures"]:
            raise MarigoldError(
                f"The latents in {folder.name} were made of {begun['pictures']} pictures and there are {pictures} now; "
                "use another --out."
            )
    write_json(folder / INDEX, {**made_with, "pictures": pictures})


def _changed(begun: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Name what differs, within parts that are mappings themselves the names in them."""
    found = []
    for name, value in now.items():
        before = begun.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found += _changed(before, value)
        elif before != value:
            found.append(name.replace("_sha256", ""))
    return found


def holds(path: Path, names: Sequence[str]) -> bool:
    """Return whether a shard exists with the pictures of these names; one with only the first of them is not.

    Raises: MarigoldError when it holds others.
    """
    if not path.exists():
        return False
    stored = json.loads((path / NAMES).read_text(encoding="utf-8"))
    if stored != names[: len(stored)]:
        raise MarigoldError(
            f"{path.name} in {path.parent.name} holds other pictures than the data now; use another --out."
        )
    return len(stored) == len(names)


def write_latents(path: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Write one shard aside and rename it, so that it is whole or absent; one that was shorter is replaced.

    Raises: ExportError when the disk is full or the folder read-only.
    """
    with atomic_folder(path, replace=True) as aside:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        write_json(aside / NAMES, list(names))


def autoencoder_sha256(pipeline: "MarigoldPipeline") -> str:
    """Hash what latents depend on, the autoencoder's weights and its scaling factor; training.train compares it."""
    return _sha256(pipeline.vae, pipeline.vae.config["scaling_factor"])


def prior_sha256(pipeline: "MarigoldPipeline") -> str | None:
    """Hash the trunk of the image prior, which features are made by; None without one."""
    return None if pipeline.prior is None else _sha256(pipeline.prior, pipeline.prior.config["enlarge"])


def _sha256(network: "nn.Module", setting: object) -> str:
    found = hashlib.sha256(repr(setting).encode())
    for name, weight in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(weight.float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
