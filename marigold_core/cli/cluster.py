"""``predict --ray``: photos spread over the actors of a Ray cluster, by Ray Data.

Ray Data starts as many actors as there is room for, hands them photos, begins an actor or a task anew whose process or
node was lost, and takes up nodes that join. A task that is begun anew finds what was finished before, so that only the
photo in flight is predicted twice. One that ends the process of every actor that takes it is given up after a few.
"""

import hashlib
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import Field

from marigold_core.cli.locations import EXTRA, is_address, locate, may_lack, relative, uploaded
from marigold_core.cli.photo_folders import STDIN, Job, finished_since
from marigold_core.cli.predictor import GIVEN_UP, MOST_ENDS, Outcome, Predictor, Work
from marigold_core.errors import CheckpointError, MarigoldError, SettingsError
from marigold_core.prediction import ProgressEvents
from marigold_core.serving.actors import ActorOptions, environment
from marigold_core.storage import write_bytes

if TYPE_CHECKING:
    import numpy as np

TASK_PHOTOS = 32  # most of one task, whose outcomes come together
TASKS_EACH = 16  # of every actor at least, so that the last ones end together
FINISHED = ".marigold-finished"  # folder of the output
CONNECT_S = 5.0  # that a cluster has to answer
_TOKENS = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
LIST_EVERY_S, LIST_MOST = 60.0, 10_000  # the list of finished photos is added to so often, and at so many


class ClusterOptions(ActorOptions):
    """How photos are spread over a Ray cluster; each actor holds a loaded checkpoint."""

    ray_actors: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most actors at once; by default as many as the cluster has room for"
    )


def ray_address(words: tuple[str, ...] | None) -> str | None:
    """Read the option ``--ray`` -> the address, "" for the cluster of this machine, None where it is not given.

    Raises: SettingsError for another value, and where Ray is not installed.
    """
    if words is None:
        return None
    if len(words) > 1 or any(":" not in word and word != "auto" for word in words):
        raise SettingsError(
            f"--ray takes one address, such as 10.0.0.1:6379, but got {' '.join(words)}; name photos before it."
        )
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise SettingsError(f"--ray needs Ray, which is not installed: {EXTRA}.")
    return words[0] if words else ""


def map_photos(
    jobs: Sequence[Job], work: Work, address: str, options: ClusterOptions
) -> Generator[tuple[Job, Outcome]]:
    """Predict photos on a cluster -> each with what became of it, in the order in which they end.

    Photos that a run with the same settings has listed as finished are not looked up again, unless they are to be
    overwritten.

    Raises:
        CheckpointError: an actor cannot load the checkpoint.
        SettingsError: the cluster cannot be reached, or has no room for an actor.
        MarigoldError: the cluster failed in the middle of the run.
    """
    if any(job.photo == STDIN for job in jobs):
        raise SettingsError('"-" reads one photo, which --ray cannot send to other machines; give its file.')
    work = replace(work, output=_absolute(work.output))
    finished = FinishedList(work)
    known = set[str]() if work.run.overwrite else finished.read()
    waiting = list[Job]()
    for job in jobs:
        if finished.line(job) in known and (is_address(job.folder) or finished_since(job.folder, 0, work.run.flat)):
            yield job, Outcome("kept", "was finished by another run")
        else:
            waiting.append(job)
    if not waiting:
        return
    try:
        for number, outcome in _outcomes(waiting, work, address, options):
            if outcome.state != "failed":
                finished.add(waiting[number])
            yield waiting[number], outcome
    finally:
        finished.write()


class FinishedList:
    """Which photos runs with the same settings have finished: files of lines in a hidden folder of the output.

    It saves looking up the results, of which there may be a million, one by one; what it lacks is looked up. Who
    removes a result from a store by hand removes the list as well, or runs with ``--overwrite``.
    """

    def __init__(self, work: Work) -> None:
        """Prepare for the settings of a run."""
        made = {name: getattr(work, name).model_dump() for name in ("settings", "mesh", "colours")}
        made |= {"checkpoint": work.checkpoint_sha256, "files": work.files, "flat": work.run.flat}
        key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
        self._output, self._folder = work.output, work.output / FINISHED / key[:16]
        self._new, self._written_at = list[str](), time.monotonic()

    def line(self, job: Job) -> str | None:
        """Name a photo, its content and its result by one line; None where the photo cannot be found."""
        version = job.version
        if version is None:
            with suppress(OSError):
                status = job.photo.stat()
                version = f"{status.st_size}|{status.st_mtime_ns}"
        name = relative(_absolute(job.folder), self._output).as_posix()
        return version and json.dumps([name, str(_absolute(job.photo)), version])

    def read(self) -> set[str]:
        """Read what is listed. A file that cannot be read costs that its photos are looked up. Raises: ExportError."""
        found = set[str]()
        with may_lack(self._folder):
            for file in self._folder.glob("*.jsonl") if self._folder.exists() else ():
                with may_lack(file):
                    found.update(file.read_text(encoding="utf-8").splitlines())
        return found

    def add(self, job: Job) -> None:
        """List a photo; it is written with others."""
        if line := self.line(job):
            self._new.append(line)
        if len(self._new) >= LIST_MOST or time.monotonic() - self._written_at > LIST_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write what is new. Raises: ExportError."""
        lines, self._new, self._written_at = self._new, list[str](), time.monotonic()
        if not lines:
            return
        name, content = f"{token_hex(8)}.jsonl", "".join(f"{line}\n" for line in lines).encode()
        if not is_address(self._folder):
            write_bytes(self._folder / name, content)
            return
        with uploaded(self._folder, name, []) as aside:
            (aside / name).write_bytes(content)


class Attempts:
    """How often each photo was begun whose process has not told how it ended."""

    def __init__(self) -> None:
        self._begun = Counter[int]()

    def note(self, number: int, is_over: bool) -> int:
        """Note that a photo is begun, or over -> how often it was begun."""
        self._begun[number] += 1
        return self._begun.pop(number) if is_over else self._begun[number]


class Actor:
    """Predicts photos in a process of the cluster, with a checkpoint that it loads once."""

    most_ends = MOST_ENDS

    def __init__(self, work: Work, environment: dict[str, str], note: Callable[[int, bool], int]) -> None:
        """Load the checkpoint; a refusal is told with the first photo, since Ray would try again.

        ``note`` is that of the ``Attempts`` of the run.
        """
        os.environ.update(environment)
        self._work, self._problem, self._note = work, "", note
        try:
            self._predictor = Predictor(work)
        except MarigoldError as error:
            self._problem = str(error)

    def __call__(self, rows: "dict[str, np.ndarray]") -> dict[str, list[Any]]:
        """Predict photos -> the number of each and its outcome as JSON."""
        places = zip(map(int, rows["number"]), rows["job"], strict=True)
        return {"number": [*rows["number"]], "outcome": [self._attempt(*one) for one in places]}

    def _attempt(self, number: int, place: str) -> str:
        if self._note(number, False) > self.most_ends:  # else Ray would begin it anew for ever
            return json.dumps(asdict(Outcome("failed", GIVEN_UP)))
        told = self._predict(place)
        self._note(number, True)
        return told

    def _predict(self, place: str) -> str:
        photo, folder = map(locate, json.loads(place))
        if self._problem:
            return json.dumps({"problem": self._problem})
        try:
            outcome = self._predictor.attempt(Job(photo, folder), _last, wait=True)
        except CheckpointError as error:
            return json.dumps({"problem": str(error)})
        assert outcome is not None  # it waited
        if outcome.state == "kept" and finished_since(folder, self._work.began, self._work.run.flat):
            outcome = replace(outcome, state="done", reason="")  # by an actor that was lost before it told
        return json.dumps(asdict(outcome))


def place_of(job: Job) -> str:
    """Write down where a photo and its result are, also of names that are no text, for ``Actor``."""
    return json.dumps([str(_absolute(job.photo)), str(_absolute(job.folder))])


def outcome_of(told: str) -> Outcome:
    """Read what an ``Actor`` tells of a photo. Raises: CheckpointError when it could not load the checkpoint."""
    outcome = json.loads(told)
    if problem := outcome.get("problem"):
        raise CheckpointError(problem)
    return Outcome(**outcome)


def _last(events: Any) -> Any:
    progress = ProgressEvents(events)
    for _ in progress:
        pass
    return progress.result


def _outcomes(
    jobs: Sequence[Job], work: Work, address: str, options: ClusterOptions, actor: type[Actor] = Actor
) -> Generator[tuple[int, Outcome]]:
    """Run the jobs on the cluster -> the number of each and its outcome, as they end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data
    from ray.exceptions import RayError

    engine, data = cast(Any, ray), cast(Any, ray.data)
    ours = not engine.is_initialized()
    if ours:
        _connect(engine, address)
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        cpus, gpus, room = _room(engine.cluster_resources(), options)
        actors = min(room, len(jobs), options.ray_actors or room)
        photos = max(1, min(TASK_PHOTOS, len(jobs) // (actors * TASKS_EACH)))
        rows = [{"number": number, "job": place_of(job)} for number, job in enumerate(jobs)]
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        attempts = engine.remote(Attempts).options(**lasting).remote()

        def note(number: int, is_over: bool) -> int:
            return engine.get(attempts.note.remote(number, is_over))

        pool = data.ActorPoolStrategy(min_size=1, initial_size=actors, max_size=options.ray_actors)
        photos_of = data.from_items(rows, override_num_blocks=-(-len(rows) // photos))
        mapped = photos_of.map_batches(
            actor,
            fn_constructor_args=(work, environment(), note),
            batch_size=1,
            compute=pool,
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        for row in mapped.iter_rows():
            yield row["number"], outcome_of(row["outcome"])
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MarigoldError(f"The Ray cluster failed: {reason} The same command goes on where it was.") from error
    finally:
        if ours:
            engine.shutdown()


def _connect(engine: Any, address: str) -> None:
    """Connect to a cluster, or begin one on this machine where there is none. Raises: SettingsError."""
    from ray._private import services  # nothing public tells which cluster Ray will look for
    from ray.exceptions import AuthenticationError

    finder, asks, advice = cast(Any, services), False, "give the address of its head node"
    try:
        if address in ("", "auto"):  # RAY_ADDRESS, or what `ray start` has noted here, also long ago
            address = finder.get_ray_address_from_environment(address or None, None) or ""
            if address and not os.environ.get("RAY_ADDRESS"):
                advice += ", or run `ray stop`, which forgets this one"
        if ":" in address:  # Ray itself tries for minutes
            asks = _greet(address)
        if asks and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            raise SettingsError(
                f"The Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and {_TOKENS}."
            )
        engine.init(address or None, log_to_driver=False, logging_level=logging.ERROR)
    except AuthenticationError as error:  # before it connects
        raise SettingsError(f"RAY_AUTH_MODE=token needs a token: set {_TOKENS}.") from error
    except (OSError, RuntimeError, ValueError) as error:
        if asks and isinstance(error, OSError):
            raise SettingsError(f"The Ray cluster at {address} does not take the token of {_TOKENS}.") from error
        reason = (getattr(error, "strerror", None) or str(error)).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise SettingsError(f"There is no Ray cluster at {address or 'this machine'}: {reason}; {advice}.") from error


def _greet(address: str) -> bool:
    """Check that what answers at host:port, or ray://host:port, is Ray -> whether it asks for a token.

    Raises: OSError, ValueError.
    """
    import grpc

    library, place = cast(Any, grpc), address.rpartition("//")[2]
    parts = urlsplit(f"//{place}")
    socket.create_connection((parts.hostname, parts.port), CONNECT_S).close()
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return False
    method = "RayletDriver/ClusterInfo" if address.startswith("ray://") else "NodeInfoGcsService/CheckAlive"
    channel = library.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)])  # as Ray connects
    try:
        library.channel_ready_future(channel).result(timeout=CONNECT_S)
        channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=CONNECT_S)
    except library.FutureTimeoutError:
        raise ValueError("what answers there is no Ray") from None
    except library.RpcError as error:
        if error.code() in (library.StatusCode.UNIMPLEMENTED, library.StatusCode.DEADLINE_EXCEEDED):
            raise ValueError("what answers there is no Ray") from None
        return error.code() is library.StatusCode.UNAUTHENTICATED
    finally:
        channel.close()
    return False


def _room(resources: Mapping[str, float], options: ClusterOptions) -> tuple[float, float, int]:
    """Return the cores and GPUs of an actor, and how many actors fit into a cluster. Raises: SettingsError."""
    has_cpus, has_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = options.gpus(resources)
    room = min(has_cpus // options.ray_cpus, has_gpus // gpus if gpus else float("inf"))
    if room < 1:
        raise SettingsError(
            f"The cluster has {has_cpus:g} cores and {has_gpus:g} GPUs, no room for an actor of {options.ray_cpus:g}"
            f" and {gpus:g}; give other --ray-cpus and --ray-gpus."
        )
    return options.ray_cpus, gpus, int(room)


def _absolute(place: Path) -> Path:
    return place if is_address(place) else place.absolute()
