"""The command ``replay``: a recorded run once more, and whether its files have the same bytes."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from marigold_core import load
from marigold_core.cli import photo_folders
from marigold_core.cli.console import ALL_DONE, DEVICES, SOME_FAILED, Run, watch
from marigold_core.settings import DepthReading, Frozen, help_text


class ReplayRun(Frozen):
    """What a manifest does not hold, and where its checkpoint runs."""

    model: str | None = Field(None, description="the recorded checkpoint's folder, where its name is not enough")
    device: str | None = Field(None, description=f"{DEVICES}; by default as recorded")
    overwrite: bool = Field(False, description=help_text(Run, "overwrite"))
    quiet: bool = Field(False, description=help_text(Run, "quiet"))


def replay(
    manifest: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="MANIFEST", help="manifest.json of a result, or the folder that holds it"),
    ],
    /,
    run: ReplayRun,
    output: Annotated[
        Path | None,
        tyro.conf.arg(aliases=("-o",), metavar="OUT", help="folder to write to; without one nothing is kept"),
    ] = None,
    photo: Annotated[
        Path | None,
        tyro.conf.arg(metavar="PHOTO", help="the photo; by default one named as the manifest's folder, near it"),
    ] = None,
    depth: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DEPTH", help="of import-depth: the depth map; by default one of its name, near it"),
    ] = None,
) -> int:
    """Make a recorded result again, and say whether every file has the same bytes or what is different.

    Exit status 1 says that a file has other bytes.
    """
    from marigold_core.files import replay as recorded
    from marigold_core.files.reader import from_depth

    record = recorded.read(manifest)
    opened = recorded.find_photo(manifest, record, photo)
    settings, source = record.settings, None
    if isinstance(settings, DepthReading):
        source = recorded.find_depth(manifest, record, depth)
    else:
        recorded.find_checkpoint(record, run.model)
    device, dtype = run.device or record.device or "auto", record.dtype or "auto"
    name = (manifest if manifest.is_dir() else manifest.parent).resolve().name
    with ExitStack() as places:
        if output:
            places.enter_context(photo_folders.sole_writer(output / name))
            folder = places.enter_context(photo_folders.result_folder(output / name, output, run.overwrite))
        else:
            folder = places.enter_context(tempfile.TemporaryDirectory())
        if isinstance(settings, DepthReading):
            events = iter([from_depth(opened, source, settings, fov_x_deg=record.fov_x_deg)])
        else:
            pipe = load(run.model or record.checkpoint, device=device, dtype=dtype)
            events = pipe.stream(opened, settings, hints=record.hints)
        prediction = watch(recorded.stream(events, record), name, run.quiet)
        outcome = recorded.write(prediction, record, Path(folder))
    if not run.quiet or outcome.fell_short:
        print(outcome.describe())
    return SOME_FAILED if outcome.fell_short else ALL_DONE
