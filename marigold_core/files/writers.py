"""``save`` writes the files of a prediction and its manifest; each of them is complete or absent."""

import reprlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, get_args

import numpy as np

from marigold_core import storage
from marigold_core.calibration.calibrate import Hints
from marigold_core.errors import ExportError
from marigold_core.files import MANIFEST, manifest
from marigold_core.files.formats import FILES, FILES_OF, LAYERS, Content
from marigold_core.files.presets import PRESETS, SaveFor
from marigold_core.images.intrinsics import Claimed
from marigold_core.prediction import Kind, Prediction
from marigold_core.settings import ColourSettings, Format, MeshSettings, check_type

NO_UNCERTAINTY = "Uncertainty needs 3 or more members (ensemble_size) here; a depth map from elsewhere has none."


class Made(Claimed, Protocol):
    """What files depend on: a prediction, or a checkpoint that makes such ones."""

    def has_uncertainty(self, members: int, *, guided: bool = False) -> bool:
        """Whether a result of so many members has uncertainty, or one that known depths have ``guided``."""
        ...


def save(
    prediction: Prediction,
    folder: str | Path,
    formats: Sequence[Format] | None = None,
    *,
    save_for: Sequence[SaveFor] = (),
    mesh: MeshSettings | None = None,
    colours: ColourSettings | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the files of the formats and ``manifest.json`` into a folder.

    Each file is complete or absent; the manifest comes last, so where it is there all others are.

    Args:
        prediction: what to write.
        folder: where to; it is made if need be.
        formats: which files; by default all that suit the prediction, or none where ``save_for`` names programs. Of
            all, those that the depth allows no mesh or points for are left out, which the manifest says.
        save_for: programs whose files are written, by their names in ``files.presets.PRESETS``.
        mesh: how depth becomes geometry and normals.
        colours: the colours of ``depth_color.png``.
        prefix: what every file's name begins with, such as "IMG_1_".
        overwrite: whether files that exist already are replaced.

    Returns:
        The path of each file by its name in the table ``files.formats.FILES``, which is that of the format where the
        format has one file. "uncertainty" and "normals" come with their arrays, "uncertainty_npy" and "normals_npy";
        intrinsics have files for each layer.

    Raises:
        SettingsError: an argument is of another type.
        ExportError: a format does not suit the prediction, ``prefix`` is no part of a name, a file exists already, or
            the disk refuses.
    """
    check_type("folder", folder, str | Path, "a path")
    check_type("prefix", prefix, str, "a text")
    check_type("overwrite", overwrite, bool, "True or False")
    check_prefix(prefix)
    folder, mesh, colours = Path(folder), mesh or MeshSettings(), colours or ColourSettings()
    check_type("prediction", prediction, Prediction)
    check_type("mesh", mesh, MeshSettings)
    check_type("colours", colours, ColourSettings)
    lists: dict[str, object] = {"formats": () if formats is None else formats, "save_for": save_for}
    for name, given in lists.items():
        if isinstance(given, str | bytes) or not isinstance(given, Collection):
            raise ExportError(f"{name} must be a list of names, but got {reprlib.repr(given)}.")
    names = _names(formats, save_for, prediction, prediction.kind, prediction.uncertainty is not None)
    if not np.isfinite(prediction.values).all():
        raise ExportError("The prediction holds values that are not numbers; run again with dtype float32.")
    paths = {name: folder / f"{prefix}{FILES[name][0]}" for name in names}
    paths["manifest"] = folder / f"{prefix}{MANIFEST}"
    if storage.refuse_existing(paths.values(), overwrite):
        storage.remove(paths["manifest"])  # it states hashes of files that are about to change

    content = Content(prediction, mesh, colours, prefix)
    hashes, left_out = dict[str, str](), dict[str, str]()
    for name in names:
        try:
            written = FILES[name][1](content)
        except ExportError as error:
            if formats is not None or save_for:
                raise
            unwritten = paths.pop(name)
            left_out[unwritten.name] = str(error)
            storage.remove(unwritten)  # of an earlier run
            continue
        storage.write_bytes(paths[name], written)
        hashes[paths[name].name] = manifest.sha256_of(paths[name])
    record = manifest.describe(prediction, mesh, colours, hashes, save_for, prefix, left_out)
    storage.write_bytes(paths["manifest"], (record.model_dump_json(indent=2) + "\n").encode())
    return paths


def check_prefix(prefix: str) -> None:
    """Check that files which begin with ``prefix`` lie in their folder. Raises: ExportError."""
    if set(prefix) & {*"/\\:\x7f", *map(chr, range(32))}:  # not all that Python cannot print, as U+202F in screenshots
        raise ExportError(f"A prefix is the beginning of a file's name, but got {prefix!r}.")


def suiting(modality: str, has_uncertainty: bool) -> tuple[Format, ...]:
    """List the formats that suit results of a modality, with or without uncertainty."""
    return tuple(name for name in get_args(Format) if _refusal(name, modality, has_uncertainty) is None)


def formats_for(prediction: Prediction) -> tuple[Format, ...]:
    """List the formats that suit: normals are no depth, and not every result has uncertainty."""
    return suiting(prediction.modality, prediction.uncertainty is not None)


def files_of(name: Format, made: Made) -> tuple[str, ...]:
    """List the files of a format that suits, by their names in ``FILES``."""
    left_out = set(LAYERS) - {layer.name for layer in made.layers}
    return tuple(file for file in FILES_OF[made.modality][name] if file.removesuffix("_16bit") not in left_out)


def formats_of(record: manifest.Manifest) -> tuple[Format, ...]:
    """List the formats that wrote the files of a record."""
    return tuple(
        name
        for name, files in FILES_OF[record.modality].items()
        if any(f"{record.prefix}{FILES[file][0]}" in record.files for file in files)
    )


def file_names(
    formats: Sequence[Format] | None,
    made: Made,
    ensemble_size: int,
    *,
    save_for: Sequence[SaveFor] = (),
    hints: Hints | None = None,
    mesh: MeshSettings | None = None,
) -> list[str]:
    """List the files that ``save`` would write of a result of so many members, the manifest aside; nothing is made.

    The result is what a checkpoint has ``made``, or what ``hints`` make of that.

    Raises:
        ExportError: a format, a program or the shape's ``uncertainty_cut`` does not suit such a result.
    """
    has_uncertainty = made.has_uncertainty(ensemble_size, guided=hints is not None and hints.guides)
    names = _names(formats, save_for, made, hints.kind if hints else made.kind, has_uncertainty)
    if mesh and mesh.uncertainty_cut and not has_uncertainty and {"glb", "ply"} & {*names}:
        from marigold_core.geometry.mesh import NO_SPREAD

        raise ExportError(NO_SPREAD)
    return [FILES[name][0] for name in names]


def preset_refusal(name: SaveFor, modality: str, kind: Kind) -> str | None:
    """Return why a result has no files for a program, a sentence, or None where it has."""
    if name not in get_args(SaveFor):  # a name may be of any type
        return f"There are no files for {name!r}; choose from {', '.join(PRESETS)}."
    if modality != "depth":
        return f"{PRESETS[name].label} needs depth, not {modality}."
    if PRESETS[name].metric and kind != "metric":
        return f"{PRESETS[name].label} needs depth in metres, but this depth is relative: calibrate it first."
    return None


def _names(
    formats: Sequence[Format] | None, save_for: Sequence[SaveFor], made: Made, kind: Kind, has_uncertainty: bool
) -> list[str]:
    """Formats and programs -> the names of their files in ``FILES``, each once. Raises: ExportError."""
    if formats is None:
        formats = () if save_for else suiting(made.modality, has_uncertainty)
    refusals = [_refusal(name, made.modality, has_uncertainty) for name in formats]
    refusals += [preset_refusal(name, made.modality, kind) for name in save_for]
    for refusal in filter(None, refusals):
        raise ExportError(refusal)
    files = [file for name in formats for file in files_of(name, made)]
    return list(dict.fromkeys([*files, *(file for name in save_for for file in PRESETS[name].files)]))


def _refusal(name: str, modality: str, has_uncertainty: bool) -> str | None:
    """Return why a result has no such file, a sentence, or None where it has."""
    if name not in get_args(Format):
        return f"Unknown format {name!r}; choose from {', '.join(get_args(Format))}."
    if name == "uncertainty":
        return None if has_uncertainty else NO_UNCERTAINTY
    if name not in FILES_OF[modality]:
        return f"A prediction of {modality} has no {name}; its formats are {', '.join(FILES_OF[modality])}."
    return None
