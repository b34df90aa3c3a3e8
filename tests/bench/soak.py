"""The server under visitors who come, leave, cancel and send rubbish: nothing grows, nothing is lost or mixed up.

    python -m tests.bench.soak                        # 2,000 jobs, 50 cancelled ones, 20 that hang up; about 15 minutes
    python -m tests.bench.soak --jobs 100 --cancels 5 --disconnects 3
    python -m tests.bench.soak --clients 32 --jobs 192 --steps 25 --cancels 0 --disconnects 0   # a class: 32 x 6 jobs

The model only waits (``tests.helpers.slow_app``), so that the figures are those of everything around it. They are
added to ``tests/bench/soak.json``, unless ``--output`` names another file, in the place of older ones of the same
command.
"""

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from marigold_core.storage import write_json
from tests.bench.timing import machine
from tests.helpers.app_server import ROOT, serve
from tests.helpers.slow_app import STEP_S, inside

SETTLED = 1000  # jobs after which memory counts: of so many sessions Gradio keeps what it holds
WIDTHS = range(32, 32 + 8 * 32, 8)  # of photos, which tell jobs apart


WAITING = re.compile(r"waiting: \d+ jobs? (is|are) before this one, about")


@dataclass
class Server:
    """A running app over the model that waits."""

    web: httpx.Client
    notes: Path
    work: Path
    process: psutil.Process
    parameters: list[dict[str, Any]] = field(default_factory=list)
    waited: int = 0  # jobs that were told their place and their time

    def __post_init__(self) -> None:
        info = self.web.get("/gradio_api/info").json()
        self.parameters = info["named_endpoints"]["/predict_depth"]["parameters"]

    @property
    def url(self) -> str:
        """Its address."""
        return str(self.web.base_url).rstrip("/")

    def upload(self, width: int, name: str = "a.png") -> str:
        picture = BytesIO()
        Image.new("RGB", (width, 40), (width % 256, 90, 120)).save(picture, "PNG")
        answer = self.web.post("/gradio_api/upload", files={"files": (name, picture.getvalue())})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def submit(self, path: str, steps: int = 1) -> str:
        """Ask for the depth of an upload -> the id of the job."""
        answer = self.ask(path, steps)
        assert answer.status_code == 200, answer.text
        return answer.json()["event_id"]

    def ask(self, path: str, steps: int = 1) -> httpx.Response:
        """Ask for the depth of an upload, again where the pace is held back -> the answer."""
        asked = {
            "photo": {"path": path, "meta": {"_type": "gradio.FileData"}},
            "num_inference_steps": steps,
            "formats": ["npy"],
        }
        data = [asked.get(one["parameter_name"], one.get("parameter_default")) for one in self.parameters]
        for _ in range(20):  # a client waits when it is told to
            answer = self.web.post("/gradio_api/call/predict_depth", json={"data": data})
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["retry-after"]))
        return answer

    def result(self, job: str) -> dict[str, Any]:
        """Wait for a job -> what it gave."""
        told = self.web.get(f"/gradio_api/call/predict_depth/{job}").text
        self.waited += WAITING.search(told) is not None
        events = told.split("\n\n")
        name, _, content = events[-2].partition("\ndata: ")
        assert name == "event: complete", events[-2]
        return json.loads(content)[0]

    def hang_up(self, job: str, seconds: float) -> float:
        """Listen to a job for some seconds, then close the connection -> when, by ``time.monotonic``."""
        with self.web.stream("GET", f"/gradio_api/call/predict_depth/{job}"):
            time.sleep(seconds)
        return time.monotonic()

    def wait_until_idle(self, most_s: float = 60) -> float:
        """Wait until no job is in the model -> when the last one left."""
        deadline = time.monotonic() + most_s
        while time.monotonic() < deadline:
            moments = inside(self.notes)
            if moments and moments[-1][1] == 0:
                return moments[-1][0]
            time.sleep(0.02)
        raise AssertionError("a job is still in the model")

    def wait_until_busy(self, entered: int, most_s: float = 60) -> None:
        """Wait until more than ``entered`` moments were noted."""
        deadline = time.monotonic() + most_s
        while len(inside(self.notes)) <= entered:
            assert time.monotonic() < deadline, "no job came into the model"
            time.sleep(0.01)

    def held(self) -> dict[str, int]:
        """What the server holds."""
        return {
            "rss": self.process.memory_info().rss,
            "files": self.process.num_fds(),
            "threads": self.process.num_threads(),
            "disk": sum(path.stat().st_size for path in self.work.rglob("*") if path.is_file()),
        }


@dataclass
class Figures:
    """What was measured."""

    jobs: int = 0
    lost_or_mixed_up: int = 0
    most_inside: int = 0
    free_after_s: list[float] = field(default_factory=list)  # of jobs that were cancelled or hung up
    took_s: list[float] = field(default_factory=list)  # by each job, from its being asked for to its result
    held: list[dict[str, int]] = field(default_factory=list)  # after each hundred jobs

    @property
    def growth_mib(self) -> float:
        """MiB of memory gained for a thousand jobs after the first ``SETTLED``."""
        later = [one["rss"] for one in self.held[SETTLED // 100 :]]
        return float(np.polyfit(np.arange(len(later)) / 10, later, 1)[0]) / 2**20 if len(later) > 1 else 0.0


def leave_early(server: Server, count: int, hang_up: bool, seed: int = 0) -> list[float]:
    """Begin long jobs one after another and leave each at a random moment -> seconds until the model is free."""
    from gradio_client import Client, handle_file

    rng, free = np.random.default_rng(seed), list[float]()
    client = None if hang_up else Client(server.url, verbose=False)
    path = server.upload(64)
    for _ in range(count):
        entered, moment = len(inside(server.notes)), float(rng.uniform(0.05, 0.6))
        if client is None:
            job = server.submit(path, 50)
            server.wait_until_busy(entered)
            left = server.hang_up(job, moment)
        else:
            photo = handle_file(path) if Path(path).exists() else path
            running = client.submit(photo, num_inference_steps=50, ensemble_size=1, api_name="/predict_depth")
            server.wait_until_busy(entered)
            time.sleep(moment)
            left = time.monotonic()
            running.cancel()
        free.append(max(0.0, server.wait_until_idle() - left))
    return free


def many_jobs(server: Server, count: int, figures: Figures, clients: int = 4, steps: int = 1) -> None:
    """Do jobs from several clients, one in twenty with a file that is no photo, and look at what the server holds."""
    todo, lock = iter(range(count)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            width = WIDTHS[number % len(WIDTHS)]
            try:
                path, began = server.upload(width), time.monotonic()
                right = server.result(server.submit(path, steps))["manifest"]["photo"]["width"] == width
                took_s = time.monotonic() - began
                if number % 20 == 0:
                    refused = server.web.post(
                        "/gradio_api/call/predict_depth", json={"data": [{"path": "/etc/passwd"}]}
                    )
                    right &= refused.status_code == 400
            except (AssertionError, KeyError, httpx.HTTPError):
                right, took_s = False, float("nan")
            with lock:
                figures.jobs += 1
                figures.took_s.append(took_s)
                figures.lost_or_mixed_up += not right
                if figures.jobs % 100 == 0:
                    figures.held.append(server.held())

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def running(folder: Path, name: str = "notes") -> Iterator[Server]:
    """Run the app over the model that waits, its files in ``folder``, what it does noted under this name."""
    notes = folder / f"{name}.jsonl"
    notes.unlink(missing_ok=True)
    with serve("nano", folder, (sys.executable, "-m", "tests.helpers.slow_app", str(notes)), ROOT) as url:
        port = int(url.rsplit(":", 1)[1])
        children = psutil.Process().children()
        (process,) = (one for one in children if any(c.laddr.port == port for c in one.net_connections("tcp")))
        with httpx.Client(base_url=url, timeout=300, limits=httpx.Limits(max_connections=64)) as web:
            yield Server(web, notes, folder / "work", process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--disconnects", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    asked = parser.parse_args()
    figures = Figures()
    with TemporaryDirectory() as temporary, running(Path(temporary)) as server:
        figures.free_after_s = leave_early(server, asked.cancels, hang_up=False)
        figures.free_after_s += leave_early(server, asked.disconnects, hang_up=True)
        many_jobs(server, asked.jobs, figures, asked.clients, asked.steps)
        figures.most_inside = max(count for _, count in inside(server.notes))
    p95_s, in_turn_s = float(np.nanpercentile(figures.took_s, 95)), asked.clients * asked.steps * STEP_S
    made_with = {name: value for name, value in vars(asked).items() if name != "output"}
    record = {"machine": machine(torch.device("cpu")), **asdict(figures), "p95_s": p95_s}
    record["growth_mib"] = figures.growth_mib
    del record["took_s"]  # one of each job
    others = json.loads(asked.output.read_text()) if asked.output.exists() else {}
    words = " ".join(f"--{name} {value}" for name, value in made_with.items())
    write_json(asked.output, others | {f"python -m tests.bench.soak {words}": record})
    free_s = max(figures.free_after_s, default=0.0)
    print(f"at most {figures.most_inside} in the model; free after {free_s:.2f} s (a step: {STEP_S} s)")
    print(f"95 % of the jobs within {p95_s:.1f} s; a job of each client in turn takes the model {in_turn_s:.1f} s")
    print(
        f"{figures.lost_or_mixed_up} of {figures.jobs} lost or mixed up; {figures.growth_mib:.1f} MiB a thousand jobs"
    )


if __name__ == "__main__":
    main()
