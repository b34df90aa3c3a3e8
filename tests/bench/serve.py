"""Requests a second of one and of two replicas behind Ray Serve, and of one whose jobs run together.

``python -m tests.bench.serve --out tests/bench/serve.json``. Two figures for each: with ``nano`` on the cores of this
machine, which two replicas share with everything else; and with a photo that is a third of a second of sleep, which
shows what Ray Serve itself allows. All requests are sent at once by as many clients as there are requests; those that
are told to come again do so after a moment.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from marigold_core.prediction import Progress
from marigold_core.serving import ray

SLEEP_S = 1 / 3
PORT = 8123
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


def measure(requests: int, **options: Any) -> dict[str, float]:
    """Serve with options and send requests -> how many a second, the slowest's seconds, refusals of each."""
    from ray import serve

    serve.run(ray.app({"checkpoint": "nano", "device": "cpu", "max_queued_requests": 16, **options}))
    refused = list[int]()

    def ask(_: int) -> float:
        began = time.perf_counter()
        while True:
            files = {"photo": PHOTO.read_bytes()}
            answer = httpx.post(f"http://127.0.0.1:{PORT}/predict_depth", data=FORM, files=files, timeout=600)
            if answer.status_code == 200:
                return time.perf_counter() - began
            assert answer.status_code == 503, answer.text
            refused.append(1)
            time.sleep(0.1)

    with ThreadPoolExecutor(requests) as threads:
        list(threads.map(ask, range(4)))  # every replica has run once
        refused.clear()
        began = time.perf_counter()
        slowest = max(threads.map(ask, range(requests)))
        seconds = time.perf_counter() - began
    serve.shutdown()
    return {
        "a_second": round(requests / seconds, 2),
        "slowest_s": round(slowest, 1),
        "told_to_come_again": len(refused),
    }


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--requests", type=int, default=48)
    given = options.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as engine
    from ray import serve

    found: dict[str, Any] = {
        "command": f"python -m tests.bench.serve {' '.join(sys.argv[1:])}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "requests": given.requests,
    }
    engine.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    real = ray.Model
    for name, model in (("sleep_a_third_of_a_second", Sleeping), ("nano", real)):
        ray.Model = model  # type: ignore[misc]
        found[name] = {}
        for label, more in (
            ("1 replica", {"max_replicas": 1}),
            ("2 replicas", {"min_replicas": 2}),
            ("1 replica, 4 together", {"max_replicas": 1, "together": 4}),
        ):
            serve.start(http_options={"port": PORT})
            found[name][label] = measure(given.requests, **more)
            print(name, label, found[name][label], flush=True)
    engine.shutdown()
    given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
