"""A clip to its depth: every frame is predicted and steadied, then the files are written over one range of depth.

The maps lie on the disk between the two, since the range is known after the last frame only; with them lies what a run
that was stopped goes on from. Memory holds one frame, its map and the last ``window`` maps.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch

from marigold_core import storage
from marigold_core.errors import ExportError, VideoError
from marigold_core.files import manifest
from marigold_core.files.formats import FILES, Content
from marigold_core.images.colormaps import depth_to_rgb, to_rgb
from marigold_core.images.photo import network_size
from marigold_core.pipeline.sampling import LatentCarry
from marigold_core.prediction import Prediction, Progress, ProgressEvents
from marigold_core.settings import ColourSettings, FrameSettings, MeshSettings, ResolvedSettings, Settings
from marigold_core.video.clips import Clip, ClipWriter, Frame
from marigold_core.video.settings import CLIPS, RECORD, UNFINISHED, VideoFormat, VideoSettings
from marigold_core.video.steady import Steadier

if TYPE_CHECKING:
    from marigold_core.checkpoints.registry import Checkpoint

FRAMES: dict[VideoFormat, tuple[str, str]] = {  # folder, ending
    "exr": ("frames_exr", "exr"),
    "png16": ("frames_16bit", "png"),
    "ply": ("frames_points", "ply"),
    "glb": ("frames_mesh", "glb"),
}
TABLE = "frames.csv"
COLUMNS = ("frame", "seconds", "scene", "scale", "shift")
LEVELS = 65535  # that the maps are kept in, between the ends of each
ENDS = (0.1, 99.9)  # per cent of a frame's depths: single pixels beyond do not decide the range of the clip
ENDS_BYTES = 2**20  # of a source at its begin and at its end, which tell it from another one of its size
STATE = 2  # version of the arrays that ``KeptMaps.keep`` writes
KEEP_EVERY = 25  # frames from one state to the next that a killed run goes on from


class Predictor(Protocol):
    """What predicts the frames: a ``MarigoldPipeline``."""

    @property
    def checkpoint(self) -> "Checkpoint":
        """What is loaded."""
        ...

    def resolve(self, settings: Settings | None) -> ResolvedSettings:
        """Fill in what the checkpoint decides."""
        ...

    def stream(
        self, photo: Any, settings: Settings | None = None, *, carry: LatentCarry | None = None
    ) -> Iterator[Progress | Prediction]:
        """Predict from a frame [H, W, 3] uint8, step by step."""
        ...


@dataclass(frozen=True)
class VideoResult:
    """What was made of a clip."""

    folder: Path
    files: dict[str, Path]  # by format a clip or a folder of frames, beside them "table" and "record"
    frames: int
    scenes: int  # parts between cuts
    notes: tuple[str, ...]  # what a person should know of the source


def predict_video(
    pipe: Predictor,
    source: str | Path,
    folder: str | Path,
    settings: Settings | None = None,
    video: VideoSettings | None = None,
    *,
    mesh: FrameSettings | None = None,
    colours: ColourSettings | None = None,
) -> VideoResult:
    """Predict the depth of a video, steady from frame to frame; see ``stream_video`` to watch and stop.

    Args:
        pipe: a loaded checkpoint that predicts depth.
        source: the video file; any that FFmpeg reads.
        folder: where to write; a run that was stopped there goes on.
        settings: of each frame; by default the checkpoint's own.
        video: how frames are brought together, and what is written.
        mesh: how depth becomes points and meshes.
        colours: the colours of the clips.

    Returns:
        The files that were written, and what is known of the clip.

    Raises:
        VideoError: the video cannot be read.
        SettingsError: a setting is out of range.
        ExportError: ``folder`` holds a finished result already, the cuts leave nothing of all that is asked for, or the
            disk refuses.
    """
    for event in stream_video(pipe, source, folder, settings, video, mesh=mesh, colours=colours):
        if isinstance(event, VideoResult):
            return event
    raise AssertionError("a run ends with its result")


def check_folder(folder: Path) -> None:
    """Raise ExportError where ``folder`` holds a finished result, of which no kill leaves anything else then."""
    if (folder / RECORD).exists():
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        storage.clear_claim(folder / UNFINISHED)
        raise ExportError(f"{folder} holds a finished result already; give another folder or remove it.")


def stream_video(
    pipe: Predictor,
    source: str | Path,
    folder: str | Path,
    settings: Settings | None = None,
    video: VideoSettings | None = None,
    *,
    mesh: FrameSettings | None = None,
    colours: ColourSettings | None = None,
) -> Generator[Progress | VideoResult]:
    """Predict as ``predict_video``, yielding a ``Progress`` a step; closing it stops, and the next call goes on."""
    video, folder = video or VideoSettings(), Path(folder)
    if pipe.checkpoint.modality != "depth":
        raise VideoError(
            f"Only depth can be steadied over time, but {pipe.checkpoint.name} predicts {pipe.checkpoint.modality}."
        )
    check_folder(folder)
    with storage.claim(folder / UNFINISHED) as ours:
        if not ours:
            raise ExportError(f"Another process makes a video in {folder}: wait for it, or give another folder.")
        for place in (folder, *(folder / name for name, _ in FRAMES.values())):
            storage.clear_unfinished(place)
        yield from _stream(pipe, source, folder, settings, video, mesh, colours)


def _stream(
    pipe: Predictor,
    source: str | Path,
    folder: Path,
    settings: Settings | None,
    video: VideoSettings,
    mesh: FrameSettings | None,
    colours: ColourSettings | None,
) -> Generator[Progress | VideoResult]:
    """Do what ``stream_video`` does, in a folder that no other process works in."""
    settings, clip = pipe.resolve(settings), Clip(source)
    made_with = {
        "source": _fingerprint(clip.path),
        "checkpoint_sha256": pipe.checkpoint.sha256,
        "settings": settings.model_dump(mode="json"),
        "video": video.model_dump(mode="json", include={"window", "averaging", "carry"}),
    }
    kept = KeptMaps(folder / UNFINISHED, made_with)
    yield from _predict(pipe, clip, settings, video, kept)
    low, high = kept.range()
    template = _template(pipe, settings)
    writing = Writing(clip, kept, template, (low, high), video, mesh or FrameSettings(), colours or ColourSettings())
    files = dict[str, Path]()
    for name in dict.fromkeys(video.video_formats):
        files[name] = yield from writing.clip_file(name) if name in CLIPS else writing.frame_files(name)
    files = {name: path for name, path in files.items() if path.exists()}
    if not files:
        raise ExportError(next(iter(writing.left_out.values())))
    notes = [note for note in (clip.note, writing.note, *writing.lacks()) if note]
    files |= {"table": folder / TABLE, "record": folder / RECORD}
    storage.write_bytes(files["table"], kept.table(clip))
    record = {
        "schema_version": 1,
        **made_with,
        "checkpoint": pipe.checkpoint.name,
        "kind": template.kind,
        "space": template.space,
        "convention": template.convention,
        "range": {"near": low, "far": high},
        "frames": kept.count,
        "scenes": kept.scenes,
        "notes": notes,
        "left_out": writing.left_out,
        "versions": manifest.versions(),
    }
    storage.write_json(files["record"], record)
    shutil.rmtree(kept.folder, ignore_errors=True)
    yield VideoResult(folder, files, kept.count, kept.scenes, tuple(notes))


def _predict(
    pipe: Predictor, clip: Clip, settings: ResolvedSettings, video: VideoSettings, kept: "KeptMaps"
) -> Generator[Progress]:
    """Predict and steady the frames that are not done yet."""
    steadier, carry = Steadier(video, pipe.checkpoint.kind), LatentCarry(video.carry)
    kept.restore(steadier, carry)
    done = kept.count
    try:
        with closing(clip.frames()) as frames:
            for number, frame in enumerate(frames):
                if number < done:
                    continue
                total = max(clip.frame_count, number + 1)
                stage = f"frame {number + 1}" + (f" of {total}" if clip.frame_count else "")
                yield Progress(number, total, stage)
                height, width = network_size(
                    frame.pixels.shape[0], frame.pixels.shape[1], settings.processing_resolution
                )
                small = cv2.resize(frame.pixels, (width, height), interpolation=cv2.INTER_AREA)
                motion = steadier.follow(small)
                if motion is None:
                    carry.latents.clear()
                native = settings.changed(processing_resolution=0)  # the frame has the size of the network already
                events = ProgressEvents(pipe.stream(small, native, carry=carry if video.carry else None))
                for event in events:
                    yield Progress(number, total, f"{stage}: {event.stage}")
                kept.add(frame, steadier.take(small, events.result.values, motion))
                if (number + 1) % KEEP_EVERY == 0:
                    kept.keep(steadier, carry)
    finally:
        if kept.count > done:
            kept.keep(steadier, carry)


class KeptMaps:
    """The steadied maps of a clip in one file, their table in another, and the state after the last of them."""

    def __init__(self, folder: Path, made_with: dict[str, Any]) -> None:
        """Go on where ``folder`` was made with the same, else begin anew. Raises: ExportError."""
        made_with = {**made_with, "state": STATE}
        self.folder = folder
        self._maps, self._table, self._state = folder / "maps", folder / "table.jsonl", folder / "state.npz"
        self.rows: list[dict[str, Any]] = []
        self.size: tuple[int, int] | None = None  # [h, w] of a map
        self.arrays: dict[str, np.ndarray] = {}
        try:
            same = json.loads((folder / "made_with.json").read_text()) == json.loads(json.dumps(made_with))
        except (OSError, ValueError):
            same = False
        if not (same and self._go_on()):  # maps without a state are those of a run that was killed before the first
            for place, _ in FRAMES.values():
                if any((folder.parent / place).glob("*")):
                    raise ExportError(f"{folder.parent / place} holds other frames: remove it, or give another folder.")
            shutil.rmtree(folder, ignore_errors=True)
            storage.write_json(folder / "made_with.json", made_with)

    def _go_on(self) -> bool:
        """Read the state and drop what was made after it -> whether it is there, with its maps."""
        if not self._state.exists():
            return False
        with np.load(self._state, allow_pickle=False) as state:
            arrays = dict(state)
        count, height, width = (int(one) for one in arrays.pop("size"))
        lines = self._table.read_text().splitlines()[:count]
        if len(lines) < count or self._maps.stat().st_size < count * height * width * 2:  # the power was cut
            return False
        self.arrays = arrays
        self.rows, self.size = [json.loads(line) for line in lines], (height, width)
        storage.write_bytes(self._table, "".join(f"{line}\n" for line in lines).encode())
        os.truncate(self._maps, count * height * width * 2)
        return True

    @property
    def count(self) -> int:
        """How many frames are done."""
        return len(self.rows)

    @property
    def scenes(self) -> int:
        """How many parts the cuts make."""
        return 1 + sum(row["is_cut"] for row in self.rows)

    def add(self, frame: Frame, made: Any) -> None:
        """Keep the map of the next frame. Raises: ExportError."""
        values: np.ndarray = made.values
        low, high = float(values.min()), float(values.max())
        levels = np.rint((values - low) * (LEVELS / ((high - low) or 1.0))).astype(np.uint16)
        near, far = (float(end) for end in np.percentile(values, ENDS))
        row = {"pts": frame.pts, "is_cut": made.is_cut, "scale": made.scale, "shift": made.shift}
        row |= {"low": low, "high": high, "near": near, "far": far}
        self.size = values.shape[0], values.shape[1]
        try:
            with self._maps.open("ab") as maps:
                maps.write(levels.tobytes())
            with self._table.open("a") as table:
                table.write(json.dumps(row) + "\n")
        except OSError as error:
            raise ExportError(f"{self.folder} cannot be written: {error.strerror}.") from error
        self.rows.append(row)

    def keep(self, steadier: Steadier, carry: LatentCarry) -> None:
        """Write what a stopped run goes on from. Raises: ExportError."""
        assert self.size is not None  # there is a map
        latents = {f"latent_{k}": latent.numpy() for k, latent in carry.latents.items()}
        content = io.BytesIO()
        arrays: dict[str, Any] = {"size": np.array([self.count, *self.size]), **steadier.arrays(), **latents}
        np.savez(content, **arrays)
        storage.write_bytes(self._state, content.getvalue())

    def restore(self, steadier: Steadier, carry: LatentCarry) -> None:
        """Bring back what ``keep`` wrote."""
        latents = {name: self.arrays.pop(name) for name in [*self.arrays] if name.startswith("latent_")}
        carry.latents = {int(name[7:]): torch.as_tensor(latent) for name, latent in latents.items()}
        steadier.restore(self.arrays)

    def values(self, number: int) -> np.ndarray:
        """Read a map [h, w] float32."""
        assert self.size is not None  # there is a map
        row, count = self.rows[number], self.size[0] * self.size[1]
        levels = np.fromfile(self._maps, np.uint16, count, offset=number * count * 2).reshape(self.size)
        return (row["low"] + levels * ((row["high"] - row["low"]) / LEVELS)).astype(np.float32)

    def range(self) -> tuple[float, float]:
        """The nearest and the farthest depth of the clip, but for ``ENDS``."""
        low, high = min(row["near"] for row in self.rows), max(row["far"] for row in self.rows)
        return low, high if high > low else low + 1.0

    def table(self, clip: Clip) -> bytes:
        """Make a line a frame: its number, time and scene, and the scale and shift that its map was given."""
        file, scene = io.StringIO(), 0
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, row in enumerate(self.rows):
            scene += row["is_cut"]
            seconds = float(row["pts"] * clip.time_base)
            writer.writerow([number, f"{seconds:.6f}", scene, f"{row['scale']:.6f}", f"{row['shift']:.6f}"])
        return file.getvalue().encode()


# ------------------------------------------------------------------------------- what is written


@dataclass
class Writing:
    """What the files of a clip are made from."""

    clip: Clip
    kept: KeptMaps
    template: Prediction  # what the predictions of all frames have in common
    ends: tuple[float, float]  # the nearest and the farthest depth of the clip
    video: VideoSettings
    mesh: FrameSettings
    colours: ColourSettings
    note: str | None = None  # which sound was left out
    left_out: dict[str, str] = field(default_factory=dict[str, str])  # files of frames that the cuts leave empty -> why

    def lacks(self) -> Iterator[str]:
        """Say of each folder of frames how many it lacks, and why."""
        for folder, _ in FRAMES.values():
            whys = [why for file, why in self.left_out.items() if file.startswith(f"{folder}/")]
            if whys:
                yield f"{folder} was left out for {len(whys)} of {self.kept.count} frames: {whys[0]}"

    def clip_file(self, name: VideoFormat) -> Generator[Progress, None, Path]:
        """Write an MP4 file -> its path. Raises: ExportError."""
        path, number = self.kept.folder.parent / CLIPS[name], 0
        with storage.replacing(path) as temporary:
            sound_of = None if self.video.silent else self.clip
            writer = ClipWriter(temporary, self.clip.time_base, self.clip.rate, sound_of)
            try:
                with closing(self.clip.frames_and_sound()) as events:
                    for event in events:
                        if not isinstance(event, Frame):
                            writer.write_sound(event)
                        elif number < self.kept.count:
                            writer.write(self._picture(name, number, event.pixels), event.pts)
                            number += 1
                            yield Progress(number, self.kept.count, f"writing {path.name}")
            finally:
                writer.close()
        self.note = writer.note
        return path

    def frame_files(self, name: VideoFormat) -> Generator[Progress, None, Path]:
        """Write a file a frame, those that are there already aside -> their folder, absent where all are left out.

        Raises: ExportError where the disk refuses.
        """
        place, ending = FRAMES[name]
        folder, write = self.kept.folder.parent / place, FILES[name][1]
        mesh = MeshSettings(**self.mesh.model_dump())
        with closing(self.clip.frames()) as frames:
            for number, frame in zip(range(self.kept.count), frames, strict=False):
                path = folder / f"{number:06d}.{ending}"
                if not path.exists():
                    made = self._prediction(number, frame.pixels)
                    try:
                        content = write(Content(made, mesh, self.colours))
                    except ExportError as error:
                        self.left_out[f"{place}/{path.name}"] = str(error)
                    else:
                        storage.write_bytes(path, content)
                yield Progress(number + 1, self.kept.count, f"writing {place}")
        return folder

    def _prediction(self, number: int, photo: np.ndarray) -> Prediction:
        """The depth of one frame at its own size, over the range of the clip."""
        height, width = photo.shape[:2]
        values = self.kept.values(number)
        if self.template.kind == "affine":
            values = np.clip(self._share(values), 0, 1)
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        return replace(self.template, values=values, photo=photo)

    def _picture(self, name: VideoFormat, number: int, photo: np.ndarray) -> np.ndarray:
        """The picture [H, W, 3] uint8 of a frame in a clip."""
        made = self._prediction(number, photo)
        if made.kind != "affine":
            made = replace(made, kind="affine", values=self._share(made.values))
        if name == "grey":
            return depth_to_rgb(1 - np.clip(made.values, 0, 1), "gray")
        depth = to_rgb(made, self.colours)
        return np.hstack([photo, depth]) if name == "side_by_side" else depth

    def _share(self, values: np.ndarray) -> np.ndarray:
        return (values - self.ends[0]) / (self.ends[1] - self.ends[0])


def _template(pipe: Predictor, settings: ResolvedSettings) -> Prediction:
    """What the predictions of all frames have in common."""
    record, nothing = pipe.checkpoint, np.zeros((1, 1), np.float32)
    return Prediction(
        modality="depth",
        kind=record.kind,
        space=record.space,
        values=nothing,
        uncertainty=None,
        members=None,
        photo=np.zeros((1, 1, 3), np.uint8),
        fov_x_deg=None,
        settings=settings,
        checkpoint=record.name,
        checkpoint_sha256=record.sha256,
    )


def _fingerprint(path: Path) -> dict[str, Any]:
    """What tells a source from another one, also where it was copied or touched, at no cost for gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = file.read(ENDS_BYTES)
        file.seek(max(len(ends), size - ENDS_BYTES))
        ends += file.read(ENDS_BYTES)
    return {"name": path.name, "bytes": size, "ends_sha256": hashlib.sha256(ends).hexdigest()}
