"""Pictures as the page shows them: never larger than a screen, files in Gradio's own cache."""

import hashlib
import os
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from marigold_core import storage

PICTURE_HEIGHT_PX = 560
PREVIEW_PX = 1280  # longest edge of what the page shows; downloads have the photo's size


def preview_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Size [H, W] of a photo -> (width, height) of its pictures on the page, the longest edge at most PREVIEW_PX."""
    height, width = shape[:2]
    scale = min(1.0, PREVIEW_PX / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def preview(picture: np.ndarray) -> str:
    """[H, W, 3] uint8 -> the file of a picture for the page. Raises: ExportError as ``storage.write_bytes``."""
    return _write(picture, "picture.png", compress_level=1)  # a tenth of the time of the default, and a tenth larger


def photo_file(photo: np.ndarray) -> str:
    """[H, W, 3] uint8 -> the file of a photo for the page. Raises: ExportError as ``storage.write_bytes``."""
    return _write(photo, "photo.jpeg")


def file_address(path: str | Path) -> str:
    """Give a file of the server's folder the address under which the page finds it."""
    return f"gradio_api/file={quote(str(path))}"


def file_value(path: Path) -> dict[str, Any]:
    """Give a file of the server's folder as the value that its input has in the browser."""
    kind = {"_type": "gradio.FileData"}
    return {"path": str(path), "url": file_address(path), "orig_name": path.name, "meta": kind}


def shrunk(picture: np.ndarray) -> Image.Image:
    """[H, W, 3] uint8 -> the picture at ``preview_size``."""
    image, size = Image.fromarray(picture), preview_size(picture.shape)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _write(picture: np.ndarray, name: str, **options: int) -> str:
    """Write a picture [H, W, 3] uint8 at its ``preview_size`` under the hash of its pixels -> its path.

    The same picture is never written twice, as Gradio's own functions do: a browser may be reading it.
    """
    shape = str(picture.shape).encode()
    path = Path(get_upload_folder()) / hashlib.sha256(shape + picture.tobytes()).hexdigest() / name
    try:
        os.utime(path)  # in use again: Gradio deletes by age
    except FileNotFoundError:
        content = BytesIO()
        shrunk(picture).save(content, path.suffix[1:], **options)
        storage.write_bytes(path, content.getvalue())
    return str(path)


def draw_comparison(label: str, *, visible: bool = True) -> gr.ImageSlider:
    """Draw two pictures with a handle between them."""
    return gr.ImageSlider(
        label=label,
        show_label=False,
        format="png",
        interactive=False,
        max_height=PICTURE_HEIGHT_PX,
        buttons=["fullscreen"],
        elem_classes="comparison",
        visible=visible,
    )
