"""``python -m tests.bench.device``: everything that wants a GPU, in one run of at most eight minutes, written as JSON.

Beside the speed it is checked that the device computes what the CPU does in every type, the same again with the same
seed, that a closed run ends at once, and that too little memory leads to smaller batches. On the CPU, with a small
checkpoint, the same is a rehearsal.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from marigold_core import Progress, Settings, load
from marigold_core.pipeline.pipeline import MarigoldPipeline
from tests.bench.processes import ROOT
from tests.bench.stages import photo
from tests.bench.timing import machine, seconds
from training.engine.command import check_json_out

RUN = Settings(num_inference_steps=4, ensemble_size=3, seed=0)
MEMORY_SHARES = (0.7, 0.4, 0.2, 0.1)  # of what a run of ten members takes, until one has to step down
Report = dict[str, Any]


def main() -> None:
    """Run the parts that were asked for while there is time; what fails is written down and the others go on."""
    given = parse_options()
    check_json_out(given.json, ("machine", "checkpoint"))
    end = perf_counter() + 60 * given.minutes
    report: Report = {"machine": machine(torch.device(given.device)), "checkpoint": given.checkpoint}
    parts: dict[str, Callable[[], object]] = {
        "tests": lambda: run_tests(end),
        "types": lambda: compare_types(given.checkpoint, given.device),
        "determinism": lambda: is_deterministic(given.checkpoint, given.device),
        "cancel_s": lambda: time_cancel(given.checkpoint, given.device),
        "memory": lambda: step_down(given.checkpoint, given.device),
        "bench": lambda: run_bench(given, end),
    }
    for name in given.only:
        began = perf_counter()
        try:
            found = parts[name]() if began < end else "no time was left"
        except Exception as error:  # one part must not cost the others
            found = f"{type(error).__name__}: {error}"
        report[name] = {"found": found, "took_s": round(perf_counter() - began, 1)}
        print(name, json.dumps(report[name], default=str), flush=True)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


def run_tests(end: float) -> Report:
    """Run the tests that need CUDA -> pytest's status and last line."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        *map(str, files),
    ]  # all others cost minutes to collect
    limit_s = max(1.0, end - perf_counter())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit_s)
    return {"status": done.returncode, "said": done.stdout.splitlines()[-1:]}


def compare_types(checkpoint: str, device: str) -> Report:
    """Measure how far the map of each type lies from float32 on the CPU, and the time and the memory of a run."""
    expected, found = load(checkpoint, device="cpu", dtype="float32")(photo(), RUN).values, Report()
    for dtype in ("float32", "float16", "bfloat16"):
        pipe = load(checkpoint, device=device, dtype=dtype)
        pipe(photo(), RUN)  # the first run of a device chooses its kernels
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        apart = np.abs(pipe(photo(), RUN).values - expected)
        found[dtype] = {
            "mean": float(apart.mean()),
            "most": float(apart.max()),
            "run_s": {members: _time_run(pipe, members) for members in (1, 10)},
            "memory_mb": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
        }
    return found


def _time_run(pipe: MarigoldPipeline, members: int) -> float:
    settings = RUN.changed(ensemble_size=members, batch_size=members)
    return min(seconds(lambda: pipe(photo(), settings)) for _ in range(3))


def is_deterministic(checkpoint: str, device: str) -> bool:
    """Return whether two runs of one seed have the same values to the last bit."""
    pipe = load(checkpoint, device=device)
    one, other = (pipe(photo(), RUN).values for _ in range(2))
    return bool(np.array_equal(one, other))


def time_cancel(checkpoint: str, device: str) -> float:
    """Time closing a run after its second step, which waits for what the device still computes."""
    events = load(checkpoint, device=device).stream(photo(), RUN.changed(num_inference_steps=50))
    done = 0
    while done < 2:
        event = next(events)
        done = event.done if isinstance(event, Progress) else done
    return seconds(lambda: events.close())  # type: ignore[attr-defined]


def step_down(checkpoint: str, device: str) -> Report:
    """Take memory away until a run of ten members has to go on with fewer at a time -> what it says, by share."""
    if device != "cuda":
        return {"left out": "only CUDA can be given less memory"}
    pipe, told, settings = load(checkpoint, device=device), Report(), RUN.changed(ensemble_size=10, batch_size=10)
    pipe(photo(), settings)  # loads the libraries of the kernels, whose memory is not torch's
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    weights = torch.cuda.memory_reserved()
    pipe(photo(), settings)
    needed, whole = torch.cuda.max_memory_reserved() - weights, torch.cuda.mem_get_info()[1]
    try:
        for share in MEMORY_SHARES:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction((weights + share * needed) / whole)
            events = pipe.stream(photo(), settings)
            notes = [event.stage for event in events if isinstance(event, Progress) and "memory" in event.stage]
            told[str(share)] = notes
            if notes:
                break
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    return told


def run_bench(given: argparse.Namespace, end: float) -> list[Report]:
    """Run ``tests.bench`` on the device in float16 in the time that is left -> its rows."""
    rows = given.json.with_name("device_bench.json")
    words = [
        "--device",
        given.device,
        "--dtype",
        given.dtype,
        "--repeats",
        "3",
        "--batch-size",
        "10",
        "--json",
        str(rows),
    ]
    command = [sys.executable, "-m", "tests.bench", *words, "--only", *given.sections]
    rows.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(max(1.0, end - perf_counter()))
    except subprocess.TimeoutExpired:
        process.send_signal(2)  # it writes what it has measured
        process.wait(30)
    return json.loads(rows.read_text(encoding="utf-8"))["rows"]


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    names = ("types", "determinism", "cancel_s", "memory", "tests", "bench")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.device", description="what wants a GPU, in one run")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--checkpoint", default="nano", help="of every part but the bench")
    parser.add_argument("--minutes", type=float, default=8, help="no part begins after these; the bench ends with them")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float16", help="of the bench")
    parser.add_argument("--sections", nargs="+", default=["aligner", "nano", "public", "grid"], help="of the bench")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, default=ROOT / "outputs" / "device.json", help="file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
