"""Which checkpoint: short name, folder or hub id -> a verified local folder and what it can do.

Everything is checked before a weight is loaded: the kind of pipeline, every component's class and shape, whole and
unchanged safetensors. No code from a checkpoint is ever run. Importing this module costs no torch.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from marigold_core.checkpoints import hub
from marigold_core.checkpoints.families import E2E_FT, LOTUS_D, LOTUS_G, MARIGOLD, Family
from marigold_core.checkpoints.layout import (
    INDEX,
    Capabilities,
    Modality,
    check_tiny_autoencoder,
    check_unet,
    describe,
    fingerprint,
)
from marigold_core.checkpoints.weights import OPTIONAL, choose, damaged, read_checksums, read_shapes, verify
from marigold_core.errors import CheckpointError, SettingsError
from marigold_core.images.intrinsics import Layer
from marigold_core.prediction import Kind, gives_uncertainty
from marigold_core.settings import Space
from marigold_core.storage import ASSETS, real_path

BUNDLED = ASSETS / "marigold-nano"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PUBLIC_BYTES = 2_600_000_000  # U-Net, autoencoder and text encoder of Stable Diffusion 2 in half precision
PART_FILES = ("config.json", "diffusion_pytorch_model.safetensors")  # of a repository with one network
TAESD = "madebyollin/taesd"  # the tiny autoencoder of Stable Diffusion 1 and 2, and so of the public checkpoints
FULL_BYTES = 2 * PUBLIC_BYTES  # the same of authors who publish full precision


@dataclass(frozen=True)
class Checkpoint(Capabilities):
    """A folder that was verified, and what it can do."""

    name: str  # short name, hub id or the folder's name
    folder: Path
    variant: Literal["fp16"] | None  # the set of weights that was verified; None is full precision
    sha256: str  # over weights and configurations
    size_bytes: int


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that has a short name."""

    name: str
    hub_id: str | None  # None: bundled
    modality: Modality
    description: str
    family: Family = MARIGOLD
    available: bool = False  # already on this machine

    @property
    def size_bytes(self) -> int:
        """Bytes to download; 0 when bundled."""
        if self.hub_id is None:
            return 0
        return PUBLIC_BYTES if self.family is MARIGOLD else FULL_BYTES


_NAMED = (
    NamedCheckpoint("nano", None, "depth", "small and bundled: works at once, offline, on a CPU"),
    NamedCheckpoint("v1-1", "prs-eth/marigold-depth-v1-1", "depth", "the published depth model, 1 to 4 steps"),
    NamedCheckpoint("lcm", "prs-eth/marigold-depth-lcm-v1-0", "depth", "distilled for 1 to 4 steps, 2024"),
    NamedCheckpoint("v1-0", "prs-eth/marigold-depth-v1-0", "depth", "the first published model, 10 steps"),
    NamedCheckpoint("normals", "prs-eth/marigold-normals-v1-1", "normals", "published surface normals, 4 steps"),
    NamedCheckpoint(
        "iid-appearance",
        "prs-eth/marigold-iid-appearance-v1-1",
        "intrinsics",
        "albedo, roughness and metallicity, 4 steps",
    ),
    NamedCheckpoint(
        "iid-lighting", "prs-eth/marigold-iid-lighting-v1-1", "intrinsics", "albedo, shading and residual, 4 steps"
    ),
    NamedCheckpoint("e2e-ft", "GonzaloMG/marigold-e2e-ft-depth", "depth", "v1-0, fine-tuned end to end", E2E_FT),
    NamedCheckpoint(
        "e2e-ft-sd",
        "GonzaloMG/stable-diffusion-e2e-ft-depth",
        "depth",
        "Stable Diffusion 2, fine-tuned end to end",
        E2E_FT,
    ),
    NamedCheckpoint(
        "e2e-ft-normals",
        "GonzaloMG/marigold-e2e-ft-normals",
        "normals",
        "surface normals, fine-tuned end to end",
        E2E_FT,
    ),
    NamedCheckpoint(
        "e2e-ft-sd-normals",
        "GonzaloMG/stable-diffusion-e2e-ft-normals",
        "normals",
        "the same from Stable Diffusion 2",
        E2E_FT,
    ),
    NamedCheckpoint("lotus-g", "jingheya/lotus-depth-g-v1-0", "depth", "generative: members differ", LOTUS_G),
    NamedCheckpoint("lotus-d", "jingheya/lotus-depth-d-v1-0", "depth", "discriminative", LOTUS_D),
    NamedCheckpoint(
        "lotus-g-disparity",
        "jingheya/lotus-depth-g-v2-1-disparity",
        "depth",
        "generative, predicts 1 / depth",
        LOTUS_G,
    ),
    NamedCheckpoint(
        "lotus-d-disparity",
        "jingheya/lotus-depth-d-v2-0-disparity",
        "depth",
        "discriminative, predicts 1 / depth",
        LOTUS_D,
    ),
    NamedCheckpoint(
        "lotus-g-normals", "jingheya/lotus-normal-g-v1-1", "normals", "surface normals, generative", LOTUS_G
    ),
    NamedCheckpoint(
        "lotus-d-normals", "jingheya/lotus-normal-d-v1-1", "normals", "surface normals, discriminative", LOTUS_D
    ),
)
NAMED = {entry.name: entry for entry in _NAMED}


def default_checkpoint() -> str:
    """Name the checkpoint to use when none is asked for: ``$MARIGOLD_MODEL``, else the bundled one."""
    return os.environ.get("MARIGOLD_MODEL") or "nano"


def named_checkpoints() -> list[NamedCheckpoint]:
    """List the checkpoints with a short name for pickers, each with ``available``; asks the disk, never the network."""
    return [
        replace(entry, available=hub.is_complete(entry.hub_id) if entry.hub_id else (BUNDLED / INDEX).exists())
        for entry in NAMED.values()
    ]


def hub_id_of(checkpoint: str) -> str | None:
    """Return the hub id that a checkpoint is fetched from; None for one on this machine, and for what is no id."""
    if entry := NAMED.get(checkpoint):
        return entry.hub_id
    is_id = HUB_ID.fullmatch(checkpoint) and not os.path.exists(os.path.expanduser(checkpoint))
    return checkpoint if is_id else None


def is_here(checkpoint: str) -> bool:
    """Return whether a checkpoint can be loaded without a download."""
    hub_id = hub_id_of(checkpoint)
    return hub_id is None or hub.is_complete(hub_id)


def downloading(checkpoint: str) -> tuple[int, int] | None:
    """Count the bytes of a checkpoint that are here, and all of them; None where nothing is to be downloaded."""
    hub_id = hub_id_of(checkpoint)
    counted = hub.fetched_bytes(hub_id) if hub_id else None
    return None if counted is None or counted[0] == counted[1] else counted


def family_of(checkpoint: str) -> Family:
    """Tell the family of a checkpoint without fetching it; what is not known before that counts as Marigold's."""
    found = NAMED.get(checkpoint) or _described(checkpoint)
    return found.family if found else MARIGOLD


def _described(checkpoint: str) -> Capabilities | None:
    """Read the small files of a folder; None where it is none, or no checkpoint, as whoever loads it is told."""
    folder = Path(checkpoint).expanduser()
    try:
        return describe(folder.resolve()) if folder.is_dir() else None
    except CheckpointError:
        return None


class Claim(NamedTuple):
    """What the results of a checkpoint are."""

    name: str
    modality: Modality
    kind: Kind
    space: Space
    layers: tuple[Layer, ...] = ()
    expected_error: bool = False  # as in ``layout.Capabilities``

    def has_uncertainty(self, members: int, *, guided: bool = False) -> bool:
        """As ``layout.Capabilities``."""
        return gives_uncertainty(members, self.expected_error and not guided)


def claim_of(checkpoint: str) -> Claim | None:
    """Tell what a checkpoint claims without fetching it; None where that is not known, or ``find`` will refuse it."""
    entry = NAMED.get(checkpoint)
    if entry is not None:
        if entry.modality == "intrinsics":  # whose layers stand in their files
            return None
        kind = "affine" if entry.modality == "depth" else "unit-vector"
        return Claim(checkpoint, entry.modality, kind, "disparity" if checkpoint.endswith("-disparity") else "depth")
    if (found := _described(checkpoint)) is None:
        return None
    made = found.modality, found.kind, found.space, found.layers, found.expected_error
    return Claim(Path(checkpoint).expanduser().resolve().name, *made)


def find(checkpoint: str | Path, refetch: bool = False) -> Checkpoint:
    """Locate, fetch if needed, and verify a checkpoint: short name, local folder or hub id "owner/name" -> its record.

    Cost: the sha256 of all weights once, a few seconds for the published models. The process remembers it, and for
    large files ``digests.json`` in the user's cache does, as long as size, inode and times of the file stay.
    ``refetch`` asks the hub for the newest revision and replaces damaged files.

    Raises: CheckpointError when it is missing, unreachable, damaged, unsafe or of a kind this library does not run.
    """
    name = str(checkpoint)
    entry = NAMED.get(name)
    if entry is not None and entry.hub_id is None:
        if not BUNDLED.is_dir():
            raise CheckpointError(
                "The bundled checkpoint is missing: run from a full checkout, or name another checkpoint."
            )
        return _verified(BUNDLED, name, read_checksums(BUNDLED))
    path = os.path.expanduser(name)
    if entry is None and os.path.isdir(path):
        folder = Path(path).resolve()
        _check_links(folder)
        return _verified(folder, folder.name, read_checksums(folder))
    hub_id = hub_id_of(name)
    if hub_id is None:
        raise CheckpointError(
            f"There is no checkpoint {name!r}: give one of {', '.join(NAMED)}, a folder in diffusers' layout, "
            'or a hub id such as "prs-eth/marigold-depth-v1-1".'
        )
    fetched = hub.fetch(hub_id, describe, refetch=refetch)
    return _verified(Path(fetched.folder), name, fetched.sha256)


def find_here(checkpoint: str) -> Checkpoint | None:
    """Verify a checkpoint as ``find`` does, unless it is to be downloaded -> its record. Raises: CheckpointError."""
    return find(checkpoint) if is_here(checkpoint) else None


@dataclass(frozen=True)
class TinyAutoencoder:
    """A verified ``AutoencoderTiny`` that decodes the latents of another checkpoint's autoencoder."""

    name: str  # hub id or the folder's name
    folder: Path
    sha256: str

    @property
    def label(self) -> str:
        """Name and hash, as manifests record it."""
        return f"{self.name} {self.sha256}"


def check_decoder(decoder: str, checkpoint: str, *, has_tiny: bool) -> None:
    """Refuse a decoder that needs a tiny autoencoder where a checkpoint has none. Raises: SettingsError."""
    if decoder != "own" and not has_tiny:
        raise SettingsError(
            f"decoder {decoder} needs a tiny autoencoder that fits {checkpoint}: name its folder"
            f" or hub id, for the public checkpoints {TAESD}, by MARIGOLD_TINY_AUTOENCODER or tiny_autoencoder."
        )


def find_tiny_autoencoder(name: str, refetch: bool = False) -> TinyAutoencoder:
    """Locate, fetch if needed, and verify a tiny autoencoder: local folder or hub id "owner/name" -> its record.

    Raises: CheckpointError when it is missing, unreachable, damaged or none.
    """
    path, published = Path(name).expanduser(), dict[str, str]()
    if path.is_dir():
        folder = path.resolve()
    elif HUB_ID.fullmatch(name):
        fetched = hub.fetch(name, check_tiny_autoencoder, refetch=refetch, part=PART_FILES)
        folder, published = Path(fetched.folder), fetched.sha256
    else:
        raise CheckpointError(f"There is no tiny autoencoder {name!r}; give a folder or a hub id, such as {TAESD}.")
    check_tiny_autoencoder(folder)
    weights = PART_FILES[1]
    read_shapes(folder / weights, weights)
    digest = verify(folder / weights, weights, published.get(weights))
    return TinyAutoencoder(name if published else folder.name, folder, digest)


def _verified(folder: Path, name: str, published: dict[str, str]) -> Checkpoint:
    """Check a local folder against the sha256 published for its files -> its record."""
    capabilities = describe(folder)
    names = {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()}
    variant, files = choose(names, (None, "fp16"))
    for file in sorted({*published} - names):
        if file.partition("/")[0] in OPTIONAL:  # without which it would run, but otherwise
            raise damaged(file, "the file is missing")
    shapes = {file: read_shapes(folder / file, file) for file in files}
    unet = {name: shape for file in files if file.startswith("unet/") for name, shape in shapes[file].items()}
    _check_tensors(unet, capabilities)
    digests = [f"{verify(folder / file, file, published.get(file))} {file}" for file in files]
    return Checkpoint(
        **vars(capabilities),
        name=name,
        folder=folder,
        variant="fp16" if variant else None,
        sha256=hashlib.sha256("\n".join([fingerprint(folder), *digests]).encode()).hexdigest(),
        size_bytes=sum((folder / file).stat().st_size for file in files),
    )


def _check_links(folder: Path) -> None:
    """Refuse a folder with a link that leads out of it; in the hub's cache files are links to ``blobs`` beside it."""
    home = folder.parents[1] if folder.parent.name == "snapshots" else folder
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if not real_path(path).is_relative_to(home):
            raise CheckpointError(
                f"In the folder {folder.name!r} {path.relative_to(folder).as_posix()} is a link that leads out of it; "
                "put the files themselves there."
            )


def _check_tensors(unet: dict[str, list[int]], claimed: Capabilities) -> None:
    """Compare the U-Net's first and last layer and its projections of a prior with what its configuration claims."""
    first, last = unet.get("conv_in.weight", []), unet.get("conv_out.weight", [])
    whole = len(first) == len(last) == 4
    found = {"in_channels": first[1] if whole else None, "out_channels": last[0] if whole else None}
    check_unet(found, claimed.family, claimed.pictures)
    if claimed.prior and not any(name.startswith("prior_proj.") for name in unet):
        raise CheckpointError("The U-Net has no weights for the image prior of its checkpoint; fetch or copy it again.")
