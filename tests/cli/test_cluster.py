"""Photos over the actors of a Ray cluster, and photos and results in stores."""

import io
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import grpc
import httpx
import numpy as np
import psutil
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ray.exceptions import AuthenticationError

from marigold_core import Settings, cli, load
from marigold_core.cli import cluster, locations
from marigold_core.cli.photo_folders import Job
from marigold_core.cli.predictor import Work
from marigold_core.errors import CheckpointError, SettingsError
from tests.helpers.app_server import free_port
from tests.helpers.command_line import Predict, fingerprints
from tests.helpers.damage import failing

PHOTOS = 8
SLOW = ["--num-inference-steps", "25"]  # so that a photo takes a moment in which its actor can be killed


# ------------------------------------------------------------------------------- a cluster


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one core each, to which this process is connected."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "240"}  # on a busy machine
    import ray
    from ray.cluster_utils import Cluster

    one: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    two = Cluster(initialize_head=True, head_node_args=one)
    two.second = two.add_node(**one)  # type: ignore[attr-defined]
    ray.init(address=two.address, log_to_driver=False, logging_level=logging.ERROR)
    yield two
    ray.shutdown()
    two.shutdown()


def actors(node: Any) -> list[psutil.Process]:
    """List the processes of the actors on a node."""
    found = []
    for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def served(nodes: Any, tiny_depth: Path) -> Iterator[str]:
    """The address of two replicas on the cluster."""
    from ray import serve

    from marigold_core.serving.ray import app

    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(app({"checkpoint": str(tiny_depth), "device": "cpu", "min_replicas": 2, "max_queued_requests": 4}))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)  # likewise
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_replicas_serve_what_they_can_and_tell_the_others_to_come_again(
    served: str, tiny_depth: Path, write, tmp_path: Path
) -> None:
    """Of twelve at once two run and four wait, at most; the others are told so, and get their own result later."""
    photos = [write(tmp_path / f"{k}.png", k).read_bytes() for k in range(12)]
    form = {"num_inference_steps": "20", "processing_resolution": "64", "formats": "npy"}
    refusals = set[tuple[int, str]]()

    def ask(photo: bytes) -> bytes:
        while True:
            answer = httpx.post(f"{served}/predict_depth", data=form, files={"photo": photo}, timeout=120)
            if answer.status_code == 200:
                return answer.content
            refusals.add((answer.status_code, answer.json()["detail"][:21]))
            assert int(answer.headers["retry-after"]) >= 1
            time.sleep(0.2)

    with ThreadPoolExecutor(len(photos)) as threads:
        bundles = [*threads.map(ask, photos)]
    assert refusals == {(503, "All replicas are busy")}
    pipe = load(tiny_depth, device="cpu")
    for photo, bundle in zip(photos, bundles, strict=True):
        values = np.load(io.BytesIO(ZipFile(io.BytesIO(bundle)).read("depth.npy")))
        expected = pipe(photo, Settings(num_inference_steps=20, processing_resolution=64)).values
        np.testing.assert_allclose(values, expected, atol=1e-4)  # of another number of threads


@pytest.mark.slow
@pytest.mark.timeout(900)  # likewise
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_request_whose_replica_is_killed_ends_in_a_sentence_and_the_next_one_is_served(
    nodes: Any, served: str, write, tmp_path: Path
) -> None:
    photo = write(tmp_path / "a.png", 0).read_bytes()
    answers = list[httpx.Response]()

    def ask(**settings: str) -> httpx.Response:
        form = {"processing_resolution": "64", "formats": "npy", **settings}
        return httpx.post(f"{served}/predict_depth", data=form, files={"photo": photo}, timeout=300)

    def replicas() -> list[psutil.Process]:
        raylets = [psutil.Process(one.all_processes["raylet"][0].process.pid) for one in nodes.list_all_nodes()]
        return [one for raylet in raylets for one in raylet.children() if "ServeReplica:default:model" in name_of(one)]

    def name_of(process: psutil.Process) -> str:
        with suppress(psutil.Error):
            return " ".join(process.cmdline())
        return ""

    assert ask(num_inference_steps="1").status_code == 200
    long = {"num_inference_steps": "50", "ensemble_size": "20", "processing_resolution": "768"}
    asking = threading.Thread(target=lambda: answers.append(ask(**long)), daemon=True)
    asking.start()
    time.sleep(3)
    assert not answers and replicas()
    for replica in replicas():
        replica.kill()
    asking.join(120)
    assert answers[0].status_code == 503 and int(answers[0].headers["retry-after"]) >= 1
    assert answers[0].json()["detail"] == "The replica that worked at this was lost; send it again."
    deadline = time.monotonic() + 240
    while (answer := ask(num_inference_steps="1")).status_code == 503 and time.monotonic() < deadline:
        time.sleep(1)  # while they begin anew
    assert answer.status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(900)  # five processes begin, each of which imports torch or Ray
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_actor_and_a_killed_node_lose_no_photo(
    nodes: Any, folder: Path, out: Path, tmp_path: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(PHOTOS):
        write(folder / "deep" / f"{k:02}.png", seed=k)
    (folder / "broken.png").write_bytes(b"no picture")
    assert predict(folder, *SLOW, "-o", tmp_path / "here") == cli.SOME_FAILED
    here = capsys.readouterr().out

    def done() -> int:
        return len(list(out.rglob("manifest.json")))

    killed = []

    def harm() -> None:
        while done() < 2 or not actors(nodes.second):
            time.sleep(0.05)
        killed.append(actors(nodes.second)[0])
        killed[0].kill()
        reached = done()
        while done() < reached + 2:  # by the other one, while the node begins an actor anew
            time.sleep(0.05)
        nodes.remove_node(nodes.second, allow_graceful=False)

    harming = threading.Thread(target=harm, daemon=True)
    harming.start()
    results = tmp_path / "results.jsonl"
    assert predict(folder, *SLOW, "--ray", "--results", results) == cli.SOME_FAILED
    harming.join(10)
    assert killed and len(nodes.list_all_nodes()) == 1
    listed = {name for name in fingerprints(out) if name.startswith(".marigold-finished/")}
    assert {name: digest for name, digest in fingerprints(out).items() if name not in listed} == fingerprints(
        tmp_path / "here"
    )
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(row["photo"] for row in rows) == sorted(
        map(str, (*folder.rglob("[0-9]*.png"), folder / "broken.png"))
    )
    assert [row["state"] for row in rows if "broken" in row["photo"]] == ["failed"]
    there = capsys.readouterr().out
    assert there.splitlines()[-1] == here.splitlines()[-1] == f"{PHOTOS} done, 1 failed"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_photo_that_ends_every_process_that_takes_it_is_given_up_and_the_others_are_done(nodes: Any) -> None:
    """Ray begins lost actors and tasks anew for ever."""

    class Fragile(cluster.Actor):
        most_ends = 2

        def __init__(self, work: Any, environment: dict[str, str], note: Any) -> None:
            self._note = note

        def _predict(self, place: str) -> str:
            if "bad" in place:
                os._exit(1)
            return json.dumps({"state": "done"})

    jobs, work = [Job(Path(f"/{name}.png"), Path(f"/{name}")) for name in ("a", "bad", "b", "c")], cast(Any, None)
    ended = dict(cluster._outcomes(jobs, work, "", cluster.ClusterOptions.model_validate({}), Fragile))
    assert [ended[number].state for number in range(4)] == ["done", "failed", "done", "done"]
    assert "processes ended while they were at it" in ended[1].reason


def test_photos_that_are_begun_again_because_of_another_one_are_not_given_up() -> None:
    attempts = cluster.Attempts()
    assert [attempts.note(0, is_over) for is_over in (False, True) * 3] == [1, 2] * 3
    assert [attempts.note(1, False) for _ in range(3)] == [1, 2, 3]


@pytest.fixture
def one_actor(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Do what the cluster does by one actor in this process; the list counts the photos that each run gave it."""
    given = list[int]()

    def outcomes(jobs: list[Job], work: Work, address: str, options: cluster.ClusterOptions) -> Iterator[Any]:
        given.append(len(jobs))
        actor = cluster.Actor(work, {}, cluster.Attempts().note)
        for number, job in enumerate(jobs):
            told = actor({"number": np.array([number]), "job": np.array([cluster.place_of(job)])})
            yield number, cluster.outcome_of(told["outcome"][0])

    monkeypatch.setattr(cluster, "_outcomes", outcomes)
    return given


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_second_run_looks_up_none_of_what_is_listed_as_finished(
    scheme: str, folder: Path, out: Path, write, predict: Predict, one_actor: list[int], capsys
) -> None:
    for name in ("a.png", "b.png", "deep/c.png"):
        write(folder / name)
    words = [f"{scheme}{folder}", "-o", f"{scheme}{out}", "--ray"]
    assert predict(*words) == cli.ALL_DONE
    assert predict(*words) == cli.ALL_DONE and one_actor == [3]
    assert capsys.readouterr().out.endswith("3 kept\n")
    write(folder / "a.png", seed=5)  # is another photo now
    write(folder / "late.png")
    assert predict(*words) == cli.SOME_FAILED and one_actor == [3, 2]
    captured = capsys.readouterr()
    assert captured.out.endswith("1 done, 2 kept, 1 failed\n") and "--overwrite replaces" in captured.err
    assert predict(*words, "--seed", 7, "--overwrite") == cli.ALL_DONE and one_actor[-1] == 4
    assert predict(*words, "--seed", 7) == cli.ALL_DONE and len(one_actor) == 3
    assert predict(*words, "--seed", 7, "--overwrite") == cli.ALL_DONE and one_actor[-1] == 4
    if not scheme:  # a result that was removed from this machine is missed
        (out / "b" / "manifest.json").unlink()
        (out / "b" / "depth.npy").unlink()
        assert predict(*words, "--seed", 7) == cli.ALL_DONE and one_actor[-1] == 1


def test_a_list_of_finished_photos_that_is_damaged_costs_nothing_else(
    folder: Path, out: Path, write, predict: Predict, one_actor: list[int]
) -> None:
    write(folder / "a.png")
    assert predict(folder, "--ray") == cli.ALL_DONE
    (listed,) = (out / cluster.FINISHED).glob("*")
    (listed / "damaged.jsonl").write_bytes(b"\xff")
    (listed / "0.jsonl").mkdir()
    assert predict(folder, "--ray") == cli.ALL_DONE and one_actor == [1]


def test_a_photo_that_an_actor_finished_and_could_not_tell_is_done(
    folder: Path, out: Path, write, predict: Predict, one_actor: list[int], monkeypatch, capsys
) -> None:
    """The photo is given out twice, as when a node is lost between the result and the news of it."""
    write(folder / "a.png")
    real = cluster.Actor._predict
    monkeypatch.setattr(cluster.Actor, "_predict", lambda self, place: real(self, place) and real(self, place))
    assert predict(folder, "--ray", "--overwrite", "--json") == cli.ALL_DONE
    assert json.loads(capsys.readouterr().out)["state"] == "done"


def test_an_actor_without_its_checkpoint_ends_the_run(
    folder: Path, write, predict: Predict, one_actor: list[int], monkeypatch, capsys
) -> None:
    write(folder / "a.png")
    monkeypatch.setattr(cluster.Predictor, "__init__", failing(CheckpointError("It is not on this node.")))
    assert predict(folder, "--ray") == cli.CHECKPOINT
    assert capsys.readouterr().err == "It is not on this node.\n"


@pytest.mark.parametrize(
    ("has", "given", "found"),
    [
        ({"CPU": 8.0}, {}, (1.0, 0.0, 8)),
        ({"CPU": 8.0, "GPU": 2.0}, {}, (1.0, 1.0, 2)),
        ({"CPU": 8.0, "GPU": 2.0}, {"ray_gpus": 0.5, "ray_cpus": 2.0}, (2.0, 0.5, 4)),
        ({"CPU": 8.0, "GPU": 2.0}, {"ray_gpus": 0.0}, (1.0, 0.0, 8)),
        ({"CPU": 1.0}, {"ray_cpus": 2.0}, None),
        ({"CPU": 1.0}, {"ray_gpus": 1.0}, None),
    ],
)
def test_actors_ask_for_cores_and_gpus(has: dict[str, float], given: dict[str, Any], found: Any) -> None:
    options = cluster.ClusterOptions(**given)
    if found is None:
        with pytest.raises(SettingsError, match="no room for an actor"):
            cluster._room(has, options)
    else:
        assert cluster._room(has, options) == found


# ------------------------------------------------------------------------------- stores


def test_photos_and_results_in_a_store_are_those_of_a_folder(
    folder: Path, out: Path, tmp_path: Path, write, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a.png", "deep/b.png", "deep/b.jpg", "x y#%?.png", ".hidden.png")):
        write(folder / name, seed=seed)
    (folder / "notes.txt").write_text("no photo")
    assert predict(folder) == cli.ALL_DONE
    here = capsys.readouterr()
    store = tmp_path / "store"
    for times in ("4 done", "4 kept"):
        assert predict(f"file://{folder}", "-o", f"file://{store}") == cli.ALL_DONE
        there = capsys.readouterr()
        assert there.out.splitlines()[-1] == times
        assert "left out: hidden" in there.err and "left out: not a photo" in there.err
        assert there.err.count("left out") == here.err.count("left out")
        assert fingerprints(store) == fingerprints(out)
    assert predict(f"file://{folder}/*.png", "--flat", "-o", f"file://{store}/flat") == cli.ALL_DONE
    assert {path.name for path in (store / "flat").iterdir()} == {
        f"{name}_{file}" for name in ("a", "x y#%_") for file in ("depth.npy", "manifest.json")
    }
    assert predict(f"file://{folder}/a.png", "-o", f"file://{store}", formats="color") == cli.SOME_FAILED
    assert "--overwrite replaces what it holds" in capsys.readouterr().err
    assert predict(f"file://{folder}/a.png", "-o", f"file://{store}", "--overwrite", formats="color") == cli.ALL_DONE
    assert {path.name for path in (store / "a").iterdir()} == {"depth_color.png", "manifest.json"}


def test_a_bucket_of_a_mistyped_name_is_not_made(tmp_path: Path) -> None:
    """Stores of objects make one for ``makedirs``."""

    class Buckets(MemoryFileSystem):
        store, pseudo_dirs, made = {}, [""], ["photos"]

        def put_file(self, lpath: str, rpath: str, **how: Any) -> None:
            if rpath.split("/")[0] not in self.made:
                raise FileNotFoundError("The specified bucket does not exist")
            super().put_file(lpath, rpath, **how)

        def exists(self, path: str, **how: Any) -> bool:
            return path in self.made

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            self.made.append(path.split("/")[0])

    (tmp_path / "a").write_bytes(b"1")
    store = Buckets(skip_instance_cache=True)
    locations.put(store, tmp_path / "a", "photos/deep/a")
    assert store.cat("photos/deep/a") == b"1"
    with pytest.raises(FileNotFoundError, match="bucket"):
        locations.put(store, tmp_path / "a", "potos/deep/a")
    assert "potos" not in store.made


def test_what_a_store_did_not_finish_is_done_again(folder: Path, out: Path, write, predict: Predict) -> None:
    """The manifest is written last; without it nothing is finished."""
    write(folder / "a.png")
    target = f"file://{out}"
    assert predict(folder, "-o", target) == cli.ALL_DONE
    whole = fingerprints(out)
    (out / "a" / "manifest.json").unlink()
    (out / "a" / "depth.npy").write_bytes(b"half")
    assert predict(folder, "-o", target) == cli.ALL_DONE
    assert fingerprints(out) == whole


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["IN", "-o", "OUT", "--ray", "IN"], "--ray takes one address, such as 10.0.0.1:6379, but got IN;"),
        (["nope://x", "-o", "OUT"], "nope://x cannot be opened: "),
        (["ftp://127.0.0.1:1/x", "-o", "OUT"], "ftp://127.0.0.1:1/x cannot be opened: "),
        (["file://IN", "-o", "file://IN"], "The output folder file://IN is also the input folder"),
        (["file:///no/such/folder", "-o", "OUT"], "There is no photo in file:///no/such/folder"),
        (["IN", "-o", "OUT", "--ray", "127.0.0.1:1"], "There is no Ray cluster at 127.0.0.1:1: "),
        (["IN", "-o", "OUT", "--ray", "ray://127.0.0.1:99999"], "There is no Ray cluster at ray://127.0.0.1:99999: "),
        (["-", "-o", "OUT", "--ray"], '"-" reads one photo, which --ray cannot send to other machines'),
        (["IN", "-o", "OUT", "--ray", "--ray-cpus", "0"], "ray_cpus must be greater than 0, but got 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], sentence: str, folder: Path, out: Path, write, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # as it is in a process that begins
    write(folder / "a.png")
    given = [word.replace("IN", str(folder)).replace("OUT", str(out)) for word in words]
    assert cli.main(["predict", *given]) == cli.USAGE
    out_text, said = capsys.readouterr()
    assert not out_text and said.startswith(sentence.replace("IN", str(folder))) and said.count("\n") == 1


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_at_which_another_program_listens_is_refused_before_ray_tries_it(
    scheme: str, predict: Predict, folder: Path, write, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray tries for minutes"))
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    write(folder / "a.png")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"{scheme}127.0.0.1:{other.getsockname()[1]}"
        assert predict(folder, "--ray", address) == cli.USAGE
    assert f"There is no Ray cluster at {address}: what answers there is no Ray" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["127.0.0.1:1", ""])
@pytest.mark.parametrize("words", [["--ray"], ["--ray", "auto"]])
def test_a_cluster_that_ended_without_a_word_is_not_tried_for_minutes(
    words: list[str], named: str, predict: Predict, folder: Path, tmp_path: Path, write, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # of other clusters of this machine
    begun: list[object] = []
    monkeypatch.setattr("ray.init", lambda address, **_: begun.append(address) or sys.exit())
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write(folder / "a.png")
    (tmp_path / "ray").mkdir()
    if named:
        (tmp_path / "ray/ray_current_cluster").write_text(named)
    if not named and words == ["--ray"]:
        with pytest.raises(SystemExit):
            predict(folder, *words)
        assert begun == [None]  # one is begun on this machine
        return
    assert predict(folder, *words) == cli.USAGE and not begun
    said = capsys.readouterr().err
    assert f"There is no Ray cluster at {named or 'auto'}: " in said and "give the address" in said
    assert ("or run `ray stop`, which forgets this one" in said) == bool(named)


class Refusing(grpc.GenericRpcHandler):
    """Answers every call of Ray's with a status, by default as the head node of a cluster that asks for a token."""

    def __init__(self, status: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED, wait_s: float = 0.0) -> None:
        self.status, self.wait_s = status, wait_s

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        assert handler_call_details.method.startswith("/ray.rpc.")

        def refuse(request: bytes, context: grpc.ServicerContext) -> None:
            time.sleep(self.wait_s)
            context.abort(self.status, "InvalidAuthToken")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.mark.parametrize(
    "answering", [Refusing(grpc.StatusCode.UNIMPLEMENTED), Refusing(wait_s=2)], ids=["of others", "silent"]
)
@pytest.mark.parametrize("given", ["address", "ray://", "RAY_ADDRESS"])
def test_another_program_that_speaks_grpc_is_refused_before_ray_tries_it(
    answering: Refusing, given: str, predict: Predict, folder: Path, write, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray tries for minutes"))
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    write(folder / "a.png")
    server = grpc.server(ThreadPoolExecutor(1), handlers=[answering])
    address = f"{given if given == 'ray://' else ''}127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    if given == "RAY_ADDRESS":
        monkeypatch.setenv(given, address)
    server.start()
    try:
        assert predict(folder, "--ray", *([] if given == "RAY_ADDRESS" else [address])) == cli.USAGE
    finally:
        server.stop(None)
    assert f"There is no Ray cluster at {address}: what answers there is no Ray" in capsys.readouterr().err


def test_a_cluster_that_asks_for_a_token_is_told_from_one_that_is_not_there(
    predict: Predict, folder: Path, write, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    errors = [ConnectionError("Failed to connect to Ray cluster"), AuthenticationError("no token was found")]

    def refused(*_: object, **__: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr("ray.init", refused)
    write(folder / "a.png")
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        for mode, said in (
            (
                "disabled",
                f"The Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN, ",
            ),
            ("token", f"The Ray cluster at {address} does not take the token of RAY_AUTH_TOKEN, "),
            ("token", "RAY_AUTH_MODE=token needs a token: set RAY_AUTH_TOKEN, "),
        ):
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
            assert predict(folder, "--ray", address) == cli.USAGE
            assert said in capsys.readouterr().err
    finally:
        server.stop(None)


@pytest.mark.parametrize(("missing", "words"), [("ray", ["IN", "--ray"]), ("upath", ["s3://bucket/photos"])])
def test_without_the_extra_one_sentence_says_what_to_install(
    missing: str, words: list[str], folder: Path, out: Path, write, predict: Predict, capsys, monkeypatch
) -> None:
    write(folder / "a.png")
    real = util.find_spec
    for module in ("cluster", "locations"):
        monkeypatch.setattr(
            f"marigold_core.cli.{module}.find_spec", lambda name: None if name == missing else real(name)
        )
    assert predict(*(word.replace("IN", str(folder)) for word in words)) == cli.USAGE
    assert capsys.readouterr().err.endswith("pip install 'marigold-depth-studio[cluster]'.\n")
    assert not out.exists()
