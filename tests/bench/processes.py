"""What a person waits for: fresh processes of both sides, and the page of the app."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from time import perf_counter, sleep

from tests.bench.stages import STEPS, Rivals
from tests.bench.timing import Row

ROOT = Path(__file__).resolve().parents[2]
PAGE_LIMIT_S = 120
UNITS = {"load": "s", "first picture": "s", "peak memory": "MB"}
TITLES = {"load": "import and load", "first picture": "first picture, from nothing", "peak memory": "peak memory"}


def measure_fresh(rivals: Rivals, repeats: int) -> list[Row]:
    """Start both sides by turns in processes of their own; the medians exclude nothing but a first, cold round."""
    rows = {part: Row(rivals.checkpoint, TITLES[part], unit, [], []) for part, unit in UNITS.items()}
    for number in range(repeats + 1):
        for side in ("ours", "theirs"):
            found = _run_fresh(side, rivals)
            if number:
                for part, row in rows.items():
                    getattr(row, side).append(found[part])
    return list(rows.values())


def measure_runs(rivals: Rivals) -> list[Row]:
    """Time whole runs of one member and of four, and their peak memory, each in a process of its own.

    A run of one member is the second of its process; one of four is the first, which costs a second of a minute.
    """
    rows: list[Row] = []
    for members, runs in ((1, 2), (4, 1)):
        found = {side: _run_fresh(side, rivals, members, runs) for side in ("ours", "theirs")}
        for part, unit in (("whole run", "s"), ("peak memory", "MB")):
            samples = [[found[side][part]] for side in ("ours", "theirs")]
            rows.append(Row(rivals.checkpoint, f"{part}, {STEPS} steps, E={members}", unit, *samples))
    return rows


def measure_page(checkpoint: str | Path, repeats: int) -> Row:
    """Time from starting ``app.py`` to its page answering."""
    return Row("-", "page up", "s", [_page_up_s(checkpoint) for _ in range(repeats)])


def _run_fresh(side: str, rivals: Rivals, members: int = 1, runs: int = 1) -> dict[str, float]:
    how = [str(rivals.folder), rivals.device, rivals.dtype, str(members), str(runs)]
    command = [sys.executable, "-m", "tests.bench.fresh", side, *how]
    done = subprocess.run(command, cwd=ROOT, env=_offline(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _page_up_s(checkpoint: str | Path) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = _offline() | {"GRADIO_SERVER_PORT": str(port), "MARIGOLD_MODEL": str(checkpoint)}
    with tempfile.TemporaryFile() as log:
        began = perf_counter()
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while perf_counter() - began < PAGE_LIMIT_S and app.poll() is None:
                if _answers(port):
                    return perf_counter() - began
                sleep(0.02)
            log.seek(0)
            raise RuntimeError(f"The page did not come up in {PAGE_LIMIT_S} s:\n{log.read().decode(errors='replace')}")
        finally:
            app.terminate()
            app.wait(timeout=30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _offline() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1"}
