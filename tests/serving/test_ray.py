"""The endpoints as Ray Serve offers them, without a cluster: what reads requests, beside a replica in this process."""

import asyncio
import base64
import gc
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import click
import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError
from starlette.datastructures import FormData
from starlette.requests import Request

from marigold_core import Settings, load
from marigold_core.errors import SettingsError
from marigold_core.pipeline.together import TogetherPipeline
from marigold_core.serving import ray, request_body
from marigold_core.serving.api.endpoints import ENDPOINTS
from tests.helpers.encoded import encoded, npy

QUICK = {"num_inference_steps": "1", "processing_resolution": "64"}
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def replica(tiny_depth: Path) -> Iterator[ray.Model]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARIGOLD_MODEL", str(tiny_depth))
        model = ray.Model("cpu", 1, {})
        yield model
        model.__del__()


def sender(reader: ray.Reader) -> Callable[..., Any]:
    """Return what sends a request, and waits for the answer of this reader."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await (await reader(Request(scope, receive)))(scope, receive, send)

    async def send(method: str, path: str, **how: Any) -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://cluster") as client:
            return await client.request(method, path, **how)

    return send


def replicas(run: Callable[..., Any] | None) -> Any:
    """Replicas that answer by ``run``."""
    return SimpleNamespace(run=SimpleNamespace(remote=run))


def ask_of(run: Callable[..., Any] | None) -> Ask:
    """Return what sends a request to a ``Reader`` whose replicas answer by ``run``."""
    send = sender(ray.Reader(replicas(run), {}))
    return lambda method, path, **how: asyncio.run(send(method, path, **how))


@pytest.fixture(scope="module")
def ask(replica: ray.Model) -> Ask:
    return ask_of(replica.run)


@pytest.fixture(scope="module")
def png(photo) -> bytes:
    return encoded(photo())


def test_it_offers_the_endpoints_of_the_page_with_their_arguments(ask: Ask) -> None:
    offered = ask("GET", "/").json()
    for endpoint in ENDPOINTS:
        assert [*offered[endpoint.name]["arguments"]] == [one.name for one in endpoint.arguments]
        assert offered[endpoint.name]["files"] == endpoint.files
    assert offered["predict_depth"]["arguments"]["seed"]["maximum"] == 2**32 - 1


def test_answers_are_what_the_library_makes(ask: Ask, png: bytes, tiny_depth: Path, replica: ray.Model) -> None:
    form = {**QUICK, "ensemble_size": "3", "seed": "7", "formats": ["npy", "uncertainty"]}
    answer = ask("POST", "/predict_depth", data=form, files={"photo": ("x.png", png)})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="predict_depth.zip"'
    settings = Settings(num_inference_steps=1, processing_resolution=64, ensemble_size=3, seed=7)
    found = load(tiny_depth, device="cpu")(png, settings)
    with ZipFile(io.BytesIO(answer.content)) as bundle:
        assert sorted(bundle.namelist()) == ["depth.npy", "manifest.json", "uncertainty.npy", "uncertainty.png"]
        np.testing.assert_array_equal(np.load(io.BytesIO(bundle.read("depth.npy"))), found.values)
        assert json.loads(bundle.read("manifest.json"))["settings"]["seed"] == 7
    form["formats"] = json.dumps(["npy"])
    answer = ask("POST", "/predict_depth", data=form, files={"photo": png}, headers={"accept": "application/json"})
    told = answer.json()
    assert sorted(told) == ["manifest", "npy"] and told["npy"]["orig_name"] == "depth.npy"
    values = np.load(io.BytesIO(base64.b64decode(told["npy"]["url"].partition(",")[2])))
    np.testing.assert_array_equal(values, found.values)
    assert [path.name for path in replica._folder.iterdir()] == ["results"]  # no uploads are left


def test_jobs_of_several_clients_share_the_passes_of_the_network(tiny_depth: Path, png: bytes, monkeypatch) -> None:
    """Two clients' members go through the U-Net as one batch, and each client gets its own result."""
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    replica: Any = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=2))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: replica)  # which serve.batch asks
    monkeypatch.setattr(ray, "BATCH_WAIT_S", 5.0)  # on a busy machine
    passes, real = list[int](), TogetherPipeline.predict_velocities
    monkeypatch.setattr(
        TogetherPipeline, "predict_velocities", lambda pipe, asked: passes.append(len(asked)) or real(pipe, asked)
    )
    asked: list[dict[str, Any]] = [
        {"num_inference_steps": steps, "processing_resolution": 64, "seed": steps} for steps in (12, 16)
    ]

    def ask_both() -> list[ray.Reply]:
        model = ray.Model("cpu", 2, {})
        given = (ray.ENDPOINT_OF["predict_depth"].read({**one, "formats": ["npy"]}) for one in asked)

        async def ask() -> list[ray.Reply]:
            return await asyncio.gather(
                *(model.run("predict_depth", one, {"photo": (".png", png)}, False) for one in given)
            )

        return asyncio.run(ask())

    async def collect() -> None:
        gc.collect()

    replies = ask_both()
    asyncio.run(collect())  # Ray's queues ask for a loop as they go, and would leave a new one open where none runs
    assert max(passes) == 2 and 16 <= len(passes) < 12 + 16
    pipe = load(tiny_depth, device="cpu")
    for one, (status, _, content) in zip(asked, replies, strict=True):
        values = np.load(io.BytesIO(ZipFile(io.BytesIO(content)).read("depth.npy")))
        assert status == 200
        np.testing.assert_allclose(values, pipe(png, Settings(**one)).values, atol=1e-3)  # sums of other batches


def test_two_files_and_lists_of_numbers(ask: Ask, png: bytes) -> None:
    depth = npy(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1)))
    files = {"photo": ("x.png", png), "depth": ("d.npy", depth)}
    form = {"anchors": "[[10, 20, 2], [50, 20, 4]]", "formats": "npy"}
    answer = ask("POST", "/import_depth", data=form, files=files, headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    assert [one["found"] for one in answer.json()["calibration"]["residuals"]] == pytest.approx([2, 4], abs=1e-3)


@pytest.mark.parametrize(
    ("method", "path", "form", "status", "sentence"),
    [
        ("POST", "/nope", {}, 404, "There is no endpoint 'nope'; there are predict_depth, "),
        ("GET", "/predict_depth", {}, 405, "Send the photo and the arguments of predict_depth by POST, as a form."),
        ("DELETE", "/", {}, 405, "GET lists the endpoints; POST goes to one of them."),
        ("POST", "/", {}, 405, "GET lists the endpoints"),
        (
            "PNG",
            "/predict_depth/?seed=3",
            {},
            422,
            "predict_depth takes arguments as fields of the form, not after '?'",
        ),
        ("POST", "/predict_depth", {}, 422, "Give a photo: send it as a file of a form, multipart/form-data."),
        ("JSON", "/predict_depth", {"seed": 3}, 422, "Give a photo: send it as a file of a form"),
        ("PNG photo", "/predict_depth", {}, 422, "photo was given twice; send one file."),
        ("PNG", "/predict_depth", {"photo": "hello"}, 422, "photo was given twice; send one file."),
        ("PNG depth", "/predict_depth", {}, 422, "depth is no file of predict_depth."),
        ("PNG seed", "/predict_depth", {"seed": "3"}, 422, "seed is no file of predict_depth."),
        ("PNG", "/import_depth", {"depth": "x"}, 422, "depth is a file of import_depth."),
        ("PNG", "/import_depth", {"depth": ""}, 422, "This photo carries no depth map; "),
        ("PNG", "/import_depth", {"depth": "null"}, 422, "This photo carries no depth map; "),
        ("POST", "/predict_depth", {"photo": "/etc/passwd"}, 422, "photo is a file of predict_depth."),
        ("POST", "/predict_depth", {"x": "1"}, 422, "predict_depth has no argument 'x'; it takes photo, "),
        ("PNG", "/predict_depth", {"ensemble_size": "99"}, 422, "ensemble_size must be less than or equal to 20"),
        ("PNG", "/predict_depth", {"seed": "NaN"}, 422, "seed must be "),
        ("PNG", "/predict_depth", {"seed": ["1", "2"]}, 422, "seed must be "),
        ("PNG", "/predict_depth", {"checkpoint": "/root"}, 422, "There is no checkpoint '/root' here; choose one of "),
        ("PNG", "/calibrate", {"anchors": "[[1, 2]]"}, 422, "anchors"),
        ("PNG" + " photo" * 16, "/predict_depth", {}, 400, "This could not be read; send up to 16 files"),
        ("BODY", "/predict_depth", {}, 400, "This could not be read; send up to 16 files, and arguments, as multipart"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence_before_it_waits(
    method: str, path: str, form: dict[str, Any], status: int, sentence: str, png: bytes
) -> None:
    how: dict[str, Any] = {"data": form} if form else {}
    if method.startswith("PNG"):
        how["files"] = [(name, png) for name in ("photo", *method.split()[1:])]
    if method == "JSON":
        how = {"json": form}
    if method == "BODY":
        how = {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}
    answer = ask_of(None)(method if method in ("GET", "DELETE") else "POST", path, **how)  # no replica is asked
    assert answer.status_code == status and ("allow" in answer.headers) == (status == 405)
    assert answer.json()["detail"].startswith(sentence)


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"near_clip": ".9"}, {"near_clip": 0.9}),
        ({"follow_outlines": "True"}, {"follow_outlines": True}),
        ({"seed": "1.0"}, {"seed": 1}),
        ({"seed": "", "formats": "None"}, {"seed": 0, "formats": None}),
        ({"formats": ["npy", '["color"]']}, {"formats": ["npy", "color"]}),
        ({"formats": "[]"}, {"formats": []}),
    ],
)
def test_what_is_plain_is_understood(form: dict[str, Any], found: dict[str, Any], png: bytes) -> None:
    async def run(name: str, given: dict[str, Any], *_: object) -> ray.Reply:
        return 200, ray.JSON, json.dumps(given).encode()

    read = ask_of(run)("POST", "/predict_depth", data=form, files={"photo": png}).json()
    assert {name: read[name] for name in found} == found


@pytest.mark.parametrize("rows", [["[10, 20, 2]"], ["[10, 20, 2]", "[50, 20, 4]"], ["[[10, 20, 2]]", "[50, 20, 4]"]])
def test_a_row_of_numbers_is_a_list_of_one(rows: list[str], tmp_path: Path) -> None:
    fields = FormData([("anchors", row) for row in rows])
    given, _ = asyncio.run(ray.take_apart(ray.ENDPOINT_OF["import_depth"], fields, tmp_path))
    assert given["anchors"] == [[10, 20, 2], [50, 20, 4]][: len(rows)]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json;q=0", ray.ZIP),
        ("application/json;q=0.5, application/zip", ray.ZIP),
        ("application/json-seq, */*", ray.ZIP),
        ("Application/JSON, text/plain, */*", ray.JSON),
        ("application/zip;q=0.1, application/json; charset=utf-8; q=0.2", ray.JSON),
    ],
)
def test_json_is_for_who_accepts_it(accept: str, kind: str, png: bytes) -> None:
    async def run(name: str, given: object, files: object, as_json: bool) -> ray.Reply:
        return 200, ray.JSON if as_json else ray.ZIP, b""

    answer = ask_of(run)("POST", "/predict_depth", files={"photo": png}, headers={"accept": accept})
    assert answer.headers["content-type"] == kind


def test_too_large_files_are_refused_while_they_are_received(monkeypatch, png: bytes) -> None:
    monkeypatch.setattr(ray, "FILE_LIMIT", 1000)
    answer = ask_of(None)("POST", "/predict_depth", files={"photo": b"x" * 2000})
    assert answer.status_code == 413
    monkeypatch.setattr(ray, "JSON_LIMIT", 10)
    answer = ask_of(None)("POST", "/predict_depth", files={"photo": b"x" * 2000})
    assert answer.status_code == 413 and "MB each" in answer.json()["detail"]
    assert request_body.FILE_LIMIT == 40e6


def test_a_full_line_says_when_to_come_again(png: bytes) -> None:
    async def full(*_: object) -> ray.Reply:
        raise BackPressureError(3, 3)

    answer = ask_of(full)("POST", "/predict_depth", files={"photo": png})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "All replicas are busy and no more may wait; try again in 5 s."


def test_files_of_those_who_wait_take_so_much_memory_and_no_more(png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "MOST_WAITING_BYTES", 2 * len(png))
    statuses = list[int]()

    async def wait(*_: object) -> ray.Reply:
        await asyncio.sleep(0.05 if len(statuses) else 0)
        while len(statuses) < 1:
            await asyncio.sleep(0.01)
        return 200, ray.JSON, b"{}"

    send = sender(ray.Reader(replicas(wait), {}))

    async def ask() -> int:
        return (await send("POST", "/predict_depth", files={"photo": png})).status_code

    async def three() -> list[int]:
        tasks = [asyncio.ensure_future(ask()) for _ in range(3)]
        for task in asyncio.as_completed(tasks):
            statuses.append(await task)
        return [*statuses, await ask()]

    assert asyncio.run(three()) == [503, 200, 200, 200]  # and then there is room again


def test_a_lost_replica_is_a_sentence(png: bytes) -> None:
    async def lost(*_: object) -> ray.Reply:
        raise ActorDiedError()

    answer = ask_of(lost)("POST", "/predict_depth", files={"photo": png})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "The replica that worked at this was lost; send it again."


def test_who_leaves_stops_the_job_before_its_next_step(replica: ray.Model, png: bytes, monkeypatch) -> None:
    steps = list[int]()

    async def leave() -> None:
        begun = asyncio.Event()

        def run(service: object, given: object) -> Iterator[dict[str, str]]:
            for step in range(1000):
                steps.append(step)
                loop.call_soon_threadsafe(begun.set)
                time.sleep(0.01)
                yield {"progress": str(step)}

        endpoint: Any = SimpleNamespace(answers=run)
        monkeypatch.setitem(ray.ENDPOINT_OF, "slow", endpoint)
        loop = asyncio.get_running_loop()
        call = asyncio.ensure_future(replica.run("slow", {}, {}, False))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(leave())  # which waits for the job's thread
    assert 0 < len(steps) < 1000


def test_options_are_checked_and_no_cluster_is_needed_for_them() -> None:
    assert ray.app({"max_replicas": "3", "checkpoint": "nano", "device": "cpu"})  # as ``serve run`` does
    with pytest.raises(SettingsError, match="max_replicas must be"):
        ray.app({"max_replicas": "none"})
    told = CliRunner().invoke(click.command()(lambda: ray.app({"min_replicas": "0"})))  # as ``serve run`` does
    assert told.exit_code == 1 and told.output.startswith("Error: min_replicas must be")
