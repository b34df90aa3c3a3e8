"""Running again what a ``manifest.json`` records, and comparing the bytes of every file.

On the machine of the record, with its versions and threads, they are the same. Elsewhere the last bits of floating
point may differ, and what is different about the run is named.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from marigold_core.calibration.calibrate import calibrate
from marigold_core.checkpoints.registry import Checkpoint, find
from marigold_core.errors import CheckpointError, ExportError, ImageError, SettingsError
from marigold_core.files import MANIFEST, examples
from marigold_core.files.formats import FILES_OF
from marigold_core.files.manifest import Manifest, sha256
from marigold_core.files.reader import GIVEN
from marigold_core.files.writers import check_prefix, formats_of, save
from marigold_core.images.photo import Photo, load_photo, read_file
from marigold_core.prediction import Prediction, Progress

_STATED = (  # of a result, beside what it is made with
    *("modality", "kind", "space", "convention", "axes", "value_range", "png16_range", "missing_share", "layers"),
    *("camera", "photo"),
)
_READABLE = get_args(Manifest.model_fields["schema_version"].annotation)


class _Version(BaseModel):
    """The one field that every schema has."""

    schema_version: int


@dataclass(frozen=True)
class Outcome:
    """Which files have the same bytes, and what is different about this run."""

    same: list[str]  # names of files
    different: list[str]  # written with other bytes
    missing: list[str]  # recorded, but not made by this version
    causes: list[str]  # such as "torch 2.11.0 -> 2.12.0"; what may have changed the bytes
    untrue: list[str]  # keys of the record that state something else of the same bytes

    @property
    def fell_short(self) -> bool:
        """Whether any file has other bytes or is missing, or the record is not true of them."""
        return bool(self.different or self.missing or self.untrue)

    def describe(self) -> str:
        """Describe the outcome in one or two sentences."""
        total = len(self.same) + len(self.different) + len(self.missing)
        if len(self.same) == total:
            but = f" But the manifest states another {', '.join(self.untrue)} than they have." if self.untrue else ""
            return f"Same bytes: {_count(total)}.{but}"
        parts = [f"{_count(len(self.same))} of {total} with the same bytes"]
        if self.different:
            parts.append(f"other bytes in {', '.join(self.different)}")
        if self.missing:
            parts.append(f"not made by this version: {', '.join(self.missing)}")
        if self.causes:
            return f"{'; '.join(parts)}. Different from the recorded run: {', '.join(self.causes)}."
        return (
            f"{'; '.join(parts)}. Nothing that the manifest records is different: the result was continued from an"
            " earlier one or is a stored example, or the machine is another."
        )


def read(path: Path) -> Manifest:
    """Read a manifest, or the one in a folder.

    Raises: SettingsError when there is none, it is damaged, of a schema that this version does not read, or of a
    calibrated result from before schema 3: its hints are text that is not read back.
    """
    path = path / MANIFEST if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"There is no manifest {path}: {error.strerror}.") from None
    return parse(content, str(path))


def parse(content: bytes, name: str) -> Manifest:
    """Read the text of a manifest; error messages call it ``name``. Raises: SettingsError as ``read``."""
    try:
        text = content.decode("utf-8-sig")  # editors add the mark
        version = _Version.model_validate_json(text).schema_version
        if version not in _READABLE:
            read = " and ".join(map(str, _READABLE))
            raise SettingsError(f"{name} has schema version {version}, but this version of marigold_core reads {read}.")
        record = Manifest.model_validate_json(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{name} is not a manifest: it is not a text.") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the text"
        raise SettingsError(f"{name} is not a manifest that can be replayed; {where}: {fault['msg']}.") from None
    if record.modality not in FILES_OF:
        raise SettingsError(f"{name} is of {record.modality!r}, but results are of {', '.join(FILES_OF)}.")
    try:
        check_prefix(record.prefix)
    except ExportError as error:
        raise SettingsError(f"{name} is not a manifest that can be replayed; prefix: {error}") from None
    if record.how is not None and record.hints is None:
        raise SettingsError(
            f"{name} is of a calibrated result of an earlier version, which cannot be replayed; calibrate again"
            f" ({record.how})."
        )
    return record


def find_photo(manifest: Path, record: Manifest, given: Path | None = None) -> Photo:
    """Load the photo of a record: the ``given`` one, else one named as the manifest's folder or the one above.

    The search covers these folders, the one above them, the working folder and the examples. The field of view is the
    recorded one, as a copy of the photo may have lost it.

    Raises: ImageError when it is not there, cannot be read, or is another photo.
    """
    if given is not None:
        photo = load_photo(given)
        if not same_photo(record, photo.pixels):
            height, width = photo.pixels.shape[:2]
            raise ImageError(
                f"{given} is another photo than the recorded one: its {width} x {height} pixels have another hash"
                f" than those {record.photo.width} x {record.photo.height}."
            )
        return recorded_photo(record, photo.pixels)
    folder = _folder(manifest)
    names = {folder.name, folder.parent.name, record.prefix.removesuffix("_")} - {""}
    for place in _places(manifest):
        for path in sorted(place.glob("*")):
            if not names & {path.stem, path.name} or not path.is_file():
                continue
            try:
                return find_photo(manifest, record, path)
            except ImageError:
                continue  # another photo of that name
    raise ImageError(f"The photo of {folder.name} was not found beside the manifest; name it with --photo.")


def find_depth(manifest: Path, record: Manifest, given: Path | None = None) -> Path:
    """Find the depth map from elsewhere of a record: the ``given`` file, else one of its name where photos are sought.

    Raises: ImageError when it is not there, or is another file.
    """
    name = record.checkpoint.removeprefix(GIVEN)
    for path in [given] if given else [place / name for place in _places(manifest)]:
        if given or path.is_file():
            if same_depth(record, path):
                return path
            if given:
                raise ImageError(f"{given} is another depth map than the recorded one: it has other bytes.")
    raise ImageError(f"The depth map {name} was not found beside the manifest; name it with --depth.")


def same_depth(record: Manifest, path: Path) -> bool:
    """Return whether a file is the recorded depth map from elsewhere. Raises: ImageError when it cannot be read."""
    return sha256(read_file(path, "depth map")) == record.checkpoint_sha256


def _folder(manifest: Path) -> Path:
    return (manifest if manifest.is_dir() else manifest.parent).resolve()


def _places(manifest: Path) -> tuple[Path, ...]:
    folder = _folder(manifest)
    return folder, *folder.parents[:2], Path.cwd(), examples.FOLDER


def same_photo(record: Manifest, pixels: np.ndarray) -> bool:
    """Return whether [H, W, 3] uint8 pixels are the recorded photo."""
    return sha256(pixels.tobytes()) == record.photo.sha256


def recorded_photo(record: Manifest, pixels: np.ndarray) -> Photo:
    """Return the photo of a record, whose pixels [H, W, 3] were found, with what the record states of it."""
    return Photo(pixels, record.fov_x_deg, record.photo.note, record.photo.given_size)


def find_checkpoint(record: Manifest, given: str | None = None) -> Checkpoint:
    """Verify the checkpoint of a record: the ``given`` one, else by the recorded name.

    Raises: CheckpointError when it is not there, or has other weights.
    """
    name = given or record.checkpoint
    try:
        checkpoint = find(name)
    except CheckpointError as error:
        if given:
            raise
        raise CheckpointError(f"{error} The manifest names {name!r}; give its folder with --model.") from None
    if checkpoint.sha256 != record.checkpoint_sha256:
        raise CheckpointError(
            f"The checkpoint {checkpoint.name!r} has other weights than the recorded run: {checkpoint.sha256[:12]}"
            f" instead of {record.checkpoint_sha256[:12]}."
        )
    return checkpoint


def stream(events: Iterator[Progress | Prediction], record: Manifest) -> Iterator[Progress | Prediction]:
    """Pass on the events of a run, each made with as many threads as recorded where there are as many processors.

    The number is set for one event at a time: torch keeps it by thread, and other work may be done between two events.
    Where hints are recorded that did not guide it, the last prediction is calibrated by them and yielded once more.

    Raises: CalibrationError when the hints do not fit the map.
    """
    import torch

    last = None
    while True:
        before = torch.get_num_threads()
        torch.set_num_threads(min(record.torch_threads or before, os.cpu_count() or before))
        try:
            event = next(events)
        except StopIteration:
            break
        finally:
            torch.set_num_threads(before)
        last = event if isinstance(event, Prediction) else last
        yield event
    if record.hints is not None and last is not None and not record.hints.guides:
        yield calibrated(last, record)


def calibrated(prediction: Prediction, record: Manifest) -> Prediction:
    """Calibrate a prediction by the recorded hints, if there are any. Raises: CalibrationError as ``stream``."""
    return calibrate(prediction, record.hints) if record.hints is not None else prediction


def write(prediction: Prediction, record: Manifest, folder: Path) -> Outcome:
    """Write the recorded files of a prediction made again, and compare their bytes with the record's.

    Raises: ExportError as ``writers.save``.
    """
    paths = save(
        prediction,
        folder,
        formats_of(record),
        save_for=tuple(record.save_for),
        mesh=record.mesh,
        colours=record.colours,
        prefix=record.prefix,
    )
    return against(record, read(paths["manifest"]))


def against(record: Manifest, made: Manifest) -> Outcome:
    """Compare the record of a run with that of its replay, file by file."""
    begin, end = len(record.prefix), made.prefix
    names = {name: made.files.get(f"{end}{name[begin:]}") for name in record.files}
    causes = [f"{what} {then} -> {now}" for what, then, now in _facts(record, made) if then != now]
    return Outcome(
        same=[name for name, found in names.items() if found == record.files[name]],
        different=[name for name, found in names.items() if found not in (None, record.files[name])],
        missing=[name for name, found in names.items() if found is None],
        causes=causes,
        untrue=[] if causes else [name for name in _STATED if getattr(record, name) not in (None, getattr(made, name))],
    )


def _facts(record: Manifest, made: Manifest) -> Iterator[tuple[str, object, object]]:
    """Yield what decides the bytes beside the settings: (name, in the record, now)."""
    for name, version in sorted(record.versions.items()):
        yield name, version, made.versions.get(name)
    for name, now in made.settings:
        if (then := getattr(record.settings, name, None)) != now:
            yield name, then, now
    for name in ("torch_threads", "device", "dtype", "machine", "tiled", "tiny_decoder"):
        if getattr(record, name) is not None:  # records of older versions lack some
            yield name.replace("_", " "), getattr(record, name), getattr(made, name)


def _count(number: int) -> str:
    return f"{number} file" + "s" * (number != 1)
