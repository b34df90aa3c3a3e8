"""The request filter before Gradio: routes, limits, headers; and the page's own words and examples."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from marigold_core.checkpoints.registry import NamedCheckpoint
from marigold_core.errors import CheckpointError, ImageError
from marigold_core.files import examples
from marigold_core.serving import hosting
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINTS, Endpoint
from marigold_core.serving.api.files import describe_file
from marigold_core.settings import PRESETS
from marigold_core.ui import middleware, offered_checkpoints, text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.middleware import (
    BURST,
    HEADERS,
    JSON_LIMIT,
    REFILL_PER_S,
    UPLOAD,
    WAIT_S,
    RequestFilter,
    allowed,
)
from tests.helpers.app_server import ROOT

JOIN = "/gradio_api/queue/join"

DEPTH, MESH, METRES, GIVEN, COMPARE, PANORAMA, VIDEO, PARALLAX, DEFOCUS = ENDPOINTS
PHOTO = str(examples.FOLDER / "temple.jpg")  # 640 x 427, without a field of view


PLANE = str(examples.RESULTS / "temple_depth.png")


class Echo:
    """An application that reads the whole body and says how long it was."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope, receive, send) -> None:
        self.calls += 1
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    request_filter: RequestFilter,
    path: str,
    chunks: Sequence[bytes] = (b"",),
    length: int | None = None,
    client: str = "a",
):
    """Send one request -> (status, headers, body)."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": (client, 1)}
    incoming = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(request_filter(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/predict",
        "/gradio_api/api/predict_depth",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/file=http://169.254.169.254/latest",
        "/gradio_api/file=HTTPS://example.com/a.png",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/monitoring/summary",
        "/docs",
        "/login",
        "/a-route-that-gradio-adds-next-year",
    ],
)
def test_unknown_routes_are_not_found(path):
    app = Echo()
    status, headers, body = ask(RequestFilter(app), path)
    assert (status, app.calls) == (404, 0)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert json.loads(body)["detail"]


@pytest.mark.parametrize("path", ["/", "/config", JOIN, "/gradio_api/call/predict_depth", "/assets/index.js", UPLOAD])
def test_what_the_page_needs_passes_with_our_headers(path):
    assert allowed(path)
    status, headers, _ = ask(RequestFilter(Echo()), path, [b"{}"])
    assert status == 200
    assert set(HEADERS) <= set(headers.items())


def test_a_body_over_its_limit_is_refused_while_it_is_received():
    app = Echo()
    status, _, body = ask(RequestFilter(app), JOIN, [b"x"], length=JSON_LIMIT + 1)
    assert (status, app.calls) == (413, 0)
    status, _, body = ask(RequestFilter(app), JOIN, [b"x" * 1000] * 400)  # chunked: no length is given
    assert status == 413
    assert "40 MB" in json.loads(body)["detail"]
    status, _, body = ask(RequestFilter(app), UPLOAD, [b"x" * 1000] * 400)
    assert (status, body) == (200, b"400000")


def test_the_proxy_that_is_described_lets_through_what_the_app_takes():
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (mebibytes,) = re.findall(r"client_max_body_size (\d+)m;", guide)
    assert int(mebibytes) * 2**20 >= max(middleware.LIMITS.values())


def test_one_client_is_held_back_then_refused_and_cannot_flood_the_others(monkeypatch):
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(middleware.time, "monotonic", lambda: 1000.0)
    request_filter = RequestFilter(Echo())
    most = BURST + int(WAIT_S * REFILL_PER_S)
    answers = [ask(request_filter, JOIN, client="class") for _ in range(most + 20)]
    assert [status for status, _, _ in answers] == [200] * most + [429] * 20
    np.testing.assert_allclose(waits, [0] * BURST + [n / REFILL_PER_S for n in range(1, most - BURST + 1)])
    assert answers[-1][1][b"retry-after"] == b"61"
    assert ask(request_filter, JOIN, client="other")[0] == 200 and waits[-1] == 0

    monkeypatch.setattr(middleware.time, "monotonic", lambda: 1061.0)
    assert ask(request_filter, JOIN, client="class")[0] == 200 and waits[-1] < 1


def test_a_full_disk_takes_no_upload_and_all_else_goes_on(monkeypatch, tmp_path):
    request_filter = RequestFilter(Echo(), tmp_path)
    assert ask(request_filter, UPLOAD, [b"x"])[0] == 200
    monkeypatch.setattr(middleware, "has_room", lambda folder: folder != tmp_path)
    status, _, body = ask(request_filter, UPLOAD, [b"x"])
    assert status == 507 and "disk" in json.loads(body)["detail"]
    assert ask(request_filter, JOIN)[0] == 200


def test_behind_a_proxy_the_client_is_the_proxys_own_entry(monkeypatch):
    from marigold_core.ui.middleware import client

    scope = {"headers": [(b"x-forwarded-for", b"6.6.6.6, 10.0.0.7")], "client": ("10.0.0.1", 1)}
    assert client(scope) == "10.0.0.1"  # anyone may write that header where no proxy is known
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert client(scope) == "10.0.0.7"


def test_our_errors_are_told_and_others_become_a_reference(caplog):
    import gradio as gr

    with pytest.raises(gr.Error, match="‹img›") as told, translate_errors():
        raise ImageError("The photo <img> is damaged.")
    assert "<" not in told.value.message
    with pytest.raises(gr.Error, match="reference") as hidden, translate_errors():
        raise KeyError("/secret/path")
    assert "secret" not in hidden.value.message
    reference = hidden.value.message.split("reference is ")[1].split(".")[0]
    assert reference in caplog.text and "secret" in caplog.text


def asked(endpoint: Endpoint, given: dict[str, Any]) -> dict[str, Any]:
    """A call with some arguments, else the defaults."""
    depth = str(examples.RESULTS / "temple_depth.png") if endpoint is GIVEN else None
    files = [PHOTO, depth][: len(endpoint.files)]
    return {**endpoint.complete([*files, *[None] * len(endpoint.arguments)]), **given}


@pytest.mark.parametrize("value", [float("nan"), True, 4.7, 1e9, 10**9, -1, 0, "50", [], {}, float("inf")])
@pytest.mark.parametrize("name", ["num_inference_steps", "ensemble_size", "batch_size"])
def test_wrong_numbers_are_refused_in_a_sentence(name, value):
    at, problem = fault(DEPTH, asked(DEPTH, {name: value})) or ("", "")
    assert at == name and name in problem and problem.endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**32),
        ("processing_resolution", 100),
        ("checkpoint", "/etc"),
        ("checkpoint", "somebody/else"),
        ("checkpoint", 7),
        ("formats", ["exe"]),
        ("formats", "npy,exe"),
        ("colormap", "jet"),
        ("colormap", {}),
        ("fov_x_deg", float("nan")),
        ("max_triangles", 10**9),
        ("photo", None),
    ],
)
def test_other_wrong_arguments_are_refused_in_a_sentence(name, value):
    at, _ = fault(DEPTH, asked(DEPTH, {name: value})) or ("", "")
    assert at == name
    assert fault(DEPTH, asked(DEPTH, {})) is None


@pytest.mark.parametrize(
    ("endpoint", "wrong", "at", "words"),
    [
        (DEPTH, {"photo": __file__}, "photo", "not a photo that can be read"),
        (DEPTH, {"formats": ["uncertainty"]}, "formats", "needs 3 or more members"),
        (DEPTH, {"save_for": ["rgbd"]}, "save_for", "needs depth in metres"),
        (DEPTH, {"formats": ["npy", "ply"], "uncertainty_cut": 0.1}, "uncertainty_cut", "needs 3 or more members"),
        (DEPTH, {"checkpoint": "normals", "formats": ["npy"]}, "formats", "A prediction of normals has no npy"),
        (DEPTH, {"checkpoint": "e2e-ft", "num_inference_steps": 4}, "num_inference_steps", "ask for 1 denoising step"),
        (DEPTH, {"checkpoint": "lotus-d", "ensemble_size": 3}, "ensemble_size", "is deterministic"),
        (MESH, {"checkpoint": "normals"}, "checkpoint", "A prediction of normals has no glb"),
        *((one, {"decoder": "tiny"}, "decoder", "decoder tiny needs") for one in (DEPTH, MESH, DEFOCUS)),
        (METRES, {"anchors": [[5, 5, 2], [5, 5, 3]], "method": "completion"}, "anchors", "contradict each other"),
        (
            METRES,
            {"anchors": [[5, 5, 2], [90, 90, 3]], "method": "completion", "views": "mirrored"},
            "views",
            "must be 'photo' for a completion",
        ),
        (METRES, {}, "anchors", "Give a known depth"),
        (METRES, {"anchors": [[5, 5, 2]]}, "anchors", "alone cannot fix both the scale and the shift"),
        (METRES, {"anchors": [[5, 5, 2], [640, 5, 3]]}, "anchors", "outside the photo, which has 640 x 427 pixels"),
        (METRES, {"lengths": [[5, 5, 90, 90, 2]]}, "lengths", "needs the camera's field of view"),
        (METRES, {"patch": [[5, 5, 9000, 90]]}, "patch", "lies outside the photo"),
        (METRES, {"near_m": -1}, "near_m", "must be a number of metres above 0"),
        (
            METRES,
            {"anchors": [[5, 5, 2], [9, 9, 3]], "checkpoint": "normals"},
            "checkpoint",
            "Metres are found for depth",
        ),
        (GIVEN, {"formats": ["uncertainty"]}, "formats", "a depth map from elsewhere has none"),
        (GIVEN, {"depth": None}, "depth", "This photo carries no depth map"),
        (GIVEN, {"kind": "metric"}, "unit_m", "unit_m is needed for metres"),
        (GIVEN, {"measured": "ray"}, "measured", "needs kind scale or metric"),
        (GIVEN, {"measured": "ray", "kind": "scale"}, "fov_x_deg", "the photo tells no field of view"),
        (GIVEN, {"quantity": "depth", "kind": "scale", "greater": "nearer"}, "quantity", "is farther where it"),
        (GIVEN, {"depth": __file__}, "depth", "This is no depth map that can be read"),
        (GIVEN, {"save_for": ["rgbd"]}, "save_for", "needs depth in metres"),
        (GIVEN, {"anchors": [[5, 5, 3]]}, "anchors", "alone cannot fix both the scale and the shift"),
        (GIVEN, {"anchors": [[640, 5, 3]]}, "anchors", "lies outside the photo"),
        (COMPARE, {"steps": [1, 1, 99]}, "steps", "steps must be less than or equal to 50"),
        (COMPARE, {"seeds": []}, "seeds", "seeds must have at least one value"),
        (COMPARE, {"seeds": [0, 1, 2, 3, 4, 5]}, "seeds", "cells are too many"),
        (COMPARE, {"processing_resolution": 100}, "processing_resolution", "must be a multiple of 8"),
        (COMPARE, {"views": "upside"}, "views", "views must be"),
        (COMPARE, {"checkpoints": ["nano", "e2e-ft"]}, "steps", "ask for 1 denoising step, not 10"),
        (COMPARE, {"checkpoints": ["lotus-d"], "steps": [1]}, "sizes", "is deterministic"),
        (COMPARE, {"checkpoints": ["nano", "normals"]}, "checkpoints", "differ in meaning"),
        (COMPARE, {"checkpoints": []}, "checkpoints", "Choose at least one checkpoint"),
        (COMPARE, {"checkpoints": ["/etc"]}, "checkpoints", "There is no checkpoint"),
        (COMPARE, {"depth": __file__}, "depth", "This is no depth map that can be read"),
        (COMPARE, {"greater": "nearer"}, "greater", "greater is of use with a depth map"),
        (COMPARE, {"fov_x_deg": 60}, "fov_x_deg", "is of use with a depth map"),
        (COMPARE, {"depth": PLANE, "quantity": "disparity"}, "depth", "The depth map cannot be compared"),
        (PANORAMA, {}, "photo", "twice as wide as high, but this has 640 x 427 pixels"),
        (PANORAMA, {"checkpoint": "normals"}, "checkpoint", "made of depth, but normals predicts normals"),
        (VIDEO, {"video": None}, "video", "Give a video"),
        (VIDEO, {"video": __file__}, "video", "cannot be read as a video"),
        (VIDEO, {"video_formats": ["mov"]}, "video_formats", "video_formats must be"),
        (VIDEO, {"carry": 1}, "carry", "carry must be less than or equal to 0.5"),
        (PARALLAX, {"rate": 61}, "rate", "rate must be less than or equal to 60"),
        (PARALLAX, {"seconds": 30, "rate": 60}, "seconds", "make 492 megapixels"),
        (DEFOCUS, {"focus": [640, 0]}, "focus", "lies outside the photo of 640 x 427 pixels"),
        (DEFOCUS, {"focus": [1]}, "focus", "focus"),
        (DEFOCUS, {"aperture": 0.2}, "aperture", "aperture must be less than or equal to 0.1"),
    ],
)
def test_what_arguments_tell_is_refused_before_the_run_where_it_is_wrong(
    endpoint: Endpoint, wrong: dict[str, Any], at: str, words: str
) -> None:
    found = fault(endpoint, asked(endpoint, wrong))
    assert found and found[0] == at and words in found[1]


def test_by_default_a_call_is_given_what_suits_its_checkpoint():
    assert fault(DEPTH, asked(DEPTH, {"checkpoint": "normals"})) is None


def test_formats_are_those_of_the_endpoint():
    assert fault(DEPTH, asked(DEPTH, {"formats": ["npy"]})) is None
    assert fault(MESH, asked(MESH, {"formats": ["npy"]})) == (
        "formats",
        "formats must be 'glb', 'ply' or 'stl', but got 'npy'.",
    )


def test_null_stands_for_the_default():
    given = DEPTH.complete([PHOTO, *[None] * len(DEPTH.arguments)])
    assert given == {"photo": PHOTO, **{one.name: one.default for one in DEPTH.arguments}}
    assert given["ensemble_size"] == 1 and fault(DEPTH, given) is None


def test_a_file_is_described_completely(tmp_path):
    (tmp_path / "a b.glb").write_bytes(b"12345")
    described = describe_file(tmp_path / "a b.glb")
    assert described["url"] == f"/gradio_api/file={tmp_path}/a%20b.glb"
    assert (described["size"], described["orig_name"], described["mime_type"]) == (5, "a b.glb", "model/gltf-binary")
    assert described["meta"] == {"_type": "gradio.FileData"}


def test_the_presets_are_those_of_the_library():
    assert set(text.PRESETS) == set(PRESETS)


def test_the_picker_lists_what_works(monkeypatch):
    entries = [
        NamedCheckpoint("nano", None, "depth", "bundled", available=True),
        NamedCheckpoint("v1-1", "prs-eth/marigold-depth-v1-1", "depth", "published"),
        NamedCheckpoint("gone", None, "depth", "bundled, but missing"),
    ]
    for module in (offered_checkpoints, hosting):
        monkeypatch.setattr(module, "named_checkpoints", lambda: entries)
    monkeypatch.setenv("MARIGOLD_MODEL", "/models/mine")
    choices = offered_checkpoints.checkpoint_choices()
    assert [name for _, name in choices] == ["/models/mine", "nano", "v1-1"]
    assert choices[0][0] == "mine"
    assert "2.6 GB" in choices[2][0]
    with pytest.raises(CheckpointError, match="choose one of"):
        hosting.check_checkpoint("gone")
