"""Files that calls ask for: whether a result will have them, and how they are described to clients."""

import json
import mimetypes
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from marigold_core.calibration.calibrate import Hints
from marigold_core.checkpoints.registry import Checkpoint, Claim
from marigold_core.files import archive
from marigold_core.files.presets import SaveFor
from marigold_core.files.writers import Made, file_names, suiting
from marigold_core.serving.api.answers import Answer, FileData
from marigold_core.serving.api.arguments import Arguments, take
from marigold_core.settings import Format, MeshSettings
from marigold_core.video.settings import check_depth

MIME_TYPES = {".glb": "model/gltf-binary", ".stl": "model/stl", ".exr": "image/x-exr"}  # not known to every system
USUAL: tuple[Format, ...] = ("npy", "png16", "color")  # of an endpoint that is asked for no files


def describe_files(files: Mapping[str, Path]) -> Answer:
    """Name files to clients: of JSON its content, of a folder a ZIP, which takes its place."""
    answer: Answer = {}
    for name, path in files.items():
        if path.is_dir():
            archive.write(sorted(path.iterdir()), bundle := path.with_suffix(".zip"))
            shutil.rmtree(path)
            path = bundle
        answer[name] = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else describe_file(path)
    return answer


def wanted_files(
    given: Arguments, usual: tuple[Format, ...], modality: str, has_uncertainty: bool
) -> tuple[Sequence[Format], Sequence[SaveFor]]:
    """Read the formats and the programs of a call; where it names neither, ``usual`` formats, or all that suit."""
    programs, suit = given.get("save_for") or (), suiting(modality, has_uncertainty)
    if usual == USUAL and not {*usual} <= {*suit}:  # they are those of depth
        usual = suit
    return given["formats"] or (() if programs else usual), programs


def describe_file(path: Path) -> FileData:
    """Describe a file to clients; Gradio completes ``url`` with the server's address."""
    return FileData(
        path=str(path),
        url=f"/gradio_api/file={quote(str(path))}",
        size=path.stat().st_size,
        orig_name=path.name,
        mime_type=MIME_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        is_stream=False,
        meta={"_type": "gradio.FileData"},
    )


def check_made(
    given: Arguments, usual: tuple[Format, ...], made: Checkpoint | Claim, hints: Hints | None
) -> Iterator[str]:
    """Check that a checkpoint makes what is asked for: files, or what something else can be made of."""
    if "formats" in given:
        yield from check_files(given, usual, made, hints)
    else:
        check_depth(made.name, made.modality)


def check_files(given: Arguments, usual: tuple[Format, ...], made: Made, hints: Hints | None = None) -> Iterator[str]:
    """Check that a result has the files that are asked for; a map from elsewhere is of no members."""
    members = given.get("ensemble_size", 0)
    has_uncertainty = made.has_uncertainty(members, guided=hints is not None and hints.guides)
    formats, programs = wanted_files(given, usual, made.modality, has_uncertainty)
    yield "formats" if given["formats"] or given.get("save_for") else "checkpoint"
    file_names(formats, made, members, hints=hints, mesh=take(MeshSettings, given))
    yield "save_for"
    file_names(formats, made, members, save_for=programs, hints=hints)
