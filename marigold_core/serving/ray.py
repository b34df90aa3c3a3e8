"""The endpoints on a Ray cluster, by Ray Serve: ``serve run marigold_core.serving.ray:app``.

``POST /predict_depth`` and so on, with names, arguments, ranges and refusals of ``serving.api``: files and arguments
are fields of a form (multipart/form-data), an empty one is null, a list is JSON or a field more than once. The answer
is a ZIP, or JSON with the files in it for who accepts ``application/json``. ``GET /`` lists endpoints and arguments.

One process reads requests and refuses what is wrong before it waits. Replicas, as many as the load asks for, each hold
a loaded checkpoint; Ray Serve starts, ends and replaces them, and keeps the requests that wait.
"""

import asyncio
import base64
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import ray
from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from marigold_core import load
from marigold_core.checkpoints.registry import default_checkpoint
from marigold_core.errors import MarigoldError, SettingsError
from marigold_core.files import archive
from marigold_core.serving.actors import ActorOptions, environment
from marigold_core.serving.api.answers import Answer
from marigold_core.serving.api.arguments import Arguments
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINT_OF, ENDPOINTS, Endpoint
from marigold_core.serving.jobs import Service
from marigold_core.serving.request_body import (
    FILE_LIMIT,
    JSON_LIMIT,
    BodyRefusedError,
    LimitedBody,
    RefusedError,
    declared_length,
)
from marigold_core.serving.results import OF_CALL

log = logging.getLogger(__name__)
engine, server = cast(Any, ray), cast(Any, serve)  # partly untyped

TOGETHER_ON_GPU = 4
BATCH_WAIT_S = 0.005  # that a job waits for the next step of the others; less than a step
FIRST_RETRY_S = 5.0  # told before any request has ended
MOST_FILES = 16  # of a form that is read, so that those that are too many can be named
MOST_WAITING_BYTES = 2**30  # of the files of requests that wait for an answer, which are held in memory
MOST_READING = 256  # requests that are read or wait for an answer at once
KEPT_BYTES = 256 * 2**20  # of results, between the model and their files
ZIP, JSON = "application/zip", "application/json"
Reply = tuple[int, str, bytes]  # status, type and content


class ServeOptions(ActorOptions):
    """How the endpoints are served; each is ``name=value`` after ``serve run marigold_core.serving.ray:app``."""

    checkpoint: str | None = Field(None, description="by default $MARIGOLD_MODEL, else nano")
    device: str = Field("auto", description="where each replica computes; auto takes the best one")
    min_replicas: int = Field(1, ge=1, description="replicas that are always there")
    max_replicas: int = Field(4, ge=1, description="most replicas, when requests wait")
    max_queued_requests: int = Field(64, ge=1, description="requests that may wait; more are told to come again")
    together: int | None = Field(
        None, ge=1, le=64, description=f"jobs of a replica at once; by default {TOGETHER_ON_GPU} on a GPU, else 1"
    )


def app(given: dict[str, Any]) -> Any:
    """Make the application for ``serve run`` or ``serve.run``, of options by name. Raises: SettingsError."""
    try:
        options = ServeOptions(**{name: read_value(value) for name, value in given.items()})
    except SettingsError as error:
        import click

        if click.get_current_context(silent=True):  # ``serve run`` prints a trace of any other error
            raise click.ClickException(str(error)) from None
        raise
    gpus = options.gpus(resources())
    together = options.together or (TOGETHER_ON_GPU if gpus else 1)
    variables = {**environment(), **({"MARIGOLD_MODEL": options.checkpoint} if options.checkpoint else {})}
    model = server.deployment(
        Model,
        name="model",
        ray_actor_options={"num_cpus": options.ray_cpus, "num_gpus": gpus},
        max_ongoing_requests=together,
        max_queued_requests=options.max_queued_requests,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": max(options.min_replicas, options.max_replicas),
            "target_ongoing_requests": together,
        },
    )
    reader = server.deployment(
        Reader, name="reader", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=MOST_READING
    )
    return reader.bind(model.bind(options.device, together, variables), variables)


def resources() -> dict[str, float]:
    """Return what the cluster has, or this machine before ``serve run`` has connected to one."""
    if engine.is_initialized():
        return engine.cluster_resources()
    import torch

    return {"GPU": float(torch.cuda.device_count())}


class Reader:
    """Reads requests, refuses what is wrong with them, and hands the others to the replicas."""

    def __init__(self, model: Any, variables: Mapping[str, str]) -> None:
        """Hand calls to the deployment ``model``; ``variables`` of the environment name what is offered."""
        os.environ.update(variables)
        self._model, self._last_s, self._waiting_bytes = model, FIRST_RETRY_S, 0

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        name = request.url.path.strip("/")
        try:
            if not name:
                if request.method not in ("GET", "HEAD"):
                    raise RefusedError(405, "GET lists the endpoints; POST goes to one of them.", allow="GET, HEAD")
                return JSONResponse({endpoint.name: described(endpoint) for endpoint in ENDPOINTS})
            if name not in ENDPOINT_OF:
                raise RefusedError(404, f"There is no endpoint {name!r}; there are {', '.join(ENDPOINT_OF)}.")
            if request.method != "POST":
                raise RefusedError(405, f"Send the photo and the arguments of {name} by POST, as a form.", allow="POST")
            if request.url.query:
                raise RefusedError(422, f"{name} takes arguments as fields of the form, not after '?' in the address.")
            accept = request.headers.get("accept", "")
            as_json = 0 < weight(accept, JSON) >= weight(accept, ZIP)
            with tempfile.TemporaryDirectory(prefix="marigold-") as folder:
                given, files = await read_form(ENDPOINT_OF[name], request, Path(folder))
                began = time.monotonic()
                status, kind, content = await self._run(name, given, files, as_json)
            self._last_s = time.monotonic() - began
            headers = {"content-disposition": f'attachment; filename="{name}.zip"'} if kind == ZIP else None
            return Response(content, status, headers, kind)
        except RefusedError as error:
            return JSONResponse({"detail": str(error)}, error.status, error.headers)
        except (BackPressureError, MemoryError):
            wait_s = math.ceil(self._last_s)
            sentence = f"All replicas are busy and no more may wait; try again in {wait_s} s."
            return JSONResponse({"detail": sentence}, 503, {"retry-after": str(wait_s)})
        except RayActorError:
            sentence = "The replica that worked at this was lost; send it again."
            return JSONResponse({"detail": sentence}, 503, {"retry-after": str(math.ceil(FIRST_RETRY_S))})

    async def _run(self, name: str, given: Arguments, files: Mapping[str, Path], as_json: bool) -> Reply:
        """Hand a call to a replica. Raises: MemoryError where the files of those that wait are too large."""
        size = sum(path.stat().st_size for path in files.values())
        if self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise MemoryError
        self._waiting_bytes += size
        try:
            content = {name: (path.suffix, path.read_bytes()) for name, path in files.items()}
            return await self._model.run.remote(name, given, content, as_json)
        finally:
            self._waiting_bytes -= size


def weight(accept: str, kind: str) -> float:
    """Return the weight that a header ``accept`` gives a type that it names, from 0 to 1, else 0."""
    found = re.search(rf"{kind}(?![^\s;,])(?:[^,]*;\s*q=(\d(?:\.\d*)?))?", accept.lower())
    return float(found[1] or 1) if found else 0.0


async def read_form(endpoint: Endpoint, request: Request, folder: Path) -> tuple[Arguments, dict[str, Path]]:
    """Read a call -> its arguments, complete and checked, without the files; the files, which are in the folder.

    Raises: RefusedError.
    """
    limit = FILE_LIMIT * len(endpoint.files) + JSON_LIMIT
    checked = Request(request.scope, LimitedBody(request.receive, limit))
    most = {"max_files": MOST_FILES, "max_fields": JSON_LIMIT // 16, "max_part_size": JSON_LIMIT}
    try:
        if declared_length(request.scope) > limit:
            raise BodyRefusedError
        form = await checked.form(**most)
    except BodyRefusedError:
        raise RefusedError(413, f"Files may have {FILE_LIMIT // 10**6} MB each, and a minute to arrive.") from None
    except (MultiPartException, HTTPException, ClientDisconnect):
        sentence = f"This could not be read; send up to {MOST_FILES} files, and arguments, as multipart/form-data."
        raise RefusedError(400, sentence) from None
    try:
        named, files = await take_apart(endpoint, form, folder)
    finally:
        await form.close()
    try:
        given, first = endpoint.read(named), next(iter(endpoint.files))
        if first not in files:
            raise RefusedError(422, f"Give a {first}: send it as a file of a form, multipart/form-data.")
        found = await asyncio.to_thread(fault, endpoint, {**given, **{name: str(files[name]) for name in files}})
    except MarigoldError as error:
        raise RefusedError(422, str(error)) from None
    if found:
        raise RefusedError(422, found[1])
    return given, files


async def take_apart(endpoint: Endpoint, form: FormData, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read the fields of a form -> arguments, and files, which are put into the folder. Raises: RefusedError."""
    named: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for name in form:
        values = [value for value in map(read_value, form.getlist(name)) if value is not None]
        if name in endpoint.files:
            if len(values) > 1:
                raise RefusedError(422, f"{name} was given twice; send one file.")
            for upload in values:
                if not isinstance(upload, UploadFile):
                    raise RefusedError(422, f"{name} is a file of {endpoint.name}.")
                if (upload.size or 0) > FILE_LIMIT:
                    raise RefusedError(413, f"{name} may have {FILE_LIMIT // 10**6} MB.")
                ending = Path(upload.filename or "").suffix[:16]
                files[name] = folder / f"{name}{ending if ending[1:].isalnum() else ''}"
                with files[name].open("wb") as file:
                    await asyncio.to_thread(shutil.copyfileobj, upload.file, file)
        elif any(isinstance(value, UploadFile) for value in values):
            raise RefusedError(422, f"{name} is no file of {endpoint.name}.")
        elif values and (depth := list_depth(endpoint.schemas().get(name, {}))):
            named[name] = [one for value in values for one in (value if is_nested(value, depth) else [value])]
        else:
            named[name] = values if len(values) > 1 else values[0] if values else None
    return named, files


def read_value(written: object) -> Any:
    """Read a value that is written as JSON or as Python does; nothing is null, whole numbers are integers."""
    if not isinstance(written, str):
        return written
    known = {"": None, "None": None, "True": True, "False": False}
    with suppress(ValueError, RecursionError):
        return known[written] if written in known else json.loads(written, parse_float=_number)
    with suppress(ValueError):
        return _number(written)  # such as .5
    return written


def _number(written: str) -> float:
    value = float(written)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def list_depth(schema: Mapping[str, Any]) -> int:
    """Return how deep a value of a JSON schema is nested: 2 for a list of rows, 0 where it is no list."""
    below = [list_depth(part) for part in schema.get("anyOf", [])]
    return max(below, default=1 + list_depth(schema["items"]) if "items" in schema else 0)


def is_nested(value: object, depth: int) -> bool:
    """Return whether a value is a list of that depth; an empty one may be of any."""
    return depth == 0 or (isinstance(value, list) and (not value or is_nested(cast(Any, value[0]), depth - 1)))


def described(endpoint: Endpoint) -> dict[str, Any]:
    """Describe what an endpoint does and takes."""
    return {"description": endpoint.description, "files": endpoint.files, "arguments": endpoint.schemas()}


def write(files: Mapping[str, tuple[str, bytes]], folder: Path) -> dict[str, str]:
    """Write the files of a call into a folder -> their paths."""
    places = {name: folder / f"{name}{ending}" for name, (ending, _) in files.items()}
    for name, place in places.items():
        place.write_bytes(files[name][1])
    return {name: str(place) for name, place in places.items()}


class Model:
    """A replica: a loaded checkpoint, and jobs that wait for it one after another or run together."""

    def __init__(self, device: str, together: int, variables: Mapping[str, str]) -> None:
        """Load the default checkpoint. Raises: CheckpointError, SettingsError, with which the replica fails."""
        os.environ.update(variables)
        self._device, self._together, self._running = device, together, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches = list[Any]()  # of each checkpoint that was loaded
        self._folder = Path(tempfile.mkdtemp(prefix="marigold-"))
        self._service = Service(
            self._folder / "results",
            loader=self._load,
            kept_bytes=KEPT_BYTES,
            device_lost=lambda: os._exit(1),
            together=together,
        )
        self._service.warm(default_checkpoint()).result()

    def __del__(self) -> None:
        """Remove what the replica wrote."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def run(self, name: str, given: Arguments, files: Mapping[str, tuple[str, bytes]], as_json: bool) -> Reply:
        """Run a call of an endpoint; one whose client has gone stops before its next step."""
        self._loop, gone = asyncio.get_running_loop(), threading.Event()
        self._count(1)
        try:
            return await asyncio.to_thread(self._run, ENDPOINT_OF[name], given, files, as_json, gone)
        finally:
            gone.set()
            self._count(-1)

    def _run(
        self,
        endpoint: Endpoint,
        given: Arguments,
        files: Mapping[str, tuple[str, bytes]],
        as_json: bool,
        gone: threading.Event,
    ) -> Reply:
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir()
        answer: Answer = {}
        try:
            with closing(cast(Any, endpoint.answers(self._service, {**given, **write(files, folder)}))) as answers:
                for answer in answers:  # noqa: B007 - the last one is what was asked for
                    if gone.is_set():
                        return 499, JSON, b""
            return reply(answer, folder, as_json)
        except MarigoldError as error:
            return 422, JSON, detail(str(error))
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("Unexpected error, reference %s", reference)
            return 500, JSON, detail(f"Something unexpected happened; the reference is {reference}.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            for file in answer.values():  # what nobody keeps for later
                place = Path(file["path"]).parent if is_file(file) else None
                if place and place.name.startswith(OF_CALL):
                    shutil.rmtree(place, ignore_errors=True)

    def _count(self, more: int) -> None:
        """Note how many jobs run, so that a step waits for no more than the other jobs' steps."""
        self._running += more
        for batch in self._batches:
            batch.set_max_batch_size(max(1, self._running))

    def _load(self, checkpoint: str, **dtype: Any) -> Any:
        if self._together == 1:
            return load(checkpoint, device=self._device, **dtype)
        from marigold_core.pipeline.together import Rows, TogetherPipeline

        pipe = TogetherPipeline.from_pretrained(checkpoint, device=self._device, **dtype)

        @server.batch(max_batch_size=self._together, batch_wait_timeout_s=BATCH_WAIT_S)
        async def velocities(asked: list[Rows]) -> list[Any]:
            return await asyncio.to_thread(pipe.predict_velocities, asked)

        def submit(rows: Rows) -> Any:
            assert self._loop is not None  # a call brought it
            return asyncio.run_coroutine_threadsafe(velocities(rows), self._loop).result()

        pipe.submit = submit
        self._batches.append(velocities)
        return pipe


def reply(answer: Answer, folder: Path, as_json: bool) -> Reply:
    """Write an answer with its files: as JSON, where a file's address holds it, or as a ZIP, where values are files."""
    if as_json:
        told = {name: {**inline(value)} if is_file(value) else value for name, value in answer.items()}
        return 200, JSON, json.dumps(told).encode()
    files = list[Path]()
    for name, value in answer.items():
        if is_file(value):
            files.append(Path(value["path"]))
        else:
            files.append(folder / f"{name}.json")
            files[-1].write_text(json.dumps(value, indent=1), encoding="utf-8")
    archive.write(files, bundle := folder / "answer.zip")
    return 200, ZIP, bundle.read_bytes()


def is_file(value: Any) -> bool:
    """Return whether a value of an answer is a file."""
    return isinstance(value, dict) and "orig_name" in value


def inline(file: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a file with its content as a data: URL."""
    content = base64.b64encode(Path(file["path"]).read_bytes()).decode()
    url = f"data:{file['mime_type']};base64,{content}"
    return {**{name: file[name] for name in ("orig_name", "size", "mime_type")}, "url": url}


def detail(sentence: str) -> bytes:
    """Write a refusal as JSON."""
    return json.dumps({"detail": sentence}).encode()
