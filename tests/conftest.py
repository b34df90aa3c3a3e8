"""What many tests share: tiny random checkpoints, pictures to feed them, a network that is not there."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Before torch is imported; child processes inherit it. Workers that share the cores have one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["MARIGOLD_DTYPE"] = "float32"  # exact numbers are the same on every CPU; other tests name other types
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the real hub

pytest_plugins = ["tests.helpers.app_server"]  # a page in Chromium

Photo = Callable[..., np.ndarray]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files of slow tests, so that no worker waits for one at the end; skip what needs CUDA where none is.

    torch is imported only when such a test was collected.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


def _tiny(factory: pytest.TempPathFactory, name: str, **options: Any) -> Path:
    from training.start import new_checkpoint

    return new_checkpoint(factory.mktemp("checkpoints") / name, "tiny", **options)


@pytest.fixture(scope="session")
def tiny_depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DDIM, trailing, zero terminal SNR, as v1-1."""
    return _tiny(tmp_path_factory, "tiny-depth")


@pytest.fixture(scope="session")
def tiny_depth_leading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DDIM, leading, as v1-0."""
    return _tiny(tmp_path_factory, "tiny-depth-leading", spacing="leading")


@pytest.fixture(scope="session")
def tiny_depth_lcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "tiny-depth-lcm", scheduler="lcm")


@pytest.fixture(scope="session")
def tiny_normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "tiny-normals", modality="normals")


@pytest.fixture(scope="session", params=["appearance", "lighting"])
def tiny_intrinsics(request: pytest.FixtureRequest, tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, one of them a stack of two layers, or three in linear light."""
    from tests.helpers.families import APPEARANCE, LIGHTING, as_intrinsics

    properties = APPEARANCE if request.param == "appearance" else LIGHTING
    return as_intrinsics(tiny_depth, tmp_path_factory.mktemp("checkpoints") / f"tiny-{request.param}", properties)


@pytest.fixture(scope="session")
def tiny_guided(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DDIM, trailing one with an image prior."""
    from tests.helpers.tiny_prior import with_prior

    return with_prior(tiny_depth, tmp_path_factory.mktemp("checkpoints") / "tiny-guided")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For runs that are compared to the last bit, which depends on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photo() -> Photo:
    """``photo(h, w, seed)`` -> [h, w, 3] uint8: sky, lit ground, a few solid shapes and some grain."""

    def paint(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width]
        v, u = (y + 0.5) / height, (x + 0.5) / width
        sky, ground = rng.uniform(90, 230, (2, 3))
        horizon = rng.uniform(0.35, 0.6)
        picture = np.where(
            (v < horizon)[..., None], sky * (0.7 + 0.3 * v[..., None]), ground * (1.2 - 0.6 * v[..., None])
        )
        for _ in range(5):
            cu, cv, size = rng.uniform(0.1, 0.9), rng.uniform(horizon - 0.1, 0.9), rng.uniform(0.06, 0.22)
            inside = (
                np.hypot(u - cu, v - cv) < size if rng.random() < 0.5 else np.maximum(abs(u - cu), abs(v - cv)) < size
            )
            shade = (1 - 0.5 * (u - cu + v - cv) / size)[..., None]
            picture = np.where(inside[..., None], rng.uniform(30, 200, 3) * np.clip(shade, 0.4, 1.4), picture)
        return (picture + rng.normal(0, 3, picture.shape)).clip(0, 255).astype(np.uint8)

    return paint


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse every connection that leaves this machine; yields the list of addresses that were tried."""
    attempts: list[str] = []
    local = {"127.0.0.1", "::1", "localhost", "0.0.0.0", None, ""}
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in local:
            attempts.append(str(address[0]))
            raise OSError("the test has no network")
        return connect(self, address)

    def guarded_lookup(host: Any, *rest: Any, **options: Any) -> list:
        if host not in local:
            attempts.append(str(host))
            raise socket.gaierror("the test has no network")
        return lookup(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)
    yield attempts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def write(photo) -> Callable[..., Path]:
    """``write(path, seed)`` puts a small photo at ``path``."""

    from PIL import Image

    def write(path: Path, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(24, 32, seed)).save(path)
        return path

    return write


@pytest.fixture
def predict(tiny_depth: Path, out: Path) -> Callable[..., int]:
    """``predict(photos..., options)`` runs the command on the tiny checkpoint and returns the exit status."""

    def predict(*words: object, formats: str = "npy") -> int:
        from marigold_core import cli
        from tests.helpers.command_line import predicting

        return cli.main(predicting(out, tiny_depth, "--formats", formats, *words))

    return predict
