"""Photos on their way in: uploads alone are taken, also by raw calls and in old sessions; all kinds are shown."""

import asyncio
import json
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import httpx
import pytest
from gradio.data_classes import FileData, ImageData
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from marigold_core.ui import text
from marigold_core.ui.photo_input import FileInput, FilesButton, PhotoInput
from marigold_core.ui.photo_previews import FILES, PhotoPreviews
from tests.images.test_photo import HEIC

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
META = {"_type": "gradio.FileData"}
FOREIGN = [
    {"url": PIXEL, "meta": META},
    {"path": "http://169.254.169.254/photo.png", "meta": META},
    {"path": "https://example.com/photo.png", "meta": META},
]
LOCAL = [{"path": "/etc/hostname"}, {"path": "/etc/hostname", "meta": META}, {"path": PIXEL, "meta": META}]


def drawn(kind: type) -> Any:
    async def draw() -> Any:  # in a loop that is closed again: without one, Gradio opens some of its own
        with gr.Blocks():
            return kind()

    return asyncio.run(draw())


def test_a_photo_written_into_the_request_is_refused() -> None:
    photo = drawn(PhotoInput)
    with pytest.raises(gr.Error, match="Upload"):
        photo.preprocess(ImageData(url=PIXEL))
    assert photo.preprocess(None) is None
    uploaded = str(Path(photo.GRADIO_CACHE) / "0" / "photo.heic")
    assert photo.preprocess(ImageData(path=uploaded)) == uploaded


@pytest.mark.parametrize("path", ["/etc/hostname", "photo.png", "{cache}/../photo.png", "{cache}/link/photo.png"])
@pytest.mark.parametrize("kind", [PhotoInput, FilesButton, FileInput])
def test_files_of_the_server_that_nobody_uploaded_are_refused(
    kind: type, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = drawn(kind)
    monkeypatch.setattr(taken, "GRADIO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "link").symlink_to(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    file = path.format(cache=tmp_path / "cache")
    data = ImageData(path=file) if kind is PhotoInput else FileData(path=file)
    with pytest.raises(gr.Error, match="Upload"):
        taken.preprocess(data)


@pytest.mark.parametrize("kind", [PhotoInput, FilesButton])
def test_gradio_draws_our_components_as_its_own_and_makes_them_anew_as_ours(kind: type) -> None:
    made = drawn(kind)
    assert made.get_block_name() == kind.__mro__[1].__name__.lower()
    assert type(made.__class__(**made.constructor_args)) is kind
    assert not list((Path(__file__).parents[2] / "marigold_core").rglob("*.pyi"))  # which Gradio writes for subclasses


# ------------------------------------------------------------------------------- raw calls


class Session:
    """A visitor who talks to the queue of a running page without a browser."""

    def __init__(self, url: str) -> None:
        self.url, self.key = f"{url}/gradio_api", uuid4().hex
        config: dict[str, Any] = httpx.get(f"{url}/config", timeout=60).json()
        self.values = {one["id"]: one["props"].get("value") for one in config["components"]}
        self.photo = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "photo")
        self.all = [one for one in config["dependencies"] if one["backend_fn"]]
        self.events = [one for one in self.all if self.photo in one["inputs"]]

    def call(self, event: dict[str, Any], photo: object) -> dict[str, Any]:
        """Call an event with a photo -> the last message about it."""
        data = [photo if widget == self.photo else self.values[widget] for widget in event["inputs"]]
        body = {"data": data, "fn_index": event["id"], "session_hash": self.key}
        joined = httpx.post(f"{self.url}/queue/join", json=body, timeout=60).json()["event_id"]
        with httpx.stream("GET", f"{self.url}/queue/data", params={"session_hash": self.key}, timeout=120) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("event_id") == joined and message["msg"] == "process_completed":
                    return message
        raise AssertionError("the queue ended before the event")

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload a file -> what the browser puts in its place."""
        with path.open("rb") as file:
            (stored,) = httpx.post(f"{self.url}/upload", files={"files": file}, timeout=60).json()
        return {"path": stored, "orig_name": path.name, "meta": META}

    def run(self, photo: object) -> dict[str, Any]:
        """Ask for a run and run it, as the button does, in two events -> the last message of the second."""
        ask = next(one for one in self.events if not one["outputs"])
        self.call(ask, photo)
        return self.call(next(one for one in self.all if one["targets"] == ask["targets"] and one["outputs"]), photo)


def test_raw_calls_cannot_give_addresses_or_pictures_in_fresh_and_old_sessions(url: str, picture: Path) -> None:
    old = Session(url)
    photo = old.upload(picture)
    assert old.run(photo)["success"]  # after which Gradio has made the photo input anew
    for session in (old, Session(url)):
        assert len(session.events) >= 4
        for foreign in FOREIGN:
            for event in session.events:
                ended = session.call(event, foreign)
                assert not ended["success"] and ended["output"]["error"] == text.INLINE_PHOTO
        for local in LOCAL:  # of which Gradio refuses some itself, without a word
            for event in session.events:
                ended = session.call(event, local)
                assert not ended["success"] and ended["output"]["error"] in (text.INLINE_PHOTO, None)
    assert old.run(photo)["success"]


def test_a_file_that_is_no_photo_is_explained_by_a_raw_call_too(url: str, picture: Path, tmp_path: Path) -> None:
    session = Session(url)
    assert session.run(session.upload(picture))["success"]
    (tmp_path / "text.jpg").write_text("no photo")
    ended = session.run(session.upload(tmp_path / "text.jpg"))
    assert not ended["success"] and "not a photo that can be read" in ended["output"]["error"]


# ------------------------------------------------------------------------------- what browsers cannot draw


def ask(path: Path, accept: str = "image/avif,image/webp,*/*;q=0.8") -> Any:
    async def file(request: Any) -> FileResponse:
        return FileResponse(request.path_params["path"], filename=path.name)

    app = PhotoPreviews(Starlette(routes=[Route(FILES + "{path:path}", file)]))
    return TestClient(app).get(f"{FILES}{path}", headers={"accept": accept})


def test_a_photo_that_no_browser_draws_is_shown_as_jpeg_and_kept_as_it_is(photo: Any, tmp_path: Path) -> None:
    Image.fromarray(photo(900, 1500)).save(tmp_path / "scan.jpg", "TIFF")  # whatever its name is
    (tmp_path / "IMG_0001.HEIC").write_bytes(HEIC)
    for name, size in (("scan.jpg", (1280, 768)), ("IMG_0001.HEIC", (24, 40))):
        shown = ask(tmp_path / name)
        assert shown.headers["content-type"] == "image/jpeg" and "content-disposition" not in shown.headers
        assert Image.open(BytesIO(shown.content)).size == size
        downloaded = ask(tmp_path / name, "*/*")
        assert downloaded.content == (tmp_path / name).read_bytes()


def test_whatever_else_is_asked_for_passes_unchanged(photo: Any, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 60)).save(tmp_path / "photo.png")
    (tmp_path / "text.heic").write_text("no photo" * 20_000)  # several messages
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("photo.png", "text.heic", "empty.tif"):
        answer = ask(tmp_path / name)
        assert answer.content == (tmp_path / name).read_bytes()
        assert answer.headers["content-length"] == str(len(answer.content))
