"""Requests a second of one and of two replicas behind Ray Serve, and of one whose jobs run together.

``python -m tests.bench.serve --out tests/bench/serve.json``. Two figures for each: with ``nano`` on the cores of this
machine, which two replicas share with everything else; and with a photo that is a third of a second of sleep, which
shows what Ray Serve itself allows. All requests are sent at once by as many clients as there are requests; those that
are told to come again do so after a moment. At last clients keep asking until the load has brought a second replica.
"""

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from marigold_core.prediction import Progress
from marigold_core.serving import ray
from marigold_core.storage import write_json

SLEEP_S = 1 / 3
PORT = 8223
PHOTO = Path("assets/examples/temple.jpg")
FORM = {"num_inference_steps": "4", "formats": "npy"}


class Sleeping(ray.Model):
    """A replica whose steps take no core."""

    def __init__(self, device: str, together: int, variables: dict[str, str]) -> None:
        super().__init__(device, together, variables)
        pipe: Any = self._service.warm("nano").result()
        pipe.stream = sleep_then(pipe.stream)


def sleep_then(stream: Any) -> Any:
    """Return what sleeps and gives the first result of a stream, which it computes once."""
    results = list[Any]()

    def run(*photo: Any, **how: Any) -> Iterator[Any]:
        if not results:
            results.extend(event for event in stream(*photo, **how) if not isinstance(event, Progress))
        time.sleep(SLEEP_S)
        yield results[-1]

    return run


def begin(**options: Any) -> None:
    """Serve with options; one of an older call has ended."""
    from ray import serve

    serve.shutdown()
    serve.start(http_options={"port": PORT})
    serve.run(ray.app({"checkpoint": "nano", "device": "cpu", "max_queued_requests": 16, **options}))


def ask(refused: list[int]) -> float:
    """Send a request until it is served, noting the refusals -> seconds."""
    began = time.perf_counter()
    while True:
        files = {"photo": PHOTO.read_bytes()}
        answer = httpx.post(f"http://127.0.0.1:{PORT}/predict_depth", data=FORM, files=files, timeout=600)
        if answer.status_code == 200:
            return time.perf_counter() - began
        assert answer.status_code == 503, answer.text
        refused.append(1)
        time.sleep(0.1)


def measure(requests: int, **options: Any) -> dict[str, float]:
    """Serve with options and send requests -> how many a second, the slowest's seconds, refusals of each."""
    begin(**options)
    with ThreadPoolExecutor(requests) as threads:
        list(threads.map(ask, [[] for _ in range(4)]))  # every replica has run once
        refused, began = list[int](), time.perf_counter()
        slowest = max(threads.map(ask, [refused] * requests))
        seconds = time.perf_counter() - began
    return {
        "requests": requests,
        "a_second": round(requests / seconds, 2),
        "slowest_s": round(slowest, 1),
        "told_to_come_again": len(refused),
    }


def scale(clients: int = 6, most_s: float = 300) -> dict[str, float]:
    """Let one replica be joined by a second one, as the load asks for -> replicas before, then, after how long."""
    begin(min_replicas=1, max_replicas=2)
    first, over, began = running(), threading.Event(), time.perf_counter()

    def keep_asking() -> None:
        while not over.is_set():
            ask([])

    loading = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for one in loading:
        one.start()
    while running() < 2 and time.perf_counter() - began < most_s:
        time.sleep(0.5)
    seconds, then = time.perf_counter() - began, running()
    over.set()
    for one in loading:
        one.join()
    return {"clients": clients, "replicas_before": first, "replicas_then": then, "after_s": round(seconds, 1)}


def running() -> int:
    """Count the replicas that serve."""
    from ray import serve

    states: dict[Any, int] = serve.status().applications["default"].deployments["model"].replica_states
    return states.get("RUNNING", 0)


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--requests", type=int, default=36, help="to the replicas that sleep")
    options.add_argument("--nano-requests", type=int, default=16)
    given = options.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as engine
    from ray import serve

    found: dict[str, Any] = {
        "command": f"python -m tests.bench.serve {' '.join(sys.argv[1:])}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 1),
    }
    engine.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    real = ray.Model
    for name, model, requests in (
        ("nano", real, given.nano_requests),
        ("sleep_a_third_of_a_second", Sleeping, given.requests),
    ):
        ray.Model = model  # type: ignore[misc]
        found[name] = {}
        for label, more in (
            ("1 replica", {"max_replicas": 1}),
            ("2 replicas", {"min_replicas": 2}),
            ("1 replica, 4 together", {"max_replicas": 1, "together": 4}),
        ):
            found[name][label] = measure(requests, **more)
            print(name, label, found[name][label], flush=True)
    found["sleep_a_third_of_a_second"]["1 replica, 2 by load"] = scale()
    serve.shutdown()
    engine.shutdown()
    write_json(given.out, found)


if __name__ == "__main__":
    main()
