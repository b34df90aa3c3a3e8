"""What takes files of a visitor: the photo inputs and the button for manifests.

They are component classes of our own: Gradio makes a component anew, from its class, for every session in which an
event has it among its outputs, so what is replaced on one object alone does not last.
"""

import contextlib
import os
from abc import ABCMeta
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import gradio as gr
import numpy as np
from gradio.component_meta import ComponentMeta
from gradio.data_classes import FileData, ImageData, ListFiles
from PIL import Image

from marigold_core.files import examples
from marigold_core.storage import replacing
from marigold_core.ui import text

ELSEWHERE = ("http:", "https:", "data:")  # begins of what is no file of this server
EXAMPLES = {  # stand in the code that the API page prints, which runs as printed; none is ever fetched
    "photo": "https://example.org/temple.jpg",
    "depth": "https://example.org/temple_depth.png",
    "video": "https://example.org/temple.mp4",
    "panorama": "https://example.org/panorama.png",
}


class WithoutStub(ComponentMeta):
    """Makes component classes as Gradio does, but writes no stub file beside their source."""

    def __new__(mcs, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> "WithoutStub":
        """Make a class that adds no events and no constructor, which are what else Gradio looks at."""
        return ABCMeta.__new__(mcs, name, bases, attrs)


class PhotoInput(gr.Image, metaclass=WithoutStub):
    """An image input that hands on the uploaded file as it is, for ``images.photo.load_photo`` to decode.

    Gradio's own reading would try every plug-in of Pillow, refuse HEIC without a word, and follow web addresses and
    pictures written into the request.
    """

    is_template = True  # the browser draws it as the class that it is made from

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path of the uploaded file. Raises: gr.Error for a picture written into the request."""
        return _uploaded_path(payload, self.GRADIO_CACHE)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Take uploads and ``EXAMPLES``. Raises: gr.Error for any other web address, which Gradio would fetch."""
        return _used(await super().async_move_resource_to_block_cache(_local(url_or_file_path, self.GRADIO_CACHE)))


class FilesButton(gr.UploadButton, metaclass=WithoutStub):
    """A button that takes files, under the same rules."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the paths of the uploaded files; Gradio's own would copy every one."""
        return _uploaded_paths(payload, self.GRADIO_CACHE)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Take files as ``PhotoInput`` does."""
        return await super().async_move_resource_to_block_cache(_local(url_or_file_path, self.GRADIO_CACHE))


class PhotosInput(gr.File, metaclass=WithoutStub):
    """A field that takes many photos, under the same rules."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the paths of the uploaded files."""
        return _uploaded_paths(payload, self.GRADIO_CACHE)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Take files as ``PhotoInput`` does."""
        return await super().async_move_resource_to_block_cache(_local(url_or_file_path, self.GRADIO_CACHE))


class FileInput(gr.File, metaclass=WithoutStub):
    """An input for one file, a depth map or a video, under the same rules."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the path of the uploaded file."""
        return _uploaded_path(cast("FileData | None", payload), self.GRADIO_CACHE)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Take files as ``PhotoInput`` does."""
        return await super().async_move_resource_to_block_cache(_local(url_or_file_path, self.GRADIO_CACHE))


def draw_photo(elem_id: str = "photo", *, visible: bool = True) -> PhotoInput:
    """Draw a photo input; its value in events is the path of the uploaded file."""
    return PhotoInput(
        type="filepath",
        image_mode=None,
        sources=["upload", "webcam", "clipboard"],
        label=text.PHOTO,
        show_label=False,
        placeholder=text.PHOTO_PLACEHOLDER,
        height=250,
        buttons=[],
        visible=visible,
        elem_id=elem_id if visible else None,
        elem_classes="photo",  # page.js lets any file in; load_photo refuses those that are none
    )


def _local(path: str | Path | None, folder: str) -> str | Path | None:
    """Let paths pass, and find or draw the file of an example in the folder. Raises: gr.Error for other addresses."""
    for name, address in EXAMPLES.items():
        if path == address:
            return _example(name, Path(folder) / f"example-{address.rsplit('/', 1)[1]}")
    if str(path).lower().startswith(ELSEWHERE):
        raise gr.Error(text.INLINE_PHOTO, print_exception=False)
    return path


def _example(name: str, drawn: Path) -> Path:
    temple = examples.FOLDER / "temple.jpg"
    if name in ("photo", "depth"):
        return temple if name == "photo" else examples.RESULTS / "temple_depth.png"
    if not drawn.exists():
        photo = np.asarray(Image.open(temple).convert("RGB"))
        with replacing(drawn) as temporary:
            if name == "panorama":  # of its shape
                Image.fromarray(photo[80:400]).save(temporary, "PNG")
            else:
                _draw_clip(photo, temporary)
    return drawn


def _draw_clip(photo: np.ndarray, path: Path) -> None:
    """Draw a window that moves over the photo."""
    from marigold_core.video.clips import ClipWriter

    writer = ClipWriter(path, Fraction(1, 25), Fraction(25))
    for number in range(4):
        writer.write(photo[40:280, 40 + 8 * number : 360 + 8 * number], number)
    writer.close()


def _uploaded_paths(payload: ListFiles | FileData | None, folder: str) -> list[str]:
    files = payload.root if isinstance(payload, ListFiles) else [payload]
    paths = [_uploaded_path(file, folder) for file in files]
    return [path for path in paths if path]


def _uploaded_path(payload: FileData | ImageData | None, folder: str) -> str | None:
    """Return the path of a file in the folder of uploads; Gradio does not check that of every form of request."""
    if payload is None:
        return None
    inline = payload.path is None or (payload.url or "").startswith("data:")
    if inline or not Path(payload.path or "").resolve().is_relative_to(Path(folder).resolve()):
        raise gr.Error(text.INLINE_PHOTO, print_exception=False)
    return _used(payload.path)


def _used(path: str | None) -> str | None:
    """Note that a file is in use: the server deletes those that lie unused (``serving.work_folder``)."""
    with contextlib.suppress(OSError):
        os.utime(path or "")
    return path
