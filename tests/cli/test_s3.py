"""Photos and results in S3, as a server of this machine speaks it: on their own, over Ray, and where it refuses."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from marigold_core import cli
from tests.helpers.command_line import Predict, fingerprints

server = pytest.importorskip("moto.server", reason="needs moto[server] and s3fs")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 with the bucket "photos"."""
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    made = s3fs.S3FileSystem()
    httpx.post(f"http://{host}:{port}/moto-api/reset")  # it keeps what an earlier one of this process had
    made.mkdir("photos")
    yield made
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def contents(store: Any, tmp_path: Path, name: str) -> dict[str, str]:
    store.get(f"photos/{name}/", str(tmp_path / "fetched" / name), recursive=True)
    return fingerprints(tmp_path / "fetched" / name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ray", [[], ["--ray"]])
def test_photos_and_results_in_s3_are_those_of_a_folder(
    ray: list[str],
    store: Any,
    folder: Path,
    out: Path,
    tmp_path: Path,
    write: Any,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")  # else it joins the cluster of tests that run beside it
    for seed, name in enumerate(("a.png", "deep/b.png", "x y#%?.png")):
        write(folder / name, seed=seed)
    (folder / "bad.png").write_bytes(b"no photo")
    assert predict(folder) == cli.SOME_FAILED
    store.put(f"{folder}/", "photos/in/", recursive=True)
    for sums in ("3 done, 1 failed", "3 kept, 1 failed"):
        capsys.readouterr()
        assert predict("s3://photos/in", "-o", "s3://photos/out", *ray) == cli.SOME_FAILED
        assert capsys.readouterr().out.splitlines()[-1] == sums
    found = contents(store, tmp_path, "out")
    assert {name: one for name, one in found.items() if name[0] != "."} == fingerprints(out)
    if not ray:  # which lists what it finished
        store.rm("photos/out/a/manifest.json")  # as a kill leaves it, before the last file
        capsys.readouterr()
        assert predict("s3://photos/in/a.png", "-o", "s3://photos/out") == cli.ALL_DONE
        assert capsys.readouterr().out.splitlines()[-1] == "1 done"
        assert contents(store, tmp_path, "out") == found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["s3://potos/in", "-o", "OUT"], "s3://potos/in cannot be listed: The specified bucket does not exist."),
        (["s3://photos/none", "-o", "OUT"], "There is no photo in s3://photos/none"),
        (["IN", "-o", "s3://potos/out"], "s3://potos/out/a cannot be written"),
    ],
)
def test_what_s3_refuses_is_one_sentence(
    words: list[str],
    sentence: str,
    store: Any,
    folder: Path,
    out: Path,
    write: Any,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder / "a.png")
    given = [{"IN": str(folder), "OUT": str(out)}.get(word, word) for word in words]
    assert predict(*given) != cli.ALL_DONE
    told = capsys.readouterr().err
    assert sentence in told and "Traceback" not in told
    assert store.ls("") == ["photos"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["s3://photos/in", "-o", "OUT"], "s3://photos/in cannot be listed"),
        (["IN", "-o", "s3://photos/out"], "s3://photos/out/a cannot be read"),
        (["IN", "-o", "s3://photos/out", "--overwrite"], "s3://photos/out/a cannot be read"),
        (["IN", "-o", "s3://photos/out", "--ray"], "s3://photos/out/.marigold-finished"),
    ],
)
def test_s3_that_cannot_be_reached_is_one_sentence(
    words: list[str],
    sentence: str,
    store: Any,
    folder: Path,
    out: Path,
    write: Any,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(folder / "a.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert predict(*({"IN": str(folder), "OUT": str(out)}.get(word, word) for word in words)) != cli.ALL_DONE
    told = capsys.readouterr().err
    assert sentence in told and "Traceback" not in told
