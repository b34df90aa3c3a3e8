"""Public checkpoints from the hub: local first, then the network, one revision at a time.

The first fetch pins the revision it found: a small record in the user's cache holds the commit, the folder and the size
and sha256 of every file, so that later starts need no network, know what is missing, and notice a changed bit.
"""

import errno
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from marigold_core.checkpoints.weights import STEMS, choose, digest
from marigold_core.errors import CheckpointError, ExportError
from marigold_core.storage import cache_folder, write_json

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

INDEX = "model_index.json"
PARTS = "|".join((*STEMS, "scheduler", "tokenizer"))
CONFIG_FILES = re.compile(rf"model_index\.json|({PARTS})/[\w.-]+\.(json|txt)")


@dataclass(frozen=True)
class Fetched:
    """One revision of a hub checkpoint: where it lies and what each file must be."""

    revision: str  # commit, 40 hex digits
    folder: str  # text, for the record on disk
    size_bytes: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict[str, str])  # of the weight files

    def missing(self) -> list[str]:
        """List the files that are absent or of another size."""
        folder = Path(self.folder)
        sizes = ((name, folder / name, size) for name, size in self.size_bytes.items())
        return [name for name, path, size in sizes if not path.is_file() or path.stat().st_size != size]


_RECORD = TypeAdapter(Fetched)


def fetch(
    hub_id: str, check: Callable[[Path], object], refetch: bool = False, part: tuple[str, str] | None = None
) -> Fetched:
    """Bring a hub checkpoint onto this machine, half precision weights where offered -> its complete folder.

    ``check`` sees the folder with configuration files alone and may refuse it before the weights are downloaded.
    ``refetch`` asks for the newest revision and replaces files whose bytes changed. ``part`` are the configuration and
    the weights of one network, for a repository that holds no more.

    Raises: CheckpointError when the hub or the checkpoint cannot be had, in one sentence with what to do.
    """
    with _client(hub_id):
        fetched = None if refetch else _read_record(hub_id) or (None if part else _adopt(hub_id, check))
        if fetched is None:
            fetched = _pin(hub_id, check, part)
        wanted = _drop_damaged(fetched, rehash=refetch)
        _download(hub_id, fetched.revision, wanted)
        if wanted:
            _drop_halves(Path(fetched.folder))
    return fetched


def is_complete(hub_id: str) -> bool:
    """Tell whether all files of a checkpoint are here, without the network and without importing the hub's client."""
    fetched = _read_record(hub_id)
    return fetched is not None and not fetched.missing()


def fetched_bytes(hub_id: str) -> tuple[int, int] | None:
    """Count the bytes of a checkpoint that are here, and all of them; None before the hub has said how many.

    The disk alone is asked, so any thread or process can follow the download of another one.
    """
    fetched = _read_record(hub_id)
    if fetched is None:
        return None
    folder, missing, total = Path(fetched.folder), fetched.missing(), sum(fetched.size_bytes.values())
    here = total - sum(fetched.size_bytes[name] for name in missing)
    blobs = folder.parent.parent / "blobs"
    begun = dict[str, int]()  # the longest half of each file: a download that was killed may have left another
    for half in blobs.glob("*.incomplete"):
        name = half.name.partition(".")[0]
        with suppress(FileNotFoundError):  # it was finished just now
            if not (blobs / name).exists():
                begun[name] = max(begun.get(name, 0), half.stat().st_size)
    return min(here + sum(begun.values()), total), total


def listing(hub_id: str, revision: str | None = None) -> tuple[str, list[str]]:
    """Ask the hub for the commit of a revision, by default the newest, and the files that a run needs of it.

    Raises: CheckpointError as ``fetch``.
    """
    from huggingface_hub import HfApi, constants

    with _client(hub_id):
        info = HfApi().model_info(hub_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if info.sha is None or INDEX not in names:
        raise CheckpointError(f"{hub_id} on the hub is not in diffusers' layout: it has no {INDEX}.")
    return info.sha, [*(name for name in names if CONFIG_FILES.fullmatch(name)), *choose(names, ("fp16", None))[1]]


def _pin(hub_id: str, check: Callable[[Path], object], part: tuple[str, str] | None) -> Fetched:
    """Ask the hub for the newest revision, refuse what is not ours, and record what is to be fetched."""
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(hub_id, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    offered = {sibling.rfilename: sibling for sibling in info.siblings or []}
    configs = [part[0]] if part else [name for name in offered if CONFIG_FILES.fullmatch(name)]
    missing = {*(part or [INDEX])} - offered.keys()
    if info.sha is None or missing:
        raise CheckpointError(f"{hub_id} on the hub is not in diffusers' layout: it has no {' and no '.join(missing)}.")
    folder = _download(hub_id, info.sha, configs)
    check(folder)
    weights = [part[1]] if part else choose(offered, ("fp16", None))[1]
    fetched = Fetched(
        revision=info.sha,
        folder=str(folder),
        size_bytes={name: offered[name].size or 0 for name in [*configs, *weights]},
        sha256={name: lfs.sha256 for name in weights if (lfs := offered[name].lfs) is not None},
    )
    write_json(_record_path(hub_id), asdict(fetched))
    return fetched


def _adopt(hub_id: str, check: Callable[[Path], object]) -> Fetched | None:
    """Use what another program left in the hub's cache, where it lacks nothing; large files are named by sha256."""
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        revision = _only_revision(hub_id)
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=INDEX, local_files_only=True))
        check(folder)  # diffusers, for one, leaves the image prior out
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        _, weights = choose(names, (None, "fp16"))
    except (LocalEntryNotFoundError, CheckpointError):
        return None
    files = [*(name for name in names if CONFIG_FILES.fullmatch(name)), *weights]
    blobs = {name: (folder / name).resolve().name for name in weights}
    return Fetched(
        revision=folder.name,
        folder=str(folder),
        size_bytes={name: (folder / name).stat().st_size for name in files},
        sha256={name: blob for name, blob in blobs.items() if re.fullmatch(r"[0-9a-f]{64}", blob)},
    )


def _only_revision(hub_id: str) -> str | None:
    """Name the one revision in the hub's cache that no branch points to, as hosts leave it that fetch a commit."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
    snapshots = [] if (home / "refs").is_dir() else [path.name for path in home.glob("snapshots/*")]
    return snapshots[0] if len(snapshots) == 1 else None


def _download(hub_id: str, revision: str, names: list[str]) -> Path:
    """Download the named files of one commit, those already here excepted -> the folder of that commit.

    One by one: ``snapshot_download`` asks for the listing again, and takes an incomplete folder where that fails.
    """
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]

    folder = Path()
    for name in names:
        file = Path(hf_hub_download(hub_id, name, revision=revision))
        folder = file.parents[name.count("/")]
    return folder


def _drop_damaged(fetched: Fetched, rehash: bool) -> list[str]:
    """Delete files that are not what the hub published -> the names to download; ``rehash`` reads every byte.

    ``HfApi.verify_repo_checksums`` would need the network and hash small files too.
    """
    folder = Path(fetched.folder)
    wanted = fetched.missing()
    if rehash:
        whole = fetched.sha256.keys() - set(wanted)
        wanted += sorted(name for name in whole if digest(folder / name) != fetched.sha256[name])
    for name in wanted:
        (folder / name).resolve().unlink(missing_ok=True)  # the bytes, where the folder holds a link
        (folder / name).unlink(missing_ok=True)
    return wanted


def _drop_halves(folder: Path) -> None:
    """Delete what a killed download left behind beside files that are whole by now; it could be gigabytes.

    The client writes to a name of its own in each process and deletes that only where it is not killed.
    """
    blobs = folder.parent.parent / "blobs"
    for half in blobs.glob("*.incomplete"):
        if (blobs / half.name.partition(".")[0]).exists():
            half.unlink(missing_ok=True)


def _record_path(hub_id: str) -> Path:
    return cache_folder() / "hub" / f"{hub_id.replace('/', '--')}.json"


def _read_record(hub_id: str) -> Fetched | None:
    try:
        fetched = _RECORD.validate_json(_record_path(hub_id).read_bytes())
    except (OSError, ValueError):
        return None  # never fetched, or garbled: the hub is asked again
    return fetched if Path(fetched.folder).is_dir() else None


@contextmanager
def _client(hub_id: str) -> Generator[None]:
    """Set up the hub's client and turn every way in which it can fail into a ``CheckpointError``.

    Plain HTTP instead of Xet: it times out, resumes, and is the one way that the tests cut and stall. No telemetry.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    before = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_TELEMETRY = True  # both are looked up at each request
    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(_explain(error, hub_id)) from error
    except ExportError as error:
        raise CheckpointError(f"The record of {hub_id} cannot be kept in the cache: {error}") from error
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = before


def _explain(error: Exception, hub_id: str) -> str:
    """Say in one sentence what failed and what to do; the hub's client hides the reason as the cause of its error."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{hub_id} is not on this machine and HF_HUB_OFFLINE forbids to fetch it: unset it, or use nano."
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error, hub_id)
    if isinstance(error, errors.HFValidationError):
        return f"{hub_id!r} is not a valid hub id; give owner/name."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full while {hub_id} is fetched: free some gigabytes, or point HF_HOME to another disk."
    if isinstance(error, PermissionError):
        return f"{hub_id} cannot be stored, the cache is not writable: set HF_HOME and XDG_CACHE_HOME to other folders."
    if "Timeout" in type(error).__name__:
        return f"The hub did not answer in time for {hub_id}: check the connection and try again, or use nano."
    if type(error).__name__ == "ConnectError":
        return f"The hub cannot be reached for {hub_id}: check the connection and try again, or use nano."
    return f"The download of {hub_id} broke off: try again, finished files are kept."


def _explain_status(error: "HfHubHTTPError", hub_id: str) -> str:
    from huggingface_hub import constants, errors, get_token

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"{hub_id} asks you to accept its licence: do so at {constants.ENDPOINT}/{hub_id}, then hf auth login."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"The revision of {hub_id} fetched earlier is gone from the hub: fetch the newest with --refetch."
    if status in (401, 403) and get_token():
        return f"The hub refused your access token for {hub_id}: renew it with hf auth login, or unset HF_TOKEN."
    if status in (401, 403, 404):
        return f"There is no folder and no public hub checkpoint {hub_id!r}: check the spelling, or hf auth login."
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return (
            f"The hub limits requests from this address: try {hub_id} again in {f'{wait} s' if wait else '5 minutes'}."
        )
    if status >= 500:
        return f"The hub has a fault of its own (status {status}): try {hub_id} again in some minutes, or use nano."
    return f"The hub answered with status {status} for {hub_id}: try again later."
