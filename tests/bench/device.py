"""``python -m tests.bench.device``: everything that wants a GPU, in one run of at most eight minutes, written as JSON.

Beside the speed it is checked that the device computes what the CPU and what diffusers do in every type, the same again
with the same seed, that a closed run ends at once, and that too little memory leads to smaller batches. Each part is a
process of its own with a share of the time, so that one that hangs, or loses the device, costs the others nothing.
A rehearsal without a GPU: ``--device cpu --checkpoint nano --sections aligner tiny --dtype float32``.
"""

import argparse
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from marigold_core import Progress, Settings, load
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import write_json
from tests.bench.processes import ROOT
from tests.bench.stages import Rivals, open_theirs, photo
from tests.bench.timing import machine, seconds
from training.engine.command import check_json_out
from training.start import new_checkpoint

RUN = Settings(num_inference_steps=4, ensemble_size=3, seed=0)
DTYPES = ("float32", "float16", "bfloat16")
MEMORY_SHARES = (0.7, 0.4, 0.2, 0.1)  # of what a run of ten members takes, until one has to step down
STOP_S = 15.0  # for another program to end, the bench to write what it has measured
Report = dict[str, Any]
Part = Callable[[argparse.Namespace, float], object]  # of the options and the seconds that it may take


def run_tests(given: argparse.Namespace, limit_s: float) -> Report:
    """Run the tests that need CUDA -> pytest's status and last line."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *map(str, files)]  # to collect all takes minutes
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit_s - STOP_S)
    return {"status": done.returncode, "said": done.stdout.splitlines()[-1:]}


def compare_types(given: argparse.Namespace, limit_s: float) -> Report:
    """Measure how far the map of each type lies from float32 on the CPU, and the time and the memory of a run."""
    expected, found = load(given.checkpoint, device="cpu", dtype="float32")(photo(), RUN).values, Report()
    for dtype in DTYPES:
        pipe = load(given.checkpoint, device=given.device, dtype=dtype)
        pipe(photo(), RUN)  # the first run of a device chooses its kernels
        if given.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        apart = np.abs(pipe(photo(), RUN).values - expected)
        found[dtype] = {
            **_summary(apart),
            "run_s": {members: _time_run(pipe, members) for members in (1, 10)},
            "memory_mb": torch.cuda.max_memory_allocated() / 2**20 if given.device == "cuda" else None,
        }
    return found


def _summary(apart: np.ndarray) -> Report:
    return {"mean": float(apart.mean()), "most": float(apart.max())}


def _time_run(pipe: MarigoldPipeline, members: int) -> float:
    settings = RUN.changed(ensemble_size=members, batch_size=members)
    return min(seconds(lambda: pipe(photo(), settings)) for _ in range(3))


def compare_diffusers(given: argparse.Namespace, limit_s: float) -> Report:
    """Measure how far one member of a small random checkpoint lies from that of diffusers, in each type."""
    found = Report()
    with tempfile.TemporaryDirectory(prefix="marigold-bench-") as scratch:
        folder = new_checkpoint(Path(scratch) / "tiny", "tiny")
        for dtype in DTYPES if given.device == "cuda" else DTYPES[:1]:  # diffusers shrinks photos in it
            ours = load(folder, device=given.device, dtype=dtype)
            theirs = open_theirs(Rivals("tiny", folder, given.device, dtype, 1))
            ours.final_clean = False
            one = Settings(num_inference_steps=4, processing_resolution=192)
            how: Any = {"num_inference_steps": 4, "processing_resolution": 192}
            how["latents"] = ours.member_noise(photo(), one, 0).to(ours.device, ours.dtype)
            expected: Any = theirs(Image.fromarray(photo()), **how)
            found[dtype] = _summary(np.abs(ours(photo(), one).values - np.squeeze(expected.prediction)))
    return found


def is_deterministic(given: argparse.Namespace, limit_s: float) -> bool:
    """Return whether two runs of one seed have the same values to the last bit."""
    pipe = load(given.checkpoint, device=given.device)
    one, other = (pipe(photo(), RUN).values for _ in range(2))
    return bool(np.array_equal(one, other))


def time_cancel(given: argparse.Namespace, limit_s: float) -> float:
    """Time closing a run after its second step, which waits for what the device still computes."""
    events = load(given.checkpoint, device=given.device).stream(photo(), RUN.changed(num_inference_steps=50))
    done = 0
    while done < 2:
        event = next(events)
        done = event.done if isinstance(event, Progress) else done
    return seconds(lambda: events.close())  # type: ignore[attr-defined]


def step_down(given: argparse.Namespace, limit_s: float) -> Report:
    """Take memory away until a run of ten members has to go on with fewer at a time -> what it says, by share."""
    if given.device != "cuda":
        return {"left out": "only CUDA can be given less memory"}
    pipe, told = load(given.checkpoint, device=given.device), Report()
    settings = RUN.changed(ensemble_size=10, batch_size=10)
    pipe(photo(), settings)  # loads the libraries of the kernels, whose memory is not torch's
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    weights = torch.cuda.memory_reserved()
    pipe(photo(), settings)
    needed, whole = torch.cuda.max_memory_reserved() - weights, torch.cuda.mem_get_info()[1]
    for share in MEMORY_SHARES:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((weights + share * needed) / whole)
        events = pipe.stream(photo(), settings)
        notes = [event.stage for event in events if isinstance(event, Progress) and "memory" in event.stage]
        told[str(share)] = notes
        if notes:
            break
    return told


def compile_pays(given: argparse.Namespace, limit_s: float) -> Report:
    """Measure after how many runs of one member compiling the networks has paid; None where it never does."""
    if given.device != "cuda":
        return {"left out": "it pays on CUDA alone"}
    loads, runs, values = list[float](), list[float](), list[np.ndarray]()
    for compiled in (False, True):
        began = perf_counter()
        pipe = load(given.checkpoint, device=given.device, compile=compiled)
        loads.append(perf_counter() - began)
        values.append(pipe(photo(), RUN).values)
        runs.append(_time_run(pipe, 1))
    pays = math.ceil((loads[1] - loads[0]) / (runs[0] - runs[1])) if runs[1] < runs[0] else None
    return {"pays_after_runs": pays, "load_s": loads, "run_s": runs, **_summary(np.abs(values[1] - values[0]))}


def run_bench(given: argparse.Namespace, limit_s: float) -> list[Report]:
    """Run ``tests.bench`` on the device in the time that is left -> its rows."""
    rows = given.json.with_name("device_bench.json")
    words = f"--device {given.device} --dtype {given.dtype} --repeats 3 --batch-size 10".split()
    command = [sys.executable, "-m", "tests.bench", *words, "--json", str(rows), "--only", *given.sections]
    rows.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(max(1.0, limit_s - 2 * STOP_S))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it writes what it has measured
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:
        process.kill()
    return json.loads(rows.read_text(encoding="utf-8"))["rows"]


def describe(given: argparse.Namespace, limit_s: float) -> Report:
    """What the figures depend on."""
    return machine(torch.device(given.device))


PARTS: dict[str, tuple[float, Part]] = {  # the most of the time that each may take
    "machine": (0.1, describe),
    "types": (0.2, compare_types),
    "diffusers": (0.1, compare_diffusers),
    "determinism": (0.1, is_deterministic),
    "cancel_s": (0.1, time_cancel),
    "memory": (0.1, step_down),
    "compile": (0.3, compile_pays),
    "tests": (0.15, run_tests),
    "bench": (1.0, run_bench),
}


def main() -> None:
    """Run the parts that were asked for while there is time; what fails is written down and the others go on."""
    given = parse_options()
    check_json_out(given.json, ("machine", "checkpoint"))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    end = perf_counter() + 60 * given.minutes
    report: Report = {"checkpoint": given.checkpoint}
    for name in ("machine", *given.only):
        began = perf_counter()
        share, part = PARTS[name]
        limit_s = min(share * 60 * given.minutes, end - began)
        found = within(limit_s, part, given) if limit_s > 0 else "no time was left"
        report[name] = found if name == "machine" else {"found": found, "took_s": round(perf_counter() - began, 1)}
        print(name, json.dumps(report[name]), flush=True)
        write_json(given.json, report)


def within(limit_s: float, part: Part, given: argparse.Namespace) -> object:
    """Run a part in a process of its own, which is ended when its time is up -> what it found, or why it did not."""
    context = multiprocessing.get_context("spawn")  # forked ones would wait for threads that they do not have
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, part, given, monotonic() + limit_s))
    process.start()
    assert process.pid
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit_s) else f"took longer than {limit_s:.0f} s"
    except EOFError:
        return "its process ended"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.kill()
        process.join()


def _send(sender: Any, part: Part, given: argparse.Namespace, end: float) -> None:
    os.setsid()
    try:
        found = part(given, end - monotonic())
    except Exception as error:  # one part must not cost the others
        found = f"{type(error).__name__}: {error}"
    sender.send(json.loads(json.dumps(found, default=str)))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    names = [name for name in PARTS if name != "machine"]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.device", description="what wants a GPU, in one run")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--checkpoint", default="nano", help="of every part but the bench")
    parser.add_argument("--minutes", type=float, default=8, help="in which all ends; each part has a share of them")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float16", help="of the bench")
    parser.add_argument("--sections", nargs="+", default=["aligner", "nano", "public", "grid"], help="of the bench")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, default=ROOT / "outputs" / "device.json", help="file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
