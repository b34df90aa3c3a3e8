"""Weight files: which ones a folder offers, whether they are whole, and their sha256.

safetensors alone refuses a broken header or a short file but not a flipped bit, so every file whose sha256 is known
beforehand is compared with it. Pickles are never opened.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from marigold_core.errors import CheckpointError, ExportError
from marigold_core.storage import cache_folder, write_json

CHECKSUMS = "checksums.json"  # in a folder of ours: {"unet/diffusion_pytorch_model.safetensors": sha256, ...}
OPTIONAL = ("prior", "draft", "displacement", "expected_error")  # components of ours that a checkpoint may do without
STEMS = {**dict.fromkeys(("unet", "vae", *OPTIONAL), "diffusion_pytorch_model"), "text_encoder": "model"}
FLOATS = ("F16", "BF16", "F32", "F64")  # types of weights, as safetensors names them
INTEGERS = ("position_ids",)  # of CLIP, in files of earlier versions
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack")
REMEMBERED_BYTES = 64 * 2**20  # the digests of larger files are kept on disk between starts

Stamp = tuple[int, int, int, int]  # size, inode, modified, changed: a file with the same stamp has the same bytes
Digests = dict[str, tuple[Stamp, str]]  # by path
_digests: Digests = {}
_CHECKSUMS, _DIGESTS = TypeAdapter(dict[str, str]), TypeAdapter(Digests)


def choose(names: Collection[str], preference: tuple[str | None, ...]) -> tuple[str | None, list[str]]:
    """Pick one set of weights among file names relative to the folder -> (variant, files of all components).

    ``preference`` lists the variants, None for full precision, "fp16" for half; the first complete one is taken.

    Raises: CheckpointError when no variant is complete, with a hint where only pickles are offered.
    """
    offered = {name.partition("/")[0] for name in names}
    components = [component for component in STEMS if component not in OPTIONAL or component in offered]
    for variant in preference:
        found = [component_files(names, component, variant) for component in components]
        if all(found):
            return variant, [name for files in found for name in files]
    for component in components:
        if not any(component_files(names, component, variant) for variant in preference):
            own = [name for name in names if name.startswith(f"{component}/")]
            if any(name.endswith(PICKLES) for name in own):
                raise CheckpointError(
                    f"The weights in {component} are a pickle file, which could run any code when it is opened; "
                    "only safetensors are loaded: convert it with diffusers' save_pretrained(safe_serialization=True)."
                )
            raise CheckpointError(f"The folder {component} has no complete set of safetensors weights; fetch it again.")
    raise CheckpointError("Some components have only half precision weights and others only full ones; save it again.")


def component_files(names: Collection[str], component: str, variant: str | None) -> list[str]:
    """List one component's files, one or a whole set of shards with its index; empty when something is missing."""
    stem = STEMS[component]
    dot = f".{variant}" if variant else ""
    single = f"{component}/{stem}{dot}.safetensors"
    if single in names:
        return [single]
    shard = re.compile(re.escape(f"{component}/{stem}{dot}-") + r"(\d{5})-of-(\d{5})\.safetensors")
    shards = sorted(name for name in names if shard.fullmatch(name))
    index = f"{component}/{stem}.safetensors.index{dot}.json"
    expected = int(shards[0][-17:-12]) if shards else 0
    return shards if shards and index in names and len(shards) == expected else []


def read_shapes(path: Path, label: str) -> dict[str, list[int]]:
    """Read the header of a safetensors file -> the shape of every tensor; the file must be exactly as long as it says.

    Raises: CheckpointError for an empty, cut or garbled file, and for weights that are no floating-point numbers, which
    libraries would convert silently; ``label`` names the file.
    """
    try:
        with cast(Any, safe_open)(path, framework="numpy") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            types = {name: str(tensor.get_dtype()) for name, tensor in found.items()}
            shapes = {name: list(tensor.get_shape()) for name, tensor in found.items()}
    except (SafetensorError, OSError, ValueError):
        raise damaged(label, "it is empty, cut off or its header is garbled") from None
    for name, stored in types.items():
        if stored not in FLOATS and not name.endswith(INTEGERS):
            raise damaged(label, f"{name} is stored as {stored} and must be one of {', '.join(FLOATS)}")
    return shapes


def verify(path: Path, label: str, expected: str | None) -> str:
    """Compare a file with the sha256 it should have, where that is known -> its sha256.

    Raises: CheckpointError when they differ.
    """
    found = digest(path)
    if expected is not None and found != expected:
        raise damaged(label, "its sha256 is not the published one")
    return found


def damaged(label: str, reason: str) -> CheckpointError:
    """Make the one sentence about weights that must not be loaded."""
    return CheckpointError(
        f"The weights {label} are damaged, {reason}: fetch them again (--refetch, or refetch=True; a local folder must "
        "be copied or trained again)."
    )


def digest(path: Path) -> str:
    """Hash a file -> sha256 in hex; it is read again only when its size, inode or times changed.

    A process remembers every file, and those of 64 MiB and more are remembered on disk for the next start.
    """
    status = path.stat()
    stamp = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    key = str(path.resolve())
    large = status.st_size >= REMEMBERED_BYTES
    known = _digests.get(key) or (_remembered().get(key) if large else None)
    if known is None or known[0] != stamp:
        with path.open("rb") as file:
            known = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
        if large:
            _remember(key, known)
    _digests[key] = known
    return known[1]


def _remembered() -> Digests:
    try:
        return _DIGESTS.validate_json((cache_folder() / "digests.json").read_bytes())
    except (OSError, ValueError):
        return {}  # absent or garbled: the files are hashed again


def _remember(key: str, known: tuple[Stamp, str]) -> None:
    entries = {path: entry for path, entry in _remembered().items() if Path(path).exists()}
    with suppress(ExportError):  # a read-only home costs hashing again at the next start, nothing else
        write_json(cache_folder() / "digests.json", entries | {key: known})


def read_checksums(folder: Path) -> dict[str, str]:
    """Read the sha256 of each weight file from the folder's own list; empty when it has none.

    Raises: CheckpointError for a list that cannot be read.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        return _CHECKSUMS.validate_json(path.read_bytes())
    except (OSError, ValueError):
        raise damaged(CHECKSUMS, "the list cannot be read") from None


def write_checksums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write ``checksums.json`` over all safetensors of a folder that was just saved; those in ``known`` are not read.

    Raises: ExportError when the folder is full or read-only.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    write_json(folder / CHECKSUMS, {name: (known or {}).get(name) or digest(folder / name) for name in names})
