"""Many photos in one go: what became of each, and its files on the disk; a finished photo is not kept in memory."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
from PIL import Image

from marigold_core import storage
from marigold_core.errors import ImageError, MarigoldError, SettingsError
from marigold_core.files import archive
from marigold_core.files.writers import save
from marigold_core.images.colormaps import to_rgb
from marigold_core.prediction import Prediction
from marigold_core.settings import Format, Settings

MAX_PHOTOS = 500  # of one batch
THUMBNAIL_PX = (96, 72)  # width and height that each of the two small pictures fits into

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class BatchPhoto:
    """One photo of a batch."""

    name: str  # as its files begin, unlike any other's
    source: Path  # in the batch's own folder: uploads are deleted after a while
    sha256: str  # of the file
    state: State = "waiting"
    reason: str = ""  # why it failed, or what the decoder noted
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list[Path])
    picture: Path | None = None  # photo and result side by side, small, once it is done


@dataclass(eq=False)
class Batch:
    """Photos that are predicted alike. It is stopped between two steps of any photo and goes on with the next."""

    folder: Path
    settings: Settings
    checkpoint: str
    formats: tuple[Format, ...]
    photos: list[BatchPhoto] = field(default_factory=list[BatchPhoto])
    turn: threading.Lock = field(default_factory=threading.Lock, init=False)  # of the one job that predicts them

    @property
    def size_bytes(self) -> int:
        """What it holds on the disk."""
        return storage.size_of(self.folder)

    def count(self, state: State) -> int:
        """Count the photos in a state."""
        return sum(photo.state == state for photo in self.photos)

    @property
    def seconds_left(self) -> float | None:
        """How long the photos that wait will take, by the mean of those that are done; None before the first."""
        times = [photo.seconds for photo in self.photos if photo.state == "done"]
        return sum(times) / len(times) * (self.count("waiting") + self.count("running")) if times else None

    def add(self, files: Sequence[Path]) -> None:
        """Take files over, each once whatever its name. Raises: SettingsError for too many, ExportError."""
        known = {photo.sha256 for photo in self.photos}
        names = {photo.name.casefold() for photo in self.photos}
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest in known:
                continue
            if len(self.photos) == MAX_PHOTOS:
                raise SettingsError(f"A batch holds up to {MAX_PHOTOS} photos; download these, then begin another.")
            known.add(digest)
            stem = name = storage.portable_name(file.stem)
            number = 1
            while name.casefold() in names:
                name = f"{stem}-{(number := number + 1)}"
            names.add(name.casefold())
            source = self.folder / "photos" / f"{digest}{file.suffix}"
            storage.link(file, source)
            self.photos.append(BatchPhoto(name, source, digest))

    def begin(self, photo: BatchPhoto) -> None:
        """Note that a photo is being worked on."""
        photo.state, photo.reason, photo.seconds = "running", "", perf_counter()

    def finish(self, photo: BatchPhoto, prediction: Prediction) -> None:
        """Write the files of a photo that is done. Raises: ExportError."""
        written = save(prediction, self.folder / "files", self.formats, prefix=f"{photo.name}_", overwrite=True)
        photo.files = list(written.values())
        small, file = np.hstack([_thumbnail(picture) for picture in (prediction.photo, to_rgb(prediction))]), BytesIO()
        Image.fromarray(small).save(file, "JPEG")
        storage.write_bytes(picture := self.folder / "pictures" / f"{photo.name}.jpeg", file.getvalue())
        photo.picture = picture
        photo.state, photo.reason = "done", prediction.note or ""
        photo.seconds = perf_counter() - photo.seconds

    def fail(self, photo: BatchPhoto, error: MarigoldError) -> None:
        """Note why a photo cannot be done."""
        photo.state, photo.reason = "failed", str(error)

    def rest(self) -> None:
        """Let a photo wait again that was not finished when the batch was stopped."""
        for photo in self.photos:
            if photo.state == "running":
                photo.state = "waiting"

    def archive(self) -> Path:
        """Write the files of all photos that are done into one ZIP -> its path.

        Raises: ImageError when none is done; ExportError when they are too large for one, or the disk refuses.
        """
        files = [file for photo in self.photos for file in photo.files]
        if not files:
            raise ImageError("No photo is done yet; start the batch first.")
        bundle = self.folder / f"depth_of_{self.count('done')}_photos.zip"
        archive.write(files, bundle)
        return bundle


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail(THUMBNAIL_PX, reducing_gap=2.0)
    return np.asarray(image)
