"""The hub: every way in which it can fail is one sentence, and the next try works without a restart."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marigold_core.checkpoints import hub, registry
from marigold_core.checkpoints.registry import find
from tests.helpers import damage
from tests.helpers.damage import DISK_FULL, failing
from tests.helpers.fake_hub import FakeHub, fake_hub, point_client_at, set_patience

HUB_ID = "someone/tiny-depth"
WEIGHTS = ".safetensors"


@pytest.fixture
def serving(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "home") as server:
        server.folders[HUB_ID] = Path(shutil.copytree(tiny_depth, tmp_path / "published"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def refusal(checkpoint: str = HUB_ID, refetch: bool = False) -> str:
    text = damage.refusal(lambda: find(checkpoint, refetch=refetch))
    assert len(text) < 200
    return text


def test_fetch_once_then_never_ask_again(serving: FakeHub, tiny_depth: Path) -> None:
    found = find(HUB_ID)
    assert (found.name, found.sha256) == (HUB_ID, find(tiny_depth).sha256)
    wanted = [p for p in tiny_depth.rglob("*") if p.is_file() and p.name != "checksums.json"]
    assert len(serving.requests) == 1 + 2 * len(wanted)  # the listing, then head and body of each file: no telemetry
    asked = len(serving.requests)
    assert find(HUB_ID) == found and len(serving.requests) == asked


def test_the_image_prior_is_fetched_too(serving: FakeHub, tiny_guided: Path) -> None:
    serving.folders[HUB_ID] = tiny_guided
    found = find(HUB_ID)
    assert found.prior and found.sha256 == find(tiny_guided).sha256


def test_half_precision_is_preferred(serving: FakeHub) -> None:
    for path in sorted(serving.folders[HUB_ID].rglob("*.safetensors")):
        shutil.copy(path, path.with_name(path.name.replace(WEIGHTS, ".fp16.safetensors")))
    assert find(HUB_ID).variant == "fp16"
    assert all(".fp16" in path for path in serving.requests if path.endswith(WEIGHTS))


def test_short_names_lead_to_the_hub(serving: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.folders["prs-eth/marigold-depth-v1-1"] = serving.folders[HUB_ID]
    assert find("v1-1").name == "v1-1"
    assert [entry.name for entry in registry.named_checkpoints() if entry.hub_id and entry.available] == ["v1-1"]


# T44: seven faults, each at the listing and, where it makes a difference, at the weights


@pytest.mark.parametrize(
    ("fault", "only", "words"),
    [
        ("hang", "", "did not answer in time"),
        ("hang", WEIGHTS, "did not answer in time"),
        (429, "", "limits requests"),
        (429, WEIGHTS, "limits requests"),
        (500, "", "fault of its own (status 500)"),
        (500, WEIGHTS, "fault of its own (status 500)"),
        (404, "", "check the spelling"),
        (0.1, WEIGHTS, "broke off"),
        (0.5, WEIGHTS, "broke off"),
        (0.99, WEIGHTS, "broke off"),
    ],
)
def test_a_failing_hub_is_one_sentence_and_recovers(
    serving: FakeHub, monkeypatch: pytest.MonkeyPatch, fault: int | float | str, only: str, words: str
) -> None:
    serving.fail(fault, only)
    set_patience(monkeypatch, 0.3 if fault == "hang" else 10)
    assert words in refusal()
    assert not hub.is_complete(HUB_ID)
    serving.fail(None)
    set_patience(monkeypatch, 10)
    assert find(HUB_ID).name == HUB_ID


def test_hub_down(serving: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_client_at(monkeypatch, "http://127.0.0.1:9")
    assert "cannot be reached" in refusal()
    point_client_at(monkeypatch, serving.url)
    assert find(HUB_ID).name == HUB_ID


def test_wrong_token_and_private(serving: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.fail(401)
    assert "check the spelling, or hf auth login" in refusal()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    text = refusal()
    assert "refused your access token" in text and "hf_wrong" not in text


def test_offline_without_a_copy(serving: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal()
    assert serving.requests == []


def test_ids_that_are_not_there(serving: FakeHub) -> None:
    assert "check the spelling" in refusal("nobody/nothing")
    assert "not a valid hub id" in refusal("a--b/c..d")


def test_wrong_kinds_cost_no_weights(serving: FakeHub) -> None:
    index = serving.folders[HUB_ID] / "model_index.json"
    index.write_text(index.read_text().replace("MarigoldDepthPipeline", "StableDiffusionXLPipeline"))
    assert "StableDiffusionXLPipeline" in refusal()
    index.unlink()
    assert "no model_index.json" in refusal()
    assert not [path for path in serving.requests if path.endswith(WEIGHTS)]


def test_pickles_only(serving: FakeHub) -> None:
    unet = serving.folders[HUB_ID] / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".bin"))
    assert "only safetensors are loaded" in refusal()
    assert not [path for path in serving.requests if path.endswith(".bin")]


def test_a_full_or_read_only_disk(serving: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "hf_hub_download", failing(DISK_FULL))
        assert "disk is full" in refusal()
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert "cannot be kept in the cache" in refusal()


# T46 for what came from the hub


def test_a_flipped_bit_is_refused_and_refetched(serving: FakeHub) -> None:
    found = find(HUB_ID)
    file = (found.folder / "vae" / "diffusion_pytorch_model.safetensors").resolve()
    body = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(body[:-100] + bytes([body[-100] ^ 4]) + body[-99:])
    assert "vae/diffusion_pytorch_model.safetensors are damaged" in refusal()
    asked = len(serving.requests)
    assert find(HUB_ID, refetch=True) == found
    fetched = {path.rpartition("/")[2] for path in serving.requests[asked:] if path.endswith(WEIGHTS)}
    assert fetched == {"diffusion_pytorch_model.safetensors"}
    assert not [path for path in serving.requests[asked:] if "unet" in path and path.endswith(WEIGHTS)]


def test_a_cut_file_on_disk_is_fetched_again(serving: FakeHub) -> None:
    found = find(HUB_ID)
    file = (found.folder / "unet" / "diffusion_pytorch_model.safetensors").resolve()
    os.truncate(file, 1000)
    assert not hub.is_complete(HUB_ID)
    assert find(HUB_ID) == found


def test_refetch_takes_the_newest_revision(serving: FakeHub) -> None:
    old = find(HUB_ID)
    serving.revision = "f" * 40
    assert find(HUB_ID) == old
    assert find(HUB_ID, refetch=True).folder.name == serving.revision


def test_a_revision_that_is_gone(serving: FakeHub) -> None:
    serving.fail(500, WEIGHTS)
    refusal()
    serving.fail(None)
    serving.revision = "f" * 40
    assert "--refetch" in refusal()
    assert find(HUB_ID, refetch=True).folder.name == serving.revision


# T45: killed while it downloads


DOWNLOADER = """
import os, sys
from huggingface_hub import HfApi, constants, hf_hub_download
from marigold_core.checkpoints.registry import find
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.environ["XDG_CACHE_HOME"] = line.strip()
        constants.HF_HUB_CACHE = line.strip() + "/hf"
        find(sys.argv[1])
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_killed_downloads_do_no_harm(serving: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process imports the client once and forks a downloader for each of ten moments, which is killed there."""
    expected = find(HUB_ID).sha256
    last = len(serving.requests)
    environment = {**os.environ, "HF_ENDPOINT": serving.url, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", DOWNLOADER, HUB_ID]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, env=environment, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        for moment in (1 + round(i * (last - 1) / 9) for i in range(10)):
            home = tmp_path / f"killed-{moment}"
            monkeypatch.setenv("XDG_CACHE_HOME", str(home))
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hf"))
            serving.requests.clear()
            serving.paused.clear()
            serving.pause_at = moment
            print(home, file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            reached = serving.paused.wait(60)
            os.kill(child, signal.SIGKILL)
            serving.pause_at = None
            assert reached and not hub.is_complete(HUB_ID)
            assert find(HUB_ID).sha256 == expected
            assert not list(home.rglob("*.incomplete"))
        process.stdin.close()


def test_a_download_is_followed_from_the_disk_alone(serving: FakeHub, tiny_depth: Path) -> None:
    assert registry.downloading(HUB_ID) is None  # the hub has not said how much it is
    total = sum(p.stat().st_size for p in tiny_depth.rglob("*") if p.is_file() and p.name != "checksums.json")
    unet = (tiny_depth / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    serving.fail(0.5, only="unet/diffusion_pytorch_model")
    refusal()
    counted = registry.downloading(HUB_ID)
    assert counted is not None and counted[1] == total and 0 < counted[0] <= total - unet
    record = hub._read_record(HUB_ID)
    assert record is not None
    blobs = Path(record.folder).parents[1] / "blobs"
    (blobs / f"{'0' * 64}.killed.incomplete").write_bytes(bytes(unet // 2))
    assert registry.downloading(HUB_ID) == (counted[0] + unet // 2, total)
    serving.fail(None)
    find(HUB_ID)
    assert registry.downloading(HUB_ID) is None
    assert registry.downloading("nano") is None and registry.downloading(str(tiny_depth)) is None


# T48: offline once fetched


def test_runs_offline_from_the_cache(
    serving: FakeHub, monkeypatch: pytest.MonkeyPatch, no_network: list[str], photo
) -> None:
    from marigold_core import Settings, load

    find(HUB_ID)
    asked = len(serving.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    prediction = load(HUB_ID, device="cpu")(photo(24, 32), Settings(num_inference_steps=1))
    assert prediction.values.shape == (24, 32)
    assert no_network == [] and len(serving.requests) == asked


def forget(tmp_path: Path) -> hub.Fetched:
    """Leave what was fetched as another program would, without our record."""
    snapshot = hub._read_record(HUB_ID)
    assert snapshot is not None
    refs = tmp_path / "home" / "hf" / "models--someone--tiny-depth" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(snapshot.revision)  # as snapshot_download leaves it
    hub._record_path(HUB_ID).unlink()
    return snapshot


def test_a_copy_of_another_program_without_the_image_prior_is_completed(
    serving: FakeHub, tiny_guided: Path, tmp_path: Path
) -> None:
    serving.folders[HUB_ID] = tiny_guided
    found = find(HUB_ID)
    shutil.rmtree(found.folder / "prior")
    forget(tmp_path)
    assert find(HUB_ID) == found


def test_what_other_programs_fetched_is_used_offline(
    serving: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    expected = find(HUB_ID).sha256
    snapshot = forget(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert snapshot_download(HUB_ID, local_files_only=True) == snapshot.folder
    assert find(HUB_ID).sha256 == expected
    file = (Path(snapshot.folder) / "vae" / "diffusion_pytorch_model.safetensors").resolve()
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "damaged" in refusal()
