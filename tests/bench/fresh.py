"""One side in a process of its own: ``python -m tests.bench.fresh ours|theirs FOLDER DEVICE DTYPE MEMBERS RUNS``.

It prints JSON: what a person waits for who starts from nothing, the last of the runs alone, and the memory it takes.
Nothing heavy may be imported up here.
"""

import json
import sys
from pathlib import Path
from time import perf_counter, time

import psutil


def main(side: str, folder: str, device: str, dtype: str, members: str, runs: str) -> None:
    """Import, load, and predict one picture of 768 x 576 in four steps, as often as asked."""
    began = perf_counter()
    if side == "ours":
        from marigold_core import Settings, load

        pipe = load(folder, device=device, dtype=dtype)
        photo, settings = _photo(), Settings(num_inference_steps=4, ensemble_size=int(members))

        def run() -> None:
            pipe(photo, settings)
    else:
        import torch
        from diffusers import MarigoldDepthPipeline
        from PIL import Image

        pipe = MarigoldDepthPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
        pipe.set_progress_bar_config(disable=True)
        pipe.to(device)
        photo = Image.fromarray(_photo())

        def run() -> None:
            pipe(photo, num_inference_steps=4, ensemble_size=int(members), output_uncertainty=int(members) > 2)

    loaded = perf_counter()
    run()
    found = {"load": loaded - began, "first picture": time() - psutil.Process().create_time()}
    again = perf_counter() if int(runs) > 1 else loaded
    for _ in range(int(runs) - 1):
        again = perf_counter()
        run()
    print(json.dumps({**found, "whole run": perf_counter() - again, "peak memory": _peak_mb()}))


def _photo():
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (576, 768, 3), dtype=np.uint8)


def _peak_mb() -> float:
    """Most resident memory so far. getrusage would not do: on Linux a child inherits its parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main(*sys.argv[1:])
